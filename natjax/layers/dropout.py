"""Dropout whose mask is a hash (`layers.noise`): not stored, and computed again by the backward pass.

On CPU `jax.random.bernoulli` takes 10 times as long (benchmarks/results/layers.json).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from natjax.layers.noise import Noise, bits
from natjax.typing import Array


def keep_mask(shape: tuple[int, ...], rate: float, noise: Noise) -> Array:
    """bool[shape], True with probability 1 - rate; dimension 0 is the batch."""
    return bits(shape, noise) >= np.uint32(round(rate * 2**32))


def dropout(x: Array, rate: float, noise: Noise | None) -> Array:
    """Zeroes each element with probability `rate` and scales the rest by 1 / (1 - rate).

    Args:
        x: [B, ...], any float dtype.
        rate: in [0, 1).
        noise: folded to this call site, or None to return x.
    """
    if noise is None or rate == 0.0:
        return x
    return _dropout(x, rate, noise)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _dropout(x: Array, rate: float, noise: Noise) -> Array:
    return jnp.where(keep_mask(x.shape, rate, noise), x * np.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def _forward(x: Array, rate: float, noise: Noise) -> tuple[Array, Noise]:
    return _dropout(x, rate, noise), noise


def _backward(rate: float, noise: Noise, gradient: Array) -> tuple[Array, Noise]:
    zero = np.zeros((), jax.dtypes.float0)
    return _dropout(gradient, rate, noise), Noise(zero, np.zeros(noise.rows.shape, jax.dtypes.float0))


_dropout.defvjp(_forward, _backward)
