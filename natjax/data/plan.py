"""Which rows make up which batch: a pure function of (seed, epoch), so that any step can be asked for at any time.

Every batch has one of few static shapes, the buckets, because each shape costs a compilation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_NEVER = 1 << 60  # above any cost, and far enough from overflow to be added to


class Bucket(NamedTuple):
    """One static shape.

    Attributes:
        S: padded source length.
        N: padded target length.
        T: decoder frames of a row.
        rows: sentences of a batch.
    """

    S: int
    N: int
    T: int
    rows: int


class PlannedBatch(NamedTuple):
    """Row numbers (i64, at most `bucket.rows` of them) and the shape they are padded to."""

    bucket: Bucket
    rows: np.ndarray


def choose_buckets(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    buckets: int,
    multiple: int,
    max_length: int,
    batch_frames: int,
    max_frames: Callable[[int, int], int],
    posterior: bool = False,
    row_multiple: int = 8,
) -> tuple[Bucket, ...]:
    """Shapes that hold all pairs of at most `max_length` pieces a side with the least padding.

    The target side follows the source side: N is S times a ratio. Pairs whose target does not fit move up to the first
    bucket whose N is large enough. Padding costs what the model computes for it, S + T positions, and with a posterior
    S + N more. Among all choices of at most `buckets` source boundaries and all ratios in steps of a quarter, up to one
    that fits 95% of the pairs, that with the smallest padded sum over all pairs is taken; of equals, the one with the
    larger ratio, then with fewer buckets. So where T follows N (an autoregressive decoder), or a posterior reads the
    target, a low ratio saves positions; where nothing does (CTC), N is ample.

    Args:
        source_lengths: i32[rows], eos included.
        target_lengths: i32[rows].
        buckets: how many shapes at most.
        multiple: S and N are multiples of this.
        max_length: S and N are at most this, rounded up to `multiple`.
        batch_frames: decoder frames of a batch, padding included, at most.
        max_frames: (S, N) -> T.
        posterior: whether the model reads source and target once more, as latents do in training.
        row_multiple: rows of a batch are a multiple of this, unless even one such batch exceeds `batch_frames`.

    Returns:
        Buckets with ascending S.

    Raises:
        ValueError: no pair fits into `max_length`.
    """
    fits = (source_lengths <= max_length) & (target_lengths <= max_length)
    source, target = source_lengths[fits], target_lengths[fits]
    if len(source) == 0:
        raise ValueError(f"no pair has at most {max_length} pieces a side")
    cap = _round_up(max_length, multiple)
    bounds = np.arange(multiple, _round_up(int(source.max()), multiple) + 1, multiple)
    choices = []
    for ratio in _length_ratios(source, target):
        labels = np.array([min(_round_up(math.ceil(S * ratio), multiple), cap) for S in bounds])
        # The first boundary that holds the pair on both sides; the last one takes what is too long on the target side.
        needed = np.maximum(np.searchsorted(bounds, source), np.searchsorted(labels, target))
        needed = np.minimum(needed, len(bounds) - 1)
        labels[-1] = max(labels[-1], _round_up(int(target.max()), multiple))
        counts = np.bincount(needed, minlength=len(bounds))
        shapes = list(zip(bounds.tolist(), labels.tolist()))
        positions = np.array([S + max_frames(S, N) + (S + N if posterior else 0) for S, N in shapes])
        chosen = _best_boundaries(positions, counts, buckets)
        padded = int(np.diff(np.cumsum(counts)[chosen], prepend=0) @ positions[chosen])
        choices.append((padded, [shapes[i] for i in chosen]))
    _, shapes = min(choices, key=lambda choice: choice[0])  # the first of equals
    return tuple(Bucket(S, N, max_frames(S, N), _rows(max_frames(S, N), batch_frames, row_multiple)) for S, N in shapes)


class Plan:
    """The training order: in an epoch, every row that fits a bucket exactly once, all in random order.

    Attributes:
        buckets: the shapes.
        batches_per_epoch: steps of an epoch.
        rows: in an epoch.
        left_out: rows that fit no bucket, which no batch holds.
    """

    def __init__(self, source_lengths: np.ndarray, target_lengths: np.ndarray, buckets: tuple[Bucket, ...], seed: int):
        """Lengths are i32[rows]. Raises ValueError if no row fits."""
        self.buckets, self.seed = buckets, seed
        self._members = _members(source_lengths, target_lengths, buckets)
        self.rows = sum(map(len, self._members))
        self.left_out = len(source_lengths) - self.rows
        self.batches_per_epoch = sum(math.ceil(len(rows) / bucket.rows) for bucket, rows in zip(buckets, self._members))
        if self.batches_per_epoch == 0:
            raise ValueError("no row fits any bucket")
        self._cached: tuple[int, list[PlannedBatch]] = (-1, [])

    def batch(self, step: int) -> PlannedBatch:
        """The batch of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.batches_per_epoch)
        cached_epoch, batches = self._cached
        if cached_epoch != epoch:
            batches = self._epoch(epoch)
            self._cached = (epoch, batches)
        return batches[place]

    def _epoch(self, epoch: int) -> list[PlannedBatch]:
        generator = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        batches = []
        for bucket, rows in zip(self.buckets, self._members):
            shuffled = rows[_permutation(generator, len(rows))]
            batches += _cut(bucket, shuffled)
        return [batches[i] for i in _permutation(generator, len(batches))]


def sequential(
    source_lengths: np.ndarray, target_lengths: np.ndarray, buckets: tuple[Bucket, ...]
) -> list[PlannedBatch]:
    """The validation order: every row that fits a bucket once, bucket after bucket, in the order of the rows."""
    members = _members(source_lengths, target_lengths, buckets)
    return [batch for bucket, rows in zip(buckets, members) for batch in _cut(bucket, rows)]


def _members(source_lengths: np.ndarray, target_lengths: np.ndarray, buckets: tuple[Bucket, ...]) -> list[np.ndarray]:
    """Rows (i64, ascending) of each bucket: each row goes to the first that holds it."""
    free = np.ones(len(source_lengths), bool)
    members = []
    for bucket in buckets:
        inside = free & (source_lengths <= bucket.S) & (target_lengths <= bucket.N)
        members.append(np.flatnonzero(inside).astype(np.int64))
        free &= ~inside
    return members


def _cut(bucket: Bucket, rows: np.ndarray) -> list[PlannedBatch]:
    return [PlannedBatch(bucket, rows[i : i + bucket.rows]) for i in range(0, len(rows), bucket.rows)]


def _permutation(generator: np.random.Philox, count: int) -> np.ndarray:
    # numpy keeps the raw stream of Philox the same for ever, but not what Generator.permutation makes of it:
    # a run resumed under another numpy must see the same order.
    return np.argsort(generator.random_raw(count), kind="stable")


def _length_ratios(source: np.ndarray, target: np.ndarray) -> list[float]:
    """Ratios of target over source length to choose from, in steps of a quarter: the 95th percentile down to 1."""
    most = max(4, math.ceil(4 * float(np.quantile(target / source, 0.95))))
    return [quarters / 4 for quarters in range(most, 3, -1)]


def _best_boundaries(positions: np.ndarray, counts: np.ndarray, buckets: int) -> list[int]:
    """Indices of the boundaries that minimise Σ counts·positions, the last one always among them.

    Dynamic programming: best[i], the least cost of all pairs up to boundary i if i is chosen, from one bucket fewer.
    """
    below = np.concatenate([[0], np.cumsum(counts)])  # pairs up to boundary i - 1
    last = len(positions) - 1
    best = positions * below[1:]
    previous = [np.full(len(positions), -1)]
    costs = [int(best[last])]
    for _ in range(1, min(buckets, len(positions))):
        # cost[j, i]: boundary j is the one chosen before i.
        cost = best[:, None] + positions * (below[1:] - below[1:, None])
        cost = np.where(np.arange(len(positions))[:, None] < np.arange(len(positions)), cost, _NEVER)
        previous.append(cost.argmin(0))
        best = cost.min(0)
        costs.append(int(best[last]))
    chosen, i = [], last
    for back in reversed(previous[: int(np.argmin(costs)) + 1]):
        chosen.append(int(i))
        i = back[i]
    return chosen[::-1]


def _rows(frames: int, batch_frames: int, row_multiple: int) -> int:
    rows = batch_frames // frames
    return rows // row_multiple * row_multiple or max(1, rows)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
