"""From frames to tokens: merge what repeats, drop the blanks; and whether a target fits into its frames at all."""

import jax
import jax.numpy as jnp

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
    count_BT = jnp.cumsum(kept_BT, axis=1, dtype=jnp.int32)
    # A frame that is not kept goes to a place of its own beyond the end, where the scatter drops it.
    target_BT = jnp.where(kept_BT, count_BT - 1, size + place_T)
    tokens_BT = jax.vmap(_place)(frames_BT, target_BT)
    return tokens_BT, jnp.sum(kept_BT, axis=1, dtype=jnp.int32)


def _place(frames_T: Array, target_T: Array) -> Array:
    return jnp.zeros_like(frames_T).at[target_T].set(frames_T, mode="drop", unique_indices=True)
