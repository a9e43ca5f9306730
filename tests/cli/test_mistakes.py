"""Mistakes at the command line and outputs that cannot be written: one line on stderr, exit code 2, no traceback."""

import os
import subprocess
import sys

import pytest
import tiny

from natjax.cli import main
from natjax.config import shipped_configs, to_json
from natjax.training.loop import train


def shell(command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs `natjax` in a command of the shell, which closes and redirects as people do."""
    command = command.replace("natjax", f"{sys.executable} -m natjax", 1)
    environment = {**os.environ, **variables}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, env=environment)


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line of a program that had to refuse."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("natjax: ")
    return lines[0]


@pytest.mark.parametrize("verb", ["configs", "--help", "--version", "train --help", "train demo --fields"])
def test_stdout_that_takes_nothing(verb):
    done = shell(f"natjax {verb} >&-")
    assert "stdout is closed" in refused(done)
    assert done.stdout == ""
    assert "stdout: cannot be written (No space left on device)" in refused(shell(f"natjax {verb} > /dev/full"))


def test_stdout_that_takes_a_part(tmp_path):
    out = tmp_path / "out"
    # Blocks of 1,024 bytes: the first is written, and the list of fields is longer.
    assert "File too large" in refused(shell(f"ulimit -f 1; natjax train demo --fields > {out}"))
    assert out.stat().st_size == 1024


def test_a_closed_stdout_is_seen_before_anything_is_done(tmp_path):
    refused(shell(f"natjax configs copy demo --output {tmp_path}/mine.py >&-"))
    refused(shell(f"natjax prepare demo --workdir {tmp_path}/run >&-"))
    assert not list(tmp_path.iterdir())


def test_a_closed_stderr_sends_no_line_to_stdout():
    done = shell("natjax nosuch 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_reader_that_leaves_before_the_end_is_no_error():
    done = shell("(sleep 1; exec natjax train demo --fields) | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A workdir that translates, if badly."""
    folder = tmp_path_factory.mktemp("model") / "run"
    train(tiny.changed(tiny.small(), steps=1, eval_every=1, save_every=1, eval_sentences=2), folder)
    return folder


def test_translations_that_cannot_be_written(model):
    text = "The old farmer sells the horse."
    assert "No space left" in refused(shell(f"echo '{text}' | natjax translate --model {model} > /dev/full"))
    assert "stdout is closed" in refused(shell(f"echo '{text}' | natjax translate --model {model} >&-"))


HOMELESS = """
import os, pwd, sys
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
os.environ.pop("HOME"), os.environ.pop("NATJAX_CACHE", None)
from natjax.cli import main
code = main(sys.argv[1:])
import jax
print("cache:", jax.config.jax_compilation_cache_dir)
sys.exit(code)
"""


def test_a_user_without_a_home_goes_without_a_cache(model):
    program = [sys.executable, "-c", HOMELESS, "translate", "--model", str(model)]
    done = subprocess.run(program, capture_output=True, text=True, input="A dog runs.\n\n", timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n\ncache: None\n")


def mistake(capsys, *arguments: str) -> str:
    """The one line of a program that runs in this process and must refuse."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("natjax: ")
    assert len(err.splitlines()) == 1
    return err


def test_configs_are_named(capsys):
    names = ", ".join(shipped_configs())
    assert f"({names})" in mistake(capsys, "train", "nosuch")
    assert f"({names})" in mistake(capsys, "prepare", "nosuch", "--workdir", "x")
    line = mistake(capsys, "configs", "copy")
    assert "natjax configs copy NAME" in line
    assert names in line
    assert "None" not in line


def test_options_that_do_not_exist(capsys):
    assert "did you mean --training.steps" in mistake(capsys, "train", "demo", "--steps", "3")
    line = mistake(capsys, "train", "demo", "--lr", "3e-4")
    assert "--training.learning_rate" in line
    assert "--fields lists them all" in line
    assert main(["train", "demo", "--fields"]) == 0
    assert "--training.learning_rate" in capsys.readouterr().out
    assert "did you mean --workdir?" in mistake(capsys, "train", "demo", "--workdri", "x")
    assert "did you mean --init-from?" in mistake(capsys, "train", "demo", "--init_form", "x")
    assert "--init-from" not in mistake(capsys, "prepare", "demo", "--init_form", "x")


def test_switches_say_how_they_are_given_and_work_as_they_say(capsys):
    line = mistake(capsys, "train", "demo", "--model.share_embeddings", "False")
    yes, no = "--model.share_embeddings", "--model.no_share_embeddings"
    assert f"{yes} says true, {no} says false" in line
    for option in (yes, no):
        assert "--workdir is missing" in mistake(capsys, "train", "demo", option)


@pytest.mark.parametrize(
    ("field", "value"),
    [("training.seed", 2**63), ("training.steps", 2**31), ("vocab.size", 99_999_999_999), ("model.width", 10**9)],
)
def test_numbers_beyond_their_range(capsys, tmp_path, field, value):
    run = tmp_path / "run"
    line = mistake(capsys, "train", "demo", "--workdir", str(run), f"--{field}", str(value))
    assert line.startswith(f"natjax: {field}: must be from ")
    assert not run.exists()


def test_a_workdir_with_a_number_beyond_its_range(capsys, tmp_path):
    text = to_json(tiny.changed(tiny.config(), seed=2**63))
    (tmp_path / "config.json").write_text(text)
    assert "training.seed: must be from" in mistake(capsys, "translate", "--model", str(tmp_path))


def test_a_config_file_that_leaves_the_program(capsys, tmp_path):
    file = tmp_path / "leaves.py"
    file.write_text("import sys\n\n\ndef get_config():\n    sys.exit(3)\n")
    line = mistake(capsys, "train", str(file), "--workdir", str(tmp_path / "run"))
    assert f"{file}: failed with SystemExit: 3" in line
    file.write_text("def get_config():\n    raise KeyboardInterrupt\n")
    assert main(["train", str(file), "--workdir", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "natjax: stopped\n"


@pytest.mark.parametrize(
    "command",
    [
        "train {}",
        "configs copy demo --output {}",
        "train demo --workdir {}",
        "prepare demo --data.store {}",
        "prepare multi30k_en_de --data.root {}",
        "evaluate --hypothesis {} --reference {}",
        "evaluate --hypothesis {file} --reference {file} --source {file} --metric-plugin {}",
        "translate --model {}",
    ],
)
def test_paths_that_the_system_refuses(capsys, tmp_path, command):
    (tmp_path / "file").write_text("text\n")
    line = mistake(capsys, *command.format(*2 * ["x" * 300], file=tmp_path / "file").split())
    assert "xxx" in line
    assert "File name too long" in line or "no such" in line
