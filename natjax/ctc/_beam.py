"""Beam search over what the frames collapse to, with a language model, inside one compiled program."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from natjax.ctc import _head, _prefixes, _problem
from natjax.ctc._check import validate_logit_lengths, validate_pruned
from natjax.ctc._collapse import packed
from natjax.ctc._enum import AUTO, Implementation, resolve
from natjax.ctc._prefixes import NONE, Frame, Ranking, Steps
from natjax.ctc._pruned import Pruned, prune
from natjax.typing import EOS, Array, TokenScorer

FORMS = ("linear", "log")


class BeamResult(NamedTuple):
    """The W best hypotheses of each row, the best first; y is one, |y| its length in tokens.

    A row may have fewer hypotheses than W: without frames, only the empty one. The slots behind have the length 0 and
    −inf for all three scores. A row with NaN or +inf within its length has NaN for all scores, and no tokens.

    Attributes:
        tokens: i32[B, W, T], packed to the left and padded with 0; the end, where there is an end_id, left out.
        lengths: i32[B, W].
        scores: f32[B, W] (f64), ctc_scores + lm_weight · lm_scores + length_bonus · |y|, or · log max(|y|, 1).
        ctc_scores: f32[B, W] (f64), log of the mass of the alignments that were followed: at most log p(y), which is
            −`ctc_loss`, since those with a token outside a frame's top_k, or with a prefix that left the beam, are not.
        lm_scores: f32[B, W] (f64), log-probability of the tokens, and of the end with score_eos; 0 without lm.
    """

    tokens: Array
    lengths: Array
    scores: Array
    ctc_scores: Array
    lm_scores: Array


class _Options(NamedTuple):
    """What is fixed when a search is compiled; see `beam_search`."""

    beam_size: int
    top_k: int
    logarithmic: bool
    score_eos: bool
    end_id: int | None = None


def beam_search(
    logits_or_pruned: Array | Pruned,
    logit_lengths: Array,
    *,
    beam_size: int = 20,
    top_k: int = 20,
    lm: TokenScorer | None = None,
    lm_weight: float | Array = 0.0,
    length_bonus: float | Array = 0.0,
    length_bonus_form: str = "linear",
    score_eos: bool = False,
    end_id: int | None = None,
    blank_id: int = 0,
    implementation: Implementation = AUTO,
) -> BeamResult:
    """The most probable token sequences, each summed over its alignments, by prefix beam search.

    Maximises log p(y) + lm_weight · log p_LM(y) + length_bonus · |y|, equation 6 of the paper, frame by frame; the
    model and the bonus count once for each token that is new. Hannun et al. (2014), algorithm 1, with both kinds of
    mass in log space. Carries no gradient.

    The program is compiled for shapes, beam_size, top_k, length_bonus_form, score_eos and end_id. The weights are
    values.

    Args:
        logits_or_pruned: [B, T, V], unnormalised, as `ctc_loss`; or what `prune` or `linear_prune` made of them, whose
            tokens of a frame are expected to differ, and to differ from the blank.
        logit_lengths: i32[B], real frames; frames beyond are ignored.
        beam_size: W, how many prefixes are kept.
        top_k: K, how many tokens of each frame are looked at, beside the blank: 1..V-1. Of `Pruned` the first top_k, or
            all where it holds no more.
        lm: a language model, see `natjax.typing.TokenScorer`.
        lm_weight: of the language model's log-probabilities (the paper's α).
        length_bonus: for each token (the paper's β).
        length_bonus_form: "linear" adds length_bonus · |y|, as the paper's code; "log" adds length_bonus ·
            log max(|y|, 1).
        score_eos: whether lm scores the end of the sentence too, after the last frame; not of those hypotheses that
            have ended in end_id, since it has scored that token.
        end_id: the token that ends a sentence, for frames that emit one: what a path emits behind it does not matter,
            and it is neither given out nor counted in |y|. lm scores it once, as any token. A hypothesis that has
            ended and one of the same tokens that has not are two. None: no token is special.
        blank_id: the id of the blank. Not read where `Pruned` is given.
        implementation: AUTO or SCAN.

    Returns:
        Tokens, lengths and scores, the best first. Equal scores: the order of slots, the same on every run.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit; an option is out of range; the beam is wider than all that T frames of top_k
            tokens and the blank could give, (top_k + 1)^T; or an option asks for a language model, and there is none:
            score_eos, or an lm_weight that is not 0, or that is traced and may be anything.

    Example:
        Greedy decoding would give no token; but three of the four paths end in token 1.

        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> best = ctc.beam_search(logits, jnp.array([2]), beam_size=2, top_k=1)
        >>> best.tokens.tolist(), best.lengths.tolist()
        ([[[1, 0], [0, 0]]], [[1, 0]])
        >>> [round(float(p), 2) for p in jnp.exp(best.ctc_scores[0])]
        [0.64, 0.36]
    """
    resolve(implementation, (Implementation.SCAN,), Implementation.SCAN)
    if length_bonus_form not in FORMS:
        raise ValueError(f"length_bonus_form must be one of {', '.join(FORMS)}, got {length_bonus_form!r}")
    if lm is None and (score_eos or isinstance(lm_weight, jax.core.Tracer) or np.any(np.asarray(lm_weight) != 0)):
        raise ValueError(f"{'score_eos' if score_eos else 'lm_weight'} needs a language model, but lm is None")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if end_id is not None and (end_id < 0 or end_id == blank_id):
        raise ValueError(f"end_id must be a token other than the blank, got {end_id}")
    pruned = logits_or_pruned
    if isinstance(pruned, Pruned):
        validate_pruned(*pruned)
    else:
        pruned = prune(pruned, top_k=top_k, blank_id=blank_id)
    validate_logit_lengths(logit_lengths, pruned.tokens)
    _, T, K = pruned.tokens.shape
    _check_beam_size(beam_size, T, min(K, top_k))
    dtype = _head.accumulator(pruned.log_probs)
    weights = tuple(_scalar(name, x, dtype) for name, x in (("lm_weight", lm_weight), ("length_bonus", length_bonus)))
    options = _Options(
        int(beam_size),
        min(K, top_k),
        length_bonus_form == "log",
        bool(score_eos),
        None if end_id is None else int(end_id),
    )
    arrays = _problem.alike((lax.stop_gradient(pruned), logit_lengths.astype(jnp.int32), lm, weights))
    return _compiled(*arrays, options)


def _scalar(name: str, value: float | Array, dtype: jnp.dtype) -> Array:
    value = jnp.asarray(value, dtype)
    if value.ndim:
        raise ValueError(f"{name} must be one number, got the shape {value.shape}")
    return value


def _check_beam_size(beam_size: int, frames: int, top_k: int) -> None:
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, got {beam_size}")
    if frames and beam_size > (top_k + 1) ** frames:
        raise ValueError(
            f"beam_size {beam_size} is wider than top_k allows: {frames} frames of top_k = {top_k} tokens and the "
            f"blank have {(top_k + 1) ** frames} outputs at most; take a narrower beam or a greater top_k"
        )


@functools.partial(jax.jit, static_argnums=4)
def _compiled(
    pruned: Pruned, logit_lengths_B: Array, lm: TokenScorer | None, weights: tuple[Array, Array], options: _Options
) -> BeamResult:
    T, dtype = pruned.tokens.shape[1], weights[0].dtype
    ranking = Ranking(*weights, options.logarithmic, options.end_id)
    real_BT = jnp.arange(T, dtype=jnp.int32)[None, :] < logit_lengths_B[:, None]
    # Fails for NaN, too.
    usable_BT = (pruned.blank < jnp.inf) & jnp.all(pruned.log_probs < jnp.inf, axis=2)
    broken_B = jnp.any(real_BT & ~usable_BT, axis=1)
    frames = Frame(
        pruned.tokens[..., : options.top_k].astype(jnp.int32),
        pruned.log_probs[..., : options.top_k].astype(dtype),
        pruned.blank.astype(dtype),
        real_BT & ~broken_B[:, None],
    )
    beam, steps = lax.scan(
        lambda beam, frame: _prefixes.advance(beam, frame, lm, ranking),
        _prefixes.beginning(logit_lengths_B, options.beam_size, lm, dtype),
        jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), frames),
    )
    ctc_BW, lm_BW, ended_BW = beam.mass(), beam.lm_scores, ranking.ends(beam.last)
    if options.score_eos:
        end_BW = lm.score(beam.lm_states, jnp.full_like(beam.last, EOS))[0].astype(dtype)
        lm_BW = jnp.where(ended_BW, lm_BW, lm_BW + end_BW)
    size_BW = beam.lengths - ended_BW.astype(jnp.int32)
    score_BW, slot_BW = lax.top_k(ranking.scores(ctc_BW, lm_BW, size_BW), options.beam_size)

    live_BW = (score_BW > -jnp.inf) & ~broken_B[:, None]
    missing_B1 = jnp.where(broken_B, jnp.nan, -jnp.inf).astype(dtype)[:, None]
    added_BWT = _added(steps, slot_BW)
    token_BWT = jnp.where(live_BW[..., None] & ~ranking.ends(added_BWT), added_BWT, NONE)
    return BeamResult(
        packed(token_BWT, token_BWT != NONE),
        jnp.where(live_BW, _prefixes.at(size_BW, slot_BW), 0),
        *(jnp.where(live_BW, x, missing_B1) for x in (score_BW, *(_prefixes.at(y, slot_BW) for y in (ctc_BW, lm_BW)))),
    )


def _added(steps: Steps, slot_BW: Array) -> Array:
    """The token that each frame added to the prefixes in these slots after the last frame, or NONE; i32[B, W, T]."""

    def back(slot_BW: Array, step: Steps) -> tuple[Array, Array]:
        return _prefixes.at(step.slots, slot_BW), _prefixes.at(step.tokens, slot_BW)

    return jnp.moveaxis(lax.scan(back, slot_BW, steps, reverse=True)[1], 0, 2)
