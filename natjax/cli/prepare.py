"""natjax prepare: corpus -> vocabulary -> token store."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from natjax.cli.overrides import add_config, config_of

SUMMARY = "corpus to vocabulary and token store; `natjax train` does it too when the store is not there"
EPILOG = """examples:
  natjax prepare multi30k_en_de                                         writes stores/multi30k_en_de
  natjax prepare configs/multi30k_en_de.py --workdir runs/m30k          writes runs/m30k/store
  natjax prepare multi30k_en_de --data.store stores/m30k --vocab.size 6000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    add_config(parser)
    parser.add_argument(
        "--workdir", metavar="W", help="the store goes into W/store; without, into data.store or stores/NAME"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Prepares the store; counts of what was dropped go to stderr."""
    from natjax.config import expand
    from natjax.data.prepare import prepare
    from natjax.training import workdir
    from natjax.training.preemption import StopRequest

    config = config_of(args, rest)
    if config is None:
        return 0
    inside = Path(args.workdir) / "store" if args.workdir else Path("stores") / config.name
    folder = Path(expand(config.data.store)) if config.data.store else inside
    with StopRequest(), workdir.locked(Path(args.workdir)) if args.workdir else nullcontext():
        if args.workdir:
            workdir.check(Path(args.workdir), config)
        prepare(config, folder, lambda line: print(line, file=sys.stderr))
    if not args.workdir:
        print(f"train on it with --data.store {folder}", file=sys.stderr)
    return 0
