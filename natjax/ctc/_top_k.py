"""The k best tokens of each frame, from hidden states and an output kernel, without ever holding [B, T, V].

A maximum vectorises on every back end; an argmax or a sort over tens of thousands of columns does not. So columns are
taken in groups: the groups with the k greatest maxima hold the k greatest columns, and only those are sorted. That is
exact, ties included: if a column is not in one of these groups, each of them holds a greater column, or an equal one
with a lower id.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc import _head
from natjax.ctc._check import validate_head
from natjax.ctc._lattice import log_normaliser
from natjax.typing import Array, Head

# Bytes of logits that exist at one time.
BYTES = 48 << 20


class TopK(NamedTuple):
    """The best tokens of each frame, the best first; among equal logits the lowest id first.

    Attributes:
        ids: i32[B, T, k].
        logits: f32[B, T, k] (f64).
        lse: f32[B, T] (f64), log Σ exp of all V logits: logits − lse are log-probabilities.
    """

    ids: Array
    logits: Array
    lse: Array


def linear_top_k(hidden: Array, kernel: Array, k: int, *, bias: Array | None = None, transposed: bool = False) -> TopK:
    """The k greatest of the logits hidden · kernel + bias, frame by frame. k = 1 is greedy decoding.

    Logits exist for some rows at a time. Carries no gradient.

    Args:
        hidden: [B, T, D], float32 or bfloat16 (float64); the operands of the product have this dtype, or float32 on
            CPUs that take longer over bfloat16.
        kernel: [D, V], of any floating dtype.
        k: how many, 1..V.
        bias: [V], or None.
        transposed: whether the kernel is given as [V, D], a table of the tokens' vectors. Where the output shares one
            with the input, hand over that and not its transpose: for a single row XLA on CPU would turn it each time.

    Returns:
        Ids, logits and log Σ exp.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or k is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> best = ctc.linear_top_k(jnp.array([[[1.0, 2.0, 2.0]]]), jnp.eye(3), 2)
        >>> best.ids.tolist(), best.logits.tolist()
        ([[[1, 2]]], [[[2.0, 2.0]]])
    """
    validate_head(hidden, kernel.T if transposed else kernel, bias)
    V = kernel.shape[0 if transposed else 1]
    if not 1 <= k <= V:
        raise ValueError(f"k must lie in 1..{V} (kernel has V = {V}), got {k}")
    return _compiled_top_k(lax.stop_gradient(Head(hidden, kernel, bias)), k, transposed)


def largest(scores_RV: Array, k: int, bias_V: Array | None = None) -> tuple[Array, Array]:
    """The k greatest columns of each row: their values and indices [R, k], the lowest index first among equals.

    The bias is added to maxima and candidates as they are read, and the sum of all is never stored.
    """
    R, V = scores_RV.shape
    bias_V = jnp.zeros((V,), scores_RV.dtype) if bias_V is None else bias_V
    size = _group_size(V, k)
    groups = -(-V // size)
    if k >= groups:
        return _sorted_first(scores_RV + bias_V[None, :], k)
    padding = 0, groups * size - V
    grouped_RGX = jnp.pad(scores_RV, ((0, 0), padding), constant_values=-jnp.inf).reshape(R, groups, size)
    bias_GX = jnp.pad(bias_V, padding).reshape(groups, size)
    # In order of their ids, so that equal columns keep theirs.
    group_Rk = jnp.sort(_sorted_first((grouped_RGX + bias_GX[None]).max(axis=-1), k)[1], axis=-1)
    candidates_RkX = jnp.take_along_axis(grouped_RGX, group_Rk[..., None], axis=1) + bias_GX[group_Rk]
    best_Rk, place_Rk = _sorted_first(candidates_RkX.reshape(R, k * size), k)
    return best_Rk, jnp.take_along_axis(group_Rk, place_Rk // size, axis=1) * size + place_Rk % size


def _sorted_first(scores_RX: Array, k: int) -> tuple[Array, Array]:
    if k > 1:
        # −0.0 equals 0.0, but top_k ranks it lower.
        return lax.top_k(jnp.where(scores_RX == 0, 0.0, scores_RX), k)
    place_R1 = jnp.argmax(scores_RX, axis=-1, keepdims=True).astype(jnp.int32)
    return jnp.take_along_axis(scores_RX, place_R1, axis=1), place_R1


def _group_size(vocabulary: int, k: int) -> int:
    """A power of two near √(V / k), where there are about as many maxima as candidates; 8 to 128."""
    return min(128, max(8, 1 << round(math.log2(vocabulary / k) / 2)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _compiled_top_k(head: Head, k: int, transposed: bool) -> TopK:
    (B, T, D), V = head.hidden.shape, head.kernel.shape[0 if transposed else 1]
    number = _head.pieces(B * T, V * _head.accumulator(head.hidden).itemsize, BYTES)
    kernel = head.kernel.astype(_head.operand_dtype(head.hidden.dtype))

    def body(hidden_RD: Array) -> tuple[Array, Array, Array]:
        product_RV = _head.product(hidden_RD.astype(kernel.dtype), kernel, 1, 1 if transposed else 0)
        bias_V = None if head.bias is None else head.bias.astype(product_RV.dtype)
        best_Rk, ids_Rk = largest(product_RV, k, bias_V)
        return ids_Rk, best_Rk, log_normaliser(product_RV, bias_V)

    parts = lax.map(body, _head.strided(head.hidden.reshape(B * T, D), number, 0))
    ids_Rk, best_Rk, lse_R = (_head.joined(part, B * T, 0) for part in parts)
    return TopK(ids_Rk.reshape(B, T, k), best_Rk.reshape(B, T, k), lse_R.reshape(B, T))
