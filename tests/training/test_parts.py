"""Schedule, optimiser, checkpoints, workdir: each against something that is not itself."""

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax.config import TrainingConfig
from natjax.data.plan import Plan, choose_buckets
from natjax.errors import CheckpointError, Interrupted, WorkdirError
from natjax.training import checkpoint, workdir
from natjax.training.planning import sentences_seen
from natjax.training.preemption import StopRequest
from natjax.training.schedule import learning_rate
from natjax.training.state import new_state, update


def test_schedule_warms_up_decays_and_cools_down():
    config = TrainingConfig(steps=1000, warmup_steps=100, learning_rate=1e-3, cooldown_steps=200)
    rate = [float(learning_rate(jnp.int32(step), config)) for step in range(1000)]
    np.testing.assert_allclose(rate[0], 1e-5, rtol=1e-5)
    np.testing.assert_allclose(rate[99], 1e-3, rtol=1e-5)
    np.testing.assert_allclose(rate[399], 5e-4, rtol=1e-5)  # a quarter of the warm-up per step: half the rate
    np.testing.assert_allclose(rate[899], 1e-3 * np.sqrt(100 / 900) * 101 / 200, rtol=1e-4)
    assert rate[999] > 0
    no_cooldown = dataclasses.replace(config, cooldown_steps=0)
    np.testing.assert_allclose(float(learning_rate(jnp.int32(899), no_cooldown)), 1e-3 / 3, rtol=1e-5)


def test_optimiser_against_adam_by_hand():
    config = TrainingConfig(learning_rate=0.1, warmup_steps=1, clip_norm=1.0, weight_decay=0.2, adam_b1=0.9,
                            adam_b2=0.99, adam_epsilon=1e-8)  # fmt: skip
    params = {"a": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([[0.5, 0.5]])}}
    gradients = [{"a": {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([[0.0, 4.0]])}},
                 {"a": {"kernel": jnp.array([[0.1, 0.2]]), "bias": jnp.array([[0.0, -0.1]])}}]  # fmt: skip
    state = new_state(params, config)
    plain = {name: np.asarray(value, np.float64) for name, value in params["a"].items()}
    mean = dict.fromkeys(plain, 0.0)
    square = dict.fromkeys(plain, 0.0)
    for step, gradient in enumerate(gradients, start=1):
        state = update(state, gradient, config)
        norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in gradient["a"].values()))
        for name, raw in gradient["a"].items():
            g = np.asarray(raw, np.float64) * min(1.0, 1.0 / norm)
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.99 * square[name] + 0.01 * g**2
            move = (mean[name] / (1 - 0.9**step)) / (np.sqrt(square[name] / (1 - 0.99**step)) + 1e-8)
            decay = 0.2 * plain[name] if name == "kernel" else 0.0  # decay on matrices only
            plain[name] = plain[name] - 0.1 / np.sqrt(step) * (move + decay)
            np.testing.assert_allclose(state.params["a"][name], plain[name], rtol=1e-5)
    assert int(state.step) == 2


def _tree(value=1.0):
    return {"params": {"a": jnp.full((3, 4), value), "b": jnp.arange(5, dtype=jnp.int32)}, "step": jnp.int32(3)}


def test_checkpoint_round_trip_is_bitwise(tmp_path):
    tree = {"params": {"x": jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)), jnp.float32)}}
    checkpoint.save(tmp_path / "c", tree, {"step": 3, "bleu": 1.5})
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load(tmp_path / "c", tree), tree)
    np.testing.assert_array_equal(tiny.read_params(tmp_path / "c")["x"], tree["params"]["x"])
    assert checkpoint.read_info(tmp_path / "c") == {"step": 3, "bleu": 1.5}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_any_damaged_file_is_noticed(tmp_path, damage):
    checkpoint.save(tmp_path / "c", _tree(), {})
    names = [f.relative_to(tmp_path / "c") for f in _files(tmp_path / "c")]
    assert len(names) > 4
    for name in names:
        folder = tmp_path / f"copy-{str(name).replace('/', '-')}"
        subprocess.run(["cp", "-r", tmp_path / "c", folder], check=True)
        data = (folder / name).read_bytes()
        if damage == "remove":
            (folder / name).unlink()
        elif damage == "truncate":
            (folder / name).write_bytes(data[: len(data) // 2])
        else:
            middle = len(data) // 2
            (folder / name).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(folder, _tree())
        assert "\n" not in str(caught.value)


def test_the_newest_undamaged_checkpoint_is_used_and_the_others_named(tmp_path):
    for step in (10, 20, 30):
        checkpoint.save(checkpoint.at(tmp_path, step), _tree(float(step)), {})
    victim = _files(checkpoint.at(tmp_path, 30) / "arrays")[-1]
    victim.write_bytes(victim.read_bytes()[:-1])
    said = []
    restored = checkpoint.restore_latest(tmp_path, _tree(), said.append)
    assert float(restored["params"]["a"][0, 0]) == 20
    assert len(said) == 1
    assert "00000030" in said[0]
    assert "previous checkpoint" in said[0]
    assert checkpoint.steps(tmp_path) == [10, 20]  # the damaged one is set aside, and not taken for the newest
    assert (tmp_path / "00000030.damaged").is_dir()
    for step in (10, 20):
        (checkpoint.at(tmp_path, step) / "info.json").unlink()
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        checkpoint.restore_latest(tmp_path, _tree(), said.append)
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):  # and again: nothing was set aside
        checkpoint.restore_latest(tmp_path, _tree(), said.append)
    assert checkpoint.restore_latest(tmp_path / "nothing", _tree(), said.append) is None


def test_relative_folders_serve_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(checkpoint.at(Path("here"), 1), _tree(), {})
    restored = checkpoint.restore_latest(Path("here"), _tree(), print)
    jax.tree.map(np.testing.assert_array_equal, restored, _tree())
    np.testing.assert_array_equal(tiny.read_params(Path("here/00000001"))["a"], _tree()["params"]["a"])


def test_a_checkpoint_of_another_model_is_not_taken_for_damaged(tmp_path):
    checkpoint.save(checkpoint.at(tmp_path, 1), {"other": jnp.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="use the config that it was trained with"):
        checkpoint.restore_latest(tmp_path, _tree(), print)
    assert checkpoint.steps(tmp_path) == [1]


def test_other_shapes_are_refused_in_one_line(tmp_path):
    checkpoint.save(tmp_path / "c", _tree(), {})
    other = _tree()
    other["params"]["a"] = jnp.zeros((4, 4))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "c", other)
    assert "\n" not in str(caught.value)


def test_what_is_kept(tmp_path):
    scores, said = {100: 5.0, 200: 9.0, 300: 7.0, 400: 8.0, 450: None, 500: 6.0}, []
    for step, bleu in scores.items():
        checkpoint.save(checkpoint.at(tmp_path, step), {"params": jnp.zeros(1)}, {"bleu": bleu})
        checkpoint.prune(tmp_path, step, 100, 1000, keep_last=2, keep_best=2, say=said.append)
    assert checkpoint.steps(tmp_path) == [200, 400, 500]  # 450 came from a signal and is no longer the newest
    candidates = checkpoint.regular(tmp_path, 100, 1000)
    assert checkpoint.best(tmp_path, candidates, 2, said.append) == [200, 400]
    assert not said
    (checkpoint.at(tmp_path, 200) / "info.json").write_text('{"bleu": 9')
    assert checkpoint.best(tmp_path, candidates, 2, said.append) == [400, 500]
    assert len(said) == 1 and "00000200 does not count as one of the best" in said[0]


def test_mean_of_parameters():
    trees = [{"a": np.array([1.0, 4.0], np.float32), "b": jnp.float32(2)},
             {"a": np.array([3.0, 8.0], np.float32), "b": jnp.float32(5)}]  # fmt: skip
    scalar = checkpoint.mean(trees)["b"]
    assert (type(scalar), scalar.shape, float(scalar)) == (np.ndarray, (), 3.5)
    mean = checkpoint.mean(trees)["a"]
    np.testing.assert_array_equal(mean, np.array([2.0, 6.0], np.float32))
    assert mean.dtype == np.float32


def test_a_workdir_of_another_config_is_refused_with_the_fields(tmp_path):
    config = tiny.config()
    workdir.check(tmp_path, config)
    workdir.claim(tmp_path, config)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.5))
    with pytest.raises(WorkdirError, match=r"model\.dropout: 0\.1 -> 0\.5"):
        workdir.check(tmp_path, other)
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=9))
    workdir.check(tmp_path, longer)  # no cool-down: a run may be made longer
    cooling = dataclasses.replace(longer.training, cooldown_steps=2)
    with pytest.raises(WorkdirError, match="cooldown_steps"):
        workdir.check(tmp_path, dataclasses.replace(longer, training=cooling))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"cooldown_steps": 2}, r"since training\.cooldown_steps end with the run; use a new workdir"),
        ({"latents": "vae"}, "since free bits fall over shares of the run"),
        ({"latents": "vae", "free_bits": 0.0}, None),
        ({"glancing": "glat", "glancing_ratio_end": 0.3}, "since the glancing ratio changes over the run"),
        ({"glancing": "glat", "glancing_ratio": 0.3}, None),
        ({"glancing_ratio_end": 0.3}, None),
        ({"glancing": "rnd", "glancing_ratio_end": 0.3}, None),
        ({"glancing": "rnd", "glancing_random": "scaled", "glancing_ratio_end": 0.3}, "since the glancing ratio"),
        ({"latents": "vae", "cooldown_steps": 2}, r"cooldown_steps end with the run and free bits fall"),
    ],
)
def test_a_run_is_made_longer_only_where_nothing_follows_its_length(tmp_path, fields, reason):
    config = tiny.config()
    for section in ("model", "objective", "training"):
        part = getattr(config, section)
        ours = {name: value for name, value in fields.items() if hasattr(part, name)}
        config = dataclasses.replace(config, **{section: dataclasses.replace(part, **ours)})
    workdir.claim(tmp_path, config)
    workdir.check(tmp_path, config)
    longer = tiny.changed(config, steps=9)
    if reason is None:
        workdir.check(tmp_path, longer)
    else:
        with pytest.raises(WorkdirError, match=r"training\.steps: 6 -> 9\); training\.steps cannot .*" + reason):
            workdir.check(tmp_path, longer)


def test_sentences_seen_by_a_run():
    """Against the batches themselves, over more than an epoch."""
    lengths = np.random.default_rng(0).integers(2, 30, (2, 101)).astype(np.int32)
    shapes = choose_buckets(*lengths, buckets=3, multiple=4, max_length=28, batch_frames=300, max_frames=lambda S, N: N)
    plan = Plan(*lengths, shapes, seed=1)
    assert plan.left_out
    for steps in (0, 1, plan.batches_per_epoch, 3 * plan.batches_per_epoch + 2):
        assert sentences_seen(plan, steps) == sum(len(plan.batch(step).rows) for step in range(steps))


@pytest.mark.parametrize("missing", ["config.json", "vocab.model", "checkpoints"])
def test_a_model_folder_that_lacks_something_says_what(tmp_path, missing):
    config = tiny.config()
    if missing != "config.json":
        workdir.claim(tmp_path, config)
    if missing == "checkpoints":
        with pytest.raises(WorkdirError, match="no checkpoint"):
            workdir.best_weights(tmp_path, print)
    else:
        from natjax.errors import UserError

        with pytest.raises(UserError, match=missing) as caught:
            workdir.load_model(tmp_path, print)
        assert "\n" not in str(caught.value)


def test_metrics_after_the_restored_step_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    first = workdir.Metrics(file, 0)
    for step in (10, 20, 30):
        first.write({"step": step, "seconds": step * 1.5})
    with file.open("a") as cut:
        cut.write('{"step": 5, "lo')  # killed while writing
    again = workdir.Metrics(file, 20)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [10, 20]
    assert again.seconds == 30


def test_signals_set_a_flag_and_a_second_interrupt_ends():
    with pytest.raises(Interrupted, match="before this run added anything"), StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
    with StopRequest() as stop:
        stop.defer()
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert stop.interrupted("saved").exit_code == 75
    with StopRequest() as stop:
        stop.defer()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.interrupted("saved").exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_comes_at_the_end_of_inner_work_stops_the_outer():
    def inner(error=None):
        with StopRequest() as stop:
            stop.defer()
            os.kill(os.getpid(), signal.SIGTERM)  # which this work, done as it is, does not look at
            if error:
                raise error

    with pytest.raises(Interrupted, match="by SIGTERM between two runs") as caught, StopRequest("between two runs"):
        inner()
    assert caught.value.exit_code == 75
    with StopRequest() as outer:
        outer.defer()
        inner()
        assert outer.signal == signal.SIGTERM
    with StopRequest() as outer:
        outer.defer()
        with pytest.raises(Interrupted, match="saved"):
            inner(Interrupted("saved", exit_code=75))
        assert not outer.requested  # it is told already
    inner()  # nothing around it: as before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
