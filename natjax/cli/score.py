"""natjax score: how probable a model finds given translations."""

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from natjax.decoding.scoring import Score

SUMMARY = "log-probability of given translations"
EPILOG = """examples:
  natjax score --model runs/teacher --source test.en --target test.de
  natjax score --model runs/teacher --source a.en.gz --target a.de.gz --json | jq .mean
  natjax score --model W --source in.en --target in.de | paste - in.en in.de | sort -gr -k2    # the likeliest first

One line a pair, in order: the log-probability of the target in nats, its mean by token, and the tokens, separated by
tabs. Tokens are pieces, and eos where the model's targets end in one, which those of autoregressive models do. An
autoregressive model is given the target word by word; one trained with CTC sums over all alignments, and says -inf
(null with --json) where a source has too few frames for the target. An empty line is a sentence without pieces. A
line that is too long ends the program before anything is scored.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train` or `natjax demo`")
    parser.add_argument("--source", metavar="F", required=True, help="source text, one sentence a line; .gz too")
    parser.add_argument("--target", metavar="F", required=True, help="its translations, line by line")
    parser.add_argument("--json", action="store_true", help='one JSON object a line: {"sum", "mean", "tokens"}')


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Scores, prints, returns 0.

    Raises:
        UserError: the files or the model cannot be used, or the model gives translations no probability.
    """
    from natjax.cli.runtime import set_up_jax
    from natjax.data.corpus import read_parallel

    sources, targets = read_parallel(args.source, args.target)
    set_up_jax()
    from natjax.translator import Translator

    translator = Translator.load(args.model, say=lambda line: print(f"natjax: {line}", file=sys.stderr))
    form = _json if args.json else _columns
    sys.stdout.writelines(form(score) + "\n" for score in translator.score(sources, targets))
    return 0


def _columns(score: "Score") -> str:
    return f"{score.sum:.6f}\t{score.mean:.6f}\t{score.tokens}"


def _json(score: "Score") -> str:
    return json.dumps({name: value if math.isfinite(value) else None for name, value in score._asdict().items()})
