"""The autoregressive model: causal, blind to its company, and the same token by token as all at once."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import models, objectives
from natjax.decoding import autoregressive
from natjax.decoding.autoregressive import prepare
from natjax.frames import target_limit
from natjax.layers.head import logits
from natjax.layers.stack import apart
from natjax.objectives.training import objective_sums
from natjax.typing import BOS, EOS

SEAMS = [{}, {"norm": "post", "activation": "relu", "share_embeddings": False},
         {"norm": "post", "positions": "learned", "initializer": "bert"}]  # fmt: skip
N = 9


def _build(**fields):
    """(config, model, parameters as training leaves them: no bias is zero and no scale one)."""
    config = tiny.config(kind="autoregressive", **fields)
    objective = dataclasses.replace(config.objective, loss="ce", target_eos=True, label_smoothing=0.1)
    config = dataclasses.replace(config, objective=objective)
    model = models.build(config, tiny.SIZE, tiny.SIZE)
    generator = np.random.default_rng(0)

    def value(path, leaf):
        around = 1.0 if "scale" in str(path[-1]) else 0.0
        return jnp.asarray(around + 0.15 * generator.normal(size=leaf.shape), jnp.float32)

    return config, model, jax.tree_util.tree_map_with_path(value, jax.eval_shape(lambda: models.init(model, 0)))


def _hidden(model):
    """The compiled teacher-forced pass: (params, inputs, source, source_lengths) -> [B, N, D]."""

    @jax.jit
    def hidden(params, inputs, source, lengths):
        memory = model.apply({"params": params}, source, lengths, method="encode")
        return model.apply({"params": params}, inputs, memory, lengths, method="decode")

    return hidden


@pytest.mark.parametrize("fields", SEAMS)
def test_a_token_changes_nothing_before_it(fields):
    _, model, params = _build(**fields)
    batch, hidden = tiny.batch(), _hidden(model)
    inputs = jnp.asarray(np.random.default_rng(1).integers(4, tiny.SIZE, (4, N)), jnp.int32)
    out = np.asarray(hidden(params, inputs, batch.source, batch.source_lengths))
    for n in range(N):
        changed = inputs.at[:, n].set((inputs[:, n] + 1) % tiny.SIZE)
        other = np.asarray(hidden(params, changed, batch.source, batch.source_lengths))
        np.testing.assert_array_equal(out[:, :n], other[:, :n])
        assert (np.abs(out[:, n:] - other[:, n:]).max(axis=(1, 2)) > 1e-4).all()


def _decode(model, **options):
    return autoregressive.make_decode(model, **{**dict(beam_size=1, length_penalty=1.0), **options})


@pytest.mark.parametrize("fields", SEAMS)
def test_a_row_does_not_see_its_company(fields):
    _, model, params = _build(**fields)
    batch, other = tiny.batch(seed=0), tiny.batch(seed=1)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:2], b[2:]]), batch, other)
    hidden, decode = _hidden(model), _decode(model, beam_size=3, max_length_ratio=2.0)
    one, two = (hidden(params, b.target, b.source, b.source_lengths) for b in (batch, mixed))
    np.testing.assert_array_equal(one[:2], two[:2])
    assert not np.array_equal(one[2:], two[2:])
    one, two = (decode(params, b.source, b.source_lengths) for b in (batch, mixed))
    # All but the number of steps, which is the batch's.
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[:2], b[:2]), (one[:5], one.n_best[:4]), (two[:5], two.n_best[:4])
    )


@pytest.mark.parametrize("fields", SEAMS)
def test_steps_over_reordered_beams_equal_the_whole_pass(fields):
    # Hypotheses are reordered at random after each step, as a beam does it: only ancestors move. What each has seen
    # must be its own history, decoded at once.
    _, model, params = _build(**fields)
    W, batch, generator = 3, tiny.batch(), np.random.default_rng(2)
    layers, lengths = apart(params), batch.source_lengths
    memory = model.apply({"params": params}, batch.source, lengths, method="encode")
    cache, step, hidden = model.start(layers, memory, lengths, W, N), jax.jit(model.step), _hidden(model)
    history = np.zeros((4, W, N), np.int32)
    ancestors = np.zeros((4, W, N), np.int32)
    for n in range(N):
        history[:, :, n] = generator.integers(4, tiny.SIZE, (4, W)) if n else BOS
        ancestors[:, :, n] = np.arange(W)
        states, cache = step(layers, cache, history[:, :, n], jnp.int32(n), jnp.asarray(ancestors))
        for w in range(W):
            whole = hidden(params, jnp.asarray(history[:, w]), batch.source, lengths)
            np.testing.assert_allclose(states[:, w], whole[:, n], rtol=1e-5, atol=1e-5)
        parents = generator.integers(0, W, (4, W))[:, :, None]
        history, ancestors = (np.take_along_axis(array, parents, axis=1) for array in (history, ancestors))


def test_greedy_takes_the_best_token_of_the_whole_pass():
    _, model, params = _build()
    params = {**params, "output_bias": params["output_bias"].at[EOS].add(0.5)}  # so that some rows end early
    batch, lengths = tiny.batch(6), tiny.batch(6).source_lengths
    found = _decode(model, max_length_ratio=1.0)(params, batch.source, lengths)
    prepared = prepare(params, jnp.float32)
    assert ("turned_up_kernel" in prepared["decoder"]["layers"][0]["feed_forward"]) == (jax.default_backend() == "cpu")
    again = _decode(model, max_length_ratio=1.0)(prepared, batch.source, lengths)
    np.testing.assert_array_equal(found.tokens, again.tokens)
    hidden, most, ended = _hidden(model), target_limit(8, 1.0), []
    for row in range(6):
        inputs, score, limit = [BOS], 0.0, target_limit(int(lengths[row]), 1.0)
        while len(inputs) <= limit and inputs[1:][-1:] != [EOS]:
            padded = jnp.zeros((6, most), jnp.int32).at[row, : len(inputs)].set(jnp.array(inputs))
            head = model.apply({"params": params}, hidden(params, padded, batch.source, lengths), method="project")
            log_probs = np.asarray(jax.nn.log_softmax(logits(head)))[row, len(inputs) - 1]
            allowed = np.delete(np.arange(tiny.SIZE), [0, BOS] if len(inputs) > 1 else [0, BOS, EOS])
            best = int(allowed[log_probs[allowed].argmax()])
            ended.append(best == EOS)
            inputs.append(EOS if len(inputs) == limit else best)
            score += log_probs[inputs[-1]]
        assert found.tokens[row, : int(found.lengths[row])].tolist() == inputs[1:-1]
        np.testing.assert_allclose(found.scores[row], score, rtol=1e-4)
    assert 0 < sum(ended) < 6  # some rows by themselves, others at their limit


@pytest.mark.parametrize("W", [1, 5])
def test_no_step_copies_the_cache(W):
    # A compiled loop over a cache whose size no other array has: it must write into it, and not copy or turn it.
    _, model, params = _build()
    most = 101

    def run(params, memory, lengths, ancestors):
        def body(at):
            position, cache, tokens = at
            hidden, cache = model.step(params, cache, tokens, position, ancestors)
            return position + 1, cache, hidden.argmax(-1).astype(jnp.int32)

        start = jnp.int32(0), model.start(params, memory, lengths, W, most), jnp.ones((3, W), jnp.int32)
        return jax.lax.while_loop(lambda at: at[0] < most, body, start)[2]

    shapes = jnp.zeros((3, 21, 16)), jnp.full((3,), 21, jnp.int32), jnp.zeros((3, W, most), jnp.int32)
    text = jax.jit(run).lower(apart(params), *shapes).compile().as_text()
    keys, values = rf"f32\[6,8,{most * W}\]", rf"f32\[6,{most * W},8\]"
    loop, cache = text.split("ENTRY")[0], rf"= (?:{keys}|{values})\S*"
    for part in (keys, values):
        assert len(re.findall(rf"= {part}\S* dynamic-update-slice\(", loop)) >= 2  # of two layers
    assert not re.search(rf"{cache} (?:copy|transpose)\(", loop)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_against_numpy(smoothing):
    config, model, params = _build()
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, label_smoothing=smoothing))
    batch = tiny.batch()
    total, sums = objective_sums(model, objectives.build(config), config.objective, params, batch, None)
    inputs = np.concatenate([np.full((4, 1), BOS), np.asarray(batch.target)[:, :-1]], axis=1)
    states = _hidden(model)(params, jnp.asarray(inputs, jnp.int32), batch.source, batch.source_lengths)
    head = model.apply({"params": params}, states, method="project")
    scores = np.asarray(head.hidden, np.float64) @ np.asarray(head.kernel) + np.asarray(head.bias)
    log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    expected = sum(
        -(1 - smoothing) * log_probs[b, n, batch.target[b, n]] - smoothing * log_probs[b, n].mean()
        for b in range(4)
        for n in range(int(batch.target_lengths[b]))
    )
    tokens = int(batch.target_lengths.sum())
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-5)
    np.testing.assert_allclose(total, expected / tokens, rtol=1e-5)
    assert (float(sums.tokens), float(sums.length_loss), float(sums.infeasible)) == (tokens, 0, 0)
