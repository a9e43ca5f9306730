"""CTC prefix beam search as the last part of a compiled pass: from the model's output to its best translations."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from natjax import ctc
from natjax.decoding.passes import Decoded, Hypotheses
from natjax.typing import Array, Head, TokenScorer


@dataclass(frozen=True)
class Search:
    """What one program of the search is compiled for; see `ctc.beam_search`."""

    beam_size: int
    top_k: int
    length_bonus_form: Literal["linear", "log"]
    score_eos: bool


class Weights(NamedTuple):
    """What the same program takes as arguments, so that other values need no other program.

    Attributes:
        lm: a language model of the target's pieces, or None.
        lm_weight: f32[], α.
        length_bonus: f32[], β.
    """

    lm: TokenScorer | None
    lm_weight: Array
    length_bonus: Array


def searched(head: Head, frame_lengths_B: Array, search: Search, weights: Weights) -> Decoded:
    """The best hypotheses of each row, from the model's output."""
    pruned = ctc.linear_prune(head.hidden, head.kernel, top_k=search.top_k, bias=head.bias)
    found = best(pruned, frame_lengths_B, search, weights)
    tokens_BT, lengths_B = found.tokens[:, 0], found.lengths[:, 0]
    n_best = Hypotheses(found.tokens, found.lengths, found.scores)
    return Decoded(tokens_BT, lengths_B, tokens_BT, lengths_B, found.ctc_scores[:, 0], n_best)


def best(pruned: ctc.Pruned, frame_lengths_B: Array, search: Search, weights: Weights) -> ctc.BeamResult:
    """The search itself, over what is left of each frame."""
    return ctc.beam_search(
        pruned,
        frame_lengths_B,
        beam_size=search.beam_size,
        top_k=search.top_k,
        lm=weights.lm,
        lm_weight=weights.lm_weight,
        length_bonus=weights.length_bonus,
        length_bonus_form=search.length_bonus_form,
        score_eos=search.score_eos,
    )
