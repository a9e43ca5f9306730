"""A student that begins with its teacher's encoder."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from natjax.errors import WorkdirError
from natjax.training import checkpoint
from natjax.training.loop import Watch, train


@pytest.fixture(scope="module")
def teacher(store, tmp_path_factory):
    """(config, workdir) of an autoregressive model that has made some updates."""
    made = tiny.small()
    objective = dataclasses.replace(made.objective, loss="ce", target_eos=True)
    model = dataclasses.replace(made.model, kind="autoregressive")
    made = dataclasses.replace(made, model=model, objective=objective)
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(made, folder)
    return made, folder


def _student(folder, **model):
    made = tiny.changed(tiny.small(), steps=3, learning_rate=1e-30, encoder_from=str(folder))
    return dataclasses.replace(
        made,
        vocab=dataclasses.replace(made.vocab, path=str(folder)),
        model=dataclasses.replace(made.model, **model),
    )


def test_encoder_and_embeddings_are_taken_over_and_the_decoder_is_not(teacher, tmp_path):
    _, folder = teacher
    said = []
    config = _student(folder)
    train(config, tmp_path / "run", watch=Watch(say=said.append))
    assert f"starting from the embeddings and the encoder of {folder}" in said
    from natjax.training.workdir import best_weights

    theirs = tiny.read_params(best_weights(folder, print)[0])
    ours = tiny.read_params(checkpoint.at(tmp_path / "run" / "checkpoints", 3))
    for name in ("source_embedding", "encoder"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ours[name], theirs[name])
    kernels = (p["decoder"]["layers"]["cross_attention"]["q"]["kernel"] for p in (ours, theirs))
    assert not np.allclose(*kernels)
    # Going on looks at its own weights.
    said.clear()
    train(tiny.changed(config, steps=4), tmp_path / "run", watch=Watch(say=said.append))
    assert "resuming from step 3" in said


def test_another_encoder_is_refused(teacher, tmp_path):
    with pytest.raises(WorkdirError, match=r"another encoder \(model\.norm: 'pre', here 'post'\)"):
        train(_student(teacher[1], norm="post"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()  # the folder stays free


def test_where_to_begin_from_is_looked_at_before_anything_is_made(teacher, tmp_path):
    nowhere = tiny.changed(_student(teacher[1]), encoder_from=str(tmp_path / "nowhere"))
    with pytest.raises(WorkdirError, match="nowhere"):
        train(nowhere, tmp_path / "run")
    with pytest.raises(WorkdirError, match=r"--init-from .* and training\.encoder_from .*: give one of them"):
        train(_student(teacher[1]), tmp_path / "run", init_from=teacher[1])
    assert not (tmp_path / "run").exists()
