"""natjax lm query: how probable a language model finds text."""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from natjax.errors import DataError

SUMMARY = "log-probability of each line, and the perplexity of all"
EPILOG = """examples:
  natjax lm query --model runs/student < test.de > scores
  natjax lm query --model runs/student --lm lm3 < test.de > /dev/null        the perplexity alone

One line a sentence, in order: its log-probability in nats, its tokens, and how many of them the language model does not
know, separated by tabs. Tokens are pieces, and one end. The perplexity of all lines goes to stderr.
"""

_BLOCK = 2048  # lines that are scored together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train`")
    parser.add_argument("--lm", metavar="DIR", help="the language model (default: W/lm)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Scores stdin. Raises UserError: the models cannot be used, or stdin cannot be read."""
    from natjax.cli.runtime import set_up_jax
    from natjax.data.corpus import normalise
    from natjax.data.vocab import Vocabularies

    vocabulary = Vocabularies.load(args.model).target
    set_up_jax()
    import jax
    import numpy as np

    from natjax.lm import Perplexity, load_tables, score_sentences
    from natjax.typing import UNK

    tables = load_tables(args.lm or Path(args.model) / "lm", vocabulary=vocabulary.fingerprint)
    unlisted = tables.aliases == UNK
    tables = jax.device_put(tables)
    total = Perplexity(0, 0, 0, 0.0, 0.0)
    for lines in _blocks():
        rows = vocabulary.encode([normalise(line) for line in lines])
        for row, scores in zip(rows, score_sentences(tables, rows), strict=True):
            unknown = np.append(unlisted[row], False) if row else np.zeros(1, bool)
            scores = scores.astype(np.float64)
            found = Perplexity(1, len(scores), int(unknown.sum()), scores.sum(), scores[~unknown].sum())
            total += found
            sys.stdout.write(f"{found.log_prob:.6f}\t{found.tokens}\t{found.unknown}\n")
        sys.stdout.flush()
    print(f"natjax: {total.describe()}", file=sys.stderr)
    return 0


def _blocks() -> Iterator[list[str]]:
    """The lines of stdin. Raises DataError for one that is not UTF-8, once those before it have been given out."""
    if sys.stdin is None or sys.stdin.closed:
        raise DataError("stdin is closed; give the text as `natjax lm query ... < file`")
    number = 0
    while raw := list(islice(sys.stdin.buffer, _BLOCK)):
        lines, error = [], None
        for line in raw:
            number += 1
            try:
                lines.append(line.decode().rstrip("\r\n"))
            except UnicodeDecodeError as fault:
                error = DataError(f"stdin:{number}: not UTF-8 (byte {fault.start} of the line); convert it with iconv")
                break
        if lines:
            yield lines
        if error:
            raise error
