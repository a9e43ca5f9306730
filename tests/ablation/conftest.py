"""A grid that takes seconds: a tiny model on three hundred sentences of the embedded corpus."""

import dataclasses

import pytest
import tiny
from ablation_files import write_config

from natjax.ablation import place
from natjax.data import prepare

PAIRS, TEST = 300, 12


@pytest.fixture
def small_corpus(monkeypatch):
    """The embedded corpus with few sentences."""
    monkeypatch.setitem(prepare.EMBEDDED_PAIRS, "demo", PAIRS)
    monkeypatch.setattr(place, "TEST_SENTENCES", TEST)


@pytest.fixture
def config():
    """The config that all rows of the tests share."""
    made = tiny.changed(tiny.small(), steps=4, eval_every=4, save_every=4, keep_last=1, keep_best=1, eval_sentences=4)
    return dataclasses.replace(
        made,
        data=dataclasses.replace(made.data, buckets=1),
        model=dataclasses.replace(made.model, posterior_layers=1),
        # An untrained teacher goes on until it may not any more, and what it says must not be too long to train on.
        decoding=dataclasses.replace(made.decoding, beam_size=2, max_length_ratio=0.5),
    )


@pytest.fixture
def config_file(config, tmp_path):
    """The same as a file."""
    return write_config(config, tmp_path / "grid.py")
