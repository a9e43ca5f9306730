"""Whether the paper's order of rows shows: which difference holds, and how far the seeds spread."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from natjax.ablation.grid import Row
from natjax.ablation.results import RowResult

HOLDS, UNDECIDED, FAILS, NOT_RUN = "holds", "undecided", "does not hold", "not run"
ONE_EACH, ONE = "one run each", "one run of a row"  # a sign, and no verdict: nothing tells how far runs spread


class Comparison(NamedTuple):
    """One claim of the paper, and what was found.

    Attributes:
        claim: what kind of claim it is.
        better: the row that the paper has in front.
        worse: the other one.
        difference: of mean BLEU; None where a row was not run.
        low: the least difference between a run of the one and a run of the other.
        high: the greatest.
        runs: of the one, and of the other.
    """

    claim: str
    better: Row
    worse: Row
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    runs: tuple[int, int] = (0, 0)

    @property
    def paper_difference(self) -> float:
        """The paper's difference, WMT14 English-German."""
        return self.better.paper_bleu - self.worse.paper_bleu

    @property
    def verdict(self) -> str:
        """Holds: each run of the one is better than each of the other. Undecided: some are, some are not.

        One run of either row decides nothing.
        """
        if self.difference is None:
            return NOT_RUN
        if min(self.runs) < 2:
            return ONE_EACH if self.runs == (1, 1) else ONE
        return HOLDS if self.low > 0 else FAILS if self.high <= 0 else UNDECIDED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        measured = {"difference": self.difference, "low": self.low, "high": self.high, "runs": self.runs,
                    "verdict": self.verdict}  # fmt: skip
        return {"claim": self.claim, "better": self.better.name, "worse": self.worse.name,
                "paper_difference": self.paper_difference, **measured}  # fmt: skip


def claims(rows: Sequence[Row]) -> Iterator[tuple[str, Row, Row]]:
    """(claim, better row, worse row), wherever both rows are in the grid and differ in one choice alone.

    Latents beside glancing are no claim: the paper finds that either alone does as well (section 4.3).
    """
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
            choice, alone = getattr(row, technique), "none" in (row.latents, row.glancing)
            if choice in ("vae", "glat") and alone:
                yield f"{choice.upper()} above none, {'KD' if row.distilled else 'raw'}", row, other
    yield from (("GLAT above RND", row, other) for row, other in pairs(glancing="rnd") if row.glancing == "glat")


def compare(results: Sequence[RowResult]) -> list[Comparison]:
    """Every claim of the paper held against the runs."""
    found = {result.row: result.values("bleu") for result in results}
    return [_compared(Comparison(*claim), found) for claim in claims([result.row for result in results])]


def _compared(claim: Comparison, found: dict[Row, list[float]]) -> Comparison:
    better, worse = found[claim.better], found[claim.worse]
    if not better or not worse:
        return claim
    difference = sum(better) / len(better) - sum(worse) / len(worse)
    low, high = min(better) - max(worse), max(better) - min(worse)
    return claim._replace(difference=difference, low=low, high=high, runs=(len(better), len(worse)))
