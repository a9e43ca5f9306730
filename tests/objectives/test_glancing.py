"""Glancing: distances, the number shown, which are shown, and what reaches the decoder."""

import dataclasses
import functools
import itertools

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


@pytest.mark.parametrize(("blanks", "open_"), [(True, 7), (False, 5)])
def test_random_numbers_are_uniform_and_look_at_nothing_else(blanks, open_):
    """The paper's l ~ U|y|: each number that leaves one open frame hidden is as likely."""
    tokens, predicted, frames, targets = _batch()
    config = ObjectiveConfig(glancing="rnd", glancing_blanks=blanks)
    shown = _shown(config, tokens, tokens, frames, targets)
    for other in ({}, {"glancing_ratio": 0.1}, {"glancing_sampler": "deterministic"}):
        chosen = dataclasses.replace(config, **other)
        np.testing.assert_array_equal(shown, _shown(chosen, tokens, predicted, frames, targets))
    numbers, counts = np.unique(shown.sum(axis=1), return_counts=True)
    assert numbers.tolist() == list(range(open_))
    spread = np.sqrt((1 / open_) * (1 - 1 / open_) / len(frames))
    assert np.abs(counts / len(frames) - 1 / open_).max() < 5 * spread


def test_random_numbers_of_the_release_are_those_of_a_random_distance():
    """l ~ Poisson(f · u · T): mean f·T/2, variance that and (f·T)²/12."""
    tokens, predicted, frames, targets = _batch()
    config = ObjectiveConfig(glancing="rnd", glancing_random="scaled", glancing_ratio=0.2)
    drawn = _shown(config, tokens, predicted, frames, targets).sum(axis=1)
    np.testing.assert_array_equal(drawn, _shown(config, tokens, tokens, frames, targets).sum(axis=1))
    variance = 0.7 + 1.4**2 / 12
    assert abs(drawn.mean() - 0.7) < 5 * np.sqrt(variance / len(frames))
    assert abs(drawn.var() - variance) < 0.12
    exact = dataclasses.replace(config, glancing_sampler="deterministic", glancing_ratio=1.0)
    counts = np.bincount(_shown(exact, tokens, predicted, frames, targets).sum(axis=1), minlength=7)
    assert np.abs(counts / len(frames) - 1 / 7).max() < 5 * np.sqrt(6 / 49 / len(frames))


def test_blanks_can_stay_hidden_and_rows_without_an_alignment_do():
    tokens, predicted, frames, targets = _batch()
    config = ObjectiveConfig(glancing="glat", glancing_ratio=2.0, glancing_blanks=False)
    shown = _shown(config, tokens, predicted, frames, targets)
    assert shown.any() and not shown[tokens == 0].any()
    # Five of the seven frames hold a token; whatever the first pass got wrong, one of them stays hidden.
    most = dataclasses.replace(config, glancing_ratio=100.0)
    np.testing.assert_array_equal(_shown(most, tokens, predicted, frames, targets).sum(axis=1), 4)
    exact = dataclasses.replace(config, glancing_sampler="deterministic", glancing_ratio=0.8)
    np.testing.assert_array_equal(_shown(exact, tokens, predicted, frames, targets).sum(axis=1), int(0.8 * 4 * 5 / 7))
    nothing = np.zeros_like(tokens)
    assert not _shown(most, nothing, predicted, frames, targets).any()
    feasible = np.arange(len(frames)) % 2 == 0
    shown = _shown(config, tokens, predicted, frames, targets, feasible)
    assert shown[::2].any() and not shown[1::2].any()


def test_edits_of_targets_that_end_in_eos():
    """Collapsing cuts before eos, so the target is cut, too: what is right has no distance, and N counts words."""
    tokens, predicted, frames, _ = _batch()
    tokens[:, 6] = 8
    tokens[:, 7] = 2
    frames[:] = 8
    targets = Targets(jnp.tile(jnp.array([5, 6, 7, 8, 2, 0]), (len(frames), 1)), jnp.full(len(frames), 5))
    config = ObjectiveConfig(
        glancing="glat", glancing_distance="levenshtein", glancing_sampler="deterministic", target_eos=True,
        glancing_ratio=0.6,
    )  # fmt: skip
    assert not _shown(config, tokens, tokens, frames, targets).any()
    predicted[:] = [5, 0, 0, 6, 0, 4, 9, 2]  # two of four words are others
    shown = _shown(config, tokens, predicted, frames, targets).sum(axis=1)
    np.testing.assert_array_equal(shown, int(0.6 * 2 / 4 * 8))


def test_ratio_from_first_to_last():
    constant = ObjectiveConfig(glancing_ratio=0.3)
    np.testing.assert_array_equal([glancing_ratio(constant, jnp.float32(p)) for p in (0.0, 0.7, 1.0)], np.float32(0.3))
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


def _runs(loss, dropout=0.0, **of_loss):
    """(a function noise, glancing fields -> (total, sums), the model, the objective, the parameters, the batch)."""
    config, network, objective, params = tiny.build(loss, dropout=dropout)
    objective, batch = dataclasses.replace(objective, label_smoothing=0.0, **of_loss), tiny.batch(rows=6)

    @functools.cache
    def compiled(**fields):
        chosen = dataclasses.replace(config.objective, **fields)
        return jax.jit(lambda params, noise: objective_sums(network, objective, chosen, params, batch, noise, 0.0))

    def run(noise, params=params, **fields):
        return compiled(**fields)(params, noise)

    return run, network, objective, params, batch


@pytest.fixture(scope="module")
def glancing():
    """`_runs` of CTC."""
    return _runs("ctc")


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
    ratio = run(noise, glancing="glat", glancing_ratio=0.5, glancing_ratio_end=0.1)[1].means["glancing_ratio"]
    np.testing.assert_allclose(ratio.sum / ratio.count, 0.5, rtol=1e-6)
    assert "glancing_ratio" not in run(noise, glancing="rnd")[1].means  # it decides nothing
    first = shown.means["first_pass_loss"]
    np.testing.assert_allclose(first.sum / first.count, plain.loss / plain.tokens, rtol=1e-5)
    assert "shown" not in run(None, glancing="glat")[1].means  # validation is shown nothing


def _log_probs(head):
    scores = np.asarray(logits(head), np.float64)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def _axe_tokens(log_probs, labels, penalty):
    """What the frames of one sentence emit on AXE's best path, by the recursion of its paper, cell by cell."""
    frames = len(log_probs)

    def label(i, j):
        return -log_probs[max(j, 1) - 1, labels[i - 1]]

    best = {(0, 0): (0.0, [])}
    for i in range(len(labels) + 1):
        for j in range(frames + 1):
            ways = []
            if i and j:
                ways.append((best[i - 1, j - 1][0] + label(i, j), [*best[i - 1, j - 1][1], labels[i - 1]]))
            if j:
                ways.append((best[i, j - 1][0] - log_probs[j - 1, 0], [*best[i, j - 1][1], 0]))
            if i:
                ways.append((best[i - 1, j][0] + penalty * label(i, j), best[i - 1, j][1]))
            if ways:
                best[i, j] = min(ways, key=lambda way: way[0])
    return best[len(labels), frames][1]


def _tokens_by_hand(loss, head, lengths, batch):
    """What each loss's alignment has on the frames, i32[B, T]."""
    if loss == "ctc":
        return np.asarray(ctc.viterbi_alignment(logits(head), lengths, batch.target, batch.target_lengths).tokens)
    if loss == "ce":
        return np.asarray(batch.target)
    tokens, log_probs = np.zeros(batch.target.shape, np.int32), _log_probs(head)
    for row, frames in enumerate(np.asarray(lengths)):
        labels = np.asarray(batch.target)[row, : int(batch.target_lengths[row])].tolist()
        tokens[row, :frames] = _axe_tokens(log_probs[row, :frames], labels, penalty=1.0)
    return tokens


@pytest.mark.parametrize("loss", ["ce", "axe", "ctc"])
def test_shown_tokens_reach_the_decoder_and_nothing_else_does(loss):
    """By hand: the frames' inputs are exchanged for vector + position, and the rest is the plain way."""
    # Cheap blanks, and labels that may as well be skipped, so that paths have frames without a token.
    run, network, objective, params, batch = _runs(loss, **({"skip_target_penalty": 1.0} if loss == "axe" else {}))
    params = {**params, "output_bias": params["output_bias"].at[0].set(4.0)}
    noise = step_noise(1, jnp.int32(0), 6)
    fields = dict(glancing="glat", glancing_ratio=0.75, glancing_sampler="deterministic")
    _, sums = run(noise, params=params, **fields)

    lengths = batch.target_lengths if objective.needs_length else 2 * batch.source_lengths  # golden, or λ = 2
    T = 9 if objective.needs_length else 16

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    @jax.jit
    def decode(frames, memory):
        return apply("project", apply("decode", frames, lengths, memory, batch.source_lengths))

    @jax.jit
    def encode():
        memory = apply("encode", batch.source, batch.source_lengths)
        return memory, apply("upsample", memory, batch.source_lengths, T)

    memory, frames = encode()
    first = decode(frames, memory)
    tokens = _tokens_by_hand(loss, first, lengths, batch)
    real = np.arange(T) < np.asarray(lengths)[:, None]
    wrong = (real & (np.asarray(logits(first)).argmax(-1) != tokens)).sum(axis=1)
    targets = Targets(batch.target, batch.target_lengths)
    feasible = ~objective.infeasible(lengths, targets)
    alignment = objective.align(first, lengths, targets)
    inputs = objective, alignment, lengths, targets, feasible, jnp.float32(0), noise.fold(6)
    shown = np.asarray(shown_frames(ObjectiveConfig(**fields), *inputs))
    np.testing.assert_array_equal(alignment.tokens, tokens)
    np.testing.assert_array_equal(
        shown.sum(axis=1), np.where(feasible, np.minimum((0.75 * wrong).astype(int), lengths - 1), 0)
    )
    assert (shown & (tokens == 0)).any() == (loss != "ce")  # blanks, and the ε of skipped frames, are shown as well
    table = params["source_embedding"]["table"] * np.float32(16**0.5)
    mixed = jnp.where(shown[..., None], table[tokens] + sinusoids(T, 16)[None], frames)
    expected, _ = objective.loss(decode(mixed, memory), lengths, targets, jnp.where(feasible, 1.0, 0.0))
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


def test_dropout_of_the_first_pass():
    """By hand: the encoder's dropout is the step's, the decoder's of its own, the second pass's, or there is none."""
    run, network, objective, params, batch = _runs("ctc", dropout=0.3)
    noise = step_noise(1, jnp.int32(0), 6)
    lengths, variables = objective.frames(batch.source_lengths, batch.target_lengths), {"params": params}
    feasible = ~objective.infeasible(lengths, Targets(batch.target, batch.target_lengths))

    @jax.jit
    def first_loss(of_decoder):
        memory = network.apply(variables, batch.source, batch.source_lengths, noise, method="encode")
        frames = network.apply(variables, memory, batch.source_lengths, 16, method="upsample")
        inputs = frames, lengths, memory, batch.source_lengths, of_decoder
        head = network.apply(variables, network.apply(variables, *inputs, method="decode"), method="project")
        return jnp.where(feasible, ctc.ctc_loss(logits(head), lengths, batch.target, batch.target_lengths), 0.0).sum()

    decoders = {"fresh": noise.fold(6).fold(1), "same": noise, "none": None}
    expected = {name: float(first_loss(of_decoder)) for name, of_decoder in decoders.items()}
    assert min(abs(a - b) for a, b in itertools.combinations(expected.values(), 2)) > 1e-2
    for dropout, value in expected.items():
        sums = run(noise, glancing="glat", glancing_ratio=0.0, glancing_dropout=dropout)[1]
        np.testing.assert_allclose(sums.means["first_pass_loss"].sum, value, rtol=1e-5)
        np.testing.assert_allclose(sums.loss, expected["same"], rtol=1e-5)  # nothing is shown: one and the same pass
