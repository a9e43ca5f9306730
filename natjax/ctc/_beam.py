"""Prefix beam search: the best token sequences of CTC's frames, summed over alignments; with a language model.

Hannun et al. (2014), algorithm 1, in static shapes. The beam holds W prefixes a row, each once, with the mass of its
alignments that end in blank and of those that end in its last token. A frame offers K tokens and the blank:

    stay    the blank, or the last token again                  W candidates
    extend  by one of the K tokens; by the last token itself
            only from alignments that end in blank              W·K candidates

Of the candidates the W best stay. Extensions differ from each other, since prefixes do. So only an extension and a
prefix that is there already can be the same, and that is so exactly if the prefix's last token is the extension's and
its parent is the extended prefix. Prefixes are known by two 32-bit hashes of their tokens: at W = 100, K = 40 and
T = 1,000 some 4·10⁸ pairs are compared for a sentence, and a pair of different prefixes looks alike once in 2⁶⁴.

    among equals   stay before extend, then the better slot, then the token listed first

What is kept of a frame for the way back is each slot's parent and token, 8·B·T·W bytes; tokens are read off at the end.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from natjax.ctc._check import validate_pruned
from natjax.ctc._enum import AUTO, Implementation, resolve
from natjax.ctc._pruned import Pruned, prune
from natjax.typing import EOS, Array, TokenScorer

_NOTHING = -1  # no token: the last token of the empty prefix, and what a stay adds


class BeamResult(NamedTuple):
    """The prefixes that are left after the last frame, the best first.

    Where there are fewer than W, the rest have length 0 and scores of −inf.

    Attributes:
        tokens: i32[B, W, T], padded with 0.
        lengths: i32[B, W], |y|.
        scores: f32[B, W], what they are ranked by: ctc_scores + lm_weight · lm_scores + the bonus for |y|, nats.
        ctc_scores: f32[B, W], log-probability of all alignments that the search has seen. Frames have lost tokens and
            beams prefixes, so this is at most minus `ctc_loss`.
        lm_scores: f32[B, W], the language model's log-probability, with that of eos if asked; 0 without one.
    """

    tokens: Array
    lengths: Array
    scores: Array
    ctc_scores: Array
    lm_scores: Array


class _Beam(NamedTuple):
    """W prefixes a row. `name` and `parent` are u32[B, W, 2], hashes of a prefix and of it without its last token."""

    blank: Array
    token: Array
    last: Array
    length: Array
    name: Array
    parent: Array
    lm_score: Array
    lm_state: Array


class _Settings(NamedTuple):
    """What is traced, so that other values need no other program."""

    lm: TokenScorer | None
    lm_weight: Array
    length_bonus: Array


def beam_search(
    logits_or_pruned: Array | Pruned,
    logit_lengths: Array,
    *,
    beam_size: int = 20,
    top_k: int = 20,
    lm: TokenScorer | None = None,
    lm_weight: float | Array = 0.0,
    length_bonus: float | Array = 0.0,
    length_bonus_form: Literal["linear", "log"] = "linear",
    score_eos: bool = False,
    blank_id: int = 0,
    implementation: Implementation = AUTO,
) -> BeamResult:
    """Prefix beam search. Ranks y by log p(y|x) + lm_weight · log p_LM(y) + length_bonus · |y| (or · log |y|).

    The form "linear" is what the official release does, "log" is equation 6 of Gu and Kong (2021). |y| counts tokens,
    once each, however many frames a token takes, and not eos. The language model is asked once for each new token.

    Args:
        logits_or_pruned: logits [B, T, V], unnormalised, of which the best `top_k` tokens of each frame are searched;
            or what `linear_pruned` or `prune` has left of them.
        logit_lengths: i32[B], frames; those beyond change nothing.
        beam_size: W, prefixes that are kept.
        top_k: K, tokens of a frame that are looked at, beside the blank; of `Pruned` the first so many.
        lm: a language model over the same ids, an argument of the compiled program like any array.
        lm_weight: α. Another value, as of length_bonus, needs no other program.
        length_bonus: β.
        length_bonus_form: "linear": β·|y|; "log": β·log max(|y|, 1).
        score_eos: whether the model's log-probability of `typing.EOS` after the whole prefix counts.
        blank_id: the id of the blank, for logits; `Pruned` knows its own.
        implementation: `AUTO` or `SCAN`.

    Returns:
        W prefixes a row. Carries no gradient. A row with NaN among its frames has NaN scores; other rows do not notice.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, a number is out of range, or score_eos is asked for without a model.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> frames = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> best = ctc.beam_search(frames, jnp.array([2]), beam_size=2, top_k=1)
        >>> [(best.tokens[0, w, : best.lengths[0, w]].tolist(), round(float(jnp.exp(best.scores[0, w])), 2))
        ...  for w in range(2)]
        [([1], 0.64), ([], 0.36)]
    """
    resolve(implementation, (Implementation.SCAN,), Implementation.SCAN)
    if length_bonus_form not in ("linear", "log"):
        raise ValueError(f"length_bonus_form must be 'linear' or 'log', got {length_bonus_form!r}")
    if score_eos and lm is None:
        raise ValueError("score_eos needs a language model; give lm")
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, got {beam_size}")
    settings = _Settings(lm, *(jnp.asarray(x, jnp.float32) for x in (lm_weight, length_bonus)))
    static = dict(beam_size=beam_size, top_k=top_k, log_form=length_bonus_form == "log", score_eos=score_eos)
    if isinstance(logits_or_pruned, Pruned):
        validate_pruned(*logits_or_pruned, logit_lengths, top_k)
        return _searched(logits_or_pruned, logit_lengths, settings, **static)
    return _searched_logits(logits_or_pruned, logit_lengths, settings, blank_id=blank_id, **static)


@functools.partial(jax.jit, static_argnames=("beam_size", "top_k", "log_form", "score_eos", "blank_id"))
def _searched_logits(
    logits: Array, logit_lengths: Array, settings: _Settings, *, top_k: int, blank_id: int, **static: int | bool
) -> BeamResult:
    pruned = prune(logits, top_k, blank_id=blank_id)
    validate_pruned(*pruned, logit_lengths, top_k)
    return _searched(pruned, logit_lengths, settings, top_k=top_k, **static)


@functools.partial(jax.jit, static_argnames=("beam_size", "top_k", "log_form", "score_eos"))
def _searched(
    pruned: Pruned,
    logit_lengths: Array,
    settings: _Settings,
    *,
    beam_size: int,
    top_k: int,
    log_form: bool,
    score_eos: bool,
) -> BeamResult:
    lm, lm_weight, length_bonus = settings
    tokens_TBK, log_prob_TBK = (jnp.moveaxis(x[..., :top_k], 1, 0) for x in (pruned.tokens, pruned.log_probs))
    frames = tokens_TBK, log_prob_TBK.astype(jnp.float32), pruned.blank.T.astype(jnp.float32)
    T, B, _ = tokens_TBK.shape
    lengths_B = logit_lengths.astype(jnp.int32)

    def bonus(length: Array) -> Array:
        counted = length.astype(jnp.float32)
        return length_bonus * (jnp.log(jnp.maximum(counted, 1.0)) if log_form else counted)

    def step(beam: _Beam, frame: tuple[Array, ...]) -> tuple[_Beam, tuple[Array, Array]]:
        t, *offered = frame
        after, moves = _step(beam, *offered, lm, lm_weight, bonus)
        inside_B = t < lengths_B
        return _where(inside_B, after, beam), _where(inside_B, moves, _standing(B, beam_size))

    start = _start(B, beam_size, lm)
    beam, moves = lax.scan(step, start, (jnp.arange(T, dtype=jnp.int32), *frames))
    ctc_score_BW, lm_score_BW = _log_add(beam.blank, beam.token), beam.lm_score
    if score_eos:
        end = jnp.full_like(beam.lm_state, EOS)
        lm_score_BW = lm_score_BW + lm.score(beam.lm_state, end)[0]
    score_BW = ctc_score_BW + bonus(beam.length)
    if lm is not None:
        score_BW = score_BW + lm_weight * lm_score_BW
    score_BW, slot_BW = lax.top_k(score_BW, beam_size)
    alive_BW = score_BW != -jnp.inf
    length_BW, ctc_score_BW, lm_score_BW = (
        jnp.take_along_axis(x, slot_BW, axis=1) for x in (beam.length, ctc_score_BW, lm_score_BW)
    )
    length_BW = jnp.where(alive_BW, length_BW, 0)
    scores = score_BW, *(jnp.where(alive_BW, x, -jnp.inf) for x in (ctc_score_BW, lm_score_BW))
    return BeamResult(_read_off(slot_BW, length_BW, moves), length_BW, *scores)


def _start(B: int, W: int, lm: TokenScorer | None) -> _Beam:
    """The empty prefix, and W − 1 empty slots."""
    empty = _nobody(W)
    name_2 = _mix(np.array([0x452821E6, 0x38D01377], np.uint32))
    empty = empty._replace(blank=empty.blank.at[0].set(0.0), name=empty.name.at[0].set(name_2))
    if lm is not None:
        empty = empty._replace(lm_state=empty.lm_state.at[0].set(lm.start().astype(jnp.int32)))
    return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (B, *x.shape)), empty)


def _nobody(W: int) -> _Beam:
    """Slots without mass, whose names no prefix has."""
    name_W2 = _mix(jnp.arange(W, dtype=jnp.uint32)[:, None] + np.array([[0x243F6A88, 0x85A308D3]], np.uint32))
    return _Beam(
        blank=jnp.full((W,), -jnp.inf),
        token=jnp.full((W,), -jnp.inf),
        last=jnp.full((W,), _NOTHING, jnp.int32),
        length=jnp.zeros((W,), jnp.int32),
        name=name_W2,
        parent=_mix(~name_W2),
        lm_score=jnp.zeros((W,)),
        lm_state=jnp.zeros((W,), jnp.int32),
    )


def _standing(B: int, W: int) -> tuple[Array, Array]:
    """The moves of a frame that does not count."""
    parent_BW = jnp.broadcast_to(jnp.arange(W, dtype=jnp.int32)[None], (B, W))
    return parent_BW, jnp.full((B, W), _NOTHING, jnp.int32)


def _step(
    beam: _Beam,
    token_BK: Array,
    log_prob_BK: Array,
    blank_B: Array,
    lm: TokenScorer | None,
    lm_weight: Array,
    bonus: Callable[[Array], Array],
) -> tuple[_Beam, tuple[Array, Array]]:
    """One frame: the new beam, and for each of its slots the slot it came from and the token added, i32[B, W]."""
    W, K = beam.last.shape[1], token_BK.shape[1]
    total_BW = _log_add(beam.blank, beam.token)
    same_BWK = beam.last[:, :, None] == token_BK[:, None, :]
    # What the frame gives to each prefix's own last token.
    again_BW = jnp.where(same_BWK, log_prob_BK[:, None, :], -jnp.inf).max(axis=2)
    blank_BW, token_BW = total_BW + blank_B[:, None], beam.token + again_BW
    extend_BWK = jnp.where(same_BWK, beam.blank[:, :, None], total_BW[:, :, None]) + log_prob_BK[:, None, :]
    # child_BWU: prefix u is prefix w and one token more. That token's mass goes to u, and not to another u.
    child_BWU = (beam.name[:, :, None, :] == beam.parent[:, None, :, :]).all(axis=3)
    repeats_BWU = beam.last[:, :, None] == beam.last[:, None, :]
    grown_BWU = jnp.where(repeats_BWU, beam.blank[:, :, None], total_BW[:, :, None]) + again_BW[:, None, :]
    token_BW = _log_add(token_BW, jnp.where(child_BWU, grown_BWU, -jnp.inf).max(axis=1))
    there_BWK = (child_BWU[:, :, :, None] & same_BWK[:, None, :, :]).any(axis=2)
    extend_BWK = jnp.where(there_BWK, -jnp.inf, extend_BWK)

    stay_score_BW = _log_add(blank_BW, token_BW) + bonus(beam.length)
    extend_score_BWK = extend_BWK + bonus(beam.length + 1)[:, :, None]
    if lm is not None:
        states_BWK = jnp.broadcast_to(beam.lm_state[:, :, None], extend_BWK.shape)
        lm_log_prob_BWK, state_BWK = lm.score(states_BWK, jnp.broadcast_to(token_BK[:, None, :], extend_BWK.shape))
        lm_score_BWK = beam.lm_score[:, :, None] + lm_log_prob_BWK
        stay_score_BW = stay_score_BW + lm_weight * beam.lm_score
        extend_score_BWK = extend_score_BWK + lm_weight * lm_score_BWK

    def candidates(stay_BW: Array, extend_BWK: Array) -> Array:
        return jnp.concatenate([stay_BW, extend_BWK.reshape(-1, W * K)], axis=1)

    score_BW, chosen_BW = lax.top_k(candidates(stay_score_BW, extend_score_BWK), W)
    extends_BW = chosen_BW >= W
    place_BW = jnp.maximum(chosen_BW - W, 0)
    from_BW = jnp.where(extends_BW, place_BW // K, chosen_BW)
    added_BW = jnp.where(extends_BW, jnp.take_along_axis(token_BK, place_BW % K, axis=1), _NOTHING)
    before = jax.tree.map(
        lambda x: jnp.take_along_axis(x, from_BW.reshape(*from_BW.shape, *[1] * (x.ndim - 2)), 1), beam
    )

    def kept(stay_BW: Array, extend_BWK: Array) -> Array:
        return jnp.take_along_axis(candidates(stay_BW, extend_BWK), chosen_BW, axis=1)

    mass_BW = kept(token_BW, extend_BWK)
    after = _Beam(
        blank=jnp.where(extends_BW, -jnp.inf, jnp.take_along_axis(blank_BW, from_BW, axis=1)),
        token=mass_BW,
        last=jnp.where(extends_BW, added_BW, before.last),
        length=before.length + extends_BW.astype(jnp.int32),
        name=jnp.where(extends_BW[..., None], _named(before.name, added_BW), before.name),
        parent=jnp.where(extends_BW[..., None], before.name, before.parent),
        lm_score=before.lm_score if lm is None else kept(beam.lm_score, lm_score_BWK),
        lm_state=before.lm_state if lm is None else kept(beam.lm_state, state_BWK),
    )
    # A slot that nothing was left for must not pass for the prefix whose mass it did not get.
    alive_BW = score_BW != -jnp.inf
    nobody = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (alive_BW.shape[0], *x.shape)), _nobody(W))
    return jax.tree.map(lambda a, b: jnp.where(_like(alive_BW, a), a, b), after, nobody), (from_BW, added_BW)


def _read_off(slot_BW: Array, length_BW: Array, moves: tuple[Array, Array]) -> Array:
    """Tokens i32[B, W, T] of the prefixes in some slots, from the last frame back to the first."""
    T = moves[0].shape[0]

    def back(carry: tuple[Array, Array, Array], frame: tuple[Array, Array]) -> tuple[tuple, None]:
        slot_BW, place_BW, tokens_BWT = carry
        token_BW = jnp.take_along_axis(frame[1], slot_BW, axis=1)
        added_BW = token_BW != _NOTHING
        place_BW = place_BW - added_BW.astype(jnp.int32)
        here_BWT = added_BW[..., None] & (jnp.arange(T, dtype=jnp.int32)[None, None, :] == place_BW[..., None])
        tokens_BWT = jnp.where(here_BWT, token_BW[..., None], tokens_BWT)
        return (jnp.take_along_axis(frame[0], slot_BW, axis=1), place_BW, tokens_BWT), None

    empty = jnp.zeros((*slot_BW.shape, T), jnp.int32)
    return lax.scan(back, (slot_BW, length_BW, empty), moves, reverse=True)[0][2]


def _where(inside_B: Array, new: tuple, old: tuple) -> tuple:
    return jax.tree.map(lambda a, b: jnp.where(_like(inside_B, a), a, b), new, old)


def _like(index: Array, array: Array) -> Array:
    """With as many dimensions as the array."""
    return index.reshape(*index.shape, *[1] * (array.ndim - index.ndim))


def _named(name_BW2: Array, token_BW: Array) -> Array:
    """Hashes of prefixes and one token more: two chains that nothing connects."""
    token_BW2 = token_BW[..., None].astype(jnp.uint32) + np.array([[[0x9E3779B9, 0x7F4A7C15]]], np.uint32)
    return _mix(name_BW2 ^ _mix(token_BW2))


def _mix(x: Array) -> Array:
    """A bijection of 32-bit words whose output bits each depend on all input bits: lowbias32 (C. Wellons)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _log_add(x: Array, y: Array) -> Array:
    """log(eˣ + eʸ), −inf where both are; NaN where one is."""
    most = jnp.maximum(x, y)
    return jnp.where(most == -jnp.inf, most, most + jnp.log1p(jnp.exp(-jnp.abs(x - y))))
