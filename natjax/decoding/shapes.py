"""Which compiled shapes serve a list of sentences: few of them, whatever arrives.

Source lengths go up to the next rung of a ladder, and the rows of one rung are cut into batches whose sizes are
powers of eight: at most four programs a rung, and never more than seven empty rows for one that is real.
"""

from collections.abc import Callable
from typing import NamedTuple

LADDER = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
ROWS = (512, 64, 8, 1)


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
    lengths: list[int], limit: int, batch_frames: int, frames: Callable[[int], int]
) -> list[tuple[Shape, list[int]]]:
    """Cuts sentences into batches of static shapes.

    Args:
        lengths: source length of each sentence in pieces, at most `limit`.
        limit: longest source.
        batch_frames: most frames in a batch, unless a single row has more.
        frames: T of a padded source length.

    Returns:
        (shape, indices of sentences) for each batch, long sentences first; a batch may hold fewer sentences than its
        shape has rows.
    """
    by_rung: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        by_rung.setdefault(rung(lengths[index], limit), []).append(index)
    found = []
    for S, indices in by_rung.items():
        most = max(1, batch_frames // frames(S))
        sizes = [r for r in ROWS if r <= most]
        while indices:
            # The largest size that is at least half full; what remains goes on with smaller ones.
            rows = next((r for r in sizes if len(indices) * 2 > r), 1)
            found.append((Shape(rows, S), indices[:rows]))
            indices = indices[rows:]
    return found
