"""The compiled step: what it shares between runs, and that the seed that it is given is the run's."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

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
