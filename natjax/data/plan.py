"""Which rows make up which batch: a pure function of (seed, epoch), so that any step can be asked for at any time.

Every batch has one of few static shapes, the buckets, because each shape costs a compilation.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

_NEVER = 1 << 60  # above any cost, and far enough from overflow to be added to
_CHUNK = 1 << 20  # pairs looked at in one go: what that takes is bounded
_AHEAD = 1_000_000  # rows; the order of fewer takes no time that a step would notice


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
    source, target, pairs = _length_pairs(source_lengths, target_lengths, max_length)
    if len(source) == 0:
        raise ValueError(f"no pair has at most {max_length} pieces a side")
    cap = _round_up(max_length, multiple)
    bounds = np.arange(multiple, _round_up(int(source.max()), multiple) + 1, multiple)
    choices = []
    for ratio in _length_ratios(target / source, pairs):
        labels = np.array([min(_round_up(math.ceil(S * ratio), multiple), cap) for S in bounds])
        # The first boundary that holds the pair on both sides; the last one takes what is too long on the target side.
        needed = np.maximum(np.searchsorted(bounds, source), np.searchsorted(labels, target))
        needed = np.minimum(needed, len(bounds) - 1)
        labels[-1] = max(labels[-1], _round_up(int(target.max()), multiple))
        counts = _sums(needed, pairs, len(bounds))
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
        batches = [math.ceil(len(rows) / bucket.rows) for bucket, rows in zip(buckets, self._members)]
        self._first = np.cumsum([0, *batches])  # number of each bucket's first batch, before they are shuffled
        self.batches_per_epoch = sum(batches)
        if self.batches_per_epoch == 0:
            raise ValueError("no row fits any bucket")
        self._order = _Order(-1, [], np.zeros(0, np.int64))
        self._next: tuple[int, Future[_Order] | None] = (-1, None)
        self._background = ThreadPoolExecutor(1, "natjax-order")

    def batch(self, step: int) -> PlannedBatch:
        """The batch of a step, counted from 0 over all epochs. Not for several threads at once.

        The first one that is asked for of an epoch costs a shuffle of all rows: a second for some million. Where steps
        follow each other, the next epoch's is made in the background while the second half of this one lasts.
        """
        epoch, place = divmod(step, self.batches_per_epoch)
        order = self._of(epoch)
        if 2 * place >= self.batches_per_epoch:
            self._make_ahead(epoch + 1)
        number = int(order.batches[place])
        b = int(np.searchsorted(self._first, number, side="right")) - 1
        bucket, start = self.buckets[b], (number - int(self._first[b])) * self.buckets[b].rows
        return PlannedBatch(bucket, order.rows[b][start : start + bucket.rows].astype(np.int64))

    def _of(self, epoch: int) -> "_Order":
        if self._order.epoch != epoch:
            ahead, made = self._next
            self._order = made.result() if made is not None and ahead == epoch else self._make(epoch)
            self._next = (-1, None)
        return self._order

    def _make_ahead(self, epoch: int) -> None:
        if self._next[0] != epoch and self.rows >= _AHEAD:
            self._next = epoch, self._background.submit(self._make, epoch)

    def _make(self, epoch: int) -> "_Order":
        generator = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        rows = [members[_permutation(generator, len(members))] for members in self._members]
        return _Order(epoch, rows, _permutation(generator, self.batches_per_epoch))


class _Order(NamedTuple):
    """The order of an epoch: each bucket's rows, shuffled, and the numbers of the batches cut from them, shuffled."""

    epoch: int
    rows: list[np.ndarray]
    batches: np.ndarray


def sequential(
    source_lengths: np.ndarray, target_lengths: np.ndarray, buckets: tuple[Bucket, ...]
) -> list[PlannedBatch]:
    """The validation order: every row that fits a bucket once, bucket after bucket, in the order of the rows."""
    members = _members(source_lengths, target_lengths, buckets)
    return [batch for bucket, rows in zip(buckets, members) for batch in _cut(bucket, rows)]


def _members(source_lengths: np.ndarray, target_lengths: np.ndarray, buckets: tuple[Bucket, ...]) -> list[np.ndarray]:
    """Rows (ascending, i32 while that can number them) of each bucket: each row goes to the first that holds it."""
    dtype = np.int32 if len(source_lengths) < 1 << 31 else np.int64
    free = np.ones(len(source_lengths), bool)
    members = []
    for bucket in buckets:
        inside = free & (source_lengths <= bucket.S) & (target_lengths <= bucket.N)
        members.append(np.flatnonzero(inside).astype(dtype))
        free &= ~inside
    return members


def _cut(bucket: Bucket, rows: np.ndarray) -> list[PlannedBatch]:
    return [PlannedBatch(bucket, rows[i : i + bucket.rows].astype(np.int64)) for i in range(0, len(rows), bucket.rows)]


def _permutation(generator: np.random.Philox, count: int) -> np.ndarray:
    # numpy keeps the raw stream of Philox the same for ever, but not what Generator.permutation makes of it:
    # a run resumed under another numpy must see the same order.
    return np.argsort(generator.random_raw(count), kind="stable")


def _length_pairs(source: np.ndarray, target: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct pairs of lengths, each at most `longest`, and how often each occurs. They are few for any corpus."""
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for start in range(0, len(source), _CHUNK):
        s, t = (side[start : start + _CHUNK].astype(np.int64) for side in (source, target))
        fits = (s <= longest) & (t <= longest)
        found, numbers = np.unique(s[fits] * (longest + 1) + t[fits], return_counts=True)
        keys, places = np.unique(np.concatenate([keys, found]), return_inverse=True)
        counts = _sums(places, np.concatenate([counts, numbers]), len(keys))
    return keys // (longest + 1), keys % (longest + 1), counts


def _sums(places: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    """i64[length], the sum of the values at each place."""
    sums = np.zeros(length, np.int64)
    np.add.at(sums, places, values)
    return sums


def _length_ratios(ratios: np.ndarray, counts: np.ndarray) -> list[float]:
    """Ratios of target over source length to choose from, in steps of a quarter: the 95th percentile down to 1."""
    most = max(4, math.ceil(4 * _quantile(ratios, counts, 0.95)))
    return [quarters / 4 for quarters in range(most, 3, -1)]


def _quantile(values: np.ndarray, counts: np.ndarray, q: float) -> float:
    """`numpy.quantile` of each value that many times: to the last bit, since the shapes of a run depend on it."""
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(counts[order])
    place = (int(up_to[-1]) - 1) * q
    below = math.floor(place)
    low, high = (float(values[order[np.searchsorted(up_to, i, side="right")]])
                 for i in (below, min(below + 1, int(up_to[-1]) - 1)))  # fmt: skip
    part = place - below
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


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
