"""CTC loss of hidden states and an output kernel, which never holds the logits [B, T, V].

Two programs, one table:

    implementation      logits at one time      recursions      the gradient of the kernel
    SENTENCES           some rows, all V        one a chunk     summed over chunks
    BLOCKS              all rows, some of V     one             written block by block

SENTENCES turns a chunk's logits into their gradient before it goes on, and is best where T dependent steps a chunk
cost little, on CPU, and anywhere if one chunk holds the whole batch. BLOCKS goes over the
vocabulary twice, for log Σ exp and label scores, then for the gradient; the recursion in between runs once, whatever
the batch. Its blocks take every n-th column, so that a kernel whose columns are sharded over devices is cut along its
shards, without communication, as long as V / n divides by the number of shards; n divides V where it can. A batch
that is sharded wants BLOCKS.

Numerics are those of `_loss.py`, with logits = hidden · kernel + bias: the product's operands have the dtype of the
hidden states, or float32 where bfloat16 is slower (`operand_dtype`); sums are carried in float32 (float64 for
float64). A −inf may come from the bias.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc import _head, _loss, _problem
from natjax.ctc._check import validate_head_and_labels, validate_labels, validate_weights
from natjax.ctc._enum import AUTO, Implementation, resolve
from natjax.ctc._lattice import log_normaliser
from natjax.ctc._problem import Options, Problem, Rows
from natjax.typing import Array, Head

# Bytes of logits that exist at one time: enough rows for fast products, enough columns to fill an accelerator.
BYTES = {Implementation.SENTENCES: 72 << 20, Implementation.BLOCKS: 256 << 20}
_KNOWN = (Implementation.SENTENCES, Implementation.BLOCKS)


class _Program(NamedTuple):
    """What is fixed when a loss of hidden states is compiled."""

    implementation: Implementation
    options: Options


def linear_ctc_loss(
    hidden: Array,
    kernel: Array,
    logit_lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    bias: Array | None = None,
    blank_id: int = 0,
    label_smoothing: float = 0.0,
    infeasible: str = "zero",
    unroll: int = 1,
    implementation: Implementation = AUTO,
) -> Array:
    """`ctc_loss` of the logits hidden · kernel + bias, which never exist as a whole.

    Right under any cotangent; the backward pass computes the logits again. Where the weights of the rows are known
    beforehand, `linear_ctc_objective` saves that.

    Args:
        hidden: [B, T, D], float32 or bfloat16 (float64 where JAX has it enabled); the operands of all products have
            this dtype, or float32 on CPUs that take longer over bfloat16.
        kernel: [D, V], of any floating dtype.
        logit_lengths: i32[B], real frames.
        labels: i32[B, N], padded on the right.
        label_lengths: i32[B].
        bias: [V], or None.
        blank_id: as `ctc_loss`.
        label_smoothing: as `ctc_loss`.
        infeasible: as `ctc_loss`.
        unroll: as `ctc_loss`.
        implementation: SENTENCES or BLOCKS. AUTO takes SENTENCES on CPU, unless the logits of a single sentence are
            too many; elsewhere BLOCKS, unless the logits of the whole batch are few.

    Returns:
        f32[B] (f64[B]). Gradients have the dtype of what they belong to.

    Raises:
        TypeError, ValueError, NotImplementedError: as `ctc_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> hidden, kernel = jnp.zeros((1, 2, 8)), jnp.zeros((8, 3))
        >>> loss = ctc.linear_ctc_loss(hidden, kernel, jnp.array([2]), jnp.array([[1]]), jnp.array([1]))
        >>> round(float(jnp.exp(-loss[0]) * 9), 4)
        3.0
    """
    head, rows = _arguments(hidden, kernel, bias, logit_lengths, labels, label_lengths, blank_id)
    options = _problem.checked_options(blank_id, label_smoothing, infeasible, unroll)
    head, rows = _problem.alike((head, rows))
    return _compiled_loss(head, rows, _Program(resolve(implementation, _KNOWN, _auto(head)), options))


def linear_ctc_objective(
    hidden: Array,
    kernel: Array,
    logit_lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    weights: Array,
    bias: Array | None = None,
    blank_id: int = 0,
    label_smoothing: float = 0.0,
    infeasible: str = "zero",
    unroll: int = 1,
    implementation: Implementation = AUTO,
) -> tuple[Array, Array]:
    """Σ weights · loss of `linear_ctc_loss`, with the gradients accumulated on the way.

    When differentiated, each chunk of logits is computed once, turned into its gradients and forgotten.

    Args:
        hidden: as `linear_ctc_loss`.
        kernel: as `linear_ctc_loss`.
        logit_lengths: as `linear_ctc_loss`.
        labels: as `linear_ctc_loss`.
        label_lengths: as `linear_ctc_loss`.
        weights: float[B]. A row of weight 0 adds exactly 0, to the total and to every gradient.
        bias: as `linear_ctc_loss`.
        blank_id: as `ctc_loss`.
        label_smoothing: as `ctc_loss`.
        infeasible: as `ctc_loss`.
        unroll: as `ctc_loss`.
        implementation: as `linear_ctc_loss`.

    Returns:
        The total, f32[] (f64[]), and the losses, f32[B] (f64[B]). The losses carry no gradient.

    Raises:
        TypeError, ValueError, NotImplementedError: as `ctc_loss`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> def objective(hidden):
        ...     rows = jnp.array([2]), jnp.array([[1]]), jnp.array([1])
        ...     return ctc.linear_ctc_objective(hidden, jnp.eye(3), *rows, weights=jnp.ones(1))
        >>> (total, losses), gradient = jax.value_and_grad(objective, has_aux=True)(jnp.zeros((1, 2, 3)))
        >>> jnp.round(3 * gradient[0]).astype(int).tolist()
        [[0, -1, 1], [0, -1, 1]]
    """
    head, rows = _arguments(hidden, kernel, bias, logit_lengths, labels, label_lengths, blank_id)
    validate_weights(weights, labels)
    options = _problem.checked_options(blank_id, label_smoothing, infeasible, unroll)
    head, weights, rows = _problem.alike((head, weights, rows))
    return _compiled_objective(head, weights, rows, _Program(resolve(implementation, _KNOWN, _auto(head)), options))


def _arguments(
    hidden: Array,
    kernel: Array,
    bias: Array | None,
    logit_lengths: Array,
    labels: Array,
    label_lengths: Array,
    blank: int,
) -> tuple[Head, Rows]:
    validate_labels(labels, label_lengths, logit_lengths)
    validate_head_and_labels(head := Head(hidden, kernel, bias), labels, blank)
    return head, _problem.rows(logit_lengths, labels, label_lengths)


def _auto(head: Head) -> Implementation:
    """By platform and size: chunks of sentences on CPU, blocks of the vocabulary elsewhere, if the budgets allow it."""
    (B, T, _), V = head.hidden.shape, head.kernel.shape[1]
    cpu = jax.default_backend() == "cpu"
    # What SENTENCES would hold at the least: one sentence on CPU; elsewhere, where chunks do not pay, the batch.
    held = (1 if cpu else B) * T * V * _head.accumulator(head.hidden).itemsize
    return Implementation.SENTENCES if held <= BYTES[Implementation.BLOCKS] else Implementation.BLOCKS


def _chunks(head: Head) -> int:
    """Into how many chunks of sentences SENTENCES cuts a batch: where each costs T dependent steps, not at all."""
    (B, T, _), V = head.hidden.shape, head.kernel.shape[1]
    budget = BYTES[Implementation.SENTENCES if jax.default_backend() == "cpu" else Implementation.BLOCKS]
    return _head.pieces(B, T * V * _head.accumulator(head.hidden).itemsize, budget)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear_loss(head: Head, rows: Rows, program: _Program) -> Array:
    return _values(head, rows, program)


def _linear_loss_forward(head: Head, rows: Rows, program: _Program) -> tuple[Array, tuple]:
    head = jax.tree.map(_loss.differentiates_once, head)
    return _values(head, rows, program), (head, rows)


def _linear_loss_backward(program: _Program, residuals: tuple, cotangent_B: Array) -> tuple[Head, None]:
    head, rows = residuals
    return _values_and_gradients(head, rows, _loss.differentiates_once(cotangent_B), program)[1], None


_linear_loss.defvjp(_linear_loss_forward, _linear_loss_backward)
_compiled_loss = jax.jit(_linear_loss, static_argnums=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _objective(head: Head, weights_B: Array, rows: Rows, program: _Program) -> tuple[Array, Array]:
    loss_B = _values(head, rows, program)
    return _weighted(loss_B, weights_B), loss_B


def _objective_forward(
    head: Head, weights_B: Array, rows: Rows, program: _Program
) -> tuple[tuple[Array, Array], tuple]:
    head, weights_B = jax.tree.map(_loss.differentiates_once, (head, weights_B))
    loss_B, gradients = _values_and_gradients(head, rows, weights_B, program)
    return (_weighted(loss_B, weights_B), loss_B), (gradients, loss_B, weights_B)


def _objective_backward(
    program: _Program, residuals: tuple, cotangents: tuple[Array, Array]
) -> tuple[Head, Array, None]:
    gradients, loss_B, weights_B = residuals
    scale = cotangents[0]

    def scaled(gradient: Array) -> Array:
        # A cotangent of 0 leaves nothing, not even of what is NaN or infinite.
        return jnp.where(scale == 0, 0.0, gradient.astype(scale.dtype) * scale).astype(gradient.dtype)

    return jax.tree.map(scaled, gradients), scaled(loss_B).astype(weights_B.dtype), None


_objective.defvjp(_objective_forward, _objective_backward)
_compiled_objective = jax.jit(_objective, static_argnums=3)


def _weighted(loss_B: Array, weights_B: Array) -> Array:
    # A row of weight 0 counts nothing, not even where its loss is infinite.
    return jnp.sum(jnp.where(weights_B == 0, 0.0, weights_B.astype(loss_B.dtype) * loss_B))


def _values(head: Head, rows: Rows, program: _Program) -> Array:
    if program.implementation is Implementation.BLOCKS:
        return _losses_by_blocks(head, rows, program.options)[0]
    return _by_sentences(head, rows, None, program.options)[0]


def _values_and_gradients(head: Head, rows: Rows, weights_B: Array, program: _Program) -> tuple[Array, Head]:
    if program.implementation is Implementation.BLOCKS:
        return _by_blocks(head, rows, weights_B, program.options)
    return _by_sentences(head, rows, weights_B, program.options)


def _by_sentences(head: Head, rows: Rows, weights_B: Array | None, options: Options) -> tuple[Array, Head | None]:
    """Losses, and the gradients of Σ weights · loss where weights are given."""
    (B, T, D), V = head.hidden.shape, head.kernel.shape[1]
    dtype = _head.accumulator(head.hidden)
    chunks = _chunks(head)
    kernel_DV = head.kernel.astype(_head.operand_dtype(head.hidden.dtype))
    inputs = jax.tree.map(lambda array: _head.runs(array, chunks), (head.hidden, rows, weights_B))

    def body(sums: tuple[Array, Array | None] | None, chunk: tuple) -> tuple:
        hidden_BTD, rows, weights_B = chunk
        b = hidden_BTD.shape[0]
        hidden_RD = hidden_BTD.reshape(b * T, D).astype(kernel_DV.dtype)
        logits_BTV = _head.logits(hidden_RD, kernel_DV, head.bias).reshape(b, T, V)
        problem = _problem.pose(*rows, frames=T, vocabulary=V, blank_id=options.blank_id, dtype=dtype)
        if weights_B is None:
            return None, (_loss.value(logits_BTV, problem, options), None)
        loss_B, posterior = _loss.value_and_posterior(logits_BTV, problem, options)
        slope_BTV = _loss.slope(
            logits_BTV, problem, posterior, weights_B, options, place_BU=problem.columns, vocabulary=V
        )
        slope_RV, live_R1 = slope_BTV.reshape(b * T, V), _loss.live(problem, posterior, weights_B).reshape(b * T, 1)
        to_kernel_DV = _head.to_kernel(slope_RV, jnp.where(live_R1, hidden_RD, 0.0))
        sums = jax.tree.map(jnp.add, sums, (to_kernel_DV, _head.to_bias(slope_RV, head.bias)))
        return sums, (loss_B, _head.to_hidden(slope_RV, kernel_DV).reshape(b, T, D).astype(hidden_BTD.dtype))

    if weights_B is None:
        return _head.whole(lax.scan(body, None, inputs)[1][0], B), None
    zeros = jax.tree.map(lambda array: jnp.zeros_like(array, dtype), (kernel_DV, head.bias))
    (to_kernel_DV, to_bias_V), (loss, to_hidden) = lax.scan(body, zeros, inputs)
    gradients = Head(_head.whole(to_hidden, B), to_kernel_DV, to_bias_V)
    return _head.whole(loss, B), jax.tree.map(lambda g, of: g.astype(of.dtype), gradients, head)


def _by_blocks(head: Head, rows: Rows, weights_B: Array, options: Options) -> tuple[Array, Head]:
    """Losses and the gradients of Σ weights · loss."""
    (B, T, D), V = head.hidden.shape, head.kernel.shape[1]
    loss_B, problem, posterior = _losses_by_blocks(head, rows, options, with_posterior=True)
    blocks, n = _blocks(head)
    hidden_RD = head.hidden.reshape(B * T, D).astype(_head.operand_dtype(head.hidden.dtype))
    live_RD = jnp.where(_loss.live(problem, posterior, weights_B).reshape(B * T, 1), hidden_RD, 0.0)

    def body(sum_RD: Array, block: tuple) -> tuple:
        index, kernel_DX, bias_X = block
        logits_BTX = _head.logits(hidden_RD, kernel_DX, bias_X).reshape(B, T, kernel_DX.shape[1])
        _, place_BU = _place(problem.columns, index, n, V)
        slope_BTX = _loss.slope(logits_BTX, problem, posterior, weights_B, options, place_BU=place_BU, vocabulary=V)
        slope_RX = slope_BTX.reshape(B * T, kernel_DX.shape[1])
        gradients = _head.to_kernel(slope_RX, live_RD), _head.to_bias(slope_RX, bias_X)
        return sum_RD + _head.to_hidden(slope_RX, kernel_DX), gradients

    to_hidden_RD, (to_kernel, to_bias) = lax.scan(body, jnp.zeros_like(hidden_RD, posterior.lse.dtype), blocks)
    to_bias_V = None if head.bias is None else _head.joined(to_bias, V, 0)
    gradients = Head(to_hidden_RD.reshape(B, T, D), _head.joined(to_kernel, V, 1), to_bias_V)
    return loss_B, jax.tree.map(lambda g, of: g.astype(of.dtype), gradients, head)


def _losses_by_blocks(
    head: Head, rows: Rows, options: Options, *, with_posterior: bool = False
) -> tuple[Array, Problem, _loss.Posterior | None]:
    """Losses, the problem, and what its gradient needs: one pass over the vocabulary, then the recursion."""
    (B, T, D), V = head.hidden.shape, head.kernel.shape[1]
    dtype = _head.accumulator(head.hidden)
    problem = _problem.pose(*rows, frames=T, vocabulary=V, blank_id=options.blank_id, dtype=dtype)
    blocks, n = _blocks(head)
    hidden_RD = head.hidden.reshape(B * T, D).astype(_head.operand_dtype(head.hidden.dtype))

    def body(carry: tuple[Array, Array], block: tuple) -> tuple:
        lse_BT, scores_TBU = carry
        index, kernel_DX, bias_X = block
        logits_BTX = _head.logits(hidden_RD, kernel_DX, bias_X).reshape(B, T, kernel_DX.shape[1])
        here_BU, place_BU = _place(problem.slots, index, n, V)
        scores_TBU = jnp.where(here_BU, _loss.at_slots(logits_BTX, place_BU), scores_TBU)
        return (jnp.logaddexp(lse_BT, log_normaliser(logits_BTX)), scores_TBU), None

    # What no block holds is outside the vocabulary, and stays NaN.
    unknown_BU = jnp.full_like(problem.slots, jnp.nan, dtype)
    start = jnp.full_like(problem.real, -jnp.inf, dtype), jnp.broadcast_to(unknown_BU, (T, *unknown_BU.shape))
    (lse_BT, scores_TBU), _ = lax.scan(body, start, blocks)
    lse_BT = _problem.finite(lse_BT)
    log_prob_TBU = _problem.log_probs(problem, scores_TBU, lse_BT)
    mean_BT = _head.mean_logit(head).reshape(B, T) if options.label_smoothing else None
    if not with_posterior:
        nll_B, possible_B = _problem.value(problem, log_prob_TBU, options.unroll)
        return _problem.losses(problem, nll_B, possible_B, lse_BT, mean_BT, options), problem, None
    nll_B, possible_B, occupancy_BTU = _problem.value_and_occupancy(problem, log_prob_TBU, options.unroll)
    loss_B = _problem.losses(problem, nll_B, possible_B, lse_BT, mean_BT, options)
    return loss_B, problem, _loss.posterior(problem, log_prob_TBU, lse_BT, occupancy_BTU, possible_B, options, V)


def _blocks(head: Head) -> tuple[tuple[Array, Array, Array | None], int]:
    """Block numbers i32[n], kernels [n, D, X] and biases [n, X]; columns beyond V can never be emitted. And n."""
    (B, T, _), V = head.hidden.shape, head.kernel.shape[1]
    dtype = _head.accumulator(head.hidden)
    n = _head.even_pieces(V, B * T * dtype.itemsize, BYTES[Implementation.BLOCKS])
    bias_V = head.bias
    if bias_V is None and V % n:
        bias_V = jnp.zeros((V,), dtype)
    kernels = _head.strided(head.kernel.astype(_head.operand_dtype(head.hidden.dtype)), n, 1)
    biases = None if bias_V is None else _head.strided(bias_V.astype(dtype), n, 0, fill=-jnp.inf)
    return (jnp.arange(n, dtype=jnp.int32), kernels, biases), n


def _place(column_BU: Array, block: Array, n: int, vocabulary: int) -> tuple[Array, Array]:
    """Whether columns lie in a block of every n-th column, bool[B, U], and where, i32[B, U].

    Those that do not lie there have places of their own beyond the end, where a scatter drops them.
    """
    width = -(-vocabulary // n)
    here_BU = (column_BU % n == block) & (column_BU < vocabulary)
    beyond_U = width + jnp.arange(column_BU.shape[1], dtype=jnp.int32)[None, :]
    return here_BU, jnp.where(here_BU, column_BU // n, beyond_U)
