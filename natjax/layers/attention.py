"""Multi-head attention without causal mask; keys beyond a row's length weigh exactly zero."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from natjax.layers.linear import initializer, matmul
from natjax.typing import Array


def attend(query_BTHK: Array, key_BSHK: Array, value_BSHK: Array, key_lengths_B: Array) -> Array:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), softmax in float32.

    Args:
        query_BTHK: [B, T, H, K], float32 or bfloat16.
        key_BSHK: [B, S, H, K].
        value_BSHK: [B, S, H, K].
        key_lengths_B: i32[B], at least 1: keys at and beyond it are not seen.

    Returns:
        [B, T, H, K] in the query's dtype.
    """
    width = query_BTHK.shape[-1]
    query_BTHK = query_BTHK * np.asarray(width**-0.5, query_BTHK.dtype)
    scores_BHTS = jnp.einsum("bthk,bshk->bhts", query_BTHK, key_BSHK, preferred_element_type=jnp.float32)
    seen_BS = jnp.arange(key_BSHK.shape[1])[None, :] < key_lengths_B[:, None]
    scores_BHTS = jnp.where(seen_BS[:, None, None, :], scores_BHTS, -jnp.inf)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1).astype(value_BSHK.dtype)
    mixed_BTHK = jnp.einsum("bhts,bshk->bthk", weights_BHTS, value_BSHK, preferred_element_type=jnp.float32)
    return mixed_BTHK.astype(query_BTHK.dtype)


class _Projection(nn.Module):
    """Dense layer [..., D] -> [..., parts, H, K] (or back) with one fused kernel."""

    parts: int
    width: int
    kind: Literal["bert", "xavier"]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        # Each part is initialised as a matrix of its own, so fusing changes no statistics.
        kernel = self.param(
            "kernel", initializer(self.kind, x.shape[-1], self.width), (x.shape[-1], self.parts * self.width)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.parts * self.width,))
        y = (matmul(x, kernel, self.dtype) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)).astype(self.dtype)
        return tuple(jnp.split(y, self.parts, axis=-1))


class Attention(nn.Module):
    """Multi-head attention of x over itself, or over a memory.

    Attributes:
        heads: H.
        initializer: kind of initial values.
        dtype: compute dtype.
    """

    heads: int
    initializer: Literal["bert", "xavier"]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTD: Array, key_lengths_B: Array, memory_BSD: Array | None = None) -> Array:
        """[B, T, D] -> [B, T, D]; keys and values come from the memory [B, S, D] where one is given."""
        width = x_BTD.shape[-1]
        if memory_BSD is None:
            query, key, value = _Projection(3, width, self.initializer, self.dtype, name="qkv")(x_BTD)
        else:
            (query,) = _Projection(1, width, self.initializer, self.dtype, name="q")(x_BTD)
            key, value = _Projection(2, width, self.initializer, self.dtype, name="kv")(memory_BSD)

        def split(y: Array) -> Array:
            return y.reshape(*y.shape[:2], self.heads, -1)

        mixed_BTHK = attend(split(query), split(key), split(value), key_lengths_B)
        (out,) = _Projection(1, width, self.initializer, self.dtype, name="out")(mixed_BTHK.reshape(x_BTD.shape))
        return out
