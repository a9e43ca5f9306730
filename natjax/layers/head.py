"""The output projection: hidden states and a kernel [D, V], kept apart until somebody needs scores."""

import jax
import jax.numpy as jnp
from jax import lax

from natjax.layers.linear import matmul
from natjax.typing import Array, Head

GROUP = 128  # columns a group in the two-stage argmax
BLOCK_ROWS = 2048  # frames whose logits exist at one time while decoding


def logits(head: Head) -> Array:
    """hidden · kernel + bias, f32[B, T, V]."""
    scores = matmul(head.hidden, head.kernel, head.hidden.dtype)
    return scores if head.bias is None else scores + head.bias[None, None, :]


def greedy(head: Head) -> tuple[Array, Array]:
    """The best token of each frame.

    Logits exist for at most 2,048 frames at a time: [B, T, V] would need gigabytes for large batches.

    Returns:
        (i32[B, T], f32[B, T]): the token, the lowest id among equals, and its log-probability.
    """
    B, T, D = head.hidden.shape
    rows = B * T
    blocks = -(-rows // BLOCK_ROWS)
    size = -(-rows // blocks)
    hidden = jnp.pad(head.hidden.reshape(rows, D), ((0, blocks * size - rows), (0, 0))).reshape(blocks, 1, size, D)

    def best(hidden_1RD: Array) -> tuple[Array, Array]:
        scores_RV = logits(Head(hidden_1RD, head.kernel, head.bias))[0]
        ids_R = grouped_argmax(scores_RV)
        top_R = jnp.take_along_axis(scores_RV, ids_R[:, None], axis=1)[:, 0]
        return ids_R, top_R - jax.nn.logsumexp(scores_RV, axis=-1)

    ids, log_probs = lax.map(best, hidden)
    return ids.reshape(-1)[:rows].reshape(B, T), log_probs.reshape(-1)[:rows].reshape(B, T)


def grouped_argmax(scores_RV: Array) -> Array:
    """argmax over the last axis, i32[R]; the lowest index among equals.

    Group maxima first, then one group: on CPU `jnp.argmax` over 32,000 columns takes 16 times as long, because a
    maximum vectorises and an argmax does not (benchmarks/results/layers.json).
    """
    R, V = scores_RV.shape
    groups = -(-V // GROUP)
    padded = jnp.pad(scores_RV, ((0, 0), (0, groups * GROUP - V)), constant_values=-jnp.inf)
    grouped = padded.reshape(R, groups, GROUP)
    group_R = jnp.argmax(grouped.max(axis=-1), axis=-1)
    inside = jnp.take_along_axis(grouped, group_R[:, None, None], axis=1)[:, 0]
    return (group_R * GROUP + jnp.argmax(inside, axis=-1)).astype(jnp.int32)
