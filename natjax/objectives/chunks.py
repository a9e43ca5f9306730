"""Losses of hidden states and an output kernel by chunks of sentences: logits [B, T, V] never exist as a whole.

As in `ctc.linear_ctc_objective`, the weights of the rows are known, so each chunk is turned from logits into gradients
while it lies in the cache, and forgotten. What happens to a chunk is the one function in which losses differ.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from natjax.layers.linear import matmul
from natjax.typing import Array, Head, PyTree

# Bytes of logits that exist at one time: about what stays in a cache; enough to fill an accelerator.
BYTES = {"cpu": 8 << 20}
BYTES_ELSEWHERE = 256 << 20

ChunkLoss = Callable[[Array, PyTree, Array | None], tuple[Array, Array | None]]
"""`function(logits f32[R, V], rows, weights f32[B] | None) -> (losses f32[B], slope f32[R, V] | None)`.

R = B·T rows of logits, the frames of the chunk's B sentences one after the other; `rows` holds the sentences' labels
and lengths. The slope is the gradient of Σ weights · loss, asked for where weights are given. It is exactly 0 for a
sentence of weight 0, lengths 0 and labels 0, which fills up a chunk.
"""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_loss(function: ChunkLoss, head: Head, rows: PyTree, weights_B: Array) -> tuple[Array, Array]:
    """Σ weights · loss, and the losses.

    Args:
        function: the loss of a chunk.
        head: hidden states [B, T, D], kernel f32[D, V], bias f32[V].
        rows: arrays [B, ...], what the function is given of each sentence.
        weights_B: f32[B].

    Returns:
        f32[] and f32[B]; only the total carries a gradient, to the head.
    """
    loss_B, _ = _by_chunks(function, head, rows, weights_B, gradients=False)
    return (weights_B * loss_B).sum(), loss_B


def _forward(function: ChunkLoss, head: Head, rows: PyTree, weights_B: Array) -> tuple[tuple[Array, Array], Head]:
    loss_B, gradients = _by_chunks(function, head, rows, weights_B, gradients=True)
    return ((weights_B * loss_B).sum(), loss_B), gradients


def _backward(_: ChunkLoss, gradients: Head, cotangents: tuple[Array, Array]) -> tuple[Head, None, None]:
    scale = cotangents[0]
    return jax.tree.map(lambda g: (g.astype(jnp.float32) * scale).astype(g.dtype), gradients), None, None


weighted_loss.defvjp(_forward, _backward)


def _by_chunks(
    function: ChunkLoss, head: Head, rows: PyTree, weights_B: Array, *, gradients: bool
) -> tuple[Array, Head | None]:
    """Losses, and the gradients of Σ weights · loss where they are wanted."""
    (B, T, D), V = head.hidden.shape, head.kernel.shape[1]
    most = max(1, BYTES.get(jax.default_backend(), BYTES_ELSEWHERE) // (4 * T * V))
    chunks = -(-B // most)
    inputs = jax.tree.map(lambda array: _strided(array, chunks), (head.hidden, rows, weights_B))

    def body(sums: tuple[Array, Array] | None, chunk: tuple) -> tuple:
        hidden_bTD, rows, weights_b = chunk
        product_RV, pull = jax.vjp(lambda h, k: matmul(h, k, h.dtype), hidden_bTD.reshape(-1, D), head.kernel)
        logits_RV = product_RV + head.bias[None, :]
        loss_b, slope_RV = function(logits_RV, rows, None if sums is None else weights_b)
        if sums is None:
            return None, (loss_b, None)
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
