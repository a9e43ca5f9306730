"""The dropout mask: its statistics, and what it may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from natjax.layers.dropout import dropout, keep_mask
from natjax.layers.noise import Noise, mix32, step_noise


def _noise(step=0, rows=64, seed=1):
    return step_noise(seed, jnp.int32(step), rows)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_share_kept(rate):
    mask = np.asarray(keep_mask((64, 50, 40), rate, _noise()))
    deviation = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs(mask.mean() - (1 - rate)) < 5 * deviation


def test_rows_positions_features_steps_and_sites_are_independent():
    rate, shape = 0.5, (64, 32, 48)
    mask = np.asarray(keep_mask(shape, rate, _noise())).astype(float) - 0.5
    limit = 5 * 0.25 / np.sqrt(mask.size)
    others = {
        "next row": np.roll(mask, 1, 0),
        "next position": np.roll(mask, 1, 1),
        "next feature": np.roll(mask, 1, 2),
        "next step": np.asarray(keep_mask(shape, rate, _noise(step=1))) - 0.5,
        "next seed": np.asarray(keep_mask(shape, rate, _noise(seed=2))) - 0.5,
        "other site": np.asarray(keep_mask(shape, rate, _noise().fold(1))) - 0.5,
        "site after site": np.asarray(keep_mask(shape, rate, _noise().fold(1).fold(0))) - 0.5,
    }
    for name, other in others.items():
        assert abs((mask * other).mean()) < limit, name
    # Each position and each feature keeps its share, not only all together.
    for axes in ((0, 1), (0, 2), (1, 2)):
        count = mask.size / mask.mean(axis=axes).size
        assert np.abs(mask.mean(axis=axes)).max() < 5.5 * 0.5 / np.sqrt(count)


def test_counts_of_eight_neighbours_are_binomial():
    mask = np.asarray(keep_mask((64, 64, 64), 0.5, _noise(step=7))).reshape(-1, 8).sum(axis=1)
    seen = np.bincount(mask, minlength=9)
    expected = len(mask) * np.array([1, 8, 28, 56, 70, 56, 28, 8, 1]) / 256
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert chi_square < 26.1  # 0.1% point of chi-square with 8 degrees of freedom


def test_a_row_keeps_its_mask_wherever_it_lies():
    whole = keep_mask((8, 5, 6), 0.4, _noise(rows=8))
    noise = _noise(rows=8)
    part = keep_mask((3, 5, 6), 0.4, Noise(noise.seed, noise.rows[jnp.array([6, 1, 3])]))
    np.testing.assert_array_equal(part, np.asarray(whole)[[6, 1, 3]])


def test_scales_and_gradient_follow_the_mask():
    x = jnp.ones((64, 10, 10))
    y = dropout(x, 0.25, _noise())
    mask = keep_mask(x.shape, 0.25, _noise())
    np.testing.assert_allclose(y, np.where(mask, 1 / 0.75, 0), rtol=1e-6)
    gradient = jax.grad(lambda x: (dropout(x, 0.25, _noise()) * 3).sum())(x)
    np.testing.assert_allclose(gradient, np.where(mask, 4.0, 0), rtol=1e-6)


def test_nothing_of_the_mask_is_kept_for_the_backward_pass():
    _, backward = jax.vjp(lambda x: dropout(x, 0.5, _noise()), jnp.ones((64, 32, 32)))
    kept = [leaf.size for leaf in jax.tree.leaves(backward) if hasattr(leaf, "size")]
    assert max(kept) <= 64


def test_no_noise_or_no_rate_returns_the_input():
    x = jnp.arange(12.0).reshape(3, 4)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, _noise(rows=3)) is x


def test_bfloat16_stays_bfloat16():
    assert dropout(jnp.ones((4, 4), jnp.bfloat16), 0.5, _noise(rows=4)).dtype == jnp.bfloat16


def test_mix32_is_a_bijection_of_a_sample():
    words = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    words = np.unique(words)
    assert len(np.unique(np.asarray(mix32(jnp.asarray(words))))) == len(words)
