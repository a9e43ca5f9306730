"""The fully non-autoregressive model: encode, upsample, decode every frame at once (paper, section 3).

The methods are the stations of that way, so that training, glancing and translation compose them and nothing else:

    memory = encode(source)          [B, S, D]
    frames = upsample(memory)        [B, T, D]
    hidden = decode(frames, memory)  [B, T, D]
    head   = project(hidden)         hidden with the output kernel [D, V]
"""

import flax.linen as nn
import jax.numpy as jnp

from natjax.config import ModelConfig
from natjax.layers.dropout import Noise, dropout
from natjax.layers.embedding import Embedding
from natjax.layers.length import LengthClassifier
from natjax.layers.position import Positions
from natjax.layers.stack import Stack
from natjax.layers.upsample import DistanceUpsample, GaussianUpsample, LinearUpsample
from natjax.typing import Array, Head


class NAT(nn.Module):
    """Encoder, upsampling, decoder without causal mask, shared embeddings.

    Attributes:
        config: sizes and choices.
        source_size: V of the source vocabulary.
        target_size: V of the output.
        length_span: R of the length classifier, for losses with a length; None for losses without.
    """

    config: ModelConfig
    source_size: int
    target_size: int
    length_span: int | None = None

    def setup(self) -> None:
        """Declares the parts; names are the parameter paths of checkpoints."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        # Sinusoids have unit amplitude; vectors of norm 1 would drown in them (Vaswani et al. 2017, section 3.4).
        scale = c.width**0.5 if c.positions == "sinusoidal" else 1.0
        self.source_embedding = Embedding(self.source_size, c.width, c.initializer, scale, dtype)
        self.encoder_positions = Positions(c.positions, c.max_positions)
        self.encoder = Stack(c, c.encoder_layers)
        self.upsampling = self._upsampling()
        self.decoder_positions = Positions(c.positions, c.max_positions)
        self.decoder = Stack(c, c.decoder_layers)
        if not c.share_embeddings:
            self.output_embedding = Embedding(self.target_size, c.width, c.initializer, 1.0, dtype)
        self.output_bias = self.param("output_bias", nn.initializers.zeros_init(), (self.target_size,))
        if self.length_span is not None:
            self.length_classifier = LengthClassifier(self.length_span, c.initializer)

    def _upsampling(self) -> nn.Module:
        c = self.config
        if self.length_span is not None:
            return DistanceUpsample()
        if c.upsampling == "linear":
            return LinearUpsample(int(c.ratio), c.initializer, jnp.dtype(c.dtype))
        return GaussianUpsample(c.ratio)

    def encode(self, source_BS: Array, source_lengths_B: Array, noise: Noise | None = None) -> Array:
        """i32[B, S] -> memory [B, S, D]."""
        x_BSD = self.encoder_positions(self.source_embedding(source_BS))
        x_BSD = dropout(x_BSD, self.config.dropout, noise and noise.fold(0))
        return self.encoder(x_BSD, source_lengths_B, noise=noise and noise.fold(1))

    def upsample(self, memory_BSD: Array, source_lengths_B: Array, T: int) -> Array:
        """Memory [B, S, D] -> decoder input [B, T, D], positions included, without dropout (official release)."""
        return self.decoder_positions(self.upsampling(memory_BSD, source_lengths_B, T))

    def decode(
        self,
        frames_BTD: Array,
        frame_lengths_B: Array,
        memory_BSD: Array,
        source_lengths_B: Array,
        noise: Noise | None = None,
    ) -> Array:
        """Decoder input -> last states [B, T, D]; states at and beyond a row's frame length mean nothing."""
        return self.decoder(frames_BTD, frame_lengths_B, memory_BSD, source_lengths_B, noise=noise and noise.fold(2))

    def project(self, hidden_BTD: Array) -> Head:
        """The output projection, its kernel the transposed embedding table."""
        table = self.source_embedding.table if self.config.share_embeddings else self.output_embedding.table
        return Head(hidden_BTD, table.T, self.output_bias)

    def length_logits(self, memory_BSD: Array, source_lengths_B: Array) -> Array:
        """Logits of N - S, f32[B, 2R+1]; only for losses with a length."""
        return self.length_classifier(memory_BSD, source_lengths_B)

    def __call__(self, source_BS: Array, source_lengths_B: Array, T: int) -> Head:
        """Encode, upsample and decode T frames a row: the whole way once, which `init` follows."""
        memory_BSD = self.encode(source_BS, source_lengths_B)
        if self.length_span is not None:
            self.length_logits(memory_BSD, source_lengths_B)
        frames_BTD = self.upsample(memory_BSD, source_lengths_B, T)
        frame_lengths_B = jnp.full(source_lengths_B.shape, T, jnp.int32)
        return self.project(self.decode(frames_BTD, frame_lengths_B, memory_BSD, source_lengths_B))
