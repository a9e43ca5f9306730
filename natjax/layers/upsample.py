"""From encoder states to decoder inputs.

For losses without a length every source piece becomes λ frames: by a Gaussian soft copy, as the official release
does, or by a linear split (Libovický and Helcl 2018). For losses with a length the soft copy weighs source pieces by
their distance to the target position (Wei et al. 2019), with a learned temperature.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from natjax.layers.linear import initializer, matmul
from natjax.typing import Array

GAUSSIAN_WIDTH = 0.3  # official release: exp(-(t - centre)² / 0.3), whatever λ is


def gaussian_weights(source_lengths_B: Array, S: int, T: int, ratio: float) -> Array:
    """Weights of the Gaussian soft copy, f32[B, T, S]; each real frame's weights sum to 1.

    Piece s covers frames [λs, λ(s+1)); its centre is λ(s + ½), and frame t lies at t, without a half-frame offset:
    the convention of the official release, so that for λ = 3 each third frame is an even mix of two pieces.

    Args:
        source_lengths_B: i32[B], at least 1.
        S: padded source length.
        T: padded number of frames.
        ratio: λ.
    """
    centre_S = np.float32(ratio) * (np.arange(S, dtype=np.float32) + np.float32(0.5))
    frame_T = np.arange(T, dtype=np.float32)
    score_TS = -np.square(frame_T[:, None] - centre_S[None, :]) / np.float32(GAUSSIAN_WIDTH)
    return _masked_softmax(jnp.asarray(score_TS), source_lengths_B)


def distance_weights(source_lengths_B: Array, S: int, T: int, temperature: Array) -> Array:
    """Soft copy by relative distance, softmax_s(-|s - t| / τ): f32[B, T, S] (Wei et al. 2019).

    Args:
        source_lengths_B: i32[B], at least 1.
        S: padded source length.
        T: padded target length.
        temperature: f32[], τ > 0.
    """
    distance_TS = np.abs(np.arange(T)[:, None] - np.arange(S)[None, :]).astype(np.float32)
    return _masked_softmax(-jnp.asarray(distance_TS) / temperature, source_lengths_B)


def _masked_softmax(score_TS: Array, source_lengths_B: Array) -> Array:
    real_BS = jnp.arange(score_TS.shape[1])[None, :] < source_lengths_B[:, None]
    return jax.nn.softmax(jnp.where(real_BS[:, None, :], score_TS[None], -jnp.inf), axis=-1)


def _mix(weights_BTS: Array, memory_BSD: Array) -> Array:
    mixed = jnp.einsum(
        "bts,bsd->btd", weights_BTS.astype(memory_BSD.dtype), memory_BSD, preferred_element_type=jnp.float32
    )
    return mixed.astype(memory_BSD.dtype)


class GaussianUpsample(nn.Module):
    """[B, S, D] -> [B, T, D] by the Gaussian soft copy; no parameters.

    Attributes:
        ratio: λ; 1.5 and 2.5 serve as well as whole numbers.
    """

    ratio: float

    @nn.compact
    def __call__(self, memory_BSD: Array, source_lengths_B: Array, T: int) -> Array:
        """Mixes encoder states for each frame."""
        return _mix(gaussian_weights(source_lengths_B, memory_BSD.shape[1], T, self.ratio), memory_BSD)


class LinearUpsample(nn.Module):
    """[B, S, D] -> [B, λS, D] by one dense layer D -> λD, split into λ frames.

    Attributes:
        ratio: λ, a whole number.
        initializer: kind of initial values.
        dtype: compute dtype.
    """

    ratio: int
    initializer: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, memory_BSD: Array, source_lengths_B: Array, T: int) -> Array:
        """Splits each state. The lengths are not needed: frame t belongs to piece t // λ alone."""
        B, S, D = memory_BSD.shape
        kernel = self.param("kernel", initializer(self.initializer, D, D), (D, self.ratio * D))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.ratio * D,))
        split = matmul(memory_BSD, kernel, self.dtype) + bias[None, None, :]
        return split.reshape(B, self.ratio * S, D)[:, :T].astype(self.dtype)


class DistanceUpsample(nn.Module):
    """[B, S, D] -> [B, T, D] by relative distance; τ is learned from 0.5 (official release)."""

    @nn.compact
    def __call__(self, memory_BSD: Array, source_lengths_B: Array, T: int) -> Array:
        """Mixes encoder states for each target position."""
        # Learned as a logarithm, so that τ stays positive.
        log_temperature = self.param("log_temperature", nn.initializers.constant(np.log(0.5)), ())
        weights = distance_weights(source_lengths_B, memory_BSD.shape[1], T, jnp.exp(log_temperature))
        return _mix(weights, memory_BSD)
