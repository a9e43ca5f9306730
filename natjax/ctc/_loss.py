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
from jax import lax

from natjax.ctc import _lattice, _problem
from natjax.ctc._check import validate_labels, validate_logits, validate_paddings
from natjax.ctc._enum import AUTO, Implementation, resolve
from natjax.ctc._head import accumulator
from natjax.ctc._problem import Options, Problem, Rows
from natjax.typing import Array


def ctc_loss(
    logits: Array,
    logit_lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    blank_id: int = 0,
    label_smoothing: float = 0.0,
    infeasible: str = "zero",
    unroll: int = 1,
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
        unroll: frames a step of the scan; see `jax.lax.scan`. More is faster where the steps are short of work
            (few rows and labels, an accelerator), and compiles longer.
        implementation: how it is computed.

    Returns:
        f32[B] (f64[B] for float64 logits). The gradient has the dtype of the logits.

    Raises:
        TypeError: an array has the wrong kind of dtype, or implementation is no `Implementation`.
        ValueError: shapes do not fit; blank_id, label_smoothing, infeasible or unroll is out of range, or the
            implementation is for hidden states.
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
    options = _problem.checked_options(blank_id, label_smoothing, infeasible, unroll)
    resolve(implementation, (Implementation.SCAN,), Implementation.SCAN)
    logits, rows = _problem.alike((logits, _problem.rows(logit_lengths, labels, label_lengths)))
    return _compiled_loss(logits, rows, options)


def from_optax(
    logits: Array,
    logit_paddings: Array,
    labels: Array,
    label_paddings: Array,
    *,
    blank_id: int = 0,
    label_smoothing: float = 0.0,
    infeasible: str = "zero",
    unroll: int = 1,
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
        unroll: as `ctc_loss`.
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
    validate_paddings(logits, logit_paddings, labels, label_paddings)
    return ctc_loss(
        logits,
        jnp.sum(logit_paddings == 0, axis=1, dtype=jnp.int32),
        labels,
        jnp.sum(label_paddings == 0, axis=1, dtype=jnp.int32),
        blank_id=blank_id,
        label_smoothing=label_smoothing,
        infeasible=infeasible,
        unroll=unroll,
        implementation=implementation,
    )


class Posterior(NamedTuple):
    """What the gradient of the logits is made of, with problem and weights.

    Attributes:
        lse: float[B, T], log Σ exp of the logits.
        at_columns: float[B, T, U], the gradient of the loss in `Problem.columns`.
        possible: bool[B], rows with a path.
    """

    lse: Array
    at_columns: Array
    possible: Array


def value(logits_BTV: Array, problem: Problem, options: Options) -> Array:
    """The loss [B]."""
    log_prob_TBU, lse_BT = log_probs(logits_BTV, problem)
    nll_B, possible_B = _problem.value(problem, log_prob_TBU, options.unroll)
    return _problem.losses(problem, nll_B, possible_B, lse_BT, _mean(logits_BTV, options), options)


def value_and_posterior(logits_BTV: Array, problem: Problem, options: Options) -> tuple[Array, Posterior]:
    """The loss [B], and what `slope` needs beside the logits."""
    log_prob_TBU, lse_BT = log_probs(logits_BTV, problem)
    nll_B, possible_B, occupancy_BTU = _problem.value_and_occupancy(problem, log_prob_TBU, options.unroll)
    loss_B = _problem.losses(problem, nll_B, possible_B, lse_BT, _mean(logits_BTV, options), options)
    return loss_B, posterior(problem, log_prob_TBU, lse_BT, occupancy_BTU, possible_B, options, logits_BTV.shape[2])


def posterior(
    problem: Problem,
    log_prob_TBU: Array,
    lse_BT: Array,
    occupancy_BTU: Array,
    possible_B: Array,
    options: Options,
    vocabulary: int,
) -> Posterior:
    """What `slope` needs beside the logits; see `_problem.value_and_occupancy`, `_problem.log_probs`."""
    softmax_BTU = jnp.swapaxes(jnp.exp(log_prob_TBU), 0, 1)
    label_BTN = jnp.take_along_axis(softmax_BTU[..., 1:], problem.order[:, None, :], axis=2)
    softmax_BTU = jnp.concatenate([softmax_BTU[..., :1], label_BTN], axis=-1)
    return Posterior(lse_BT, _difference(softmax_BTU, occupancy_BTU, problem, options, vocabulary), possible_B)


def _difference(softmax: Array, occupancy: Array | float, problem: Problem, options: Options, vocabulary: int) -> Array:
    """The gradient of the loss in some columns of the logits, [B, T, ...]."""
    epsilon = options.label_smoothing
    difference = (1 - epsilon) * (softmax - occupancy)
    if epsilon:
        difference = difference + epsilon * problem.labels_per_frame[:, None, None] * (softmax - 1 / vocabulary)
    return difference


def slope(
    logits_BTX: Array,
    problem: Problem,
    posterior: Posterior,
    weights_B: Array,
    options: Options,
    *,
    place_BU: Array,
    vocabulary: int,
) -> Array:
    """The gradient of Σ weights · loss in X columns of the logits, in their dtype.

    Args:
        logits_BTX: some columns of the logits, or all of them.
        problem: the batch.
        posterior: from `value_and_posterior` or `posterior`.
        weights_B: float[B]; a row of weight 0 gets exactly 0.
        options: as checked.
        place_BU: i32[B, U], where among the X columns each of `Problem.columns` is; those that are not among them have
            places of their own beyond the end. `problem.columns` itself for all V columns.
        vocabulary: V.
    """
    dtype = posterior.lse.dtype
    live_BT1 = live(problem, posterior, weights_B)[..., None]
    weight_B11 = weights_B.astype(dtype)[:, None, None]

    def weighted(difference: Array) -> Array:
        return jnp.where(live_BT1, weight_B11 * difference, 0.0).astype(logits_BTX.dtype)

    softmax_BTX = jnp.exp(logits_BTX.astype(dtype) - posterior.lse[..., None])
    # The label columns were computed apart and are put in place, not subtracted from what is there: a bfloat16 logit's
    # gradient is then rounded once, where softmax and occupancy nearly cancel too. And nothing but the softmax reads
    # the logits here, so that a compiler may write the gradient over them.
    gradient_BTX = weighted(_difference(softmax_BTX, 0.0, problem, options, vocabulary))
    return jax.vmap(_put)(gradient_BTX, place_BU, weighted(posterior.at_columns))


def live(problem: Problem, posterior: Posterior, weights_B: Array) -> Array:
    """bool[B, T], the frames that have a gradient."""
    return problem.real & (posterior.possible & (weights_B != 0))[:, None]


def at_slots(logits_BTX: Array, place_BU: Array) -> Array:
    """logits[b, t, place[b, u]] as [T, B, U], as the recursions take them; NaN beyond the last column."""
    return lax.gather(
        logits_BTX,
        place_BU[..., None],
        lax.GatherDimensionNumbers(
            offset_dims=(0,),
            collapsed_slice_dims=(2,),
            start_index_map=(2,),
            operand_batching_dims=(0,),
            start_indices_batching_dims=(0,),
        ),
        slice_sizes=(1, logits_BTX.shape[1], 1),
        mode=lax.GatherScatterMode.FILL_OR_DROP,
        fill_value=jnp.nan,
    )


def log_probs(logits_BTV: Array, problem: Problem) -> tuple[Array, Array]:
    """Log-probability of each slot's token [T, B, U], and log Σ exp [B, T]."""
    lse_BT = _problem.finite(_lattice.log_normaliser(logits_BTV.astype(accumulator(logits_BTV))))
    return _problem.log_probs(problem, at_slots(logits_BTV, problem.slots), lse_BT), lse_BT


def pose(logits_BTV: Array, rows: Rows, options: Options) -> Problem:
    """The problem that these logits are to solve."""
    frames, vocabulary = logits_BTV.shape[1:]
    dtype, blank_id = accumulator(logits_BTV), options.blank_id
    return _problem.pose(*rows, frames=frames, vocabulary=vocabulary, blank_id=blank_id, dtype=dtype)


def _mean(logits_BTV: Array, options: Options) -> Array | None:
    """The mean of each frame's logits, [B, T], if it is needed."""
    return jnp.mean(logits_BTV.astype(accumulator(logits_BTV)), axis=-1) if options.label_smoothing else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _loss(logits_BTV: Array, rows: Rows, options: Options) -> Array:
    return value(logits_BTV, pose(logits_BTV, rows, options), options)


def _loss_forward(logits_BTV: Array, rows: Rows, options: Options) -> tuple[Array, tuple]:
    logits_BTV = differentiates_once(logits_BTV)
    problem = pose(logits_BTV, rows, options)
    loss_B, posterior = value_and_posterior(logits_BTV, problem, options)
    return loss_B, (logits_BTV, problem, posterior)


def _loss_backward(options: Options, residuals: tuple, cotangent_B: Array) -> tuple[Array, None]:
    logits_BTV, problem, posterior = residuals
    where = {"place_BU": problem.columns, "vocabulary": logits_BTV.shape[2]}
    cotangent_B = differentiates_once(cotangent_B)
    return slope(logits_BTV, problem, posterior, cotangent_B, options, **where), None


_loss.defvjp(_loss_forward, _loss_backward)
# So that a call outside any jit is one program and not a hundred small ones.
_compiled_loss = jax.jit(_loss, static_argnums=2)


def _put(into_TX: Array, column_U: Array, values_TU: Array) -> Array:
    return into_TX.at[:, column_U].set(values_TU, mode="drop", unique_indices=True)


@jax.custom_jvp
def differentiates_once(array: Array) -> Array:
    """The array itself; a second derivative through it raises NotImplementedError."""
    return array


@differentiates_once.defjvp
def _no_second_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    raise NotImplementedError("a loss of natjax.ctc has a first derivative only, in reverse mode")
