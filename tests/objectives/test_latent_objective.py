"""What latents add to the training objective, by hand: the draw, its price, its gradient, its reports."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax.layers.noise import normal, step_noise
from natjax.objectives.base import Targets
from natjax.objectives.training import objective_sums


def _built(loss, dropout=0.1, loud=25.0):
    """A model with latents whose posterior's last layer is `loud` times as large, so that its KL spreads."""
    config, network, objective, params = tiny.build(
        loss, latents="vae", latent_width=3, posterior_layers=1, dropout=dropout
    )
    objective = dataclasses.replace(objective, label_smoothing=0.0)
    head = {"dense": jax.tree.map(lambda x: loud * x, params["latents"]["posterior_head"]["dense"])}
    params = {**params, "latents": {**params["latents"], "posterior_head": head}}
    batch = tiny.batch(rows=6)._replace(weights=jnp.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
    return dataclasses.replace(config.objective, length_weight=0.0), network, objective, params, batch


def _by_hand(network, objective, params, batch, noise):
    """(loss with the latent that the noise gives, KL of each piece that counts)."""
    total, q, p, weights = jax.jit(lambda params, noise: _forward(network, objective, params, batch, noise))(
        params, noise
    )
    (qm, qs), (pm, ps) = ([np.asarray(x, np.float64) for x in gaussian] for gaussian in (q, p))
    kl = (np.log(ps / qs) + (qs**2 + (qm - pm) ** 2) / (2 * ps**2) - 0.5).sum(axis=-1)
    counts = (np.arange(8) < np.asarray(batch.source_lengths)[:, None]) & (np.asarray(weights) > 0)[:, None]
    return float(total), kl[counts]


def _forward(network, objective, params, batch, noise):
    """The stations one after another: (loss, posterior, prior, weights of the rows)."""

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    memory = apply("encode", batch.source, batch.source_lengths, noise)
    of_latents = noise.fold(5)
    q = apply("posterior", batch.source, batch.source_lengths, batch.target, batch.target_lengths, of_latents)
    p = apply("prior", memory)
    z = q.mean + q.deviation * normal(q.mean.shape, of_latents.fold(1))
    targets = Targets(batch.target, batch.target_lengths)
    lengths = objective.frames(batch.source_lengths, batch.target_lengths)
    frames = apply("upsample", memory, batch.source_lengths, objective.max_frames(8, 9), z)
    head = apply("project", apply("decode", frames, lengths, memory, batch.source_lengths, noise))
    weights = jnp.where(objective.infeasible(lengths, targets), 0.0, batch.weights)
    labels = (weights * batch.target_lengths.astype(jnp.float32)).sum()
    total, _ = objective.loss(head, lengths, targets, weights / labels)
    return total, q, p, weights


@pytest.mark.parametrize("loss", ["ce", "axe", "ctc"])
def test_the_total_is_the_loss_of_the_draw_and_the_price_of_what_is_not_free(loss):
    config, network, objective, params, batch = _built(loss)
    noise = step_noise(1, jnp.int32(4), 6)
    plain, kl = _by_hand(network, objective, params, batch, noise)
    budget = 1.5 * float(np.median(kl))
    config = dataclasses.replace(config, free_bits=budget, free_bits_hold=0.25, free_bits_end=0.5)

    @jax.jit
    def objective_at(params, progress):
        return objective_sums(network, objective, config, params, batch, noise, progress)

    for progress, share in ((0.1, 1.0), (0.4, 0.4), (0.6, 0.0)):
        free = share * budget
        assert free == 0 or ((kl < free).any() and (kl > free).any())
        total, sums = objective_at(params, progress)
        np.testing.assert_allclose(total, plain + np.maximum(kl, free).mean(), rtol=2e-5)
        means = {name: float(mean.sum / mean.count) for name, mean in sums.means.items()}
        np.testing.assert_allclose(means["kl"], kl.mean(), rtol=1e-4)
        np.testing.assert_allclose(means["free_bits"], free, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["all", "prior_head", "posterior_head", "spreading", "target_encoder"])
def test_the_gradient_goes_through_the_draw_and_its_price(part):
    """Along a random direction, against a finite difference."""
    config, network, objective, params, batch = _built("ctc", dropout=0.0, loud=5.0)
    config, noise = dataclasses.replace(config, free_bits=0.0), step_noise(1, jnp.int32(4), 6)
    generator = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), params)
    if part != "all":
        nothing = jax.tree.map(jnp.zeros_like, direction)
        direction = {**nothing, "latents": {**nothing["latents"], part: direction["latents"][part]}}

    @jax.jit
    def total(params):
        return objective_sums(network, objective, config, params, batch, noise, 0.4)[0]

    def at(distance):
        return float(total(jax.tree.map(lambda x, d: x + distance * d, params, direction)))

    slope, step = jax.grad(total)(params), 1e-3 if part == "all" else 1e-2
    found = sum(float((a * b).sum()) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(direction)))
    wanted = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose(found, wanted, rtol=0.03, atol=2e-4)
    assert abs(found) > 1e-4


def test_the_estimate_of_a_validation_is_one_of_draws():
    """The same each time, and near what training reports; at the means it would be another quantity."""
    config, network, objective, params, batch = _built("ctc", dropout=0.0, loud=100.0)

    @jax.jit
    def estimate(params, step):
        noise = None if step is None else step_noise(1, step, 6)
        mean = objective_sums(network, objective, config, params, batch, noise, 1.0)[1].means["mutual_information"]
        return mean.sum / mean.count

    drawn = np.array([float(estimate(params, jnp.int32(step))) for step in range(40)])
    assert "free_bits" not in jax.eval_shape(
        lambda: objective_sums(network, objective, config, params, batch, None)[1].means
    )
    found = float(estimate(params, None))
    assert found == float(estimate(params, None))
    assert abs(found - drawn.mean()) < 4 * drawn.std()
