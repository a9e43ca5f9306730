"""Counts of n-grams, by sorting keys, shard after shard of the text, in bounded memory.

Only the keys of a shard, or of a range as large, are sorted at a time. What grows with the text is 24 bytes a token at
most: the token, the numbers of the n-grams of this order and of the one below that end there, and the shards' keys with
their counts; and 16 bytes for each different n-gram found so far. benchmarks/results/lm.json has a measurement.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from natjax.typing import BOS, EOS, PAD

SHARD_TOKENS = 8_000_000
"""Tokens whose keys are sorted at a time."""


class Counts(NamedTuple):
    """The different n-grams of one order, ascending by key.

    Attributes:
        keys: i64[n], as in `model.Level`; for order 1, all ids below V.
        raw: i32[n], how often each occurs.
        suffixes: i32[n], the number of the n-gram without its first token, in the order below; empty for order 1.
    """

    keys: np.ndarray
    raw: np.ndarray
    suffixes: np.ndarray


def stream(tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sentences one after another, each from BOS to EOS.

    Args:
        tokens: u16, u32 or i32[n], pieces of all sentences one after another, with or without EOS at their ends.
        offsets: i64[rows + 1], sentence i is tokens[offsets[i] : offsets[i + 1]].

    Returns:
        i32[n + 2 * rows] (less the EOS that were there).

    Raises:
        ValueError: PAD or BOS among the tokens, EOS before the end of a sentence, or 2^31 tokens and more.
    """
    rows = len(offsets) - 1
    if len(tokens) + 2 * rows >= 1 << 31:
        raise ValueError("2^31 tokens and more are too many")
    if len(tokens) and ((tokens == PAD) | (tokens == BOS)).any():
        raise ValueError("padding or bos among the tokens")
    ends = np.asarray(tokens == EOS)
    lengths = np.diff(offsets)
    filled = lengths > 0
    last = offsets[1:][filled] - 1
    if ends.sum() != ends[last].sum():
        raise ValueError("eos before the end of a sentence")
    lengths = lengths.copy()
    lengths[filled] -= ends[last]
    made = np.empty(len(tokens) - int(ends.sum()) + 2 * rows, np.int32)
    stops = np.cumsum(lengths + 2) - 1
    inside = np.ones(len(made), bool)
    inside[stops] = inside[stops - lengths - 1] = False
    made[stops - lengths - 1], made[stops] = BOS, EOS
    made[inside] = tokens[~ends] if ends.any() else tokens
    return made


def count(
    stream: np.ndarray,
    order: int,
    vocabulary_size: int,
    *,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Counts]:
    """Counts all n-grams of orders 1 to `order` within sentences; BOS is a first token only.

    Args:
        stream: i32[n], see `stream`.
        order: N, 2 or more.
        vocabulary_size: V, above all tokens.
        shard_tokens: how many tokens' keys are sorted at a time.
        progress: called with (tokens done, tokens in all), each order counted apart.
    """
    counts = [
        Counts(
            np.arange(vocabulary_size, dtype=np.int64),
            np.bincount(stream, minlength=vocabulary_size).astype(np.int32),
            np.zeros(0, np.int32),
        )
    ]
    total, starts = len(stream) * (order - 1), range(0, len(stream), shard_tokens)
    below = stream  # for each place, the number of the n-gram of the order below that ends there; -1: none
    for n in range(2, order + 1):
        here = np.full(len(stream), -1, np.int32)
        shards = []
        for start in starts:
            part = slice(max(start, 1), min(start + shard_tokens, len(stream)))
            context, token = below[part.start - 1 : part.stop - 1], stream[part]
            there = (context >= 0) & (token != BOS)
            keys = context[there].astype(np.int64) * vocabulary_size + token[there]
            unique, here[part][there], times = np.unique(keys, return_inverse=True, return_counts=True)
            shards.append((unique, times.astype(np.int32)))
            progress((n - 2) * len(stream) + part.stop, total)
        keys, raw = _merge(shards)
        suffixes = np.empty(len(keys), np.int32)
        for start, (unique, _) in zip(starts, shards, strict=True):
            part = slice(start, start + shard_tokens)
            there = here[part] >= 0
            numbers = here[part][there]
            if len(shards) > 1:
                numbers = here[part][there] = np.searchsorted(keys, unique)[numbers]
            suffixes[numbers] = below[part][there]
        counts.append(Counts(keys, raw, suffixes))
        below = here
    return counts


def _merge(shards: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Adds up ascending (keys, counts) of all shards, a range of keys at a time."""
    if len(shards) == 1:
        return shards[0]
    longest = max((keys for keys, _ in shards), key=len)
    # Ranges that hold about as many keys as a shard: every so many keys of the longest one.
    bounds = longest[:: max(1, len(longest) // len(shards))][1:]
    cuts = [[0, *np.searchsorted(keys, bounds).tolist(), len(keys)] for keys, _ in shards]
    merged = []
    for r in range(len(bounds) + 1):
        parts = [(k[cut[r] : cut[r + 1]], c[cut[r] : cut[r + 1]]) for (k, c), cut in zip(shards, cuts, strict=True)]
        keys, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
        places = np.argsort(keys, kind="stable")  # merges runs, which these are
        keys = keys[places]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
        merged.append((keys[first], np.add.reduceat(counts[places], first, dtype=np.int32) if len(first) else counts))
    return tuple(np.concatenate(column) for column in zip(*merged, strict=True))
