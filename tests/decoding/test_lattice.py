"""The search as a part of decoding: what it must not emit, and where it ends, by the greedy path of the same frames."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax.decoding import lattice
from natjax.decoding.lattice import Search
from natjax.errors import ConfigError
from natjax.objectives.ctc import CTC
from natjax.typing import Head

SEARCH = Search(8, 7, "linear", False)


def head(frames, vocabulary=9, sure=12.0):
    """A model's output whose most probable token of each frame is the one given."""
    logits = sure * np.eye(vocabulary, dtype=np.float32)[np.asarray(frames)]
    return Head(jnp.asarray(logits)[None], jnp.eye(vocabulary), None)


def best(frames, search, lm=None, alpha=0.0, beta=0.0):
    weights = lattice.weights(lm, alpha, beta)
    found = lattice.searched(head(frames), jnp.array([len(frames)]), search, weights)
    return found.tokens[0, : int(found.lengths[0])].tolist(), found


def test_it_ends_where_greedy_decoding_does():
    frames = [5, 0, 2, 6, 0, 2]
    for target_eos, tokens in ((True, [5]), (False, [5, 6])):
        search = dataclasses.replace(SEARCH, target_eos=target_eos)
        assert best(frames, search)[0] == tokens
    greedy, length = CTC(ratio=2.0, target_eos=True).collapse(jnp.array([frames]), jnp.array([6]))
    assert greedy[0, : int(length[0])].tolist() == [5]


def test_neither_bonus_nor_language_model_count_what_comes_at_the_end_or_behind_it():
    prices = tiny.Letters(jnp.log(jnp.full(9, 0.1)))
    search = dataclasses.replace(SEARCH, target_eos=True)
    _, found = best([5, 0, 7, 2, 6, 8], search, prices, alpha=0.5, beta=0.25)
    first = found.n_best
    assert first.tokens[0, 0, :2].tolist() == [5, 7]
    # 5, 7 and the end, once.
    np.testing.assert_allclose(first.lm_scores[0, 0], 3 * np.log(0.1), rtol=1e-6)
    whole = first.ctc_scores[0, 0] + 0.5 * first.lm_scores[0, 0] + 0.25 * 2
    np.testing.assert_allclose(first.sums[0, 0], whole, rtol=1e-6)


def test_bos_and_an_end_that_targets_do_not_have_are_never_emitted():
    frames = [5, 1, 2, 6, 1]
    for target_eos in (False, True):
        _, found = best(frames, dataclasses.replace(SEARCH, target_eos=target_eos), beta=3.0)
        assert not np.isin(found.n_best.tokens, [1, 2]).any()
    assert best(frames, SEARCH)[0] == [5, 6]


def test_a_weight_without_a_language_model():
    with pytest.raises(ConfigError, match=r"decoding.lm_weight: is 0.4, but no language model was given"):
        lattice.weights(None, 0.4, 0.0)
