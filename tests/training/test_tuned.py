"""W/decoding.json: what it holds, where its language model lies, and when its weights are in doubt."""

import dataclasses
import json
import shutil

import pytest
import tiny

from natjax.errors import ConfigError, WorkdirError
from natjax.training import tuned

FIELDS = {"ctc_beam_size": 7, "lm_weight": 0.25, "length_bonus": 1.5, "length_bonus_form": "log", "score_eos": True}
ABOUT = {"lm": "abc", "bleu": 31.0}


def test_what_is_written_is_read_beside_what_was_there(tmp_path):
    assert tuned.read(tmp_path) == tuned.Tuned({}, {})
    (tmp_path / tuned.FILE).write_text('{"blank_penalty": 0.5, "lm_weight": 0.9}')
    tuned.write(tmp_path, FIELDS, ABOUT)
    assert tuned.read(tmp_path) == tuned.Tuned({"blank_penalty": 0.5, **FIELDS}, ABOUT)


def test_a_language_model_in_the_workdir_moves_with_it(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    monkeypatch.chdir(tmp_path)
    for lm, written in (("here/lm", "lm"), (str(here / "x" / "lm"), "x/lm"), ("lm3", str(tmp_path / "lm3"))):
        tuned.write(here, {"lm": lm}, {})
        assert json.loads((here / tuned.FILE).read_text())["lm"] == written
        tuned.write(here, {"lm_weight": 0.5}, {})  # and once more, by what it reads itself
        assert json.loads((here / tuned.FILE).read_text())["lm"] == written
    tuned.write(here, {"lm": "here/lm"}, {})
    shutil.move(here, there)
    assert tuned.read(there).fields["lm"] == str(there / "lm")


def test_a_file_that_says_nothing_of_use(tmp_path):
    file = tmp_path / tuned.FILE
    for content, error, message in (
        (b"{", WorkdirError, "not valid JSON; run `natjax tune` again"),
        (b"\xff", WorkdirError, "not UTF-8 at byte 0"),
        (b"[]", ConfigError, "expected an object"),
        (b'{"alpha": 1}', ConfigError, "unknown field 'alpha'"),
        (b'{"ctc_beam_size": "x"}', ConfigError, "'x' is not int"),
    ):
        file.write_bytes(content)
        with pytest.raises(error, match=message):
            tuned.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "lm", "told"),
    [
        ({}, "abc", []),
        ({"length_bonus_form": "linear"}, "abc", ["length_bonus was tuned with decoding.length_bonus_form log"]),
        ({"length_bonus_form": "linear", "length_bonus": 0.5}, "abc", []),  # a bonus that somebody has chosen
        ({"score_eos": False}, "abc", ["lm_weight was tuned with decoding.score_eos True, not False"]),
        ({}, "def", ["lm_weight was tuned with another language model"]),
        ({"lm_weight": 0.0}, None, []),
        ({"lm_weight": 0.5}, "def", []),
    ],
)
def test_weights_tuned_for_another_search(tmp_path, changes, lm, told):
    tuned.write(tmp_path, FIELDS, ABOUT)
    found = tuned.read(tmp_path)
    decoding = dataclasses.replace(tiny.config().decoding, **{**found.fields, **changes})
    lines = tuned.doubts(tmp_path, found, decoding, lm)
    assert len(lines) == len(told)
    for line, part in zip(lines, told, strict=True):
        assert part in line and line.startswith(f"{tmp_path / tuned.FILE}: ") and "run `natjax tune` again" in line
