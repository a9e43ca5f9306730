"""natjax distill as a person calls it: killed and resumed, in several processes, on a full disk, stopped."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import tiny

from natjax.cli import main
from natjax.data.prepare import read_corpus
from natjax.training.loop import train
from natjax.translator import Translator

LINES = 20_000


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(tiny.changed(tiny.small(), steps=1, eval_every=1, save_every=1, eval_sentences=2), folder)
    return folder


@pytest.fixture
def source(tmp_path):
    (sources, _), _ = read_corpus(tiny.small())
    write(tmp_path / "train.en", sources[:60])
    return tmp_path / "train.en"


def write(file, lines):
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def options(teacher, source, output, *more):
    return [
        "distill",
        "--beam",
        "1",
        "--teacher",
        str(teacher),
        "--source",
        str(source),
        "--output",
        str(output),
        *more,
    ]


def start(*words, **more):
    return subprocess.Popen([sys.executable, "-m", "natjax", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, **more)  # fmt: skip


def test_it_tells_what_it_did(teacher, source, tmp_path, capsys):
    write(tmp_path / "train.de", ["Ein Satz."] * 60)
    words = options(teacher, source, tmp_path / "kd.de", "--target", str(tmp_path / "train.de"))
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "before" in out
    assert "after" in out
    assert "conditional entropy" in out
    assert err.splitlines()[-1].startswith(f"natjax: {tmp_path / 'kd.de'}: 60 lines")
    assert main(words) == 0
    assert capsys.readouterr() == ("", f"natjax: {tmp_path / 'kd.de'}: already done\n")
    assert main([*options(teacher, source, tmp_path / "other.de"), "--shard", "2/2"]) == 0
    assert capsys.readouterr().err.endswith("this shard is done; 1 blocks of others are missing\n")


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--shard", "2"], "--shard 2: give it as 2/8"),
        (["--shard", "3/2"], "must be from 1/n to n/n"),
        (["--n-best", "2"], "from 1 to the beam, 1"),
        (["--teacher", "nowhere"], "not a workdir"),
        (["--target", "nowhere.de"], "cannot be read"),
        (["--minimum-score", "-1"], "add --output-source"),
    ],
)
def test_mistakes(teacher, source, tmp_path, capsys, more, match):
    assert main(options(teacher, source, tmp_path / "kd.de", *more)) == 2
    err = capsys.readouterr().err
    assert match in err
    assert err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["train.en"]


def test_held_out_text_unless_allowed(teacher, source, tmp_path, capsys):
    source = source.rename(tmp_path / "valid.en")
    assert main(options(teacher, source, tmp_path / "kd.de")) == 2
    assert "--allow-held-out" in capsys.readouterr().err
    assert main(options(teacher, source, tmp_path / "kd.de", "--allow-held-out")) == 0
    assert (tmp_path / "kd.de").read_text().split("\n")[:-1] == Translator.load(teacher).translate(
        source.read_text().splitlines()
    )


def test_another_language_unless_allowed(teacher, source, tmp_path, capsys):
    (_, targets), _ = read_corpus(tiny.small())
    write(source, targets[:60])
    assert main(options(teacher, source, tmp_path / "kd.de")) == 2
    err = capsys.readouterr().err
    assert "source and target swapped? --allow-language" in err
    assert err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["train.en"]
    assert main(options(teacher, source, tmp_path / "kd.de", "--allow-language")) == 0
    assert len((tmp_path / "kd.de").read_text().splitlines()) == 60


def test_a_full_disk(teacher, source, tmp_path):
    """The parts lie on a disk of 64 kB that other files fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (sources, _), _ = read_corpus(tiny.small())
    write(source, sources[:3000])
    command = " ".join(map(str, [sys.executable, "-m", "natjax", *options(teacher, source, disk / "kd.de")]))
    mount = f"mount -t tmpfs -o size=64k tmpfs {disk} && {command}; code=$?; ls {disk} {disk}/*; exit $code"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", mount], capture_output=True, text=True, timeout=300
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no right to mount a small file system here")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "cannot be written (No space left on device); free some space and run the same command again" in line
    assert "index.json" in done.stdout
    assert ".tmp" not in done.stdout


@pytest.fixture(scope="module")
def undisturbed(teacher, tmp_path_factory):
    """(source, bytes of the output)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (sources, _), _ = read_corpus(tiny.small())
    write(folder / "train.en", sources[:LINES])
    assert main(options(teacher, folder / "train.en", folder / "kd.de")) == 0
    return folder / "train.en", (folder / "kd.de").read_bytes()


@pytest.mark.slow
def test_killed_at_random_points(teacher, undisturbed, tmp_path):
    """Ten kills, each some time after the run has finished another block: while the next ones are made, or joined."""
    source, expected = undisturbed
    chance, kills, output = random.Random(0), 0, tmp_path / "kd.de"
    words, parts = options(teacher, source, output), tmp_path / "kd.de.parts"
    while kills < 10:
        before = len(list(parts.glob("0*.json")))
        with start(*words) as program:
            while len(list(parts.glob("0*.json"))) <= before and program.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.5))
            finished = program.poll() is not None
            program.kill()
        assert program.returncode in (0, -signal.SIGKILL), program.stderr.read()
        kills += not finished
        if finished:  # ten kills in all, if it takes another round
            assert output.read_bytes() == expected
            output.unlink()
            (tmp_path / "kd.de.json").unlink()
    with start(*words) as program:
        _, err = program.communicate(timeout=300)
    assert program.returncode == 0, err
    assert output.read_bytes() == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kd.de", "kd.de.json"]


@pytest.mark.slow
def test_two_processes_at_once(teacher, undisturbed, tmp_path):
    source, expected = undisturbed
    words = options(teacher, source, tmp_path / "kd.de")
    programs = [start(*words, "--shard", f"{number}/2") for number in (1, 2)]
    for program in programs:
        _, err = program.communicate(timeout=300)
        assert program.returncode == 0, err
    assert (tmp_path / "kd.de").read_bytes() == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kd.de", "kd.de.json"]
    assert json.loads((tmp_path / "kd.de.json").read_text())["pairs"] == LINES


@pytest.mark.slow
def test_a_signal_keeps_what_is_done(teacher, undisturbed, tmp_path):
    source, expected = undisturbed
    words, parts = options(teacher, source, tmp_path / "kd.de"), tmp_path / "kd.de.parts"
    with start(*words) as program:
        while not (parts / "00000001.json").exists() and program.poll() is None:
            time.sleep(0.01)
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (
        75, "natjax: stopped by SIGTERM; finished blocks are kept, the same command goes on\n",
    )  # fmt: skip
    assert not list(parts.glob(".*"))
    assert main(words) == 0
    assert (tmp_path / "kd.de").read_bytes() == expected
