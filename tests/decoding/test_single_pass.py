"""The compiled single pass: against its parts by hand, and the same whatever stands beside a row."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from natjax.ctc import _head
from natjax.decoding.passes import AHEAD, Decoded, passes
from natjax.decoding.shapes import CPU_ROWS, Shape, batches, rung
from natjax.decoding.single_pass import make_decode, prepare
from natjax.layers.noise import sentence_noise


def _decoder(loss="ctc", candidates=1, length_multiplier=1.0, blank_penalty=0.0, **fields):
    config, network, objective, params = tiny.build(loss, **fields)
    # Fresh parameters say the same of every frame; larger ones tell frames apart.
    params = jax.tree.map(lambda p: p * 3, params)
    options = dict(candidates=candidates, length_multiplier=length_multiplier, blank_penalty=blank_penalty)
    decode = make_decode(network, objective, **options)
    return decode, network, objective, params


def _collapsed(frames):
    return [t for i, t in enumerate(frames) if t and (i == 0 or frames[i - 1] != t)]


@pytest.mark.parametrize("penalty", [0.0, 30.0])
def test_ctc_output_is_the_collapsed_argmax_with_the_blank_held_back(penalty):
    decode, network, objective, params = _decoder(blank_penalty=penalty)
    # Untrained, the blank would hardly ever win.
    params = {**params, "output_bias": params["output_bias"].at[0].add(30.0)}
    batch = tiny.batch()
    out = decode(params, batch.source, batch.source_lengths)
    run, yielded = jax.jit(network.apply, static_argnums=3), 0
    for row in range(4):
        length = int(batch.source_lengths[row])
        head = run({"params": params}, batch.source[row : row + 1, :length], jnp.array([length]), 2 * length)
        scores = np.asarray(head.hidden[0], np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
        frames = (scores - penalty * np.eye(scores.shape[1])[0]).argmax(-1)
        yielded += (frames != scores.argmax(-1)).sum()
        assert out.frames[row, : 2 * length].tolist() == frames.tolist()
        assert (out.frames[row, 2 * length :] == 0).all()
        expected = _collapsed(frames.tolist())
        assert out.tokens[row].tolist() == expected + [0] * (out.tokens.shape[1] - len(expected))
        assert int(out.lengths[row]) == len(expected)
        log_probs = scores[np.arange(2 * length), frames] - np.log(np.exp(scores).sum(-1))
        np.testing.assert_allclose(out.scores[row], log_probs.sum(), rtol=1e-3)
    assert any(int(n) > 1 for n in out.lengths)
    assert (yielded > 0) == (penalty > 0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_latent_comes_from_the_prior(temperature):
    """By hand: the prior's mean, or a draw that only the sentence itself decides, on the way into the upsampling."""
    config, network, objective, params = tiny.build(latents="vae", latent_width=3)
    params = jax.tree.map(lambda p: p * 3, params)
    decode = make_decode(network, objective, temperature=temperature, seed=5)
    batch = tiny.batch()

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    memory = apply("encode", batch.source, batch.source_lengths)
    prior = apply("prior", memory)
    latent = prior.sample(sentence_noise(5, batch.source), temperature) if temperature else prior.mean
    lengths = objective.frames(batch.source_lengths, batch.target_lengths)
    frames = apply("upsample", memory, batch.source_lengths, 16, latent)
    head = apply("project", apply("decode", frames, lengths, memory, batch.source_lengths))
    expected = (head.hidden @ head.kernel + head.bias[None, None]).argmax(-1)
    out = decode(params, batch.source, batch.source_lengths)
    real = np.arange(16) < np.asarray(lengths)[:, None]
    np.testing.assert_array_equal(out.frames, np.where(real, expected, 0))
    # Another place in the batch, other company: the same draw.
    moved = decode(params, batch.source[::-1], batch.source_lengths[::-1])
    np.testing.assert_array_equal(moved.frames[::-1], out.frames)
    other = make_decode(network, objective, temperature=temperature, seed=6)(params, batch.source, batch.source_lengths)
    assert np.array_equal(other.scores, out.scores) == (temperature == 0)


def test_losses_without_a_blank_have_no_blank_penalty():
    batch = tiny.batch()
    (plain, _, _, params), (held, *_) = (_decoder("ce", blank_penalty=penalty) for penalty in (0.0, 30.0))
    # Token 0 wins often, so that holding it back would show.
    params = {**params, "output_bias": params["output_bias"].at[0].add(30.0)}
    one, two = (decode(params, batch.source, batch.source_lengths) for decode in (plain, held))
    assert (one.frames[0, : one.frame_lengths[0]] == 0).any()
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("loss", ["ctc", "ce", "axe"])
def test_company_changes_nothing(loss):
    decode, _, _, params = _decoder(loss)
    batch, other = tiny.batch(seed=0), tiny.batch(seed=1)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:2], b[2:]]), batch, other)
    one, two = (decode(params, b.source, b.source_lengths) for b in (batch, mixed))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:2], b[:2]), one, two)


@pytest.mark.parametrize(
    ("loss", "options"), [("ctc", {}), ("ce", {}), ("axe", {"candidates": 3, "length_multiplier": 1.4})]
)
def test_other_shapes_give_the_same_tokens(loss, options):
    decode, _, _, params = _decoder(loss, **options)
    batch = tiny.batch()
    out = decode(params, batch.source, batch.source_lengths)
    larger = tiny.pad(batch, 8, 16, 9)
    wide = decode(params, larger.source, larger.source_lengths)
    T = out.tokens.shape[1]
    np.testing.assert_array_equal(wide.tokens[:4, :T], out.tokens)
    assert (wide.tokens[:4, T:] == 0).all()
    # A log-probability near 0 is the difference of two numbers as large as the logits, here some hundreds.
    np.testing.assert_allclose(wide.scores[:4], out.scores, rtol=1e-4, atol=5e-3)


def test_golden_lengths_override_predicted_ones():
    decode, _, _, params = _decoder("ce")
    batch = tiny.batch()
    out = decode(params, batch.source, batch.source_lengths, jnp.array([1, 2, 3, 14]))
    assert out.lengths.tolist() == [1, 2, 3, 14]
    with_bound = decode(params, batch.source, batch.source_lengths, jnp.array([1, 2, 3, 99]))
    assert with_bound.lengths.tolist() == [1, 2, 3, 14]  # T = S + length_range


@pytest.mark.parametrize("loss", ["ce", "axe"])
@pytest.mark.parametrize("multiplier", [1.0, 1.3, 0.6])
def test_length_candidates_give_what_each_gives_alone(loss, multiplier):
    decode, network, objective, params = _decoder(loss, candidates=3, length_multiplier=multiplier)
    one_length, *_ = _decoder(loss, length_multiplier=multiplier)
    params = {**params, "output_bias": params["output_bias"].at[0].add(5.0)}  # so that ε wins now and then
    batch = tiny.batch(rows=6)
    memory = network.apply({"params": params}, batch.source, batch.source_lengths, method="encode")
    logits = network.apply({"params": params}, memory, batch.source_lengths, method="length_logits")
    out = decode(params, batch.source, batch.source_lengths)
    order = np.argsort(-np.asarray(logits), axis=1, kind="stable")[:, :3]
    predicted = np.maximum(np.asarray(batch.source_lengths)[:, None] + order - 6, 1)
    choices = np.maximum(np.floor(multiplier * predicted + 0.5 + 1e-9), 1).astype(np.int32)
    tries = [one_length(params, batch.source, batch.source_lengths, jnp.asarray(column)) for column in choices.T]
    means = np.stack([np.asarray(t.scores) / column for t, column in zip(tries, choices.T)])
    best, ranked = np.argmax(means, axis=0), np.sort(means, axis=0)
    assert len(set(best.tolist())) > 1
    for row in range(6):
        chosen = jax.tree.map(lambda array, row=row: array[row], tries[best[row]])
        assert ranked[-1, row] > ranked[-2, row] + 1e-4 or multiplier < 1  # there candidates may coincide
        assert int(out.frame_lengths[row]) == choices[row, best[row]]
        for name in ("tokens", "lengths", "frames"):
            np.testing.assert_array_equal(getattr(out, name)[row], getattr(chosen, name))
        np.testing.assert_allclose(out.scores[row], chosen.scores, rtol=1e-4, atol=5e-3)


def test_given_lengths_are_not_multiplied():
    decode, _, _, params = _decoder("axe", length_multiplier=1.5)
    batch = tiny.batch()
    out = decode(params, batch.source, batch.source_lengths, jnp.array([1, 2, 3, 21]))
    assert out.frame_lengths.tolist() == [1, 2, 3, 21]
    assert out.frames.shape == (4, 21)  # 1.5 · (S + length_range)
    shorter, *_ = _decoder("axe", length_multiplier=0.5)
    assert shorter(params, batch.source, batch.source_lengths, jnp.full(4, 14)).frame_lengths.tolist() == [14] * 4


@pytest.mark.parametrize(
    ("loss", "dtype", "fields"),
    [
        ("ctc", "float32", {}),
        ("ctc", "bfloat16", {}),
        ("ctc", "bfloat16", {"upsampling": "linear", "norm": "post", "activation": "relu"}),
        ("ctc", "bfloat16", {"positions": "learned", "share_embeddings": False}),
        ("ce", "bfloat16", {}),
        ("axe", "bfloat16", {}),
    ],
)
def test_prepared_parameters_change_no_bit(loss, dtype, fields):
    decode, _, _, params = _decoder(loss, dtype=dtype, **fields)
    batch = tiny.batch()
    prepared = prepare(params, dtype)
    given, after = (decode(p, batch.source, batch.source_lengths) for p in (params, prepared))
    assert any(int(n) > 1 for n in given.lengths)
    jax.tree.map(np.testing.assert_array_equal, after, given)
    again = prepare(prepared, dtype)
    assert jax.tree.structure(again) == jax.tree.structure(prepared)
    jax.tree.map(np.testing.assert_array_equal, again, prepared)


@pytest.mark.parametrize("fast", [True, False])
def test_only_operands_of_products_and_tables_are_cast(fast, monkeypatch):
    monkeypatch.setattr(_head, "bfloat16_is_fast", lambda: fast)
    _, _, _, params = _decoder("ce", dtype="bfloat16", positions="learned", share_embeddings=False)
    half = {
        re.sub(r"\[\d\]", "", jax.tree_util.keystr(path, simple=False)).replace("']['", ".").strip("[]'")
        for path, leaf in jax.tree_util.tree_leaves_with_path(prepare(params, "bfloat16"))
        if leaf.dtype == jnp.bfloat16
    }
    block = {
        "self_attention.qkv.kernel",
        "self_attention.out.kernel",
        "feed_forward.up_kernel",
        "feed_forward.down_kernel",
    }
    cross = {"cross_attention.q.kernel", "cross_attention.kv.kernel", "cross_attention.out.kernel"}
    tables = {"source_embedding", "output_embedding", "encoder_positions", "decoder_positions"}
    assert half == {
        *(f"{name}.table" for name in tables if fast),  # else the output projection takes float32
        *(f"encoder.layers.{name}" for name in block), *(f"decoder.layers.{name}" for name in block | cross),
    }  # fmt: skip


def _moved(text, shapes):
    """Instructions that make a matrix of a kernel's shape, by conversion to bfloat16 or as a copy."""
    found = re.findall(r"= (\w+)\[([\d,]*)\]\S* (convert|copy|slice|dynamic-slice|concatenate)\(", text)
    sizes = [(dtype, tuple(int(n) for n in size.split(",") if n not in ("", "1")), name) for dtype, size, name in found]
    return [(d, size, name) for d, size, name in sizes if size in shapes and (name != "convert" or d == "bf16")]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere the layers are a loop")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_compiled_pass_converts_and_copies_no_kernel(dtype):
    # Sizes that no array of the batch has: 5 rows, 7 pieces, 14 frames.
    config, network, objective, params = tiny.build(dtype=dtype, width=48, feed_forward=176, heads=2)
    decode = make_decode(network, objective)
    batch = tiny.batch(rows=5, S=7)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    shapes = {leaf.shape[-2:] for path, leaf in leaves if "kernel" in path[-1].key or path[-1].key == "table"}
    assert {(48, 144), (48, 96), (48, 48), (48, 176), (176, 48), (tiny.SIZE, 48)} == shapes

    def text(p):
        return decode.lower(p, batch.source, batch.source_lengths).compile().as_text()

    assert len(_moved(text(params), shapes)) >= 8  # so the instructions are found where there are some
    assert _moved(text(prepare(params, dtype)), shapes) == []


class Recorded:
    """Stands in for a compiled pass: each sentence's length as its only token; counts the batches that began."""

    def __init__(self, seconds=0.0):
        self.began, self.seconds = 0, seconds

    def __call__(self, params, source, lengths, golden=None):
        self.began += 1
        time.sleep(self.seconds)
        return Decoded(lengths[:, None], jnp.ones_like(lengths), source, lengths, golden)


def test_batches_are_under_way_before_the_first_is_fetched_but_only_a_few():
    sources = [[5] * (1 + i % 7) for i in range(23)]
    plan = [(Shape(2, 16), [i, i + 1]) for i in range(0, 22, 2)] + [(Shape(2, 16), [22])]
    decode, seen, under_way = Recorded(), {}, []
    for done in passes(decode, None, plan, sources, golden=list(range(100, 123)), keep=lambda d: (d.tokens, d.scores)):
        under_way.append(decode.began - len(under_way))
        tokens, scores = done.results
        assert isinstance(tokens, np.ndarray)
        seen |= {index: (int(tokens[row, 0]), int(scores[row])) for row, index in enumerate(done.indices)}
    assert under_way == [AHEAD] * (12 - AHEAD + 1) + list(range(AHEAD - 1, 0, -1))
    assert list(seen) == list(range(23))  # the order of the plan
    assert seen == {i: (1 + i % 7, 100 + i) for i in range(23)}


def test_seconds_of_batches_do_not_overlap():
    plan = [(Shape(1, 16), [i]) for i in range(6)]
    start = time.perf_counter()
    seconds = [done.seconds for done in passes(Recorded(0.02), None, plan, [[5]] * 6, golden=[1] * 6)]
    assert 6 * 0.02 <= sum(seconds) <= time.perf_counter() - start


def _sentence_lengths(count):
    """As of image captions: mostly 8 to 30 pieces, some longer."""
    return np.clip(np.random.default_rng(0).normal(17, 8, count).round(), 4, 46).astype(int).tolist()


@pytest.mark.parametrize("most_rows", [CPU_ROWS, None])
@given(lengths=st.lists(st.integers(1, 100), max_size=700), batch_frames=st.integers(1, 3000))
def test_batches_hold_every_sentence_once_in_shapes_that_fit(most_rows, lengths, batch_frames):
    found = batches(lengths, 100, batch_frames, lambda S: 2 * S, most_rows)
    assert sorted(i for _, indices in found for i in indices) == list(range(len(lengths)))
    for shape, indices in found:
        assert 1 <= len(indices) <= shape.rows <= (most_rows or batch_frames)
        assert shape.rows == 1 or shape.rows * 2 * shape.S <= batch_frames
        assert all(shape.S == rung(lengths[i], 100) >= lengths[i] for i in indices)
    if most_rows:
        assert sum(shape.rows for shape, _ in found) < 2 * max(len(lengths), 1)


def test_one_call_needs_one_program_a_rung():
    lengths = _sentence_lengths(1000)
    rungs = {rung(n, 128) for n in lengths}
    assert rungs == {16, 32, 48}
    for most_rows in (CPU_ROWS, None):
        assert len({shape for shape, _ in batches(lengths, 128, 16_384, lambda S: 2 * S, most_rows)}) == 3


@pytest.mark.parametrize("most_rows", [CPU_ROWS, None])
def test_all_calls_together_need_two_programs_a_rung(most_rows):
    lengths = _sentence_lengths(1000)
    counts = [*range(1, 40), 100, 333, 700, 1000]
    calls = [batches(lengths[:n], 128, 16_384, lambda S: 2 * S, most_rows) for n in counts]
    rows = {}
    for shape in {shape for call in calls for shape, _ in call}:
        rows.setdefault(shape.S, set()).add(shape.rows)
    full = {S: min(8192 // S, most_rows or 8192) for S in (16, 32, 48)}
    assert rows == {S: {1, full[S]} for S in (16, 32, 48)}


def test_few_sentences_get_single_rows():
    for count in (1, 7):
        assert batches([10] * count, 256, 16_384, lambda S: 2 * S) == [(Shape(1, 16), [i]) for i in range(count)]
    assert batches([10] * 8, 256, 16_384, lambda S: 2 * S, 12) == [(Shape(12, 16), list(range(8)))]
    assert [rung(length, 100) for length in (1, 16, 17, 96, 97, 100)] == [16, 16, 32, 96, 100, 100]


def test_one_program_for_each_shape():
    traces = []
    config, network, objective, params = tiny.build()
    counted = network.clone()
    object.__setattr__(counted, "apply", lambda *a, **k: (traces.append(k["method"]), network.apply(*a, **k))[1])
    decode = make_decode(counted, objective)
    for seed in range(3):
        batch = tiny.batch(seed=seed)
        decode(params, batch.source, batch.source_lengths)
    assert traces.count("encode") == 1
    larger = tiny.pad(batch, 8, 16, 9)
    decode(params, larger.source, larger.source_lengths)
    assert traces.count("encode") == 2
