"""Teachers that take a second to make: tiny runs of one step, which translate badly but always in the same way."""

import dataclasses
import shutil

import jax
import pytest
import tiny

from natjax import models
from natjax.config import to_json
from natjax.data.vocab import Vocabularies
from natjax.training import checkpoint, workdir
from natjax.training.loop import train


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A workdir with its store; its weights are large enough to say something."""
    folder = tmp_path_factory.mktemp("teachers") / "first"
    train(tiny.changed(tiny.small(), steps=1, eval_every=1, save_every=1, eval_sentences=2), folder)
    return with_weights(folder, 3.0)


@pytest.fixture(scope="session")
def second(teacher, tmp_path_factory):
    """Another one, of the same vocabulary."""
    folder = tmp_path_factory.mktemp("teachers") / "second"
    shutil.copytree(teacher, folder)
    return with_weights(folder, -3.0)


@pytest.fixture(scope="session", name="with_weights")
def reweighted():
    """A function that makes a multiple of a run's first weights its only average."""
    return with_weights


def with_weights(folder, factor):
    params = jax.tree.map(lambda p: p * factor, tiny.read_params(checkpoint.at(folder / "checkpoints", 1)))
    workdir.drop_averages(folder)
    checkpoint.save(folder / "checkpoints" / "average-best", {"params": params}, {"steps": [1], "bleu": 12.5})
    return folder


@pytest.fixture(scope="session")
def beamed(teacher, tmp_path_factory):
    """An autoregressive teacher, never trained, with the first one's vocabulary and store."""
    config = tiny.config(kind="autoregressive", decoder_layers=1)
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss="ce", target_eos=True))
    folder = tmp_path_factory.mktemp("teachers") / "autoregressive"
    shutil.copytree(teacher, folder, ignore=lambda *_: ["checkpoints"])
    vocabularies = Vocabularies.load(folder)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    (folder / "config.json").write_text(to_json(config))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": params}, {"step": 1})
    return folder, config


@pytest.fixture(scope="session")
def text():
    """(sources, targets): 42 training pairs of the teachers' corpus, one side of two pairs empty."""
    from natjax.data.prepare import read_corpus

    (sources, targets), _ = read_corpus(tiny.small())
    return ["", *sources[:40], ""], ["leer", *targets[:40], ""]


@pytest.fixture
def files(text, tmp_path):
    """The text on disk, and a place for the output."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name, lines in zip(("train.en", "train.de"), text):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def job(files):
    """Blocks of 8 lines, greedy."""
    from natjax.distillation.job import Job, Settings

    return Job(files / "train.en", files / "kd.de", target=files / "train.de", settings=Settings(beam=1), block=8)
