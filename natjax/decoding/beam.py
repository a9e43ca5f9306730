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
    eos                         not as the first token, unless a limit or a prefix asks for it
    unk                         like any token

A token that is held back keeps its mass: log-probabilities are of all V tokens, as in `score`. A score is the
log-probability divided by length^length_penalty, where eos counts in both. At its limit every hypothesis ends in an
eos, probable or not. All of this is fairseq's (Ott et al. 2019); where CTranslate2 differs tells docs/export.md.
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
compiled program, a whole decoder, and attention looks at its positions alone."""


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


class BeamResult(NamedTuple):
    """Finished hypotheses, the best first.

    Attributes:
        tokens: i32[B, W, N], without eos, padded with 0.
        lengths: i32[B, W], tokens of each.
        scores: f32[B, W], log_probs / length^length_penalty; −inf where fewer than W hypotheses exist.
        log_probs: f32[B, W], Σ over tokens and eos, nats; −inf as for scores.
    """

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
    finished: BeamResult
    done: Array
    cache: PyTree


class _Rules(NamedTuple):
    """What the rows and the caller ask for; all of it traced."""

    limits: Array
    prefix: Array
    prefix_lengths: Array
    length_penalty: Array


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
    prefix: tuple[Array, Array] | None = None,
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
        prefix: forced first tokens i32[B, P], padded with 0, and their lengths i32[B]. Their log-probabilities count.
            A sentence's limit goes before them.

    Returns:
        W hypotheses a sentence.

    Raises:
        ValueError: beam_size or max_steps is not positive.
    """
    if beam_size < 1 or max_steps < 1:
        raise ValueError(f"beam_size and max_steps must be positive, got {beam_size} and {max_steps}")
    B = source_lengths_B.shape[0]
    if prefix is None:
        prefix = jnp.zeros((B, 1), jnp.int32), jnp.zeros((B,), jnp.int32)
    rules = _Rules(jnp.clip(limits_B, 1, max_steps), *prefix, jnp.asarray(length_penalty, jnp.float32))
    first, *later = _rooms(max_steps)
    cache = decoder.start(params, memory_BSD, source_lengths_B, beam_size, first)
    finished = _search(decoder, params, rules, _initial(cache, B, beam_size, first), later)
    return _select(finished, lax.top_k(finished.scores, beam_size)[1])


def _rooms(N: int) -> list[int]:
    """For how many positions there is room at first and after each growth, the last time for N.

    What would grow by less than half is as large as N at once: a loop more is not worth it.
    """
    rooms = [FIRST_ROOM]
    while 3 * rooms[-1] <= 2 * N:
        rooms.append(2 * rooms[-1])
    return [*rooms[:-1], N]


def _search(decoder: Decoder, params: PyTree, rules: _Rules, state: _State, later: list[int]) -> BeamResult:
    """Runs the loop while there is room, then with more room: all finished hypotheses, the earlier first."""
    room = state.tokens.shape[2]
    state = lax.while_loop(
        lambda state: ~jnp.all(state.done) & (state.position < room), partial(_step, decoder, params, rules), state
    )
    if not later:
        return state.finished
    N = later[-1]

    def end(state: _State) -> BeamResult:
        return state.finished._replace(tokens=_padded(state.finished.tokens, N))

    def go_on(state: _State) -> BeamResult:
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
        finished=BeamResult(empty_BWN, zero_BW, nothing_BW, nothing_BW),
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
    ended_BW = jnp.where(eos_BC[:, :W] & ~state.done[:, None], log_prob_BC[:, :W], -jnp.inf)
    divisor = jnp.power((state.position + 1).astype(jnp.float32), rules.length_penalty)  # eos counts
    lengths_BW = jnp.full((B, W), state.position)
    ended = BeamResult(_rows(state.tokens, parent_BC[:, :W]), lengths_BW, ended_BW / divisor, ended_BW)
    finished = _merged(state.finished, ended)

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
    token_B = jnp.where(at_limit_B, EOS, token_B)
    is_forced_B = (position < rules.prefix_lengths) | at_limit_B

    id_V = jnp.arange(V, dtype=jnp.int32)
    held_back_V = (id_V == PAD) | (id_V == BOS) | ((id_V == EOS) & (position == 0))
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


def _merged(finished: BeamResult, ended: BeamResult) -> BeamResult:
    """The first W of 2W hypotheses; those with a score of −inf do not exist."""
    both = jax.tree.map(lambda *halves: jnp.concatenate(halves, axis=1), finished, ended)
    W = finished.scores.shape[1]
    order_BX = jnp.where(both.scores > -jnp.inf, -jnp.arange(2 * W, dtype=jnp.float32)[None, :], -jnp.inf)
    return _select(both, lax.top_k(order_BX, W)[1])


def _select(hypotheses: BeamResult, place_BW: Array) -> BeamResult:
    found = BeamResult(
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
