"""natjax translate as a person calls it: bytes in, bytes out, pipes that close and disks that are full."""

import io
import json
import os
import signal
import subprocess
import sys

import jax
import pytest
import tiny

from natjax import models
from natjax.cli import main, translate
from natjax.config import to_json
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.training import checkpoint
from natjax.translator import Translator

LINE = "The old farmer sells the horse."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A workdir whose model was never trained; every frame prefers a piece that is not ASCII."""
    folder = tmp_path_factory.mktemp("model")
    (sources, targets), _ = read_corpus(tiny.config())
    vocabularies = train_vocabularies((sources[:300], targets[:300]), tiny.config())
    pieces = vocabularies.target.pieces(range(len(vocabularies.target)))
    network = models.build(tiny.config(), len(pieces), len(pieces))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    params["output_bias"] = params["output_bias"].at[next(i for i, p in enumerate(pieces) if "ü" in p)].add(100.0)
    (folder / "config.json").write_text(to_json(tiny.config()))
    vocabularies.save(folder)
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": params}, {})
    return folder


def shell(command: str, model, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command of the shell, `natjax` in it as a program that translates with the model."""
    command = command.replace("natjax", f"{sys.executable} -m natjax translate --model {model}")
    environment = {**os.environ, **variables}
    return subprocess.run(["bash", "-c", command], capture_output=True, timeout=300, env=environment)


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_stdout_is_utf8_whatever_the_locale(model, locale):
    (expected,) = Translator.load(model).translate([LINE])
    assert "ü" in expected
    done = shell(f"printf '{LINE}\\n\\n' | natjax", model, **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == f"{expected}\n\n".encode()
    done = shell(f"echo '{LINE}' | natjax --json", model, **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode())["text"] == expected
    assert "ü".encode() in done.stdout


def test_stdout_on_a_full_disk_is_one_line(model):
    done = shell(f"yes '{LINE}' | head -3000 | natjax > /dev/full; exit ${{PIPESTATUS[2]}}", model)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("natjax: stdout: cannot be written (No space left on device)")


@pytest.mark.parametrize(
    "stdin",
    [
        f"yes '{LINE}'",
        # The reader goes while stdin is open and silent.
        f"(echo '{LINE}'; for i in $(seq 60); do sleep 0.5; echo '{LINE}'; done; sleep 2)",
    ],
)
def test_a_reader_that_leaves_ends_it_quietly(model, stdin):
    done = shell(f"{stdin} | natjax | head -1; exit ${{PIPESTATUS[1]}}", model)
    assert done.stderr == b""
    assert done.returncode == 141
    assert done.stdout.count(b"\n") == 1


@pytest.fixture
def interruptible():
    """What a shell starts in the background ignores Ctrl-C, and so do its children, unless somebody handles it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_it_waits_for_a_line(model):
    command = [sys.executable, "-m", "natjax", "translate", "--model", str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        program.stdin.write(f"{LINE}\n".encode())
        program.stdin.flush()
        assert "ü" in program.stdout.readline().decode()
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=60) == 130
        assert program.stderr.read() == b"natjax: stopped\n"


def test_cut_lines_are_told_by_their_number_in_all_of_stdin(model, monkeypatch, capsys):
    monkeypatch.setattr(translate, "BLOCK", 2)
    long = " ".join([LINE] * 9)
    lines = [LINE, long, "", LINE, long, ""]
    expected = Translator.load(model).translate_with_details(lines)
    cut = [
        f"natjax: line {i}: too long, cut into {t.segments} segments"
        for i, t in enumerate(expected, 1)
        if t.segments > 1
    ]
    assert len(cut) == 2
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(f"{x}\n" for x in lines).encode())))
        assert main(["translate", "--model", str(model), *options]) == 0
        out, err = capsys.readouterr()
        assert err.splitlines() == cut
        texts = [json.loads(line)["text"] for line in out.splitlines()] if options else out.splitlines()
        assert texts == [t.text for t in expected]
