"""The compiled single pass: against its parts by hand, and the same whatever stands beside a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from natjax.decoding.shapes import LADDER, Shape, batches, rung
from natjax.decoding.single_pass import make_decode


def _decoder(loss="ctc", candidates=1, **fields):
    config, network, objective, params = tiny.build(loss, **fields)
    # Fresh parameters say the same of every frame; larger ones tell frames apart.
    params = jax.tree.map(lambda p: p * 3, params)
    return make_decode(network, objective, candidates=candidates), network, objective, params


def _collapsed(frames):
    return [t for i, t in enumerate(frames) if t and (i == 0 or frames[i - 1] != t)]


def test_ctc_output_is_the_collapsed_argmax():
    decode, network, objective, params = _decoder()
    batch = tiny.batch()
    out = decode(params, batch.source, batch.source_lengths)
    for row in range(4):
        length = int(batch.source_lengths[row])
        head = network.apply({"params": params}, batch.source[row : row + 1, :length], jnp.array([length]), 2 * length)
        scores = np.asarray(head.hidden[0], np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
        frames = scores.argmax(-1)
        assert out.frames[row, : 2 * length].tolist() == frames.tolist()
        assert (out.frames[row, 2 * length :] == 0).all()
        expected = _collapsed(frames.tolist())
        assert out.tokens[row].tolist() == expected + [0] * (out.tokens.shape[1] - len(expected))
        assert int(out.lengths[row]) == len(expected)
        log_probs = scores.max(-1) - np.log(np.exp(scores).sum(-1))
        np.testing.assert_allclose(out.scores[row], log_probs.sum(), rtol=1e-3)
    assert any(int(n) > 1 for n in out.lengths)


@pytest.mark.parametrize("loss", ["ctc", "ce"])
def test_company_changes_nothing(loss):
    decode, _, _, params = _decoder(loss)
    batch, other = tiny.batch(seed=0), tiny.batch(seed=1)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:2], b[2:]]), batch, other)
    one, two = (decode(params, b.source, b.source_lengths) for b in (batch, mixed))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:2], b[:2]), one, two)


@pytest.mark.parametrize("loss", ["ctc", "ce"])
def test_other_shapes_give_the_same_tokens(loss):
    decode, _, _, params = _decoder(loss)
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


def test_length_candidates_return_the_best_mean():
    decode, network, objective, params = _decoder("ce", candidates=3)
    one_length, _, _, _ = _decoder("ce")
    batch = tiny.batch()
    memory = network.apply({"params": params}, batch.source, batch.source_lengths, method="encode")
    logits = network.apply({"params": params}, memory, batch.source_lengths, method="length_logits")
    out = decode(params, batch.source, batch.source_lengths)
    order = np.argsort(-np.asarray(logits), axis=1, kind="stable")[:, :3]
    choices = np.maximum(np.asarray(batch.source_lengths)[:, None] + order - 6, 1)
    means = []
    for column in range(3):
        lengths = jnp.asarray(choices[:, column], jnp.int32)
        tried = one_length(params, batch.source, batch.source_lengths, lengths)
        means.append(np.asarray(tried.scores) / np.minimum(choices[:, column], 14))
    best = np.argmax(means, axis=0)
    assert out.lengths.tolist() == [min(choices[row, best[row]], 14) for row in range(4)]


@given(st.lists(st.integers(1, 100), max_size=700), st.integers(1, 3000))
def test_batches_hold_every_sentence_once_in_shapes_that_fit(lengths, batch_frames):
    found = batches(lengths, 100, batch_frames, lambda S: 2 * S)
    assert sorted(i for _, indices in found for i in indices) == list(range(len(lengths)))
    for shape, indices in found:
        assert 1 <= len(indices) <= shape.rows
        assert shape.rows == 1 or shape.rows * 2 * shape.S <= batch_frames
        assert all(lengths[i] <= shape.S for i in indices)
    assert len({shape for shape, _ in found}) <= 4 * len(LADDER)


def test_a_single_sentence_gets_a_single_row():
    assert batches([10], 256, 16_384, lambda S: 2 * S) == [(Shape(1, 16), [0])]
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
