"""natjax lm import: an ARPA file as the tables that translating takes."""

import argparse
from pathlib import Path

from natjax.cli.lm_train import describe

SUMMARY = "take an n-gram model from an ARPA file over the model's own pieces"
EPILOG = """examples:
  natjax lm import --model runs/student --arpa lm.arpa
  natjax lm import --model runs/student --arpa lm.arpa.gz --output lm

The file's words must be pieces of the model's target vocabulary; <s>, </s> and <unk> are what they are everywhere.
KenLM's binaries are read by KenLM alone: give the ARPA file that they were built from.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train`")
    parser.add_argument("--arpa", metavar="F", required=True, help="the ARPA file; gzip too")
    parser.add_argument("--output", metavar="DIR", help="the folder to make (default: W/lm)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Reads and writes. Raises UserError, and Interrupted when a signal comes."""
    from natjax.cli.console import WorkView
    from natjax.data.vocab import Vocabularies
    from natjax.lm import make_tables, read_arpa
    from natjax.lm.storage import check_free, save_tables
    from natjax.training.preemption import StopRequest

    output = Path(args.output or Path(args.model) / "lm")
    vocabulary = Vocabularies.load(args.model).target
    check_free(output)
    with StopRequest(), WorkView("reading", "n-grams") as view:
        model = read_arpa(args.arpa, vocabulary.pieces(range(len(vocabulary))), progress=view.progress)
        tables = make_tables(model)
        about = {"arpa": args.arpa, "counts": model.counts}
        save_tables(output, tables, vocabulary=vocabulary.fingerprint, about=about)
        view.say(describe(output, tables))
    return 0
