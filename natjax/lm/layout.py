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
    states, tokens = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for n, level in enumerate(model.levels, 2):
        context, token = np.divmod(level.keys, V)
        context += offsets[n - 2]
        ends[offsets[n - 1] : offsets[n]] = _follow(model, offsets, ends, n - 1, ends[context], token)
        states.append(context.astype(np.int32))
        tokens.append(token.astype(np.int32))
    after = _states_after(model, offsets, ends, np.concatenate(states))
    contexts = offsets[N - 1] if N > 1 else V
    first = after[model.aliases]
    first[BOS] = after[BOS]
    return NgramTables(
        N,
        *_hash_table(
            np.concatenate(states),
            np.concatenate(tokens),
            np.concatenate([np.zeros(0, np.float32), *(level.log_probs for level in model.levels)]),
            after[V:],
        ),
        aliases=model.aliases,
        unigrams=model.log_probs[model.aliases],
        first=first,
        backoffs=np.concatenate([model.backoffs, *(level.backoffs for level in model.levels[: N - 2])]),
        shorter=after[ends[:contexts]],
    )


def _follow(
    model: NgramModel, offsets: np.ndarray, ends: np.ndarray, longest: int, state: np.ndarray, token: np.ndarray
) -> np.ndarray:
    """i32[n], the longest n-gram, of at most `longest` tokens, that is an end of each state's tokens and its token.

    In complete models the first look finds it; others have left n-grams out whose longer ones they keep.
    """
    found = token.astype(np.int32)
    state, missing = state.copy(), np.ones(len(state), bool)
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
        numbers = np.arange(offsets[n - 1], offsets[n], dtype=np.int32)
        own = (matters[numbers] | (backoffs != 0)) & (n < model.order)
        after[numbers] = np.where(own, numbers, after[ends[numbers]])
    return after


def _hash_table(
    states: np.ndarray, tokens: np.ndarray, log_probs: np.ndarray, following: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`keys`, `log_probs`, `following` and `seed` of the tables."""
    table = hashing.build(states, tokens)
    row, column = np.divmod(table.slots, WIDTH)
    keys = np.full((table.buckets, 2 * WIDTH), EMPTY, np.int32)
    keys[row, column], keys[row, column + WIDTH] = states, tokens
    values = np.zeros((table.buckets, WIDTH), np.float32), np.zeros((table.buckets, WIDTH), np.int32)
    values[0][row, column], values[1][row, column] = log_probs, following
    return keys, *values, np.asarray(table.seed, np.uint32)
