"""Models: an encoder and a decoder built from `natjax.layers`, functional (`init` and `apply`), no loss inside."""

import jax
import jax.numpy as jnp

from natjax.config import Config
from natjax.models.nat import NAT
from natjax.models.transformer import Transformer
from natjax.typing import PyTree

Model = NAT | Transformer


def build(config: Config, source_size: int, target_size: int) -> Model:
    """The model of a run, of the family that `model.kind` names.

    Args:
        config: the run.
        source_size: V of the source vocabulary.
        target_size: V of the output.
    """
    if config.model.kind == "autoregressive":
        return Transformer(config.model, source_size, target_size)
    span = config.objective.length_range if config.objective.needs_length else None
    return NAT(config.model, source_size, target_size, span)


def init(model: Model, seed: int) -> PyTree:
    """Fresh float32 parameters, a nested dict."""
    source_BS, lengths_B = jnp.zeros((1, 8), jnp.int32), jnp.full((1,), 8, jnp.int32)
    return jax.jit(lambda key: model.init(key, source_BS, lengths_B, 8)["params"])(jax.random.key(seed))


__all__ = ["NAT", "Model", "Transformer", "build", "init"]
