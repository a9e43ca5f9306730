"""prune and linear_prune against a stable sort of all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_search_oracle import normalised

from natjax import ctc


def sorted_first(log_probs, k, blank_id):
    """Tokens and log-probabilities by a stable sort without the blank's column."""
    others = np.delete(np.arange(log_probs.shape[-1]), blank_id)
    order = others[np.argsort(-log_probs[..., others], axis=-1, kind="stable")[..., :k]]
    return order, np.take_along_axis(log_probs, order, -1)


@pytest.mark.parametrize(("vocabulary", "k", "blank_id"), [(2, 1, 0), (5, 4, 2), (400, 7, 0), (400, 20, 399)])
def test_equals_a_stable_sort(vocabulary, k, blank_id):
    random = np.random.default_rng(vocabulary + k)
    # Whole numbers: products are exact, and many are equal. In some frames the blank is the best, in some the worst.
    hidden = random.integers(0, 2, (3, 7, 5)).astype(np.float32)
    kernel = random.integers(0, 4, (5, vocabulary)).astype(np.float32)
    kernel[:, blank_id] = 9, -9, 0, 0, 0
    bias = random.integers(0, 3, vocabulary).astype(np.float32)
    logits = jnp.asarray(hidden @ kernel + bias)
    log_probs = normalised(logits)
    expected_tokens, expected = sorted_first(np.asarray(logits), k, blank_id)
    arguments = {"top_k": k, "blank_id": blank_id}
    given = jnp.asarray(hidden), jnp.asarray(kernel)
    for pruned in (
        ctc.prune(logits, **arguments),
        ctc.linear_prune(*given, bias=jnp.asarray(bias), **arguments),
        ctc.linear_prune(given[0], given[1].T, bias=jnp.asarray(bias), transposed=True, **arguments),
    ):
        np.testing.assert_array_equal(pruned.tokens, expected_tokens)
        np.testing.assert_allclose(pruned.log_probs, expected - (np.asarray(logits) - log_probs)[..., :1], atol=1e-5)
        np.testing.assert_allclose(pruned.blank, log_probs[..., blank_id], atol=1e-5)
        assert pruned.tokens.dtype == jnp.int32 and pruned.log_probs.dtype == pruned.blank.dtype == jnp.float32


def test_no_frames():
    pruned = ctc.linear_prune(jnp.zeros((2, 0, 3)), jnp.zeros((3, 9)), top_k=4)
    assert pruned.tokens.shape == pruned.log_probs.shape == (2, 0, 4) and pruned.blank.shape == (2, 0)


def test_the_logits_never_exist_as_a_whole():
    shapes = jax.ShapeDtypeStruct((30, 10, 8), jnp.float32), jax.ShapeDtypeStruct((8, 100), jnp.float32)

    def search(hidden, kernel):
        return ctc.beam_search(ctc.linear_prune(hidden, kernel, top_k=3), jnp.full(30, 10), beam_size=4)

    text = jax.jit(search).lower(*shapes).as_text()
    largest = max(int(np.prod([int(n) for n in part.split(">")[0].split("x")[:-1]]))
                  for part in text.split("tensor<")[1:] if "x" in part.split(">")[0])  # fmt: skip
    assert largest <= 30 * 10 * 100 / 2


def test_wrong_arguments_are_refused():
    for call in (
        lambda k, **more: ctc.prune(jnp.zeros((2, 3, 9)), top_k=k, **more),
        lambda k, **more: ctc.linear_prune(jnp.zeros((2, 3, 4)), jnp.zeros((4, 9)), top_k=k, **more),
        lambda k, **more: ctc.linear_prune(jnp.zeros((2, 3, 4)), jnp.zeros((9, 4)), top_k=k, transposed=True, **more),
    ):
        for k in (0, 9):
            with pytest.raises(ValueError, match=rf"^top_k must lie in 1\.\.8 \(V = 9, .* got {k}$"):
                call(k)
        with pytest.raises(ValueError, match=r"^blank_id must lie in 0\.\.8 "):
            call(2, blank_id=9)
    with pytest.raises(TypeError, match="logits must have a floating dtype"):
        ctc.prune(jnp.zeros((2, 3, 9), jnp.int32), top_k=2)
