"""Which mask is drawn where, seen in the masks themselves: every layer, site and side of a step has its own, and a row
has its mask by its place in the global batch."""

import dataclasses
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax.layers import latent, stack
from natjax.layers.dropout import dropout
from natjax.layers.noise import Noise, step_noise
from natjax.models import base, nat
from natjax.objectives.training import objective_sums

_DECODER = [f"{layer} {site}" for layer in (0, 1) for site in ("attention", "memory", "feed-forward")]
# The calls of one step of 2 + 2 layers with latents and glancing, in the order in which they run.
SITES = [
    "embedding",
    *(f"encoder {layer} {site}" for layer in (0, 1) for site in ("attention", "feed-forward")),
    *("posterior target", "posterior encoder attention", "posterior encoder feed-forward"),
    *("posterior source", *(f"posterior decoder {site}" for site in ("attention", "memory", "feed-forward"))),
    *(f"first pass {site}" for site in _DECODER),
    "shown tokens",
    *(f"decoder {site}" for site in _DECODER),
]
ROWS = 6


@pytest.fixture(scope="module")
def masks():
    """A function (batch, noise) -> the masks bool[B, S, D] of one forward pass in training, by site.

    A mask is read off the values that dropout returned. One frame a piece and targets as long as sources, so that all
    masks have one shape.
    """
    drawn = []

    def recording(x, rate, noise):
        y = dropout(x, rate, noise)
        if noise is not None:
            jax.debug.callback(lambda mask: drawn.append(np.asarray(mask)), (y != 0) | (x == 0), ordered=True)
        return y

    sizes = dict(encoder_layers=2, decoder_layers=2, posterior_layers=1, ratio=1.0, dropout=0.5)
    config, network, objective, params = tiny.build(latents="vae", **sizes)
    chosen = dataclasses.replace(config.objective, glancing="glat")

    @jax.jit
    def forward(batch, noise):
        return objective_sums(network, objective, chosen, params, batch, noise)[0]

    def masks(batch, noise):
        drawn.clear()
        forward(batch, noise).block_until_ready()
        jax.effects_barrier()
        assert len(drawn) == len(SITES)
        return dict(zip(SITES, drawn))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "dropout", recording)
        for module in (base, latent, nat):
            patch.setattr(module, "dropout", recording)
        yield masks


def _related(one, other):
    """Whether two masks agree more or less often than two drawn at rate ½ would, by five deviations."""
    return abs((one == other).mean() - 0.5) > 2.5 / np.sqrt(one.size)


def _noise(step=0, seed=1):
    return step_noise(seed, jnp.int32(step), ROWS)


def test_every_layer_site_and_side_draws_a_mask_of_its_own(masks):
    drawn = masks(tiny.batch(ROWS, 16, 16), _noise())
    assert {name: abs(mask.mean() - 0.5) < 0.08 for name, mask in drawn.items()} == dict.fromkeys(SITES, True)
    assert [pair for pair in combinations(SITES, 2) if _related(*(drawn[name] for name in pair))] == []


def test_every_step_and_seed_draws_masks_of_its_own(masks):
    batch = tiny.batch(ROWS, 16, 16)
    first, again, later, other = (masks(batch, n) for n in (_noise(), _noise(), _noise(step=1), _noise(seed=2)))
    for name in SITES:
        np.testing.assert_array_equal(first[name], again[name])
    pairs = [(a, b) for a in SITES for b in SITES]
    assert [(a, b) for a, b in pairs if _related(first[a], later[b]) or _related(first[a], other[b])] == []


def test_a_row_has_the_masks_of_its_place_in_the_global_batch(masks):
    batch, noise = tiny.batch(ROWS, 16, 16), _noise()
    whole = masks(batch, noise)
    places = jnp.array([4, 1, 3, 0, 5, 2])  # as if another device, or another share of an accumulated batch, held them
    moved = masks(jax.tree.map(lambda array: array[places], batch), Noise(noise.seed, noise.rows[places]))
    for name in SITES:
        np.testing.assert_array_equal(moved[name], whole[name][np.asarray(places)])
        # Were all rows' masks the same, the line above would hold whatever the masks depend on.
        assert not [pair for pair in combinations(range(ROWS), 2) if _related(*whole[name][list(pair)])], name
