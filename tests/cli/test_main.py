"""The command line: every verb as a person would call it, and every mistake as one line with exit code 2."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from natjax.cli import VERBS, main
from natjax.config import shipped_configs

SMALL = [
    "--data.embedded", "none", "--data.max_length", "40", "--data.buckets", "1", "--vocab.size", "60",
    "--model.encoder_layers", "1", "--model.decoder_layers", "1", "--model.width", "16", "--model.feed_forward", "32",
    "--model.heads", "2", "--training.steps", "2", "--training.warmup_steps", "1", "--training.cooldown_steps", "0",
    "--training.eval_every", "2", "--training.save_every", "2", "--training.eval_sentences", "4",
    "--training.batch_frames", "512",
]  # fmt: skip


@pytest.fixture
def text(tmp_path):
    """A small corpus on disk, and the options that name it."""
    folder = tmp_path / "text"
    folder.mkdir()
    for name, count in (("train", 60), ("valid", 6)):
        lines = [f"the {c} {d} is here" for c in "abcdefghij" for d in ("dog", "cat", "cow", "hen", "fox", "owl")]
        for side in ("source", "target"):
            (folder / f"{name}.{side}").write_text("\n".join(lines[:count]) + "\n")
    return folder


@pytest.fixture
def options(text):
    return [*SMALL, "--data.root", str(text)]


def mistake(capsys, *arguments: str) -> str:
    """Runs the program, which must refuse: exit code 2, nothing on stdout, one line on stderr, no traceback."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert out == ""
    assert lines[-1].startswith("natjax: ")
    assert "Traceback" not in err
    return lines[-1]


def test_help_of_everything(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for verb in VERBS:
        assert verb in overview
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "examples:" in text
        assert f"natjax {verb}" in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("natjax ")


def test_mistakes_in_words(capsys):
    assert "unknown verb 'trian'" in mistake(capsys, "trian")
    assert "CONFIG" in mistake(capsys, "train")
    assert "--workdir is missing" in mistake(capsys, "train", "demo")
    assert "unknown argument '--modle'" in mistake(capsys, "translate", "--model", "x", "--modle", "y")
    assert "did you mean --training.steps" in mistake(capsys, "train", "demo", "--workdir", "x", "--training.step", "3")
    assert "choose demo, hard, multi30k_en_de" in mistake(capsys, "configs", "copy", "nothing")


def test_configs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["configs"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(shipped_configs())
    assert all(len(line.split()) > 3 for line in listed)
    assert main(["configs", "copy", "demo"]) == 0
    assert Path("demo.py").read_text() == shipped_configs()["demo"].read_text()
    capsys.readouterr()
    assert "exists already" in mistake(capsys, "configs", "copy", "demo")


def test_fields(capsys):
    assert main(["train", "demo", "--fields"]) == 0
    assert "--training.learning_rate" in capsys.readouterr().out
    assert main(["train", "demo", "--fields", "--training.steps", "7777"]) == 0
    assert "default: 7777" in capsys.readouterr().out
    assert "unknown option --bogus" in mistake(capsys, "train", "demo", "--fields", "--bogus", "1")


def test_prepare_train_translate_evaluate(capsys, monkeypatch, tmp_path, text, options):
    run = str(tmp_path / "run")
    assert main(["prepare", "demo", "--workdir", run, *options]) == 0
    assert "60 pairs read, 60 kept" in capsys.readouterr().err
    assert main(["train", "demo", "--workdir", run, *options]) == 0
    out, err = capsys.readouterr()
    weights = Path(run) / "checkpoints" / json.loads(out)["weights"]
    assert set(json.loads(out)) >= {"workdir", "weights", "bleu", "chrf", "bp", "repetition_rate", "loss"}
    assert "parameters:" in err
    assert "translation" in err  # samples
    assert main(["train", "demo", "--workdir", run, *options]) == 0
    assert "resuming from step 2" in capsys.readouterr().err

    def translate(*extra):
        given = b"the a dog is here\n\nthe b cat is here\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert main(["translate", "--model", run, *extra]) == 0
        return capsys.readouterr().out.split("\n")

    lines = translate()
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""
    details = [json.loads(line) for line in translate("--json")[:3]]
    assert [d["text"] for d in details] == lines[:3]
    assert len(details[0]["frames"]) > 0

    arguments = [
        "evaluate",
        "--source",
        str(text / "valid.source"),
        "--reference",
        str(text / "valid.target"),
        "--json",
    ]
    assert main([*arguments, "--model", run, "--output", str(tmp_path / "hyp")]) == 0
    by_model = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--hypothesis", str(tmp_path / "hyp")]) == 0
    by_file = json.loads(capsys.readouterr().out)
    assert {k: v for k, v in by_file.items() if "second" not in k} == {
        k: v for k, v in by_model.items() if "second" not in k
    }

    # Damaged weights: the next best are used, and that is said.
    info = (weights / "info.json").read_text()
    largest = max((weights / "arrays").rglob("*"), key=lambda f: f.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the a dog is here\n")))
    assert main(["translate", "--model", run]) == 0
    assert "damaged (checksum differs); using the next best weights" in capsys.readouterr().err
    largest.write_bytes(content)
    (weights / "info.json").write_text(info[:-9])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the a dog is here\n")))
    assert main(["translate", "--model", run]) == 0
    assert f"{weights.name} does not count as one of the best" in capsys.readouterr().err
    victim = max((weights / "arrays").rglob("*"), key=lambda f: f.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    given = io.TextIOWrapper(io.BytesIO(b"the a dog is here\n"))
    monkeypatch.setattr(sys, "stdin", given)
    for broken in (Path(run) / "checkpoints").glob("*"):
        (broken / "checksums.json").write_text("{")
    assert "no usable weights" in mistake(capsys, "translate", "--model", run)

    assert "another config (model.dropout" in mistake(
        capsys, "train", "demo", "--workdir", run, *options, "--model.dropout", "0.3"
    )


def test_text_that_cannot_be_used(capsys, tmp_path, text, options):
    run = str(tmp_path / "run")

    def train(*extra):
        return mistake(capsys, "train", "demo", "--workdir", run, *options, *extra)

    assert "vocab.size 5000" in train("--vocab.size", "5000")
    assert "no such file" in train("--data.train_source", "nowhere")
    (text / "train.target").write_bytes(b"fine\n" * 6 + b"bad \xff byte\n" + b"fine\n" * 53)
    assert "train.target:7: not UTF-8" in train()
    (text / "train.target").write_text("one line\n")
    assert "60 lines" in train()
    (text / "train.target").write_text("\n" * 60)
    assert "60 empty" in train()
    assert not (tmp_path / "run").exists()


def test_a_store_that_does_not_match(capsys, tmp_path, options):
    run = tmp_path / "run"
    assert main(["prepare", "demo", "--workdir", str(run), *options]) == 0
    capsys.readouterr()
    line = mistake(capsys, "train", "demo", "--workdir", str(run), *options, "--vocab.size", "61")
    assert "vocab.size 60 -> 61" in line
    tokens = run / "store" / "train.source.tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    assert "train.source.tokens.npy" in mistake(capsys, "train", "demo", "--workdir", str(run / "other"), *options,
                                                "--data.store", str(run / "store"))  # fmt: skip


def test_preparing_by_processes_and_verifying(capsys, tmp_path, options, monkeypatch):
    monkeypatch.setattr("natjax.data.workers.PAIRS_PER_PROCESS", 20)
    for processes in ("1", "2"):
        store = ["--data.store", str(tmp_path / processes)]
        assert main(["prepare", "demo", "--processes", processes, *store, *options]) == 0
        assert f"train on it with --data.store {tmp_path / processes}" in capsys.readouterr().err
    for file in (tmp_path / "1").glob("*.npy"):
        assert (tmp_path / "2" / file.name).read_bytes() == file.read_bytes()
    assert main(["prepare", "demo", "--verify", *store, *options]) == 0
    assert "2: 60 training pairs; all files are as they were made" in capsys.readouterr().err
    assert "made with other settings" in mistake(capsys, "prepare", "demo", "--verify", *store, *options,
                                                 "--vocab.size", "61")  # fmt: skip
    tokens = tmp_path / "2" / "train.source.tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"\x07\x00")
    assert "its content has changed" in mistake(capsys, "prepare", "demo", "--verify", *store, *options)
    assert "metadata.json is missing" in mistake(capsys, "prepare", "demo", "--verify", *options, "--data.store",
                                                 str(tmp_path / "nowhere"))  # fmt: skip
    assert not (tmp_path / "nowhere").exists()
    for wrong in ("0", "-1", "two"):
        line = mistake(capsys, "prepare", "demo", "--processes", wrong, *store, *options)
        assert "is not a number of processes; give 1 or more" in line or "expected one argument" in line


def test_models_that_cannot_be_used(capsys, tmp_path):
    assert "not a workdir" in mistake(capsys, "translate", "--model", str(tmp_path))
    assert "not a workdir" in mistake(capsys, "translate", "--model", str(tmp_path / "nowhere"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    line = mistake(capsys, "train", "demo", "--workdir", str(blocked / "run"))
    assert "cannot be used (Not a directory)" in line


def test_stdin_that_is_not_utf8_names_the_line(capsys, monkeypatch):
    from natjax.cli.translate import _blocks
    from natjax.errors import DataError

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good\nbad \xff\nnever\n")))
    seen = []
    with pytest.raises(DataError, match="stdin:2: not UTF-8"):
        for block in _blocks():
            seen += block
    assert seen == ["good"]


def test_a_terminal_gets_each_line_as_it_comes(monkeypatch):
    from natjax.cli.translate import _blocks

    read_end, write_end = os.pipe()
    reader, writer = os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb", buffering=0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(reader))
    blocks = _blocks()
    writer.write(b"one\n")
    assert next(blocks) == ["one"]
    writer.write(b"two\nthree\n")
    writer.close()
    assert [line for block in blocks for line in block] == ["two", "three"]
    reader.close()


def test_a_reader_that_leaves_is_no_error():
    command = f"(sleep 1; exec {sys.executable} -m natjax configs) | true"
    done = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 141


def test_a_closed_stdin_is_one_line(options, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "demo", "--workdir", run, *options]) == 0
    command = f"{sys.executable} -m natjax translate --model {run} <&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("natjax: stdin")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_demo_as_it_ships(capsys, tmp_path):
    assert main(["demo", "--workdir", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line.split("│")[2:] for line in out.splitlines() if line.startswith("│")}
    bleu = {name: float(cells[0]) for name, cells in rows.items()}
    assert bleu["CTC"] >= 90
    assert float(rows["CTC"][1]) >= 80
    assert bleu["CTC"] - bleu["vanilla NAT, predicted length"] >= 15
    assert out.count("(valid)") >= 3
