"""Word alignment by expectation maximisation, in numpy: IBM model 1, then the same with a prior along the diagonal.

The second model is that of fast_align (Dyer, Chahuneau and Smith 2013) at its first tension. Each target token comes
from one source token or from none:

    p(y_1..y_n | x_1..x_m) = Π_j Σ_i δ(i | j) θ(y_j | x_i)
    δ(0 | j) = NULL_PRIOR                                  y_j comes from no source token
    δ(i | j) = (1 - NULL_PRIOR) exp(-tension |i/m - j/n|) / Z_j

Words are learnt at tension 0, which is model 1, and places count only then: with TENSION from the start, languages of
very different order would be aligned along the diagonal, whatever their words.

One cell is one (target token, source token or none) of one sentence pair, so a corpus is a handful of flat arrays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NULL_PRIOR = 0.08
TENSION = 4.0
ITERATIONS = 5


class Links(NamedTuple):
    """The best link of every target token that comes from a source token, in corpus order.

    Attributes:
        pair: i64[K], the sentence pair.
        source: i64[K], the place of the source token in its sentence.
        target: i64[K], the place of the target token in its sentence.
        source_type: i64[K], id of the source token.
        target_type: i64[K], id of the target token.
    """

    pair: np.ndarray
    source: np.ndarray
    target: np.ndarray
    source_type: np.ndarray
    target_type: np.ndarray


def align(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], iterations: int = ITERATIONS) -> Links:
    """Aligns a corpus with itself as training data.

    Takes about 70 bytes a cell; a pair of m and n tokens has (m + 1) n cells.

    Args:
        sources: token ids of each source sentence, from 0; none is empty.
        targets: of each target sentence; none is empty.
        iterations: of expectation maximisation with each model, from θ uniform.

    Raises:
        ValueError: the sides differ in length, or a sentence is empty.
    """
    m_P, n_P = (np.array([len(row) for row in side], np.int64) for side in (sources, targets))
    if len(m_P) != len(n_P) or not m_P.all() or not n_P.all():
        raise ValueError("both sides need the same number of sentences, none of them empty")
    if not len(m_P):
        return Links(*(np.zeros(0, np.int64) for _ in Links._fields))
    source_ids, target_ids = (
        np.concatenate([np.asarray(row, np.int64) for row in side]) for side in (sources, targets)
    )
    # By target token (suffix N, all pairs one after another), then by cell (suffix C).
    pair_N = np.repeat(np.arange(len(n_P)), n_P)
    place_N = np.arange(len(pair_N)) - (np.cumsum(n_P) - n_P)[pair_N]
    width_N = m_P[pair_N] + 1
    first_N = np.cumsum(width_N) - width_N
    token_C = np.repeat(np.arange(len(width_N), dtype=np.int32), width_N)
    place_C = (np.arange(len(token_C)) - first_N[token_C] - 1).astype(np.int32)  # -1: from none
    priors = [
        _prior(tension, place_C, token_C, first_N, m_P[pair_N], (place_N + 1) / n_P[pair_N]) for tension in (0, TENSION)
    ]
    starts_N = (np.cumsum(m_P) - m_P)[pair_N]
    source_C = np.where(place_C < 0, 0, source_ids[np.maximum(starts_N[token_C] + place_C, 0)] + 1)
    types = int(target_ids.max()) + 1
    entries, entry_C = np.unique(source_C * types + target_ids[token_C], return_inverse=True)
    del source_C

    source_of_entry = entries // types
    theta = np.ones(len(entries))
    for number in range(2 * iterations):
        weight_C = priors[number // iterations] * theta[entry_C]
        weight_C /= np.add.reduceat(weight_C, first_N)[token_C]
        counts = np.bincount(entry_C, weight_C, len(entries))
        theta = counts / np.bincount(source_of_entry, counts)[source_of_entry]
    weight_C = priors[1] * theta[entry_C]
    best = np.flatnonzero(weight_C == np.maximum.reduceat(weight_C, first_N)[token_C])
    token_K = token_C[best]
    best = best[np.diff(token_K, prepend=-1) > 0]  # the first among equals
    best = best[place_C[best] >= 0]
    token_K, source_K = token_C[best], place_C[best].astype(np.int64)
    return Links(
        pair_N[token_K], source_K, place_N[token_K], source_ids[starts_N[token_K] + source_K], target_ids[token_K]
    )


def _prior(
    tension: float, place_C: np.ndarray, token_C: np.ndarray, first_N: np.ndarray, m_N: np.ndarray, share_N: np.ndarray
) -> np.ndarray:
    """δ of every cell, f64[C]."""
    weight_C = np.exp(-tension * np.abs((place_C + 1) / m_N[token_C] - share_N[token_C]))
    null_C = place_C < 0
    weight_C[null_C] = 0
    weight_C *= (1 - NULL_PRIOR) / np.add.reduceat(weight_C, first_N)[token_C]
    weight_C[null_C] = NULL_PRIOR
    return weight_C


def conditional_entropy(links: Links) -> float | None:
    """C(d) = 1/|V_x| Σ_x H(y|x) in nats, over the source types that are linked; None where there are none.

    Zhou, Gu and Neubig (2020), *Understanding Knowledge Distillation in Non-autoregressive Machine Translation*,
    section 3.2: how many ways there are to translate a word, mean over word types. 0: one way each.
    """
    if not len(links.pair):
        return None
    types = int(links.target_type.max()) + 1
    entries, counts = np.unique(links.source_type * types + links.target_type, return_counts=True)
    source = np.unique(entries // types, return_inverse=True)[1]
    share = counts / np.bincount(source, counts)[source]
    return float(-(share * np.log(share)).sum() / (source.max() + 1)) + 0.0  # never -0.0


def monotonicity(links: Links) -> float | None:
    """Mean over sentence pairs of the fuzzy reordering score; None where no pair has two linked source tokens.

    1 - (C - 1) / (M - 1), after Talbot et al. (2011), as Xu et al. (2021) use it for distilled data: the M linked
    source tokens are read in the order of their targets (of several targets, their mean place), and C is the number of
    stretches in which they stand in the source's own order without a gap. 1: the same order; 0: no two neighbours
    follow each other as before.
    """
    if not len(links.pair):
        return None
    # One row (suffix M) for each linked source token, ordered by pair and place.
    width = int(links.source.max()) + 1
    keys, inverse, counts = np.unique(links.pair * width + links.source, return_inverse=True, return_counts=True)
    pair_M, target_M = keys // width, np.bincount(inverse, links.target) / counts
    order = np.lexsort((np.arange(len(keys)), target_M, pair_M))
    same_pair = np.diff(pair_M) == 0  # sorting moves nothing from one pair to another
    broken = same_pair & (np.diff(order) != 1)
    steps, breaks = (np.bincount(pair_M[1:], kept, int(pair_M[-1]) + 1) for kept in (same_pair, broken))
    judged = steps > 0
    return float(np.mean(1 - breaks[judged] / steps[judged])) if judged.any() else None
