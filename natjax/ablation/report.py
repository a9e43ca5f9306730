"""The table of a grid: its cells, as Markdown, and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from natjax.ablation.order import Comparison, compare
from natjax.ablation.place import Place
from natjax.ablation.results import TECHNIQUES, RowResult
from natjax.config import to_json
from natjax.evaluation.report import commit, machine, versions

FOOTNOTE = "* which row this number is of was inferred: the paper's table, flattened, does not say it plainly."
ORDER = (
    "The paper's order, by mean BLEU; in brackets the least and the greatest difference between a run of the one and "
    "a run of the other. holds: all are above zero. undecided: some are. One run of a row decides nothing."
)

_NOT_RUN = "not run"


def headings(results: Sequence[RowResult]) -> list[str]:
    """Of the table's columns; exactly valid translations are known for the embedded corpus alone."""
    valid = ["valid %"] if _has_valid(results) else []
    return ["row", "runs", "BLEU", "range", "chrF2++", "BP", "repeats %", *valid, "seconds", "updates", "sentences",
            "epochs", "paper's BLEU"]  # fmt: skip


def lines(results: Sequence[RowResult], teacher: RowResult | None) -> list[list[str]]:
    """The table: the teacher, if it has been scored, and every row."""
    above = [cells(teacher, results, "AT teacher")] if teacher and teacher.runs else []
    return above + [cells(result, results) for result in results]


def cells(result: RowResult, results: Sequence[RowResult], label: str | None = None) -> list[str]:
    """A row of the table, under its own label or another."""
    label = label or result.row.label
    paper = f"{result.row.paper_bleu:.2f}{'*' if result.row.inferred else ''}"
    count = len(headings(results))
    if not result.runs:
        return [label, "0", _NOT_RUN, *["-"] * (count - 4), paper]
    low, high = result.range("bleu")
    valid = [_mean(result, "exactly_valid", "{:.1f}")] if _has_valid(results) else []
    return [
        label,
        str(len(result.runs)),
        _mean(result, "bleu", "{:.2f}"),
        f"{low:.2f} to {high:.2f}" if len(result.runs) > 1 else "-",
        _mean(result, "chrf", "{:.2f}"),
        _mean(result, "bp", "{:.3f}"),
        _mean(result, "repetition_rate", "{:.2f}"),
        *valid,
        _mean(result, "training_seconds", "{:,.0f}"),
        _mean(result, "updates", "{:,.0f}"),
        _mean(result, "sentences", "{:,.0f}"),
        _mean(result, "epochs", "{:.1f}"),
        paper,
    ]


def technique_lines(results: Sequence[RowResult]) -> list[list[str]]:
    """What latents and glancing said of themselves at the end of training, under a heading; nothing without them."""
    rows = [[r.row.label, *(_mean(r, name, "{:.3f}") for name in TECHNIQUES)] for r in results
            if any(r.values(name) for name in TECHNIQUES)]  # fmt: skip
    return [["row", "KL, nats a piece", "active units", "mutual information", "share shown"], *rows] if rows else []


def order_line(comparison: Comparison) -> str:
    """One claim and its verdict."""
    rows = f"{comparison.claim}: {comparison.better.label} - {comparison.worse.label}"
    paper = f"paper {comparison.paper_difference:+.2f}"
    if comparison.difference is None:
        return f"{rows}: {_NOT_RUN} ({paper})"
    spread = f" [{comparison.low:+.2f} to {comparison.high:+.2f}]" if max(comparison.runs) > 1 else ""
    return f"{rows}: {comparison.difference:+.2f}{spread}, {comparison.verdict} ({paper})"


def title(place: Place, results: Sequence[RowResult]) -> str:
    """What was measured, on what."""
    seeds = sorted({run["seed"] for result in results for run in result.runs})
    said = f"seeds {', '.join(map(str, seeds))}" if seeds else "no run yet"
    return f"{place.config.name}, {_data(place)}; {said}; beside it the paper's BLEU, WMT14 English-German"


def markdown(place: Place, results: Sequence[RowResult], teacher: RowResult | None = None) -> str:
    """The whole report."""
    text = ["# Ablation", "", title(place, results), ""]
    text += _markdown_table([headings(results), *lines(results, teacher)])
    text += ["", FOOTNOTE.replace("*", r"\*"), ""]
    if techniques := technique_lines(results):
        text += ["At the end of training, by mean over the runs:", "", *_markdown_table(techniques), ""]
    text += [ORDER, ""]
    text += [f"- {order_line(comparison)}" for comparison in compare(results)]
    return "\n".join(text) + "\n"


def as_json(place: Place, results: Sequence[RowResult], teacher: RowResult | None = None) -> str:
    """The same for programs, every run with all of its figures."""
    rows = [
        {"row": r.row.name, **r.row._asdict(), "bleu": r.mean("bleu"), "bleu_range": r.range("bleu"), "runs": r.runs}
        for r in results
    ]
    about: dict[str, Any] = {
        "grid": place.grid, "data": _data(place), "config": json.loads(to_json(place.config)), "commit": commit(),
        "machine": machine(), "versions": versions(), "teacher": next(iter(teacher.runs if teacher else ()), None),
        "rows": rows, "order": [c.as_dict() for c in compare(results)],
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


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    heading, *body = map(_markdown_row, rows)
    return [heading, _markdown_row(["---", *["---:"] * (len(rows[0]) - 1)]), *body]


def _markdown_row(columns: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|").replace("*", r"\*") for cell in columns]
    return f"| {' | '.join(escaped)} |"
