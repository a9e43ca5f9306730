"""Which compiled shapes serve a list of sentences: few of them, whatever arrives.

Source lengths go up to the next rung of a ladder, which depends on the sentence alone. A rung has two programs at most:
one for a single row, which answers at once, and one for a full batch. Of the sentences that arrive together, fewer than
`FEW` on a rung go one by one; more fill batches, the last of which may have empty rows. So one call needs one program a
rung.
"""

from collections.abc import Callable
from typing import NamedTuple

LADDER = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

FEW = 8  # from so many sentences on, a full batch answers sooner than as many single rows

CPU_ROWS = FEW
"""Rows of a full batch of single passes on CPU. There larger batches do not lower the cost of a row, they only leave
the caches; and an empty row costs as much as a real one: with so few of them, there are never twice as many rows as
sentences."""

CPU_STEP_ROWS = 32
"""Rows of a full batch on CPU where tokens come one after another: a step is so little work that its fixed costs
count."""


class Shape(NamedTuple):
    """Static shape of a batch.

    Attributes:
        rows: B.
        S: padded source length.
    """

    rows: int
    S: int


def rung(length: int, limit: int) -> int:
    """The padded length of a source of `length` pieces; the top rung is `limit` itself."""
    return next((r for r in LADDER if length <= r < limit), limit)


def batches(
    lengths: list[int], limit: int, batch_frames: int, frames: Callable[[int], int], most_rows: int | None = None
) -> list[tuple[Shape, list[int]]]:
    """Cuts sentences into batches of static shapes.

    Args:
        lengths: source length of each sentence in pieces, at most `limit`.
        limit: longest source.
        batch_frames: most frames in a batch, unless a single row has more.
        frames: T of a padded source length.
        most_rows: most rows in a batch; None leaves that to `batch_frames`.

    Returns:
        (shape, indices of sentences) for each batch, long sentences first; a batch may hold fewer sentences than its
        shape has rows.
    """
    by_rung: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        by_rung.setdefault(rung(lengths[index], limit), []).append(index)
    found = []
    for S, indices in by_rung.items():
        full = max(1, batch_frames // frames(S))
        rows = 1 if len(indices) < FEW else min(full, most_rows or full)
        found += [(Shape(rows, S), indices[i : i + rows]) for i in range(0, len(indices), rows)]
    return found
