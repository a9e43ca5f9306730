"""linear_top_k against a stable sort of all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc
from natjax.ctc import _head, _top_k


def sorted_first(scores, k):
    """By a stable sort: the greatest first, the lowest index first among equals."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return order, np.take_along_axis(scores, order, -1)


@pytest.mark.parametrize(("vocabulary", "k"), [(1, 1), (5, 1), (5, 5), (200, 1), (200, 7), (1000, 20), (1000, 1000)])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_equals_a_stable_sort(vocabulary, k, levels):
    random = np.random.default_rng(vocabulary + k)
    # Whole numbers below 2^24: the products are exact. Few levels give many ties.
    hidden = random.integers(0, 2, (3, 7, 4)).astype(np.float32)
    kernel = random.integers(0, levels, (4, vocabulary)).astype(np.float32)
    bias = random.integers(0, levels, vocabulary).astype(np.float32)
    bias[random.random(vocabulary) < 0.1] = -np.inf
    best = ctc.linear_top_k(jnp.asarray(hidden), jnp.asarray(kernel), k, bias=jnp.asarray(bias))
    scores = hidden @ kernel + bias
    ids, logits = sorted_first(scores, k)
    table = ctc.linear_top_k(jnp.asarray(hidden), jnp.asarray(kernel.T), k, bias=jnp.asarray(bias), transposed=True)
    jax.tree.map(np.testing.assert_array_equal, table[:2], best[:2])
    np.testing.assert_array_equal(best.ids, ids)
    np.testing.assert_array_equal(best.logits, logits)
    with np.errstate(all="ignore"):
        lse = np.logaddexp.reduce(scores.astype(np.float64), axis=-1)
    np.testing.assert_allclose(best.lse, lse, rtol=1e-6)
    assert best.ids.dtype == jnp.int32 and best.lse.shape == (3, 7)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([1, 2, 50]), k=st.sampled_from([1, 3, 16]))
def test_ties_keep_the_order_of_ids(seed, levels, k):
    scores = np.random.default_rng(seed).integers(0, levels, (4, 333)).astype(np.float32)
    bias = np.random.default_rng(seed).integers(0, levels, 333).astype(np.float32)
    for added in (None, bias):
        values, ids = jax.jit(_top_k.largest, static_argnums=1)(jnp.asarray(scores), k, added)
        expected_ids, expected = sorted_first(scores if added is None else scores + added, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_operands_float32_logits(fast, monkeypatch):
    monkeypatch.setattr(_head, "bfloat16_is_fast", lambda: fast)
    jax.clear_caches()
    random = np.random.default_rng(3)
    hidden, kernel = random.normal(size=(2, 5, 16)), random.normal(size=(16, 300))
    half = jnp.asarray(hidden, jnp.bfloat16)
    best = ctc.linear_top_k(half, jnp.asarray(kernel, jnp.float32), 4)
    # Where bfloat16 is slow, the kernel is not rounded.
    rounded = np.asarray(jnp.asarray(kernel, jnp.bfloat16 if fast else jnp.float32), np.float64)
    _, logits = sorted_first(np.asarray(half, np.float64) @ rounded, 4)
    assert best.logits.dtype == jnp.float32
    np.testing.assert_allclose(best.logits, logits, rtol=1e-5, atol=1e-5)


def test_zeros_of_both_signs_are_equal():
    scores = np.full((1, 400), -1.0, np.float32)
    scores[0, [5, 200]] = -0.0, 0.0
    for k in (1, 2, 3):
        assert _top_k.largest(jnp.asarray(scores), k)[1][0, :2].tolist() == [5, 200][:k]
    assert ctc.linear_top_k(jnp.ones((1, 1, 1)), jnp.array([[-0.0, 0.0, -1.0]]), 2).ids.tolist() == [[[0, 1]]]


def test_the_logits_never_exist_as_a_whole():
    shapes = jax.ShapeDtypeStruct((30, 10, 8), jnp.float32), jax.ShapeDtypeStruct((8, 100), jnp.float32)
    text = jax.jit(lambda h, w: ctc.linear_top_k(h, w, 3)).lower(*shapes).as_text()
    sizes = [int(np.prod([int(n) for n in shape.split("x")[:-1]])) for shape in _shapes(text)]
    assert 2500 <= max(sizes) <= 2 * 2500  # 10,000 bytes of float32 in this test, and padded to whole pieces


def _shapes(text):
    return [part.split(">")[0] for part in text.split("tensor<")[1:] if "x" in part.split(">")[0]]


def test_wrong_arguments_are_refused():
    hidden, kernel = jnp.zeros((2, 3, 4)), jnp.zeros((4, 9))
    with pytest.raises(ValueError, match=r"k must lie in 1..9 \(kernel has V = 9\), got 10"):
        ctc.linear_top_k(hidden, kernel, 10)
    with pytest.raises(ValueError, match=r"in 1\.\.9 "):
        ctc.linear_top_k(hidden, kernel.T, 10, transposed=True)
    with pytest.raises(ValueError, match="the widths D differ: hidden 4, kernel 5"):
        ctc.linear_top_k(hidden, jnp.zeros((5, 9)), 1)
    with pytest.raises(ValueError, match="the vocabularies V differ: kernel 9, bias 8"):
        ctc.linear_top_k(hidden, kernel, 1, bias=jnp.zeros(8))
    with pytest.raises(TypeError, match="kernel must have a floating dtype"):
        ctc.linear_top_k(hidden, jnp.zeros((4, 9), jnp.int32), 1)
