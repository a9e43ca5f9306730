"""Attention and the stack: against a loop in numpy, and blind to what lies beyond a row's length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from natjax.config import ModelConfig
from natjax.layers.attention import KeysValues, attend, attend_cached, visible
from natjax.layers.stack import Stack

CONFIG = ModelConfig.tiny(width=16, feed_forward=32, heads=2, dropout=0.1)


def _plain_attention(query, key, value, lengths):
    B, T, H, K = query.shape
    out = np.zeros((B, T, H, K))
    for b in range(B):
        for h in range(H):
            for t in range(T):
                scores = np.array([query[b, t, h] @ key[b, s, h] / np.sqrt(K) for s in range(lengths[b])])
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                out[b, t, h] = sum(w * value[b, s, h] for s, w in enumerate(weights))
    return out


def test_attend_against_a_loop():
    generator = np.random.default_rng(0)
    query = generator.normal(size=(3, 4, 2, 8)).astype(np.float32)
    key, value = generator.normal(size=(2, 3, 6, 2, 8)).astype(np.float32)
    lengths = np.array([6, 1, 3])
    out = attend(jnp.asarray(query), jnp.asarray(key), jnp.asarray(value), jnp.asarray(lengths))
    np.testing.assert_allclose(out, _plain_attention(query, key, value, lengths), rtol=1e-4, atol=1e-5)


def _stack(norm="pre", depth=3):
    config = dataclasses.replace(CONFIG, norm=norm)
    stack = Stack(config, depth)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 16)), jnp.float32)
    memory = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, 16)), jnp.float32)
    lengths, memory_lengths = jnp.array([7, 4]), jnp.array([5, 2])
    params = stack.init(jax.random.key(0), x, lengths, memory, memory_lengths)
    return stack, params, x, lengths, memory, memory_lengths


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_what_lies_beyond_the_lengths_changes_nothing(norm):
    stack, params, x, lengths, memory, memory_lengths = _stack(norm)
    apply = jax.jit(stack.apply)
    out = apply(params, x, lengths, memory, memory_lengths)
    other = apply(params, x.at[1, 4:].set(9.0), lengths, memory.at[1, 2:].set(-9.0), memory_lengths)
    np.testing.assert_array_equal(out[0], other[0])
    np.testing.assert_array_equal(out[1, :4], other[1, :4])
    assert not np.array_equal(out[1, 4:], other[1, 4:])


def test_there_is_no_causal_mask():
    stack, params, x, lengths, memory, memory_lengths = _stack()
    out = stack.apply(params, x, lengths, memory, memory_lengths)
    changed = stack.apply(params, x.at[0, 6].set(5.0), lengths, memory, memory_lengths)
    assert np.abs(np.asarray(out[0, 0]) - np.asarray(changed[0, 0])).max() > 1e-4


def test_layers_have_parameters_of_their_own():
    _, params, *_ = _stack()
    kernel = np.asarray(params["params"]["layers"]["feed_forward"]["up_kernel"])
    assert kernel.shape[0] == 3
    assert not np.array_equal(kernel[0], kernel[1])


def test_causal_attention_is_attention_over_what_came_before():
    generator = np.random.default_rng(3)
    query, key, value = jnp.asarray(generator.normal(size=(3, 2, 5, 2, 8)), jnp.float32)
    out = attend(query, key, value, jnp.array([5, 3]), causal=True)
    for t in range(5):
        seen = np.minimum(t + 1, [5, 3])
        np.testing.assert_allclose(out[:, t], _plain_attention(query, key, value, seen)[:, t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", [0, 2, 5])
def test_cached_attention_against_a_gathered_cache(position):
    B, W, N, H, K = 2, 3, 6, 2, 4
    generator = np.random.default_rng(4)
    keys, values = generator.normal(size=(2, B, H, N, W, K)).astype(np.float32)
    query = generator.normal(size=(B, W, H, K)).astype(np.float32)
    ancestors = generator.integers(0, W, (B, W, N)).astype(np.int32)
    seen = visible(jnp.asarray(ancestors), jnp.int32(position))
    flat_keys, flat_values = (jnp.asarray(part.reshape(B * H, N * W, K)) for part in (keys, values))
    out = attend_cached(jnp.asarray(query), KeysValues(jnp.swapaxes(flat_keys, 1, 2), flat_values), seen)
    for b in range(B):
        for w in range(W):
            # The hypothesis' own keys, copied together: [N, H, K].
            mine = [np.stack([part[b, :, n, ancestors[b, w, n]] for n in range(N)]) for part in (keys, values)]
            expected = _plain_attention(query[b, w][None, None], mine[0][None], mine[1][None], [position + 1])
            np.testing.assert_allclose(out[b, w], expected[0, 0], rtol=1e-4, atol=1e-5)
