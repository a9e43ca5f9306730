"""Aligned cross-entropy: the cost of the best monotone alignment of labels and frames (Ghazvininejad et al. 2020)."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from natjax.ctc import linear_label_logits, linear_top_k
from natjax.objectives.axe_path import Path, best_path
from natjax.objectives.base import Alignment, FrameALabel, Targets, until_eos
from natjax.objectives.chunks import weighted_loss
from natjax.typing import BLANK, Array, Head


@dataclass(frozen=True)
class AXE(FrameALabel):
    """As many frames as labels in training, of which some may emit ε, and of the labels some may be skipped.

    What is right but one place off costs an ε and a skipped label, where cross-entropy takes the whole rest of the
    sentence for wrong.

    Attributes:
        skip_target_penalty: δ, how much dearer a label is that no frame emits; see `axe_path`.
        label_smoothing: ε of `loss`.
        target_eos: targets end in eos, and translations end before it.
    """

    skip_target_penalty: float
    label_smoothing: float = 0.0
    target_eos: bool = False

    def loss(self, head: Head, frame_lengths: Array, targets: Targets, weights: Array) -> tuple[Array, Array]:
        """(1-ε)·(cost of the best path) + ε·Σ_t (mean over V of -log p_t), the sum over real frames.

        So smoothing is uniform and per frame, whether the frame emits a label or not. The gradient is that of the
        best path, which is held fixed.
        """
        function = functools.partial(_chunk, penalty=self.skip_target_penalty, smoothing=self.label_smoothing)
        return weighted_loss(function, head, (targets.tokens, targets.lengths, frame_lengths), weights)

    def infeasible(self, frame_lengths: Array, targets: Targets) -> Array:
        """None: labels can be skipped."""
        return jnp.zeros(frame_lengths.shape, bool)

    def align(self, head: Head, frame_lengths: Array, targets: Targets) -> Alignment:
        """The best path; frames that it skips emit ε."""
        head = lax.stop_gradient(head)
        best = linear_top_k(head.hidden, head.kernel, 1, bias=head.bias)
        scores_BTU = linear_label_logits(head.hidden, head.kernel, _columns(targets.tokens), bias=head.bias)
        path = _path(best.lse[..., None] - scores_BTU, targets.lengths, frame_lengths, self.skip_target_penalty)
        frame_T = jnp.arange(head.hidden.shape[1], dtype=jnp.int32)
        emits_BTN = path.aligned[:, None, :] & (path.frame[:, None, :] == frame_T[None, :, None])
        tokens_BT = jnp.where(emits_BTN, targets.tokens[:, None, :], BLANK).sum(axis=2)
        real_BT = frame_T[None, :] < frame_lengths[:, None]
        return Alignment(tokens_BT, jnp.where(real_BT, best.ids[..., 0], 0), path.cost)

    def collapse(self, frames: Array, frame_lengths: Array) -> tuple[Array, Array]:
        """Drops ε."""
        real_BT = jnp.arange(frames.shape[1])[None, :] < frame_lengths[:, None]
        kept_BT = real_BT & (frames != BLANK)
        order_BT = jnp.argsort(~kept_BT, axis=1, stable=True)
        tokens_BT = jnp.take_along_axis(jnp.where(kept_BT, frames, 0), order_BT, axis=1)
        collapsed = tokens_BT, kept_BT.sum(axis=1, dtype=jnp.int32)
        return until_eos(*collapsed) if self.target_eos else collapsed


def _columns(tokens_BN: Array) -> Array:
    """What frames may emit, i32[B, N+1]: ε and the labels."""
    return jnp.pad(tokens_BN, ((0, 0), (1, 0)), constant_values=BLANK)


def _path(cost_BTU: Array, label_lengths_B: Array, frame_lengths_B: Array, penalty: float) -> Path:
    return best_path(cost_BTU[..., 1:], cost_BTU[..., 0], label_lengths_B, frame_lengths_B, penalty)


def _chunk(
    logits_RV: Array, rows: tuple[Array, Array, Array], weights_B: Array | None, *, penalty: float, smoothing: float
) -> tuple[Array, Array | None]:
    """See `chunks.ChunkLoss`.

    With k_tv the weight of token v at frame t on the best path, and k_t the sum over v:

        slope = w · ((1-ε)·(k_t · softmax - k_tv) + ε·(softmax - 1/V))
    """
    tokens_BN, label_lengths_B, frame_lengths_B = rows
    (B, N), (R, V) = tokens_BN.shape, logits_RV.shape
    T = R // B
    norm_R = jax.nn.logsumexp(logits_RV, axis=-1)
    scores_BTU = jnp.take_along_axis(logits_RV.reshape(B, T, V), _columns(tokens_BN)[:, None, :], axis=2)
    path = _path(norm_R.reshape(B, T, 1) - scores_BTU, label_lengths_B, frame_lengths_B, penalty)
    real_BT = jnp.arange(T, dtype=jnp.int32)[None, :] < frame_lengths_B[:, None]
    share, rest = np.float32(1 - smoothing), np.float32(smoothing)
    excess_BT = jnp.where(real_BT, (norm_R - logits_RV.mean(axis=-1)).reshape(B, T), 0.0)
    loss_B = share * path.cost + rest * excess_BT.sum(axis=1)
    if weights_B is None:
        return loss_B, None
    # Labels and ε have one entry each: where a label is met, it weighs 1 or the penalty.
    inside_BN = jnp.arange(N, dtype=jnp.int32)[None, :] < label_lengths_B[:, None]
    label_BN = jnp.where(path.aligned, 1.0, jnp.where(inside_BN, np.float32(penalty), 0.0))
    empty_BT = path.skipped.astype(jnp.float32)
    at_BTN = path.frame[:, None, :] == jnp.arange(T, dtype=jnp.int32)[None, :, None]
    frame_BT = jnp.where(at_BTN, label_BN[:, None, :], 0.0).sum(axis=2) + empty_BT
    rest_BT = jnp.where(real_BT, rest, 0.0)
    softmax_R = (weights_B[:, None] * (share * frame_BT + rest_BT)).reshape(R)
    uniform_R = (weights_B[:, None] * rest_BT / V).reshape(R)
    empty_R = (weights_B[:, None] * share * empty_BT).reshape(R)
    is_empty_RV = jnp.arange(V)[None, :] == BLANK
    slope_RV = softmax_R[:, None] * jnp.exp(logits_RV - norm_R[:, None]) - uniform_R[:, None]
    slope_RV = slope_RV - jnp.where(is_empty_RV, empty_R[:, None], 0.0)
    row_BN = jnp.arange(B, dtype=jnp.int32)[:, None] * T + path.frame
    wanted_BN = weights_B[:, None] * share * _merged(label_BN, row_BN, tokens_BN)
    return loss_B, slope_RV.at[row_BN, tokens_BN].add(-wanted_BN)


def _merged(weight_BN: Array, row_BN: Array, tokens_BN: Array) -> Array:
    """The weights of equal labels at one frame, all at the first of them.

    A scatter then adds something other than 0 only once to each place: the same bits on every run, on a GPU too.
    """
    N = tokens_BN.shape[1]
    same_BNN = (row_BN[:, :, None] == row_BN[:, None, :]) & (tokens_BN[:, :, None] == tokens_BN[:, None, :])
    same_BNN = same_BNN & (weight_BN > 0)[:, :, None] & (weight_BN > 0)[:, None, :]
    first_BN = ~(same_BNN & jnp.tril(jnp.ones((N, N), bool), -1)[None]).any(axis=2)
    return jnp.where(first_BN, jnp.where(same_BNN, weight_BN[:, None, :], 0.0).sum(axis=2), 0.0)
