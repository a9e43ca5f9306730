"""From frames to tokens: merge what repeats, drop the blanks; and whether a target fits into its frames at all."""

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc._check import validate_frames, validate_labels
from natjax.typing import Array


def is_feasible(labels: Array, label_lengths: Array, logit_lengths: Array) -> Array:
    """Whether each target has an alignment: one frame a label, and one more between two equal neighbours.

    Args:
        labels: i32[B, N], padded on the right.
        label_lengths: i32[B].
        logit_lengths: i32[B], frames.

    Returns:
        bool[B].

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> labels = jnp.array([[5, 7], [5, 5]])
        >>> ctc.is_feasible(labels, jnp.array([2, 2]), jnp.array([2, 2])).tolist()
        [True, False]
    """
    validate_labels(labels, label_lengths, logit_lengths)
    label_lengths_B = label_lengths.astype(jnp.int32)
    second_N = jnp.arange(1, labels.shape[1], dtype=jnp.int32)[None, :]
    repeats_BN = (labels[:, 1:] == labels[:, :-1]) & (second_N < label_lengths_B[:, None])
    needed_B = label_lengths_B + jnp.sum(repeats_BN, axis=1, dtype=jnp.int32)
    return needed_B <= logit_lengths.astype(jnp.int32)


def collapse(frames: Array, frame_lengths: Array, *, blank_id: int = 0) -> tuple[Array, Array]:
    """The tokens that a frame-by-frame output stands for: repeats merged, then blanks dropped.

    Graves et al. (2006), section 3.1 (the map B). Shapes are static.

    Args:
        frames: i32[B, T], one id a frame.
        frame_lengths: i32[B]; frames beyond are ignored.
        blank_id: the id of the blank.

    Returns:
        tokens i32[B, T], packed to the left and padded with 0, and their lengths i32[B].

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> tokens, lengths = ctc.collapse(jnp.array([[4, 4, 0, 4, 9, 9]]), jnp.array([5]))
        >>> tokens.tolist(), lengths.tolist()
        ([[4, 4, 9, 0, 0, 0]], [3])
    """
    validate_frames(frames, frame_lengths)
    size = frames.shape[1]
    frames_BT = frames.astype(jnp.int32)
    place_T = jnp.arange(size, dtype=jnp.int32)[None, :]
    repeats_BT = jnp.pad(frames_BT[:, 1:] == frames_BT[:, :-1], ((0, 0), (1, 0)))[:, :size]
    inside_BT = place_T < frame_lengths.astype(jnp.int32)[:, None]
    kept_BT = inside_BT & (frames_BT != blank_id) & ~repeats_BT
    return packed(frames_BT, kept_BT), jnp.sum(kept_BT, axis=1, dtype=jnp.int32)


def packed(values: Array, kept: Array) -> Array:
    """What is kept of the last dimension, moved to the left; 0 behind. i32 and bool of one shape."""
    size = values.shape[-1]
    count = jnp.cumsum(kept, axis=-1, dtype=jnp.int32)
    # What is not kept goes to a place of its own beyond the end, where the scatter drops it.
    target = jnp.where(kept, count - 1, size + lax.broadcasted_iota(jnp.int32, values.shape, values.ndim - 1))
    place = _place
    for _ in values.shape[:-1]:
        place = jax.vmap(place)
    return place(values, target)


def _place(values_T: Array, target_T: Array) -> Array:
    return jnp.zeros_like(values_T).at[target_T].set(values_T, mode="drop", unique_indices=True)
