"""Positions: learned tables or sinusoids."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from natjax.typing import Array


def sinusoids(length: int, width: int) -> np.ndarray:
    """f32[length, width], sines in the first half and cosines in the second.

    Vaswani et al. 2017, section 3.5, in the form of their tensor2tensor: frequencies run geometrically from 1 to
    1/10,000, both included (the paper's sines and cosines alternate, and stop short of 1/10,000).
    """
    frequency = np.exp(-np.log(10_000.0) * np.arange(width // 2) / max(width // 2 - 1, 1))
    angle = np.arange(length)[:, None] * frequency[None, :]
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


class Positions(nn.Module):
    """Adds position vectors to [B, T, D].

    Attributes:
        kind: learned (a table of `limit` rows, normal 0.02) or sinusoidal (any length).
        limit: rows of a learned table.
    """

    kind: Literal["learned", "sinusoidal"]
    limit: int

    def __call__(self, x_BTD: Array) -> Array:
        """Raises ValueError as `vectors`; the decoder's buckets keep below the limit."""
        return x_BTD + self.vectors(*x_BTD.shape[1:])[None].astype(x_BTD.dtype)

    @nn.compact
    def vectors(self, length: int, width: int) -> Array:
        """f32[length, width]. Raises ValueError when the length passes a learned table's limit."""
        if self.kind == "sinusoidal":
            return jnp.asarray(sinusoids(length, width))
        if length > self.limit:
            raise ValueError(f"{length} positions, but the learned table has {self.limit}")
        return self.param("table", nn.initializers.normal(0.02), (self.limit, width))[:length]
