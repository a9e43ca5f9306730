"""Estimation against the definitions, word by word; conventions; shards."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lm_oracle import BOS, EOS, UNK, KneserNey, corpus, flat

from natjax.errors import LanguageModelError
from natjax.lm import estimate, perplexity, stream
from natjax.lm.counting import count

V = 50
PRUNES = [(), (0, 0, 1), (0, 1), (0, 1, 1, 2), (0, 0, 0, 3)]


def made(rows, order, prune=(), **more):
    return estimate(stream(*flat(rows)), order=order, vocabulary_size=V, prune=prune[:order], **more)


def grams(model, level):
    """All n-grams of an order as tuples."""
    if level == 1:
        return [(t,) for t in np.flatnonzero(model.listed).tolist()]
    context, token = np.divmod(model.levels[level - 2].keys, V)
    below = grams(model, level - 1) if level > 2 else [(t,) for t in range(V)]
    return [(*below[c], t) for c, t in zip(context.tolist(), token.tolist())]


def check(rows, order, prune, probes):
    model, discounts = made(rows, order, prune)
    plain = KneserNey(rows, order, prune[:order])
    assert [pytest.approx(d.amounts) for d in discounts] == [plain.discounts[k] for k in range(1, order + 1)]
    assert set(grams(model, 1)) == {(w,) for w in plain.words} | {(BOS,)}
    for k in range(2, order + 1):
        listed = grams(model, k)
        assert set(listed) == plain.kept[k]
        expected = [np.log(plain.prob(g[:-1], g[-1])) for g in listed]
        np.testing.assert_allclose(model.levels[k - 2].log_probs, expected, atol=2e-6, rtol=1e-6)
        if k < order:
            weights = [np.log(plain.gamma(g)) if plain.following.get(g) else 0.0 for g in listed]
            np.testing.assert_allclose(model.levels[k - 2].backoffs, weights, atol=2e-6, rtol=1e-6)
    for row in probes:
        found = model.score(stream(*flat([row])))
        assert found[0] == 0.0
        np.testing.assert_allclose(found[1:], plain.score(row), atol=5e-6, rtol=1e-6)


@given(
    rows=st.lists(st.lists(st.integers(UNK, 8), max_size=8), min_size=1, max_size=12),
    order=st.integers(2, 6),
    prune=st.sampled_from(PRUNES),
    probe=st.lists(st.integers(UNK, 12), max_size=8),
)
@example(rows=[[]], order=2, prune=(), probe=[5])
@example(rows=[[UNK], [UNK, 4, UNK]], order=3, prune=(), probe=[UNK, 4])
@example(rows=[[4, 4, 4, 4]], order=6, prune=(0, 0, 1), probe=[4, 4, 4])
def test_any_small_text(rows, order, prune, probe):
    check(rows, order, prune, [*rows[:3], probe])


@pytest.mark.parametrize("order", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("prune", PRUNES)
def test_a_larger_text(order, prune):
    rows = corpus(order, unknown=0.01 if len(prune) == 3 else 0.0)
    check(rows, order, prune, [*rows[:20], *corpus(99, 20, 46, 0.1)])


def test_both_kinds_of_discounts_are_met():
    kinds = {d.fallback for d in made(corpus(4), 4)[1]} | {d.fallback for d in made([[4, 5]], 2)[1]}
    assert kinds == {True, False}


@pytest.mark.parametrize("prune", PRUNES)
@pytest.mark.parametrize("order", [2, 4, 6])
def test_probabilities_sum_to_one(order, prune):
    rows, generator = corpus(order), np.random.default_rng(order)
    model, _ = made(rows, order, prune)
    words = [t for t in np.flatnonzero(model.listed) if t != BOS]
    for row in rows[:6] + [generator.integers(UNK, V, 5).tolist() for _ in range(6)]:
        cut = row[: generator.integers(len(row) + 1)]
        # Every word after the same words; EOS within a sentence is none, so it comes as the end of a shorter one.
        ends = [model.score(stream(*flat([cut if w == EOS else [*cut, w]])))[len(cut) + 1] for w in words]
        assert np.exp(ends).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("shard_tokens", [1, 7, 64, 1000])
def test_shards_change_nothing(shard_tokens):
    text = stream(*flat(corpus(3, 60)))
    whole, parts = count(text, 5, V), count(text, 5, V, shard_tokens=shard_tokens)
    for one, other in zip(whole, parts, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_keys_beyond_32_bits():
    # Six tokens of 30,000 pieces do not fit 64 bits when packed; here they need not.
    rows = np.random.default_rng(0).integers(4, 30_000, (40, 9)).tolist()
    model, _ = estimate(stream(*flat(rows)), order=6, vocabulary_size=30_000)
    plain = KneserNey(rows, 6)
    np.testing.assert_allclose(model.score(stream(*flat(rows[:1])))[1:], plain.score(rows[0]), rtol=1e-5)


def test_streams():
    tokens, offsets = flat([[5, 6], [], [7, EOS], [EOS]])
    for dtype in (np.uint16, np.uint32, np.int32):
        found = stream(tokens.astype(dtype), offsets)
        assert found.tolist() == [BOS, 5, 6, EOS, BOS, EOS, BOS, 7, EOS, BOS, EOS]
    for bad in ([0], [1], [EOS, 5]):
        with pytest.raises(ValueError):
            stream(*flat([[4], bad]))


def test_perplexity():
    rows = corpus(5)
    model, _ = made(rows[:200], 3)
    plain, held_out = KneserNey(rows[:200], 3), [*rows[200:], [49, 4]]
    found = perplexity(model, stream(*flat(held_out)))
    scores = [s for row in held_out for s in plain.score(row)]
    unknown = [t not in plain.words for row in held_out for t in [*row, EOS]]
    assert (found.sentences, found.tokens, found.unknown) == (len(held_out), len(scores), sum(unknown))
    assert found.unknown >= 1
    assert found.perplexity == pytest.approx(np.exp(-np.mean(scores)), rel=1e-5)
    known = [s for s, u in zip(scores, unknown, strict=True) if not u]
    assert found.perplexity_known == pytest.approx(np.exp(-np.mean(known)), rel=1e-5)
    assert (found + found).perplexity == pytest.approx(found.perplexity)
    assert f"{found.perplexity:,.2f}" in found.describe()


@pytest.mark.parametrize(
    ("order", "prune", "message"),
    [
        (1, [], "order 1: must be from 2 to 6"),
        (7, [], "order 7: must be from 2 to 6"),
        (2, [0, 0, 1], "3 thresholds to prune by, but order 2"),
        (3, [1], "prune 1: give one threshold an order"),
        (3, [0, 2, 1], "prune 0 2 1: give one threshold an order"),
        (3, [-1, 0], "prune -1 0: give one threshold an order"),
    ],
)
def test_settings_that_cannot_be(order, prune, message):
    with pytest.raises(LanguageModelError, match=message):
        estimate(stream(*flat([[4]])), order=order, vocabulary_size=V, prune=prune)


def test_no_text():
    with pytest.raises(LanguageModelError, match="no text"):
        made([], 3)
