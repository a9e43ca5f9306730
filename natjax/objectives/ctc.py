"""Connectionist temporal classification: targets are aligned to frames by summing over all monotone alignments."""

from dataclasses import dataclass
from typing import ClassVar

from natjax import ctc
from natjax.frames import frame_count
from natjax.objectives.base import Alignment, Targets, until_eos
from natjax.typing import BLANK, Array, Head


@dataclass(frozen=True)
class CTC:
    """Paper, section 3.3.

    Attributes:
        ratio: λ, frames per source piece.
        label_smoothing: ε of `ctc.ctc_loss`.
        target_eos: targets end in eos, and translations end before it.
    """

    ratio: float
    label_smoothing: float = 0.0
    target_eos: bool = False
    needs_length: ClassVar[bool] = False

    def max_frames(self, S: int, N: int) -> int:
        """⌈λS⌉, whatever N is."""
        return frame_count(S, self.ratio)

    def frames(self, source_lengths: Array, lengths: Array) -> Array:
        """⌈λS⌉ for each row; the lengths are not looked at."""
        return frame_count(source_lengths, self.ratio)

    def loss(self, head: Head, frame_lengths: Array, targets: Targets, weights: Array) -> tuple[Array, Array]:
        """-log p(targets), summed over alignments; the logits [B, T, V] never exist as a whole."""
        return ctc.linear_ctc_objective(
            head.hidden,
            head.kernel,
            frame_lengths,
            targets.tokens,
            targets.lengths,
            weights=weights,
            bias=head.bias,
            blank_id=BLANK,
            label_smoothing=self.label_smoothing,
        )

    def align(self, head: Head, frame_lengths: Array, targets: Targets) -> Alignment:
        """The Viterbi path, blanks included (paper, section 3.4)."""
        best = ctc.linear_viterbi_alignment(
            head.hidden, head.kernel, frame_lengths, targets.tokens, targets.lengths, bias=head.bias, blank_id=BLANK
        )
        return Alignment(best.tokens, best.predicted, best.losses)

    def infeasible(self, frame_lengths: Array, targets: Targets) -> Array:
        """Rows with fewer frames than labels and adjacent equal labels need."""
        return ~ctc.is_feasible(targets.tokens, targets.lengths, frame_lengths)

    def collapse(self, frames: Array, frame_lengths: Array) -> tuple[Array, Array]:
        """Merges repeats, drops blanks."""
        collapsed = ctc.collapse(frames, frame_lengths, blank_id=BLANK)
        return until_eos(*collapsed) if self.target_eos else collapsed
