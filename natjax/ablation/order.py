"""Whether the paper's order of rows shows: which difference holds, and how far the seeds spread."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from natjax.ablation.grid import Row
from natjax.ablation.results import RowResult

HOLDS, UNDECIDED, FAILS, NOT_RUN = "holds", "undecided", "does not hold", "not run"


class Comparison(NamedTuple):
    """One claim of the paper, and what was found.

    Attributes:
        claim: what kind of claim it is.
        better: the row that the paper has in front.
        worse: the other one.
        difference: of mean BLEU; None where a row was not run.
        low: the least difference between a run of the one and a run of the other.
        high: the greatest.
    """

    claim: str
    better: Row
    worse: Row
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def paper_difference(self) -> float:
        """The paper's difference, WMT14 English-German."""
        return self.better.paper_bleu - self.worse.paper_bleu

    @property
    def verdict(self) -> str:
        """Holds: each run of the one is better than each of the other. Undecided: some are, some are not."""
        if self.difference is None:
            return NOT_RUN
        return HOLDS if self.low > 0 else FAILS if self.high <= 0 else UNDECIDED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        measured = {"difference": self.difference, "low": self.low, "high": self.high, "verdict": self.verdict}
        return {"claim": self.claim, "better": self.better.name, "worse": self.worse.name,
                "paper_difference": self.paper_difference, **measured}  # fmt: skip


def claims(rows: Sequence[Row]) -> Iterator[tuple[str, Row, Row]]:
    """(claim, better row, worse row), wherever both rows are in the grid and differ in one choice alone."""
    by_choices = {row[:4]: row for row in rows}

    def pairs(**change: Any) -> Iterator[tuple[Row, Row]]:
        for row in rows:
            other = by_choices.get(row._replace(**change)[:4])
            if other is not None and other is not row:
                yield row, other

    for better, worse in (("ctc", "axe"), ("axe", "ce")):
        name = f"{better.upper()} above {worse.upper()}"
        yield from ((name, row, other) for row, other in pairs(loss=worse) if row.loss == better)
    yield from (("KD above raw", row, other) for row, other in pairs(distilled=False))
    for technique in ("latents", "glancing"):
        for row, other in pairs(**{technique: "none"}):
            choice = getattr(row, technique)
            if choice in ("vae", "glat") and not row.distilled:
                yield f"{choice.upper()} above none, raw", row, other


def compare(results: Sequence[RowResult]) -> list[Comparison]:
    """Every claim of the paper held against the runs."""
    found = {result.row: result.values("bleu") for result in results}
    return [_compared(Comparison(*claim), found) for claim in claims([result.row for result in results])]


def _compared(claim: Comparison, found: dict[Row, list[float]]) -> Comparison:
    better, worse = found[claim.better], found[claim.worse]
    if not better or not worse:
        return claim
    difference = sum(better) / len(better) - sum(worse) / len(worse)
    return claim._replace(difference=difference, low=min(better) - max(worse), high=max(better) - min(worse))
