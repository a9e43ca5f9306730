"""Aligned cross-entropy: against all alignments one by one, a plain programme over all logits, and differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import objectives
from natjax.ctc import linear_label_logits
from natjax.layers.noise import step_noise
from natjax.objectives import AXE, CTC, CrossEntropy, NextToken, chunks
from natjax.objectives.axe_path import best_path
from natjax.objectives.base import Targets
from natjax.objectives.training import objective_sums
from natjax.typing import Head

B, T, N, D, V = 6, 5, 5, 8, 23
_run = jax.jit(best_path, static_argnums=4)


def _alignments(n, m):
    """Every way of n labels and m frames: steps, each of them (what, label, frame), counted from 0."""
    if n == m == 0:
        yield ()
        return
    if n and m:
        yield from ((*path, ("align", n - 1, m - 1)) for path in _alignments(n - 1, m - 1))
    if m:
        yield from ((*path, ("frame", None, m - 1)) for path in _alignments(n, m - 1))
    if n:
        yield from ((*path, ("label", n - 1, max(m - 1, 0))) for path in _alignments(n - 1, m))


def _cost(path, cost, empty, penalty):
    prices = {
        "align": lambda i, j: cost[j, i],
        "frame": lambda _, j: empty[j],
        "label": lambda i, j: penalty * cost[j, i],
    }
    return sum(prices[what](i, j) for what, i, j in path)


def _cheapest(cost, empty, penalty):
    """(least cost, its steps, all costs in ascending order), in float64."""
    # Labels skipped before the first frame, and labels skipped after it: the same steps in another order.
    paths = {frozenset(path): path for path in _alignments(cost.shape[1], cost.shape[0])}.values()
    costs = [_cost(path, cost, empty, penalty) for path in paths]
    return min(costs), list(paths)[int(np.argmin(costs))], np.sort(costs)


def test_the_oracle_knows_every_alignment():
    # Delannoy numbers: paths with three kinds of steps.
    assert [len(list(_alignments(n, n))) for n in range(5)] == [1, 3, 13, 63, 321]


@pytest.mark.parametrize("penalty", [0.5, 1.5, 2.0, 5.0])
def test_the_path_is_the_cheapest_of_all(penalty):
    generator = np.random.default_rng(int(10 * penalty))
    lengths = [(n, m) for n in range(5) for m in range(1, 6)]
    # Padding holds what would be cheapest of all, were it looked at.
    cost, empty = np.full((len(lengths), 5, 4), -50.0, np.float32), np.full((len(lengths), 5), -50.0, np.float32)
    for row, (n, m) in enumerate(lengths):
        cost[row, :m, :n], empty[row, :m] = 3 * generator.random((m, n)), 3 * generator.random(m)
    sizes = [jnp.asarray(side, jnp.int32) for side in zip(*lengths)]
    found = _run(jnp.asarray(cost), jnp.asarray(empty), *sizes, penalty)
    kinds = set()
    for row, (n, m) in enumerate(lengths):
        least, path, costs = _cheapest(cost[row, :m, :n].astype(np.float64), empty[row, :m].astype(np.float64), penalty)
        assert len(costs) == 1 or costs[1] > costs[0] + 1e-5
        np.testing.assert_allclose(found.cost[row], least, rtol=1e-5)
        frame, aligned, skipped = np.zeros(4, int), np.zeros(4, bool), np.zeros(5, bool)
        for what, i, j in path:
            kinds.add(what)
            if what == "frame":
                skipped[j] = True
            else:
                frame[i], aligned[i] = j, what == "align"
        assert found.frame[row].tolist() == frame.tolist()
        assert found.aligned[row].tolist() == aligned.tolist()
        assert found.skipped[row].tolist() == skipped.tolist()
    assert kinds == {"align", "frame", "label"}


@given(st.data())
@settings(max_examples=60)
def test_ties_are_broken_by_the_stated_rule(data):
    # Whole numbers, so that ties are exact and many: align before skip frame before skip label, from the end back.
    n, m = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 4))
    draw = st.integers(0, 2).map(float)
    cost = np.array(data.draw(st.lists(draw, min_size=m * 4, max_size=m * 4))).reshape(m, 4)[:, :n]
    empty = np.array(data.draw(st.lists(draw, min_size=m, max_size=m)))
    penalty = data.draw(st.sampled_from([1.0, 2.0]))

    @functools.cache
    def least(i, j):
        if (i, j) == (0, 0):
            return 0.0, ()
        ways = []
        if i and j:
            ways.append((least(i - 1, j - 1)[0] + cost[j - 1, i - 1], ("align", i - 1, j - 1), (i - 1, j - 1)))
        if j:
            ways.append((least(i, j - 1)[0] + empty[j - 1], ("frame", None, j - 1), (i, j - 1)))
        if i:
            place = max(j - 1, 0)
            ways.append((least(i - 1, j)[0] + penalty * cost[place, i - 1], ("label", i - 1, place), (i - 1, j)))
        value, step, before = min(ways, key=lambda way: way[0])  # the first among equals
        return value, (*least(*before)[1], step)

    value, path = least(n, m)
    assert value == _cheapest(cost, empty, penalty)[0]
    padded_cost, padded_empty = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4), np.float32)
    padded_cost[0, :m, :n], padded_empty[0, :m] = cost, empty
    found = _run(jnp.asarray(padded_cost), jnp.asarray(padded_empty), jnp.array([n]), jnp.array([m]), penalty)
    assert float(found.cost[0]) == value
    aligned = {i: j for what, i, j in path if what == "align"}
    met = {i: j for what, i, j in path if what != "frame"}
    assert [i for i in range(4) if found.aligned[0, i]] == sorted(aligned)
    assert found.frame[0, :n].tolist() == [met[i] for i in range(n)]
    assert np.flatnonzero(found.skipped[0]).tolist() == [j for what, _, j in path if what == "frame"]


def _problem(dtype=jnp.float32, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    head = Head(*(jnp.asarray(scale * generator.normal(size=s), jnp.float32) for s in ((B, T, D), (D, V), (V,))))
    tokens = jnp.asarray(generator.integers(3, V, (B, N)), jnp.int32).at[0].set(7)  # a row of equal labels
    targets = Targets(tokens, jnp.array([5, 0, 3, 1, 5, 4]))
    frame_lengths = jnp.array([2, 1, 5, 3, 5, 1])
    return head._replace(hidden=head.hidden.astype(dtype)), frame_lengths, targets


WEIGHTS = jnp.array([1.0, 2.0, 0.5, 0.0, 3.0, 0.25])


def _plain(head, frame_lengths, targets, penalty, smoothing):
    """The losses by Python loops over cells, each of them differentiable: a second formulation over all logits."""
    scores = jnp.einsum("btd,dv->btv", head.hidden.astype(jnp.float32), head.kernel) + head.bias[None, None]
    nll, losses = -jax.nn.log_softmax(scores), []
    for b in range(len(frame_lengths)):
        n, m = int(targets.lengths[b]), int(frame_lengths[b])
        table = {(0, 0): jnp.zeros(())}
        for i in range(n + 1):
            for j in range(m + 1):
                ways, label, place = [], int(targets.tokens[b, i - 1]), max(j - 1, 0)
                if i and j:
                    ways.append(table[i - 1, j - 1] + nll[b, place, label])
                if j:
                    ways.append(table[i, j - 1] + nll[b, place, 0])
                if i:
                    ways.append(table[i - 1, j] + np.float32(penalty) * nll[b, place, label])
                if ways:
                    table[i, j] = functools.reduce(jnp.minimum, ways)
        losses.append((1 - smoothing) * table[n, m] + smoothing * nll[b, :m].mean(axis=-1).sum())
    return jnp.stack(losses)


@pytest.mark.parametrize("sentences", [1, 4, 6])
@pytest.mark.parametrize(("penalty", "smoothing"), [(1.0, 0.0), (2.0, 0.1), (0.25, 0.1)])
def test_loss_and_gradient_against_autodiff_of_a_plain_programme(monkeypatch, sentences, penalty, smoothing):
    monkeypatch.setitem(chunks.BYTES, jax.default_backend(), 4 * T * V * sentences)
    head, *rest = _problem()
    objective = AXE(penalty, smoothing)

    def plain(head):
        losses = _plain(head, *rest, penalty, smoothing)
        return 1.7 * (WEIGHTS * losses).sum(), losses

    def ours(head):
        total, losses = objective.loss(head, *rest, WEIGHTS)
        return 1.7 * total, losses

    expected = jax.value_and_grad(plain, has_aux=True)(head)
    found = jax.jit(jax.value_and_grad(ours, has_aux=True))(head)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    np.testing.assert_array_equal(found[1].hidden[3], jnp.zeros((T, D)))  # of weight 0
    assert np.all(np.asarray(found[1].hidden)[np.arange(T)[None] >= np.asarray(rest[0])[:, None]] == 0)
    np.testing.assert_allclose(ours(head)[1], expected[0][1], rtol=1e-5)  # without gradients
    # Labels were skipped and frames were: else this would be plain cross-entropy.
    align = objective.align(head, *rest)
    emitted = (align.tokens > 0).sum(axis=1)
    assert (emitted < rest[1].lengths).any() and (emitted < rest[0]).any()


def test_gradient_against_finite_differences():
    # A step in float32 would lose the digits: the loss of logits in float64, by all alignments one by one.
    head, frame_lengths, targets = _problem()
    penalty, smoothing, generator = 2.0, 0.1, np.random.default_rng(1)

    def value(kernel):
        scores = np.asarray(head.hidden, np.float64) @ kernel + np.asarray(head.bias, np.float64)
        nll = np.log(np.exp(scores).sum(-1, keepdims=True)) - scores
        total = 0.0
        for b, (n, m) in enumerate(zip(targets.lengths.tolist(), frame_lengths.tolist())):
            cost = nll[b, :m][:, np.asarray(targets.tokens[b, :n])]
            least = _cheapest(cost, nll[b, :m, 0], penalty)[0]
            total += float(WEIGHTS[b]) * ((1 - smoothing) * least + smoothing * nll[b, :m].mean(-1).sum())
        return total

    gradient = jax.grad(lambda h: AXE(penalty, smoothing).loss(h, frame_lengths, targets, WEIGHTS)[0])(head).kernel
    kernel = np.asarray(head.kernel, np.float64)
    for _ in range(4):
        direction = generator.normal(size=kernel.shape)
        slope = (value(kernel + 1e-6 * direction) - value(kernel - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), slope, rtol=1e-4)


def test_padding_changes_nothing():
    head, frame_lengths, targets = _problem()
    objective = AXE(2.0, 0.1)
    wide = head._replace(hidden=jnp.pad(head.hidden, ((0, 2), (0, 3), (0, 0)), constant_values=5.0))
    wide_targets = Targets(
        jnp.pad(targets.tokens, ((0, 2), (0, 4)), constant_values=9), jnp.pad(targets.lengths, (0, 2))
    )
    wide_frames = jnp.pad(frame_lengths, (0, 2), constant_values=1)
    given = objective.loss(head, frame_lengths, targets, WEIGHTS), objective.align(head, frame_lengths, targets)
    padded = (
        objective.loss(wide, wide_frames, wide_targets, jnp.pad(WEIGHTS, (0, 2))),
        objective.align(wide, wide_frames, wide_targets),
    )
    np.testing.assert_allclose(padded[0][0], given[0][0], rtol=1e-6)
    np.testing.assert_allclose(padded[0][1][:B], given[0][1], rtol=1e-6)
    np.testing.assert_allclose(padded[1].losses[:B], given[1].losses, rtol=1e-6)
    for name in ("tokens", "predicted"):
        np.testing.assert_array_equal(getattr(padded[1], name)[:B, :T], getattr(given[1], name))
        assert not np.any(getattr(padded[1], name)[:B, T:])


def test_bfloat16_states_get_bfloat16_gradients():
    head, *rest = _problem(jnp.bfloat16)
    found = jax.grad(lambda h: AXE(2.0, 0.1).loss(h, *rest, WEIGHTS)[0])(head)
    expected = jax.grad(lambda h: (WEIGHTS * _plain(h, *rest, 2.0, 0.1)).sum())(head)
    assert [leaf.dtype for leaf in found] == [jnp.bfloat16, jnp.float32, jnp.float32]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=0.05, atol=0.05),
        found,
        expected,
    )


def test_labels_in_their_places_cost_what_cross_entropy_does():
    head, _, targets = _problem()
    lengths = jnp.full(B, T)
    targets = Targets(targets.tokens, lengths)
    sure = jax.nn.one_hot(targets.tokens, V) * 9
    head = Head(sure, jnp.eye(V), jnp.zeros(V))
    for found, expected in zip(
        AXE(2.0, 0.1).loss(head, lengths, targets, WEIGHTS), CrossEntropy(0.1).loss(head, lengths, targets, WEIGHTS)
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_scores_of_labels_are_columns_of_the_logits(dtype):
    head, _, targets = _problem(dtype)
    logits = np.asarray(head.hidden, np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
    expected = np.take_along_axis(logits, np.asarray(targets.tokens)[:, None, :], axis=2)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(
        linear_label_logits(*head[:2], targets.tokens, bias=head.bias), expected, rtol=tolerance, atol=tolerance
    )
    without = linear_label_logits(*head[:2], targets.tokens)
    expected = expected - np.asarray(head.bias)[np.asarray(targets.tokens)][:, None]
    np.testing.assert_allclose(without, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("objective", [AXE(2.0, 0.1), CrossEntropy(0.1), NextToken(0.1)])
def test_an_alignment_says_what_frames_should_emit(objective):
    head, frame_lengths, targets = _problem()
    if not isinstance(objective, AXE):
        frame_lengths = objective.frames(frame_lengths, targets.lengths)
    found = jax.jit(objective.align)(head, frame_lengths, targets)
    logits = np.asarray(head.hidden, np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
    nll = np.log(np.exp(logits).sum(-1, keepdims=True)) - logits
    for b, (n, m) in enumerate(zip(targets.lengths.tolist(), frame_lengths.tolist())):
        labels, tokens = targets.tokens[b, :n].tolist(), [0] * T
        if isinstance(objective, AXE):
            loss, path, _ = _cheapest(nll[b, :m][:, np.asarray(labels, int)], nll[b, :m, 0], 2.0)
            for what, i, j in path:
                if what == "align":
                    tokens[j] = labels[i]
        else:
            tokens[:n], loss = labels, sum(nll[b, t, label] for t, label in enumerate(labels))
        assert found.tokens[b].tolist() == tokens
        assert found.predicted[b].tolist() == logits[b, :m].argmax(-1).tolist() + [0] * (T - m)
        np.testing.assert_allclose(found.losses[b], loss, rtol=1e-5)
    # What `loss` gives without smoothing.
    plain = dataclasses.replace(objective, label_smoothing=0.0).loss(head, frame_lengths, targets, WEIGHTS)[1]
    np.testing.assert_allclose(found.losses, plain, rtol=1e-5)
    gradient = jax.grad(lambda h: objective.align(h, frame_lengths, targets).losses.sum())(head)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, jnp.zeros_like(g)), gradient)


def test_no_program_holds_all_logits():
    objective, (rows, frames, width, words) = AXE(2.0, 0.1), (32, 16, 8, 4096)
    shapes = ((rows, frames, width), (width, words), (words,))
    head = Head(*(jnp.zeros(shape) for shape in shapes))
    targets = Targets(jnp.ones((rows, frames), jnp.int32), jnp.full(rows, frames))
    lengths, weights = jnp.full(rows, frames), jnp.ones(rows)
    whole = 4 * rows * frames * words

    def bytes_of(function):
        return jax.jit(function).lower(head).compile().memory_analysis().temp_size_in_bytes

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunks.BYTES, jax.default_backend(), whole // 16)
        assert bytes_of(jax.grad(lambda h: objective.loss(h, lengths, targets, weights)[0])) < whole / 2


def test_collapse_drops_what_is_empty_and_keeps_repeats():
    frames = jnp.array([[3, 3, 0, 3, 4, 9], [0, 0, 0, 0, 0, 5], [0, 2, 0, 6, 7, 1]])
    tokens, lengths = AXE(2.0).collapse(frames, jnp.array([5, 5, 6]))
    assert tokens.tolist() == [[3, 3, 3, 4, 0, 0], [0] * 6, [2, 6, 7, 1, 0, 0]]
    assert lengths.tolist() == [4, 0, 4]
    assert AXE(2.0, target_eos=True).collapse(frames, jnp.array([5, 5, 6]))[1].tolist() == [4, 0, 0]


def test_frames_and_feasibility():
    objective = AXE(2.0)
    assert objective.max_frames(7, 9) == 9
    assert objective.frames(jnp.array([3, 7]), jnp.array([4, 0])).tolist() == [4, 1]
    targets = Targets(jnp.ones((2, 3), jnp.int32), jnp.array([3, 0]))
    assert objective.infeasible(jnp.array([1, 1]), targets).tolist() == [False, False]


def test_a_config_names_its_penalty():
    config = tiny.config()
    chosen = dataclasses.replace(config.objective, loss="axe", skip_target_penalty=3.0, target_eos=True)
    assert objectives.build(dataclasses.replace(config, objective=chosen)) == AXE(3.0, 0.01, True)
    assert objectives.build(config) == CTC(2.0, 0.01)


def test_some_steps_of_training_lower_the_loss():
    config, network, objective, params = tiny.build("axe", dropout=0.0)
    batch, optimizer = tiny.batch(), optax.adam(3e-3)

    def total(params, step):
        noise = step_noise(1, step, 4)
        return objective_sums(network, objective, config.objective, params, batch, noise)

    @jax.jit
    def update(params, state, step):
        (_, sums), gradients = jax.value_and_grad(total, has_aux=True)(params, step)
        with jax.numpy_dtype_promotion("standard"):
            changes, state = optimizer.update(gradients, state)
        return jax.tree.map(jnp.add, params, changes), state, sums

    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
    losses = []
    for step in range(25):
        params, state, sums = update(params, state, jnp.int32(step))
        losses.append((float(sums.loss / sums.tokens), float(sums.length_loss)))
        assert float(sums.infeasible) == 0
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < losses[0][1]
