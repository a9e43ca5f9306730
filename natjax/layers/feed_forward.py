"""The position-wise feed-forward block."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from natjax.layers.linear import initializer, matmul
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
        up = self.param("up_kernel", initializer(self.initializer, width, self.inner), (width, self.inner))
        up_bias = self.param("up_bias", zeros, (self.inner,))
        down = self.param("down_kernel", initializer(self.initializer, self.inner, width), (self.inner, width))
        down_bias = self.param("down_bias", zeros, (width,))
        hidden_BTF = ACTIVATIONS[self.activation](matmul(x_BTD, up, self.dtype) + up_bias[None, None, :])
        return (matmul(hidden_BTF.astype(self.dtype), down, self.dtype) + down_bias[None, None, :]).astype(self.dtype)
