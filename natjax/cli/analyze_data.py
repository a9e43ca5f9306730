"""natjax analyze data: what data are like."""

import argparse
import json
from typing import TYPE_CHECKING

from natjax.errors import UserError

if TYPE_CHECKING:
    from natjax.analysis.data import DataReport

SUMMARY = "what a parallel corpus is like, and what another target side changes: ambiguity, reordering, words"
EPILOG = """examples:
  natjax analyze data --source train.en --target train.de
  natjax analyze data --source train.en --target train.de --other-target train.distilled.de --json

The measures are those that distillation is meant to change: conditional entropy of target words given the source word
that they are aligned with (Zhou et al. 2020), order kept (fuzzy reordering score), length ratio, words used, copies,
repetitions. docs/distillation.md tells how each is computed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--source", metavar="F", required=True, help="source text, one sentence a line")
    parser.add_argument("--target", metavar="F", required=True, help="its target text")
    parser.add_argument("--other-target", metavar="F", help="another target text of the same source, to compare")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Measures and prints. Raises UserError for files that cannot be used."""
    if rest:
        raise UserError(f"unknown argument {rest[0]!r}; see `natjax analyze data --help`")
    from natjax.analysis.data import compare
    from natjax.data.corpus import read_parallel

    names = [name for name in (args.target, args.other_target) if name]
    texts = [read_parallel(args.source, name) for name in names]
    reports = compare(lambda: zip(texts[0][0], *(targets for _, targets in texts), strict=True))
    if args.json:
        print(json.dumps({name: report.as_dict() for name, report in zip(("target", "other_target"), reports)}))
    else:
        print_table(dict(zip(names, reports)))
    return 0


_ROWS = {
    "conditional_entropy": ("conditional entropy (nats)", "{:.3f}"),
    "monotonicity": ("order kept (1: all)", "{:.3f}"),
    "length_ratio": ("target / source tokens", "{:.3f}"),
    "target_types": ("target vocabulary used", "{:,}"),
    "target_tokens": ("target tokens", "{:,}"),
    "type_token_ratio": ("types / tokens", "{:.4f}"),
    "copied_percent": ("target equals source", "{:.2f}%"),
    "repeated_percent": ("repeated words", "{:.2f}%"),
    "pairs": ("pairs", "{:,}"),
    "aligned_pairs": ("of these aligned", "{:,}"),
}


def print_table(reports: "dict[str, DataReport]") -> None:
    """Prints reports side by side, each under its heading."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", box=SIMPLE)
    for heading in reports:
        table.add_column(escape(heading), justify="right")
    for field, (label, form) in _ROWS.items():
        values = [getattr(report, field) for report in reports.values()]
        table.add_row(label, *("-" if value is None else form.format(value) for value in values))
    Console().print(table)
