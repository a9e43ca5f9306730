"""Interpolated modified Kneser-Ney estimation (Chen and Goodman 1998), with the conventions of KenLM's lmplz.

| what | how |
|---|---|
| adjusted count c of an n-gram, order N | how often it occurs |
| of a lower order | how many different tokens stand before it; after <s>, how often it occurs |
| of <s> and of <unk> at order 1 | 0 |
| discounts D1, D2, D3 of an order | from how many of its n-grams have c = 1, 2, 3, 4 |
| where a number they divide by is 0, or Dj is not within (0, j] | 0.5, 1, 1.5 for that order |
| p(w | context) | (c - D) / Σ c + gamma(context) · p(w | shorter context) |
| gamma(context), the back-off weight | Σ of the discounts, and of all c that are pruned, / Σ c |
| p(w), order 1 | (c - D) / Σ c + gamma / (different tokens of the text, </s> and <unk> among them, <s> not) |
| pruned | order k: n-grams that occur at most prune[k-1] times; they still count for discounts and sums |

Unknown pieces in the text break it: they count as something that stands before, and no n-gram that holds one is kept.
lmplz accepts a discount of 0; here it is replaced, too, since it may leave nothing to back off with.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from natjax.errors import LanguageModelError
from natjax.lm.counting import SHARD_TOKENS, Counts, count
from natjax.lm.model import Level, NgramModel
from natjax.typing import BOS, EOS, UNK

ORDERS = range(2, 7)
FALLBACK = (0.5, 1.0, 1.5)
_PART = 4_000_000  # n-grams whose float64 intermediates are held at a time


class Discounts(NamedTuple):
    """What is taken from the counts of one order.

    Attributes:
        amounts: D1, D2 and D3.
        fallback: whether they are those for counts that define none.
    """

    amounts: tuple[float, float, float]
    fallback: bool


def check_settings(order: int, prune: Sequence[int]) -> None:
    """Raises LanguageModelError for an order, or thresholds, that no model can have."""
    if order not in ORDERS:
        raise LanguageModelError(f"order {order}: must be from {ORDERS[0]} to {ORDERS[-1]}")
    if len(prune) > order:
        raise LanguageModelError(f"{len(prune)} thresholds to prune by, but order {order}; give at most one an order")
    if prune and (prune[0] != 0 or list(prune) != sorted(prune)):
        given = " ".join(map(str, prune))
        raise LanguageModelError(
            f"prune {given}: give one threshold an order, 0 for single pieces, none lower than the one before: 0 0 1"
        )


def estimate(
    stream: np.ndarray,
    *,
    order: int,
    vocabulary_size: int,
    prune: Sequence[int] = (),
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NgramModel, list[Discounts]]:
    """Estimates a model.

    Args:
        stream: i32[n], the text (`counting.stream`).
        order: N, 2 to 6.
        vocabulary_size: V, above all tokens.
        prune: for orders 1, 2, ...: n-grams that occur at most so often are left out; the last one goes for all longer
            ones. Ascending, the first 0, so that parts of what is kept are kept. Empty: nothing is pruned.
        shard_tokens: see `counting.count`.
        progress: see `counting.count`.

    Returns:
        The model, and the discounts of each order.

    Raises:
        LanguageModelError: no text, an impossible order or impossible thresholds.
    """
    check_settings(order, prune)
    if not len(stream):
        raise LanguageModelError("no text to estimate a language model from")
    orders = count(stream, order, vocabulary_size, shard_tokens=shard_tokens, progress=progress)
    adjusted = _adjusted(orders)
    thresholds = [*prune, *[prune[-1] if prune else 0] * (order - len(prune))]
    pruned = [None, *(c.raw <= t if t else None for c, t in zip(orders[1:], thresholds[1:], strict=True))]
    if orders[0].raw[UNK]:
        orders, adjusted, pruned = _without_unknown(orders, adjusted, pruned, vocabulary_size)
    keys, suffixes = [counts.keys for counts in orders], [counts.suffixes for counts in orders]
    orders = None
    discounts = [_discounts(counts) for counts in adjusted]

    listed = adjusted[0] > 0
    listed[[BOS, EOS, UNK]] = True
    probs, backoffs = [_unigrams(adjusted[0], listed, discounts[0])], []
    for n in range(1, order):
        prob, gamma = _interpolated(
            adjusted[n], keys[n], suffixes[n], probs[-1], discounts[n], pruned[n], vocabulary_size
        )
        suffixes[n] = adjusted[n] = None  # the largest orders do not fit twice
        probs.append(prob)
        backoffs.append(np.log(gamma, out=gamma))
    for prob in probs:
        np.log(prob, where=prob > 0, out=prob)
    backoffs.append(np.zeros(len(probs[-1]), np.float32))
    return _model(listed, probs, backoffs, keys, pruned, vocabulary_size), discounts


def _adjusted(orders: list[Counts]) -> list[np.ndarray]:
    """i32[n] of each order: how many different tokens stand before an n-gram; where none can, its own count."""
    made = []
    for counts, longer in pairwise(orders):
        before = np.bincount(longer.suffixes, minlength=len(counts.keys))
        made.append(np.where(before > 0, before, counts.raw).astype(np.int32))
    made[0][[BOS, UNK]] = 0
    return [*made, orders[-1].raw]


def _discounts(adjusted: np.ndarray) -> Discounts:
    """Chen and Goodman, equation 26; in fractions, since rounding must not decide whether one is 0."""
    n = [0, *(int(np.count_nonzero(adjusted == j)) for j in (1, 2, 3, 4))]
    if not all(n[1:4]):
        return Discounts(FALLBACK, True)
    y = Fraction(n[1], n[1] + 2 * n[2])
    amounts = [j - (j + 1) * y * Fraction(n[j + 1], n[j]) for j in (1, 2, 3)]
    if any(not 0 < amount <= j for j, amount in enumerate(amounts, 1)):
        return Discounts(FALLBACK, True)
    return Discounts(tuple(map(float, amounts)), False)


def _taken(adjusted: np.ndarray, discounts: Discounts) -> np.ndarray:
    return np.array([0.0, *discounts.amounts])[np.minimum(adjusted, 3)]


def _unigrams(adjusted: np.ndarray, listed: np.ndarray, discounts: Discounts) -> np.ndarray:
    """f32[V], 0 of tokens that are not listed, and of BOS."""
    taken, total = _taken(adjusted, discounts), adjusted.sum()
    uniform = taken.sum() / total / (listed.sum() - 1)  # BOS is never predicted
    prob = np.where(listed, (adjusted - taken) / total + uniform, 0.0)
    prob[BOS] = 0.0
    return prob.astype(np.float32)


def _interpolated(
    adjusted: np.ndarray,
    keys: np.ndarray,
    suffixes: np.ndarray,
    below: np.ndarray,
    discounts: Discounts,
    pruned: np.ndarray | None,
    vocabulary_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of an order and the back-off weights of the one below: f32[n], f32[contexts].

    n-grams lie in the order of their contexts, so a part of them needs but a part of the sums.
    """
    parts = [slice(start, start + _PART) for start in range(0, len(keys), _PART)]
    total, gamma = np.zeros(len(below)), np.zeros(len(below))

    def given_up(part: slice) -> np.ndarray:
        taken = _taken(adjusted[part], discounts)
        return taken if pruned is None else np.where(pruned[part], adjusted[part], taken)

    for part in parts:
        context = keys[part] // vocabulary_size
        here = slice(context[0], context[-1] + 1)
        total[here] += np.bincount(context - context[0], weights=adjusted[part])
        gamma[here] += np.bincount(context - context[0], weights=given_up(part))
    gamma = np.divide(gamma, total, where=total > 0, out=np.ones(len(below), np.float32), casting="same_kind")
    prob = np.empty(len(keys), np.float32)
    for part in parts:
        context = keys[part] // vocabulary_size
        own = (adjusted[part] - given_up(part)) / total[context]
        prob[part] = own + gamma[context] * below[suffixes[part]].astype(np.float64)
    return prob, gamma


def _without_unknown(
    orders: list[Counts], adjusted: list[np.ndarray], pruned: list[np.ndarray | None], vocabulary_size: int
) -> tuple[list[Counts], list[np.ndarray], list[np.ndarray | None]]:
    """The same less all n-grams that hold UNK. Adjusted counts stay: what stood before others did stand there."""
    holds, numbers = np.arange(vocabulary_size) == UNK, np.arange(vocabulary_size)
    made = [orders[0]], [adjusted[0]], [pruned[0]]
    for counts, each, cut in zip(orders[1:], adjusted[1:], pruned[1:], strict=True):
        context, token = np.divmod(counts.keys, vocabulary_size)
        suffixes = numbers[counts.suffixes]
        kept = ~(holds[context] | (token == UNK))
        made[0].append(Counts(numbers[context[kept]] * vocabulary_size + token[kept], counts.raw[kept], suffixes[kept]))
        made[1].append(each[kept])
        made[2].append(None if cut is None else cut[kept])
        holds, numbers = ~kept, np.cumsum(kept) - 1
    return made


def _model(
    listed: np.ndarray,
    log_probs: list[np.ndarray],
    backoffs: list[np.ndarray],
    keys: list[np.ndarray],
    pruned: list[np.ndarray | None],
    vocabulary_size: int,
) -> NgramModel:
    """Joins the orders and drops what is pruned."""
    levels, numbers = [], None  # of the contexts among those that are kept; None: as they were
    for own, log_prob, backoff, cut in zip(keys[1:], log_probs[1:], backoffs[1:], pruned[1:], strict=True):
        kept = slice(None) if cut is None else ~cut
        own = own[kept]
        if numbers is not None:
            context, token = np.divmod(own, vocabulary_size)
            own = numbers[context] * vocabulary_size + token
        levels.append(Level(own, log_prob[kept], backoff[kept]))
        numbers = None if cut is None else np.cumsum(~cut) - 1
    return NgramModel(listed, log_probs[0], np.where(listed, backoffs[0], np.float32(0.0)), tuple(levels))
