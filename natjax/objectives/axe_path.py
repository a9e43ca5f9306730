"""The best monotone alignment of aligned cross-entropy: Ghazvininejad et al. (2020), section 3.

A[i, j] is the least cost of the first i labels and the first j frames. With c(i, j) the cost of label i at frame j,
e(j) that of ε there, and δ the penalty, it is the least of

    align        A[i-1, j-1] + c(i, j)        frame j emits label i
    skip frame   A[i, j-1] + e(j)             frame j emits ε
    skip label   A[i-1, j] + δ·c(i, j)        no frame emits label i; it costs what it would at the last frame so far

where c(i, 0) is c(i, 1). So there is always a path. Among equals, align goes before skip frame, and that before skip
label; ties are looked at from the end of the path to its start.

Cells with the same i + j depend only on the two diagonals before, so a scan over diagonals takes N + T steps, each
over all labels and rows. A second one follows the path back. What lies beyond a row's lengths has no influence.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from natjax.typing import Array

ALIGN, SKIP_FRAME, SKIP_LABEL, NOTHING = np.arange(4, dtype=np.int8)


class Path(NamedTuple):
    """The best path of each row.

    Attributes:
        cost: f32[B], A at the row's lengths.
        frame: i32[B, N], the frame, from 0, that each label is aligned to or skipped at; 0 for padding.
        aligned: bool[B, N], whether a frame emits the label.
        skipped: bool[B, T], the frames that emit ε.
    """

    cost: Array
    frame: Array
    aligned: Array
    skipped: Array


def best_path(
    cost_BTN: Array, empty_cost_BT: Array, label_lengths_B: Array, frame_lengths_B: Array, penalty: float
) -> Path:
    """The path of least cost.

    Args:
        cost_BTN: f32[B, T, N], c: the negative log-probability of each label at each frame.
        empty_cost_BT: f32[B, T], e.
        label_lengths_B: i32[B].
        frame_lengths_B: i32[B], at least 1 where there are labels. A row without both costs 0.
        penalty: δ, at least 0.
    """
    (B, T, N), U = cost_BTN.shape, cost_BTN.shape[2] + 1
    cost_BNJ = jnp.pad(jnp.swapaxes(cost_BTN, 1, 2), ((0, 0), (0, 0), (1, 0)), mode="edge")
    empty_BJ = jnp.pad(empty_cost_BT, ((0, 0), (1, 0)), constant_values=jnp.inf)
    # No frame is skipped on the way into column 0. Nothing is aligned there either: A[i-1, -1] is infinite.
    empty_BUJ = jnp.broadcast_to(empty_BJ[:, None, :], (B, U, T + 1))
    costs = _diagonals(cost_BNJ), _diagonals(np.float32(penalty) * cost_BNJ), _diagonals(empty_BUJ)[1:]
    diagonal_D = jnp.arange(1, N + T + 1, dtype=jnp.int32)
    labels_B, ends_B = label_lengths_B.astype(jnp.int32), (label_lengths_B + frame_lengths_B).astype(jnp.int32)
    at_end_BU = jnp.arange(U, dtype=jnp.int32)[None, :] == labels_B[:, None]

    def forwards(carry: tuple[Array, Array, Array], diagonal: tuple) -> tuple[tuple, Array]:
        before_BU, last_BU, total_B = carry
        number, (align_BN, skip_label_BN, skip_frame_BU) = diagonal
        align_BU = _moved(before_BU[:, :-1] + align_BN)
        frame_BU, label_BU = last_BU + skip_frame_BU, _moved(last_BU[:, :-1] + skip_label_BN)
        skip_BU = jnp.minimum(frame_BU, label_BU)
        new_BU = jnp.minimum(align_BU, skip_BU)
        step_BU = jnp.where(align_BU <= skip_BU, ALIGN, jnp.where(frame_BU <= label_BU, SKIP_FRAME, SKIP_LABEL))
        total_B = jnp.where(number == ends_B, jnp.where(at_end_BU, new_BU, 0.0).sum(axis=1), total_B)
        return (last_BU, new_BU, total_B), step_BU

    nowhere_BU = jnp.full((B, U), jnp.inf, cost_BTN.dtype)
    start = nowhere_BU, nowhere_BU.at[:, 0].set(0.0), jnp.zeros(B, cost_BTN.dtype)
    (_, _, total_B), step_DBU = lax.scan(forwards, start, (diagonal_D, costs))

    def backwards(carry: tuple[Array, Array], diagonal: tuple[Array, Array]) -> tuple[tuple, tuple[Array, Array]]:
        label_B, place_B = carry
        number, step_BU = diagonal
        step_B = jnp.take_along_axis(step_BU, label_B[:, None], axis=1)[:, 0]
        step_B = jnp.where(number == place_B, step_B, NOTHING)
        label_after_B = label_B - ((step_B == ALIGN) | (step_B == SKIP_LABEL)).astype(jnp.int32)
        place_after_B = place_B - jnp.where(step_B == NOTHING, 0, jnp.where(step_B == ALIGN, 2, 1))
        return (label_after_B, place_after_B), (step_B, label_B)

    _, (step_DB, label_DB) = lax.scan(backwards, (labels_B, ends_B), (diagonal_D, step_DBU), reverse=True)
    # A step on a diagonal leads into cell (label, diagonal - label); frames count from 0 here.
    frame_DB = jnp.maximum(diagonal_D[:, None] - label_DB - 1, 0)
    to_label_DB = (step_DB == ALIGN) | (step_DB == SKIP_LABEL)
    meets_DBN = to_label_DB[..., None] & (label_DB[..., None] == jnp.arange(1, U, dtype=jnp.int32)[None, None, :])
    leaves_DBT = (step_DB == SKIP_FRAME)[..., None] & (frame_DB[..., None] == jnp.arange(T)[None, None, :])
    return Path(
        cost=total_B,
        frame=jnp.where(meets_DBN, frame_DB[..., None], 0).sum(axis=0),
        aligned=(meets_DBN & (step_DB == ALIGN)[..., None]).any(axis=0),
        skipped=leaves_DBT.any(axis=0),
    )


def _moved(cost_BN: Array) -> Array:
    """From label i - 1 to label i; nothing leads to label 0."""
    return jnp.pad(cost_BN, ((0, 0), (1, 0)), constant_values=jnp.inf)


def _diagonals(cost_BUJ: Array) -> Array:
    """Diagonal d holds cost[i, d - i] at place i, [U + J - 1, B, U]; infinite where there is no such cell.

    Rows padded to U + J and read as rows of one less shift each by one place more than the one before.
    """
    B, U, J = cost_BUJ.shape
    padded = jnp.pad(cost_BUJ, ((0, 0), (0, 0), (0, U)), constant_values=jnp.inf)
    sheared = padded.reshape(B, U * (U + J))[:, : U * (U + J - 1)].reshape(B, U, U + J - 1)
    return jnp.transpose(sheared, (2, 0, 1))
