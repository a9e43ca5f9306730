"""The paper's choices together: every loss with and without latents, however it is taught, in both dtypes.

Raw and distilled data are one program: the text differs.
"""

import dataclasses
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import models, objectives
from natjax.decoding.single_pass import make_decode
from natjax.training.state import new_state
from natjax.training.step import make_loss, make_train_step

EVERY = list(product(("ce", "axe", "ctc"), ("none", "vae"), ("none", "rnd", "glat"), ("float32", "bfloat16")))
QUICK = {("ce", "vae", "glat", "float32"), ("axe", "vae", "rnd", "bfloat16"), ("ctc", "vae", "glat", "bfloat16")}


@pytest.mark.parametrize(
    ("loss", "latents", "glancing", "dtype"),
    [pytest.param(*c, marks=() if c in QUICK else pytest.mark.slow) for c in EVERY],
)
def test_trains_and_decodes(loss, latents, glancing, dtype):
    """Twenty updates on one batch lower its loss, and the compiled pass gives tokens."""
    made = tiny.config(
        dtype=dtype, latents=latents, latent_width=3, posterior_layers=1, encoder_layers=1, decoder_layers=1
    )
    made = dataclasses.replace(
        tiny.changed(made, steps=20, warmup_steps=4, learning_rate=1e-2),
        objective=dataclasses.replace(made.objective, loss=loss, glancing=glancing, length_range=6),
    )
    model, objective = models.build(made, tiny.SIZE, tiny.SIZE), objectives.build(made)
    batch, state = tiny.batch(), new_state(models.init(model, 3), made.training)
    step, loss_of = make_train_step(model, objective, made), make_loss(model, objective, made)
    before = loss_of(state.params, batch)
    for _ in range(20):
        state, report = step(state, batch, jnp.uint32(1))
        assert np.isfinite(float(report.total)) and np.isfinite(float(report.gradient_norm))
    after = loss_of(state.params, batch)
    assert float(after.loss) < 0.8 * float(before.loss)
    expected = {"length_accuracy"} if loss != "ctc" else set()
    expected |= {"kl", "active_units", "mutual_information"} if latents == "vae" else set()
    assert set(after.means) == expected  # validation is shown nothing
    expected |= {"free_bits"} if latents == "vae" else set()
    expected |= {"shown", "first_pass_loss"} if glancing != "none" else set()
    expected |= {"glancing_ratio"} if glancing == "glat" else set()
    assert set(report.sums.means) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}
    decoded = make_decode(model, objective)(state.params, batch.source, batch.source_lengths)
    tokens = np.asarray(decoded.tokens)
    assert ((tokens > 0) == (np.arange(tokens.shape[1]) < np.asarray(decoded.lengths)[:, None])).all()
    assert np.isfinite(np.asarray(decoded.scores)).all()
