"""Predicting the target's length, for losses that need one: a classifier of the offset N - S."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from natjax.layers.linear import initializer, matmul
from natjax.typing import Array


class LengthClassifier(nn.Module):
    """Mean of the encoder's states -> logits of the offsets -R ... R.

    Attributes:
        span: R.
        initializer: kind of initial values.
    """

    span: int
    initializer: str

    @nn.compact
    def __call__(self, memory_BSD: Array, source_lengths_B: Array) -> Array:
        """Returns f32[B, 2R+1]."""
        real_BS = jnp.arange(memory_BSD.shape[1])[None, :] < source_lengths_B[:, None]
        sum_BD = jnp.where(real_BS[:, :, None], memory_BSD.astype(jnp.float32), 0.0).sum(axis=1)
        mean_BD = sum_BD / source_lengths_B[:, None].astype(jnp.float32)
        D, classes = mean_BD.shape[-1], 2 * self.span + 1
        kernel = self.param("kernel", initializer(self.initializer, D, classes), (D, classes))
        bias = self.param("bias", nn.initializers.zeros_init(), (classes,))
        return matmul(mean_BD, kernel, jnp.dtype(jnp.float32)) + bias[None, :]


def length_loss(logits_BC: Array, source_lengths_B: Array, target_lengths_B: Array) -> Array:
    """Cross-entropy of the true offset, f32[B]; offsets beyond the span count as its ends."""
    span = logits_BC.shape[-1] // 2
    offset_B = jnp.clip(target_lengths_B - source_lengths_B, -span, span)
    log_prob_BC = jax.nn.log_softmax(logits_BC)
    return -jnp.take_along_axis(log_prob_BC, (offset_B + span)[:, None], axis=1)[:, 0]


def predict_lengths(logits_BC: Array, source_lengths_B: Array, candidates: int) -> Array:
    """The most probable target lengths, best first, i32[B, candidates], at least 1 each."""
    span = logits_BC.shape[-1] // 2
    _, classes = jax.lax.top_k(logits_BC, candidates)
    return jnp.maximum(source_lengths_B[:, None] + classes.astype(jnp.int32) - span, 1)
