"""Glancing: distances, the number shown, which are shown, and what reaches the decoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc, objectives
from natjax.config import ObjectiveConfig
from natjax.layers.head import logits
from natjax.layers.noise import step_noise
from natjax.layers.position import sinusoids
from natjax.objectives.base import Alignment, Targets
from natjax.objectives.glancing import choose, glancing_ratio, levenshtein, poisson, shown_frames
from natjax.objectives.training import objective_sums


def _edits(ours, theirs):
    """The recursion as textbooks have it."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(theirs) + 1)] for i in range(len(ours) + 1)]
    for i in range(1, len(ours) + 1):
        for j in range(1, len(theirs) + 1):
            change = table[i - 1][j - 1] + (ours[i - 1] != theirs[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, change)
    return table[-1][-1]


_SEQUENCE = st.lists(st.integers(4, 7), max_size=7)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(_SEQUENCE, _SEQUENCE), min_size=3, max_size=3))
def test_levenshtein_against_the_textbook(pairs):
    def padded(sequences):
        lengths = np.array([len(s) for s in sequences], np.int32)
        junk = np.full((3, 8), 5, np.int32)  # what lies behind the end must not matter
        for row, sequence in enumerate(sequences):
            junk[row, : len(sequence)] = sequence
        return jnp.asarray(junk), jnp.asarray(lengths)

    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    found = levenshtein(*padded(ours), *padded(theirs))
    assert found.tolist() == [_edits(*pair) for pair in pairs]


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 40.0])
def test_poisson_draws(mean):
    rows, limit = 20_000, 120
    most = jnp.full(rows, limit - 1)
    drawn = np.asarray(poisson(jnp.full(rows, mean), most, limit, step_noise(1, jnp.int32(0), rows)))
    assert abs(drawn.mean() - mean) <= 5 * np.sqrt(mean / rows)
    assert abs(drawn.var() - mean) <= 0.05 * mean
    assert abs((drawn == 0).mean() - np.exp(-mean)) <= 5 * np.sqrt(0.25 / rows)
    cut = poisson(jnp.full(rows, mean), jnp.full(rows, 3), limit, step_noise(1, jnp.int32(0), rows))
    np.testing.assert_array_equal(cut, np.minimum(drawn, 3))


def test_all_sets_of_places_are_equally_likely():
    rows, T = 12_000, 6
    open_ = jnp.asarray(np.tile([True, True, False, True, True, False], (rows, 1)))
    number = jnp.asarray(np.arange(rows) % 6)
    shown = np.asarray(choose(open_, number, step_noise(3, jnp.int32(9), rows)))
    assert not shown[:, [2, 5]].any()
    np.testing.assert_array_equal(shown.sum(axis=1), np.minimum(np.arange(rows) % 6, 4))
    of_two = shown[np.arange(rows) % 6 == 2]
    sets, counts = np.unique(of_two @ (1 << np.arange(T)), return_counts=True)
    assert len(sets) == 6
    expected = len(of_two) / 6
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # 0.1% point of chi-square, 5 degrees of freedom


def _shown(config, tokens, predicted, frames, targets, feasible=None, seed=0, loss="ctc"):
    made = dataclasses.replace(tiny.config(), objective=dataclasses.replace(config, loss=loss))
    rows = len(tokens)
    alignment = Alignment(jnp.asarray(tokens), jnp.asarray(predicted), jnp.zeros(rows))
    lengths = jnp.asarray(frames, jnp.int32)
    feasible = jnp.ones(rows, bool) if feasible is None else jnp.asarray(feasible)
    noise = step_noise(seed, jnp.int32(0), rows)
    return np.asarray(
        shown_frames(config, objectives.build(made), alignment, lengths, targets, feasible, jnp.float32(0.0), noise)
    )


def _batch(rows=3000):
    tokens = np.tile(np.array([5, 5, 0, 6, 0, 7, 8, 0]), (rows, 1))
    predicted = np.tile(np.array([5, 0, 0, 6, 6, 6, 4, 9]), (rows, 1))
    targets = Targets(jnp.tile(jnp.array([5, 6, 7, 8, 0]), (rows, 1)), jnp.full(rows, 4))
    return tokens, predicted, np.full(rows, 7), targets


def test_numbers_follow_the_distance():
    tokens, predicted, frames, targets = _batch()
    config = ObjectiveConfig(glancing="glat", glancing_sampler="deterministic", glancing_ratio=0.6)
    # Frames 1, 4, 5 and 6 differ; the last one is padding.
    np.testing.assert_array_equal(_shown(config, tokens, predicted, frames, targets).sum(axis=1), int(0.6 * 4))
    # 5 · 6 · 4 against 5 6 7 8: two edits, of four labels, over seven frames.
    edits = dataclasses.replace(config, glancing_distance="levenshtein")
    np.testing.assert_array_equal(_shown(edits, tokens, predicted, frames, targets).sum(axis=1), int(0.6 * 2 / 4 * 7))
    drawn = _shown(dataclasses.replace(config, glancing_sampler="poisson"), tokens, predicted, frames, targets)
    assert abs(drawn.sum(axis=1).mean() - 2.4) < 5 * np.sqrt(2.4 / len(frames))
    assert drawn.sum(axis=1).min() == 0 and not drawn[:, 7].any()
    # Nothing wrong, nothing shown; everything wrong at f = 100, one frame stays hidden.
    assert not _shown(config, tokens, tokens, frames, targets).any()
    most = dataclasses.replace(config, glancing_ratio=100.0)
    np.testing.assert_array_equal(_shown(most, tokens, predicted, frames, targets).sum(axis=1), 6)


def test_random_numbers_do_not_look_at_the_distance():
    tokens, predicted, frames, targets = _batch()
    config = ObjectiveConfig(glancing="rnd", glancing_sampler="deterministic", glancing_ratio=1.0)
    shown = _shown(config, tokens, tokens, frames, targets)
    np.testing.assert_array_equal(shown, _shown(config, tokens, predicted, frames, targets))
    # ⌊7u⌋, u uniform: each of 0 … 6 as often.
    _, counts = np.unique(shown.sum(axis=1), return_counts=True)
    assert len(counts) == 7 and np.abs(counts / len(frames) - 1 / 7).max() < 5 * np.sqrt(6 / 49 / len(frames))


def test_blanks_can_stay_hidden_and_rows_without_an_alignment_do():
    tokens, predicted, frames, targets = _batch()
    config = ObjectiveConfig(glancing="glat", glancing_ratio=2.0, glancing_blanks=False)
    shown = _shown(config, tokens, predicted, frames, targets)
    assert shown.any() and not shown[tokens == 0].any()
    feasible = np.arange(len(frames)) % 2 == 0
    shown = _shown(config, tokens, predicted, frames, targets, feasible)
    assert shown[::2].any() and not shown[1::2].any()


def test_ratio_from_first_to_last():
    config = ObjectiveConfig(glancing_ratio=0.5, glancing_ratio_end=0.3)
    np.testing.assert_allclose(
        [glancing_ratio(config, jnp.float32(p)) for p in (0.0, 0.5, 1.0)], [0.5, 0.4, 0.3], rtol=1e-6
    )


def test_a_ctc_alignment_is_the_best_path():
    """Against `viterbi_alignment` of the logits, which is tested by enumeration."""
    _, network, objective, params = tiny.build()
    batch = tiny.batch()
    lengths = objective.frames(batch.source_lengths, batch.target_lengths)
    head = network.apply({"params": params}, batch.source, batch.source_lengths, objective.max_frames(8, 9))
    found = objective.align(head, lengths, Targets(batch.target, batch.target_lengths))
    rows = lengths, batch.target, batch.target_lengths
    expected = ctc.viterbi_alignment(logits(head), *rows)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    real = np.arange(16) < np.asarray(lengths)[:, None]
    np.testing.assert_array_equal(found.predicted, np.where(real, np.asarray(logits(head)).argmax(-1), 0))
    np.testing.assert_allclose(found.losses, ctc.ctc_loss(logits(head), *rows), rtol=1e-5)


@pytest.fixture(scope="module")
def glancing():
    """(a function noise, glancing fields -> (total, sums), the model, the parameters, the batch)."""
    config, network, objective, params = tiny.build("ctc", dropout=0.0)
    objective, batch = dataclasses.replace(objective, label_smoothing=0.0), tiny.batch(rows=6)

    def run(noise, params=params, batch=batch, **fields):
        chosen = dataclasses.replace(config.objective, **fields)
        return objective_sums(network, objective, chosen, params, batch, noise, 0.0)

    return run, network, objective, params, batch


def test_the_first_pass_and_the_share_shown_are_reported(glancing):
    run, *_, batch = glancing
    noise = step_noise(1, jnp.int32(0), 6)
    plain = run(None)[1]
    for_free = run(noise, glancing="glat", glancing_ratio=0.0)[1]
    np.testing.assert_allclose(for_free.loss, plain.loss, rtol=1e-6)
    assert float(for_free.means["shown"].sum) == 0
    shown = run(noise, glancing="glat", glancing_ratio=0.5)[1]
    share = float(shown.means["shown"].sum / shown.means["shown"].count)
    assert 0.1 < share < 0.9
    first = shown.means["first_pass_loss"]
    np.testing.assert_allclose(first.sum / first.count, plain.loss / plain.tokens, rtol=1e-5)
    assert "shown" not in run(None, glancing="glat")[1].means  # validation is shown nothing


def test_shown_tokens_reach_the_decoder_and_nothing_else_does(glancing):
    """By hand: the frames' inputs are exchanged for vector + position, and the rest is the plain way."""
    run, network, objective, params, batch = glancing
    noise = step_noise(1, jnp.int32(0), 6)
    fields = dict(glancing="glat", glancing_ratio=0.7)
    total, sums = run(noise, **fields)

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    memory = apply("encode", batch.source, batch.source_lengths)
    lengths = objective.frames(batch.source_lengths, batch.target_lengths)
    frames = apply("upsample", memory, batch.source_lengths, 16)
    targets = Targets(batch.target, batch.target_lengths)
    alignment = objective.align(
        apply("project", apply("decode", frames, lengths, memory, batch.source_lengths)), lengths, targets
    )
    chosen = ObjectiveConfig(**fields)
    feasible = ~objective.infeasible(lengths, targets)
    shown = shown_frames(chosen, objective, alignment, lengths, targets, feasible, jnp.float32(0), noise.fold(6))
    table = params["source_embedding"]["table"] * np.float32(16**0.5)
    vectors = table[alignment.tokens] + sinusoids(16, 16)[None]
    mixed = jnp.where(shown[..., None], vectors, frames)
    head = apply("project", apply("decode", mixed, lengths, memory, batch.source_lengths))
    weights = jnp.where(feasible, 1.0, 0.0)
    expected, _ = objective.loss(head, lengths, targets, weights)
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-5)


def test_no_gradient_flows_through_the_first_pass(glancing):
    """The whole gradient is that of the second pass, whose input is held fixed where it was shown."""
    run, *_, params, _ = glancing
    noise = step_noise(1, jnp.int32(0), 6)
    slope = jax.grad(lambda p: run(noise, params=p, glancing="glat", glancing_ratio=0.5)[0])(params)
    direction = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(1).normal(size=x.shape), x.dtype), params)
    step = 1e-3

    def at(distance):
        moved = jax.tree.map(lambda x, d: x + distance * d, params, direction)
        return float(run(noise, params=moved, glancing="glat", glancing_ratio=0.5)[0])

    wanted = (at(step) - at(-step)) / (2 * step)
    found = sum(float((a * b).sum()) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(direction)))
    np.testing.assert_allclose(found, wanted, rtol=0.03)


@pytest.mark.parametrize("dropout", ["fresh", "same", "none"])
def test_dropout_of_the_first_pass(dropout):
    """`same` and `none` are what they say: the first pass's loss is that of a run that shows nothing."""
    config, network, objective, params = tiny.build("ctc", dropout=0.3)
    objective = dataclasses.replace(objective, label_smoothing=0.0)
    batch, noise = tiny.batch(rows=6), step_noise(1, jnp.int32(0), 6)
    chosen = dataclasses.replace(config.objective, glancing="glat", glancing_ratio=0.0, glancing_dropout=dropout)
    sums = objective_sums(network, objective, chosen, params, batch, noise, 0.0)[1]
    first, second = (float(x) for x in (sums.means["first_pass_loss"].sum, sums.loss))
    assert (abs(first - second) < 1e-3) == (dropout == "same")
