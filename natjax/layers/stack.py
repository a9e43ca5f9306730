"""A stack of Transformer layers, scanned: one set of stacked parameters, and on accelerators one compiled layer.

On CPU the scan is unrolled: the gradient of three layers takes 1.4 times as long in a loop
(benchmarks/results/layers.json).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from natjax.config import ModelConfig
from natjax.layers.attention import Attention
from natjax.layers.dropout import Noise, dropout
from natjax.layers.feed_forward import FeedForward
from natjax.layers.linear import layer_norm
from natjax.typing import Array


class Norm(nn.Module):
    """Layer normalisation with learned scale and bias."""

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """[B, T, D] -> [B, T, D]."""
        scale = self.param("scale", nn.initializers.ones_init(), x_BTD.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros_init(), x_BTD.shape[-1:])
        return layer_norm(x_BTD, scale, bias)


class Layer(nn.Module):
    """Self-attention, attention over the memory where there is one, feed-forward; each residual."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        index: Array,
        lengths_B: Array,
        memory_BSD: Array | None,
        memory_lengths_B: Array | None,
        noise: Noise | None,
    ) -> tuple[Array, None]:
        """One step of the scan over layers; `index` keys this layer's dropout."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        noise = noise and noise.fold(index)

        def residual(x: Array, block: Callable[[Array], Array], site: int, name: str) -> Array:
            norm = Norm(name=name)
            y = block(norm(x) if c.norm == "pre" else x)
            x = x + dropout(y, c.dropout, noise and noise.fold(site))
            return x if c.norm == "pre" else norm(x)

        attention = Attention(c.heads, c.initializer, dtype, name="self_attention")
        x_BTD = residual(x_BTD, lambda x: attention(x, lengths_B), 0, "self_attention_norm")
        if memory_BSD is not None:
            cross = Attention(c.heads, c.initializer, dtype, name="cross_attention")
            x_BTD = residual(x_BTD, lambda x: cross(x, memory_lengths_B, memory_BSD), 1, "cross_attention_norm")
        feed_forward = FeedForward(c.feed_forward, c.activation, c.initializer, dtype, name="feed_forward")
        x_BTD = residual(x_BTD, feed_forward, 2, "feed_forward_norm")
        return x_BTD, None


class Stack(nn.Module):
    """`depth` layers, and a last normalisation for pre-norm models.

    Attributes:
        config: widths, heads, dropout and so on.
        depth: number of layers.
    """

    config: ModelConfig
    depth: int

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        lengths_B: Array,
        memory_BSD: Array | None = None,
        memory_lengths_B: Array | None = None,
        noise: Noise | None = None,
    ) -> Array:
        """[B, T, D] -> [B, T, D]; positions at and beyond `lengths_B` influence no other position."""
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.depth if jax.default_backend() == "cpu" else 1,
        )(self.config, name="layers")
        index = jnp.arange(self.depth, dtype=jnp.uint32)
        x_BTD, _ = layers(x_BTD, index, lengths_B, memory_BSD, memory_lengths_B, noise)
        return Norm(name="norm")(x_BTD) if self.config.norm == "pre" else x_BTD
