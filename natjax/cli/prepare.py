"""natjax prepare: corpus -> vocabulary -> token store."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from natjax.cli.overrides import add_config, config_of

SUMMARY = "corpus to vocabulary and token store; `natjax train` does it too when the store is not there"
EPILOG = """examples:
  natjax prepare multi30k_en_de                                         writes stores/multi30k_en_de
  natjax prepare configs/multi30k_en_de.py --workdir runs/m30k          writes runs/m30k/store
  natjax prepare multi30k_en_de --data.store stores/m30k --vocab.size 6000
  natjax prepare multi30k_en_de --processes 8                           the store is the same for any number
  natjax prepare multi30k_en_de --verify                                makes nothing: compares a store's checksums
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    add_config(parser)
    parser.add_argument(
        "--workdir", metavar="W", help="the store goes into W/store; without, into data.store or stores/NAME"
    )
    parser.add_argument("--processes", type=_positive, metavar="N", help="how many encode text; without, one a core")
    parser.add_argument("--verify", action="store_true", help="compare a store that is there with its checksums")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Prepares the store, or verifies it; counts of what was dropped, and progress, go to stderr."""
    from natjax.cli.console import WorkView
    from natjax.config import expand
    from natjax.data.prepare import open_prepared, prepare
    from natjax.training import workdir
    from natjax.training.preemption import StopRequest

    config = config_of(args, rest)
    if config is None:
        return 0
    inside = Path(args.workdir) / "store" if args.workdir else Path("stores") / config.name
    folder = Path(expand(config.data.store)) if config.data.store else inside
    with StopRequest(), WorkView("preparing", "pairs") as view:
        if args.verify:
            store, _ = open_prepared(config, folder, verify=True)
            view.line(f"{folder}: {store.split('train').rows:,} training pairs; all files are as they were made")
            return 0
        with workdir.locked(Path(args.workdir)) if args.workdir else nullcontext():
            if args.workdir:
                workdir.check(Path(args.workdir), config)
            prepare(config, folder, view.line, processes=args.processes, progress=view.progress)
            open_prepared(config, folder)  # verified here, so that no training has to
        if not args.workdir:
            view.line(f"train on it with --data.store {folder}")
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes; give 1 or more")
    return int(text)
