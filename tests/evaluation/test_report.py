import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import numpy as np
import pytest

import natjax
from natjax.errors import UserError
from natjax.evaluation import report


def write(path, **changes):
    fields = {
        "name": "multi30k_en_de/nat_ctc_raw",
        "command": "natjax evaluate --model runs/a",
        "data": "multi30k test_2016_flickr, 1,000 sentences",
        "seed": 3,
        "wall_seconds": 1.5,
        "metrics": {"bleu": np.float32(30.5), "sentences": np.int64(1000), "bleu_signature": "nrefs:1|tok:13a"},
        "targets": {"bleu": 30},
    }
    return report.write_result(path, **{**fields, **changes})


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_result_holds_every_field(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    written = write(tmp_path / "a.json")
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert read == written
    assert set(read) == {
        "name", "command", "commit", "date", "machine", "versions", "seed", "data", "wall_seconds", "metrics",
        "targets",
    }  # fmt: skip
    assert read["metrics"] == {"bleu": 30.5, "sentences": 1000, "bleu_signature": "nrefs:1|tok:13a"}
    assert before <= datetime.fromisoformat(read["date"]) <= datetime.now(UTC)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_extra_stands_apart(tmp_path):
    assert write(tmp_path / "a.json", extra={"note": "warm"})["extra"] == {"note": "warm"}


def test_the_machine_is_this_one():
    machine = report.machine()
    assert machine["cores"] == len(os.sched_getaffinity(0))
    kib = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert machine["memory_gib"] == pytest.approx(kib / 2**20, abs=0.06)
    assert machine["cpu"]
    assert machine["accelerator"] == {
        "platform": jax.default_backend(),
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
    }


def test_versions_are_the_installed_ones():
    versions = report.versions()
    assert versions["natjax"] == natjax.__version__
    assert versions["jax"] == jax.__version__
    assert versions["numpy"] == np.__version__
    assert versions["orbax"] == version("orbax-checkpoint")
    assert {"python", "jaxlib", "flax", "optax", "sentencepiece", "sacrebleu"} < set(versions)


def test_the_version_of_a_peer_is_told_with_the_others(tmp_path):
    written = write(tmp_path / "a.json", peers=["pytest"])["versions"]
    assert written == {**report.versions(), "pytest": pytest.__version__}
    with pytest.raises(PackageNotFoundError):
        write(tmp_path / "b.json", peers=["a-peer-that-nobody-has"])
    assert not (tmp_path / "b.json").exists()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder in which natjax seems to lie."""
    folder = tmp_path / "checkout" / "natjax"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("one")
    monkeypatch.setattr(report, "_SOURCE", folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


def repository(folder, *files):
    """Makes a repository with one commit, which holds these files, and returns its HEAD."""
    git(folder, "init", "-q")
    for file in files:
        git(folder, "add", str(file))
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def test_commit_tells_clean_from_dirty_from_none(source):
    assert report.commit() == "unknown"
    git(source.parent, "init", "-q")
    assert report.commit() == "unknown"
    head = repository(source.parent, "natjax")
    (source.parent / "result.json").write_text("{}")  # a result that is being written makes nothing dirty
    assert report.commit() == head
    results = source.parent / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "one.json").write_text("{}")
    head = repository(source.parent, "benchmarks")
    (results / "one.json").write_text("[]")  # and neither does one that the command before has written
    assert report.commit() == head
    (source / "__init__.py").write_text("two")
    assert report.commit() == f"{head}-dirty"


def test_the_repository_of_the_working_folder_is_not_asked(source, tmp_path, monkeypatch):
    other = tmp_path / "experiments"
    other.mkdir()
    (other / "__init__.py").write_text("")
    foreign = repository(other, "__init__.py")
    monkeypatch.chdir(other)
    assert report.commit() == "unknown"
    own = repository(source.parent, "natjax")
    assert report.commit() == own != foreign
    # As in a hook of that repository:
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert report.commit() == own


def test_a_repository_that_natjax_is_no_part_of_is_not_named(source):
    (source.parent / "notes").write_text("natjax is installed beside them")
    repository(source.parent, "notes")
    assert report.commit() == "unknown"


def test_the_source_is_where_natjax_was_imported_from(tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(Path(natjax.__file__).parent, copy / "natjax", ignore=shutil.ignore_patterns("__pycache__"))
    head = repository(copy, "natjax")
    program = "from natjax.evaluation import report; print(report.commit())"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == head


def test_commit_without_git_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert report.commit() == "unknown"


def test_a_number_that_is_not_finite_leaves_the_old_file(tmp_path):
    write(tmp_path / "a.json")
    old = (tmp_path / "a.json").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "a.json", metrics={"bleu": float("nan")})
    with pytest.raises(TypeError, match="ndarray does not go into a result file"):
        write(tmp_path / "a.json", metrics={"bleu": np.zeros(2)})
    assert (tmp_path / "a.json").read_bytes() == old


def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    file.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written") as raised:
        write(tmp_path / "missing" / "a.json")
    assert "\n" not in str(raised.value)
