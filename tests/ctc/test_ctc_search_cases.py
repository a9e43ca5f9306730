"""beam_search: what must not matter, hashes that collide, cases at the edge, and wrong arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_devices import run_on_two
from ctc_search_oracle import Plain, by_dictionary, collapsed, hypotheses, normalised, random_table

from natjax import ctc
from natjax.ctc import Implementation, Pruned, _beam, _prefixes

OPTIONS = {"beam_size": 5, "top_k": 4, "length_bonus": 0.6}


def problem(seed, batch=4, frames=11, vocabulary=7):
    random = np.random.default_rng(seed)
    logits = jnp.asarray(random.normal(size=(batch, frames, vocabulary), scale=2.0), jnp.float32)
    return logits, jnp.asarray([frames, *random.integers(0, frames + 1, batch - 1)], jnp.int32)


LM = random_table(np.random.default_rng(0), 7)
WITH_LM = {**OPTIONS, "lm": LM, "lm_weight": 0.5, "score_eos": True}


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_frames_beyond_the_length_change_nothing():
    logits, lengths = problem(1)
    junk = np.random.default_rng(2).choice(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), (4, 9, 7))
    wide = jnp.concatenate([logits, jnp.asarray(junk)], axis=1)
    inside = jnp.arange(20)[None, :, None] < lengths[:, None, None]
    wide = jnp.where(inside, wide, wide[:1, ::-1])  # junk up to each row's own length
    short, long = ctc.beam_search(logits, lengths, **WITH_LM), ctc.beam_search(wide, lengths, **WITH_LM)
    equal(short[1:], long[1:])
    np.testing.assert_array_equal(short.tokens, long.tokens[:, :, :11])
    assert (long.tokens[:, :, 11:] == 0).all() and int(lengths.min()) < 11


def test_other_rows_change_no_bit():
    logits, lengths = problem(3)
    other, _ = problem(4)
    kept, lengths = jnp.array([0, 2]), lengths.at[1].set(11)
    mixed = other.at[kept].set(logits[kept]).at[1, 3].set(jnp.nan).at[3].set(-jnp.inf)
    one, two = ctc.beam_search(logits, lengths, **WITH_LM), ctc.beam_search(mixed, lengths, **WITH_LM)
    equal(jax.tree.map(lambda x: x[kept], one), jax.tree.map(lambda x: x[kept], two))
    swapped = ctc.beam_search(logits[::-1], lengths[::-1], **WITH_LM)
    equal(one, jax.tree.map(lambda x: x[::-1], swapped))


def test_vmap_of_rows_and_of_weights_changes_nothing():
    logits, lengths = problem(5)
    whole = ctc.beam_search(logits, lengths, **WITH_LM)
    rows = jax.vmap(lambda z, n: ctc.beam_search(z[None], n[None], **WITH_LM))(logits, lengths)
    rows = jax.tree.map(lambda x: x[:, 0], rows)
    equal(whole[:2], rows[:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole[2:], rows[2:])
    alphas = jnp.array([0.1, 0.5])
    grid = jax.vmap(lambda alpha: ctc.beam_search(logits, lengths, **{**WITH_LM, "lm_weight": alpha}))(alphas)
    equal(whole[:2], jax.tree.map(lambda x: x[1], grid)[:2])
    assert (grid.scores[0] != grid.scores[1]).any()


def test_weights_and_models_are_values():
    logits, lengths = problem(6)
    search = _beam._compiled
    ctc.beam_search(logits, lengths, **WITH_LM)
    before = search._cache_size()
    first = ctc.beam_search(logits, lengths, **{**WITH_LM, "lm_weight": 0.0})
    for alpha, beta, seed in ((0.25, 0, 0), (np.float64(2.0), jnp.float32(-1.0), 0), (0, 0.6, 9)):
        lm = random_table(np.random.default_rng(seed), 7)
        options = {**WITH_LM, "lm_weight": alpha, "length_bonus": beta, "lm": lm}
        assert (ctc.beam_search(logits, lengths, **options).scores != first.scores).any() or alpha == 0
    assert search._cache_size() == before
    ctc.beam_search(logits, lengths, **{**WITH_LM, "beam_size": 6})
    assert search._cache_size() == before + 1


def colliding_pair(size=3, vocabulary=1000):
    """Two sequences of different tokens whose first hashes agree (by the birthday paradox), and whose second do not."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, vocabulary, (300_000, size), dtype=np.int32)
    first, second = (np.full(len(tokens), seed, np.uint32) for seed in _prefixes._SEEDS)
    for place in range(size):
        first, second = (np.asarray(_prefixes._hashed(jnp.asarray(h), tokens[:, place])) for h in (first, second))
    order = np.argsort(first, kind="stable")
    for i in np.flatnonzero(first[order][1:] == first[order][:-1]):
        x, y = order[i], order[i + 1]
        if len({*tokens[x].tolist(), *tokens[y].tolist()}) == 2 * size:
            assert first[x] == first[y] and second[x] != second[y]
            return tokens[x].tolist(), tokens[y].tolist()
    raise AssertionError("no pair")


def test_two_hashes_tell_apart_what_one_would_not(monkeypatch):
    one, other = colliding_pair()
    # Two sequences beside each other, and then the same token after either of them, on one of several frames.
    frames = [{a: 0.5, b: 0.4, 0: 0.1} for a, b in zip(one, other, strict=True)] + [{7: 0.5, 0: 0.5}] * 3
    assert 7 not in one + other
    probabilities = np.full((1, len(frames), 1000), 1e-9)
    for t, frame in enumerate(frames):
        probabilities[0, t, list(frame)] = list(frame.values())
    logits = jnp.asarray(np.log(probabilities), jnp.float32)
    expected = by_dictionary(normalised(logits[0]), Plain(None), 0.0, 0.0, "linear", 90, 2)

    def search():
        # Without its own cache, which does not know of the patch.
        found = _beam._compiled.__wrapped__(
            ctc.prune(logits, top_k=2), jnp.array([len(frames)]), None, (jnp.float32(0), jnp.float32(0)),
            _beam._Options(90, 2, False, False),
        )  # fmt: skip
        return hypotheses(found, 0)

    def agrees(found):
        masses = {tokens: score for tokens, score, *_ in expected}
        return {tokens for tokens, *_ in found} == set(masses) and all(
            abs(score - masses[tokens]) < 1e-4 for tokens, score, *_ in found
        )

    assert {(*one, 7), (*other, 7)} <= {tokens for tokens, *_ in expected}
    assert agrees(search())
    # The pair would indeed be mistaken for each other if the second hash were the first again.
    monkeypatch.setattr(_prefixes, "_SEEDS", _prefixes._SEEDS[:1] * 2)
    assert not agrees(search())


def test_no_frames_no_rows_and_blanks_only():
    result = ctc.beam_search(jnp.zeros((2, 0, 5)), jnp.array([0, 0]), top_k=4, length_bonus=1.0)
    assert result.tokens.shape == (2, 20, 0) and (result.lengths == 0).all()
    for scores in result[2:]:
        np.testing.assert_array_equal(scores, [[0.0] + 19 * [-np.inf]] * 2)
    assert ctc.beam_search(jnp.zeros((0, 3, 5)), jnp.zeros(0, jnp.int32), **OPTIONS).tokens.shape == (0, 5, 3)
    blanks = jnp.full((1, 6, 5), -jnp.inf).at[:, :, 0].set(3.0)
    best = ctc.beam_search(blanks, jnp.array([6]), **OPTIONS)
    assert best.lengths.tolist() == [[0] * 5] and (best.tokens == 0).all()
    np.testing.assert_array_equal(best.scores, [[0.0] + 4 * [-np.inf]])
    np.testing.assert_array_equal(best.lm_scores, best.ctc_scores)


def test_one_slot_and_one_token_a_frame_follow_the_greedy_path_where_it_is_sure():
    random = np.random.default_rng(7)
    frames = random.integers(0, 4, (5, 30))
    logits = jnp.asarray(random.normal(size=(5, 30, 9)) + 14 * np.eye(9)[frames], jnp.float32)
    result = ctc.beam_search(logits, jnp.full(5, 30), beam_size=1, top_k=1)
    expected = [list(collapsed(row, 0)) for row in frames.tolist()]
    assert [hypotheses(result, row)[0][0] for row in range(5)] == [tuple(row) for row in expected]


def test_nan_and_infinities():
    logits, lengths = problem(8)
    lengths = jnp.full_like(lengths, 11).at[3].set(5)
    logits = logits.at[0, 4, 2].set(jnp.nan).at[1, 4, 2].set(jnp.inf).at[2, 4].set(-jnp.inf).at[3, 5].set(jnp.nan)
    result = ctc.beam_search(logits, lengths, **WITH_LM)
    for row in (0, 1):
        assert (result.lengths[row] == 0).all() and (result.tokens[row] == 0).all()
        for scores in result[2:]:
            assert np.isnan(scores[row]).all()
    for scores in result[2:]:  # a frame that allows nothing
        assert (scores[2] == -np.inf).all()
    assert (result.lengths[2] == 0).all() and (result.tokens[2] == 0).all()
    assert np.isfinite(result.scores[3]).all()


def test_what_the_model_forbids():
    logits, lengths = problem(9)
    forbidding = LM._replace(log_probs=LM.log_probs.at[:, 3].set(-jnp.inf))
    free = ctc.beam_search(logits, lengths, **OPTIONS)
    for alpha, same in ((0.5, False), (0.0, True)):
        result = ctc.beam_search(logits, lengths, **{**OPTIONS, "lm": forbidding, "lm_weight": alpha})
        assert not any(np.isnan(scores).any() for scores in result[2:])
        assert (result.tokens == 3).any() == same
        if same:
            equal((free.tokens, free.scores), (result.tokens, result.scores))
    assert (free.tokens == 3).any()


def test_the_ids_of_the_blank_and_the_dtypes_of_logits():
    logits, lengths = problem(10)
    order = jnp.array([1, 2, 3, 4, 0, 5, 6])  # column i is token order[i], so that the blank is column 4
    moved = ctc.beam_search(logits[..., order], lengths, **OPTIONS, blank_id=4)
    usual = ctc.beam_search(logits, lengths, **OPTIONS)
    inside = jnp.arange(11)[None, None] < moved.lengths[..., None]
    np.testing.assert_array_equal(jnp.where(inside, order[moved.tokens], 0), usual.tokens)
    np.testing.assert_array_equal(moved.scores, usual.scores)
    half = logits.astype(jnp.bfloat16)
    equal(ctc.beam_search(half, lengths, **OPTIONS), ctc.beam_search(half.astype(jnp.float32), lengths, **OPTIONS))
    with jax.enable_x64(True):
        double = ctc.beam_search(jnp.asarray(np.asarray(logits), jnp.float64), lengths, **WITH_LM)
    assert double.scores.dtype == jnp.float64
    np.testing.assert_allclose(double.scores, ctc.beam_search(logits, lengths, **WITH_LM).scores, rtol=1e-5)


def test_pruned_frames_give_what_logits_give():
    logits, lengths = problem(11)
    whole = ctc.beam_search(logits, lengths, **OPTIONS)
    equal(whole, ctc.beam_search(ctc.prune(logits, top_k=4), lengths, **OPTIONS))
    equal(whole, ctc.beam_search(ctc.prune(logits, top_k=6), lengths, **OPTIONS))  # the first top_k of them
    equal(whole, ctc.beam_search(ctc.prune(logits, top_k=4), lengths, beam_size=5, length_bonus=0.6))  # all there are


def test_two_devices_give_what_one_gives():
    run_on_two("""
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import PartitionSpec as P
from natjax import ctc
mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9, 6)) * 2, jnp.float32)
lengths = jnp.array([9, 4, 0, 7])
search = partial(ctc.beam_search, beam_size=5, top_k=3, length_bonus=0.5)
alone = search(logits, lengths)
there = jax.sharding.NamedSharding(mesh, P("rows"))
placed = jax.jit(search)(jax.device_put(logits, there), jax.device_put(lengths, there))
rows = P("rows")
mapped = jax.jit(jax.shard_map(search, mesh=mesh, in_specs=(rows, rows), out_specs=rows))(logits, lengths)
for result in (placed, mapped):
    np.testing.assert_array_equal(result.tokens, alone.tokens)
    np.testing.assert_array_equal(result.lengths, alone.lengths)
    np.testing.assert_allclose(result.scores, alone.scores, rtol=1e-6)
print("the same on two devices")
""")


def test_wrong_arguments_are_refused():
    logits, lengths = jnp.zeros((2, 2, 5)), jnp.array([2, 1])
    with pytest.raises(ValueError, match=r"^top_k must lie in 1\.\.4 \(V = 5, one of which is the blank\), got 20$"):
        ctc.beam_search(logits, lengths)
    with pytest.raises(ValueError, match=r"^top_k must be at least 1, got 0$"):
        ctc.beam_search(ctc.prune(logits, top_k=2), lengths, top_k=0)
    wide = (
        r"^beam_size 10 is wider than top_k allows: 2 frames of top_k = 2 tokens and the blank have 9 outputs at most;"
    )
    with pytest.raises(ValueError, match=wide):
        ctc.beam_search(logits, lengths, top_k=2, beam_size=10)
    assert ctc.beam_search(logits, lengths, top_k=2, beam_size=9).lengths.shape == (2, 9)
    with pytest.raises(ValueError, match=r"^beam_size must be at least 1, got 0$"):
        ctc.beam_search(logits, lengths, top_k=2, beam_size=0)
    for weight in (0.4, np.float32(0.4), jnp.float32(0.4), np.float64("nan"), np.array([0.4])):
        with pytest.raises(ValueError, match=r"^lm_weight needs a language model, but lm is None$"):
            ctc.beam_search(logits, lengths, top_k=2, beam_size=2, lm_weight=weight)
    with pytest.raises(ValueError, match=r"^lm_weight needs a language model, but lm is None"):
        jax.vmap(lambda weight: ctc.beam_search(logits, lengths, top_k=2, beam_size=2, lm_weight=weight))(jnp.ones(2))
    assert ctc.beam_search(logits, lengths, top_k=2, beam_size=2, lm_weight=jnp.float32(0)).lengths.shape == (2, 2)
    for end_id in (0, -1):
        with pytest.raises(ValueError, match=f"^end_id must be a token other than the blank, got {end_id}$"):
            ctc.beam_search(logits, lengths, top_k=2, beam_size=2, end_id=end_id)
    with pytest.raises(ValueError, match=r"^score_eos needs a language model, but lm is None$"):
        ctc.beam_search(logits, lengths, top_k=2, beam_size=2, score_eos=True)
    with pytest.raises(ValueError, match=r"^length_bonus_form must be one of linear, log, got 'root'$"):
        ctc.beam_search(logits, lengths, length_bonus_form="root")
    with pytest.raises(ValueError, match=r"^length_bonus must be one number, got the shape \(2,\)$"):
        ctc.beam_search(logits, lengths, top_k=2, beam_size=2, length_bonus=jnp.zeros(2))
    with pytest.raises(ValueError, match="must be one of AUTO, SCAN here, got BLOCKS"):
        ctc.beam_search(logits, lengths, implementation=Implementation.BLOCKS)
    with pytest.raises(ValueError, match="batch dimensions differ"):
        ctc.beam_search(logits, jnp.array([2]), top_k=2, beam_size=2)
    with pytest.raises(TypeError, match="logit_lengths must have an integer dtype"):
        ctc.beam_search(logits, jnp.ones(2), top_k=2, beam_size=2)
    pruned = Pruned(jnp.ones((2, 2, 1), jnp.int32), jnp.zeros((2, 2, 1)), jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"shapes differ: tokens \(2, 2, 1\), log_probs \(2, 2, 1\), blank \(2, 3\)"):
        ctc.beam_search(pruned, lengths, beam_size=2)
