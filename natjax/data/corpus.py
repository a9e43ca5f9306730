"""Line-aligned text: read, normalised, filtered; what was dropped is counted, and why."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from natjax.data.lines import Corpus, FileLines, held
from natjax.errors import DataError
from natjax.frames import frame_count

REASONS = ("low_score", "empty", "too_long", "ratio", "infeasible")
"""Why pairs are dropped, in the order in which they are judged. `scan.scan` looks at the first, before there is a
vocabulary; `keep_pairs` at the others, which count pieces."""

RATIO_EXEMPT = 5
"""Pairs of at most this many pieces a side are not judged by their ratio: one word against five is common there."""


class _CharacterTable(dict):
    """For `str.translate`: odd spaces -> a plain one, control and format characters -> nothing."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        if character.isspace() or character == "\u2581":  # SentencePiece's own mark of a space
            self[code] = " "
        else:
            self[code] = None if category in ("Cc", "Cf") else character
        return self[code]


_TABLE = _CharacterTable()


def normalise(line: str) -> str:
    """One sentence in the form that vocabularies are trained on: NFKC, plain single spaces, nothing invisible.

    Every kind of space (no-break, ideographic, line separator, tab) becomes one U+0020; control and format characters
    (byte order mark, zero-width space and joiners, soft hyphen, direction marks) vanish. Applying it twice changes
    nothing more.
    """
    if not (line.isascii() and line.isprintable()):
        # First the invisible ones: they would keep a letter and its accent apart, so NFKC could not join these.
        line = unicodedata.normalize("NFKC", line.translate(_TABLE))
    return " ".join(line.split())


def read_lines(path: str | Path) -> list[str]:
    """The raw lines of a text file, all at once; `FileLines` tells what a line is. Raises DataError as it does."""
    return [line for block in FileLines(Path(path)).blocks() for line in block]


def read_parallel(source_path: str | Path, target_path: str | Path) -> tuple[list[str], list[str]]:
    """The raw lines of both sides of a corpus, aligned.

    Raises:
        DataError: as `read_lines`, or the sides differ in their number of lines.
    """
    return held(Corpus(FileLines(Path(source_path)), FileLines(Path(target_path))))


def parse_scores(lines: Sequence[str], path: Path, first: int) -> np.ndarray:
    """One number a line, f64.

    Args:
        lines: of a file of scores.
        path: the file.
        first: which line of it the first one is, from 1.

    Raises:
        DataError: a line that is no number.
    """
    scores = np.fromiter(map(_number, lines), np.float64, len(lines))
    if (bad := np.flatnonzero(np.isnan(scores))).size:
        raise DataError(f"{path}:{first + bad[0]}: {lines[bad[0]][:40]!r} is not a number; give one score a line")
    return scores


def _number(line: str) -> float:
    try:
        return float(line)
    except ValueError:
        return np.nan


@dataclass(frozen=True)
class Limits:
    """What a pair must satisfy to be kept. Lengths are in pieces.

    Attributes:
        max_length: longest side as stored, its eos included where it has one. Sources always have one.
        max_ratio: largest ratio of the sides, longer over shorter, eos not counted; None: any.
        frames_ratio: decoder frames per source piece, for CTC; None: the loss needs no minimum of frames.
        target_eos: targets are stored with eos.
        minimum_score: least score, where pairs have one; None: they have none.
    """

    max_length: int
    max_ratio: float | None = None
    frames_ratio: float | None = None
    target_eos: bool = False
    minimum_score: float | None = None


@dataclass(frozen=True)
class FilterReport:
    """Pairs in all, kept, and dropped by the first reason that applied. Reports of parts add up with `+`."""

    limits: Limits
    total: int = 0
    kept: int = 0
    low_score: int = 0
    empty: int = 0
    too_long: int = 0
    ratio: int = 0
    infeasible: int = 0

    def __add__(self, other: "FilterReport") -> "FilterReport":
        sums = {name: count + getattr(other, name) for name, count in self.counts().items()}
        return FilterReport(self.limits, **sums)

    def counts(self) -> dict[str, int]:
        """All counts by name, for the metadata."""
        return {name: getattr(self, name) for name in ("total", "kept", *REASONS)}

    def describe(self) -> str:
        """One line for people, only with the filters that are on."""
        reasons = [f"{self.empty:,} empty", f"{self.too_long:,} too long (> {self.limits.max_length} pieces)"]
        if self.limits.minimum_score is not None:
            reasons.insert(0, f"{self.low_score:,} score < {self.limits.minimum_score}")
        if self.limits.max_ratio is not None:
            reasons.append(f"{self.ratio:,} ratio > {self.limits.max_ratio}")
        if self.limits.frames_ratio is not None:
            reasons.append(f"{self.infeasible:,} infeasible at {self.limits.frames_ratio} frames a piece")
        return f"{self.total:,} pairs read, {self.kept:,} kept; dropped: {', '.join(reasons)}"


def required_frames(target_ids: Sequence[int]) -> int:
    """Fewest frames in which CTC can emit these labels: one each, and a blank between equal neighbours."""
    return len(target_ids) + sum(a == b for a, b in pairwise(target_ids))


def keep_pairs(
    source_ids: Sequence[Sequence[int]], target_ids: Sequence[Sequence[int]], limits: Limits
) -> tuple[np.ndarray, FilterReport]:
    """Judges pairs, both sides as pieces without eos.

    Returns:
        The indices to keep, i64, ascending; and the report. A pair counts under the first of the `REASONS` that
        applies.
    """
    reasons = _reasons(source_ids, target_ids, limits)
    free, dropped = np.ones(len(source_ids), bool), {}
    for reason in REASONS:
        if reason in reasons:
            dropped[reason] = int((free & reasons[reason]).sum())
            free &= ~reasons[reason]
    kept = np.flatnonzero(free).astype(np.int64)
    return kept, FilterReport(limits, total=len(source_ids), kept=len(kept), **dropped)


def _reasons(
    source_ids: Sequence[Sequence[int]], target_ids: Sequence[Sequence[int]], limits: Limits
) -> dict[str, np.ndarray]:
    """Reason -> bool[pairs], whether it applies; only those that are judged."""
    if len(source_ids) != len(target_ids):
        raise ValueError(f"{len(source_ids)} sources, {len(target_ids)} targets")
    source, target = (np.fromiter(map(len, side), np.int64, len(side)) for side in (source_ids, target_ids))
    stored_source, stored_target = source + 1, target + limits.target_eos
    shorter, longer = np.minimum(source, target), np.maximum(source, target)
    reasons = {"empty": shorter == 0, "too_long": np.maximum(stored_source, stored_target) > limits.max_length}
    if limits.max_ratio is not None:
        reasons["ratio"] = (longer > RATIO_EXEMPT) & (longer > limits.max_ratio * shorter)
    if limits.frames_ratio is not None:
        frames = frame_count(stored_source, limits.frames_ratio)
        reasons["infeasible"] = frames < stored_target
        # Most targets have room for a blank between any two labels: only for the others are repeats counted.
        for i in np.flatnonzero((frames < 2 * target + limits.target_eos) & ~reasons["infeasible"]):
            reasons["infeasible"][i] = frames[i] < required_frames(target_ids[i]) + limits.target_eos
    return reasons
