"""What training carries from step to step, and the optimiser that changes it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from natjax.config import TrainingConfig
from natjax.training.schedule import learning_rate
from natjax.typing import Array, PyTree


class State(NamedTuple):
    """Everything that a resumed run needs; randomness and data are functions of `step`.

    Attributes:
        step: i32[], updates done.
        params: float32 parameters, a nested dict.
        optimizer: optax's state.
    """

    step: Array
    params: PyTree
    optimizer: PyTree


def make_optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """Clipping by global norm, Adam with decoupled weight decay on matrices."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.adam_b1, config.adam_b2, config.adam_epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=_matrices),
        optax.scale_by_learning_rate(lambda count: learning_rate(count, config)),
    )


def _matrices(params: PyTree) -> PyTree:
    # By name: under the scan over layers a bias is an array of two dimensions too.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: str(path[-1].key).endswith(("kernel", "table")),
        params,
    )


def new_state(params: PyTree, config: TrainingConfig) -> State:
    """The state before the first step."""
    return State(jnp.zeros((), jnp.int32), params, make_optimizer(config).init(params))


def update(state: State, gradients: PyTree, config: TrainingConfig) -> State:
    """One optimiser step.

    optax mixes Python floats, int32 counts and float32 arrays, which strict promotion forbids: here, and only here,
    standard promotion is on.
    """
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = make_optimizer(config).update(gradients, state.optimizer, state.params)
        return State(state.step + 1, optax.apply_updates(state.params, updates), optimizer)
