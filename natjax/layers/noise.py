"""Random numbers from a counter hash: the same on any number of devices, nothing stored.

A number is a 32-bit mix of (seed, step, call site, layer, row's place in the global batch, place in the row), which XLA
fuses into its consumer. Nothing depends on where a row lies in a local or accumulated array, so device counts and
gradient accumulation change no number.

The mix is `lowbias32` (C. Wellons, https://nullprogram.com/blog/2018/07/31/), a bijection of 32-bit words with low
avalanche bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax.typing import Array


class Noise(NamedTuple):
    """The source of all randomness of one step.

    Attributes:
        seed: u32[], a mix of the run's seed and the step; folded at each layer and call site.
        rows: u32[B], what tells rows apart: in training each row's place in the global batch.
    """

    seed: Array
    rows: Array

    def fold(self, salt: int | Array) -> "Noise":
        """Independent noise for a call site or a layer."""
        salt_u32 = jnp.asarray(salt).astype(jnp.uint32)
        return Noise(mix32(self.seed ^ mix32(salt_u32 + np.uint32(0x9E3779B9))), self.rows)


def step_noise(seed: int | Array, step: Array, rows: int) -> Noise:
    """Noise of one training step.

    Args:
        seed: the run's seed, a number or u32[]; the latter may differ from run to run of one compiled program.
        step: i32[], the step.
        rows: B, rows of the global batch.
    """
    return _origin(seed, jnp.arange(rows, dtype=jnp.uint32)).fold(step)


def sentence_noise(seed: int, ids_BS: Array) -> Noise:
    """Noise that follows a sentence wherever it stands: rows are told apart by what they say.

    Args:
        seed: any whole number.
        ids_BS: i32[B, S], padded with 0, which leaves no trace.
    """
    place_S = jax.lax.iota(jnp.uint32, ids_BS.shape[1])
    mixed_BS = mix32(ids_BS.astype(jnp.uint32) ^ mix32(place_S + np.uint32(1))[None, :])
    return _origin(seed, jnp.where(ids_BS == 0, jnp.uint32(0), mixed_BS).sum(axis=1, dtype=jnp.uint32))


def _origin(seed: int | Array, rows_B: Array) -> Noise:
    seed_u32 = jnp.uint32(seed & 0xFFFFFFFF) if isinstance(seed, int) else seed
    return Noise(mix32(seed_u32), rows_B)


def mix32(x: Array) -> Array:
    """A bijection of 32-bit words whose output bits each depend on all input bits."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def bits(shape: tuple[int, ...], noise: Noise) -> Array:
    """u32[shape], uniform words; dimension 0 is the batch. Within a row no word comes twice."""
    row = mix32(noise.seed ^ mix32(noise.rows)).reshape((shape[0],) + (1,) * (len(shape) - 1))
    place = jax.lax.broadcasted_iota(jnp.uint32, (1, *shape[1:]), len(shape) - 1)
    stride = 1
    for axis in range(len(shape) - 2, 0, -1):
        stride *= shape[axis + 1]
        place = place + jax.lax.broadcasted_iota(jnp.uint32, (1, *shape[1:]), axis) * np.uint32(stride & 0xFFFFFFFF)
    return mix32(jnp.broadcast_to(row, shape) + mix32(place))


def uniform(shape: tuple[int, ...], noise: Noise) -> Array:
    """f32[shape] in (0, 1), the centres of 2²³ equal parts."""
    part = (bits(shape, noise) >> np.uint32(9)).astype(jnp.float32)
    return (part + np.float32(0.5)) * np.float32(2.0**-23)


def normal(shape: tuple[int, ...], noise: Noise) -> Array:
    """f32[shape], standard normal, within ±5.3: the inverse of its distribution function at `uniform`."""
    return np.float32(np.sqrt(2.0)) * jax.lax.erf_inv(2 * uniform(shape, noise) - 1)
