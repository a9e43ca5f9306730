"""Where each label goes: the best single alignment (Viterbi), and how probable every state is at every frame."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.ctc import _lattice, _loss, _problem
from natjax.ctc._check import validate_labels, validate_logits
from natjax.ctc._problem import Options, Problem, Rows
from natjax.typing import Array


class Alignment(NamedTuple):
    """One path a row.

    Attributes:
        tokens: i32[B, T], the blank or a label for each frame; the blank on padded frames and in rows without a path.
        scores: f32[B] (f64[B] for float64 logits), its log-probability; −inf for rows without a path.
    """

    tokens: Array
    scores: Array


def viterbi_alignment(
    logits: Array, logit_lengths: Array, labels: Array, label_lengths: Array, *, blank_id: int = 0, unroll: int = 1
) -> Alignment:
    """The most probable of all paths that collapse to the labels.

    Ties are always broken the same way. Followed from the last frame back to the first: of the two ends the last
    blank comes before the last label; among equally good predecessors a path stays in its state rather than having
    come from the state before, and that rather than having skipped a blank.

    Holds 4·B·T·(N+1) bytes of scores and B·T·(N+1) bytes of back-pointers. Carries no gradient.

    Args:
        logits: as `ctc_loss`.
        logit_lengths: i32[B].
        labels: i32[B, N], padded on the right.
        label_lengths: i32[B].
        blank_id: the id of the blank.
        unroll: as `ctc_loss`.

    Returns:
        Tokens and scores.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or blank_id or unroll is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> logits = jnp.log(jnp.array([[[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]]]))
        >>> best = ctc.viterbi_alignment(logits, jnp.array([3]), jnp.array([[1, 1]]), jnp.array([2]))
        >>> best.tokens.tolist(), round(float(jnp.exp(best.scores[0])), 3)
        ([[1, 0, 1]], 0.432)
    """
    return _compiled_viterbi(*_arguments(logits, logit_lengths, labels, label_lengths, blank_id, unroll))


def occupancy(
    logits: Array, logit_lengths: Array, labels: Array, label_lengths: Array, *, blank_id: int = 0, unroll: int = 1
) -> Array:
    """How probable each lattice state is at each frame, given that the path collapses to the labels.

    Graves et al. (2006), equation 14 divided by equation 8. State 2n+1 is label n, even states are blanks. Carries no
    gradient.

    Args:
        logits: as `ctc_loss`.
        logit_lengths: i32[B].
        labels: i32[B, N], padded on the right.
        label_lengths: i32[B].
        blank_id: the id of the blank.
        unroll: as `ctc_loss`.

    Returns:
        f32[B, T, L] (f64 for float64 logits), L = 2N+1. Sums to 1 over L on real frames; 0 on padded frames and in
        rows without a path.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or blank_id or unroll is out of range.

    Example:
        Two frames and one label: the paths (1, 1), (0, 1) and (1, 0) are equally likely.

        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> posterior = ctc.occupancy(jnp.zeros((1, 2, 3)), jnp.array([2]), jnp.array([[1]]), jnp.array([1]))
        >>> jnp.round(3 * posterior[0], 3).tolist()
        [[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]
    """
    return _compiled_occupancy(*_arguments(logits, logit_lengths, labels, label_lengths, blank_id, unroll))


def _arguments(
    logits: Array, logit_lengths: Array, labels: Array, label_lengths: Array, blank_id: int, unroll: int
) -> tuple[Array, Rows, Options]:
    validate_labels(labels, label_lengths, logit_lengths)
    validate_logits(logits, labels, blank_id)
    options = _problem.checked_options(blank_id, 0.0, "inf", unroll)
    rows = _problem.rows(logit_lengths, labels, label_lengths)
    return *_problem.alike((jax.lax.stop_gradient(logits), rows)), options


@functools.partial(jax.jit, static_argnums=2)
def _compiled_occupancy(logits_BTV: Array, rows: Rows, options: Options) -> Array:
    problem = _loss.pose(logits_BTV, rows, options)
    log_prob_TBU, _ = _loss.log_probs(logits_BTV, problem)
    last_BL, log_joint_TBL = _lattice.forward_backward(problem.lattice, problem.ends, log_prob_TBU, options.unroll)
    possible_B = problem.feasible & (_lattice.total(last_BL, problem.ends) != -jnp.inf)
    mass_BTL, total_BT1 = _lattice.masses(log_joint_TBL)
    return jnp.where((problem.real & possible_B[:, None])[..., None], mass_BTL / total_BT1, 0.0)


@functools.partial(jax.jit, static_argnums=2)
def _compiled_viterbi(logits_BTV: Array, rows: Rows, options: Options) -> Alignment:
    problem = _loss.pose(logits_BTV, rows, options)
    return best_path(problem, rows.label_lengths, _loss.log_probs(logits_BTV, problem)[0], options)


def best_path(problem: Problem, label_lengths_B: Array, log_prob_TBU: Array, options: Options) -> Alignment:
    """The best path of a problem, given the log-probabilities [T, B, U] of its slots."""
    lattice = problem.lattice
    first, last = jnp.zeros((), jnp.int32), problem.lattice.last

    def forwards(carry: tuple[Array, Array], log_prob_BU: Array) -> tuple[tuple[Array, Array], Array]:
        frame, score_BL = carry
        stay_BL, step_BL = score_BL, _lattice.shift_right(score_BL, 1, -jnp.inf)
        skip_BL = jnp.where(lattice.can_skip, _lattice.shift_right(score_BL, 2, -jnp.inf), -jnp.inf)
        moved_BL = jnp.maximum(step_BL, skip_BL)
        pointer_BL = jnp.where(moved_BL > stay_BL, jnp.where(skip_BL > step_BL, 2, 1), 0).astype(jnp.int8)
        # A blank is never skipped into, so that its pointer is 0 or 1: one byte holds it and that of the label behind.
        pointer_BU = pointer_BL[:, 0::2] + 2 * jnp.pad(pointer_BL[:, 1::2], ((0, 0), (0, 1)))
        into_BL = jnp.where(frame == first, lattice.start, jnp.maximum(stay_BL, moved_BL))
        new_BL = into_BL + _lattice.spread(log_prob_BU)
        return (frame + 1, jnp.where((frame > last)[:, None], score_BL, new_BL)), pointer_BU

    nothing = first, jnp.full_like(lattice.start, -jnp.inf)
    (_, score_BL), pointer_TBU = jax.lax.scan(forwards, nothing, log_prob_TBU, unroll=options.unroll)
    end_B = 2 * label_lengths_B
    blank_B, label_B = _at(score_BL, end_B), _at(score_BL, jnp.maximum(end_B - 1, 0))
    by_label_B = (label_B > blank_B) & (label_lengths_B > 0)

    def backwards(carry: tuple[Array, Array], pointer_BU: Array) -> tuple[tuple[Array, Array], Array]:
        frame, state_B = carry
        pair_B = _at(pointer_BU, state_B // 2).astype(jnp.int32)
        came_B = jnp.where(state_B % 2 == 1, pair_B // 2, pair_B % 2)
        came_B = jnp.where((frame > last) | (frame == first), 0, came_B)
        return (frame - 1, state_B - came_B), state_B

    start = jnp.int32(log_prob_TBU.shape[0] - 1), jnp.where(by_label_B, end_B - 1, end_B)
    _, state_TB = jax.lax.scan(backwards, start, pointer_TBU, reverse=True, unroll=options.unroll)
    scores_B = jnp.where(by_label_B, label_B, blank_B)
    scores_B = jnp.where(problem.empty, 0.0, scores_B)
    possible_B = problem.feasible & (scores_B != -jnp.inf)
    # State 2n+1 is label n, which is slot n+1; even states are the blank, slot 0.
    slot_BT = jnp.where(state_TB % 2 == 1, (state_TB + 1) // 2, 0).T
    tokens_BT = jnp.take_along_axis(problem.slots, slot_BT, axis=1)
    real_BT = problem.real & possible_B[:, None]
    return Alignment(jnp.where(real_BT, tokens_BT, options.blank_id), jnp.where(possible_B, scores_B, -jnp.inf))


def _at(values_BL: Array, state_B: Array) -> Array:
    """The value of one state a row."""
    return jnp.take_along_axis(values_BL, state_B[:, None], axis=1)[:, 0]
