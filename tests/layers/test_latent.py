"""Latent variables: divergence by Monte Carlo, the schedule of free bits, and what tells a collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax.layers.latent import Gaussian, active_units, divergence, free_bits, mutual_information
from natjax.layers.noise import Noise, normal, sentence_noise, step_noise, uniform


def _gaussian(seed, B=2, S=3, Z=4):
    generator = np.random.default_rng(seed)
    shape = B, S, Z
    return Gaussian(
        jnp.asarray(generator.normal(size=shape), jnp.float32),
        jnp.asarray(generator.uniform(0.3, 2, shape), jnp.float32),
    )


def _log_density(gaussian, z):
    mean, deviation = (np.asarray(x, np.float64) for x in gaussian)
    return (-0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)).sum(-1)


def test_divergence_by_monte_carlo():
    q, p = _gaussian(0), _gaussian(1)
    z = np.random.default_rng(2).normal(size=(200_000, *q.mean.shape)) * np.asarray(q.deviation) + np.asarray(q.mean)
    differences = _log_density(q, z) - _log_density(p, z)
    error = differences.std(axis=0) / np.sqrt(len(z))
    assert np.all(np.abs(divergence(q, p) - differences.mean(axis=0)) < 5 * error)
    np.testing.assert_allclose(divergence(q, q), 0.0, atol=1e-6)


def test_samples_have_the_mean_and_the_deviation():
    rows = 20_000
    q = Gaussian(*(jnp.broadcast_to(x[:1, :1], (rows, 1, 4)) for x in _gaussian(3)))
    noise = step_noise(1, jnp.int32(5), rows)
    for temperature in (1.0, 0.5):
        z = np.asarray(q.sample(noise, temperature))[:, 0]
        deviation = temperature * np.asarray(q.deviation[0, 0])
        np.testing.assert_allclose(z.mean(axis=0), q.mean[0, 0], atol=5 * deviation.max() / np.sqrt(rows))
        np.testing.assert_allclose(z.std(axis=0), deviation, rtol=0.03)
    np.testing.assert_array_equal(q.sample(None), q.mean)


def test_normal_and_uniform_numbers():
    noise = step_noise(7, jnp.int32(0), 200)
    u, x = np.asarray(uniform((200, 40, 25), noise)), np.asarray(normal((200, 40, 25), noise))
    assert u.min() > 0 and u.max() < 1
    seen, _ = np.histogram(u, 20, (0, 1))
    assert ((seen - u.size / 20) ** 2 / (u.size / 20)).sum() < 43.8  # 0.1% point of chi-square, 19 degrees of freedom
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 5 * np.sqrt(spread / x.size)
    np.testing.assert_allclose((x < 1.6449).mean(), 0.95, atol=5 * np.sqrt(0.95 * 0.05 / x.size))


def test_a_sentences_noise_depends_on_what_it_says():
    ids = np.array([[5, 6, 2, 0, 0], [6, 5, 2, 0, 0], [5, 6, 2, 0, 0], [5, 6, 6, 2, 0]])
    rows = np.asarray(sentence_noise(1, jnp.asarray(ids)).rows)
    assert rows[0] == rows[2] and len(set(rows.tolist())) == 3
    longer = sentence_noise(1, jnp.asarray(np.pad(ids, ((0, 0), (0, 3)))))
    np.testing.assert_array_equal(longer.rows, rows)
    assert isinstance(longer, Noise) and longer.seed != sentence_noise(2, jnp.asarray(ids)).seed


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (9_000, 1.0), (13_500, 0.5), (18_000, 0.0), (300_000, 0.0)])
def test_free_bits_of_the_official_release(step, expected):
    """1.0 until update 9,000, then linearly to 0 at 18,000, of 300,000."""
    budget = free_bits(jnp.float32(step / 300_000), 1.0, 0.03, 0.06)
    np.testing.assert_allclose(budget, expected, atol=1e-5)


def test_free_bits_that_fall_at_once():
    np.testing.assert_array_equal(free_bits(jnp.array([0.0, 0.49, 0.51]), 2.0, 0.5, 0.5), [2.0, 2.0, 0.0])


def test_active_units_count_the_dimensions_that_vary():
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(8, 5, 6)) * np.array([1.0, 0.5, 0.2, 0.05, 0.0, 0.0]) + 3.0
    weights = np.ones((8, 5), np.float32)
    weights[:, 3:] = 0
    mean[:, 3:] = generator.normal(size=(8, 2, 6)) * 100  # pieces that do not count
    assert float(active_units(jnp.asarray(mean, jnp.float32), jnp.asarray(weights))) == 3


def test_mutual_information_at_its_ends():
    """log M where each piece has a place of its own, 0 where all share one."""
    B, S = 4, 8
    far = jnp.arange(B * S, dtype=jnp.float32).reshape(B, S, 1) * 100
    narrow = jnp.ones((B, S, 1), jnp.float32)
    weights = jnp.ones((B, S)).at[0, 0].set(0.0)
    apart = Gaussian(far, narrow)
    np.testing.assert_allclose(mutual_information(apart, far, weights), np.log(B * S - 1), rtol=1e-5)
    together = Gaussian(jnp.zeros_like(far), narrow)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(B, S, 1)), jnp.float32)
    np.testing.assert_allclose(mutual_information(together, z, weights), 0.0, atol=1e-5)
    # Two places with half the pieces each: log 2.
    halves = Gaussian(jnp.where(far < 1600, 0.0, 1000.0), narrow)
    np.testing.assert_allclose(mutual_information(halves, halves.mean, jnp.ones((B, S))), np.log(2.0), rtol=1e-5)


@pytest.mark.parametrize("S", [8, 16, 32])
def test_mutual_information_looks_at_all_positions_alike(S):
    """Only one position of each row says where it comes from: whichever it is, the estimate is the same."""
    B = 128
    weights = jnp.ones((B, S)).at[:, S - 2 :].set(0.0)
    found = []
    for position in range(S - 2):
        mean = np.zeros((B, S, 1), np.float32)
        mean[:, position, 0] = 1000 * (1 + np.arange(B))
        gaussian = Gaussian(jnp.asarray(mean), jnp.ones((B, S, 1)))
        found.append(float(mutual_information(gaussian, gaussian.mean, weights)))
    # A share 1/(S-2) of all pieces lies apart, each alone; the others share one place.
    share = 1 / (S - 2)
    expected = share * np.log(256) - (1 - share) * np.log(1 - share)
    assert min(found) > 0
    np.testing.assert_allclose(np.mean(found), expected, rtol=0.15)
    assert max(found) < 4 * expected


def _initial(**model):
    """Parameters of a model whose width is large enough for statistics."""
    network = tiny.build(width=64, feed_forward=128, latents="vae", latent_width=8, posterior_layers=2, **model)
    return network[0], network[3]["latents"]


@pytest.mark.parametrize("kind", ["bert", "xavier"])
def test_initial_values_of_the_latents_do_not_follow_the_models(kind):
    _, params = _initial(initializer=kind)
    spread = np.asarray(params["spreading"]["kernel"])
    assert spread.shape == (8, 64)
    np.testing.assert_allclose(np.abs(spread).max(), 8**-0.5, rtol=0.05)
    # z of deviation 1 adds about as much to a normalised state: not a twentieth of it.
    z = np.random.default_rng(0).normal(size=(4000, 8))
    assert 0.4 < (z @ spread).std() < 0.8
    for stack in ("target_encoder", "source_decoder"):
        kernels = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params[stack])
                   if leaf.ndim == 3}  # fmt: skip
        assert len(kernels) >= 4
        for name, kernel in kernels.items():  # [layers, in, out]; several matrices may lie side by side
            assert np.asarray(kernel).std() > 0.05, name
    for head in ("prior_head", "posterior_head"):
        np.testing.assert_allclose(np.asarray(params[head]["dense"]["kernel"]).std(), 0.02, rtol=0.1)


def test_each_side_of_the_posterior_has_positions_of_its_own():
    _, params = _initial(positions="learned", max_positions=90)
    tables = [np.asarray(params[f"{side}_positions"]["table"]) for side in ("target", "source")]
    assert tables[0].shape == tables[1].shape and not np.array_equal(*tables)
