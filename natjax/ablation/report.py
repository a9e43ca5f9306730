"""The table of a grid: its cells, as Markdown, and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from natjax.ablation.order import Comparison, compare
from natjax.ablation.place import Place
from natjax.ablation.results import RowResult
from natjax.config import to_json
from natjax.evaluation.report import commit, machine, versions

FOOTNOTE = "* which row this number is of was inferred: the paper's table, flattened, does not say it plainly."
ORDER = (
    "The paper's order, by mean BLEU; in brackets the least and the greatest difference between a run of the one and "
    "a run of the other. holds: all are above zero. undecided: some are."
)

_NOT_RUN = "not run"


def headings(results: Sequence[RowResult]) -> list[str]:
    """Of the table's columns; exactly valid translations are known for the embedded corpus alone."""
    valid = ["valid %"] if _has_valid(results) else []
    return ["row", "runs", "BLEU", "range", "chrF2++", "BP", "repeats %", *valid, "seconds", "updates", "paper's BLEU"]


def cells(result: RowResult, results: Sequence[RowResult]) -> list[str]:
    """A row of the table."""
    paper = f"{result.row.paper_bleu:.2f}{'*' if result.row.inferred else ''}"
    count = len(headings(results))
    if not result.runs:
        return [result.row.label, "0", _NOT_RUN, *["-"] * (count - 4), paper]
    low, high = result.range("bleu")
    valid = [_mean(result, "exactly_valid", "{:.1f}")] if _has_valid(results) else []
    return [
        result.row.label,
        str(len(result.runs)),
        _mean(result, "bleu", "{:.2f}"),
        f"{low:.2f} to {high:.2f}" if len(result.runs) > 1 else "-",
        _mean(result, "chrf", "{:.2f}"),
        _mean(result, "bp", "{:.3f}"),
        _mean(result, "repetition_rate", "{:.2f}"),
        *valid,
        _mean(result, "training_seconds", "{:,.0f}"),
        _mean(result, "updates", "{:,.0f}"),
        paper,
    ]


def order_line(comparison: Comparison) -> str:
    """One claim and its verdict."""
    rows = f"{comparison.claim}: {comparison.better.label} - {comparison.worse.label}"
    paper = f"paper {comparison.paper_difference:+.2f}"
    if comparison.difference is None:
        return f"{rows}: {_NOT_RUN} ({paper})"
    spread = f"[{comparison.low:+.2f} to {comparison.high:+.2f}]"
    return f"{rows}: {comparison.difference:+.2f} {spread}, {comparison.verdict} ({paper})"


def title(place: Place, results: Sequence[RowResult]) -> str:
    """What was measured, on what."""
    seeds = sorted({run["seed"] for result in results for run in result.runs})
    said = f"seeds {', '.join(map(str, seeds))}" if seeds else "no run yet"
    return f"{place.config.name}, {_data(place)}; {said}; beside it the paper's BLEU, WMT14 English-German"


def markdown(place: Place, results: Sequence[RowResult]) -> str:
    """The whole report."""
    columns = headings(results)
    lines = ["# Ablation", "", title(place, results), "", _markdown_row(columns)]
    lines.append(_markdown_row(["---", *["---:"] * (len(columns) - 1)]))
    lines += [_markdown_row(cells(result, results)) for result in results]
    lines += ["", FOOTNOTE.replace("*", r"\*"), "", ORDER, ""]
    lines += [f"- {order_line(comparison)}" for comparison in compare(results)]
    return "\n".join(lines) + "\n"


def as_json(place: Place, results: Sequence[RowResult]) -> str:
    """The same for programs, every run with all of its figures."""
    rows = [
        {"row": r.row.name, **r.row._asdict(), "bleu": r.mean("bleu"), "bleu_range": r.range("bleu"), "runs": r.runs}
        for r in results
    ]
    about: dict[str, Any] = {
        "grid": place.grid, "data": _data(place), "config": json.loads(to_json(place.config)), "commit": commit(),
        "machine": machine(), "versions": versions(), "rows": rows, "order": [c.as_dict() for c in compare(results)],
    }  # fmt: skip
    return json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _data(place: Place) -> str:
    kind = "with all valid translations" if place.difficulty else "with one reference each"
    where = f"embedded corpus {place.difficulty}" if place.difficulty else " against ".join(place.test_names)
    return f"{where}, {len(place.test.sources):,} test sentences {kind}"


def _has_valid(results: Sequence[RowResult]) -> bool:
    return any(result.values("exactly_valid") for result in results)


def _mean(result: RowResult, metric: str, form: str) -> str:
    mean = result.mean(metric)
    return "-" if mean is None else form.format(mean)


def _markdown_row(columns: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|").replace("*", r"\*") for cell in columns]
    return f"| {' | '.join(escaped)} |"
