"""The fully non-autoregressive model: encode, upsample, decode every frame at once (paper, section 3).

The methods are the stations of that way, so that training, glancing and translation compose them and nothing else:

    memory = encode(source)                                  [B, S, D]
    latent = prior(memory) | posterior(source, target)       [B, S, Z], for models with latents
    frames = upsample(memory, latent)                        [B, T, D]
    frames = reveal(frames, tokens, shown)                   glancing: some frames become target tokens
    hidden = decode(frames, memory)                          [B, T, D]
    head   = project(hidden)                                 hidden with the output kernel [D, V]

`predict` is the way from memory to head without a target.
"""

import flax.linen as nn
import jax.numpy as jnp

from natjax.layers.dropout import dropout
from natjax.layers.latent import Gaussian, Latents
from natjax.layers.length import LengthClassifier
from natjax.layers.noise import Noise
from natjax.layers.stack import Stack
from natjax.layers.upsample import DistanceUpsample, GaussianUpsample, LinearUpsample
from natjax.models.base import EncoderDecoder
from natjax.typing import Array, Head


class NAT(EncoderDecoder):
    """Encoder, latents, upsampling, decoder without causal mask, shared embeddings.

    Attributes:
        config: sizes and choices.
        source_size: V of the source vocabulary.
        target_size: V of the output.
        length_span: R of the length classifier, for losses with a length; None for losses without.
    """

    length_span: int | None = None

    def setup(self) -> None:
        """Declares the parts; names are the parameter paths of checkpoints."""
        super().setup()
        c = self.config
        self.upsampling = self._upsampling()
        self.decoder = Stack(c, c.decoder_layers)
        if c.latents == "vae":
            self.latents = Latents(c)
        if self.length_span is not None:
            self.length_classifier = LengthClassifier(self.length_span, c.initializer)

    def _upsampling(self) -> nn.Module:
        c = self.config
        if self.length_span is not None:
            return DistanceUpsample()
        if c.upsampling == "linear":
            return LinearUpsample(int(c.ratio), c.initializer, jnp.dtype(c.dtype))
        return GaussianUpsample(c.ratio)

    @property
    @nn.nowrap
    def has_latents(self) -> bool:
        """Whether `upsample` wants a latent."""
        return self.config.latents == "vae"

    def prior(self, memory_BSD: Array) -> Gaussian:
        """p(z|x)."""
        return self.latents.prior(memory_BSD)

    def posterior(
        self,
        source_BS: Array,
        source_lengths_B: Array,
        target_BN: Array,
        target_lengths_B: Array,
        noise: Noise | None = None,
    ) -> Gaussian:
        """q(z|x,y); of the rest of the model it shares the embeddings only (paper, section 3.2)."""
        source_BSD, target_BND = self.source_embedding(source_BS), self.target_embedding()(target_BN)
        noise = noise and noise.fold(3)
        return self.latents.posterior(source_BSD, source_lengths_B, target_BND, target_lengths_B, noise)

    def upsample(self, memory_BSD: Array, source_lengths_B: Array, T: int, latent_BSZ: Array | None = None) -> Array:
        """Memory [B, S, D] -> decoder input [B, T, D], positions included, without dropout (official release)."""
        if latent_BSZ is not None:
            memory_BSD = memory_BSD + self.latents.spread(latent_BSZ)
        return self.decoder_positions(self.upsampling(memory_BSD, source_lengths_B, T))

    def reveal(self, frames_BTD: Array, tokens_BT: Array, shown_BT: Array, noise: Noise | None = None) -> Array:
        """Decoder input with the vectors of tokens i32[B, T] in the frames where bool[B, T] says so (glancing)."""
        x_BTD = self.decoder_positions(self.target_embedding()(tokens_BT))
        x_BTD = dropout(x_BTD, self.config.dropout, noise and noise.fold(4))
        return jnp.where(shown_BT[..., None], x_BTD, frames_BTD)

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

    def predict(
        self,
        memory_BSD: Array,
        source_lengths_B: Array,
        frame_lengths_B: Array,
        T: int,
        noise: Noise | None = None,
        temperature: float | Array = 0.0,
    ) -> Head:
        """From memory to output as translating goes, without a target: upsample, decode, project.

        A latent lies at the prior's mean; with noise, so many of the prior's deviations off it as the temperature
        says, a number or f32[B, 1, 1].
        """
        latent_BSZ = self.prior(memory_BSD).sample(noise, temperature) if self.has_latents else None
        frames_BTD = self.upsample(memory_BSD, source_lengths_B, T, latent_BSZ)
        return self.project(self.decode(frames_BTD, frame_lengths_B, memory_BSD, source_lengths_B))

    def length_logits(self, memory_BSD: Array, source_lengths_B: Array) -> Array:
        """Logits of N - S, f32[B, 2R+1]; only for losses with a length."""
        return self.length_classifier(memory_BSD, source_lengths_B)

    def __call__(self, source_BS: Array, source_lengths_B: Array, T: int) -> Head:
        """The whole way once, with the source as its own target where one is needed: what `init` follows."""
        memory_BSD = self.encode(source_BS, source_lengths_B)
        if self.length_span is not None:
            self.length_logits(memory_BSD, source_lengths_B)
        if self.has_latents:
            self.posterior(source_BS, source_lengths_B, source_BS, source_lengths_B)
        return self.predict(memory_BSD, source_lengths_B, jnp.full(source_lengths_B.shape, T, jnp.int32), T)
