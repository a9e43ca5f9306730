"""A batch of CTC problems: what it asks of the logits, and the losses and occupancies that come out.

Of all logits a problem needs log Σ exp of each frame and the scores of U = 1 + N slots, the blank and the labels. So
nothing here knows whether logits exist as one array, as chunks, or as blocks of the vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc import _lattice
from natjax.ctc._collapse import is_feasible
from natjax.typing import Array, PyTree

INFEASIBLE = ("zero", "inf")


class Options(NamedTuple):
    """What is fixed when a loss is compiled; see `ctc_loss`."""

    blank_id: int
    label_smoothing: float
    infeasible: str
    unroll: int


class Rows(NamedTuple):
    """logit_lengths i32[B], labels i32[B, N], label_lengths i32[B]."""

    logit_lengths: Array
    labels: Array
    label_lengths: Array


class Problem(NamedTuple):
    """A batch, without its logits.

    Attributes:
        slots: i32[B, U], the blank, then the labels; the blank in place of padding.
        order: i32[B, N], the places of the labels, equal ones side by side, padding last.
        columns: i32[B, U], the blank, then the labels in that order; a label that repeats the one before it, and
            padding, has a column of its own beyond V.
        real: bool[B, T], frames within their row's length.
        feasible: bool[B], rows with enough frames.
        empty: bool[B], rows without frames.
        labels_per_frame: float[B], N_b / T_b.
        lattice: of `_lattice.natural`.
        ends: bool[B, L], the states in which paths end.
    """

    slots: Array
    order: Array
    columns: Array
    real: Array
    feasible: Array
    empty: Array
    labels_per_frame: Array
    lattice: _lattice.Lattice
    ends: Array


def checked_options(blank_id: int, label_smoothing: float, infeasible: str, unroll: int) -> Options:
    """The options, or a ValueError that says which is out of range."""
    if infeasible not in INFEASIBLE:
        raise ValueError(f"infeasible must be one of {', '.join(INFEASIBLE)}, got {infeasible!r}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    if unroll < 1:
        raise ValueError(f"unroll must be at least 1, got {unroll}")
    return Options(int(blank_id), float(label_smoothing), infeasible, int(unroll))


def rows(logit_lengths: Array, labels: Array, label_lengths: Array) -> Rows:
    """The arguments as int32."""
    return Rows(*(array.astype(jnp.int32) for array in (logit_lengths, labels, label_lengths)))


def alike(tree: PyTree) -> PyTree:
    """The arrays of a tree, each varying over all the devices over which any of them does.

    Outside `jax.shard_map` that is the tree itself. Inside, an array that is the same on all devices cannot be mixed
    with others in a carry; and the transpose of this is the sum over devices that its gradient needs.
    """
    axes = frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))

    def varied(leaf: Array) -> Array:
        missing = tuple(axes - _varying(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(varied, tree)


def _varying(array: Array) -> frozenset[str]:
    """The manual mesh axes over which an array varies."""
    kind = jax.typeof(array)
    manual = getattr(kind, "manual_axis_type", None)  # what releases before 0.10.2 call vma
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying


def pose(
    logit_lengths_B: Array,
    labels_BN: Array,
    label_lengths_B: Array,
    *,
    frames: int,
    vocabulary: int,
    blank_id: int,
    dtype: jnp.dtype,
) -> Problem:
    """The problem of a batch with `frames` frames.

    Args:
        logit_lengths_B: i32[B].
        labels_BN: i32[B, N], padded on the right.
        label_lengths_B: i32[B].
        frames: T.
        vocabulary: V.
        blank_id: the id of the blank.
        dtype: in which sums are carried.
    """
    size = labels_BN.shape[1]
    inside_BN = jnp.arange(size, dtype=jnp.int32)[None, :] < label_lengths_B[:, None]
    blank_B1 = jnp.full_like(label_lengths_B, blank_id)[:, None]
    # A padded label stands for the blank: what the padding holds is never read. A negative id would count from the
    # end; made too large instead, it reads NaN as every other id outside the vocabulary does.
    known_BN = jnp.where(labels_BN < 0, vocabulary, labels_BN)
    slots_BU = jnp.concatenate([blank_B1, jnp.where(inside_BN, known_BN, blank_B1)], axis=1)
    # Padding is larger than every id that is looked at, and so comes last.
    sortable_BN = jnp.where(inside_BN, known_BN, jnp.iinfo(jnp.int32).max)
    order_BN = jnp.argsort(sortable_BN, axis=1, stable=True).astype(jnp.int32)
    label_BN = jnp.take_along_axis(sortable_BN, order_BN, axis=1)
    own_BN = vocabulary + jnp.arange(size, dtype=jnp.int32)[None, :]
    column_BN = jnp.where(_repeats(label_BN) | (label_BN >= vocabulary), own_BN, label_BN)
    lattice, ends_BL = _lattice.natural(slots_BU[:, 1:], label_lengths_B, logit_lengths_B, dtype)
    return Problem(
        slots=slots_BU,
        order=order_BN,
        columns=jnp.concatenate([blank_B1, column_BN], axis=1),
        real=jnp.arange(frames, dtype=jnp.int32)[None, :] < logit_lengths_B[:, None],
        feasible=is_feasible(labels_BN, label_lengths_B, logit_lengths_B),
        empty=logit_lengths_B == 0,
        labels_per_frame=label_lengths_B.astype(dtype) / jnp.maximum(logit_lengths_B, 1).astype(dtype),
        lattice=lattice,
        ends=ends_BL,
    )


def log_probs(problem: Problem, scores_TBU: Array, lse_BT: Array) -> Array:
    """Log-probability [T, B, U] of each slot's token, 0 on padded frames.

    Args:
        problem: the batch.
        scores_TBU: the logits of the slots; NaN for an id outside the vocabulary.
        lse_BT: log Σ exp of all logits, −inf replaced by 0 (`finite`).
    """
    log_prob_TBU = scores_TBU.astype(lse_BT.dtype) - lse_BT.T[..., None]
    return jnp.where(problem.real.T[..., None], log_prob_TBU, 0.0)


def finite(lse_BT: Array) -> Array:
    """0 in place of −inf: a frame of −inf only then keeps its log-probabilities at −inf, where −inf − −inf is NaN."""
    return jnp.where(lse_BT == -jnp.inf, 0.0, lse_BT)


def value(problem: Problem, log_prob_TBU: Array, unroll: int) -> tuple[Array, Array]:
    """−log p(labels) [B], and whether a row has a path, bool[B]."""
    return _finish(problem, _lattice.forward(problem.lattice, log_prob_TBU, unroll))


def value_and_occupancy(problem: Problem, log_prob_TBU: Array, unroll: int) -> tuple[Array, Array, Array]:
    """What `value` returns, and how probable the tokens of `columns` are at each frame given the labels [B, T, U]."""
    last_BL, log_joint_TBL = _lattice.forward_backward(problem.lattice, problem.ends, log_prob_TBU, unroll)
    mass_BTL, total_BT1 = _lattice.masses(log_joint_TBL)
    return *_finish(problem, last_BL), _by_token(mass_BTL, problem) / total_BT1


def losses(
    problem: Problem, nll_B: Array, possible_B: Array, lse_BT: Array, mean_BT: Array | None, options: Options
) -> Array:
    """The loss [B] with label smoothing and the price of infeasible rows.

    Args:
        problem: the batch.
        nll_B: from `value`.
        possible_B: from `value`.
        lse_BT: log Σ exp of all logits.
        mean_BT: mean of all logits; only looked at with label smoothing.
        options: as checked.
    """
    loss_B, epsilon = nll_B, options.label_smoothing
    if epsilon:
        excess_BT = jnp.where(problem.real, lse_BT - mean_BT, 0.0)
        # An empty target weighs nothing, and 0 times an infinite penalty is to be nothing too.
        weight_B = problem.labels_per_frame
        penalty_B = jnp.where(weight_B > 0, weight_B * _lattice.tree_sum(excess_BT), 0.0)
        loss_B = (1 - epsilon) * loss_B + epsilon * penalty_B
    return jnp.where(possible_B, loss_B, 0.0 if options.infeasible == "zero" else jnp.inf)


def _finish(problem: Problem, last_BL: Array) -> tuple[Array, Array]:
    # No recursion runs over no frames: there the empty path is certain, and feasible only for the empty target.
    log_prob_B = jnp.where(problem.empty, 0.0, _lattice.total(last_BL, problem.ends))
    return jnp.maximum(-log_prob_B, 0.0), problem.feasible & (log_prob_B != -jnp.inf)


def _repeats(label_BN: Array) -> Array:
    """Whether a label is the one before it, bool[B, N]."""
    return jnp.pad(label_BN[:, 1:] == label_BN[:, :-1], ((0, 0), (1, 0)))[:, : label_BN.shape[1]]


def _by_token(mass_BTL: Array, problem: Problem) -> Array:
    """Mass [B, T, U] of each token of `columns`, over all the states that emit it.

    Merged before the scatter, each column is written once: the same bits on every run, on a GPU too. Equal labels lie
    side by side, and each takes in the sum of those at most 1, 2, 4, … places behind, so that the first has them all:
    N log N, in an order of additions that depends on nothing but how many are equal.
    """
    blank_BT1 = _lattice.tree_sum(mass_BTL[..., 0::2])[..., None]
    size = problem.order.shape[1]
    label_BN = jnp.take_along_axis(problem.slots[:, 1:], problem.order, axis=1)
    label_BTN = jnp.take_along_axis(mass_BTL[..., 1::2], problem.order[:, None, :], axis=2)
    step = 1
    while step < size:
        same_BN = label_BN[:, step:] == label_BN[:, :-step]
        behind_BTN = jnp.where(same_BN[:, None, :], label_BTN[..., step:], 0.0)
        label_BTN = label_BTN + jnp.pad(behind_BTN, ((0, 0), (0, 0), (0, step)))
        step *= 2
    return jnp.concatenate([blank_BT1, label_BTN], axis=-1)
