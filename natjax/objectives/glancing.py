"""Glancing: in training the decoder is shown some target tokens, the more the more it gets wrong (paper, section 3.4).

A first pass without gradient is aligned with the target. From its distance to the alignment comes how many frames are
shown, l ~ Poisson(f · distance), or chance alone says it (rnd); which, is left to chance. Those frames' inputs become
the vectors of the tokens that the alignment puts there, and the second pass is trained on the whole sentence (official
release: no frame is left out of the loss). A translator sees no targets, so it makes the second pass's work without the
first.

What the alignment is, is the loss's own affair (`Objective.align`): of CTC the best path, blanks included; of AXE the
best path, where frames that it skips have ε; of cross-entropy the target itself. The last two have as many frames as
the target has tokens.
"""

import jax
import jax.numpy as jnp
import numpy as np

from natjax.config import ObjectiveConfig
from natjax.layers.noise import Noise, bits, uniform
from natjax.objectives.base import Alignment, Objective, Targets, until_eos
from natjax.typing import BLANK, Array


def shown_frames(
    config: ObjectiveConfig,
    objective: Objective,
    alignment: Alignment,
    frame_lengths_B: Array,
    targets: Targets,
    feasible_B: Array,
    progress: Array,
    noise: Noise,
) -> Array:
    """Which frames are shown their token, bool[B, T].

    Args:
        config: fields `glancing*`.
        objective: tells how frames collapse.
        alignment: of the first pass.
        frame_lengths_B: i32[B].
        targets: of the batch.
        feasible_B: bool[B]; rows without an alignment are shown nothing.
        progress: f32[], share of the run that is done.
        noise: folded to glancing.

    Returns:
        Of the frames that may be shown (all real ones, or those with a token), at least one of each row stays hidden.
    """
    real_BT = jnp.arange(alignment.tokens.shape[1])[None, :] < frame_lengths_B[:, None]
    open_BT = real_BT if config.glancing_blanks else real_BT & (alignment.tokens != BLANK)
    open_B = open_BT.sum(axis=1, dtype=jnp.int32)
    frames_B, may_B = frame_lengths_B.astype(jnp.float32), open_B.astype(jnp.float32)
    most_B = jnp.maximum(open_B - 1, 0)
    share_B = uniform((*noise.rows.shape, 1), noise.fold(0))[:, 0]
    if not config.has_glancing_ratio:
        number_B = jnp.floor(share_B * may_B).astype(jnp.int32)
    else:
        of_first_pass = config.glancing == "glat"
        inputs = config, objective, alignment, frame_lengths_B, targets
        distance_B = _distance(*inputs) if of_first_pass else share_B * frames_B
        # The distance counts all frames: where some may not be shown, so many fewer are.
        mean_B = (
            glancing_ratio(config, progress) * distance_B * (may_B / jnp.maximum(frames_B, 1.0))
        )  # rows of padding may have none
        if config.glancing_sampler == "poisson":
            number_B = poisson(mean_B, most_B, alignment.tokens.shape[1], noise.fold(1))
        else:
            number_B = jnp.floor(mean_B).astype(jnp.int32)
    number_B = jnp.where(feasible_B, jnp.minimum(number_B, most_B), 0)
    return choose(open_BT, number_B, noise.fold(2))


def _distance(
    config: ObjectiveConfig, objective: Objective, alignment: Alignment, frame_lengths_B: Array, targets: Targets
) -> Array:
    """How wrong the first pass is, in frames, f32[B]."""
    if config.glancing_distance == "hamming":
        return hamming(alignment, jnp.arange(alignment.tokens.shape[1])[None, :] < frame_lengths_B[:, None])
    predicted, lengths = objective.collapse(alignment.predicted, frame_lengths_B)
    # What collapses ends before its eos; so does what it is compared with.
    tokens, labels_B = until_eos(*targets) if config.target_eos else targets
    edits_B = levenshtein(predicted, lengths, tokens, labels_B).astype(jnp.float32)
    # Edits a label, carried over to frames (official release).
    return edits_B / jnp.maximum(labels_B, 1).astype(jnp.float32) * frame_lengths_B.astype(jnp.float32)


def glancing_ratio(config: ObjectiveConfig, progress: Array) -> Array:
    """f, f32[]: from `glancing_ratio` at the start of the run linearly to `glancing_ratio_end`, if any, at its end."""
    first = np.float32(config.glancing_ratio)
    last = first if config.glancing_ratio_end is None else np.float32(config.glancing_ratio_end)
    return first + (last - first) * progress


def hamming(alignment: Alignment, real_BT: Array) -> Array:
    """How many real frames do not emit what the alignment has there, f32[B]."""
    return (real_BT & (alignment.predicted != alignment.tokens)).sum(axis=1).astype(jnp.float32)


def levenshtein(ours_BM: Array, our_lengths_B: Array, theirs_BN: Array, their_lengths_B: Array) -> Array:
    """Fewest insertions, deletions and substitutions from one sequence to the other, i32[B].

    A scan over the first, the second side by side: what depends on the place to the left is a running minimum.

    Args:
        ours_BM: i32[B, M].
        our_lengths_B: i32[B].
        theirs_BN: i32[B, N].
        their_lengths_B: i32[B].
    """
    place_N1 = jnp.arange(theirs_BN.shape[1] + 1, dtype=jnp.int32)[None, :]

    def step(carry: tuple[Array, Array], ours_B: Array) -> tuple[tuple[Array, Array], None]:
        place, above_BN1 = carry
        differs_BN = (ours_B[:, None] != theirs_BN).astype(jnp.int32)
        best_BN = jnp.minimum(above_BN1[:, 1:] + 1, above_BN1[:, :-1] + differs_BN)
        best_BN1 = jnp.concatenate([above_BN1[:, :1] + 1, best_BN], axis=1)
        new_BN1 = jax.lax.cummin(best_BN1 - place_N1, axis=1) + place_N1
        return (place + 1, jnp.where((place < our_lengths_B)[:, None], new_BN1, above_BN1)), None

    first_BN1 = jnp.broadcast_to(place_N1, (ours_BM.shape[0], place_N1.shape[1]))
    (_, last_BN1), _ = jax.lax.scan(step, (jnp.int32(0), first_BN1), ours_BM.T)
    return jnp.take_along_axis(last_BN1, their_lengths_B[:, None], axis=1)[:, 0]


def poisson(mean_B: Array, most_B: Array, limit: int, noise: Noise) -> Array:
    """One draw a row from the Poisson distribution, cut at `most_B`, i32[B], by its inverse distribution function.

    Args:
        mean_B: f32[B], at least 0.
        most_B: i32[B], at most `limit`.
        limit: the largest number that is looked at.
        noise: folded to this call.
    """
    count_K = np.arange(limit, dtype=np.float32)
    log_factorial_K = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, max(limit, 1))))])[:limit].astype(np.float32)
    log_mean_B1 = jnp.log(jnp.maximum(mean_B, 1e-30))[:, None]
    log_mass_BK = count_K[None, :] * log_mean_B1 - mean_B[:, None] - log_factorial_K[None, :]
    # u < P(l ≤ k) for the drawn l and all beyond, so l is the number of k for which it is not.
    below_BK = jnp.cumsum(jnp.exp(log_mass_BK), axis=1)
    drawn_B = (uniform((*mean_B.shape, 1), noise) >= below_BK).sum(axis=1).astype(jnp.int32)
    return jnp.minimum(drawn_B, most_B)


def choose(open_BT: Array, number_B: Array, noise: Noise) -> Array:
    """`number_B` of the open places of each row, all sets equally likely, bool[B, T]; all, where there are fewer."""
    order_BT = bits(open_BT.shape, noise)  # no two alike within a row
    ahead_BTT = open_BT[:, None, :] & (order_BT[:, None, :] < order_BT[:, :, None])
    return open_BT & (ahead_BTT.sum(axis=2) < number_B[:, None])
