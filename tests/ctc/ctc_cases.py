"""Random batches, and the loss with its gradient, compiled once a shape and set of options."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from natjax import ctc
from natjax.ctc import AUTO, Implementation


def rows(seed, batch, frames, size, vocabulary, feasible=False):
    """A random batch: logits, logit_lengths, labels, label_lengths."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(batch, frames, vocabulary), scale=2.0).astype(np.float32)
    labels = random.integers(1, vocabulary, (batch, size), dtype=np.int32)
    label_lengths = random.integers(0, size + 1, batch, dtype=np.int32)
    logit_lengths = random.integers(0, frames + 1, batch, dtype=np.int32)
    if feasible:
        needed = [n + int((row[1:n] == row[: max(n - 1, 0)]).sum()) for row, n in zip(labels, label_lengths)]
        logit_lengths = np.maximum(logit_lengths, np.array(needed, np.int32))
        assert logit_lengths.max() <= frames
    return tuple(map(jnp.asarray, (logits, logit_lengths, labels, label_lengths)))


def loss(logits, logit_lengths, labels, label_lengths, *, implementation=AUTO, **options):
    """Every implementation as a function of logits: those of hidden states get the identity for a kernel.

    Its products are exact, so that the same bounds hold; but a logit of −inf or NaN spreads over its frame.
    """
    rest = logit_lengths, labels, label_lengths
    if implementation in (AUTO, Implementation.SCAN):
        return ctc.ctc_loss(logits, *rest, implementation=implementation, **options)
    kernel = jnp.eye(logits.shape[2], dtype=logits.dtype)
    return ctc.linear_ctc_loss(logits, kernel, *rest, implementation=implementation, **options)


@partial(jax.jit, static_argnames=("blank_id", "label_smoothing", "infeasible", "implementation"))
def _loss_and_vjp(logits, logit_lengths, labels, label_lengths, weights, **options):
    losses, vjp = jax.vjp(lambda z: loss(z, logit_lengths, labels, label_lengths, **options), logits)
    return losses, vjp(weights.astype(losses.dtype))[0]


def loss_and_vjp(*batch, weights=None, **options):
    """Losses, and the gradient of their weighted sum, as numpy arrays."""
    weights = jnp.ones(batch[0].shape[0], jnp.float32) if weights is None else weights
    return jax.tree.map(np.asarray, _loss_and_vjp(*batch, weights, **options))
