"""The training objective: encode, upsample, decode, loss, plus length (paper, section 3).

The autoregressive teacher has nothing to upsample: its decoder is given the target, one place to the right.
"""

from typing import NamedTuple

import jax.numpy as jnp

from natjax.config import ObjectiveConfig
from natjax.layers.dropout import Noise
from natjax.layers.length import length_loss
from natjax.models import Model, Transformer
from natjax.objectives.base import Objective, Targets
from natjax.typing import BOS, Array, PyTree


class Sums(NamedTuple):
    """Sums over the rows of a batch, each f32[]. Sums travel, never means of means.

    Attributes:
        loss: Σ w·loss of the translation, nats.
        length_loss: Σ w·loss of the length classifier, nats.
        sentences: Σ w over rows that count.
        tokens: Σ w·N over rows that count.
        infeasible: rows left out because CTC cannot express them.
    """

    loss: Array
    length_loss: Array
    sentences: Array
    tokens: Array
    infeasible: Array

    def __add__(self, other: "Sums") -> "Sums":  # type: ignore[override]
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


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
) -> tuple[Array, Sums]:
    """The objective of one batch.

    Returns:
        (f32[], Sums): what is minimised, Σ w·loss / Σ w·N (token_mean) or the mean over sentences of loss / N
        (sentence_mean, official release), plus length_weight · mean length loss; and the sums for reports.
    """
    targets = Targets(batch.target, batch.target_lengths)

    def apply(method: str, *args: object) -> Array:
        return model.apply({"params": params}, *args, method=method)

    memory_BSD = apply("encode", batch.source, batch.source_lengths, noise)
    frame_lengths_B = objective.frames(batch.source_lengths, batch.target_lengths)
    if isinstance(model, Transformer):
        hidden_BTD = apply("decode", shifted(batch.target), memory_BSD, batch.source_lengths, noise)
    else:
        T = objective.max_frames(batch.source.shape[1], batch.target.shape[1])
        frames_BTD = apply("upsample", memory_BSD, batch.source_lengths, T)
        hidden_BTD = apply("decode", frames_BTD, frame_lengths_B, memory_BSD, batch.source_lengths, noise)
    infeasible_B = objective.infeasible(frame_lengths_B, targets)
    weights_B = jnp.where(infeasible_B, 0.0, batch.weights)
    labels_B = batch.target_lengths.astype(jnp.float32)
    sentences, tokens = weights_B.sum(), (labels_B * weights_B).sum()
    if config.normalizer == "token_mean":
        shares_B = weights_B / jnp.maximum(tokens, 1.0)
    else:
        shares_B = weights_B / jnp.maximum(labels_B, 1.0) / jnp.maximum(sentences, 1.0)
    total, loss_B = objective.loss(apply("project", hidden_BTD), frame_lengths_B, targets, shares_B)

    length = jnp.zeros(())
    if objective.needs_length:
        length_logits = apply("length_logits", memory_BSD, batch.source_lengths)
        length = (length_loss(length_logits, batch.source_lengths, batch.target_lengths) * weights_B).sum()
        total = total + config.length_weight * length / jnp.maximum(sentences, 1.0)
    infeasible = jnp.where(infeasible_B, batch.weights, 0.0).sum()
    return total, Sums((loss_B * weights_B).sum(), length, sentences, tokens, infeasible)


def shifted(target_BN: Array) -> Array:
    """The teacher-forced inputs of the decoder, i32[B, N]: bos, then the target without its last token."""
    return jnp.pad(target_BN[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
