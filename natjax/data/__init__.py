"""From text to batches of few static shapes: corpus -> vocab -> store -> plan -> feed. Knows no model, needs no jax."""
