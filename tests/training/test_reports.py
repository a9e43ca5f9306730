"""What a training with latents, glancing or lengths tells: its records, its progress line, the sign of a collapse."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny

from natjax.cli.console import _figures
from natjax.layers.length import predict_lengths
from natjax.objectives.training import objective_sums
from natjax.training.loop import Watch, train


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("hold", "told"), [(0.5, 1), (1.0, 0)])
def test_a_collapse_is_told_once_when_it_has_lasted_long_enough(config, tmp_path, hold, told):
    """Initial posteriors are all alike, and nothing is learned at this rate."""
    made = dataclasses.replace(
        tiny.changed(config, learning_rate=1e-20, log_every=1, steps=4, eval_every=4, save_every=4),
        model=dataclasses.replace(config.model, latents="vae", latent_width=2, posterior_layers=1),
        objective=dataclasses.replace(config.objective, free_bits_hold=hold, free_bits_end=1.0, glancing="glat"),
    )
    said, shown = [], []
    train(made, tmp_path / "run", watch=Watch(said.append, lambda step, steps, record: shown.append(record)))
    lines = [line for line in said if "no latent dimension is active" in line]
    assert len(lines) == told
    if told:  # 4 updates, the first two within the time that bits are free
        assert lines[0].startswith("step 3: ")
    found = [record for record in records(tmp_path / "run") if "loss" in record]
    assert [record["active_units"] for record in found] == [0.0] * 4
    expected = [1.0, 1.0, 1.0, 0.5] if hold == 0.5 else [1.0] * 4  # updates 0 to 3 of 4
    np.testing.assert_allclose([record["free_bits"] for record in found], expected, rtol=1e-5)
    np.testing.assert_allclose([record["glancing_ratio"] for record in found], 0.5, rtol=1e-6)
    figures = _figures(shown[-1])
    assert "KL 0." in figures and "0.0 active units" in figures and f"shown {found[-1]['shown']:.2f}" in figures


def test_progress_of_a_plain_run_says_nothing_of_techniques():
    assert _figures({"step": 3, "loss": 1.5, "valid_bleu": 20.0}) == "loss 1.500  BLEU 20.00"


def test_how_often_the_predicted_length_is_right():
    """By hand, over the rows that count."""
    made, network, objective, params = tiny.build("axe")
    batch = tiny.batch(rows=6)
    weights = jax.numpy.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])

    @jax.jit
    def logits(params):
        memory = network.apply({"params": params}, batch.source, batch.source_lengths, method="encode")
        return network.apply({"params": params}, memory, batch.source_lengths, method="length_logits")

    scores = logits(params)
    first = np.asarray(predict_lengths(scores, batch.source_lengths, 1))[:, 0]
    lengths = np.where(np.arange(6) % 2, first, first % 9 + 1).astype(np.int32)  # every other one is as predicted
    batch = batch._replace(weights=weights, target_lengths=jax.numpy.asarray(np.minimum(lengths, 9)))
    right = np.asarray(weights) * (np.asarray(batch.target_lengths) == first)
    sums = jax.jit(lambda params: objective_sums(network, objective, made.objective, params, batch, None)[1])(params)
    mean = sums.means["length_accuracy"]
    assert 0 < right.sum() < 5
    np.testing.assert_allclose(mean.sum / mean.count, right.sum() / 5, rtol=1e-6)


def test_records_of_a_loss_with_a_length(tmp_path):
    made = tiny.changed(tiny.small(), steps=2, eval_every=2, save_every=2, log_every=1)
    made = dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss="ce"))
    train(made, tmp_path / "run")
    found = records(tmp_path / "run")
    assert all(0 <= record["length_accuracy"] <= 1 for record in found if "loss" in record)
    valid = [record for record in found if "valid_bleu" in record]
    assert valid and all(0 <= r["valid_length_accuracy"] <= 1 and r["valid_length_loss"] > 0 for r in valid)
