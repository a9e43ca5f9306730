"""The best path of hidden states and an output kernel, with all that a first pass of glancing asks for.

Alignment and loss look at U = 1 + N tokens a frame only. Their logits are products with U gathered columns of the
kernel, D·U a frame; the greedy token and log Σ exp come from `linear_top_k`, which goes over the vocabulary once.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc import _head, _problem
from natjax.ctc._alignment import best_path
from natjax.ctc._check import validate_head_and_labels, validate_labels
from natjax.ctc._label_logits import linear_label_logits
from natjax.ctc._problem import Options, Rows
from natjax.ctc._top_k import linear_top_k
from natjax.typing import Array, Head


class LinearAlignment(NamedTuple):
    """One path a row, beside what the model says by itself.

    Attributes:
        tokens: i32[B, T], as `Alignment.tokens`.
        scores: f32[B] (f64[B]), as `Alignment.scores`.
        predicted: i32[B, T], the most probable token of each frame; the blank on padded frames.
        losses: f32[B] (f64[B]), −log p(labels); 0 for rows without a path.
    """

    tokens: Array
    scores: Array
    predicted: Array
    losses: Array


def linear_viterbi_alignment(
    hidden: Array,
    kernel: Array,
    logit_lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    bias: Array | None = None,
    blank_id: int = 0,
    unroll: int = 1,
) -> LinearAlignment:
    """`viterbi_alignment` of the logits hidden · kernel + bias, which never exist as a whole. Carries no gradient.

    Args:
        hidden: as `linear_top_k`.
        kernel: as `linear_top_k`.
        logit_lengths: i32[B], real frames.
        labels: i32[B, N], padded on the right.
        label_lengths: i32[B].
        bias: [V], or None.
        blank_id: the id of the blank.
        unroll: as `ctc_loss`.

    Returns:
        Tokens and scores of the best path, the greedy tokens, and the losses.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or blank_id or unroll is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> hidden = jnp.log(jnp.array([[[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]]]))
        >>> best = ctc.linear_viterbi_alignment(hidden, jnp.eye(2), jnp.array([3]), jnp.array([[1, 1]]), jnp.array([2]))
        >>> best.tokens.tolist(), best.predicted.tolist(), round(float(jnp.exp(-best.losses[0])), 3)
        ([[1, 0, 1]], [[1, 0, 0]], 0.288)
    """
    validate_labels(labels, label_lengths, logit_lengths)
    validate_head_and_labels(head := Head(hidden, kernel, bias), labels, blank_id)
    options = _problem.checked_options(blank_id, 0.0, "zero", unroll)
    rows = _problem.rows(logit_lengths, labels, label_lengths)
    return _compiled(*_problem.alike((lax.stop_gradient(head), rows)), options)


@functools.partial(jax.jit, static_argnums=2)
def _compiled(head: Head, rows: Rows, options: Options) -> LinearAlignment:
    (_, T, _), V = head.hidden.shape, head.kernel.shape[1]
    dtype = _head.accumulator(head.hidden)
    greedy = linear_top_k(head.hidden, head.kernel, 1, bias=head.bias)
    problem = _problem.pose(*rows, frames=T, vocabulary=V, blank_id=options.blank_id, dtype=dtype)
    scores_TBU = jnp.moveaxis(linear_label_logits(head.hidden, head.kernel, problem.slots, bias=head.bias), 1, 0)
    log_prob_TBU = _problem.log_probs(problem, scores_TBU, _problem.finite(greedy.lse))
    path = best_path(problem, rows.label_lengths, log_prob_TBU, options)
    nll_B, possible_B = _problem.value(problem, log_prob_TBU, options.unroll)
    predicted_BT = jnp.where(problem.real, greedy.ids[..., 0], options.blank_id)
    return LinearAlignment(path.tokens, path.scores, predicted_BT, jnp.where(possible_B, nll_B, 0.0))
