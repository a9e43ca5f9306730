"""Losses behind one interface, and the objective that is composed of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import objectives
from natjax.frames import frame_count
from natjax.layers.noise import step_noise
from natjax.objectives import CTC, CrossEntropy
from natjax.objectives.base import Targets, until_eos
from natjax.objectives.training import objective_sums
from natjax.typing import Head


def _head(T=5, V=7, rows=2, seed=0):
    generator = np.random.default_rng(seed)
    arrays = generator.normal(size=(rows, T, 4)), generator.normal(size=(4, V)), generator.normal(size=V)
    return Head(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _log_softmax(head):
    scores = np.asarray(head.hidden, np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_against_numpy(smoothing):
    head, tokens, lengths = _head(), np.array([[3, 4, 5, 6, 3], [5, 4, 0, 0, 0]]), np.array([5, 2])
    targets, weights = Targets(jnp.asarray(tokens), jnp.asarray(lengths)), jnp.array([0.5, 3.0])
    total, loss = CrossEntropy(smoothing).loss(head, jnp.asarray(lengths), targets, weights)
    np.testing.assert_allclose(total, 0.5 * loss[0] + 3 * loss[1], rtol=1e-6)
    log_probs = _log_softmax(head)
    for b in range(2):
        expected = sum(
            -(1 - smoothing) * log_probs[b, t, tokens[b, t]] - smoothing * log_probs[b, t].mean()
            for t in range(lengths[b])
        )
        np.testing.assert_allclose(loss[b], expected, rtol=1e-5)


def test_ctc_loss_sums_the_paths_of_a_two_frame_lattice():
    head = _head(T=2)
    targets, weights = Targets(jnp.array([[3], [4]]), jnp.array([1, 1])), jnp.array([0.5, 3.0])
    total, loss = CTC(2.0).loss(head, jnp.array([2, 2]), targets, weights)
    np.testing.assert_allclose(total, 0.5 * loss[0] + 3 * loss[1], rtol=1e-6)
    p = np.exp(_log_softmax(head))
    for b, token in enumerate([3, 4]):
        paths = p[b, 0, token] * (p[b, 1, token] + p[b, 1, 0]) + p[b, 0, 0] * p[b, 1, token]
        np.testing.assert_allclose(loss[b], -np.log(paths), rtol=1e-5)


def test_frames_and_feasibility():
    ctc, ce = CTC(2.5), CrossEntropy()
    lengths = jnp.array([3, 7])
    np.testing.assert_array_equal(ctc.frames(lengths, jnp.array([99, 99])), [8, 18])
    assert ctc.max_frames(7, 99) == 18 == frame_count(7, 2.5)
    np.testing.assert_array_equal(ce.frames(lengths, jnp.array([4, 0])), [4, 1])
    assert ce.max_frames(7, 9) == 9
    targets = Targets(jnp.array([[3, 3, 0], [3, 4, 5]]), jnp.array([2, 3]))
    np.testing.assert_array_equal(ctc.infeasible(jnp.array([2, 3]), targets), [True, False])
    assert not np.any(ce.infeasible(jnp.array([2, 3]), targets))


def test_collapse_of_both():
    frames = jnp.array([[3, 3, 0, 3, 4]])
    tokens, length = CTC(2.0).collapse(frames, jnp.array([4]))
    assert tokens[0, : int(length[0])].tolist() == [3, 3]
    tokens, length = CrossEntropy().collapse(frames, jnp.array([2]))
    assert (tokens[0].tolist(), int(length[0])) == ([3, 3, 0, 0, 0], 2)


@pytest.mark.parametrize("loss", ["ctc", "ce", "axe"])
def test_normalisers_are_sums_over_the_batch(loss):
    config, network, objective, params = tiny.build(loss)
    batch = tiny.batch()
    batch = batch._replace(weights=jnp.array([1.0, 0.0, 1.0, 1.0]))
    alone = []
    for row in (0, 2, 3):
        one = batch._replace(weights=jnp.asarray(np.eye(4, dtype=np.float32)[row]))
        alone.append(objective_sums(network, objective, config.objective, params, one, None)[1])
    assert all(float(s.infeasible) == 0 for s in alone)
    losses, tokens, lengths = ([float(getattr(s, f)) for s in alone] for f in ("loss", "tokens", "length_loss"))
    extra = config.objective.length_weight * sum(lengths) / 3
    expected = {
        "token_mean": sum(losses) / sum(tokens) + extra,
        "sentence_mean": np.mean([x / n for x, n in zip(losses, tokens)]) + extra,
    }
    for normalizer, value in expected.items():
        chosen = dataclasses.replace(config.objective, normalizer=normalizer)
        total, _ = objective_sums(network, objective, chosen, params, batch, None)
        np.testing.assert_allclose(total, value, rtol=1e-5)


def test_an_infeasible_row_is_counted_and_teaches_nothing():
    config, network, objective, params = tiny.build(ratio=1.0)
    batch = tiny.batch(rows=2, S=6, N=9)
    batch = batch._replace(target_lengths=jnp.array([2, 9]), source_lengths=jnp.array([6, 6]),
                           target=jnp.arange(4, 22).reshape(2, 9))  # fmt: skip

    @jax.jit
    def objective_of(params, weights):
        return objective_sums(network, objective, config.objective, params, batch._replace(weights=weights), None)

    both, alone = ({"w": jnp.array(w)} for w in ([1.0, 1.0], [1.0, 0.0]))
    sums = objective_of(params, both["w"])[1]
    assert (float(sums.infeasible), float(sums.sentences), float(sums.tokens)) == (1, 1, 2)
    gradients = [jax.grad(lambda p, w=w["w"]: objective_of(p, w)[0])(params) for w in (both, alone)]
    jax.tree.map(np.testing.assert_array_equal, *gradients)


def test_the_same_step_has_the_same_dropout_and_another_step_another():
    config, network, objective, params = tiny.build()
    batch = tiny.batch()

    def total(step):
        noise = step_noise(1, jnp.int32(step), 4)
        return float(objective_sums(network, objective, config.objective, params, batch, noise)[0])

    assert total(0) == total(0)
    assert total(0) != total(1)


def test_translations_end_before_the_first_eos():
    generator = np.random.default_rng(7)
    tokens = generator.integers(1, 5, (50, 6))  # eos is 2
    lengths = generator.integers(0, 7, 50)
    tokens[np.arange(6)[None, :] >= lengths[:, None]] = 0
    cut, ends = until_eos(jnp.asarray(tokens), jnp.asarray(lengths))
    for row, length, found, end in zip(tokens.tolist(), lengths.tolist(), cut.tolist(), ends.tolist()):
        words = row[:length]
        expected = words[: words.index(2)] if 2 in words else words
        assert found == expected + [0] * (6 - len(expected))
        assert end == len(expected)


@pytest.mark.parametrize("loss", ["ctc", "ce", "axe"])
def test_only_targets_that_end_in_eos_are_cut_there(loss):
    config = tiny.config()
    frames, lengths = jnp.array([[5, 2, 0, 6]]), jnp.array([4])
    for target_eos, expected in (
        (False, {"ctc": [5, 2, 6, 0], "ce": [5, 2, 0, 6], "axe": [5, 2, 6, 0]}[loss]),
        (True, [5, 0, 0, 0]),
    ):
        changed = dataclasses.replace(config.objective, loss=loss, target_eos=target_eos)
        tokens, _ = objectives.build(dataclasses.replace(config, objective=changed)).collapse(frames, lengths)
        assert tokens[0].tolist() == expected
