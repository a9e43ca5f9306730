"""An autoregressive run as a whole: it learns, goes on bitwise after a stop, and translates."""

import dataclasses
import signal

import jax
import numpy as np
import pytest
import tiny

from natjax.errors import Interrupted
from natjax.training.loop import Watch, train
from natjax.translator import Translator

LINES = ["The dog sleeps.", "", "The very clever boy often feeds the dog here."]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    made = tiny.small()
    return dataclasses.replace(
        made,
        data=dataclasses.replace(made.data, store=str(tmp_path_factory.mktemp("data") / "store")),
        model=dataclasses.replace(made.model, kind="autoregressive"),
        objective=dataclasses.replace(made.objective, loss="ce", target_eos=True),
    )


def test_a_run_stops_goes_on_bitwise_and_translates(config, tmp_path):
    scores = train(config, tmp_path / "whole")

    def stop(step, steps, record):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config, tmp_path / "parts", watch=Watch(progress=stop))
    assert train(config, tmp_path / "parts") == scores
    whole, parts = (tiny.read_params(tmp_path / run / "checkpoints" / "average-last") for run in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    translator = Translator.load(tmp_path / "whole")
    details = translator.translate_with_details(LINES)
    assert [d.text for d in details] == translator.translate(LINES)
    assert details[0].score < 0
    assert details[1].text == ""


def test_the_loss_falls(config, tmp_path):
    seen = {}
    training = dict(steps=60, learning_rate=5e-3, log_every=20, eval_every=60, save_every=60)
    train(tiny.changed(config, **training), tmp_path / "run", watch=Watch(progress=lambda step, _, r: seen.update(r)))
    assert seen["valid_loss"] < 0.9 * np.log(300)  # the uniform distribution over the vocabulary has log 300
