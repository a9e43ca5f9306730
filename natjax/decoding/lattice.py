"""CTC prefix beam search as the last part of a compiled pass: from the model's output to its best translations."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp

from natjax import ctc
from natjax.decoding.passes import Decoded, Hypotheses
from natjax.errors import ConfigError
from natjax.typing import BOS, EOS, Array, Head, TokenScorer


@dataclass(frozen=True)
class Search:
    """What one program of the search is compiled for; see `ctc.beam_search`."""

    beam_size: int
    top_k: int
    length_bonus_form: Literal["linear", "log"]
    score_eos: bool
    target_eos: bool = False
    """Whether frames end the sentence with eos, as those of a model do whose targets end in one."""


class Weights(NamedTuple):
    """What the same program takes as arguments, so that other values need no other program; see `weights`.

    Attributes:
        lm: a language model of the target's pieces, or None.
        lm_weight: f32[], α; 0 where there is no language model.
        length_bonus: f32[], β.
    """

    lm: TokenScorer | None
    lm_weight: Array
    length_bonus: Array


def weights(lm: TokenScorer | None, lm_weight: float, length_bonus: float) -> Weights:
    """The weights of a search. Raises ConfigError for one of a language model that is not there."""
    if lm is None and lm_weight != 0:
        raise ConfigError(
            f"decoding.lm_weight: is {lm_weight:g}, but no language model was given; give one, or set it to 0"
        )
    return Weights(lm, jnp.float32(lm_weight), jnp.float32(length_bonus))


def searched(head: Head, frame_lengths_B: Array, search: Search, weights: Weights) -> Decoded:
    """The best hypotheses of each row, from the model's output."""
    pruned = ctc.linear_prune(head.hidden, head.kernel, top_k=search.top_k, bias=head.bias)
    found = best(pruned, frame_lengths_B, search, weights)
    tokens_BT, lengths_B = found.tokens[:, 0], found.lengths[:, 0]
    lm_scores = None if weights.lm is None else found.lm_scores
    n_best = Hypotheses(found.tokens, found.lengths, found.scores, found.ctc_scores, lm_scores)
    return Decoded(tokens_BT, lengths_B, tokens_BT, lengths_B, found.ctc_scores[:, 0], n_best)


def best(pruned: ctc.Pruned, frame_lengths_B: Array, search: Search, weights: Weights) -> ctc.BeamResult:
    """The search itself, over what is left of each frame.

    Targets never hold bos, nor eos but at their ends. Frames that ask for them all the same, as those of a hardly
    trained model do, would have it charged and scored as if it were text.
    """
    never_BTK = pruned.tokens == BOS
    if not search.target_eos:
        never_BTK |= pruned.tokens == EOS
    return ctc.beam_search(
        pruned._replace(log_probs=jnp.where(never_BTK, -jnp.inf, pruned.log_probs)),
        frame_lengths_B,
        beam_size=search.beam_size,
        top_k=search.top_k,
        lm=weights.lm,
        lm_weight=0.0 if weights.lm is None else weights.lm_weight,
        length_bonus=weights.length_bonus,
        length_bonus_form=search.length_bonus_form,
        score_eos=search.score_eos,
        end_id=EOS if search.target_eos else None,
    )
