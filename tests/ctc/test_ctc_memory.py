"""What compiled programs hold beside arguments and results, against the table of docs/ctc.md. Nothing is run."""

import jax
import jax.numpy as jnp
import pytest

from natjax import ctc
from natjax.ctc import _linear

B, T, N, V = 16, 128, 64, 2000
STATES, SCORES = B * T * (2 * N + 1), 4 * B * T * (N + 1)  # bytes of pointers and of scores


def temporary_bytes(function):
    kinds = ((B, T, V), jnp.float32), ((B,), jnp.int32), ((B, N), jnp.int32), ((B,), jnp.int32)
    arguments = (jax.ShapeDtypeStruct(*kind) for kind in kinds)
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def gradient(logits, *rows):
    return jax.grad(lambda logits: ctc.ctc_loss(logits, *rows).sum())(logits)


def objective(hidden, kernel, *rows):
    def total(hidden, kernel):
        return ctc.linear_ctc_objective(hidden, kernel, *rows, weights=jnp.ones(rows[0].shape))[0]

    return jax.grad(total, (0, 1))(hidden, kernel)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the figures are those of programs for CPU")
def test_the_objective_holds_a_chunk_and_the_kernels_gradient(monkeypatch):
    chunk, rows, D, words = 8 << 20, 64, 128, 8000
    monkeypatch.setattr(_linear, "BYTES", {**_linear.BYTES, ctc.Implementation.SENTENCES: chunk})
    jax.clear_caches()
    kinds = ((rows, 64, D), jnp.float32), ((D, words), jnp.float32), ((rows,), jnp.int32), ((rows, 16), jnp.int32)
    arguments = (jax.ShapeDtypeStruct(*kind) for kind in (*kinds, ((rows,), jnp.int32)))
    held = jax.jit(objective).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    everything = rows * 64 * words * 4  # the logits of the batch: 131 MB
    assert held <= 1.1 * (2 * chunk + 2 * 4 * D * words) < everything / 4


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the figures are those of programs for CPU")
@pytest.mark.parametrize(
    ("function", "most"),
    [(ctc.ctc_loss, 8 * STATES), (gradient, 15 * STATES), (ctc.viterbi_alignment, SCORES // 4 + SCORES)],
    ids=["loss", "gradient", "viterbi"],
)
def test_temporaries_are_as_documented(function, most):
    assert temporary_bytes(function) <= 1.1 * most
