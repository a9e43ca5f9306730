"""Line-aligned text: read, normalised, filtered; what was dropped is counted, and why."""

import gzip
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from natjax.errors import DataError
from natjax.frames import frame_count

REASONS = ("low_score", "empty", "too_long", "ratio", "infeasible")
"""Why pairs are dropped, in the order in which they are judged. `drop_low_scores` looks at the first, before there is a
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
    """The raw lines of a UTF-8 text file, `.gz` too.

    Only LF and CRLF end a line. Unicode's other separators (U+2028, U+0085, form feed) stay inside it: splitting
    there would shift one side of a parallel corpus against the other. A leading byte order mark is dropped.

    Raises:
        DataError: no such file, not readable, not UTF-8 (with line and byte offset), damaged gzip.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start}); "
            f"convert the file, for example with iconv"
        ) from None
    lines = text.removeprefix("\ufeff").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_parallel(source_path: str | Path, target_path: str | Path) -> tuple[list[str], list[str]]:
    """The raw lines of both sides of a corpus, aligned.

    Raises:
        DataError: as `read_lines`, or the sides differ in their number of lines.
    """
    source, target = read_lines(source_path), read_lines(target_path)
    if len(source) != len(target):
        raise DataError(
            f"{source_path} has {len(source):,} lines but {target_path} has {len(target):,}; "
            f"line i of one must translate line i of the other"
        )
    return source, target


def read_scores(path: str | Path, pairs: int) -> np.ndarray:
    """The score of each pair of a corpus, one number a line, f64[pairs].

    Raises:
        DataError: as `read_lines`, a line that is no number, or another number of lines than `pairs`.
    """
    lines = read_lines(path)
    if len(lines) != pairs:
        raise DataError(
            f"{path} has {len(lines):,} lines but the training text {pairs:,}; line i must be the score of pair i"
        )
    scores = np.fromiter(map(_number, lines), np.float64, len(lines))
    if (bad := np.flatnonzero(np.isnan(scores))).size:
        raise DataError(f"{path}:{bad[0] + 1}: {lines[bad[0]][:40]!r} is not a number; give one score a line")
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


def drop_low_scores(
    text: tuple[list[str], list[str]], scores: np.ndarray, limits: Limits
) -> tuple[tuple[list[str], list[str]], FilterReport]:
    """The pairs whose score is at least `limits.minimum_score`, and the report of the others alone."""
    kept = np.flatnonzero(scores >= limits.minimum_score)
    dropped = len(scores) - len(kept)
    source, target = ([side[i] for i in kept] for side in text)
    return (source, target), FilterReport(limits, total=dropped, low_score=dropped)


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
    verdicts = [_verdict(source, target, limits) for source, target in zip(source_ids, target_ids, strict=True)]
    dropped = {name: verdicts.count(name) for name in REASONS}
    kept = np.array([i for i, verdict in enumerate(verdicts) if verdict is None], np.int64)
    return kept, FilterReport(limits, total=len(verdicts), kept=len(kept), **dropped)


def _verdict(source: Sequence[int], target: Sequence[int], limits: Limits) -> str | None:
    shorter, longer = sorted((len(source), len(target)))
    stored_source = len(source) + 1
    if shorter == 0:
        return "empty"
    if max(stored_source, len(target) + limits.target_eos) > limits.max_length:
        return "too_long"
    if limits.max_ratio is not None and longer > RATIO_EXEMPT and longer > limits.max_ratio * shorter:
        return "ratio"
    if limits.frames_ratio is not None:
        needed = required_frames(target) + limits.target_eos
        if frame_count(stored_source, limits.frames_ratio) < needed:
            return "infeasible"
    return None
