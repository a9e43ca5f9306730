"""The dimension key and the array aliases used all over natjax.

A suffix on an array name lists its dimensions, outermost first (`log_alpha_BL` is f32[B, L]):

    B  batch (sentences)            D  model width
    S  source length in pieces      F  feed-forward width
    T  frames (upsampled length)    H  attention heads
    N  labels (target length)       K  width of one head
    L  lattice states, 2N+1         V  vocabulary
    Z  latent width                 W  beam width

Token ids, fixed everywhere (see `PAD` to `UNK`): 0 is padding and also the CTC blank, AXE's ε and the MASK of
glancing, so it is never a token of a sentence.
"""

from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
PyTree = Any

PAD = BLANK = 0
BOS = 1
EOS = 2
UNK = 3


class Head(NamedTuple):
    """The output projection and its input, kept apart so that nobody needs the logits [B, T, V].

    Attributes:
        hidden: [B, T, D], the decoder's last states, float32 or bfloat16.
        kernel: [D, V].
        bias: [V], or None.
    """

    hidden: Array
    kernel: Array
    bias: Array | None


class TokenScorer(Protocol):
    """A language model that a compiled search can query: a pytree of arrays. States are i32 of any shape."""

    def start(self) -> Array:
        """i32[], the state after <s>."""

    def score(self, state: Array, token: Array) -> tuple[Array, Array]:
        """Same shapes in and out: (natural log-probability f32, next state i32); token EOS (2) is the end event."""
