"""Counts of n-grams, by sorting keys, shard after shard of the text, in bounded memory.

Only a shard's keys are sorted at a time. What grows with the text is 12 bytes a token (the token, and the numbers of
the n-grams of this order and of the one below that end there), 16 bytes for each different n-gram found so far, and
while the shards of an order are merged, about 50 bytes for each of its own.
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
    """Adds up ascending (keys, counts) of all shards, shorter lists first, so that each is copied few times."""
    lists = sorted((pair for pair in shards if len(pair[0])), key=lambda pair: -len(pair[0]))
    while len(lists) > 1:
        (keys, counts), (more_keys, more_counts) = lists.pop(), lists.pop()
        keys, counts = np.concatenate([keys, more_keys]), np.concatenate([counts, more_counts])
        # A stable sort knows runs: two of them are merged in linear time.
        places = np.argsort(keys, kind="stable")
        keys = keys[places]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        merged = keys[first], np.add.reduceat(counts[places], first, dtype=np.int32)
        place = next((i for i, pair in enumerate(lists) if len(pair[0]) < len(merged[0])), len(lists))
        lists.insert(place, merged)
    return lists[0] if lists else (np.zeros(0, np.int64), np.zeros(0, np.int32))
