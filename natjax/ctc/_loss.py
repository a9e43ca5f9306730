"""CTC loss of logits, with its gradient written out: softmax − occupancy.

Numerics, row by row, with the default infeasible="zero" (under "inf": loss +inf where "zero" says 0; same gradient):

    case                                            loss                    gradient on real frames
    feasible                                        −log p(labels), >= 0    softmax − occupancy
    T_b exactly minimal                             as feasible             as feasible
    N_b = 0                                         −Σ log p(blank)         softmax − one-hot(blank)
    T_b = 0, N_b = 0                                0                       (no real frame)
    needs more frames than T_b                      0                       0
    some logits −inf, a path remains                as feasible             as feasible; 0 at the −inf
    some logits −inf, no path remains               0                       0
    a frame of −inf only                            0                       0
    NaN or +inf on a real frame, feasible lengths   NaN                     NaN
    anything on a padded frame                      no effect               0 on the padded frame
    cotangent 0                                     (as above)              0

With label smoothing the penalty is +inf where a real frame holds −inf: uniform mass on what cannot be emitted. Its
gradient is finite. Where the loss is 0 for want of a path, the penalty is 0 too.

The log-probability of a certain row can exceed 0 by rounding; there, and nowhere else, the loss is cut at 0.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.ctc import _lattice
from natjax.ctc._check import validate_labels, validate_logits
from natjax.ctc._collapse import is_feasible
from natjax.ctc._enum import AUTO, Implementation, resolve
from natjax.typing import Array

INFEASIBLE = ("zero", "inf")


def ctc_loss(
    logits: Array,
    logit_lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    blank_id: int = 0,
    label_smoothing: float = 0.0,
    infeasible: str = "zero",
    implementation: Implementation = AUTO,
) -> Array:
    """Negative log-probability of each row's labels, summed over all their alignments.

    Graves et al. (2006), "Connectionist Temporal Classification", equations 3 to 16. With ε = label_smoothing,

        loss_b = (1 − ε) · nll_b + ε · (N_b / T_b) · Σ_{t < T_b} (log Σ_v exp z_btv − mean_v z_btv)

    where the mean runs over all V entries, the blank included: cross-entropy with the uniform distribution, averaged
    over the real frames and weighted as N_b labels. It differentiates once, in reverse mode.

    Lengths and ids are taken on trust under `jax.jit`; `check` reads them on the host.

    Args:
        logits: [B, T, V], unnormalised, float32 or bfloat16 (float64 where JAX has it enabled). Sums are carried in
            float32 (float64).
        logit_lengths: i32[B], real frames T_b.
        labels: i32[B, N], padded on the right; what stands in the padding does not matter.
        label_lengths: i32[B], real labels N_b; 0 is legal.
        blank_id: the id of the blank, which is no label.
        label_smoothing: ε, in [0, 1).
        infeasible: what a row without any alignment costs: "zero", for training, or "inf", for scoring. Its gradient
            is exactly 0 in both.
        implementation: how it is computed.

    Returns:
        f32[B] (f64[B] for float64 logits). The gradient has the dtype of the logits.

    Raises:
        TypeError: an array has the wrong kind of dtype, or implementation is no `Implementation`.
        ValueError: shapes do not fit; blank_id, label_smoothing or infeasible is out of range.
        NotImplementedError: a second derivative is asked for.

    Example:
        Two frames, three tokens, all equally likely. Of the nine paths (1, 1), (0, 1) and (1, 0) give the label 1.

        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> loss = ctc.ctc_loss(jnp.zeros((1, 2, 3)), jnp.array([2]), jnp.array([[1]]), jnp.array([1]))
        >>> round(float(jnp.exp(-loss[0]) * 9), 4)
        3.0
    """
    validate_labels(labels, label_lengths, logit_lengths)
    validate_logits(logits, labels, blank_id)
    if infeasible not in INFEASIBLE:
        raise ValueError(f"infeasible must be one of {', '.join(INFEASIBLE)}, got {infeasible!r}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    resolve(implementation)
    lengths = logit_lengths.astype(jnp.int32), labels.astype(jnp.int32), label_lengths.astype(jnp.int32)
    return _compiled_loss(logits, *lengths, int(blank_id), float(label_smoothing), infeasible)


def from_optax(
    logits: Array,
    logit_paddings: Array,
    labels: Array,
    label_paddings: Array,
    *,
    blank_id: int = 0,
    label_smoothing: float = 0.0,
    infeasible: str = "zero",
    implementation: Implementation = AUTO,
) -> Array:
    """`ctc_loss` with the arguments of `optax.losses.ctc_loss`: paddings in place of lengths.

    The values agree on rows that have an alignment. On others optax returns about 1e5 with a gradient.

    Args:
        logits: as `ctc_loss`.
        logit_paddings: [B, T], 1 on padded frames and 0 on real ones, the padding on the right.
        labels: as `ctc_loss`.
        label_paddings: [B, N], 1 on padded labels and 0 on real ones, the padding on the right.
        blank_id: as `ctc_loss`.
        label_smoothing: as `ctc_loss`.
        infeasible: as `ctc_loss`.
        implementation: as `ctc_loss`.

    Returns:
        As `ctc_loss`.

    Raises:
        ValueError: as `ctc_loss`, and where a padding has not the shape of what it pads.
        TypeError: as `ctc_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> loss = ctc.from_optax(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1)))
        >>> round(float(jnp.exp(-loss[0]) * 9), 4)
        3.0
    """
    for name, paddings, shape in (
        ("logit_paddings", logit_paddings, logits.shape[:2]),
        ("label_paddings", label_paddings, labels.shape),
    ):
        if paddings.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {paddings.shape}")
    return ctc_loss(
        logits,
        jnp.sum(logit_paddings == 0, axis=1, dtype=jnp.int32),
        labels,
        jnp.sum(label_paddings == 0, axis=1, dtype=jnp.int32),
        blank_id=blank_id,
        label_smoothing=label_smoothing,
        infeasible=infeasible,
        implementation=implementation,
    )


class _Problem(NamedTuple):
    """What both the value and the gradient start from. In this module U = 1 + N: the blank, then the labels.

    Attributes:
        slots: i32[B, U], the ids, with the blank in place of padding.
        lse: float[B, T], log-sum-exp of the logits.
        log_prob: float[T, B, L], what each state emits.
        lattice: with frames in their natural order.
        ends: bool[B, L], the states in which paths end.
    """

    slots: Array
    lse: Array
    log_prob: Array
    lattice: _lattice.Lattice
    ends: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _loss(
    logits_BTV: Array,
    logit_lengths_B: Array,
    labels_BN: Array,
    label_lengths_B: Array,
    blank_id: int,
    label_smoothing: float,
    infeasible: str,
) -> Array:
    lengths = logit_lengths_B, labels_BN, label_lengths_B
    problem = _prepare(logits_BTV, *lengths, blank_id)
    last_BL = _lattice.forward(problem.lattice, problem.log_prob)
    return _finish(problem, last_BL, logits_BTV, *lengths, label_smoothing, infeasible)[0]


def _loss_forward(
    logits_BTV: Array,
    logit_lengths_B: Array,
    labels_BN: Array,
    label_lengths_B: Array,
    blank_id: int,
    label_smoothing: float,
    infeasible: str,
) -> tuple[Array, tuple[Array, ...]]:
    logits_BTV = _differentiates_once(logits_BTV)
    lengths = logit_lengths_B, labels_BN, label_lengths_B
    problem = _prepare(logits_BTV, *lengths, blank_id)
    last_BL, log_joint_TBL = _lattice.forward_backward(problem.lattice, problem.ends, problem.log_prob)
    loss_B, possible_B = _finish(problem, last_BL, logits_BTV, *lengths, label_smoothing, infeasible)
    mass_BTL, total_BT1 = _lattice.masses(log_joint_TBL)
    occupancy_BTU = _by_token(mass_BTL, problem.slots) / total_BT1
    taken_BU = _taken(problem.slots)
    # Slots that repeat an earlier one go to columns of their own beyond the end, where the scatter drops them.
    vocabulary, slots = logits_BTV.shape[2], taken_BU.shape[1]
    column_BU = jnp.where(taken_BU, vocabulary + jnp.arange(slots, dtype=jnp.int32)[None, :], problem.slots)
    return loss_B, (logits_BTV, problem.lse, occupancy_BTU, column_BU, possible_B, logit_lengths_B, label_lengths_B)


def _loss_backward(
    blank_id: int, label_smoothing: float, infeasible: str, residuals: tuple[Array, ...], cotangent_B: Array
) -> tuple[Array | None, ...]:
    logits_BTV, lse_BT, occupancy_BTU, column_BU, possible_B, logit_lengths_B, label_lengths_B = residuals
    dtype, vocabulary = lse_BT.dtype, logits_BTV.shape[2]
    live_BT1 = (_real(logits_BTV, logit_lengths_B) & (possible_B & (cotangent_B != 0))[:, None])[..., None]
    weight_B11 = cotangent_B[:, None, None]
    smooth_B11 = label_smoothing * _labels_per_frame(label_lengths_B, logit_lengths_B, dtype)[:, None, None]

    def gradient(logits: Array, occupancy: Array | float) -> Array:
        softmax = jnp.exp(logits.astype(dtype) - lse_BT[..., None])
        slope = (1 - label_smoothing) * (softmax - occupancy)
        if label_smoothing:
            slope = slope + smooth_B11 * (softmax - 1 / vocabulary)
        return jnp.where(live_BT1, weight_B11 * slope, 0.0).astype(logits.dtype)

    # The label columns are computed apart and put in place, not subtracted from what is there: a bfloat16 logit's
    # gradient is then rounded once, where softmax and occupancy nearly cancel too.
    at_slots_BTU = gradient(_columns(logits_BTV, column_BU), occupancy_BTU)
    return jax.vmap(_put)(gradient(logits_BTV, 0.0), column_BU, at_slots_BTU), None, None, None


_loss.defvjp(_loss_forward, _loss_backward)
# So that a call outside any jit is one program and not a hundred small ones.
_compiled_loss = jax.jit(_loss, static_argnums=(4, 5, 6))


def _prepare(
    logits_BTV: Array, logit_lengths_B: Array, labels_BN: Array, label_lengths_B: Array, blank_id: int
) -> _Problem:
    batch, size = labels_BN.shape
    inside_BN = jnp.arange(size, dtype=jnp.int32)[None, :] < label_lengths_B[:, None]
    blank_B1 = jnp.full((batch, 1), blank_id, jnp.int32)
    # A padded label stands for the blank: what the padding holds is never read. A negative id would count from the
    # end; made too large instead, it reads NaN as every other id outside the vocabulary does.
    known_BN = jnp.where(labels_BN < 0, logits_BTV.shape[2], labels_BN)
    slots_BU = jnp.concatenate([blank_B1, jnp.where(inside_BN, known_BN, blank_B1)], axis=1)
    lse_BT = _lattice.log_sum_exp(logits_BTV.astype(_accumulator(logits_BTV)))
    # A frame of −inf only has lse −inf; subtracting 0 keeps its log-probabilities at −inf.
    lse_BT = jnp.where(lse_BT == -jnp.inf, 0.0, lse_BT)
    log_prob_BTU = _columns(logits_BTV, slots_BU).astype(lse_BT.dtype) - lse_BT[..., None]
    log_prob_BTU = jnp.where(_real(logits_BTV, logit_lengths_B)[..., None], log_prob_BTU, 0.0)
    lattice, ends_BL = _lattice.natural(slots_BU[:, 1:], label_lengths_B, logit_lengths_B, lse_BT.dtype)
    return _Problem(slots_BU, lse_BT, _lattice.emissions(log_prob_BTU), lattice, ends_BL)


def _finish(
    problem: _Problem,
    last_BL: Array,
    logits_BTV: Array,
    logit_lengths_B: Array,
    labels_BN: Array,
    label_lengths_B: Array,
    label_smoothing: float,
    infeasible: str,
) -> tuple[Array, Array]:
    """The loss [B], and whether a row has a path, bool[B]."""
    # No recursion runs over no frames: there the empty path is certain, and feasible only for the empty target.
    log_prob_B = jnp.where(logit_lengths_B == 0, 0.0, _lattice.total(last_BL, problem.ends))
    possible_B = is_feasible(labels_BN, label_lengths_B, logit_lengths_B) & (log_prob_B != -jnp.inf)
    loss_B = jnp.maximum(-log_prob_B, 0.0)
    if label_smoothing:
        loss_B = (1 - label_smoothing) * loss_B + label_smoothing * _penalty(
            logits_BTV, problem.lse, logit_lengths_B, label_lengths_B
        )
    return jnp.where(possible_B, loss_B, 0.0 if infeasible == "zero" else jnp.inf), possible_B


def _penalty(logits_BTV: Array, lse_BT: Array, logit_lengths_B: Array, label_lengths_B: Array) -> Array:
    """Cross-entropy [B] with the uniform distribution: mean over real frames, times the number of labels."""
    mean_BT = jnp.mean(logits_BTV.astype(lse_BT.dtype), axis=-1)
    excess_BT = jnp.where(_real(logits_BTV, logit_lengths_B), lse_BT - mean_BT, 0.0)
    per_frame_B = _labels_per_frame(label_lengths_B, logit_lengths_B, lse_BT.dtype)
    # An empty target weighs nothing, and 0 times an infinite penalty is to be nothing too.
    return jnp.where(label_lengths_B > 0, per_frame_B * _lattice.tree_sum(excess_BT), 0.0)


def _taken(slots_BU: Array) -> Array:
    """Whether an earlier slot of the row holds the same token, bool[B, U]; padding repeats the blank of slot 0."""
    same_BUU = slots_BU[:, :, None] == slots_BU[:, None, :]
    return jnp.any(jnp.tril(same_BUU, -1), axis=2)


def _by_token(mass_BTL: Array, slots_BU: Array) -> Array:
    """Mass [B, T, U] of each slot's token, over all the states that emit it."""
    labels_BN = slots_BU[:, 1:]
    blank_BT1 = _lattice.tree_sum(mass_BTL[..., 0::2])[..., None]
    same_BNN = (labels_BN[:, :, None] == labels_BN[:, None, :]).astype(mass_BTL.dtype)
    # Merged before the scatter, each column is written once: the same bits on every run, on a GPU too.
    label_BTN = jnp.einsum("btm,bmn->btn", mass_BTL[..., 1::2], same_BNN, precision="highest")
    return jnp.concatenate([blank_BT1, label_BTN], axis=-1)


def _columns(logits_BTV: Array, column_BU: Array) -> Array:
    """logits[b, t, column[b, u]] as [B, T, U]; NaN beyond the vocabulary."""
    return jnp.take_along_axis(logits_BTV, column_BU[:, None, :], axis=2, mode="fill")


def _put(into_TV: Array, column_U: Array, values_TU: Array) -> Array:
    return into_TV.at[:, column_U].set(values_TU, mode="drop", unique_indices=True)


def _real(logits_BTV: Array, logit_lengths_B: Array) -> Array:
    return jnp.arange(logits_BTV.shape[1], dtype=jnp.int32)[None, :] < logit_lengths_B[:, None]


def _labels_per_frame(label_lengths_B: Array, logit_lengths_B: Array, dtype: jnp.dtype) -> Array:
    return label_lengths_B.astype(dtype) / jnp.maximum(logit_lengths_B, 1).astype(dtype)


def _accumulator(logits_BTV: Array) -> jnp.dtype:
    return jnp.dtype(jnp.float64 if logits_BTV.dtype == jnp.float64 else jnp.float32)


@jax.custom_jvp
def _differentiates_once(logits_BTV: Array) -> Array:
    return logits_BTV


@_differentiates_once.defjvp
def _no_second_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    raise NotImplementedError("natjax.ctc.ctc_loss has a first derivative only, in reverse mode")
