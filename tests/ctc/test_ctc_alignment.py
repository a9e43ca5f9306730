"""The best path and the occupancy of states, against enumeration of all paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import rows
from ctc_oracle import collapse, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc

FRAMES, SIZE, VOCABULARY = 5, 3, 4


def states(path, blank=0):
    """The lattice states of a path: 2n for a blank after n labels, 2n - 1 for label n."""
    count, before, found = 0, blank, []
    for token in path:
        count += token not in (blank, before)
        found.append(2 * count - (token != blank))
        before = token
    return tuple(found)


def paths(logits, target, blank=0):
    """Every path that collapses to the target: [(log-probability, tokens, states)]."""
    log_prob = log_softmax(logits)
    return [
        (sum(log_prob[frame, token] for frame, token in enumerate(path)), path, states(path, blank))
        for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0])
        if collapse(path, blank) == target
    ]


@pytest.fixture(scope="module")
def compiled():
    def run(logits, frames, labels, size):
        row = logits[None], frames[None], labels[None], size[None]
        return ctc.viterbi_alignment(*row), ctc.occupancy(*row), ctc.ctc_loss(*row, infeasible="inf")

    return jax.jit(run)


def run_one(compiled, logits, frames, labels, size):
    padded = np.zeros(SIZE, np.int32)
    padded[: len(labels)] = labels
    args = jnp.asarray(logits, jnp.float32), jnp.int32(frames), jnp.asarray(padded), jnp.int32(size)
    return jax.tree.map(lambda array: np.asarray(array)[0], compiled(*args))


@settings(max_examples=150, deadline=None)
@given(
    frames=st.integers(0, FRAMES),
    labels=st.lists(st.integers(1, 3), max_size=SIZE),
    seed=st.integers(0, 2**32 - 1),
    impossible=st.sampled_from([0.0, 0.0, 0.3]),
)
def test_equal_enumeration(compiled, frames, labels, seed, impossible):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(FRAMES, VOCABULARY), scale=3.0)
    logits[random.random(logits.shape) < impossible] = -np.inf
    logits[:, random.integers(0, VOCABULARY)] = 0.0
    best, occupied, loss = run_one(compiled, logits, frames, labels, len(labels))
    found = [p for p in paths(logits[:frames], tuple(labels)) if p[0] > -np.inf]
    assert (best.tokens[frames:] == 0).all() and (occupied[frames:] == 0).all()
    if not found:
        assert best.scores == -np.inf and (best.tokens == 0).all() and (occupied == 0).all()
        return
    score, tokens, _ = max(found)
    np.testing.assert_allclose(best.scores, score, rtol=1e-5, atol=1e-5)
    assert collapse(best.tokens[:frames]) == tuple(labels)
    assert tuple(best.tokens[:frames]) == tokens
    assert best.scores <= -loss + 1e-5
    mass = np.zeros((frames, 2 * SIZE + 1))
    for log_prob, _, visited in found:
        mass[np.arange(frames), list(visited)] += np.exp(log_prob)
    np.testing.assert_allclose(occupied[:frames], mass / sum(np.exp(p[0]) for p in found), atol=1e-5)


@pytest.mark.parametrize("target", [(), (1,), (1, 2), (1, 1), (2, 1, 2), (3, 3, 1)])
def test_ties_are_broken_as_documented(compiled, target):
    # Every path is equally probable. The one wanted has the greatest states, read from the last frame back.
    for frames in range(len(target) + sum(a == b for a, b in itertools.pairwise(target)), FRAMES + 1):
        best, *_ = run_one(compiled, np.zeros((FRAMES, VOCABULARY)), frames, target, len(target))
        every = paths(np.zeros((frames, VOCABULARY)), target)
        _, tokens, _ = max(every, key=lambda path: path[2][::-1])
        assert tuple(best.tokens[:frames]) == tokens


def test_occupancy_is_what_the_gradient_subtracts():
    logits, logit_lengths, labels, label_lengths = rows(71, 6, 23, 7, 11, feasible=True)
    slope = jax.grad(lambda z: ctc.ctc_loss(z, logit_lengths, labels, label_lengths).sum())(logits)
    by_state = np.asarray(ctc.occupancy(logits, logit_lengths, labels, label_lengths))
    for row in range(6):
        frames, size = int(logit_lengths[row]), int(label_lengths[row])
        by_token = np.zeros((frames, 11))
        by_token[:, 0] = by_state[row, :frames, 0::2].sum(-1)
        for place in range(size):
            by_token[:, labels[row, place]] += by_state[row, :frames, 2 * place + 1]
        np.testing.assert_allclose(by_state[row, :frames].sum(-1), 1, atol=1e-5)
        expected = np.exp(log_softmax(np.asarray(logits[row, :frames]))) - by_token
        np.testing.assert_allclose(slope[row, :frames], expected, atol=1e-5)


def test_another_blank_bfloat16_vmap_and_other_rows():
    logits, logit_lengths, labels, label_lengths = batch = rows(72, 6, 23, 7, 11, feasible=True)
    whole = ctc.viterbi_alignment(*batch)
    stacked = jax.tree.map(lambda array: jnp.stack([array, jnp.flip(array, 0)]), batch)
    mapped = jax.vmap(ctc.viterbi_alignment)(*stacked)
    np.testing.assert_array_equal(mapped.tokens, jnp.stack([whole.tokens, jnp.flip(whole.tokens, 0)]))
    # The blank moved to the last column, and back.
    moved = ctc.viterbi_alignment(jnp.roll(logits, -1, 2), logit_lengths, labels - 1, label_lengths, blank_id=10)
    inside = np.arange(23)[None] < np.asarray(logit_lengths)[:, None]
    np.testing.assert_array_equal(np.asarray((moved.tokens + 1) % 11)[inside], np.asarray(whole.tokens)[inside])
    assert (np.asarray(moved.tokens)[~inside] == 10).all()
    half = ctc.viterbi_alignment(logits.astype(jnp.bfloat16), *batch[1:])
    assert half.scores.dtype == jnp.float32
    np.testing.assert_allclose(half.scores, whole.scores, rtol=2e-2)


def test_neither_carries_a_gradient():
    logits, *rest = rows(73, 4, 9, 3, 5, feasible=True)
    for function in (lambda z: ctc.viterbi_alignment(z, *rest).scores.sum(), lambda z: ctc.occupancy(z, *rest).max()):
        assert (np.asarray(jax.grad(function)(logits)) == 0).all()


def test_back_pointers_are_bytes():
    batch, frames, size = 3, 11, 5
    args = rows(74, batch, frames, size, 97)
    text = str(jax.make_jaxpr(lambda *a: ctc.viterbi_alignment(*a))(*args))
    # Two in a byte: of a blank and of the label behind it.
    assert f"i8[{frames},{batch},{size + 1}]" in text
    assert f"i8[{frames},{batch},{2 * size + 1}]" not in text
    assert f"f32[{frames},{batch},{2 * size + 1}]" not in text


def test_wrong_arguments_are_refused():
    good = dict(logits=np.zeros((2, 5, 4), np.float32), logit_lengths=np.full(2, 5), labels=np.ones((2, 3), np.int32),
                label_lengths=np.full(2, 2))  # fmt: skip
    for function in (ctc.viterbi_alignment, ctc.occupancy):
        with pytest.raises(ValueError, match=r"blank_id must lie in 0\.\.3"):
            function(**good, blank_id=4)
        with pytest.raises(ValueError, match="unroll must be at least 1"):
            function(**good, unroll=0)
        with pytest.raises(TypeError, match="labels must have an integer dtype"):
            function(**(good | {"labels": np.zeros((2, 3), np.float32)}))


@pytest.mark.parametrize("with_bias", [True, False])
def test_from_hidden_states_as_from_their_logits(with_bias):
    generator = np.random.default_rng(4)
    _, logit_lengths, labels, label_lengths = lattice = rows(73, 6, 23, 7, 11)
    hidden = jnp.asarray(generator.normal(size=(6, 23, 5)), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=(5, 11)), jnp.float32)
    bias = jnp.asarray(generator.normal(size=11), jnp.float32) if with_bias else None
    logits = hidden @ kernel + (0.0 if bias is None else bias[None, None, :])
    assert lattice[0].shape == logits.shape
    found = ctc.linear_viterbi_alignment(hidden, kernel, logit_lengths, labels, label_lengths, bias=bias)
    expected = ctc.viterbi_alignment(logits, logit_lengths, labels, label_lengths)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    real = np.arange(23) < np.asarray(logit_lengths)[:, None]
    np.testing.assert_array_equal(found.predicted, np.where(real, np.asarray(logits).argmax(-1), 0))
    expected = ctc.ctc_loss(logits, logit_lengths, labels, label_lengths)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda h: ctc.linear_viterbi_alignment(h, kernel, *lattice[1:], bias=bias).losses.sum())(hidden)
    assert not np.asarray(slope).any()


def test_logits_of_ids_outside_the_vocabulary_read_nan():
    logits = ctc.linear_label_logits(jnp.ones((1, 2, 3)), jnp.ones((3, 4)), jnp.array([[0, 3, 4, -1]]))
    assert np.isnan(logits).tolist() == [[[False, False, True, True]] * 2]
