"""The beam of a prefix search: W prefixes a row, what a frame makes of them, and what is kept.

A prefix is what a path over the frames so far collapses to. All its paths are counted together, in two log masses: of
those that end in the blank, and of those that end in its last token. A frame turns W prefixes into C candidates: W
"stays", the same prefixes one frame later, and W·K "extensions" by one of the frame's K tokens.

Stays differ among each other, and so do extensions; but prefix p with token v may be another prefix q of the beam.
Then its mass goes to q, and the extension is left out. A prefix carries two hashes of 32 bits of its tokens, and those
of its parent, which is all tokens but the last. So q is p with v if q's parent has p's hashes and length, and q's last
token is v: W·W and W·K comparisons, and none of W·K extensions with W stays. To go wrong, different prefixes of one
length must agree in 64 bits: W²·T chances of 2⁻⁶⁴, 2·10⁻¹⁵ for a sentence of 90 frames at W = 20.

    case                                 what comes of it
    the prefix without tokens            has no last token: its paths end in the blank
    fewer prefixes than slots            the other slots have no mass (−inf), and rank last
    a prefix that loses all mass         keeps its slot if there is room, and takes in what an extension brings again
    an extension without mass            never kept: there are W stays, and among equals they go first
    the language model says −inf         the extension has the rank −inf, as if without mass; but not at weight 0
    a prefix that ends in end_id         is never extended; whatever frames say then is its stay, with probability 1
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc._lattice import log_add
from natjax.typing import Array, TokenScorer

# In place of a token where there is none.
NONE = -1
# Of the two hashes of the prefix without tokens; any two numbers that differ.
_SEEDS = (0x9E3779B9, 0x7F4A7C15)


class Ranking(NamedTuple):
    """How hypotheses are compared: log p_CTC + lm_weight · log p_LM + length_bonus · (length or its logarithm).

    Attributes:
        lm_weight: float[].
        length_bonus: float[].
        logarithmic: bool, not an array.
        end_id: the token that ends a prefix and does not count in its length, not an array; None: there is none.
    """

    lm_weight: Array
    length_bonus: Array
    logarithmic: bool
    end_id: int | None = None

    def ends(self, token: Array) -> Array:
        """Whether tokens are the end; bool of their shape."""
        return jnp.zeros_like(token, bool) if self.end_id is None else token == self.end_id

    def scores(self, ctc: Array, lm: Array, lengths: Array) -> Array:
        """Scores of hypotheses, all arrays of one shape; −inf where there is no mass."""
        size = jnp.maximum(lengths, 1).astype(ctc.dtype)
        size = jnp.log(size) if self.logarithmic else lengths.astype(ctc.dtype)
        weighted = jnp.where(self.lm_weight == 0, 0.0, self.lm_weight * lm)  # 0 · −inf would be NaN
        return jnp.where(ctc == -jnp.inf, -jnp.inf, ctc + weighted + self.length_bonus * size)


class Prefixes(NamedTuple):
    """A beam.

    Attributes:
        log_blank: float[B, W], log mass of the paths that end in the blank.
        log_token: float[B, W], log mass of those that end in the last token.
        last: i32[B, W], the last token, or NONE.
        lengths: i32[B, W], in tokens, the end among them.
        hashes: two u32[B, W], of the tokens.
        parents: two u32[B, W], of the tokens but the last.
        lm_scores: float[B, W], log-probability of the tokens.
        lm_states: i32[B, W].
    """

    log_blank: Array
    log_token: Array
    last: Array
    lengths: Array
    hashes: tuple[Array, Array]
    parents: tuple[Array, Array]
    lm_scores: Array
    lm_states: Array

    def mass(self) -> Array:
        """Log mass of all paths, [B, W]."""
        return log_add(self.log_blank, self.log_token)


class Frame(NamedTuple):
    """One frame of `Pruned`, tokens [B, K], log_probs [B, K] and blank [B]; real bool[B]: whether it is to be read."""

    tokens: Array
    log_probs: Array
    blank: Array
    real: Array


class Steps(NamedTuple):
    """Where the prefixes come from: i32[B, W] each, the slot one frame before, and the token that is new, or NONE."""

    slots: Array
    tokens: Array


class _Candidates(NamedTuple):
    """What can be kept, [B, C] each: the W stays, then extensions of slot 0, slot 1, …; named as in `Prefixes`."""

    scores: Array
    log_token: Array
    lm_scores: Array
    lm_states: Array


def beginning(like_B: Array, beam_size: int, lm: TokenScorer | None, dtype: jnp.dtype) -> Prefixes:
    """The beam before the first frame: the prefix without tokens, and slots without mass; `like_B` is i32[B]."""
    zero_BW = jnp.zeros_like(jnp.broadcast_to(like_B[:, None], (like_B.shape[0], beam_size)))
    nothing_BW = jnp.full_like(zero_BW, -jnp.inf, dtype)
    hashes = tuple(jnp.full_like(zero_BW, seed, jnp.uint32) for seed in _SEEDS)
    return Prefixes(
        log_blank=nothing_BW.at[:, 0].set(0.0),
        log_token=nothing_BW,
        last=jnp.full_like(zero_BW, NONE),
        lengths=zero_BW,
        hashes=hashes,
        parents=hashes,
        lm_scores=zero_BW.astype(dtype),
        lm_states=zero_BW if lm is None else zero_BW + lm.start().astype(jnp.int32),
    )


def advance(beam: Prefixes, frame: Frame, lm: TokenScorer | None, ranking: Ranking) -> tuple[Prefixes, Steps]:
    """Takes in one frame; where it is not real, nothing changes."""
    W, K = beam.last.shape[1], frame.tokens.shape[1]
    candidates, stay_blank_BW = _candidates(beam, frame, lm, ranking)
    _, chosen_BW = lax.top_k(candidates.scores, W)
    new_BW = chosen_BW >= W
    extension_BW = jnp.maximum(chosen_BW - W, 0)
    slot_BW = jnp.where(new_BW, extension_BW // K, chosen_BW)
    token_BW = jnp.where(new_BW, at(frame.tokens, extension_BW % K), NONE)

    hashes = tuple(at(hash_BW, slot_BW) for hash_BW in beam.hashes)
    kept = Prefixes(
        log_blank=jnp.where(new_BW, -jnp.inf, at(stay_blank_BW, slot_BW)),
        log_token=at(candidates.log_token, chosen_BW),
        last=jnp.where(new_BW, token_BW, at(beam.last, slot_BW)),
        lengths=at(beam.lengths, slot_BW) + new_BW.astype(jnp.int32),
        hashes=tuple(jnp.where(new_BW, _hashed(hash_BW, token_BW), hash_BW) for hash_BW in hashes),
        parents=tuple(
            jnp.where(new_BW, hash_BW, at(parent_BW, slot_BW))
            for hash_BW, parent_BW in zip(hashes, beam.parents, strict=True)
        ),
        lm_scores=at(candidates.lm_scores, chosen_BW),
        lm_states=at(candidates.lm_states, chosen_BW),
    )
    own_BW = lax.broadcasted_iota(jnp.int32, slot_BW.shape, 1)
    unread = beam, Steps(own_BW, jnp.full_like(token_BW, NONE))
    read = kept, Steps(slot_BW, token_BW)
    return jax.tree.map(lambda new, old: jnp.where(frame.real[:, None], new, old), read, unread)


def _candidates(beam: Prefixes, frame: Frame, lm: TokenScorer | None, ranking: Ranking) -> tuple[_Candidates, Array]:
    """The candidates, and the stays' log mass of paths that end in the blank, [B, W]; extensions have none."""
    (B, W), K = beam.last.shape, frame.tokens.shape[1]
    mass_BW = beam.mass()
    tokens_BWK = jnp.broadcast_to(frame.tokens[:, None, :], (B, W, K))
    log_prob_BWK = jnp.broadcast_to(frame.log_probs[:, None, :], (B, W, K))
    repeats_BWK = beam.last[:, :, None] == tokens_BWK
    # A token after the same one is a new one only if a blank lies between.
    extended_BWK = log_prob_BWK + jnp.where(repeats_BWK, beam.log_blank[:, :, None], mass_BW[:, :, None])

    ended_BW = ranking.ends(beam.last)
    extended_BWK = jnp.where(ended_BW[:, :, None], -jnp.inf, extended_BWK)

    # A stay takes in what its parent, if that is in the beam, would have become with the stay's last token.
    parent_BW, token_BW = _first(_is_child(beam)), _first(repeats_BWK)
    doubled_BW = at(beam.last, parent_BW, NONE) == beam.last
    handed_BW = jnp.where(doubled_BW, at(beam.log_blank, parent_BW, -jnp.inf), at(mass_BW, parent_BW, -jnp.inf))
    stay_blank_BW = jnp.where(ended_BW, -jnp.inf, mass_BW + frame.blank[:, None])
    token_log_prob_BW = at(frame.log_probs, token_BW, -jnp.inf)
    stay_token_BW = jnp.where(
        ended_BW,
        log_add(beam.log_token, handed_BW + token_log_prob_BW),
        log_add(beam.log_token, handed_BW) + token_log_prob_BW,
    )

    lm_scores_BWK = jnp.broadcast_to(beam.lm_scores[:, :, None], (B, W, K))
    lm_states_BWK = jnp.broadcast_to(beam.lm_states[:, :, None], (B, W, K))
    if lm is not None:
        lm_log_prob_BWK, lm_states_BWK = lm.score(lm_states_BWK, tokens_BWK)
        lm_scores_BWK = lm_scores_BWK + lm_log_prob_BWK.astype(lm_scores_BWK.dtype)
    size_BW = beam.lengths - ended_BW.astype(jnp.int32)
    stay_score_BW = ranking.scores(log_add(stay_blank_BW, stay_token_BW), beam.lm_scores, size_BW)
    lengths_BWK = beam.lengths[:, :, None] + 1 - ranking.ends(tokens_BWK).astype(jnp.int32)
    score_BWK = ranking.scores(extended_BWK, lm_scores_BWK, lengths_BWK)
    score_BWK = jax.vmap(_left_out)(score_BWK, parent_BW, token_BW)

    def joined(stay_BW: Array, extension_BWK: Array) -> Array:
        return jnp.concatenate([stay_BW, extension_BWK.reshape(B, W * K)], axis=1)

    candidates = _Candidates(
        joined(stay_score_BW, score_BWK),
        joined(stay_token_BW, extended_BWK),
        joined(beam.lm_scores, lm_scores_BWK),
        joined(beam.lm_states, lm_states_BWK),
    )
    return candidates, stay_blank_BW


def _is_child(beam: Prefixes) -> Array:
    """bool[B, W, W], for slots q and p: whether q is p with one token more. See the top of the module."""
    pairs = zip((*beam.parents, beam.lengths - 1), (*beam.hashes, beam.lengths), strict=True)
    first, second, third = (of_child_BW[:, :, None] == of_parent_BW[:, None, :] for of_child_BW, of_parent_BW in pairs)
    return first & second & third


def _first(true_BWX: Array) -> Array:
    """i32[B, W], the first place in the last dimension that is true; X where there is none.

    Slots that were never filled equal the prefix without tokens, which comes before them.
    """
    place_BWX = lax.broadcasted_iota(jnp.int32, true_BWX.shape, 2)
    return jnp.min(jnp.where(true_BWX, place_BWX, true_BWX.shape[2]), axis=2)


def _left_out(score_WK: Array, slot_W: Array, token_W: Array) -> Array:
    """−inf for extensions that are stays already; a slot W, or a token K, stands for none."""
    return score_WK.at[slot_W, token_W].set(-jnp.inf, mode="drop")


def _hashed(hash_BW: Array, token_BW: Array) -> Array:
    """The hash of a prefix with one token more; one to one in either argument (the finaliser of MurmurHash3)."""
    mixed = hash_BW ^ token_BW.astype(jnp.uint32)
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    return mixed ^ (mixed >> 16)


def at(values_BX: Array, place_BW: Array, missing: float | None = None) -> Array:
    """[B, W], of each row the values at some places; `missing` at the place X, if that is given and may occur."""
    if missing is None:
        return jnp.take_along_axis(values_BX, place_BW, axis=1, mode="promise_in_bounds")
    return jnp.take_along_axis(values_BX, place_BW, axis=1, mode="fill", fill_value=missing)
