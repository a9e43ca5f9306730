"""The compiled step: what it shares between runs, and that the seed that it is given is the run's."""

import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import models, objectives
from natjax.config import unused_fields
from natjax.training.loop import train
from natjax.training.state import new_state
from natjax.training.step import make_train_step


@pytest.fixture(scope="module")
def step():
    """(the step of a run with seed 1, that of one with seed 7, a state and a batch)."""
    made, model, objective, params = tiny.build(latents="vae", posterior_layers=1)
    steps = [make_train_step(model, objective, tiny.changed(made, seed=seed)) for seed in (1, 7)]
    return *steps, new_state(params, made.training), tiny.batch()


def test_runs_that_differ_in_their_seed_share_their_program(step):
    one, seven, state, batch = step
    texts = [made.lower(state, batch, jnp.uint32(seed)).as_text() for made, seed in ((one, 1), (seven, 7))]
    assert texts[0] == texts[1]


def test_the_seed_that_is_given_decides(step):
    one, _, state, batch = step
    losses = [float(one(jax.tree.map(jnp.copy, state), batch, jnp.uint32(s))[1].total) for s in (1, 1, 7, 2**32 - 1)]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_a_second_seed_compiles_nothing(config, tmp_path):
    """All programs of a run, and not the step alone, are found on disk by the next one."""
    seen, option = Counter(), "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, option)
    jax.config.update(option, 0.0)
    try:
        jax.clear_caches()  # what earlier tests have compiled may not be on disk
        train(tiny.changed(config, seed=1), tmp_path / "seed1")
        jax.clear_caches()
        jax.monitoring.register_event_listener(lambda event, **_: seen.update([event]))
        train(tiny.changed(config, seed=2), tmp_path / "seed2")
    finally:
        jax.monitoring.clear_event_listeners()
        jax.config.update(option, before)
    assert seen["/jax/compilation_cache/cache_hits"] > 3
    assert seen["/jax/compilation_cache/cache_misses"] == 0


OTHER = {"model.upsampling": "linear", "model.ratio": 3.0, "model.latent_width": 4, "model.posterior_layers": 2,
         "model.max_positions": 2000, "objective.free_bits": 0.3, "objective.free_bits_hold": 0.1,
         "objective.free_bits_end": 0.9, "objective.skip_target_penalty": 3.0, "objective.length_weight": 0.7,
         "objective.length_range": 9, "objective.glancing_blanks": False, "objective.glancing_dropout": "none",
         "objective.glancing_distance": "levenshtein", "objective.glancing_random": "scaled",
         "objective.glancing_ratio": 0.2, "objective.glancing_ratio_end": 0.1,
         "objective.glancing_sampler": "deterministic"}  # fmt: skip


def with_fields(config, fields):
    for name, value in fields.items():
        section, field = name.split(".")
        part = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: part})
    return config


@functools.cache
def program(config):
    """The step as the compiler is given it."""
    model, batch = models.build(config, tiny.SIZE, tiny.SIZE), jax.eval_shape(tiny.batch)
    state = jax.eval_shape(lambda: new_state(models.init(model, 3), config.training))
    step = make_train_step(model, objectives.build(config), config)
    return step.lower(state, batch, jax.ShapeDtypeStruct((), jnp.uint32)).as_text()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"objective.loss": "ce"},
        {"objective.loss": "axe", "model.latents": "vae", "model.posterior_layers": 1, "objective.glancing": "rnd"},
        {"objective.glancing": "glat"},
        {"model.kind": "autoregressive", "objective.loss": "ce", "objective.target_eos": True},
    ],
    ids=str,
)
def test_fields_that_are_said_to_be_unused_are(fields):
    """Whatever they are, the step is the same program; and it is another one where one that is used changes."""
    made = with_fields(tiny.config(decoder_layers=1), fields)
    unused = [name for name in unused_fields(made) if not name.startswith("decoding.")]
    assert unused and set(unused) <= OTHER.keys()
    assert program(with_fields(made, {name: OTHER[name] for name in unused})) == program(made)


@pytest.mark.parametrize("name", [name for name in OTHER if name.split("_")[0] == "objective.glancing"])
def test_fields_of_glancing_that_are_used_change_the_step(name):
    glancing = "rnd" if name == "objective.glancing_random" else "glat"
    made = with_fields(tiny.config(decoder_layers=1), {"objective.glancing": glancing})
    assert name not in unused_fields(made)
    assert program(with_fields(made, {name: OTHER[name]})) != program(made)
