"""One compiled training step, and one compiled evaluation of the loss."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from natjax.config import Config
from natjax.data.store import Batch
from natjax.layers.noise import step_noise
from natjax.models import Model
from natjax.objectives.base import Objective
from natjax.objectives.training import DeviceBatch, Sums, objective_sums
from natjax.training.state import State, update
from natjax.typing import Array, PyTree


class StepReport(NamedTuple):
    """What a step says of itself, left on the device until somebody asks.

    Attributes:
        total: f32[], what was minimised.
        gradient_norm: f32[], before clipping.
        sums: see `objectives.training.Sums`.
    """

    total: Array
    gradient_norm: Array
    sums: Sums


def to_device(batch: Batch) -> DeviceBatch:
    """The arrays of a host batch that the step needs."""
    return jax.device_put(
        DeviceBatch(batch.source, batch.source_lengths, batch.target, batch.target_lengths, batch.weights)
    )


def make_train_step(
    model: Model, objective: Objective, config: Config
) -> Callable[[State, DeviceBatch, Array], tuple[State, StepReport]]:
    """The compiled step, `(state, batch, seed u32[]) -> (state, report)`; one program for each bucket shape.

    The seed is an argument, so that runs which differ in nothing else share what is compiled. The state is donated.
    """

    def train_step(state: State, batch: DeviceBatch, seed: Array) -> tuple[State, StepReport]:
        noise = step_noise(seed, state.step, batch.source.shape[0])
        progress = state.step.astype(jnp.float32) / np.float32(config.training.steps)

        def total_of(params: PyTree) -> tuple[Array, Sums]:
            return objective_sums(model, objective, config.objective, params, batch, noise, progress)

        (total, sums), gradients = jax.value_and_grad(total_of, has_aux=True)(state.params)
        report = StepReport(total, optax.tree.norm(gradients), sums)
        return update(state, gradients, config.training), report

    return jax.jit(train_step, donate_argnums=0)


def make_loss(model: Model, objective: Objective, config: Config) -> Callable[[PyTree, DeviceBatch], Sums]:
    """The compiled evaluation of the loss: without dropout, latents at the posterior's mean, nothing shown."""

    def loss(params: PyTree, batch: DeviceBatch) -> Sums:
        return objective_sums(model, objective, config.objective, params, batch, None)[1]

    return jax.jit(loss)


def parameter_count(params: PyTree) -> int:
    """Number of parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
