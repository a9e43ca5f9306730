"""A stack of Transformer layers, scanned: one set of stacked parameters, and on accelerators one compiled layer.

On CPU the scan is unrolled: the gradient of three layers takes 1.4 times as long in a loop
(benchmarks/results/layers.json).
"""

import operator
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from natjax.config import ModelConfig
from natjax.layers.attention import Attention, KeysValues
from natjax.layers.dropout import dropout
from natjax.layers.feed_forward import FeedForward
from natjax.layers.linear import layer_norm
from natjax.layers.noise import Noise
from natjax.typing import Array, PyTree


class Norm(nn.Module):
    """Layer normalisation with learned scale and bias."""

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """[B, T, D] -> [B, T, D]."""
        scale = self.param("scale", nn.initializers.ones_init(), x_BTD.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros_init(), x_BTD.shape[-1:])
        return layer_norm(x_BTD, scale, bias)


class Layer(nn.Module):
    """Self-attention, attention over the memory where there is one, feed-forward; each residual.

    Attributes:
        config: widths, heads, dropout and so on.
        causal: whether self-attention sees only what lies before.
    """

    config: ModelConfig
    causal: bool = False

    def setup(self) -> None:
        """Declares the blocks; only those that are used get parameters."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.self_attention = Attention(c.heads, c.initializer, dtype, self.causal)
        self.self_attention_norm = Norm()
        self.cross_attention = Attention(c.heads, c.initializer, dtype)
        self.cross_attention_norm = Norm()
        self.feed_forward = FeedForward(c.feed_forward, c.activation, c.initializer, dtype)
        self.feed_forward_norm = Norm()

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
        noise = noise and noise.fold(index)

        def residual(x: Array, block: Callable[[Array], Array], norm: Norm, site: int) -> Array:
            return self._residual(x, lambda x: dropout(block(x), self.config.dropout, noise and noise.fold(site)), norm)

        x_BTD = residual(x_BTD, lambda x: self.self_attention(x, lengths_B), self.self_attention_norm, 0)
        if memory_BSD is not None:
            x_BTD = residual(
                x_BTD, lambda x: self.cross_attention(x, memory_lengths_B, memory_BSD), self.cross_attention_norm, 1
            )
        return residual(x_BTD, self.feed_forward, self.feed_forward_norm, 2), None

    def remember(self, memory_BSD: Array) -> KeysValues:
        """Keys and values of the memory, for `step`."""
        return self.cross_attention.remember(memory_BSD)

    def step(
        self,
        x_BWD: Array,
        cached: KeysValues,
        seen_BWM: Array,
        remembered: KeysValues,
        seen_BWS: Array,
        position: Array,
    ) -> tuple[Array, KeysValues]:
        """One position of each hypothesis; see `attention.Attention.step`."""
        written = []

        def self_attention(x: Array) -> Array:
            y, keys_values = self.self_attention.step(x, cached, seen_BWM, position)
            written.append(keys_values)
            return y

        x_BWD = self._residual(x_BWD, self_attention, self.self_attention_norm)
        x_BWD = self._residual(
            x_BWD, lambda x: self.cross_attention.recall(x, remembered, seen_BWS), self.cross_attention_norm
        )
        return self._residual(x_BWD, self.feed_forward, self.feed_forward_norm), written[0]

    def _residual(self, x: Array, block: Callable[[Array], Array], norm: Norm) -> Array:
        return x + block(norm(x)) if self.config.norm == "pre" else norm(x + block(x))


class Stack(nn.Module):
    """`depth` layers, and a last normalisation for pre-norm models.

    Attributes:
        config: widths, heads, dropout and so on.
        depth: number of layers.
        causal: see `Layer`.
    """

    config: ModelConfig
    depth: int
    causal: bool = False

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
        )(self.config, self.causal, name="layers")
        index = jnp.arange(self.depth, dtype=jnp.uint32)
        x_BTD, _ = layers(x_BTD, index, lengths_B, memory_BSD, memory_lengths_B, noise)
        return Norm(name="norm")(x_BTD) if self.config.norm == "pre" else x_BTD


def apart(params: PyTree) -> PyTree:
    """A dict of parameters with every dict `layers` of stacked arrays split into a tuple of dicts, one a layer."""

    def split(name: str, node: PyTree) -> PyTree:
        if name == "layers" and isinstance(node, dict):
            depth = jax.tree.leaves(node)[0].shape[0]
            return tuple(jax.tree.map(operator.itemgetter(layer), node) for layer in range(depth))
        return apart(node) if isinstance(node, dict) else node

    return {name: split(name, node) for name, node in params.items()}


def stacked(params: PyTree) -> PyTree:
    """Undoes `apart`: inside a compiled function, whose compiler sees through it, that costs nothing."""

    def is_tuple(node: PyTree) -> bool:
        return isinstance(node, tuple)

    def stack(node: PyTree) -> PyTree:
        return jax.tree.map(lambda *layers: jnp.stack(layers), *node) if is_tuple(node) else node

    return jax.tree.map(stack, params, is_leaf=is_tuple)
