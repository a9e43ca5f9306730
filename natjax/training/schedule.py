"""Learning rate: linear warm-up, inverse square root, and an optional linear cool-down to zero."""

import jax.numpy as jnp
import numpy as np

from natjax.config import TrainingConfig
from natjax.typing import Array


def learning_rate(step: Array, config: TrainingConfig) -> Array:
    """The rate of the update that takes the state from `step` to `step` + 1 (Vaswani et al. 2017, section 5.3).

    Args:
        step: i32[].
        config: peak rate, warm-up and cool-down.

    Returns:
        f32[].
    """
    done = (step + 1).astype(jnp.float32)
    warmup = np.float32(config.warmup_steps)
    rate = np.float32(config.learning_rate) * jnp.minimum(done / warmup, jnp.sqrt(warmup / done))
    if config.cooldown_steps:
        left = np.float32(config.steps) - step.astype(jnp.float32)
        rate = rate * jnp.clip(left / np.float32(config.cooldown_steps), 0.0, 1.0)
    return rate
