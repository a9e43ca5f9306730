"""The position-wise feed-forward block."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from natjax.layers.linear import dense, initializer
from natjax.typing import Array

ACTIVATIONS = {"gelu": jax.nn.gelu, "relu": jax.nn.relu}


class FeedForward(nn.Module):
    """[B, T, D] -> [B, T, D] through width F.

    Attributes:
        inner: F.
        activation: gelu (tanh approximation) or relu.
        initializer: kind of initial values.
        dtype: compute dtype.
    """

    inner: int
    activation: Literal["gelu", "relu"]
    initializer: Literal["bert", "xavier"]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """Applies the block."""
        width, zeros = x_BTD.shape[-1], nn.initializers.zeros_init()
        initial = initializer(self.initializer, width, self.inner)
        up_BTF = dense(self, x_BTD, "up_kernel", initial, self.inner, self.dtype)
        up_BTF += self.param("up_bias", zeros, (self.inner,))[None, None, :]
        hidden_BTF = ACTIVATIONS[self.activation](up_BTF).astype(self.dtype)
        initial = initializer(self.initializer, self.inner, width)
        down_BTD = dense(self, hidden_BTF, "down_kernel", initial, width, self.dtype)
        down_BTD += self.param("down_bias", zeros, (width,))[None, None, :]
        return down_BTD.astype(self.dtype)
