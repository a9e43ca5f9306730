"""Tables on a device against the host and the definitions; the hash table; tables on disk."""

import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_oracle import BOS, EOS, UNK, KneserNey, corpus, flat

from natjax.errors import LanguageModelError
from natjax.lm import estimate, hashing, load_tables, make_tables, save_tables, score_sentences, sizes, stream
from natjax.lm.hashing import WIDTH

V = 50


@pytest.fixture(scope="module", params=[(2, ()), (3, (0, 1)), (4, (0, 0, 1)), (6, ())], ids=str)
def case(request):
    order, prune = request.param
    rows = corpus(order)
    model = estimate(stream(*flat(rows)), order=order, vocabulary_size=V, prune=prune)[0]
    return rows, model, KneserNey(rows, order, prune), make_tables(model)


def test_seen_and_random_sentences(case):
    rows, model, plain, tables = case
    generator = np.random.default_rng(0)
    asked = rows[:40] + [generator.integers(UNK, V, generator.integers(12)).tolist() for _ in range(40)]
    for row, found in zip(asked, score_sentences(tables, asked), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain.score(row), atol=2e-5, rtol=1e-5)
        np.testing.assert_allclose(found, model.score(stream(*flat([row])))[1:], atol=2e-5, rtol=1e-5)


def test_every_word_after_every_state_within_compiled_programs(case):
    rows, model, plain, tables = case
    tables = jax.device_put(tables)
    words = np.array(sorted(plain.words), np.int32)

    @jax.jit
    def after(tables, row):
        """The state after a sentence's first tokens, by scan."""
        return jax.lax.scan(lambda s, t: (tables.score(s, t)[1], None), tables.start(), row)[0]

    score = jax.jit(jax.vmap(jax.vmap(lambda t, s, w: t.score(s, w), (None, None, 0)), (None, 0, None)))
    generator = np.random.default_rng(1)
    starts = [row[: generator.integers(1, len(row) + 1)] for row in rows[:30] if row]
    states = jnp.stack([after(tables, jnp.asarray(start, jnp.int32)) for start in starts])
    found, following = score(tables, states, words)
    assert (found.shape, found.dtype, following.dtype) == ((len(starts), len(words)), jnp.float32, jnp.int32)
    for start, log_probs in zip(starts, found, strict=True):
        expected = [np.log(plain.prob((BOS, *start), int(w))) for w in words]
        np.testing.assert_allclose(log_probs, expected, atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, atol=1e-4)
    flat_states = jnp.broadcast_to(states[:, None], found.shape).reshape(-1)
    again = tables.score(flat_states, jnp.broadcast_to(words, found.shape).reshape(-1))
    np.testing.assert_array_equal(again[0], found.reshape(-1))
    np.testing.assert_array_equal(again[1], following.reshape(-1))


def test_states_keep_no_more_than_matters(case):
    _, model, plain, tables = case
    # After an unknown piece, or the end, everything is forgotten: no n-gram begins with either.
    for token in (UNK, V - 1, 0, BOS, EOS):
        log_prob, state = tables.score(tables.start(), jnp.int32(token))
        assert state == 0
        assert token not in plain.words or log_prob == pytest.approx(np.log(plain.prob((BOS,), token)), abs=1e-5)
        if token != EOS:
            assert log_prob == tables.score(tables.start(), jnp.int32(UNK))[0]
    assert len(tables.shorter) == V + sum(len(level.keys) for level in model.levels[:-1])


def test_sizes(case):
    _, model, _, tables = case
    found = sizes(tables)
    assert found.ngrams == sum(model.counts)
    assert found.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(tables))
    assert 0.5 < found.load <= 0.81


# The hash table.


def check(table, state, token):
    pairs = hashing.buckets(np, state, token, np.uint32(table.seed), table.buckets)
    assert len(set(table.slots.tolist())) == len(state)
    assert table.slots.min(initial=0) >= 0
    mine = table.slots // WIDTH
    assert ((mine == pairs[0]) | (mine == pairs[1])).all()
    assert mine.max(initial=0) < table.buckets


@given(st.sets(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=200))
def test_any_keys_find_their_slots(keys):
    keys = np.array(sorted(keys), np.int32).reshape(-1, 2)
    check(hashing.build(keys[:, 0], keys[:, 1]), keys[:, 0], keys[:, 1])


@pytest.mark.parametrize("n", [1, 4, 5, 200_000])
def test_keys_in_rows(n):
    for state, token in ((np.arange(n), np.full(n, 7)), (np.full(n, 7), np.arange(n)), (np.arange(n), np.arange(n))):
        state, token = state.astype(np.int32), token.astype(np.int32)
        table = hashing.build(state, token)
        check(table, state, token)
        assert n / (table.buckets * WIDTH) > 0.7 or n < 100


def test_keys_chosen_to_meet_in_one_bucket():
    n = 200
    buckets = -int(-n // (WIDTH * hashing.LOAD))
    state, token = np.divmod(np.arange(2_000_000, dtype=np.int32), np.int32(1000))
    one, two = hashing.buckets(np, state, token, np.uint32(0), buckets)
    chosen = np.flatnonzero((one < 2) & (two < 2))[:n]
    assert len(chosen) == n  # two buckets have room for a few
    table = hashing.build(state[chosen], token[chosen])
    check(table, state[chosen], token[chosen])
    assert table.seed > 0
    assert table.buckets > buckets


def test_keys_that_must_move():
    # Two choices alone do not fill 90% of the slots.
    n = 30_000
    state = np.random.default_rng(0).permutation(1 << 20)[:n].astype(np.int32)
    token = np.arange(n, dtype=np.int32)
    count = -(-n * 100 // (90 * WIDTH))
    slots = hashing._place(*hashing.buckets(np, state, token, np.uint32(0), count), count)
    check(hashing.HashTable(0, count, slots), state, token)


def test_both_formulations_of_the_hash_agree():
    state, token = np.random.default_rng(0).integers(0, 2**31, (2, 1000), dtype=np.int32)
    for seed, count in ((0, 1), (5, 1000), (2**32 - 1, 2**31 - 1)):
        host = hashing.buckets(np, state, token, np.uint32(seed), count)
        device = hashing.buckets(jnp, jnp.asarray(state), jnp.asarray(token), jnp.uint32(seed), count)
        for a, b in zip(host, device, strict=True):
            assert (a.dtype, b.dtype) == (np.int32, jnp.int32)
            np.testing.assert_array_equal(a, b)


# On disk.


def test_saved_and_loaded(case, tmp_path):
    tables = case[-1]
    save_tables(tmp_path / "a" / "lm", tables, vocabulary="abc", about={"text": "mine"})
    found = load_tables(tmp_path / "a" / "lm", vocabulary="abc")
    assert found.order == tables.order
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(tables), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    metadata = json.loads((tmp_path / "a" / "lm" / "metadata.json").read_text())
    assert metadata["text"] == "mine"
    assert metadata["vocabulary"] == {"size": V, "fingerprint": "abc"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["lm"]


@pytest.fixture
def saved(tmp_path):
    model = estimate(stream(*flat(corpus(0, 30))), order=3, vocabulary_size=V)[0]
    save_tables(tmp_path / "lm", make_tables(model), vocabulary="abc", about={})
    return tmp_path / "lm"


def refused(folder, vocabulary="abc"):
    with pytest.raises(LanguageModelError) as caught:
        load_tables(folder, vocabulary=vocabulary)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_arrays(saved):
    files = sorted(saved.glob("*.npy"))
    assert len(files) == 9
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert refused(saved).startswith(f"{file}: its content has changed")
        file.write_bytes(whole[:-1])
        assert f"{len(whole) - 1:,} bytes instead of {len(whole):,}" in refused(saved)
        file.unlink()
        assert refused(saved).startswith(f"{file}: missing")
        file.write_bytes(whole)
    load_tables(saved, vocabulary="abc")


def test_damaged_metadata(saved):
    assert "another vocabulary" in refused(saved, "abd")
    file = saved / "metadata.json"
    good = json.loads(file.read_text())
    for text, message in (
        ("{", "not readable as JSON"),
        ("[]", "format 'list' instead of 1"),
        (json.dumps({**good, "format": 2}), "format 2 instead of 1"),
        (json.dumps({**good, "order": "3"}), "a needed field"),
        (json.dumps({**good, "files": {}}), "a needed field"),
        (json.dumps({**good, "vocabulary": None}), "a needed field"),
    ):
        file.write_text(text)
        assert message in refused(saved)
    file.unlink()
    assert "no language model there" in refused(saved)


def test_arrays_that_do_not_belong_together(saved):
    from natjax.atomic import sha256

    metadata = json.loads((saved / "metadata.json").read_text())
    for name, array, message in (
        ("unigrams", np.zeros(V + 1, np.float32), "of shape (51,) instead of (50,)"),
        ("shorter", np.zeros(3, np.int32), "of shape"),
        ("keys", np.zeros((4, WIDTH), np.int32), "of shape"),
        ("first", np.zeros(V, np.int64), "holds int64 instead of int32"),
    ):
        file = saved / f"{name}.npy"
        whole = file.read_bytes()
        np.save(file, array)
        files = {**metadata["files"], file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)}}
        (saved / "metadata.json").write_text(json.dumps({**metadata, "files": files}))
        assert message in refused(saved)
        file.write_bytes(whole)


def test_folders_of_others_are_left_alone(saved):
    tables = load_tables(saved, vocabulary="abc")
    save_tables(saved, tables, vocabulary="abd", about={})  # one's own is replaced
    load_tables(saved, vocabulary="abd")
    (saved / "thesis.tex").write_text("x")
    (saved.parent / "other").mkdir()
    (saved.parent / "other" / "metadata.json").write_text("{}")
    for folder in (saved, saved.parent / "other", saved / "thesis.tex"):
        before = sorted(saved.rglob("*"))
        with pytest.raises(LanguageModelError, match="--output"):
            save_tables(folder, tables, vocabulary="abc", about={})
        assert sorted(saved.rglob("*")) == before


def test_making_tables_takes_little_more_than_tables(monkeypatch):
    model = estimate(stream(*flat(corpus(1, 8000))), order=5, vocabulary_size=V)[0]
    expected = make_tables(model)
    monkeypatch.setattr("natjax.lm.layout._PART", 1000)
    tracemalloc.start()
    try:
        tables = make_tables(model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for a, b in zip(jax.tree.leaves(tables), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert peak < 2.5 * sizes(tables).nbytes
