"""Beam search for a model that emits one token a step: static shapes, one loop, no key or value ever moved.

The loop keeps W hypotheses a sentence in W slots. A model's cache is written once for each slot and position; when
hypotheses are selected anew, only a table of i32 moves with them: `ancestors_BWN[b, w, n]` is the slot that holds
position n of the hypothesis which is now in slot w. Positions that are not yet written name the slot itself.

A step takes the 2W best continuations of all hypotheses by accumulated log-probability. Continuations by eos among
the first W are finished; the W best of the others stay active. A sentence is done when W hypotheses are finished, or at
its limit, or when nothing can be continued; the loop ends with the last sentence. Greedy decoding is W = 1: what is
best is taken, and nothing else is looked for.

    among equals                first
    continuations               lower slot, then the more probable token, then the lower id
    finished hypotheses         the one finished earlier, then by the order above

    token                       generated
    pad, bos                    never
    eos                         not before `min_length` tokens
    unk                         like any token

A token that is held back keeps its mass: log-probabilities are of all V tokens, as in `score`.
"""

from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from natjax.ctc import linear_top_k
from natjax.typing import BOS, EOS, PAD, Array, Head, PyTree

FIRST_ROOM = 16
"""Positions that there is room for at first; then twice as many, and so on. Each room is a loop of its own in the
compiled program, and attention looks at its positions alone."""


class Decoder(Protocol):
    """What the search needs of a model."""

    def start(self, params: PyTree, memory_BSD: Array, source_lengths_B: Array, W: int, N: int) -> PyTree:
        """A cache for W slots and N positions."""

    def grow(self, cache: PyTree, W: int, N: int) -> PyTree:
        """The same cache for N positions, more than before."""

    def step(
        self, params: PyTree, cache: PyTree, tokens_BW: Array, position: Array, ancestors_BWN: Array
    ) -> tuple[Array, PyTree]:
        """Writes the tokens i32[B, W] at a position i32[] of every slot, and returns hidden states [B, W, D]."""

    def project(self, params: PyTree, hidden_BWD: Array) -> Head:
        """The output projection of hidden states."""


class Convention(NamedTuple):
    """Where searches differ.

    Attributes:
        eos_in_length: whether eos counts in the length that a score is divided by.
        forced_eos: whether at a sentence's limit active hypotheses end with an eos, probable or not; else they are
            taken as they are, each with its most probable continuation.
        keep_best: whether, of more than W finished hypotheses, the W best are kept; else the first.
    """

    eos_in_length: bool = True
    forced_eos: bool = True
    keep_best: bool = False


FAIRSEQ = Convention()
CTRANSLATE2 = Convention(forced_eos=False, keep_best=True)
"""As CTranslate2 with patience 1 does, but for a length penalty of 0: there it stops when the best continuation of all
is an eos and enough hypotheses are finished, which changes no best hypothesis."""


class BeamResult(NamedTuple):
    """Finished hypotheses, the best first.

    Attributes:
        tokens: i32[B, W, N], without eos, padded with 0.
        lengths: i32[B, W], tokens of each.
        scores: f32[B, W], log_probs / length^length_penalty; −inf where fewer than W hypotheses exist.
        log_probs: f32[B, W], Σ over tokens and eos, nats; −inf as for scores.
        steps: i32[], how often the model was run.
    """

    tokens: Array
    lengths: Array
    scores: Array
    log_probs: Array
    steps: Array


class _Finished(NamedTuple):
    tokens: Array
    lengths: Array
    scores: Array
    log_probs: Array


class _State(NamedTuple):
    """Between two steps: `tokens` and `log_probs` [B, W, …] of the active hypotheses; `last` is the model's input."""

    position: Array
    last: Array
    tokens: Array
    log_probs: Array
    ancestors: Array
    finished: _Finished
    done: Array
    cache: PyTree


class _Rules(NamedTuple):
    """What the rows and the caller ask for; all of it traced but the convention."""

    limits: Array
    prefix: Array
    prefix_lengths: Array
    length_penalty: Array
    min_length: Array
    convention: Convention


def beam_search(
    decoder: Decoder,
    params: PyTree,
    memory_BSD: Array,
    source_lengths_B: Array,
    limits_B: Array,
    *,
    beam_size: int,
    max_steps: int,
    length_penalty: Array | float = 1.0,
    min_length: Array | int = 1,
    prefix: tuple[Array, Array] | None = None,
    convention: Convention = FAIRSEQ,
) -> BeamResult:
    """Translates a batch. To be called under `jax.jit`.

    Args:
        decoder: the model.
        params: handed to the decoder.
        memory_BSD: [B, S, D], the encoder's output, handed to the decoder.
        source_lengths_B: i32[B], handed to the decoder.
        limits_B: i32[B], most steps of each sentence, eos included; taken into 1..N.
        beam_size: W; 1 is greedy.
        max_steps: N.
        length_penalty: f32[], exponent of the length in scores. 0: no normalisation.
        min_length: i32[], tokens before eos is allowed. A sentence's limit goes before it.
        prefix: forced first tokens i32[B, P], padded with 0, and their lengths i32[B]. Their log-probabilities count.
            A sentence's limit goes before them.
        convention: see `Convention`.

    Returns:
        W hypotheses a sentence.

    Raises:
        ValueError: beam_size or max_steps is not positive.

    Source: fairseq's sequence generator (Ott et al. 2019).
    """
    if beam_size < 1 or max_steps < 1:
        raise ValueError(f"beam_size and max_steps must be positive, got {beam_size} and {max_steps}")
    B = source_lengths_B.shape[0]
    if prefix is None:
        prefix = jnp.zeros((B, 1), jnp.int32), jnp.zeros((B,), jnp.int32)
    rules = _Rules(
        jnp.clip(limits_B, 1, max_steps),
        *prefix,
        jnp.asarray(length_penalty, jnp.float32),
        jnp.asarray(min_length, jnp.int32),
        convention,
    )
    first, *later = _rooms(max_steps)
    cache = decoder.start(params, memory_BSD, source_lengths_B, beam_size, first)
    finished, steps = _search(decoder, params, rules, _initial(cache, B, beam_size, first), later)
    return BeamResult(*_select(finished, lax.top_k(finished.scores, beam_size)[1]), steps)


def _rooms(N: int) -> list[int]:
    """For how many positions there is room at first and after each growth, the last time for N."""
    rooms = [min(N, FIRST_ROOM)]
    while rooms[-1] < N:
        rooms.append(min(N, 2 * rooms[-1]))
    return rooms


def _search(
    decoder: Decoder, params: PyTree, rules: _Rules, state: _State, later: list[int]
) -> tuple[_Finished, Array]:
    """Runs the loop while there is room, then with more room: all finished hypotheses, and the steps made."""
    room = state.tokens.shape[2]
    state = lax.while_loop(
        lambda state: ~jnp.all(state.done) & (state.position < room), partial(_step, decoder, params, rules), state
    )
    if not later:
        return state.finished, state.position
    N = later[-1]

    def end(state: _State) -> tuple[_Finished, Array]:
        return state.finished._replace(tokens=_padded(state.finished.tokens, N)), state.position

    def go_on(state: _State) -> tuple[_Finished, Array]:
        return _search(decoder, params, rules, _grown(decoder, state, later[0]), later[1:])

    return lax.cond(jnp.all(state.done), end, go_on, state)


def _grown(decoder: Decoder, state: _State, N: int) -> _State:
    B, W, room = state.tokens.shape
    return state._replace(
        tokens=_padded(state.tokens, N),
        ancestors=_own_slots(B, W, N).at[:, :, :room].set(state.ancestors),
        finished=state.finished._replace(tokens=_padded(state.finished.tokens, N)),
        cache=decoder.grow(state.cache, W, N),
    )


def _padded(tokens_BWN: Array, N: int) -> Array:
    return jnp.pad(tokens_BWN, ((0, 0), (0, 0), (0, N - tokens_BWN.shape[2])))


def _initial(cache: PyTree, B: int, W: int, N: int) -> _State:
    nothing_BW = jnp.full((B, W), -jnp.inf, jnp.float32)
    empty_BWN, zero_BW = jnp.zeros((B, W, N), jnp.int32), jnp.zeros((B, W), jnp.int32)
    return _State(
        position=jnp.zeros((), jnp.int32),
        last=jnp.full((B, W), BOS, jnp.int32),
        tokens=empty_BWN,
        # One hypothesis, the empty one: W equal ones would be continued alike.
        log_probs=nothing_BW.at[:, 0].set(0.0),
        ancestors=_own_slots(B, W, N),
        finished=_Finished(empty_BWN, zero_BW, nothing_BW, nothing_BW),
        done=jnp.zeros((B,), bool),
        cache=cache,
    )


def _own_slots(B: int, W: int, N: int) -> Array:
    return jnp.broadcast_to(jnp.arange(W, dtype=jnp.int32)[None, :, None], (B, W, N))


def _step(decoder: Decoder, params: PyTree, rules: _Rules, state: _State) -> _State:
    B, W, N = state.tokens.shape
    hidden_BWD, cache = decoder.step(params, state.cache, state.last, state.position, state.ancestors)
    at_limit_B = state.position + 1 >= rules.limits
    ids_BWX, log_prob_BWX = _continuations(decoder.project(params, hidden_BWD), state.position, at_limit_B, rules)
    X = ids_BWX.shape[2]
    # With one slot the best is enough: if it is eos the sentence is done, and nothing has to take its place.
    log_prob_BC, place_BC = lax.top_k((state.log_probs[:, :, None] + log_prob_BWX).reshape(B, W * X), min(2 * W, W * X))
    ids_BC, parent_BC = jnp.take_along_axis(ids_BWX.reshape(B, W * X), place_BC, axis=1), place_BC // X

    eos_BC = ids_BC == EOS
    here_11N = jnp.arange(N, dtype=jnp.int32)[None, None, :] == state.position
    ends_BW = (eos_BC[:, :W] | at_limit_B[:, None]) & ~state.done[:, None]
    appended_BW = jnp.where(eos_BC[:, :W], PAD, ids_BC[:, :W])
    ended = _Finished(
        jnp.where(here_11N, appended_BW[:, :, None], _rows(state.tokens, parent_BC[:, :W])),
        state.position + (~eos_BC[:, :W]).astype(jnp.int32),
        *_scores(jnp.where(ends_BW, log_prob_BC[:, :W], -jnp.inf), eos_BC[:, :W], state.position, rules),
    )
    finished = _merged(state.finished, ended, rules.convention.keep_best)

    # The W first that are no eos, in their order.
    C = eos_BC.shape[1]
    order_BC = jnp.arange(C, dtype=jnp.int32)[None, :] + C * eos_BC.astype(jnp.int32)
    stays_BW = lax.top_k(-order_BC, W)[1]
    # Forced to end, a sentence has nothing else.
    live_BC = jnp.where(eos_BC, -jnp.inf, log_prob_BC)
    last_BW, parent_BW, log_prob_BW = (jnp.take_along_axis(a, stays_BW, 1) for a in (ids_BC, parent_BC, live_BC))
    written_11N = jnp.arange(N, dtype=jnp.int32)[None, None, :] <= state.position
    return _State(
        position=state.position + 1,
        last=last_BW,
        tokens=jnp.where(here_11N, last_BW[:, :, None], _rows(state.tokens, parent_BW)),
        log_probs=log_prob_BW,
        ancestors=jnp.where(written_11N, _rows(state.ancestors, parent_BW), _own_slots(B, W, N)),
        finished=finished,
        done=state.done
        | at_limit_B
        | jnp.all(finished.scores > -jnp.inf, axis=1)
        | ~jnp.any(log_prob_BW > -jnp.inf, axis=1),
        cache=cache,
    )


def _continuations(head: Head, position: Array, at_limit_B: Array, rules: _Rules) -> tuple[Array, Array]:
    """The 2W best tokens of each hypothesis that are allowed, and their log-probabilities, [B, W, X] both."""
    (_, W, _), V = head.hidden.shape, head.kernel.shape[1]
    P = rules.prefix.shape[1]
    token_B = lax.dynamic_index_in_dim(rules.prefix, jnp.minimum(position, P - 1), axis=1, keepdims=False)
    is_forced_B = position < rules.prefix_lengths
    if rules.convention.forced_eos:
        token_B, is_forced_B = jnp.where(at_limit_B, EOS, token_B), is_forced_B | at_limit_B

    id_V = jnp.arange(V, dtype=jnp.int32)
    held_back_V = (id_V == PAD) | (id_V == BOS) | ((id_V == EOS) & (position < rules.min_length))
    bias_V = jnp.zeros((V,), jnp.float32) if head.bias is None else head.bias.astype(jnp.float32)
    # The kernel of natjax's models is a transposed table.
    number, bias = 1 if W == 1 else min(2 * W, V), jnp.where(held_back_V, -jnp.inf, bias_V)
    best = linear_top_k(head.hidden, head.kernel.T, number, bias=bias, transposed=True)
    special_BWX = _product("bwd,dx->bwx", head.hidden, head.kernel[:, : EOS + 1]) + bias_V[None, None, : EOS + 1]
    held_back_BWX = jnp.where(held_back_V[None, None, : EOS + 1], special_BWX, -jnp.inf)
    lse_BW = jnp.logaddexp(best.lse, jax.nn.logsumexp(held_back_BWX, axis=-1))
    log_prob_BWX = best.logits - lse_BW[:, :, None]

    forced_BW = _product("bwd,db->bw", head.hidden, head.kernel[:, token_B]) + bias_V[token_B][:, None] - lse_BW
    only_BWX = jnp.full_like(log_prob_BWX, -jnp.inf).at[:, :, 0].set(forced_BW)
    is_forced_B11 = is_forced_B[:, None, None]
    ids_BWX = jnp.where(is_forced_B11, token_B[:, None, None], best.ids)
    return ids_BWX, jnp.where(is_forced_B11, only_BWX, log_prob_BWX)


def _product(equation: str, hidden: Array, columns: Array) -> Array:
    return jnp.einsum(equation, hidden, columns.astype(hidden.dtype), preferred_element_type=jnp.float32)


def _scores(log_prob_BW: Array, eos_BW: Array, position: Array, rules: _Rules) -> tuple[Array, Array]:
    """Normalised scores and log-probabilities of hypotheses that end in this step."""
    length_BW = jnp.broadcast_to(position + 1, eos_BW.shape)
    if not rules.convention.eos_in_length:
        length_BW = jnp.maximum(length_BW - eos_BW.astype(jnp.int32), 1)
    return log_prob_BW / jnp.power(length_BW.astype(jnp.float32), rules.length_penalty), log_prob_BW


def _merged(finished: _Finished, ended: _Finished, keep_best: bool) -> _Finished:
    """W of 2W hypotheses, of which those with a score of −inf do not exist."""
    both = jax.tree.map(lambda *halves: jnp.concatenate(halves, axis=1), finished, ended)
    W = finished.scores.shape[1]
    exists_BX = both.scores > -jnp.inf
    value_BX = both.scores if keep_best else -jnp.arange(2 * W, dtype=jnp.float32)[None, :]
    return _select(both, lax.top_k(jnp.where(exists_BX, value_BX, -jnp.inf), W)[1])


def _select(hypotheses: _Finished, place_BW: Array) -> _Finished:
    found = _Finished(
        _rows(hypotheses.tokens, place_BW), *(jnp.take_along_axis(a, place_BW, axis=1) for a in hypotheses[1:])
    )
    exists_BW = found.scores > -jnp.inf
    return found._replace(
        tokens=jnp.where(exists_BW[:, :, None], found.tokens, PAD), lengths=jnp.where(exists_BW, found.lengths, 0)
    )


def _rows(array_BWN: Array, place_BX: Array) -> Array:
    return jnp.take_along_axis(array_BWN, place_BX[:, :, None], axis=1)


class Scores(NamedTuple):
    """Log-probabilities of given targets.

    Attributes:
        total: f32[B], Σ over tokens, eos included; nats.
        mean: f32[B], the same divided by the number of tokens.
    """

    total: Array
    mean: Array


def score(head: Head, targets_BN: Array, lengths_B: Array) -> Scores:
    """Log-probability of given targets, without the logits [B, N, V]. Carries no gradient.

    Args:
        head: of a teacher-forced pass: hidden [B, N, D] at position n predicts target n.
        targets_BN: i32[B, N], each ending in eos, padded with 0.
        lengths_B: i32[B], eos included. A row of length 0 scores 0.

    Returns:
        Sums and means.
    """
    head = lax.stop_gradient(head)
    lse_BN = linear_top_k(head.hidden, head.kernel, 1, bias=head.bias).lse
    logit_BN = _product("bnd,dbn->bn", head.hidden, head.kernel[:, targets_BN])
    if head.bias is not None:
        logit_BN = logit_BN + head.bias.astype(jnp.float32)[targets_BN]
    real_BN = jnp.arange(targets_BN.shape[1])[None, :] < lengths_B[:, None]
    total_B = jnp.where(real_BN, logit_BN - lse_BN, 0.0).sum(axis=1)
    return Scores(total_B, total_B / jnp.maximum(lengths_B, 1).astype(jnp.float32))
