"""Greedy decoding in one pass: encode, upsample, decode, argmax, collapse, in one compiled function."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.layers.head import greedy
from natjax.layers.length import predict_lengths
from natjax.models.nat import NAT
from natjax.objectives.base import Objective
from natjax.typing import Array, PyTree


class Decoded(NamedTuple):
    """Translations of one batch.

    Attributes:
        tokens: i32[B, T], collapsed, packed to the left, padded with 0.
        lengths: i32[B], tokens in each row.
        frames: i32[B, T], the argmax of each frame, 0 beyond the row's frames.
        frame_lengths: i32[B].
        scores: f32[B], Σ over frames of the argmax's log-probability, nats.
    """

    tokens: Array
    lengths: Array
    frames: Array
    frame_lengths: Array
    scores: Array


Decode = Callable[..., Decoded]


def make_decode(model: NAT, objective: Objective, *, candidates: int = 1) -> Decode:
    """The compiled single pass, one program for each shape of its arguments.

    Args:
        model: the model; its parameters are an argument, so that one program serves all checkpoints.
        objective: tells frame counts and how frames collapse.
        candidates: for losses with a length, how many lengths are decoded side by side; the one with the best mean
            log-probability is returned.

    Returns:
        `decode(params, source i32[B, S], source_lengths i32[B], lengths i32[B] | None) -> Decoded`. `lengths`
        overrides the predicted target lengths (golden length); losses without a length ignore it.
    """

    def decode(params: PyTree, source_BS: Array, source_lengths_B: Array, lengths_B: Array | None = None) -> Decoded:
        def apply(method: str, *args: object) -> Array:
            return model.apply({"params": params}, *args, method=method)

        memory_BSD = apply("encode", source_BS, source_lengths_B)
        S = source_BS.shape[1]
        if not objective.needs_length:
            return one_length(apply, memory_BSD, source_lengths_B, source_lengths_B, objective.max_frames(S, 0))
        T = objective.max_frames(S, S + model.length_span)
        if lengths_B is not None:
            return one_length(apply, memory_BSD, source_lengths_B, jnp.minimum(lengths_B, T), T)
        logits = apply("length_logits", memory_BSD, source_lengths_B)
        choices_BC = predict_lengths(logits, source_lengths_B, candidates)
        tries = [one_length(apply, memory_BSD, source_lengths_B, choices_BC[:, c], T) for c in range(candidates)]
        return _best(tries)

    def one_length(apply: Callable, memory: Array, source_lengths: Array, lengths: Array, T: int) -> Decoded:
        frame_lengths_B = objective.frames(source_lengths, lengths)
        frames_BTD = apply("upsample", memory, source_lengths, T)
        hidden_BTD = apply("decode", frames_BTD, frame_lengths_B, memory, source_lengths)
        frames_BT, log_probs_BT = greedy(apply("project", hidden_BTD))
        real_BT = jnp.arange(T)[None, :] < frame_lengths_B[:, None]
        frames_BT = jnp.where(real_BT, frames_BT, 0)
        tokens_BT, lengths_B = objective.collapse(frames_BT, frame_lengths_B)
        scores_B = jnp.where(real_BT, log_probs_BT, 0.0).sum(axis=1)
        return Decoded(tokens_BT, lengths_B, frames_BT, frame_lengths_B, scores_B)

    return jax.jit(decode)


def _best(tries: list[Decoded]) -> Decoded:
    """Row by row the try with the best mean log-probability, the first among equals."""
    means_CB = jnp.stack([t.scores / t.frame_lengths.astype(jnp.float32) for t in tries])
    winner_B = jnp.argmax(means_CB, axis=0)

    def choose(*fields: Array) -> Array:
        stacked = jnp.stack(fields)
        return jnp.take_along_axis(stacked, winner_B.reshape((1, -1) + (1,) * (stacked.ndim - 2)), axis=0)[0]

    return jax.tree.map(choose, *tries)
