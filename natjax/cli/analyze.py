"""natjax analyze: one module of `cli` for each thing that can be looked at."""

import argparse

from natjax.cli import analyze_ablation, analyze_data
from natjax.cli.whats import add_whats

SUMMARY = "what data are like; what each technique of the paper does"
EPILOG = """examples:
  natjax analyze data --source train.en --target train.de
  natjax analyze ablation table4 --output runs/table4

Each has its own help: natjax analyze data --help, natjax analyze ablation --help.
"""

_WHATS = {"data": analyze_data, "ablation": analyze_ablation}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what there is to analyze, each with options of its own."""
    add_whats(parser, _WHATS)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Runs the one that was named."""
    return _WHATS[args.what].run(args, rest)
