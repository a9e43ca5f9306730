"""Latent variables: one Gaussian vector per source piece, from a prior and a posterior (paper, section 3.2).

    p(z|x)    a linear map of the encoder's last states
    q(z|x,y)  an encoder over the target, a decoder over the source that attends to it, a linear map

Both give mean and standard deviation of Z independent normal distributions. Training draws z from q, and pays what q
knows beyond p, KL(q‖p); translating takes p's mean. z is mapped to the model's width and added to the states that the
upsampling takes, nowhere else (official release).

Initial values do not follow the model's, as in the release, whose BERT initialisation stops short of these parts:

    layers of the posterior     xavier, fairseq's default
    the map of z                uniform ±1/√Z, PyTorch's default: with 0.02 z could hardly be seen, yet its KL is paid
    maps to mean, deviation     normal 0.02 (ours; the release: PyTorch's default): q and p begin near each other
"""

from dataclasses import replace
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from natjax.config import ModelConfig
from natjax.layers.dropout import dropout
from natjax.layers.linear import Initializer, fan_in, initializer, matmul
from natjax.layers.noise import Noise, mix32, normal
from natjax.layers.position import Positions
from natjax.layers.stack import Stack
from natjax.typing import Array

LEAST_DEVIATION = 1e-4  # so that the divergence stays finite however sure a network is


class Gaussian(NamedTuple):
    """Independent normal distributions.

    Attributes:
        mean: f32[B, S, Z].
        deviation: f32[B, S, Z], standard deviations, positive.
    """

    mean: Array
    deviation: Array

    def sample(self, noise: Noise | None, temperature: float | Array = 1.0) -> Array:
        """mean + temperature · deviation · ε, reparameterised (Kingma and Welling 2013); the mean without noise.

        The temperature is a number, or one for each row, f32[B, 1, 1].
        """
        if noise is None:
            return self.mean
        return self.mean + jnp.asarray(temperature, jnp.float32) * self.deviation * normal(self.mean.shape, noise)


def divergence(q: Gaussian, p: Gaussian) -> Array:
    """KL(q‖p) of each piece, nats, f32[B, S]: the sum over Z of log σp/σq + (σq² + (μq-μp)²) / 2σp² - ½."""
    ratio = q.deviation / p.deviation
    distance = (q.mean - p.mean) / p.deviation
    return (0.5 * (jnp.square(ratio) + jnp.square(distance) - 1) - jnp.log(ratio)).sum(axis=-1)


def free_bits(progress: Array, most: float, hold: float, end: float) -> Array:
    """Nats per piece that cost nothing: `most` until `hold`, then linearly down to 0 at `end` (free-bits annealing).

    Args:
        progress: f32[], share of the run that is done.
        most: nats at the beginning.
        hold: share of the run at which they begin to fall.
        end: share of the run at which none is left; where it equals `hold`, they fall at once.

    Returns:
        f32[], nats.
    """
    left = jnp.clip((np.float32(end) - progress) / np.float32(max(end - hold, 1e-6)), 0.0, 1.0)
    return np.float32(most) * left


def active_units(mean_BSZ: Array, weights_BS: Array) -> Array:
    """How many latent dimensions carry anything: those whose posterior mean has a variance above 0.01, f32[].

    Burda et al. (2016), section 5.2, over the pieces of a batch.

    Args:
        mean_BSZ: f32[B, S, Z], posterior means.
        weights_BS: f32[B, S], 0 for pieces that do not count.
    """
    share_BS1 = (weights_BS / jnp.maximum(weights_BS.sum(), 1.0))[..., None]
    centre_Z = (share_BS1 * mean_BSZ).sum(axis=(0, 1))
    variance_Z = (share_BS1 * jnp.square(mean_BSZ - centre_Z[None, None, :])).sum(axis=(0, 1))
    return (variance_Z > 0.01).sum().astype(jnp.float32)


def mutual_information(q: Gaussian, sample_BSZ: Array, weights_BS: Array, most: int = 256) -> Array:
    """An estimate of how much z tells about where it came from, nats, f32[]; at most the log of the number of pieces.

    E log q(z|i) - log mean_j q(z|j) over pieces i, j of a batch (Hoffman and Johnson 2016, with their batch as the
    data). Near 0, the posterior is the same everywhere and z says nothing.

    Args:
        q: the posterior.
        sample_BSZ: f32[B, S, Z], drawn from it.
        weights_BS: f32[B, S], 0 for pieces that do not count.
        most: pieces looked at, picked from those that count by a hash of their place: even steps would meet the same
            positions of all rows.
    """
    weights_P = weights_BS.reshape(-1)
    place_P = mix32(jax.lax.iota(jnp.uint32, weights_P.size)) >> np.uint32(1)
    chosen_M = jnp.argsort(jnp.where(weights_P > 0, place_P, np.uint32(0xFFFFFFFF)))[:most]
    mean_MZ, deviation_MZ, z_MZ = (x.reshape(-1, x.shape[-1])[chosen_M] for x in (q.mean, q.deviation, sample_BSZ))
    weights_M = weights_P[chosen_M]
    standard_MMZ = (z_MZ[:, None] - mean_MZ[None]) / deviation_MZ[None]
    log_density_MM = -(0.5 * jnp.square(standard_MMZ) + jnp.log(deviation_MZ)[None]).sum(axis=-1)
    total = jnp.maximum(weights_M.sum(), 1.0)
    mixture_M = jax.scipy.special.logsumexp(log_density_MM, axis=1, b=(weights_M / total)[None, :])
    return (weights_M * jnp.where(weights_M > 0, jnp.diagonal(log_density_MM) - mixture_M, 0.0)).sum() / total


class _Dense(nn.Module):
    """Linear map [..., D] -> f32[..., width]."""

    width: int
    values: Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.values, (x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        return matmul(x, kernel, self.dtype) + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class _GaussianHead(nn.Module):
    """States [B, S, D] -> means and softplus deviations."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BSD: Array) -> Gaussian:
        c = self.config
        small = initializer("bert", x_BSD.shape[-1], 2 * c.latent_width)
        both_BSX = _Dense(2 * c.latent_width, small, jnp.dtype(c.dtype), name="dense")(x_BSD)
        mean_BSZ, raw_BSZ = jnp.split(both_BSX, 2, axis=-1)
        return Gaussian(mean_BSZ, jax.nn.softplus(raw_BSZ) + np.float32(LEAST_DEVIATION))


class Latents(nn.Module):
    """Prior, posterior, and the map from z to the model's width.

    Attributes:
        config: sizes and choices; layers are of the model's kind, `posterior_layers` of them on each side.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declares the parts."""
        c, layers = self.config, replace(self.config, initializer="xavier")
        self.prior_head = _GaussianHead(c)
        # A table for each side where they are learned (official release).
        self.target_positions = Positions(c.positions, c.max_positions)
        self.source_positions = Positions(c.positions, c.max_positions)
        self.target_encoder = Stack(layers, c.posterior_layers)
        self.source_decoder = Stack(layers, c.posterior_layers)
        self.posterior_head = _GaussianHead(c)
        self.spreading = _Dense(c.width, fan_in(c.latent_width), jnp.dtype(c.dtype))

    def prior(self, memory_BSD: Array) -> Gaussian:
        """p(z|x) from the encoder's last states."""
        return self.prior_head(memory_BSD)

    def posterior(
        self,
        source_BSD: Array,
        source_lengths_B: Array,
        target_BND: Array,
        target_lengths_B: Array,
        noise: Noise | None,
    ) -> Gaussian:
        """q(z|x,y) from the vectors of source and target tokens, without positions."""

        def embedded(x: Array, positions: Positions, site: int) -> Array:
            return dropout(positions(x), self.config.dropout, noise and noise.fold(site))

        target_lengths_B = jnp.maximum(target_lengths_B, 1)  # rows of padding: attention always has a key
        target_BND = embedded(target_BND, self.target_positions, 0)
        known_BND = self.target_encoder(target_BND, target_lengths_B, noise=noise and noise.fold(1))
        source_BSD = embedded(source_BSD, self.source_positions, 2)
        asked_BSD = self.source_decoder(
            source_BSD, source_lengths_B, known_BND, target_lengths_B, noise=noise and noise.fold(3)
        )
        return self.posterior_head(asked_BSD)

    def spread(self, latent_BSZ: Array) -> Array:
        """z f32[B, S, Z] -> [B, S, D], in the compute dtype."""
        return self.spreading(latent_BSZ.astype(self.config.dtype)).astype(self.config.dtype)
