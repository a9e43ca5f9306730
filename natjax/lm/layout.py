"""How an n-gram model becomes tables: states, the chains they back off along, and the hash table's arrays.

All n-grams, of all orders, are numbered through: a unigram has its token's id, and each order begins where the one
below ends. The numbers of orders below N are the states; 0, which is no token, is the empty context.
"""

import numpy as np

from natjax.lm import hashing
from natjax.lm.hashing import EMPTY, WIDTH
from natjax.lm.model import NgramModel
from natjax.lm.tables import NgramTables
from natjax.typing import BOS

_PART = 4_000_000  # n-grams whose int64 intermediates are held at a time


def make_tables(model: NgramModel) -> NgramTables:
    """Lays a model out as tables, in numpy arrays; `jax.device_put` brings them to a device.

    Raises:
        ValueError: 2^31 n-grams and more.
    """
    V, N = model.vocabulary_size, model.order
    offsets = np.cumsum([0, V, *(len(level.keys) for level in model.levels)])
    if offsets[-1] >= 1 << 31:
        raise ValueError("2^31 n-grams and more are too many")
    ends = np.zeros(offsets[-1], np.int32)  # the longest shorter end of each n-gram
    states, tokens = np.zeros((2, offsets[-1]), np.int32)  # from V on
    for n, level in enumerate(model.levels, 2):
        # Large models do not fit several times: some n-grams at a time, each into its place.
        for start in range(0, len(level.keys), _PART):
            keys = level.keys[start : start + _PART]
            part = slice(offsets[n - 1] + start, offsets[n - 1] + start + len(keys))
            context, tokens[part] = np.divmod(keys, V)
            states[part] = context + offsets[n - 2]
            ends[part] = _follow(model, offsets, ends, n - 1, ends[states[part]], tokens[part])
    after = _states_after(model, offsets, ends, states[V:])
    contexts = offsets[N - 1] if N > 1 else V
    first, shorter = after[model.aliases], after[ends[:contexts]]
    first[BOS] = after[BOS]
    del ends
    return NgramTables(
        N,
        *_hash_table(states[V:], tokens[V:], [level.log_probs for level in model.levels], after[V:]),
        aliases=model.aliases,
        unigrams=model.log_probs[model.aliases],
        first=first,
        backoffs=np.concatenate([model.backoffs, *(level.backoffs for level in model.levels[: N - 2])]),
        shorter=shorter,
    )


def _follow(
    model: NgramModel, offsets: np.ndarray, ends: np.ndarray, longest: int, state: np.ndarray, token: np.ndarray
) -> np.ndarray:
    """i32[n], the longest n-gram, of at most `longest` tokens, that is an end of each state's tokens and its token.

    In complete models the first look finds it; others have left n-grams out whose longer ones they keep. Overwrites
    `state`.
    """
    found, missing = token.copy(), np.ones(len(state), bool)
    for n in range(longest, 1, -1):
        asked = np.flatnonzero(missing & (state >= offsets[n - 2]) & (state < offsets[n - 1]) & (state > 0))
        place = model.find(n, state[asked] - offsets[n - 2], token[asked])
        there = place >= 0
        found[asked[there]] = offsets[n - 1] + place[there]
        missing[asked[there]] = False
        state[asked[~there]] = ends[state[asked[~there]]]
    return found


def _states_after(model: NgramModel, offsets: np.ndarray, ends: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """i32[n-grams], the state after each: itself, or the longest end of it that can matter for what follows.

    One matters if an n-gram begins with it or it has a back-off weight. Those of order N do not.
    """
    matters = np.zeros(offsets[-1], bool)
    matters[contexts] = True
    parts = [model.backoffs, *(level.backoffs for level in model.levels)]
    after = np.zeros(offsets[-1], np.int32)
    for n, backoffs in enumerate(parts, 1):
        part = slice(offsets[n - 1], offsets[n])
        own = (matters[part] | (backoffs != 0)) & (n < model.order)
        after[part] = np.where(own, np.arange(part.start, part.stop, dtype=np.int32), after[ends[part]])
    return after


def _hash_table(
    states: np.ndarray, tokens: np.ndarray, log_probs: list[np.ndarray], following: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`keys`, `log_probs`, `following` and `seed` of the tables; `log_probs` come order by order."""
    table = hashing.build(states, tokens)
    keys = np.full((table.buckets, 2 * WIDTH), EMPTY, np.int32)
    probs, after = np.zeros((table.buckets, WIDTH), np.float32), np.zeros((table.buckets, WIDTH), np.int32)
    for start in range(0, len(states), _PART):
        part = slice(start, start + _PART)
        row, column = np.divmod(table.slots[part], WIDTH)
        keys[row, column], keys[row, column + WIDTH] = states[part], tokens[part]
    after.reshape(-1)[table.slots] = following
    done = 0
    for some in log_probs:
        probs.reshape(-1)[table.slots[done : done + len(some)]] = some
        done += len(some)
    return keys, probs, after, np.asarray(table.seed, np.uint32)
