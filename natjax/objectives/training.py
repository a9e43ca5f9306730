"""The training objective: encode, sample latents, upsample, glance, decode, loss, KL, length (paper, section 3).

The autoregressive teacher has nothing to upsample: its decoder is given the target, one place to the right.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.config import ObjectiveConfig
from natjax.layers.latent import active_units, divergence, free_bits, mutual_information
from natjax.layers.length import length_loss, predict_lengths
from natjax.layers.noise import Noise, step_noise
from natjax.models import NAT, Model, Transformer
from natjax.objectives.base import Objective, Targets
from natjax.objectives.glancing import glancing_ratio, shown_frames
from natjax.typing import BOS, Array, PyTree


class Mean(NamedTuple):
    """A mean on its way: f32[] each.

    Attributes:
        sum: of the values.
        count: of what they are a mean over.
    """

    sum: Array
    count: Array


class Sums(NamedTuple):
    """Sums over the rows of a batch, each f32[]. Sums travel, never means of means.

    Attributes:
        loss: Σ w·loss of the translation, nats.
        length_loss: Σ w·loss of the length classifier, nats.
        sentences: Σ w over rows that count.
        tokens: Σ w·N over rows that count.
        infeasible: rows left out because CTC cannot express them.
        means: what the techniques in use say of themselves, by name. Latents: `kl` (raw, nats a source piece),
            `active_units`, `mutual_information` (see `layers.latent`), `free_bits` in force. Glancing: `shown` (share
            of frames), `first_pass_loss` (nats a token, of the pass that is shown nothing, without label smoothing),
            `glancing_ratio` in force. Losses with a length: `length_accuracy` (share of sentences whose most probable
            length is the true one).
    """

    loss: Array
    length_loss: Array
    sentences: Array
    tokens: Array
    infeasible: Array
    means: dict[str, Mean]

    def __add__(self, other: "Sums") -> "Sums":  # type: ignore[override]
        return jax.tree.map(jnp.add, self, other)


class DeviceBatch(NamedTuple):
    """A batch on the device; see `natjax.data.store.Batch`.

    Attributes:
        source: i32[B, S].
        source_lengths: i32[B].
        target: i32[B, N].
        target_lengths: i32[B].
        weights: f32[B], 0 for rows of padding.
    """

    source: Array
    source_lengths: Array
    target: Array
    target_lengths: Array
    weights: Array


def objective_sums(
    model: Model,
    objective: Objective,
    config: ObjectiveConfig,
    params: PyTree,
    batch: DeviceBatch,
    noise: Noise | None,
    progress: Array | float = 1.0,
) -> tuple[Array, Sums]:
    """The objective of one batch.

    Args:
        model: what is trained.
        objective: its loss.
        config: weights and choices.
        params: float32 parameters.
        batch: on the device.
        noise: of this step. None: no dropout, posterior means in place of samples, and nothing is shown.
        progress: f32[], share of the run that is done, which free bits and the glancing ratio follow.

    Returns:
        (f32[], Sums): what is minimised, and the sums for reports. Minimised is Σ w·loss / Σ w·N (token_mean) or the
        mean over sentences of loss / N (sentence_mean, official release); plus, with latents, the mean over source
        pieces of max(KL, free bits); plus length_weight · mean length loss, for losses with a length.
    """
    targets, progress = Targets(batch.target, batch.target_lengths), jnp.asarray(progress, jnp.float32)
    frame_lengths_B = objective.frames(batch.source_lengths, batch.target_lengths)
    infeasible_B = objective.infeasible(frame_lengths_B, targets)
    weights_B = jnp.where(infeasible_B, 0.0, batch.weights)
    labels_B = batch.target_lengths.astype(jnp.float32)
    sentences, tokens = weights_B.sum(), (labels_B * weights_B).sum()
    if config.normalizer == "token_mean":
        shares_B = weights_B / jnp.maximum(tokens, 1.0)
    else:
        shares_B = weights_B / jnp.maximum(labels_B, 1.0) / jnp.maximum(sentences, 1.0)

    variables = {"params": params}
    memory_BSD = model.apply(variables, batch.source, batch.source_lengths, noise, method="encode")
    if isinstance(model, Transformer):
        inputs = shifted(batch.target), memory_BSD, batch.source_lengths
        hidden_BTD, latent_cost, means = model.apply(variables, *inputs, noise, method="decode"), jnp.zeros(()), {}
    else:
        hidden_BTD, latent_cost, means = _states(
            model, objective, config, params, batch, memory_BSD, frame_lengths_B, weights_B, noise, progress
        )
    head = model.apply(variables, hidden_BTD, method="project")
    total, loss_B = objective.loss(head, frame_lengths_B, targets, shares_B)
    total = total + latent_cost

    length = jnp.zeros(())
    if objective.needs_length:
        length_logits = model.apply(variables, memory_BSD, batch.source_lengths, method="length_logits")
        length = (length_loss(length_logits, batch.source_lengths, batch.target_lengths) * weights_B).sum()
        total = total + config.length_weight * length / jnp.maximum(sentences, 1.0)
        right_B = predict_lengths(length_logits, batch.source_lengths, 1)[:, 0] == batch.target_lengths
        means = {**means, "length_accuracy": Mean((weights_B * right_B.astype(jnp.float32)).sum(), sentences)}
    infeasible = jnp.where(infeasible_B, batch.weights, 0.0).sum()
    return total, Sums((loss_B * weights_B).sum(), length, sentences, tokens, infeasible, means)


def _states(
    model: NAT,
    objective: Objective,
    config: ObjectiveConfig,
    params: PyTree,
    batch: DeviceBatch,
    memory_BSD: Array,
    frame_lengths_B: Array,
    weights_B: Array,
    noise: Noise | None,
    progress: Array,
) -> tuple[Array, Array, dict[str, Mean]]:
    """The decoder's last states [B, T, D], what latents cost f32[], and the reports of the techniques in use."""
    latent_BSZ, cost, means = None, jnp.zeros(()), {}
    if model.has_latents:
        latent_BSZ, cost, means = _latents(model, config, params, batch, memory_BSD, weights_B, noise, progress)
    T = objective.max_frames(batch.source.shape[1], batch.target.shape[1])
    variables, rest = {"params": params}, (frame_lengths_B, memory_BSD, batch.source_lengths)
    frames_BTD = model.apply(variables, memory_BSD, batch.source_lengths, T, latent_BSZ, method="upsample")
    if config.glancing != "none" and noise is not None:
        targets = Targets(batch.target, batch.target_lengths)
        frames_BTD, glanced = _glance(
            model, objective, config, params, frames_BTD, rest, targets, weights_B, noise, progress
        )
        means = {**means, **glanced}
    return model.apply(variables, frames_BTD, *rest, noise, method="decode"), cost, means


def _latents(
    model: NAT,
    config: ObjectiveConfig,
    params: PyTree,
    batch: DeviceBatch,
    memory_BSD: Array,
    weights_B: Array,
    noise: Noise | None,
    progress: Array,
) -> tuple[Array, Array, dict[str, Mean]]:
    """A latent drawn from the posterior [B, S, Z], what it costs f32[], and its reports."""
    noise = noise and noise.fold(LATENTS)
    q = model.apply({"params": params}, *batch[:4], noise, method="posterior")
    p = model.apply({"params": params}, memory_BSD, method="prior")
    latent_BSZ = q.sample(noise and noise.fold(1))
    real_BS = jnp.arange(memory_BSD.shape[1])[None, :] < batch.source_lengths[:, None]
    weights_BS = jnp.where(real_BS, weights_B[:, None], 0.0)
    pieces, sentences = weights_BS.sum(), weights_B.sum()
    kl_BS = jnp.where(real_BS, divergence(q, p), 0.0)
    free = free_bits(progress, config.free_bits, config.free_bits_hold, config.free_bits_end)
    cost = (weights_BS * jnp.maximum(kl_BS, free)).sum() / jnp.maximum(pieces, 1.0)
    # The estimate is one of draws: where none is made, of some that are always the same.
    drawn_BSZ = latent_BSZ if noise is not None else q.sample(step_noise(0, jnp.int32(0), memory_BSD.shape[0]))
    seen = jax.lax.stop_gradient((q, drawn_BSZ))
    means = {
        "kl": Mean((weights_BS * kl_BS).sum(), pieces),
        "active_units": Mean(active_units(seen[0].mean, weights_BS) * sentences, sentences),
        "mutual_information": Mean(mutual_information(*seen, weights_BS) * sentences, sentences),
    }
    if noise is not None:
        means["free_bits"] = Mean(free * sentences, sentences)
    return latent_BSZ, cost, means


def _glance(
    model: NAT,
    objective: Objective,
    config: ObjectiveConfig,
    params: PyTree,
    frames_BTD: Array,
    rest: tuple[Array, Array, Array],
    targets: Targets,
    weights_B: Array,
    noise: Noise,
    progress: Array,
) -> tuple[Array, dict[str, Mean]]:
    """Decoder input with some target tokens in it, and its reports. The first pass carries no gradient."""
    fixed, frame_lengths_B = jax.lax.stop_gradient((params, frames_BTD, rest)), rest[0]
    of_first_pass = {"fresh": noise.fold(GLANCING).fold(1), "same": noise, "none": None}[config.glancing_dropout]
    hidden_BTD = model.apply({"params": fixed[0]}, fixed[1], *fixed[2], of_first_pass, method="decode")
    alignment = objective.align(
        model.apply({"params": fixed[0]}, hidden_BTD, method="project"), frame_lengths_B, targets
    )
    shown_BT = shown_frames(
        config, objective, alignment, frame_lengths_B, targets, weights_B > 0, progress, noise.fold(GLANCING)
    )
    frames_BTD = model.apply({"params": params}, frames_BTD, alignment.tokens, shown_BT, noise, method="reveal")
    shown_B, frames_B, labels_B = (
        n.astype(jnp.float32) for n in (shown_BT.sum(axis=1), frame_lengths_B, targets.lengths)
    )
    means = {
        "shown": Mean((weights_B * shown_B).sum(), (weights_B * frames_B).sum()),
        "first_pass_loss": Mean((weights_B * alignment.losses).sum(), (weights_B * labels_B).sum()),
    }
    if config.has_glancing_ratio:
        sentences = weights_B.sum()
        means["glancing_ratio"] = Mean(glancing_ratio(config, progress) * sentences, sentences)
    return frames_BTD, means


LATENTS, GLANCING = 5, 6  # the model's own sites are 0 to 4


def shifted(target_BN: Array) -> Array:
    """The teacher-forced inputs of the decoder, i32[B, N]: bos, then the target without its last token."""
    return jnp.pad(target_BN[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
