"""Training as a whole: it learns, stops and goes on bitwise, survives faults. Runs are tiny; their kills are real."""

import contextlib
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from natjax.config import to_json
from natjax.data.plan import sequential
from natjax.errors import DivergedError, Interrupted, WorkdirError
from natjax.training import checkpoint, workdir
from natjax.training.loop import Watch, train


def final_state(folder: Path, step: int):
    return {
        name: tiny.read_params(folder / "checkpoints" / name) for name in (f"{step:08d}", *workdir.AVERAGES)
    }  # fmt: skip


def records(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "source_tokens_per_second", "steps_per_second", "data_wait_seconds")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def test_a_run_leaves_everything_that_translating_needs(undisturbed):
    folder, scores = undisturbed
    assert {"config.json", "vocab.model", "checkpoints", "metrics.jsonl"} <= {p.name for p in folder.iterdir()}
    assert (folder / "checkpoints" / scores["weights"]).is_dir()
    assert [r["step"] for r in records(folder)] == [2, 3, 4, 6, 6]
    from natjax.translator import Translator

    assert len(Translator.load(folder).translate(["The dog sleeps.", ""])) == 2


class StopAt:
    """Sends this process a signal when training reports a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self.step, self.number = step, number

    def __call__(self, step: int, steps: int, record: dict) -> None:
        if step == self.step:
            self.step = -1
            signal.raise_signal(self.number)


@pytest.mark.parametrize("step", [1, pytest.param(3, marks=pytest.mark.slow), 5])
def test_stopping_and_going_on_equals_never_stopping(config, undisturbed, tmp_path, step):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted, match="run the same command again") as caught:
        train(config, folder, watch=Watch(progress=StopAt(step)))
    assert caught.value.exit_code == 75
    said = []
    scores = train(config, folder, watch=Watch(say=said.append))
    assert any(line.startswith(f"resuming from step {step}") for line in said)
    assert scores == undisturbed[1]
    assert records(folder) == records(undisturbed[0])
    jax.tree.map(np.testing.assert_array_equal, final_state(folder, 6), final_state(undisturbed[0], 6))


def test_a_stop_inside_an_evaluation_is_made_up_for(config, undisturbed, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    whole, calls = sequential, []

    def stopped(*args):
        # The signal arrives once the evaluation of step 3 has begun.
        if not calls:
            calls.append(signal.raise_signal(signal.SIGINT))
        return whole(*args)

    monkeypatch.setattr("natjax.training.loop.sequential", stopped)
    with pytest.raises(Interrupted) as caught:
        train(config, folder)
    assert caught.value.exit_code == 130
    assert checkpoint.read_info(checkpoint.at(folder / "checkpoints", 3))["complete"] is False
    assert train(config, folder) == undisturbed[1]
    assert records(folder) == records(undisturbed[0])


def test_a_damaged_checkpoint_is_passed_over(config, undisturbed, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config, folder, watch=Watch(progress=StopAt(5)))
    victim = max((checkpoint.at(folder / "checkpoints", 5) / "arrays").rglob("*"), key=lambda f: f.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    said = []
    assert train(config, folder, watch=Watch(say=said.append)) == undisturbed[1]
    assert any("00000005" in line and "previous checkpoint" in line for line in said)
    assert any(line.startswith("resuming from step 3") for line in said)
    jax.tree.map(np.testing.assert_array_equal, final_state(folder, 6), final_state(undisturbed[0], 6))


def test_a_loss_that_is_not_finite_stops_with_step_rows_and_checkpoint(config, tmp_path, monkeypatch):
    from natjax.training.step import to_device

    spoilt = []

    def feed(batch):
        return to_device(batch._replace(weights=np.full_like(batch.weights, np.nan)) if spoilt else batch)

    monkeypatch.setattr("natjax.training.loop.to_device", feed)
    with pytest.raises(DivergedError) as caught:
        train(config, tmp_path / "run", watch=Watch(progress=lambda step, *_: step == 4 and spoilt.append(step)))
    message = str(caught.value)
    assert re.search(r"loss nan .* at step 5, batch of \d+ rows \(\d+, ", message)
    assert "last good checkpoint: 3;" in message
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [3]
    assert "\n" not in message


def test_other_weights_to_start_from_on_other_text(config, undisturbed, tmp_path):
    folder, first = tmp_path / "run", tmp_path / "first"
    shutil.copytree(undisturbed[0], first)
    start = tiny.read_params(workdir.best_weights(first, print)[0])
    still = tiny.changed(config, learning_rate=1e-30, steps=3)
    still = dataclasses.replace(still, data=dataclasses.replace(still.data, embedded="hard", store=""))
    with pytest.raises(WorkdirError, match=rf"another vocabulary .* take that one with --vocab\.path {first}"):
        train(still, tmp_path / "mistaken", init_from=first)
    still = dataclasses.replace(still, vocab=dataclasses.replace(still.vocab, path=str(first)))
    train(still, folder, init_from=first)
    end = tiny.read_params(checkpoint.at(folder / "checkpoints", 3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), end, start)
    # The same command goes on without the weights that it started from.
    shutil.rmtree(first)
    said = []
    train(still, folder, init_from=first, watch=Watch(say=said.append))
    assert f"resuming from step 3; {first} is not looked at again" in said


def test_starting_from_a_model_of_other_sizes_is_refused(config, undisturbed, tmp_path):
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, width=32))
    with pytest.raises(WorkdirError, match="other sizes"):
        train(wider, tmp_path / "run", init_from=undisturbed[0])


def test_learns_to_copy(tmp_path):
    """The whole way: a corpus of copies, from text to BLEU near 100."""
    generator = np.random.default_rng(0)
    words = ["ba", "do", "ki", "lu", "me", "no", "pa", "ru"]
    for name, count in (("train", 1500), ("valid", 40)):
        lines = [" ".join(generator.choice(words, size=generator.integers(3, 8))) for _ in range(count)]
        for side in ("source", "target"):
            (tmp_path / f"{name}.{side}").write_text("\n".join(lines) + "\n")
    config = tiny.config(width=32, feed_forward=64, dropout=0.0, encoder_layers=1, decoder_layers=1)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, embedded="none", root=str(tmp_path), buckets=1),
        vocab=dataclasses.replace(config.vocab, size=40),
    )
    config = tiny.changed(config, steps=400, batch_frames=1024, learning_rate=1e-2, warmup_steps=30, eval_every=100,
                     save_every=100, eval_sentences=40, log_every=50)  # fmt: skip
    scores = train(config, tmp_path / "run")
    assert scores["bleu"] > 90


@pytest.mark.parametrize(
    ("vocabulary", "loss"), [pytest.param("joint", "ce", marks=pytest.mark.slow), ("separate", "ce"), ("joint", "axe")]
)
def test_a_loss_with_a_length_trains_averages_and_translates(tmp_path, vocabulary, loss):
    config = tiny.small()
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss=loss))
    if vocabulary == "separate":
        config = dataclasses.replace(
            config,
            vocab=dataclasses.replace(config.vocab, joint=False, size=200),
            model=dataclasses.replace(config.model, share_embeddings=False),
        )
    scores = train(tiny.changed(config, steps=3), tmp_path / "run")
    assert scores["infeasible"] == 0
    from natjax.translator import Translator

    assert len(Translator.load(tmp_path / "run").translate(["The king reads the book.", ""])) == 2


def _command(config, folder: Path, file: Path) -> list[str]:
    (folder.parent / "given.json").write_text(to_json(config))
    file.write_text(
        "from pathlib import Path\nfrom natjax.config import from_json\n"
        f"def get_config():\n    return from_json(Path({str(folder.parent / 'given.json')!r}).read_text())\n"
    )
    return [sys.executable, "-m", "natjax", "train", str(file), "--workdir", str(folder)]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_where_the_undisturbed_run_does(config, undisturbed, tmp_path):
    generator = np.random.default_rng(5)
    command = _command(config, tmp_path / "run", tmp_path / "config.py")
    kills, ended, checkpoints = 0, 0, tmp_path / "run" / "checkpoints"
    while kills < 4 and ended < 8:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        known = checkpoint.steps(checkpoints)
        while kills % 2 and process.poll() is None and checkpoint.steps(checkpoints) == known:
            time.sleep(0.02)  # every other time it is killed only after it has saved
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(float(generator.uniform(0, 3)))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
        else:  # it was done before: from the start
            assert process.returncode == 0
            ended += 1
            shutil.rmtree(tmp_path / "run")
    assert kills == 4
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "run", 6), final_state(undisturbed[0], 6))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_the_program_saves_and_says_so(config, tmp_path, number, code):
    longer = tiny.changed(config, steps=2000, eval_every=2000, save_every=2000)
    command = _command(longer, tmp_path / "run", tmp_path / "config.py")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert "everything is saved, run the same command again" in errors
    assert "Traceback" not in errors
    assert len(checkpoint.steps(tmp_path / "run" / "checkpoints")) == 1
