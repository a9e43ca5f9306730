"""The autoregressive Transformer, the teacher (Vaswani et al. 2017): each token is predicted from those before it.

In training all positions are decoded at once, behind a causal mask:

    memory = encode(source)          [B, S, D]
    hidden = decode(inputs, memory)  [B, N, D]      inputs: bos, then the target without its last token
    head   = project(hidden)         hidden with the output kernel [D, V]

When translating, `step` decodes one position of W hypotheses a sentence, over a cache that `start` makes. It takes
parameters with the layers apart (`layers.stack.apart`), so that the cache is arrays of its own for each layer, which a
compiled loop writes in place; `layers.attention` tells how the cache survives the reordering of a beam untouched.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from natjax.layers.attention import KeysValues, visible
from natjax.layers.dropout import dropout
from natjax.layers.noise import Noise
from natjax.layers.stack import Layer, Norm, Stack
from natjax.models.base import EncoderDecoder
from natjax.typing import Array, Head, PyTree


class Cache(NamedTuple):
    """What a sentence's hypotheses have been told so far; one entry a layer of the decoder.

    Attributes:
        written: keys [B·H, K, N·W] and values [B·H, N·W, K] of target positions.
        remembered: keys [B·H, K, S] and values [B·H, S, K] of the memory.
        source_lengths: i32[B].
    """

    written: tuple[KeysValues, ...]
    remembered: tuple[KeysValues, ...]
    source_lengths: Array


class Transformer(EncoderDecoder):
    """Encoder, decoder with causal mask, input and output tables of the target tied."""

    def setup(self) -> None:
        """Declares the parts; names are the parameter paths of checkpoints."""
        super().setup()
        self.decoder = Stack(self.config, self.config.decoder_layers, causal=True)

    def decode(self, inputs_BN: Array, memory_BSD: Array, source_lengths_B: Array, noise: Noise | None = None) -> Array:
        """Tokens i32[B, N] -> states [B, N, D]: those of position n have seen the tokens up to n."""
        x_BND = self.decoder_positions(self.target_embedding()(inputs_BN))
        x_BND = dropout(x_BND, self.config.dropout, noise and noise.fold(2))
        # What lies behind a row's end comes after everything that counts, so the mask alone keeps it out.
        lengths_B = jnp.full_like(source_lengths_B, inputs_BN.shape[1])
        return self.decoder(x_BND, lengths_B, memory_BSD, source_lengths_B, noise=noise and noise.fold(3))

    def embed(self, tokens_BW: Array, position: Array, N: int) -> Array:
        """Vectors [B, W, D] of tokens that all stand at one of N positions."""
        x_BWD = self.target_embedding()(tokens_BW)
        vectors_ND = self.decoder_positions.vectors(N, self.config.width)
        here_D = jax.lax.dynamic_index_in_dim(vectors_ND, position, keepdims=False)
        return x_BWD + here_D[None, None, :].astype(x_BWD.dtype)

    def __call__(self, source_BS: Array, source_lengths_B: Array, N: int) -> Head:
        """Encode, and decode N tokens a row: the whole way once, which `init` follows."""
        memory_BSD = self.encode(source_BS, source_lengths_B)
        inputs_BN = jnp.zeros((source_BS.shape[0], N), jnp.int32)
        return self.project(self.decode(inputs_BN, memory_BSD, source_lengths_B))

    @nn.nowrap
    def start(self, params: PyTree, memory_BSD: Array, source_lengths_B: Array, W: int, N: int) -> Cache:
        """The cache before the first step.

        Args:
            params: the model's, the decoder's layers apart.
            memory_BSD: of `encode`.
            source_lengths_B: i32[B].
            W: hypotheses a sentence.
            N: how many positions there is room for.
        """
        B, dtype = memory_BSD.shape[0], jnp.dtype(self.config.dtype)
        heads = self.config.heads
        layer = Layer(self.config, causal=True)
        remembered, written = [], []
        for of_layer in params["decoder"]["layers"]:
            remembered.append(layer.apply({"params": of_layer}, memory_BSD, method="remember"))
            M, K = N * W, self.config.width // heads
            written.append(KeysValues(jnp.zeros((B * heads, K, M), dtype), jnp.zeros((B * heads, M, K), dtype)))
        return Cache(tuple(written), tuple(remembered), source_lengths_B)

    @nn.nowrap
    def grow(self, cache: Cache, W: int, N: int) -> Cache:
        """The same cache with room for N positions, which are more than before."""

        def longer(written: KeysValues) -> KeysValues:
            more = N * W - written.values.shape[1]
            keys = jnp.pad(written.keys, ((0, 0), (0, 0), (0, more)))
            return KeysValues(keys, jnp.pad(written.values, ((0, 0), (0, more), (0, 0))))

        return cache._replace(written=tuple(map(longer, cache.written)))

    @nn.nowrap
    def step(
        self, params: PyTree, cache: Cache, tokens_BW: Array, position: Array, ancestors_BWN: Array
    ) -> tuple[Array, Cache]:
        """Decodes one position of each hypothesis.

        Args:
            params: the model's, the decoder's layers apart.
            cache: of `start`, or of the step before.
            tokens_BW: i32[B, W], the token that each hypothesis ends in; bos at the first step.
            position: i32[], how many tokens came before it.
            ancestors_BWN: i32[B, W, N], the slot in which each position of a hypothesis lies, which is w at `position`
                itself; later positions are not looked at.

        Returns:
            The states [B, W, D], which `project` takes, and the cache with this position in slot w of hypothesis w.
        """
        N, layer = ancestors_BWN.shape[2], Layer(self.config, causal=True)
        outer = {name: part for name, part in params.items() if name not in ("encoder", "decoder")}
        x_BWD = self.apply({"params": outer}, tokens_BW, position, N, method="embed")
        seen_BWM = visible(ancestors_BWN, position)
        S = cache.remembered[0].values.shape[1]
        seen_BWS = (jnp.arange(S)[None, :] < cache.source_lengths[:, None])[:, None, :]
        written = []
        for of_layer, cached, remembered in zip(
            params["decoder"]["layers"], cache.written, cache.remembered, strict=True
        ):
            x_BWD, keys_values = layer.apply(
                {"params": of_layer}, x_BWD, cached, seen_BWM, remembered, seen_BWS, position, method="step"
            )
            written.append(keys_values)
        if self.config.norm == "pre":
            x_BWD = Norm().apply({"params": params["decoder"]["norm"]}, x_BWD)
        return x_BWD, cache._replace(written=tuple(written))
