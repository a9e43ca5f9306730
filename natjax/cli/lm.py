"""natjax lm: one module of `cli` for each thing that is done with n-gram language models."""

import argparse

from natjax.cli import lm_import, lm_query, lm_train
from natjax.cli.whats import add_whats

SUMMARY = "n-gram language models over a model's own pieces: train, import, query"
EPILOG = """examples:
  natjax lm train --model runs/m30k                             on the targets that the model was trained on
  natjax lm import --model runs/m30k --arpa lm.arpa             one that KenLM or SRILM has estimated
  natjax lm query --model runs/m30k < test.de > scores

Each has its own help: natjax lm train --help, natjax lm import --help, natjax lm query --help.
"""

_WHATS = {"train": lm_train, "import": lm_import, "query": lm_query}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what there is to do, each with options of its own."""
    add_whats(parser, _WHATS)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Does the one that was named."""
    return _WHATS[args.what].run(args, rest)
