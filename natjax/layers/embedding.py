"""Token embeddings."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from natjax.typing import Array


class Embedding(nn.Module):
    """Table of piece vectors, f32[V, D].

    Attributes:
        size: V.
        width: D.
        initializer: bert: normal 0.02; xavier: normal D^-½.
        scale: factor on the vectors looked up.
        dtype: dtype of what is looked up.
    """

    size: int
    width: int
    initializer: Literal["bert", "xavier"]
    scale: float
    dtype: jnp.dtype

    def setup(self) -> None:
        """Declares the table, which the output projection shares."""
        deviation = 0.02 if self.initializer == "bert" else self.width**-0.5
        self.table = self.param("table", nn.initializers.normal(deviation), (self.size, self.width))

    def __call__(self, ids_BS: Array) -> Array:
        """i32[B, S] -> [B, S, D]."""
        return jnp.take(self.table, ids_BS, axis=0, mode="clip").astype(self.dtype) * jnp.asarray(
            self.scale, self.dtype
        )
