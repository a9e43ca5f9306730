"""What both families of models have: embeddings, encoder, positions, output projection."""

import flax.linen as nn
import jax.numpy as jnp

from natjax.config import ModelConfig
from natjax.layers.dropout import dropout
from natjax.layers.embedding import Embedding
from natjax.layers.noise import Noise
from natjax.layers.position import Positions
from natjax.layers.stack import Stack
from natjax.typing import Array, Head


class EncoderDecoder(nn.Module):
    """Encoder, tables of source and target (one, where they are shared), output projection tied to the latter.

    Attributes:
        config: sizes and choices.
        source_size: V of the source vocabulary.
        target_size: V of the output.
    """

    config: ModelConfig
    source_size: int
    target_size: int

    def setup(self) -> None:
        """Declares the parts; names are the parameter paths of checkpoints."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        # Sinusoids have unit amplitude; vectors of norm 1 would drown in them (Vaswani et al. 2017, section 3.4).
        scale = c.width**0.5 if c.positions == "sinusoidal" else 1.0
        self.source_embedding = Embedding(self.source_size, c.width, c.initializer, scale, dtype)
        if not c.share_embeddings:
            self.output_embedding = Embedding(self.target_size, c.width, c.initializer, scale, dtype)
        self.encoder_positions = Positions(c.positions, c.max_positions)
        self.encoder = Stack(c, c.encoder_layers)
        self.decoder_positions = Positions(c.positions, c.max_positions)
        self.output_bias = self.param("output_bias", nn.initializers.zeros_init(), (self.target_size,))

    def target_embedding(self) -> Embedding:
        """The table that target tokens are looked up in, and projected on."""
        return self.source_embedding if self.config.share_embeddings else self.output_embedding

    def encode(self, source_BS: Array, source_lengths_B: Array, noise: Noise | None = None) -> Array:
        """i32[B, S] -> memory [B, S, D]."""
        x_BSD = self.encoder_positions(self.source_embedding(source_BS))
        x_BSD = dropout(x_BSD, self.config.dropout, noise and noise.fold(0))
        return self.encoder(x_BSD, source_lengths_B, noise=noise and noise.fold(1))

    def project(self, hidden_BTD: Array) -> Head:
        """The output projection, its kernel the transposed table of target vectors."""
        return Head(hidden_BTD, self.target_embedding().table.T, self.output_bias)
