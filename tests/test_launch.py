"""The scripts of launch/, run as a person runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from natjax.data.prepare import read_corpus

LAUNCH = Path(__file__).parent.parent / "launch"

CONFIG = """
from natjax.config import *

def get_config():
    data = DataConfig(root={root!r}, train_source="train.en", train_target={target!r}, valid_source="valid.en",
                      valid_target="valid.de", max_length=96, max_ratio=100.0, buckets=1, length_multiple=8)
    model = ModelConfig.tiny(kind={kind!r}, encoder_layers=1, decoder_layers=1, width=16, feed_forward=32, heads=2,
                             ratio=3.0)
    training = TrainingConfig(steps=4, batch_frames=512, eval_every=4, save_every=4, eval_sentences=2)
    objective = ObjectiveConfig(loss={loss!r}, target_eos={eos})
    decoding = DecodingConfig(max_source_length=96)
    return Config({kind!r}, data, VocabConfig(size=300), model, objective, training, decoding)
"""


def run(*words, **environment):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", *map(str, words)], capture_output=True, text=True, env={**os.environ, "PATH": path, **environment},
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda script: script.name)
def test_scripts_parse_and_tell_their_usage(script):
    assert run("-n", script).returncode == 0
    bare = run(script)
    assert (bare.returncode, bare.stdout) == (2, "") and bare.stderr.startswith("usage:")
    assert script.stat().st_mode & 0o111 and len(script.read_text().splitlines()) <= 120


@pytest.mark.slow
def test_teacher_distillation_student(tmp_path):
    (sources, targets), _ = read_corpus(tiny.small())
    for name, sentences in (("train", slice(0, 300)), ("valid", slice(300, 310))):
        for side, lines in (("en", sources), ("de", targets)):
            (tmp_path / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines[sentences]))
    for name, kind, target, loss in (
        ("teacher", "autoregressive", "train.de", "ce"),
        ("student", "nat", "$NATJAX_DISTILLED/train.target", "ctc"),
    ):
        text = CONFIG.format(root=str(tmp_path), kind=kind, target=target, loss=loss, eos=loss == "ce")
        (tmp_path / f"{name}.py").write_text(text)
    files = [tmp_path / name for name in ("teacher.py", "student.py", "runs", "train.en", "train.de")]
    done = run(LAUNCH / "distill.sh", *files, "--", "--beam", "2")
    assert done.returncode == 0, done.stderr
    distilled = tmp_path / "runs" / "distilled" / "train.target"
    assert len(distilled.read_text().splitlines()) == 300
    assert json.loads(distilled.with_name("train.target.json").read_text())["made_from"]["beam"] == 2
    store = json.loads((tmp_path / "runs" / "student" / "store" / "metadata.json").read_text())
    assert store["splits"]["train"]["rows"] > 0
    before = (tmp_path / "runs" / "student" / "metrics.jsonl").read_text()
    again = run(LAUNCH / "distill.sh", *files, "--", "--beam", "2")
    assert again.returncode == 0 and "already" in again.stdout + again.stderr
    assert (tmp_path / "runs" / "student" / "metrics.jsonl").read_text() == before


@pytest.fixture
def stub(tmp_path):
    """A `natjax` that notes how it is called; it distils where no shard is asked for."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "natjax"
    program.write_text(
        f'#!/usr/bin/env bash\necho "$*" >> {tmp_path}/calls\n'
        'if [ "$1" = distill ] && [[ "$*" != *--shard* ]]; then touch "$NATJAX_DISTILLED/train.target"{,.json}; fi\n'
    )
    program.chmod(0o755)

    def call(*words):
        (tmp_path / "calls").unlink(missing_ok=True)
        path = f"{program.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", LAUNCH / "distill.sh", "T", "S", tmp_path / "runs", "a.en", "a.de", *words],
            capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False,
        )  # fmt: skip
        return done, (tmp_path / "calls").read_text().splitlines()

    return call


def test_no_student_learns_from_an_unfinished_distillation(stub):
    done, calls = stub("--", "--shard", "1/2")
    assert done.returncode == 75
    assert done.stderr.endswith("train.target is not whole yet; run this again when the other shards are done\n")
    assert [call.split()[0] for call in calls] == ["train", "distill"]
    assert calls[1].endswith("train.target --shard 1/2")


@pytest.mark.parametrize(
    ("words", "options", "overrides"),
    [
        ([], "", ""),
        (["--", "--beam", "2"], " --beam 2", ""),
        (["--", "--beam", "2", "--", "--training.steps", "9"], " --beam 2", " --training.steps 9"),
        (["--", "--", "--training.steps", "9"], "", " --training.steps 9"),
    ],
)
def test_options_go_to_distill_and_overrides_to_the_student(stub, tmp_path, words, options, overrides):
    done, calls = stub(*words)
    assert done.returncode == 0, done.stderr
    teacher, distill, student = calls
    assert teacher == f"train T --workdir {tmp_path}/runs/teacher"
    assert distill.endswith(f"--output {tmp_path}/runs/distilled/train.target{options}")
    assert student == f"train S --workdir {tmp_path}/runs/student{overrides}"
