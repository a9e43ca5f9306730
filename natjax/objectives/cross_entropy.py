"""Cross-entropy position by position: the autoregressive loss, and the vanilla non-autoregressive one, which
multi-modality breaks.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from natjax.ctc import linear_label_logits, linear_top_k
from natjax.objectives.base import Alignment, FrameALabel, Targets, until_eos
from natjax.objectives.linear_cross_entropy import linear_cross_entropy
from natjax.typing import Array, Head


@dataclass(frozen=True)
class CrossEntropy(FrameALabel):
    """Frame t predicts target token t (Gu et al. 2018).

    Attributes:
        label_smoothing: ε towards the uniform distribution, real positions only.
        target_eos: targets end in eos, and translations end before it.
    """

    label_smoothing: float = 0.0
    target_eos: bool = False

    def loss(self, head: Head, frame_lengths: Array, targets: Targets, weights: Array) -> tuple[Array, Array]:
        """Σ_t (1-ε)·(-log p_t(y_t)) + ε·(mean over V of -log p_t), over real positions."""
        return linear_cross_entropy(head, targets.tokens, targets.lengths, weights, self.label_smoothing)

    def infeasible(self, frame_lengths: Array, targets: Targets) -> Array:
        """Rows with more labels than frames: none in training, where there is a frame for each label."""
        return targets.lengths > frame_lengths

    def align(self, head: Head, frame_lengths: Array, targets: Targets) -> Alignment:
        """Frame t and target token t."""
        head = lax.stop_gradient(head)
        B, T, D = head.hidden.shape
        best = linear_top_k(head.hidden, head.kernel, 1, bias=head.bias)
        # Each frame has one label of its own: as if it were a row.
        hidden_R1D, label_R1 = head.hidden.reshape(B * T, 1, D), targets.tokens.reshape(B * T, 1)
        score_BT = linear_label_logits(hidden_R1D, head.kernel, label_R1, bias=head.bias).reshape(B, T)
        frame_T = jnp.arange(T)[None, :]
        real_BT, labelled_BT = frame_T < frame_lengths[:, None], frame_T < targets.lengths[:, None]
        return Alignment(
            tokens=jnp.where(labelled_BT, targets.tokens, 0),
            predicted=jnp.where(real_BT, best.ids[..., 0], 0),
            losses=jnp.where(labelled_BT, best.lse - score_BT, 0.0).sum(axis=1),
        )

    def collapse(self, frames: Array, frame_lengths: Array) -> tuple[Array, Array]:
        """Cuts each row at its length."""
        real_BT = jnp.arange(frames.shape[1])[None, :] < frame_lengths[:, None]
        collapsed = jnp.where(real_BT, frames, 0), frame_lengths
        return until_eos(*collapsed) if self.target_eos else collapsed


@dataclass(frozen=True)
class NextToken(CrossEntropy):
    """Position n predicts target token n, eos among them, from those before it: the autoregressive loss."""

    needs_length: ClassVar[bool] = False
