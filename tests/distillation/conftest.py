"""Teachers that take a second to make: tiny runs of one step, which translate badly but always in the same way."""

import shutil

import jax
import pytest
import tiny

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
    return with_weights(folder, -1.0)


def with_weights(folder, factor):
    place = checkpoint.at(folder / "checkpoints", 1)
    params = jax.tree.map(lambda p: p * factor, tiny.read_params(place))
    workdir.drop_averages(folder)
    checkpoint.save(place, {"params": params}, {"step": 1, "bleu": 12.5})
    return folder


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
