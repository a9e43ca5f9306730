"""Cross-entropy by chunks: against plain autodiff over all logits, whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from natjax.objectives import chunks
from natjax.objectives.linear_cross_entropy import linear_cross_entropy
from natjax.typing import Head

B, T, D, V = 7, 5, 8, 23


def _problem(dtype):
    generator = np.random.default_rng(0)
    head = Head(*(jnp.asarray(generator.normal(size=s), jnp.float32) for s in ((B, T, D), (D, V), (V,))))
    labels = jnp.asarray(generator.integers(0, V, (B, T)), jnp.int32)
    lengths, weights = jnp.array([5, 0, 3, 1, 5, 4, 2]), jnp.array([1.0, 2.0, 0.5, 0.0, 3.0, 1.0, 0.25])
    return head._replace(hidden=head.hidden.astype(dtype)), labels, lengths, weights


def _plain(head, labels, lengths, weights, smoothing):
    scores = jnp.einsum("btd,dv->btv", head.hidden.astype(jnp.float32), head.kernel) + head.bias[None, None]
    wanted = (1 - smoothing) * jax.nn.one_hot(labels, V) + smoothing / V
    loss = -(wanted * jax.nn.log_softmax(scores)).sum(-1)
    loss = jnp.where(jnp.arange(T)[None] < lengths[:, None], loss, 0.0).sum(1)
    return 1.7 * (weights * loss).sum(), loss


@pytest.mark.parametrize("sentences", [1, 2, 3, 7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_against_autodiff_over_all_logits(monkeypatch, sentences, smoothing):
    monkeypatch.setitem(chunks.BYTES, jax.default_backend(), 4 * T * V * sentences)
    head, *rest = _problem(jnp.float32)

    def ours(head):
        total, loss = linear_cross_entropy(head, *rest, smoothing)
        return 1.7 * total, loss

    expected = jax.value_and_grad(lambda h: _plain(h, *rest, smoothing), has_aux=True)(head)
    found = jax.jit(jax.value_and_grad(ours, has_aux=True))(head)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
    jax.tree.map(np.testing.assert_array_equal, found[1].hidden[3], jnp.zeros((T, D)))  # of weight 0
    np.testing.assert_allclose(ours(head)[1], expected[0][1], rtol=1e-5, atol=1e-5)  # without gradients


def test_bfloat16_states_get_bfloat16_gradients():
    head, *rest = _problem(jnp.bfloat16)
    found = jax.grad(lambda h: linear_cross_entropy(h, *rest, 0.1)[0])(head)
    expected = jax.grad(lambda h: _plain(h, *rest, 0.1)[0] / 1.7)(head)
    assert [leaf.dtype for leaf in found] == [jnp.bfloat16, jnp.float32, jnp.float32]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=0.05, atol=0.05),
        found,
        expected,
    )
