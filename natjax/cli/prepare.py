"""natjax prepare: corpus -> vocabulary -> token store."""

import argparse
import sys
from pathlib import Path

from natjax.errors import UserError

SUMMARY = "corpus to vocabulary and token store; `natjax train` does it too when the store is not there"
EPILOG = """examples:
  natjax prepare configs/multi30k_en_de.py --workdir runs/m30k          writes runs/m30k/store
  natjax prepare multi30k_en_de --data.store stores/m30k --vocab.size 6000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that ships with natjax")
    parser.add_argument("--workdir", metavar="W", help="the store goes into W/store unless data.store names a folder")
    parser.add_argument("--fields", action="store_true", help="list every --section.field with its value, and leave")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Prepares the store; counts of what was dropped go to stderr."""
    from natjax.cli.overrides import config_of
    from natjax.data.prepare import prepare

    config = config_of(args, rest)
    if config is None:
        return 0
    if not (config.data.store or args.workdir):
        raise UserError("no place for the store; give --workdir W or --data.store FOLDER")
    folder = Path(config.data.store) if config.data.store else Path(args.workdir) / "store"
    prepare(config, folder, lambda line: print(line, file=sys.stderr))
    return 0
