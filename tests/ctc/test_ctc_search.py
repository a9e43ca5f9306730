"""beam_search against all alignments of small problems, and against a dictionary of prefixes at full size."""

import jax.numpy as jnp
import numpy as np
import pytest
from ctc_search_oracle import (
    ModularScorer,
    Plain,
    by_dictionary,
    by_enumeration,
    by_enumeration_to_the_end,
    hypotheses,
    normalised,
    peaky,
    random_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc
from natjax.ctc import Implementation

WEIGHTS = st.floats(-1.0, 3.0, allow_subnormal=False)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    # Frames, vocabulary, blank, bonus; each is compiled once.
    problem=st.sampled_from([(1, 3, 0, "log"), (4, 4, 0, "linear"), (4, 4, 3, "log"), (5, 3, 0, "linear")]),
    scale=st.sampled_from([0.1, 2.0, 8.0]),
    score_eos=st.booleans(),
    alpha=st.floats(0.0, 2.0),
    beta=WEIGHTS,
)
def test_equals_the_sum_over_all_alignments(seed, problem, scale, score_eos, alpha, beta):
    random, (frames, vocabulary, blank_id, form) = np.random.default_rng(seed), problem
    logits = random.normal(size=(3, frames, vocabulary), scale=scale).astype(np.float32)
    lengths = np.array([frames, *random.integers(0, frames + 1, 2)], np.int32)
    lm = random_table(random, vocabulary)
    # As many slots as there are alignments: room for every prefix.
    result = ctc.beam_search(
        jnp.asarray(logits), jnp.asarray(lengths), beam_size=vocabulary**frames, top_k=vocabulary - 1, lm=lm,
        lm_weight=alpha, length_bonus=beta, length_bonus_form=form, score_eos=score_eos, blank_id=blank_id,
    )  # fmt: skip
    for row, length in enumerate(lengths):
        log_probs = normalised(logits[row, :length])
        expected = by_enumeration(log_probs, Plain(lm, score_eos), alpha, beta, form, blank_id)
        found = hypotheses(result, row)
        assert len(found) == len(expected) and {tokens for tokens, *_ in found} == set(expected)
        for tokens, *scores in found:
            np.testing.assert_allclose(scores, expected[tokens], rtol=1e-5, atol=1e-4)
        assert [score for _, score, *_ in found] == sorted((score for _, score, *_ in found), reverse=True)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    problem=st.sampled_from([(1, 3, "log"), (4, 4, "linear"), (5, 3, "log")]),
    scale=st.sampled_from([0.1, 2.0, 8.0]),
    score_eos=st.booleans(),
    alpha=st.floats(0.0, 2.0),
    beta=WEIGHTS,
)
def test_ends_where_all_alignments_have_their_first_end(seed, problem, scale, score_eos, alpha, beta):
    random, (frames, vocabulary, form) = np.random.default_rng(seed), problem
    logits = random.normal(size=(3, frames, vocabulary), scale=scale).astype(np.float32)
    lengths = np.array([frames, *random.integers(0, frames + 1, 2)], np.int32)
    lm = random_table(random, vocabulary)
    result = ctc.beam_search(
        jnp.asarray(logits), jnp.asarray(lengths), beam_size=vocabulary**frames, top_k=vocabulary - 1, lm=lm,
        lm_weight=alpha, length_bonus=beta, length_bonus_form=form, score_eos=score_eos, end_id=2,
    )  # fmt: skip
    for row, length in enumerate(lengths):
        plain = Plain(lm, score_eos)
        expected = by_enumeration_to_the_end(normalised(logits[row, :length]), plain, alpha, beta, form)
        found = hypotheses(result, row)
        assert not any(2 in tokens for tokens, *_ in found)
        assert sorted(tokens for tokens, *_ in found) == sorted(tokens for tokens, *_ in expected)
        # With and without the end the tokens are the same: their masses tell.
        found, expected = (sorted(some, key=lambda x: (x[0], round(x[2], 3))) for some in (found, expected))
        for (_, *scores), (_, *theirs) in zip(found, expected, strict=True):
            np.testing.assert_allclose(scores, theirs, rtol=1e-5, atol=1e-4)


def test_a_wide_search_ends_where_the_greedy_path_does():
    from natjax.objectives.base import until_eos

    random = np.random.default_rng(11)
    frames = random.choice(np.array([0, 0, 1, 2, 3, 4]), (6, 12))
    frames[0] = [3, 0, 2, 2, 0, 4, 4, 0, 2, 1, 0, 1]
    logits = jnp.asarray(random.normal(size=(6, 12, 5)) + 14 * np.eye(5)[frames], jnp.float32)
    lengths = jnp.full(6, 12)
    greedy, sizes = until_eos(*ctc.collapse(jnp.asarray(frames, jnp.int32), lengths))
    plain = ctc.beam_search(logits, lengths, beam_size=20, top_k=4, length_bonus=0.1)
    ended = ctc.beam_search(logits, lengths, beam_size=20, top_k=4, length_bonus=0.1, end_id=2)
    np.testing.assert_array_equal(ended.tokens[:, 0], greedy)
    np.testing.assert_array_equal(ended.lengths[:, 0], sizes)
    assert (plain.lengths[:, 0] > sizes).any()
    # Behind the end nothing costs: the mass is that of all paths that begin so.
    assert ended.ctc_scores[0, 0] > plain.ctc_scores[0, 0]


@pytest.mark.parametrize(
    ("beam_size", "top_k", "alpha", "beta", "form", "score_eos"),
    [
        (20, 20, None, 0.0, "linear", False),
        (20, 20, 0.4, 0.8, "linear", True),
        (20, 20, 0.3, 2.0, "log", False),
        (1, 20, 0.4, 0.8, "linear", False),
        (7, 3, 0.4, 0.8, "linear", False),
        (20, 1, 0.4, 0.0, "linear", True),
    ],
)
def test_equals_a_dictionary_of_prefixes_at_full_size(beam_size, top_k, alpha, beta, form, score_eos):
    batch, frames, vocabulary = 2, 90, 32_000
    logits = peaky(beam_size * 100 + top_k, batch, frames, vocabulary)
    lengths = np.array([frames, 71], np.int32)
    lm, alpha = (None, 0.0) if alpha is None else (ModularScorer(jnp.float32(6.0)), alpha)
    result = ctc.beam_search(
        jnp.asarray(logits), jnp.asarray(lengths), beam_size=beam_size, top_k=top_k, lm=lm, lm_weight=alpha,
        length_bonus=beta, length_bonus_form=form, score_eos=score_eos,
    )  # fmt: skip
    for row in range(batch):
        log_probs = normalised(logits[row, : lengths[row]])
        expected = by_dictionary(log_probs, Plain(lm, score_eos), alpha, beta, form, beam_size, top_k)
        found = hypotheses(result, row)
        assert [tokens for tokens, *_ in found] == [tokens for tokens, *_ in expected]
        np.testing.assert_allclose([x[1:] for x in found], [x[1:] for x in expected], rtol=0, atol=1e-4)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.sampled_from([(1, 4), (2, 1), (5, 2), (5, 4)]),
    alpha=st.floats(0.0, 1.0),
    beta=WEIGHTS,
)
def test_equals_a_dictionary_where_tokens_come_again_and_again(seed, sizes, alpha, beta):
    random, (beam_size, top_k) = np.random.default_rng(seed), sizes
    logits = random.normal(size=(4, 12, 5), scale=1.5).astype(np.float32)
    # Frames without a blank, and without a token that others have: prefixes lose all their mass and win it back.
    logits[0, random.random(12) < 0.3, 0] = -np.inf
    logits[1, random.random((12, 5)) < 0.3] = -np.inf
    logits[1, :, 4] = -3.0
    lm = random_table(random, 5)
    result = ctc.beam_search(
        jnp.asarray(logits), jnp.full(4, 12), beam_size=beam_size, top_k=top_k, lm=lm, lm_weight=alpha,
        length_bonus=beta,
    )  # fmt: skip
    for row in range(4):
        with np.errstate(invalid="ignore"):
            expected = by_dictionary(normalised(logits[row]), Plain(lm), alpha, beta, "linear", beam_size, top_k)
        found = hypotheses(result, row)
        expected = [entry for entry in expected if entry[1] > -np.inf]
        assert {tokens for tokens, *_ in found} == {tokens for tokens, *_ in expected}
        theirs = {tokens: scores for tokens, *scores in expected}
        for tokens, *scores in found:
            np.testing.assert_allclose(scores, theirs[tokens], rtol=1e-5, atol=1e-4)


def test_ctc_scores_are_at_most_those_of_the_loss_and_scores_add_up():
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(3, 14, 9), scale=2.0), jnp.float32)
    lengths, lm = jnp.array([14, 13, 2]), random_table(np.random.default_rng(4), 9)
    slack = []
    for beam_size, top_k in ((3, 2), (40, 8)):
        result = ctc.beam_search(
            logits, lengths, beam_size=beam_size, top_k=top_k, lm=lm, lm_weight=0.5, length_bonus=0.7,
            implementation=Implementation.SCAN,
        )  # fmt: skip
        losses = np.stack([
            ctc.ctc_loss(logits, lengths, result.tokens[:, w], result.lengths[:, w], infeasible="inf")
            for w in range(beam_size)
        ], axis=1)  # fmt: skip
        live = np.asarray(result.scores) > -np.inf
        assert (np.asarray(result.ctc_scores)[live] <= 1e-4 - losses[live]).all()
        slack.append((-losses - np.asarray(result.ctc_scores))[:, 0].max())
        whole = result.ctc_scores + 0.5 * result.lm_scores + 0.7 * result.lengths.astype(jnp.float32)
        np.testing.assert_allclose(result.scores[live], whole[live], rtol=1e-6)
        for row in range(3):
            found = hypotheses(result, row)
            assert len({tokens for tokens, *_ in found}) == len(found)
    assert slack[0] > 0.5 and slack[1] < 0.1


def test_a_greater_bonus_never_shortens_the_best_hypothesis():
    random = np.random.default_rng(5)
    logits, lengths = jnp.asarray(random.normal(size=(20, 5, 3), scale=2.0), jnp.float32), jnp.full(20, 5)
    lm = random_table(random, 3)
    for form in ("linear", "log"):
        sizes = [
            np.asarray(ctc.beam_search(logits, lengths, beam_size=243, top_k=2, lm=lm, lm_weight=0.5, length_bonus=beta,
                                       length_bonus_form=form).lengths[:, 0]) for beta in (-4.0, -1.0, 0.0, 0.5, 3.0)
        ]  # fmt: skip
        assert (np.diff(sizes, axis=0) >= 0).all() and (sizes[0] < sizes[-1]).any()
    models = [
        np.asarray(ctc.beam_search(logits, lengths, beam_size=243, top_k=2, lm=lm, lm_weight=alpha).lm_scores[:, 0])
        for alpha in (0.0, 0.3, 1.0, 4.0)
    ]
    assert (np.diff(models, axis=0) >= -1e-5).all() and (models[0] < models[-1]).any()
