"""The model: company invariance, dtypes, presets, and what reaches what."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import models, objectives
from natjax.config import ModelConfig
from natjax.ctc import operand_dtype
from natjax.decoding.single_pass import make_decode
from natjax.layers.head import logits
from natjax.objectives.base import Targets
from natjax.objectives.training import objective_sums

SEAMS = [("ctc", {}), ("ctc", {"upsampling": "linear"}), ("ctc", {"ratio": 2.5}), ("ce", {}), ("axe", {}),
         ("ctc", {"latents": "vae"}),
         ("ctc", {"norm": "post", "positions": "learned", "initializer": "bert", "activation": "relu"})]  # fmt: skip


def _row_losses(loss, model_fields):
    """A function batch -> f32[B], the loss of each row alone, by giving one row weight at a time."""
    config, network, objective, params = tiny.build(loss, **model_fields)

    @jax.jit
    def losses(batch):
        def one(row):
            weights = jnp.where(jnp.arange(batch.weights.shape[0]) == row, batch.weights, 0.0)
            return objective_sums(network, objective, config.objective, params, batch._replace(weights=weights), None)[
                1
            ].loss

        return jnp.stack([one(r) for r in range(batch.source.shape[0])])

    return losses


@pytest.mark.parametrize(("loss", "fields"), SEAMS)
def test_a_row_does_not_see_its_company(loss, fields):
    losses = _row_losses(loss, fields)
    batch, other = tiny.batch(seed=0), tiny.batch(seed=1)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:2], b[2:]]), batch, other)
    # The same compiled shape: bitwise, whatever the other rows hold.
    np.testing.assert_array_equal(losses(batch)[:2], losses(mixed)[:2])


def _of_use(loss, dtype):
    """(model, objective, parameters) of 2 + 2 layers of width 192, the parameters as training leaves them: no bias is
    zero and no scale one."""
    sizes = dict(width=192, feed_forward=768, heads=4, encoder_layers=2, decoder_layers=2)
    config = tiny.config(dtype=dtype, **sizes)
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss=loss))
    objective = objectives.build(config)
    network = models.build(config, 500, 500)
    generator = np.random.default_rng(0)

    def value(path, leaf):
        around = 1.0 if "scale" in str(path[-1]) else 0.0
        return jnp.asarray(around + 0.08 * generator.normal(size=leaf.shape), jnp.float32)

    return network, objective, jax.tree_util.tree_map_with_path(value, jax.eval_shape(lambda: models.init(network, 0)))


def _two_companies():
    """Two batches of one shape, and which of their rows are the same in both."""
    batch, other = (tiny.batch(16, 24, 8, seed=seed) for seed in (0, 1))
    same = jnp.arange(16) % 3 == 0
    mixed = jax.tree.map(lambda a, b: jnp.where(same.reshape(-1, *(1,) * (a.ndim - 1)), a, b), batch, other)
    return batch, mixed, np.asarray(same)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["ctc", "ce", "axe"])
def test_a_row_of_a_model_of_use_does_not_see_its_company(loss, dtype):
    network, objective, params = _of_use(loss, dtype)

    @jax.jit
    def losses(params, batch):
        def apply(method, *args):
            return network.apply({"params": params}, *args, method=method)

        memory = apply("encode", batch.source, batch.source_lengths)
        frame_lengths = objective.frames(batch.source_lengths, batch.target_lengths)
        frames = apply("upsample", memory, batch.source_lengths, objective.max_frames(24, 8))
        hidden = apply("decode", frames, frame_lengths, memory, batch.source_lengths)
        targets = Targets(batch.target, batch.target_lengths)
        return objective.loss(apply("project", hidden), frame_lengths, targets, batch.weights)[1]

    batch, mixed, same = _two_companies()
    one, two = (np.asarray(losses(params, b)) for b in (batch, mixed))
    np.testing.assert_array_equal(one[same], two[same])
    assert (one > 0).all()
    assert (one[~same] != two[~same]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_translation_by_a_model_of_use_does_not_see_its_company(dtype):
    network, objective, params = _of_use("ctc", dtype)
    decode = make_decode(network, objective)
    batch, mixed, same = _two_companies()
    one, two = (decode(params, b.source, b.source_lengths) for b in (batch, mixed))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[same], b[same]), one, two)
    assert (np.asarray(one.scores) != np.asarray(two.scores))[~same].all()
    assert float(one.lengths.astype(jnp.float32).mean()) > 3  # these are sentences, not blanks


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_of_a_model_of_use_in_other_shapes(dtype):
    network, objective, params = _of_use("ctc", dtype)

    @jax.jit
    def run(batch):
        def apply(method, *args):
            return network.apply({"params": params}, *args, method=method)

        memory = apply("encode", batch.source, batch.source_lengths)
        frame_lengths = objective.frames(batch.source_lengths, batch.target_lengths)
        frames = apply("upsample", memory, batch.source_lengths, objective.max_frames(batch.source.shape[1], 8))
        head = apply("project", apply("decode", frames, frame_lengths, memory, batch.source_lengths))
        targets = Targets(batch.target, batch.target_lengths)
        return objective.loss(head, frame_lengths, targets, batch.weights)[1], logits(head), frame_lengths

    batch, _, _ = _two_companies()
    losses, scores, frame_lengths = run(batch)
    real = np.arange(scores.shape[1])[None] < np.asarray(frame_lengths)[:, None]
    best = np.sort(scores, axis=-1)[..., ::-1]
    sure = real & (best[..., 0] - best[..., 1] > 1e-4)
    assert sure.sum() > 400
    for rows, other in ((16, tiny.pad(batch, 24, 32, 12)), (1, jax.tree.map(lambda a: a[:1], batch))):
        found, their_scores, _ = run(other)
        np.testing.assert_allclose(found[:rows], losses[:rows], rtol=1e-5)
        tokens = np.asarray(their_scores).argmax(-1)[:rows, : scores.shape[1]]
        np.testing.assert_array_equal(tokens[sure[:rows]], np.asarray(scores).argmax(-1)[:rows][sure[:rows]])


@pytest.mark.parametrize(("loss", "fields"), SEAMS)
def test_padding_changes_no_loss(loss, fields):
    losses = _row_losses(loss, fields)
    batch = tiny.batch()
    np.testing.assert_allclose(losses(tiny.pad(batch, 6, 12, 13))[:4], losses(batch), rtol=1e-5)


def test_tokens_in_the_padding_are_not_read():
    losses = _row_losses("ctc", {})
    batch = tiny.batch()
    beyond = jnp.arange(8)[None] >= batch.source_lengths[:, None]
    dirty = batch._replace(source=jnp.where(beyond, 5, batch.source))
    np.testing.assert_array_equal(losses(batch), losses(dirty))


def test_bfloat16_is_close_to_float32():
    batch = tiny.batch()
    losses = [np.asarray(_row_losses("ctc", {"dtype": dtype})(batch)) for dtype in ("float32", "bfloat16")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert not np.array_equal(losses[0], losses[1])


def test_bfloat16_parameters_and_gradients_stay_float32():
    config, network, objective, params = tiny.build(dtype="bfloat16")
    gradient = jax.jit(jax.grad(
        lambda p: objective_sums(network, objective, config.objective, p, tiny.batch(), None)[0]
    ))(params)  # fmt: skip
    assert {leaf.dtype for leaf in jax.tree.leaves((params, gradient))} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("loss", "fields"), SEAMS)
def test_every_parameter_gets_a_gradient(loss, fields):
    config, network, objective, params = tiny.build(loss, **fields)

    def total(params):
        return objective_sums(network, objective, config.objective, params, tiny.batch(), None)[0]

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params)):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_the_decoder_sees_later_frames():
    _, network, _, params = tiny.build()
    batch = tiny.batch(rows=1)

    def first_frame(source):
        head = network.apply({"params": params}, source, batch.source_lengths, 16)
        return np.asarray(head.hidden[0, 0])

    last = int(batch.source_lengths[0]) - 1
    changed = batch.source.at[0, last].set(9)
    assert np.abs(first_frame(batch.source) - first_frame(changed)).max() > 1e-5


def _count(config: ModelConfig) -> int:
    """Parameters by formula."""
    D, F = config.width, config.feed_forward
    attention, feed_forward, norm = 4 * D * D + 4 * D, 2 * D * F + F + D, 2 * D
    encoder = config.encoder_layers * (attention + feed_forward + 2 * norm)
    decoder = config.decoder_layers * (2 * attention + feed_forward + 3 * norm)
    finals = 2 * norm if config.norm == "pre" else 0
    positions = 2 * config.max_positions * D if config.positions == "learned" else 0
    return encoder + decoder + finals + positions


@pytest.mark.parametrize("preset", [ModelConfig.base(), ModelConfig.small(), ModelConfig.tiny()])
def test_presets_have_the_parameters_of_the_formula(preset):
    model = models.NAT(preset, 1000, 1000)
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 8), jnp.int32), jnp.array([8]), 8), jax.random.key(0)
    )
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    assert total == _count(preset) + 1000 * preset.width + 1000  # shared embeddings, output bias


def test_separate_embeddings():
    config, _, objective, _ = tiny.build(share_embeddings=False)
    network = models.build(config, 20, 30)
    params = jax.eval_shape(lambda: models.init(network, 0))
    assert params["source_embedding"]["table"].shape == (20, 16)
    assert params["output_embedding"]["table"].shape == (30, 16)
    source, lengths = jnp.ones((1, 4), jnp.int32), jnp.array([4])
    head = jax.eval_shape(lambda p: network.apply({"params": p}, source, lengths, objective.max_frames(4, 0)), params)
    assert head.kernel.shape == (16, 30)


def _fast_bfloat16_cpu() -> bool:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return jax.default_backend() == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.mark.skipif(not _fast_bfloat16_cpu(), reason="this CPU has no bfloat16 instructions")
def test_every_projection_of_a_bfloat16_model_takes_the_fast_path_of_the_cpu():
    _, network, objective, params = tiny.build(dtype="bfloat16", width=64, feed_forward=128)
    source, lengths = jnp.ones((16, 16), jnp.int32), jnp.full((16,), 16)

    def whole(params):
        return network.apply({"params": params}, source, lengths, objective.max_frames(16, 0)).hidden

    text = jax.jit(whole).lower(params).compile().as_text()
    # A product of a parameter: two dimensions, bfloat16 operands, float32 result, handed to the CPU's library.
    matrix = r"param_\d[\w.]*: (\w+)\[\d+,\d+\]"
    operands = re.findall(rf"fused_computation[\w.]* \({matrix}, {matrix}\) -> f32", text)
    assert len(operands) >= 4 + 2 * 7  # four in the encoder's layer, seven in each of the decoder's two
    assert set(operands) == {("bf16", "bf16")}
    assert text.count("ynn_fusion") >= len(operands)


@pytest.mark.skipif(not _fast_bfloat16_cpu(), reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("rows", [16, 128, 512])  # one piece of frames in the last fusion or before it, and two pieces
def test_the_output_projection_of_the_decoder_takes_the_fast_path_of_the_cpu(rows):
    config, _, objective, _ = tiny.build(dtype="bfloat16", width=64, feed_forward=128)
    V = 1000  # no other size of this model
    network = models.build(config, V, V)
    params = jax.eval_shape(lambda: models.init(network, 0))
    source, lengths = jax.ShapeDtypeStruct((rows, 16), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.int32)
    text = make_decode(network, objective).lower(params, source, lengths).compile().as_text()
    # One product, in a computation which the CPU's library runs: operands of the faster dtype, float32 result.
    faster = {"bfloat16": "bf16", "float32": "f32"}[operand_dtype(jnp.bfloat16).name]
    lines = text.splitlines()
    product = rf"= f32\[\d+,{V}\][^ ]* dot\(%([\w.-]+), %([\w.-]+)\)"
    ((place, names),) = ((i, found.groups()) for i, line in enumerate(lines) if (found := re.search(product, line)))
    start = max(i for i in range(place) if lines[i].endswith("{"))
    for name in names:
        defined = [line for line in lines[start + 1 : place] if line.strip().startswith(f"%{name} = ")]
        assert re.search(rf" = {faster}\[\d+,\d+\]", defined[0]), defined
    computation = re.escape(lines[start].split()[0])
    assert re.search(rf" fusion\(.*calls={computation},.*__ynn_fusion", text)
