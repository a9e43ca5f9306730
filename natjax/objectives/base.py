"""What every loss offers, and what it is given."""

from typing import ClassVar, NamedTuple, Protocol

import jax.numpy as jnp

from natjax.typing import EOS, Array, Head


class Targets(NamedTuple):
    """The part of a batch that a loss looks at.

    Attributes:
        tokens: i32[B, N], padded on the right with 0.
        lengths: i32[B].
    """

    tokens: Array
    lengths: Array


class Alignment(NamedTuple):
    """Which frame is to emit what, and what the model would emit.

    Attributes:
        tokens: i32[B, T], what each real frame should emit; 0 for the blank or ε, and beyond the row.
        predicted: i32[B, T], the most probable token of each frame; 0 beyond the row.
        losses: f32[B], the losses of this head without label smoothing, nats a sentence.
    """

    tokens: Array
    predicted: Array
    losses: Array


class Objective(Protocol):
    """One loss. Frame counts are static for a bucket, lengths are data.

    Attributes:
        needs_length: whether the frame count has to be predicted when translating.
    """

    needs_length: bool

    def max_frames(self, S: int, N: int) -> int:
        """Static T of a bucket with S source pieces and N labels."""

    def frames(self, source_lengths: Array, lengths: Array) -> Array:
        """i32[B], at least 1: frames of each row. `lengths` are golden in training and predicted when translating."""

    def loss(self, head: Head, frame_lengths: Array, targets: Targets, weights: Array) -> tuple[Array, Array]:
        """Σ weights · loss, f32[], and the losses, f32[B], nats a sentence, which carry no gradient.

        The loss of a row that cannot be expressed is 0, with zero gradient. The weights f32[B] are known beforehand, so
        that a loss can turn logits into gradients piece by piece.
        """

    def infeasible(self, frame_lengths: Array, targets: Targets) -> Array:
        """bool[B]: rows that cannot be expressed with so many frames."""

    def align(self, head: Head, frame_lengths: Array, targets: Targets) -> Alignment:
        """How the targets lie on the frames, as this head sees it. Carries no gradient, and holds no [B, T, V]."""

    def collapse(self, frames: Array, frame_lengths: Array) -> tuple[Array, Array]:
        """Frame tokens i32[B, T] -> (tokens i32[B, T] packed to the left and padded with 0, lengths i32[B])."""


class FrameALabel:
    """The part that losses with a length share: in training as many frames as labels."""

    needs_length: ClassVar[bool] = True

    def max_frames(self, S: int, N: int) -> int:
        """One frame a label."""
        return N

    def frames(self, source_lengths: Array, lengths: Array) -> Array:
        """As many as there are labels; 1 for rows of padding, so that attention always has a key."""
        return jnp.maximum(lengths, 1)


def until_eos(tokens: Array, lengths: Array) -> tuple[Array, Array]:
    """Rows cut before their first eos, for models whose targets end in one (`objective.target_eos`).

    Args:
        tokens: i32[B, T], padded with 0.
        lengths: i32[B].

    Returns:
        What it is given, shortened: what lies behind is 0.
    """
    place_T = jnp.arange(tokens.shape[1], dtype=lengths.dtype)[None, :]
    end_B = jnp.min(jnp.where(tokens == EOS, place_T, lengths[:, None]), axis=1, initial=tokens.shape[1])
    return jnp.where(place_T < end_B[:, None], tokens, 0), end_B
