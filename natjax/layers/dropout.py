"""Dropout from a counter hash: no stored mask, the same mask on any number of devices.

On CPU `jax.random.bernoulli` takes 10 times as long (benchmarks/results/layers.json). Here an element is kept by a
32-bit mix of (seed, step, call site, layer, row's place in the global batch, place in the row), which XLA fuses into
its consumer; the backward pass computes it again. Nothing depends on where a row lies in a local or accumulated array,
so device counts and gradient accumulation change no mask.

The mix is `lowbias32` (C. Wellons, https://nullprogram.com/blog/2018/07/31/), a bijection of 32-bit words with low
avalanche bias.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax.typing import Array


class Noise(NamedTuple):
    """The source of all randomness of one step.

    Attributes:
        seed: u32[], a mix of the run's seed and the step; folded at each layer and call site.
        rows: u32[B], each row's place in the global batch.
    """

    seed: Array
    rows: Array

    def fold(self, salt: int | Array) -> "Noise":
        """Independent noise for a call site or a layer."""
        salt_u32 = jnp.asarray(salt).astype(jnp.uint32)
        return Noise(mix32(self.seed ^ mix32(salt_u32 + np.uint32(0x9E3779B9))), self.rows)


def step_noise(seed: int, step: Array, rows: int) -> Noise:
    """Noise of one training step.

    Args:
        seed: the run's seed.
        step: i32[], the step.
        rows: B, rows of the global batch.
    """
    origin = Noise(mix32(jnp.uint32(seed & 0xFFFFFFFF)), jnp.arange(rows, dtype=jnp.uint32))
    return origin.fold(step)


def mix32(x: Array) -> Array:
    """A bijection of 32-bit words whose output bits each depend on all input bits."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def keep_mask(shape: tuple[int, ...], rate: float, noise: Noise) -> Array:
    """bool[shape], True with probability 1 - rate; dimension 0 is the batch."""
    row = mix32(noise.seed ^ mix32(noise.rows)).reshape((shape[0],) + (1,) * (len(shape) - 1))
    place = jax.lax.broadcasted_iota(jnp.uint32, (1, *shape[1:]), len(shape) - 1)
    stride = 1
    for axis in range(len(shape) - 2, 0, -1):
        stride *= shape[axis + 1]
        place = place + jax.lax.broadcasted_iota(jnp.uint32, (1, *shape[1:]), axis) * np.uint32(stride & 0xFFFFFFFF)
    return mix32(jnp.broadcast_to(row, shape) + mix32(place)) >= np.uint32(round(rate * 2**32))


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
