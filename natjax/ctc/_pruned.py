"""What a search needs of each frame: its few best tokens, and the blank."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.ctc._check import validate_head, validate_plain_logits, validate_search
from natjax.ctc._label_logits import linear_label_logits
from natjax.ctc._lattice import log_normaliser
from natjax.ctc._top_k import largest, linear_top_k
from natjax.typing import Array


class Pruned(NamedTuple):
    """Frames with the best K tokens left.

    Attributes:
        tokens: i32[B, T, K], the most probable ids but the blank, the best first; none twice in a frame.
        log_probs: f32[B, T, K], their log-probabilities among all V ids.
        blank: f32[B, T], that of the blank, always there.
    """

    tokens: Array
    log_probs: Array
    blank: Array


def linear_pruned(
    hidden: Array, kernel: Array, top_k: int = 20, *, bias: Array | None = None, blank_id: int = 0
) -> Pruned:
    """The best tokens of each frame and the blank, from hidden states, by blocks: [B, T, V] never exists.

    Args:
        hidden: [B, T, D], as `linear_top_k`.
        kernel: [D, V].
        top_k: K, tokens beside the blank, 1..V−1.
        bias: [V], or None.
        blank_id: the id of the blank.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or top_k or blank_id is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> pruned = ctc.linear_pruned(jnp.array([[[1.0, 3.0, 2.0]]]), jnp.eye(3), 1)
        >>> pruned.tokens.tolist(), round(float(pruned.log_probs[0, 0, 0]), 3), round(float(pruned.blank[0, 0]), 3)
        ([[[1]]], -0.408, -2.408)
    """
    validate_head(hidden, kernel, bias)
    validate_search(top_k, kernel.shape[1], blank_id)
    best = linear_top_k(hidden, kernel, top_k + 1, bias=bias)
    labels_B1 = jnp.full((hidden.shape[0], 1), blank_id, jnp.int32)
    blank_BT = linear_label_logits(hidden, kernel, labels_B1, bias=bias)[..., 0]
    return _without_blank(best.ids, best.logits, best.lse, blank_BT, blank_id)


def prune(logits: Array, top_k: int = 20, *, blank_id: int = 0) -> Pruned:
    """As `linear_pruned`, from logits.

    Args:
        logits: [B, T, V], unnormalised.
        top_k: as `linear_pruned`.
        blank_id: the id of the blank.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or top_k or blank_id is out of range.
    """
    validate_plain_logits(logits)
    B, T, V = logits.shape
    validate_search(top_k, V, blank_id)
    logits_RV = jax.lax.stop_gradient(logits).astype(jnp.promote_types(logits.dtype, jnp.float32)).reshape(B * T, V)
    best_RK, ids_RK = largest(logits_RV, top_k + 1)
    lse_R = log_normaliser(logits_RV, None)
    ids, best, lse, blank = (x.reshape(B, T, *x.shape[1:]) for x in (ids_RK, best_RK, lse_R, logits_RV[:, blank_id]))
    return _without_blank(ids, best, lse, blank, blank_id)


def _without_blank(ids_BTX: Array, logits_BTX: Array, lse_BT: Array, blank_BT: Array, blank_id: int) -> Pruned:
    """Takes the blank from among the K + 1 best where it is, else the last of them."""
    K = ids_BTX.shape[2] - 1
    is_blank_BTX = ids_BTX == blank_id
    # From the blank's place on, everything moves up by one.
    beyond_BTK = jnp.cumsum(is_blank_BTX, axis=2, dtype=jnp.int32)[..., :K] > 0
    ids_BTK = jnp.where(beyond_BTK, ids_BTX[..., 1:], ids_BTX[..., :K])
    logits_BTK = jnp.where(beyond_BTK, logits_BTX[..., 1:], logits_BTX[..., :K])
    # The same number wherever it was computed, so that blank and tokens compare as in the whole product.
    seen_BT = jnp.where(is_blank_BTX, logits_BTX, 0.0).sum(axis=2)
    blank_BT = jnp.where(is_blank_BTX.any(axis=2), seen_BT, blank_BT)
    return Pruned(ids_BTK, logits_BTK - lse_BT[..., None], blank_BT - lse_BT)
