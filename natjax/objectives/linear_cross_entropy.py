"""Cross-entropy of hidden states and an output kernel, which never holds the logits [B, T, V] as a whole.

As in `ctc.linear_ctc_objective`, the weights of the rows are known, so each chunk of sentences is turned from logits
into gradients while it lies in the cache, and forgotten. With z the logits of a real position and y its label:

    loss  = lse(z) - (1-ε)·z_y - ε·mean(z)
    slope = w · (softmax(z) - (1-ε)·[v = y] - ε/V)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from natjax.layers.linear import matmul
from natjax.typing import Array, Head

# Bytes of logits that exist at one time: about what stays in a cache; enough to fill an accelerator.
BYTES = {"cpu": 8 << 20}
BYTES_ELSEWHERE = 256 << 20


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def linear_cross_entropy(
    head: Head, labels_BT: Array, lengths_B: Array, weights_B: Array, smoothing: float
) -> tuple[Array, Array]:
    """Σ weights · loss, and the losses, of label-smoothed cross-entropy position by position.

    Args:
        head: hidden states [B, T, D], kernel f32[D, V], bias f32[V].
        labels_BT: i32[B, T].
        lengths_B: i32[B], real positions.
        weights_B: f32[B].
        smoothing: ε towards the uniform distribution.

    Returns:
        f32[] and f32[B]; only the total carries a gradient, to the head.
    """
    loss_B, _ = _by_chunks(head, labels_BT, lengths_B, weights_B, smoothing, gradients=False)
    return (weights_B * loss_B).sum(), loss_B


def _forward(
    head: Head, labels_BT: Array, lengths_B: Array, weights_B: Array, smoothing: float
) -> tuple[tuple[Array, Array], Head]:
    loss_B, gradients = _by_chunks(head, labels_BT, lengths_B, weights_B, smoothing, gradients=True)
    return ((weights_B * loss_B).sum(), loss_B), gradients


def _backward(smoothing: float, gradients: Head, cotangents: tuple[Array, Array]) -> tuple[Head, None, None, None]:
    scale = cotangents[0]
    return jax.tree.map(lambda g: (g.astype(jnp.float32) * scale).astype(g.dtype), gradients), None, None, None


linear_cross_entropy.defvjp(_forward, _backward)


def _by_chunks(
    head: Head, labels_BT: Array, lengths_B: Array, weights_B: Array, smoothing: float, *, gradients: bool
) -> tuple[Array, Head | None]:
    """Losses, and the gradients of Σ weights · loss where they are wanted."""
    (B, T, D), V = head.hidden.shape, head.kernel.shape[1]
    most = max(1, BYTES.get(jax.default_backend(), BYTES_ELSEWHERE) // (4 * T * V))
    chunks = -(-B // most)
    inputs = jax.tree.map(lambda array: _strided(array, chunks), (head.hidden, labels_BT, lengths_B, weights_B))

    def body(sums: tuple[Array, Array] | None, chunk: tuple) -> tuple:
        hidden_bTD, labels_bT, lengths_b, weights_b = chunk
        hidden_RD, labels_R = hidden_bTD.reshape(-1, D), labels_bT.reshape(-1)
        product_RV, pull = jax.vjp(lambda h, k: matmul(h, k, h.dtype), hidden_RD, head.kernel)
        logits_RV = product_RV + head.bias[None, :]
        norm_R = jax.nn.logsumexp(logits_RV, axis=-1)
        is_label_RV = labels_R[:, None] == jnp.arange(V, dtype=labels_R.dtype)[None, :]
        label_R = jnp.where(is_label_RV, logits_RV, 0.0).sum(axis=-1)
        share, rest = np.float32(1 - smoothing), np.float32(smoothing)
        loss_R = norm_R - share * label_R - rest * logits_RV.mean(axis=-1)
        real_bT = jnp.arange(T)[None, :] < lengths_b[:, None]
        loss_b = jnp.where(real_bT, loss_R.reshape(-1, T), 0.0).sum(axis=1)
        if sums is None:
            return None, (loss_b, None)
        weights_R = jnp.where(real_bT, weights_b[:, None], 0.0).reshape(-1)
        wanted_RV = jnp.where(is_label_RV, share + rest / V, rest / V)
        slope_RV = weights_R[:, None] * (jnp.exp(logits_RV - norm_R[:, None]) - wanted_RV)
        to_hidden_RD, to_kernel_DV = pull(slope_RV)
        sums = sums[0] + to_kernel_DV, sums[1] + slope_RV.sum(axis=0)
        return sums, (loss_b, to_hidden_RD.reshape(hidden_bTD.shape))

    zeros = (jnp.zeros_like(head.kernel), jnp.zeros_like(head.bias)) if gradients else None
    sums, (loss, to_hidden) = lax.scan(body, zeros, inputs)
    return _joined(loss, B), Head(_joined(to_hidden, B), *sums) if gradients else None


def _strided(array: Array, number: int) -> Array:
    """Rows in `number` chunks, chunk i with the rows i, i + number, …; padded at the end with rows of length 0.

    Long sentences and short ones, and the rows of each device, so spread evenly over the chunks.
    """
    size = -(-array.shape[0] // number)
    array = jnp.pad(array, [(0, size * number - array.shape[0])] + [(0, 0)] * (array.ndim - 1))
    return jnp.swapaxes(array.reshape(size, number, *array.shape[1:]), 0, 1)


def _joined(chunks: Array, rows: int) -> Array:
    """Undoes `_strided`."""
    return jnp.swapaxes(chunks, 0, 1).reshape(-1, *chunks.shape[2:])[:rows]
