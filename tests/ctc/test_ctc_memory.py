"""What compiled programs hold beside arguments and results, against the table of docs/ctc.md. Nothing is run."""

import jax
import jax.numpy as jnp
import pytest

from natjax import ctc

B, T, N, V = 16, 128, 64, 2000
STATES, SCORES = B * T * (2 * N + 1), 4 * B * T * (N + 1)  # bytes of pointers and of scores


def temporary_bytes(function):
    kinds = ((B, T, V), jnp.float32), ((B,), jnp.int32), ((B, N), jnp.int32), ((B,), jnp.int32)
    arguments = (jax.ShapeDtypeStruct(*kind) for kind in kinds)
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def gradient(logits, *rows):
    return jax.grad(lambda logits: ctc.ctc_loss(logits, *rows).sum())(logits)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the figures are those of programs for CPU")
@pytest.mark.parametrize(
    ("function", "most"),
    [(ctc.ctc_loss, 8 * STATES), (gradient, 15 * STATES), (ctc.viterbi_alignment, SCORES // 4 + SCORES)],
    ids=["loss", "gradient", "viterbi"],
)
def test_temporaries_are_as_documented(function, most):
    assert temporary_bytes(function) <= 1.1 * most
