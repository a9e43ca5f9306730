"""Upsampling, length classifier, positions, head: against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natjax.frames import frame_count
from natjax.layers.head import logits
from natjax.layers.length import LengthClassifier, length_loss, predict_lengths
from natjax.layers.position import Positions, sinusoids
from natjax.layers.upsample import (
    DistanceUpsample,
    GaussianUpsample,
    LinearUpsample,
    distance_weights,
    gaussian_weights,
)
from natjax.typing import Head


@pytest.mark.parametrize("ratio", [1.5, 2.0, 2.5, 3.0])
def test_gaussian_weights_against_the_release_formula(ratio):
    S, lengths = 5, [5, 3, 1]
    T = frame_count(S, ratio)
    weights = np.asarray(gaussian_weights(jnp.array(lengths), S, T, ratio))
    for b, length in enumerate(lengths):
        ends = np.cumsum(np.full(length, ratio))  # duration λ a piece; a centre lies λ/2 before the end
        centres = ends - ratio / 2
        for t in range(T):
            plain = np.exp(-((t - centres) ** 2) / 0.3 - (-((t - centres) ** 2) / 0.3).max())
            np.testing.assert_allclose(weights[b, t, :length], plain / plain.sum(), rtol=1e-4, atol=1e-6)
            assert (weights[b, t, length:] == 0).all()


def test_frames_between_two_pieces_are_even_mixes_at_ratio_three():
    weights = np.asarray(gaussian_weights(jnp.array([4]), 4, 12, 3.0))[0]
    np.testing.assert_allclose(weights[3, :2], [0.5, 0.5], atol=1e-6)
    assert weights[1, 0] > 0.99


@given(st.integers(1, 400), st.sampled_from([1.0, 1.1, 1.5, 2.0, 2.5, 3.0]))
def test_frame_count_is_the_same_for_ints_numpy_and_jax(length, ratio):
    from decimal import ROUND_CEILING, Decimal

    exact = int((Decimal(str(ratio)) * length).to_integral_value(ROUND_CEILING))
    assert frame_count(length, ratio) == exact
    assert int(frame_count(np.int32(length), ratio)) == exact
    assert int(frame_count(jnp.int32(length), ratio)) == exact


def test_gaussian_upsampling_of_constant_states_is_constant():
    module = GaussianUpsample(2.5)
    out = module.apply({}, jnp.full((2, 4, 8), 3.0), jnp.array([4, 2]), 10)
    np.testing.assert_allclose(out, np.full((2, 10, 8), 3.0), rtol=1e-6)


def test_linear_upsampling_splits_each_piece():
    module = LinearUpsample(3, "xavier", jnp.dtype(jnp.float32))
    memory = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8)), jnp.float32)
    params = module.init(jax.random.key(0), memory, jnp.array([4, 2]), 12)
    out = module.apply(params, memory, jnp.array([4, 2]), 12)
    kernel = np.asarray(params["params"]["kernel"])
    for s in range(4):
        for k in range(3):
            expected = np.asarray(memory)[:, s] @ kernel[:, 8 * k : 8 * (k + 1)]
            np.testing.assert_allclose(out[:, 3 * s + k], expected, rtol=1e-4, atol=1e-5)


def test_distance_weights_against_a_loop_and_tau_learns():
    weights = np.asarray(distance_weights(jnp.array([3]), 4, 5, jnp.float32(0.7)))[0]
    for t in range(5):
        plain = np.array([np.exp(-abs(s - t) / 0.7) for s in range(3)])
        np.testing.assert_allclose(weights[t, :3], plain / plain.sum(), rtol=1e-5)
        assert weights[t, 3] == 0
    module, memory = DistanceUpsample(), jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 8)), jnp.float32)
    params = module.init(jax.random.key(0), memory, jnp.array([3]), 5)
    np.testing.assert_allclose(np.exp(params["params"]["log_temperature"]), 0.5, rtol=1e-6)
    gradient = jax.grad(lambda p: (module.apply(p, memory, jnp.array([3]), 5) ** 2).sum())(params)
    assert abs(float(gradient["params"]["log_temperature"])) > 1e-3


def test_length_classifier_ignores_padding_and_predicts_within_bounds():
    module = LengthClassifier(4, "xavier")
    memory = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)
    lengths = jnp.array([6, 3])
    params = module.init(jax.random.key(0), memory, lengths)
    out = module.apply(params, memory, lengths)
    np.testing.assert_array_equal(out[1], module.apply(params, memory.at[1, 3:].set(7.0), lengths)[1])
    assert out.shape == (2, 9)
    # Offsets -4 ... 4 of lengths 6 and 3; a length below 1 becomes 1.
    scores = jnp.asarray(np.eye(9, dtype=np.float32)[[8, 0]]) + 0.1 * jnp.arange(9.0)[None, :] / 9
    best = np.asarray(predict_lengths(scores, lengths, 2))
    np.testing.assert_array_equal(best, [[10, 9], [1, 7]])


def test_length_loss_against_a_softmax_by_hand():
    scores = jnp.asarray(np.random.default_rng(3).normal(size=(3, 5)), jnp.float32)
    loss = length_loss(scores, jnp.array([5, 5, 5]), jnp.array([6, 50, 1]))
    table = np.exp(np.asarray(scores, np.float64))
    table /= table.sum(1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log([table[0, 3], table[1, 4], table[2, 0]]), rtol=1e-5)


def test_sinusoids_against_the_formula():
    table = sinusoids(9, 6)
    for position in range(9):
        for i in range(3):
            angle = position / 10_000 ** (i / 2)
            np.testing.assert_allclose(
                table[position, [i, i + 3]], [np.sin(angle), np.cos(angle)], rtol=1e-5, atol=1e-6
            )


def test_a_learned_table_refuses_longer_input():
    module = Positions("learned", 4)
    params = module.init(jax.random.key(0), jnp.zeros((1, 4, 8)))
    with pytest.raises(ValueError, match="5 positions"):
        module.apply(params, jnp.zeros((1, 5, 8)))


def test_logits_without_bias():
    head = Head(jnp.ones((1, 2, 3)), jnp.ones((3, 4)), None)
    np.testing.assert_allclose(logits(head), np.full((1, 2, 4), 3.0))
