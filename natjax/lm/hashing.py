"""A hash table that a compiled program reads: two buckets of four slots for each key, so no key is looked for further.

A key is (state, token), two i32. It lies in one of its two buckets, wherever there was room; finding it is two
independent gathers of a row. Built in numpy; `buckets` is the same arithmetic in numpy and in JAX.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

WIDTH = 4
"""Slots of a bucket. With eight, as many keys again are compared; with two, far more must move when it is built."""
LOAD = 0.8
"""Share of the slots that are filled. The more, the more keys must move when the table is built."""
EMPTY = -1
"""State of an empty slot."""
_ROUNDS = 200  # of moving keys to their other bucket, before another seed is tried


class HashTable(NamedTuple):
    """Where each key lies.

    Attributes:
        seed: of `buckets`.
        buckets: how many.
        slots: i32[n] (i64 where there are so many), the slot of each key, below buckets * WIDTH.
    """

    seed: int
    buckets: int
    slots: np.ndarray


def buckets(xp: ModuleType, state: Any, token: Any, seed: Any, count: int) -> tuple[Any, Any]:
    """The two buckets of keys, which may be one and the same.

    Args:
        xp: numpy or jax.numpy.
        state: i32 of any shape.
        token: i32 of the same shape.
        seed: u32[].
        count: buckets of the table, below 2^31.

    Returns:
        Two i32 of that shape.
    """
    state, token = state.astype(xp.uint32), token.astype(xp.uint32)
    # The token enters after the state is mixed: keys that meet under one seed part under another.
    both = (_mix(xp, _mix(xp, state ^ s) + token * xp.uint32(0x9E3779B1)) for s in (seed, seed ^ xp.uint32(0x85EBCA6B)))
    first, second = ((mixed % xp.uint32(count)).astype(xp.int32) for mixed in both)
    return first, second


def _mix(xp: ModuleType, x: Any) -> Any:
    """MurmurHash3's finaliser: every bit of a u32 depends on every other."""
    x = (x ^ (x >> xp.uint32(16))) * xp.uint32(0x85EBCA6B)
    x = (x ^ (x >> xp.uint32(13))) * xp.uint32(0xC2B2AE35)
    return x ^ (x >> xp.uint32(16))


def build(state: np.ndarray, token: np.ndarray) -> HashTable:
    """Finds a slot for each of the different keys (state, token), i32[n] both.

    Where they do not fit, which is next to impossible unless somebody has chosen the keys, another seed is tried in a
    table that is a tenth larger.
    """
    count, seed = max(1, -int(-len(state) // (WIDTH * LOAD))), 0
    while True:
        first, second = buckets(np, state, token, np.uint32(seed), count)
        if (slots := _place(first, second, count)) is not None:
            return HashTable(seed, count, slots)
        count, seed = count + count // 10 + 1, seed + 1


def _place(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray | None:
    """i32[n] slots (i64), or None where the buckets do not suffice."""
    kind = np.int32 if count * WIDTH < 1 << 31 else np.int64
    slots = np.full(len(first), -1, kind)
    filled = np.zeros(count, np.int8)
    # Some keys at a time, each into the emptier of its buckets, as far as was known before this part.
    for start in range(0, len(first), count):
        part = np.arange(start, min(start + count, len(first)))
        one, other = first[part], second[part]
        emptier = np.where(filled[other] < filled[one], other, one)
        left = _settle(part, emptier, slots, filled)
        _settle(left, np.where(emptier == one, other, one)[left - start], slots, filled)
    owners = np.full(count * WIDTH, -1, np.int32)
    left, there = np.flatnonzero(slots < 0), np.flatnonzero(slots >= 0).astype(np.int32)
    owners[slots[there]] = there
    del there
    return slots if _move(left, first, second, slots, owners) else None


def _settle(keys: np.ndarray, bucket: np.ndarray, slots: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Puts keys into buckets as far as there is room; returns those that are left."""
    order = np.argsort(bucket, kind="stable")
    keys, bucket = keys[order], bucket[order]
    starts = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]])[: len(bucket)])
    lengths = np.diff(np.append(starts, len(bucket)))
    rank = filled[bucket] + np.arange(len(bucket)) - np.repeat(starts, lengths)
    fits = rank < WIDTH
    slots[keys[fits]] = bucket[fits].astype(np.int64) * WIDTH + rank[fits]
    filled[bucket[starts]] = np.minimum(filled[bucket[starts]] + lengths, WIDTH)
    return keys[~fits]


def _move(left: np.ndarray, first: np.ndarray, second: np.ndarray, slots: np.ndarray, owners: np.ndarray) -> bool:
    """Cuckoo hashing: a key without a place takes another's, which goes to its other bucket, and so on."""
    generator = np.random.default_rng(0)
    bucket = first[left].astype(np.int64)
    for _ in range(_ROUNDS):
        if not len(left):
            return True
        # An empty slot of the bucket if there is one, else any.
        inside = bucket[:, None] * WIDTH + np.arange(WIDTH)
        empty = owners[inside] < 0
        column = np.where(empty.any(1), empty.argmax(1), generator.integers(WIDTH, size=len(left)))
        wanted = inside[np.arange(len(left)), column]
        wanted, winners = np.unique(wanted, return_index=True)
        victims, losers = owners[wanted], np.setdiff1d(np.arange(len(left)), winners)
        owners[wanted], slots[left[winners]] = left[winners], wanted
        gone = victims >= 0
        moved = np.where(first[victims] == wanted // WIDTH, second[victims], first[victims])[gone]
        left = np.concatenate([left[losers], victims[gone]])
        bucket = np.concatenate([bucket[losers], moved.astype(np.int64)])
        slots[left] = -1
    return not len(left)
