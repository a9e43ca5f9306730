"""Small models and batches that several tests share."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from natjax import models, objectives
from natjax.config import Config, DataConfig, DecodingConfig, ModelConfig, ObjectiveConfig, TrainingConfig, VocabConfig
from natjax.objectives.training import DeviceBatch

SIZE = 37


def config(**model) -> Config:
    """A run that takes seconds: 1+2 layers of width 16 on the embedded corpus."""
    preset = dict(encoder_layers=1, decoder_layers=2, width=16, feed_forward=32, heads=2, dropout=0.1, ratio=2.0)
    return Config(
        name="tiny",
        data=DataConfig(embedded="demo", max_length=40, buckets=2),
        vocab=VocabConfig(size=300),
        model=ModelConfig.tiny(**{**preset, **model}),
        objective=ObjectiveConfig(),
        training=TrainingConfig(steps=6, batch_frames=512, learning_rate=1e-3, warmup_steps=2, log_every=2,
                                eval_every=3, eval_sentences=8, save_every=3, keep_last=2, keep_best=2),
        decoding=DecodingConfig(batch_frames=1024, max_source_length=32),
    )  # fmt: skip


def small() -> Config:
    """One layer each and one batch shape: it compiles little."""
    made = config(decoder_layers=1)
    return dataclasses.replace(made, data=dataclasses.replace(made.data, buckets=1))


def changed(made: Config, **training) -> Config:
    """The same run with other fields of its training section."""
    return dataclasses.replace(made, training=dataclasses.replace(made.training, **training))


def build(loss="ctc", **model):
    """(config, model, objective, parameters) with parameters large enough to matter."""
    made = config(**model)
    made = dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss=loss, length_range=6))
    objective = objectives.build(made)
    network = models.build(made, SIZE, SIZE)
    return made, network, objective, models.init(network, 3)


def batch(rows=4, S=8, N=9, seed=0) -> DeviceBatch:
    """Random sentences of different lengths."""
    generator = np.random.default_rng(seed)
    source_lengths = generator.integers(4, S + 1, rows).astype(np.int32)
    target_lengths = generator.integers(1, N + 1, rows).astype(np.int32)
    source = generator.integers(4, SIZE, (rows, S)).astype(np.int32)
    target = generator.integers(4, SIZE, (rows, N)).astype(np.int32)
    source[np.arange(S)[None] >= source_lengths[:, None]] = 0
    target[np.arange(N)[None] >= target_lengths[:, None]] = 0
    arrays = source, source_lengths, target, target_lengths, np.ones(rows, np.float32)
    return DeviceBatch(*map(jnp.asarray, arrays))


def read_params(folder: Path) -> dict:
    """The parameters of a checkpoint, as orbax reads all of it."""
    from orbax.checkpoint import v1 as ocp

    arrays = folder.absolute() / "arrays"
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = ocp.metadata(arrays).metadata
    return ocp.load(arrays, jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=here), saved))[
        "params"
    ]


def pad(batch: DeviceBatch, rows: int, S: int, N: int) -> DeviceBatch:
    """The same sentences in a larger static shape."""
    B = batch.source.shape[0]

    def grow(array, *shape):
        return jnp.pad(array, [(0, wanted - have) for wanted, have in zip(shape, array.shape)])

    lengths = jnp.pad(batch.source_lengths, (0, rows - B), constant_values=1)
    return DeviceBatch(
        grow(batch.source, rows, S), lengths, grow(batch.target, rows, N),
        grow(batch.target_lengths, rows), grow(batch.weights, rows),
    )  # fmt: skip


class Letters:
    """A language model that likes some tokens and has no memory, as a scorer on the device."""

    def __init__(self, table):
        self.table = table

    def start(self):
        return jnp.int32(0)

    def score(self, state, token):
        return self.table[token], state


jax.tree_util.register_pytree_node(Letters, lambda lm: ((lm.table,), None), lambda _, children: Letters(*children))
