"""Verbs that do one of several things: `natjax analyze data`, `natjax lm train`."""

import argparse
from collections.abc import Mapping
from types import ModuleType


def add_whats(parser: argparse.ArgumentParser, modules: Mapping[str, ModuleType]) -> None:
    """Declares what there is to do, each with the options and the help of its own module; `args.what` names it."""
    whats = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for what, module in modules.items():
        module.add_arguments(
            whats.add_parser(
                what,
                help=module.SUMMARY,
                description=module.SUMMARY,
                epilog=module.EPILOG,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
        )
