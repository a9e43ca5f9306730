"""A tiny run and its store, shared by the tests of training."""

import dataclasses
from pathlib import Path

import pytest
import tiny

from natjax.training.loop import train


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """One store for all runs."""
    from natjax.data.prepare import prepare

    folder = tmp_path_factory.mktemp("data") / "store"
    prepare(tiny.small(), folder, lambda line: None)
    return folder


@pytest.fixture
def config(store):
    made = tiny.small()
    return dataclasses.replace(made, data=dataclasses.replace(made.data, store=str(store)))


@pytest.fixture(scope="session")
def undisturbed(store, tmp_path_factory):
    """(workdir, scores) of a run that nothing disturbed."""
    made = tiny.small()
    config = dataclasses.replace(made, data=dataclasses.replace(made.data, store=str(store)))
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    return folder, train(config, folder)
