"""Cross-entropy of hidden states and an output kernel, which never holds the logits [B, T, V] as a whole.

With z the logits of a real position and y its label:

    loss  = lse(z) - (1-ε)·z_y - ε·mean(z)
    slope = w · (softmax(z) - (1-ε)·[v = y] - ε/V)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from natjax.objectives.chunks import weighted_loss
from natjax.typing import Array, Head


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
    return weighted_loss(functools.partial(_chunk, smoothing=smoothing), head, (labels_BT, lengths_B), weights_B)


def _chunk(
    logits_RV: Array, rows: tuple[Array, Array], weights_B: Array | None, *, smoothing: float
) -> tuple[Array, Array | None]:
    """See `chunks.ChunkLoss`."""
    labels_BT, lengths_B = rows
    T, V = labels_BT.shape[1], logits_RV.shape[1]
    labels_R = labels_BT.reshape(-1)
    norm_R = jax.nn.logsumexp(logits_RV, axis=-1)
    is_label_RV = labels_R[:, None] == jnp.arange(V, dtype=labels_R.dtype)[None, :]
    label_R = jnp.where(is_label_RV, logits_RV, 0.0).sum(axis=-1)
    share, rest = np.float32(1 - smoothing), np.float32(smoothing)
    loss_R = norm_R - share * label_R - rest * logits_RV.mean(axis=-1)
    real_BT = jnp.arange(T)[None, :] < lengths_B[:, None]
    loss_B = jnp.where(real_BT, loss_R.reshape(-1, T), 0.0).sum(axis=1)
    if weights_B is None:
        return loss_B, None
    weights_R = jnp.where(real_BT, weights_B[:, None], 0.0).reshape(-1)
    wanted_RV = jnp.where(is_label_RV, share + rest / V, rest / V)
    return loss_B, weights_R[:, None] * (jnp.exp(logits_RV - norm_R[:, None]) - wanted_RV)
