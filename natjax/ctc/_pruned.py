"""What a search asks of the frames: some of the most probable tokens of each, and the blank beside them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc import _head
from natjax.ctc._check import validate_blank, validate_frame_logits, validate_head
from natjax.ctc._label_logits import linear_label_logits
from natjax.ctc._lattice import log_normaliser
from natjax.ctc._problem import finite
from natjax.ctc._top_k import TopK, largest, linear_top_k
from natjax.typing import Array


class Pruned(NamedTuple):
    """The frames of a batch, without the tokens that a search does not look at.

    Attributes:
        tokens: i32[B, T, K], the most probable tokens of each frame but the blank, the best first.
        log_probs: f32[B, T, K] (f64), their log-probabilities, normalised over all V.
        blank: f32[B, T] (f64), that of the blank, however improbable it is.
    """

    tokens: Array
    log_probs: Array
    blank: Array


def prune(logits: Array, *, top_k: int = 20, blank_id: int = 0) -> Pruned:
    """The top_k most probable tokens of each frame, and the blank. Carries no gradient.

    Args:
        logits: [B, T, V], unnormalised, float32 or bfloat16 (float64).
        top_k: how many tokens, 1..V-1.
        blank_id: the id of the blank.

    Returns:
        Tokens and log-probabilities.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or top_k or blank_id is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> pruned = ctc.prune(jnp.log(jnp.array([[[0.5, 0.1, 0.2, 0.2]]])), top_k=2)
        >>> pruned.tokens.tolist(), jnp.exp(pruned.blank).tolist()
        ([[[2, 3]]], [[0.5]])
    """
    validate_frame_logits(logits, blank_id)
    _check_top_k(top_k, logits.shape[2])
    return _compiled_prune(lax.stop_gradient(logits), top_k, blank_id)


def linear_prune(
    hidden: Array,
    kernel: Array,
    *,
    top_k: int = 20,
    bias: Array | None = None,
    blank_id: int = 0,
    transposed: bool = False,
) -> Pruned:
    """`prune` of the logits hidden · kernel + bias, of which some rows exist at a time. Carries no gradient.

    Args:
        hidden: as `linear_top_k`.
        kernel: as `linear_top_k`.
        top_k: how many tokens, 1..V-1.
        bias: [V], or None.
        blank_id: the id of the blank.
        transposed: as `linear_top_k`.

    Returns:
        Tokens and log-probabilities.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or top_k or blank_id is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> hidden = jnp.log(jnp.array([[[0.5, 0.1, 0.2, 0.2]]]))
        >>> ctc.linear_prune(hidden, jnp.eye(4), top_k=2).tokens.tolist()
        [[[2, 3]]]
    """
    table_DV = kernel.T if transposed else kernel
    validate_head(hidden, table_DV, bias)
    validate_blank(blank_id, table_DV.shape[1], "kernel has")
    _check_top_k(top_k, table_DV.shape[1])
    hidden, kernel, table_DV = lax.stop_gradient((hidden, kernel, table_DV))
    best = linear_top_k(hidden, kernel, top_k + 1, bias=bias, transposed=transposed)
    blank_B1 = jnp.full((hidden.shape[0], 1), blank_id, jnp.int32)
    blank_BT = linear_label_logits(hidden, table_DV, blank_B1, bias=bias)[..., 0]
    return _without_blank(best, blank_BT, blank_id)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _compiled_prune(logits_BTV: Array, top_k: int, blank_id: int) -> Pruned:
    B, T, V = logits_BTV.shape
    logits_RV = logits_BTV.reshape(B * T, V).astype(_head.accumulator(logits_BTV))
    best_RK, ids_RK = largest(logits_RV, top_k + 1)
    ids_BTK, best_BTK = (array.reshape(B, T, top_k + 1) for array in (ids_RK, best_RK))
    best = TopK(ids_BTK, best_BTK, log_normaliser(logits_RV).reshape(B, T))
    return _without_blank(best, logits_RV[:, blank_id].reshape(B, T), blank_id)


def _without_blank(best: TopK, blank_BT: Array, blank_id: int) -> Pruned:
    """Leaves the blank out of the K + 1 best tokens, or the last of them where it is not among them."""
    behind_BTK = jnp.cumsum(best.ids == blank_id, axis=-1)[..., :-1] > 0
    tokens_BTK, logits_BTK = (
        jnp.where(behind_BTK, array[..., 1:], array[..., :-1]) for array in (best.ids, best.logits)
    )
    lse_BT = finite(best.lse)
    return Pruned(tokens_BTK, logits_BTK - lse_BT[..., None], blank_BT.astype(lse_BT.dtype) - lse_BT)


def _check_top_k(top_k: int, vocabulary: int) -> None:
    if not 1 <= top_k < vocabulary:
        raise ValueError(
            f"top_k must lie in 1..{vocabulary - 1} (V = {vocabulary}, one of which is the blank), got {top_k}"
        )
