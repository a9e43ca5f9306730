"""The CTC lattice of a batch, its forward and backward recursions, and how long each label occupies each frame.

A target of N labels has L = 2N+1 states: blank, label, blank, label, …, blank. A path starts in one of the first two
states, ends in one of the last two, and at each frame stays, steps to the next state, or skips one (only a blank, and
only between two different labels). Graves et al. (2006), section 4.1.

The backward recursion is the forward recursion on the mirrored lattice: time and states reversed. So both are run
by the same step, stacked on an axis of size 2 in one scan over frames. The axis is a new one, not a batch of 2B rows:
a batch sharded over devices stays where it is.

Numerics. Impossible is a true −inf; no large number stands in for it.

    case                                    log_add, log_sum_exp
    some terms −inf                         they contribute 0
    all terms −inf                          −inf (the peak is replaced by 0, so −inf − −inf is never formed)
    some term +inf                          NaN (inf − inf): a +inf logit has no softmax, and must not pass unseen
    some term NaN                           NaN

`log_normaliser` keeps this table: what its fast path cannot tell apart takes the other path.

A sum over states is a fixed tree over aligned pairs, because a state beyond the target adds an exact zero: padding
the labels of a row changes no bit of its result, whatever order a back end gives to its own reductions.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.typing import Array


class Lattice(NamedTuple):
    """One direction of travel through the lattices of a batch; the emissions travel beside it.

    Attributes:
        can_skip: bool[B, L], whether state l can be entered from l-2.
        start: float[B, L], 0 where a path may start, −inf elsewhere.
        first: i32[B], the frame in which paths start.
        last: i32[B], the frame after which the masses are kept as they are.
    """

    can_skip: Array
    start: Array
    first: Array
    last: Array


def log_add(*terms: Array) -> Array:
    """log Σ exp of arrays of one shape; see the table above."""
    peak = _finite_peak(functools.reduce(jnp.maximum, terms))
    return peak + jnp.log(sum(jnp.exp(term - peak) for term in terms))


def log_sum_exp(values: Array) -> Array:
    """log Σ exp over the last dimension; see the table above."""
    peak = _finite_peak(jnp.max(values, axis=-1, keepdims=True))
    return jnp.squeeze(peak, -1) + jnp.log(jnp.sum(jnp.exp(values - peak), axis=-1))


def log_normaliser(logits: Array, bias: Array | None = None) -> Array:
    """`log_sum_exp` of logits [..., V] (+ bias [V]), which on one CPU reads the logits once where it can.

    Subtracting the maximum keeps exp from leaving the range of floats, and costs a pass over all logits. Where the
    plain sum has stayed well within the range, subtracting would change nothing but the rounding: only other rows pay
    for it. The choice is made row by row, so that no row's bits depend on its company. Accelerators make one pass of
    both in any case, and several devices would have to agree whether any row needs the second.
    """

    def biased(logits: Array) -> Array:
        return logits if bias is None else logits + bias.reshape((1,) * (logits.ndim - 1) + bias.shape)

    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return log_sum_exp(biased(logits))
    total = jnp.sum(jnp.exp(biased(logits)), axis=-1)
    # Above the lower bound, what single terms lose below 1e-38 does not matter, whatever their number. NaN is not fine.
    # Under vmap the cond becomes a select, so that both paths are paid; so does what stands on padded frames choose.
    fine = (total > 1e-20) & (total < 1e35)
    # The sum with the bias is made inside: handed to the cond it would have to be stored.
    careful = jax.lax.cond(jnp.all(fine), lambda _: jnp.zeros_like(total), lambda x: log_sum_exp(biased(x)), logits)
    return jnp.where(fine, jnp.log(total), careful)


def tree_sum(values: Array) -> Array:
    """Sum over the last dimension, to which appended zeros make no difference, not even in rounding."""
    if values.shape[-1] == 0:
        return jnp.zeros(values.shape[:-1], values.dtype)
    while (size := values.shape[-1]) > 1:
        if size % 2:
            values = _pad_last(values, 0, 1, 0.0)
        values = values[..., 0::2] + values[..., 1::2]
    return values[..., 0]


def shift_right(values_BL: Array, places: int, fill: float | bool) -> Array:
    """Moves every state's value to the state `places` later."""
    return _pad_last(values_BL, places, 0, fill)[..., : values_BL.shape[-1]]


def natural(
    labels_BN: Array, label_lengths_B: Array, logit_lengths_B: Array, dtype: jnp.dtype
) -> tuple[Lattice, Array]:
    """The lattice travelled from the first frame to the last, and the states in which paths end.

    Args:
        labels_BN: i32[B, N], padded on the right.
        label_lengths_B: i32[B].
        logit_lengths_B: i32[B].
        dtype: of the log masses.

    Returns:
        The lattice and ends_BL, bool[B, L].
    """
    size = labels_BN.shape[1]
    state_L = jnp.arange(2 * size + 1, dtype=jnp.int32)[None, :]
    differs_BN = _pad_last(labels_BN[:, 1:] != labels_BN[:, :-1], 1, 0, False)[:, :size]
    never_BM = _pad_last(jnp.zeros_like(differs_BN), 0, 1, False)
    can_skip_BL = _interleave(never_BM, differs_BN)
    behind_end_BL = state_L - 2 * label_lengths_B[:, None]
    lattice = Lattice(
        can_skip=can_skip_BL,
        start=_zero_where((state_L < 2) & (behind_end_BL <= 0), dtype),
        first=jnp.zeros_like(logit_lengths_B),
        last=logit_lengths_B - 1,
    )
    return lattice, (behind_end_BL == 0) | (behind_end_BL == -1)


def mirrored(lattice: Lattice, ends_BL: Array, frames: int) -> Lattice:
    """The lattice of `natural` travelled from the last frame to the first and from the last state to the first."""
    return Lattice(
        # Entering l from l+2 backwards is the same arc as entering l+2 from l forwards.
        can_skip=shift_right(jnp.flip(lattice.can_skip, 1), 2, False),
        start=_zero_where(jnp.flip(ends_BL, 1), lattice.start.dtype),
        first=frames - 1 - lattice.last,
        last=jnp.full_like(lattice.last, frames - 1),
    )


def spread(log_prob_BU: Array) -> Array:
    """What each state emits, [..., L], from the blank and the labels, [..., 1 + N]."""
    blank_BM = jnp.broadcast_to(log_prob_BU[..., :1], log_prob_BU.shape)
    return _interleave(blank_BM, log_prob_BU[..., 1:])


def advance(lattice: Lattice, frame: Array, log_alpha_BL: Array, log_prob_BL: Array) -> tuple[Array, Array, Array]:
    """One step of the recursion.

    Args:
        lattice: any leading dimensions in place of B, the same ones everywhere.
        frame: i32[], the frame to take in.
        log_alpha_BL: log mass of all paths that end in state l at the frame before.
        log_prob_BL: the lattice's emissions at this frame.

    Returns:
        log_alpha_BL to carry on, log mass of paths into state l, and the same with the emission of this frame.
    """
    stay_BL, step_BL = log_alpha_BL, shift_right(log_alpha_BL, 1, -jnp.inf)
    skip_BL = jnp.where(lattice.can_skip, shift_right(log_alpha_BL, 2, -jnp.inf), -jnp.inf)
    starts_B1, over_B1 = (frame == lattice.first)[..., None], (frame > lattice.last)[..., None]
    into_BL = jnp.where(starts_B1, lattice.start, log_add(stay_BL, step_BL, skip_BL))
    with_emission_BL = into_BL + log_prob_BL
    return jnp.where(over_B1, log_alpha_BL, with_emission_BL), into_BL, with_emission_BL


def forward(lattice: Lattice, log_prob_TBU: Array, unroll: int) -> Array:
    """Log mass [B, L] of all paths by their state at the last real frame.

    Args:
        lattice: from `natural`.
        log_prob_TBU: log-probability of the blank and the labels at each frame; not NaN at padded frames.
        unroll: frames a step of the scan.
    """

    def body(log_alpha_BL: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        return advance(lattice, inputs[0], log_alpha_BL, inputs[1])[0], None

    log_prob_TBL = spread(log_prob_TBU)
    inputs = _frame_indices(lattice, log_prob_TBL), log_prob_TBL
    return jax.lax.scan(body, _nothing(lattice), inputs, unroll=unroll)[0]


def forward_backward(lattice: Lattice, ends_BL: Array, log_prob_TBU: Array, unroll: int) -> tuple[Array, Array]:
    """Both recursions in one scan.

    Args:
        lattice: from `natural`.
        ends_BL: from `natural`.
        log_prob_TBU: as `forward`.
        unroll: as `forward`.

    Returns:
        What `forward` returns, and log_joint_TBL: log mass of all complete paths that are in state l at frame t;
        without meaning at padded frames.
    """
    log_prob_TBL = spread(log_prob_TBU)
    halves = lattice, mirrored(lattice, ends_BL, log_prob_TBL.shape[0])
    both = jax.tree.map(lambda *half: jnp.stack(half), *halves)
    log_prob_T2BL = jnp.stack([log_prob_TBL, jnp.flip(log_prob_TBL, (0, 2))], axis=1)

    def body(log_alpha_2BL: Array, inputs: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        log_alpha_2BL, into_2BL, with_emission_2BL = advance(both, inputs[0], log_alpha_2BL, inputs[1])
        # A frame's emission is to be counted once. Taking it from the forward half, rather than dividing it out
        # of a product, leaves nothing to go wrong where it is −inf.
        return log_alpha_2BL, (with_emission_2BL[0], into_2BL[1])

    inputs = _frame_indices(lattice, log_prob_TBL), log_prob_T2BL
    last_2BL, (log_alpha_TBL, mirrored_TBL) = jax.lax.scan(body, _nothing(both), inputs, unroll=unroll)
    return last_2BL[0], log_alpha_TBL + jnp.flip(mirrored_TBL, (0, 2))


def total(last_BL: Array, ends_BL: Array) -> Array:
    """Log mass [B] of all complete paths, given what `forward` returns."""
    return log_sum_exp(jnp.where(ends_BL, last_BL, -jnp.inf))


def masses(log_joint_TBL: Array) -> tuple[Array, Array]:
    """How probable each state is at each frame given the labels, before division by the frame's total.

    The division frame by frame makes the rounding errors cancel which the recursions gather on the way: they are
    common to a frame's states. It comes last, after all sums over states: a compiler may fuse a product, but not an
    exponential, into the sum that takes it in, and then rounds one shape otherwise than another.

    Returns:
        mass [B, T, L], all zero where there is no path, and total [B, T, 1], never zero.
    """
    log_joint_BTL = jnp.swapaxes(log_joint_TBL, 0, 1)
    mass_BTL = jnp.exp(log_joint_BTL - _finite_peak(jnp.max(log_joint_BTL, axis=-1, keepdims=True)))
    total_BT1 = tree_sum(mass_BTL)[..., None]
    return mass_BTL, jnp.where(total_BT1 == 0, 1.0, total_BT1)


def _frame_indices(lattice: Lattice, log_prob_TBL: Array) -> Array:
    return jnp.arange(log_prob_TBL.shape[0], dtype=lattice.last.dtype)


def _nothing(lattice: Lattice) -> Array:
    return jnp.full_like(lattice.start, -jnp.inf)


def _zero_where(mask_BL: Array, dtype: jnp.dtype) -> Array:
    return jnp.where(mask_BL, jnp.zeros((), dtype), -jnp.inf)


def _finite_peak(peak: Array) -> Array:
    return jnp.where(peak == -jnp.inf, 0.0, peak)


def _interleave(blank: Array, label: Array) -> Array:
    """blank [..., N + 1] and label [..., N] as [..., L]."""
    pairs = jnp.stack([blank[..., :-1], label], axis=-1)
    return jnp.concatenate([pairs.reshape(*label.shape[:-1], 2 * label.shape[-1]), blank[..., -1:]], axis=-1)


def _pad_last(values: Array, before: int, after: int, fill: float | bool) -> Array:
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(before, after)], constant_values=fill)
