"""What can be wrong with a workdir, each thing caused: one line, exit code 2, and nothing lost."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny

from natjax import atomic, cli
from natjax.config import to_json
from natjax.data.prepare import prepare
from natjax.data.vocab import Vocabularies
from natjax.errors import CheckpointError, Interrupted, UserError, WorkdirError
from natjax.training import checkpoint, workdir
from natjax.training.loop import Watch, train
from natjax.translator import Translator


@pytest.fixture
def finished(undisturbed, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "finished"))


def text_config(folder: Path, words: str):
    """A corpus of files, and a config for it; the store is the workdir's own."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 300), ("valid", 12)):
        lines = [" ".join(generator.choice(words.split(), size=5)) for _ in range(count)]
        for side in ("source", "target"):
            (folder / f"{name}.{side}").write_text("\n".join(lines) + "\n")
    made = tiny.small()
    data = tiny.dataclasses.replace(made.data, embedded="none", root=str(folder))
    return tiny.dataclasses.replace(made, data=data, vocab=tiny.dataclasses.replace(made.vocab, size=30))


def test_a_changed_corpus_touches_neither_model_nor_vocabulary(tmp_path):
    config, folder = text_config(tmp_path, "ba do ki lu me"), tmp_path / "run"
    train(config, folder)
    before = (folder / "vocab.model").read_bytes()
    text_config(tmp_path, "xa yo zi qu we")
    prepare(config, folder / "store", lambda line: None)
    with pytest.raises(WorkdirError, match="trained with another vocabulary than the store now has"):
        train(config, folder)
    assert (folder / "vocab.model").read_bytes() == before
    # The same pieces, other sentences: the vocabulary may be the same, the batches are not.
    (folder / "vocab.model").unlink()
    with pytest.raises(WorkdirError, match="the store has changed since this run began"):
        train(config, folder)


def test_text_that_is_gone_is_not_needed_to_go_on(tmp_path):
    config, folder = text_config(tmp_path, "ba do ki lu me"), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config, folder, watch=Watch(progress=lambda step, *_: step == 3 and signal.raise_signal(signal.SIGTERM)))
    for side in ("source", "target"):
        (tmp_path / f"train.{side}").unlink()
    assert train(config, folder)["bleu"] >= 0


def test_fewer_steps_than_done_are_refused_and_more_renew_the_averages(config, finished):
    with pytest.raises(WorkdirError, match=r"has made 6 updates, more than training\.steps 3"):
        train(tiny.changed(config, steps=3), finished)
    assert workdir.load_config(finished).training.steps == 6
    with pytest.raises(Interrupted):
        stop = Watch(progress=lambda step, *_: step == 7 and signal.raise_signal(signal.SIGTERM))
        train(tiny.changed(config, steps=9), finished, watch=stop)
    assert workdir.best_weights(finished, print)[0] == checkpoint.at(finished / "checkpoints", 7)


def test_a_finished_run_is_not_evaluated_again(config, finished, undisturbed, monkeypatch):
    files = {f: f.stat().st_mtime_ns for f in finished.rglob("*") if f.is_file()}

    def never(*_):
        raise AssertionError("evaluated")

    monkeypatch.setattr("natjax.training.loop.score", never)
    assert train(config, finished) == undisturbed[1]
    changed = {f.name for f, time in files.items() if f.stat().st_mtime_ns != time}
    assert changed <= {"config.json", "vocab.model"}


def test_a_second_training_of_the_same_workdir_is_kept_out(config, finished):
    descriptor = os.open(finished, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(WorkdirError, match="another training is running there"):
        train(config, finished)
    os.close(descriptor)
    train(config, finished)


def test_weights_to_start_from_that_do_not_exist_leave_nothing_behind(config, tmp_path):
    with pytest.raises(WorkdirError, match=r"nowhere: no config\.json"):
        train(config, tmp_path / "run", init_from=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_the_code_that_only_looked_is_not_named_as_the_code_that_trained(config, finished):
    starts = (finished / "starts.jsonl").read_text()
    assert [json.loads(line)["step"] for line in starts.splitlines()] == [0]
    train(config, finished)
    assert (finished / "starts.jsonl").read_text() == starts


def damage_config_bytes(folder):
    (folder / "config.json").write_bytes(b'{"name": "\xff"}')


def damage_config_kind(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def damage_vocabulary(folder):
    (folder / "vocab.model").write_bytes(b"nothing")


def lose_vocabulary(folder):
    (folder / "vocab.model").unlink()


def widen(folder):
    made = json.loads((folder / "config.json").read_text())
    made["model"]["width"] = 32
    (folder / "config.json").write_text(json.dumps(made))


def empty_checksums(folder):
    for place in (folder / "checkpoints").iterdir():
        (place / "checksums.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_config_bytes, r"config\.json: damaged \(not UTF-8"),
        (damage_config_kind, r"no config\.json, so not a workdir"),
        (damage_vocabulary, r"vocab\.model"),
        (lose_vocabulary, r"vocab\.model: cannot be read .* that made it once more"),
        (widen, "use the config that it was trained with"),
        (empty_checksums, "does not name all files"),
    ],
)
def test_a_model_folder_that_is_damaged(finished, damage, words):
    damage(finished)
    with pytest.raises(UserError, match=words) as caught:
        Translator.load(finished)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_of_another_size(finished, tmp_path):
    config = text_config(tmp_path, "ba do ki lu me")
    prepare(config, tmp_path / "other", lambda line: None)
    Vocabularies.load(tmp_path / "other").save(finished)
    with pytest.raises(CheckpointError, match="use the config that it was trained with"):
        Translator.load(finished)


def test_the_lost_vocabulary_comes_back_from_the_store(config, finished):
    before = (finished / "vocab.model").read_bytes()
    lose_vocabulary(finished)
    train(config, finished)
    assert (finished / "vocab.model").read_bytes() == before


def test_lines_of_the_metrics_that_are_none(config, finished):
    file = finished / "metrics.jsonl"
    good = file.read_text()
    file.write_text(good + '123\n{"step": 5}\n[]\n{"step": null, "seconds": 1.0}\n{"step": 1, "seconds": null}\n{"half')
    train(config, finished)
    assert file.read_text() == good


def test_training_outside_the_main_thread(config, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(tiny.changed(config, steps=2), tmp_path / "run")))
    thread.start()
    thread.join()
    assert found and found[0]["weights"]


def test_what_a_kill_between_two_renames_left_is_put_back(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    number = int(done.stdout)  # of a process that is no more
    node = atomic.platform.node()
    (tmp_path / f".store.{node}.{number}.old").mkdir()
    (tmp_path / f".store.{node}.{number}.old" / "good").write_text("good")
    (tmp_path / f".store.{node}.{number}.tmp").mkdir()
    (tmp_path / f".other.{node}.{os.getpid()}.tmp").mkdir()
    atomic.clear_leftovers(tmp_path)
    assert (tmp_path / "store" / "good").read_text() == "good"
    atomic.clear_leftovers(tmp_path / "nowhere")  # nothing to clear is no mistake
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".other.{node}.{os.getpid()}.tmp", "store"]


# Through the command line, with what the system refuses made to happen.


def natjax(command: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment, **options)


def config_file(config, folder: Path) -> Path:
    (folder / "given.json").write_text(to_json(config))
    file = folder / "config.py"
    file.write_text(
        "from pathlib import Path\nfrom natjax.config import from_json\n"
        f"def get_config():\n    return from_json(Path({str(folder / 'given.json')!r}).read_text())\n"
    )
    return file


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("natjax: ")
    return last


def started(config, tmp_path) -> Path:
    """A run that was stopped after its first checkpoint."""
    folder = tmp_path / "disk" / "run"
    with pytest.raises(Interrupted):
        train(config, folder, watch=Watch(progress=lambda step, *_: step == 3 and signal.raise_signal(signal.SIGTERM)))
    return folder


def test_a_full_disk_while_saving(config, tmp_path):
    folder, disk = started(config, tmp_path), tmp_path / "disk"
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    command = f"{sys.executable} -m natjax train {config_file(config, tmp_path)} --workdir {folder}"
    room = f"{(size + 150_000) // 1024}k"
    mount = (f"cp -r {disk} {tmp_path}/copy && mount -t tmpfs -o size={room} tmpfs {disk} && "
             f"cp -r {tmp_path}/copy/. {disk} && {command}; "
             f"code=$?; cp -r {disk} {tmp_path}/after; exit $code")  # fmt: skip
    done = natjax(f"unshare --mount --map-root-user sh -c '{mount}'")
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no right to mount a small file system here")
    assert "No space left on device" in one_line(done)
    assert "free some space and run the same command again" in done.stderr
    after = tmp_path / "after" / "run" / "checkpoints"
    assert [p.name for p in after.iterdir()] == ["00000003"]
    checkpoint.verify(after / "00000003")


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_while_saving(config, tmp_path):
    folder = started(config, tmp_path)
    command = f"{sys.executable} -m natjax train {config_file(config, tmp_path)} --workdir {folder}"
    largest = max(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    done = natjax(f"ulimit -f {largest // 1024 // 2 or 1}; NATJAX_CACHE= {command}")
    assert "raise the file size limit" in one_line(done)
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["00000003"]
    checkpoint.verify(folder / "checkpoints" / "00000003")


def test_a_signal_while_preparing_leaves_nothing(config, tmp_path, monkeypatch, capsys):
    file, digest = config_file(config, tmp_path), hashlib.file_digest

    def stopped(*args):  # while the files are being written
        signal.raise_signal(signal.SIGTERM)
        return digest(*args)

    monkeypatch.setattr("natjax.data.store.hashlib.file_digest", stopped)
    assert cli.main(["prepare", str(file), "--data.store", str(tmp_path / "new" / "store")]) == 75
    assert "stopped by SIGTERM before this run added anything" in capsys.readouterr().err
    assert list((tmp_path / "new").iterdir()) == []


def test_prepare_and_demo_leave_the_run_of_another_config_alone(config, finished, tmp_path):
    files = {f: f.read_bytes() for f in finished.rglob("*") if f.is_file()}
    other = tiny.dataclasses.replace(config, vocab=tiny.dataclasses.replace(config.vocab, size=310))
    file = config_file(other, tmp_path)
    for command in (f"prepare {file} --workdir {finished}", f"demo --workdir {finished}"):
        assert "holds a run of another config" in one_line(natjax(f"{sys.executable} -m natjax {command}"))
        assert {f: f.read_bytes() for f in finished.rglob("*") if f.is_file()} == files


def test_a_store_whose_bytes_have_changed(config, tmp_path):
    own = Path(shutil.copytree(config.data.store, tmp_path / "store"))
    tokens = own / "train.source.tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:-8] + b"\xff" * 8)
    config = tiny.dataclasses.replace(config, data=tiny.dataclasses.replace(config.data, store=str(own)))
    command = f"{sys.executable} -m natjax train {config_file(config, tmp_path)} --workdir {tmp_path / 'run'}"
    assert "its content has changed (sha256); run natjax prepare again" in one_line(natjax(command))
    assert not (tmp_path / "run" / "config.json").exists()
