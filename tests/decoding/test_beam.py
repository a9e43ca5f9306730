"""The compiled search against plain Python, enumeration of all translations, and CTranslate2."""

import functools
from typing import NamedTuple

import beam_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from natjax.decoding import beam
from natjax.decoding.beam import beam_search, score
from natjax.typing import BOS, Head

N, STATES = 7, 5
CLOSE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def little_room():
    """So that the loop goes on with more room for 2, 4 and then 7 positions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "FIRST_ROOM", 2)
        yield


class Cache(NamedTuple):
    tokens: jax.Array  # [B, W, N], each slot's inputs by position; never reordered
    sources: jax.Array  # [B]


class Tables:
    """Logits that depend on the source and on a hash of the whole prefix, read back through the ancestors.

    Parameters are a table [sources, STATES, V]; the memory holds the source's number.
    """

    def start(self, params, memory_BSD, source_lengths_B, W, N):
        unwritten = jnp.full((memory_BSD.shape[0], W, N), 977, jnp.int32)
        return Cache(unwritten, memory_BSD[:, 0, 0].astype(jnp.int32))

    def grow(self, cache, W, N):
        B, _, room = cache.tokens.shape
        return cache._replace(tokens=jnp.full((B, W, N), 977, jnp.int32).at[:, :, :room].set(cache.tokens))

    def step(self, params, cache, tokens_BW, position, ancestors_BWN):
        tokens = jax.lax.dynamic_update_slice(cache.tokens, tokens_BW[:, :, None], (0, 0, position))
        n = ancestors_BWN.shape[2]
        # [B, 1, W, n] by [B, W, 1, n]: position n of the hypothesis in slot w lies in slot ancestors[b, w, n].
        inputs_BWN = jnp.take_along_axis(tokens[:, None, :, :n], ancestors_BWN[:, :, None, :], axis=2)[:, :, 0]
        state_BW = jnp.zeros(tokens_BW.shape, jnp.int32)
        for place in range(n):
            state_BW = jnp.where(place <= position, hashed(state_BW, inputs_BWN[:, :, place]), state_BW)
        return params[cache.sources[:, None], state_BW], Cache(tokens, cache.sources)

    def project(self, params, hidden_BWD):
        return Head(hidden_BWD, jnp.eye(params.shape[-1]), None)


def hashed(state, token):
    return (3 * state + 2 * token + 1) % STATES


def logits_of(table, source):
    """The same model, for plain Python."""

    def model(tokens):
        state = 0
        for token in (BOS, *tokens):
            state = hashed(state, token)
        return table[source, state]

    return model


@functools.partial(jax.jit, static_argnames=("W", "N"))
def run(table, sources, limits, penalty, prefix, *, W, N=N):
    B = sources.shape[0]
    memory = sources.astype(jnp.float32)[:, None, None]
    return beam_search(
        Tables(), table, memory, jnp.ones(B, jnp.int32), limits, beam_size=W, max_steps=N, length_penalty=penalty,
        prefix=prefix,
    )  # fmt: skip


def translate(table, limits, *, W, penalty=1.0, prefixes=None, sources=None):
    """Rows of `run` as lists of (tokens, score, log_prob)."""
    sources = np.arange(len(limits)) if sources is None else np.asarray(sources)
    prefixes = prefixes or [()] * len(limits)
    width = 3
    padded = np.array([[*p, *[0] * (width - len(p))] for p in prefixes], np.int32)
    prefix = padded, np.array([len(p) for p in prefixes], np.int32)
    out = run(
        jnp.asarray(table, jnp.float32), jnp.asarray(sources, jnp.int32), jnp.asarray(limits, jnp.int32),
        jnp.float32(penalty), prefix, W=W,
    )  # fmt: skip
    return rows(out)


def rows(out):
    out = jax.device_get(out)
    found = []
    for tokens, lengths, scores, log_probs in zip(out.tokens, out.lengths, out.scores, out.log_probs, strict=True):
        real = scores > -np.inf
        assert (np.diff(real.astype(int)) <= 0).all()
        assert not tokens[~real].any() and not lengths[~real].any() and (log_probs[~real] == -np.inf).all()
        for row, length in zip(tokens, lengths, strict=True):
            assert not row[length:].any() and (row[:length] > 2).all()
        found.append(
            [
                oracle.Found(tokens[w, : lengths[w]].tolist(), float(scores[w]), float(log_probs[w]))
                for w in range(len(real))
                if real[w]
            ]
        )
    return found


def assert_same(found, expected):
    assert [f.tokens for f in found] == [e.tokens for e in expected]
    np.testing.assert_allclose([f.score for f in found], [e.score for e in expected], atol=1e-4)
    np.testing.assert_allclose([f.log_prob for f in found], [e.log_prob for e in expected], atol=1e-4)


@st.composite
def problems(draw):
    V, B = draw(st.sampled_from([4, 5, 7])), 3
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        table = rng.normal(size=(B, STATES, V)) * draw(st.sampled_from([0.3, 1.5]))
    else:  # whole numbers: ties
        table = rng.integers(-1, 2, (B, STATES, V)).astype(float)
    table[:, :, 2] += draw(st.sampled_from([-2.0, 0.0, 1.0]))
    limits = draw(st.lists(st.integers(1, N), min_size=B, max_size=B))
    prefixes = draw(st.lists(st.lists(st.integers(3, V - 1), max_size=3).map(tuple), min_size=B, max_size=B))
    return table, limits, prefixes


@settings(max_examples=150)
@given(problems(), st.integers(1, 5), st.sampled_from([0.0, 0.6, 1.0, 2.0]), st.booleans())
def test_hypotheses_are_those_of_the_plain_search(problem, W, penalty, forced):
    table, limits, prefixes = problem
    prefixes = prefixes if forced else [()] * len(limits)
    expected, closeness = [], oracle.Closeness()
    for row, (limit, prefix) in enumerate(zip(limits, prefixes, strict=True)):
        found = oracle.search(logits_of(table, row), W, limit, penalty=penalty, prefix=prefix, closeness=closeness)
        expected.append(found)
    assume(closeness.smallest > CLOSE)
    found = translate(table, limits, W=W, penalty=penalty, prefixes=prefixes)
    for row, (hypotheses, _) in enumerate(expected):
        assert_same(found[row], hypotheses)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_wider_than_all_prefixes_finds_everything_in_order(penalty):
    rng = np.random.default_rng(3)
    table = rng.normal(size=(2, STATES, 5))
    limits = [4, 3]  # 15 and 7 translations of at most 3 and 2 tokens, of 2 kinds
    found = translate(table, limits, W=16, penalty=penalty)
    for row, limit in enumerate(limits):
        expected = oracle.everything(logits_of(table, row), limit, penalty=penalty)
        assert len(expected) >= limit
        assert_same(found[row], expected)


def test_beam_1_is_greedy():
    rng = np.random.default_rng(4)
    table = rng.normal(size=(6, STATES, 9))
    limits = [7, 7, 3, 1, 5, 7]
    found = translate(table, limits, W=1, penalty=0.0)
    for row, limit in enumerate(limits):
        tokens, log_prob = oracle.greedy(logits_of(table, row), limit)
        assert_same(found[row], [oracle.Found(tokens, log_prob, log_prob)])


@pytest.mark.parametrize("W", [1, 4])
def test_a_row_does_not_depend_on_its_company(W):
    rng = np.random.default_rng(5)
    table = jnp.asarray(rng.normal(size=(6, STATES, 11)), jnp.float32)
    prefix = jnp.zeros((3, 1), jnp.int32), jnp.zeros(3, jnp.int32)

    def row_0(sources, limits):
        out = run(table, jnp.array(sources), jnp.array(limits), jnp.float32(1), prefix, W=W)
        return jax.tree.map(lambda a: np.asarray(a)[0].tobytes(), tuple(out))

    alone = row_0([0, 5, 5], [5, 1, 1])
    assert alone == row_0([0, 1, 2], [5, 7, 7]) == row_0([0, 3, 0], [5, 2, 7])


@pytest.mark.parametrize(
    ("W", "limits", "sources", "expected"),
    [
        (2, [7, 7], [0, 0], 2),  # one token, then eos
        (1, [7, 7], [0, 0], 2),
        (2, [7, 4], [0, 1], 4),
        (2, [3, 7], [1, 0], 3),
    ],
)
def test_the_loop_ends_with_the_last_sentence(W, limits, sources, expected, monkeypatch):
    table = np.zeros((2, STATES, 6))
    table[0, :, 2] = 20.0  # ends as soon as it may
    table[1, :, 2] = -20.0  # never ends by itself
    step, steps = Tables.step, []
    monkeypatch.setattr(Tables, "step", lambda *arguments: steps.append(1) or step(*arguments))
    with jax.disable_jit():  # loops are Python's, so each step is a call
        translate(table, limits, W=W, sources=sources)
    assert len(steps) == expected


@pytest.mark.parametrize("W", [1, 3])
def test_room_changes_nothing(W, monkeypatch):
    table = np.random.default_rng(10).normal(size=(4, STATES, 8))
    table[:2, :, 2] += 2.0  # some end early
    batches = [7, 7, 7, 7], [2, 1, 2, 2], [3, 4, 4, 2]
    expected = [translate(table, limits, W=W) for limits in batches]
    for room in (1, 3, 7):
        monkeypatch.setattr(beam, "FIRST_ROOM", room)
        run.clear_cache()
        assert [translate(table, limits, W=W) for limits in batches] == expected
    run.clear_cache()


def test_room_doubles_up_to_the_last_step(monkeypatch):
    monkeypatch.setattr(beam, "FIRST_ROOM", 16)
    assert [beam._rooms(n) for n in (1, 16, 32, 128)] == [[1], [16], [16, 32], [16, 32, 64, 128]]
    # Of the limits of sources of 1, 16, 32, 64, 128 pieces none has a last room that adds less than half.
    expected = [[18], [16, 32, 48], [16, 32, 80], [16, 32, 64, 144], [16, 32, 64, 128, 272]]
    assert [beam._rooms(2 * S + 16) for S in (1, 16, 32, 64, 128)] == expected
    assert [beam._rooms(n) for n in (17, 23, 24, 47, 48)] == [[17], [23], [16, 24], [16, 47], [16, 32, 48]]


def test_penalty_limits_and_prefixes_are_traced():
    table = np.random.default_rng(6).normal(size=(2, STATES, 6))
    translate(table, [7, 7], W=3)
    size = run._cache_size()
    translate(table, [3, 5], W=3, penalty=0.3, prefixes=[(4,), (5, 3)])
    assert run._cache_size() == size


def test_padding_and_bos_are_never_generated_and_keep_their_mass():
    table = np.zeros((1, STATES, 5))
    table[:, :, :2] = 8.0
    (found,) = translate(table, [2], W=2)
    assert [f.tokens for f in found] == [[3], [4]]  # 3 is unk: like any token
    expected = 2 * oracle.log_softmax(table[0, 0])[3]
    np.testing.assert_allclose([f.log_prob for f in found], expected, rtol=1e-6)


def test_a_prefix_that_ends_is_the_only_hypothesis():
    table = np.random.default_rng(7).normal(size=(1, STATES, 6))
    prefix = jnp.array([[4, 2]]), jnp.array([2])
    out = run(jnp.asarray(table, jnp.float32), jnp.array([0]), jnp.array([7]), 1.0, prefix, W=3)
    ((only,),) = rows(out)
    assert only.tokens == [4]


def test_sizes_must_be_positive():
    arguments = Tables(), None, jnp.zeros((1, 1, 1)), jnp.ones(1, jnp.int32), jnp.ones(1, jnp.int32)
    with pytest.raises(ValueError, match="beam_size"):
        beam_search(*arguments, beam_size=0, max_steps=4)
    with pytest.raises(ValueError, match="max_steps"):
        beam_search(*arguments, beam_size=1, max_steps=0)


@pytest.mark.parametrize("with_bias", [False, True])
def test_score_is_the_sum_over_tokens_and_eos(with_bias):
    rng = np.random.default_rng(8)
    B, D, V = 3, 6, 9
    hidden, kernel, bias = rng.normal(size=(B, N, D)), rng.normal(size=(D, V)), rng.normal(size=V)
    targets, lengths = rng.integers(3, V, (B, N)), [7, 3, 0]
    for row, length in enumerate(lengths):
        targets[row, length - 1 if length else 0 :] = 0
        targets[row, length - 1] = 2 if length else 0
    head = Head(*(jnp.asarray(a, jnp.float32) for a in (hidden, kernel)), jnp.asarray(bias, jnp.float32))
    found = score(head if with_bias else head._replace(bias=None), jnp.asarray(targets), jnp.asarray(lengths))
    logits = hidden @ kernel + (bias if with_bias else 0)
    for row, length in enumerate(lengths):
        expected = sum(oracle.log_softmax(logits[row, n])[targets[row, n]] for n in range(length))
        np.testing.assert_allclose(found.total[row], expected, rtol=1e-5)
        np.testing.assert_allclose(found.mean[row], expected / max(length, 1), rtol=1e-5)


@pytest.mark.parametrize("W", [1, 3])
def test_the_search_and_score_agree(W):
    rng = np.random.default_rng(9)
    table = rng.normal(size=(1, STATES, 8))
    (found,) = translate(table, [N], W=W)
    for hypothesis in found:
        target = [*hypothesis.tokens, 2]
        states = [logits_of(table, 0)(tuple(target[:n])) for n in range(len(target))]
        head = Head(jnp.asarray([states], jnp.float32), jnp.eye(8), None)
        total = score(head, jnp.asarray([target]), jnp.asarray([len(target)])).total[0]
        np.testing.assert_allclose(hypothesis.log_prob, total, rtol=1e-5)
