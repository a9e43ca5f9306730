"""The measures of a corpus on corpora made by hand, and the verb that prints them."""

import json
import time
from pathlib import Path

import pytest

from natjax.analysis import data
from natjax.analysis.alignment import align
from natjax.analysis.data import compare, describe, tokens
from natjax.cli import main
from natjax.data.corpus import read_parallel
from natjax.errors import DataError

SOURCES = ["a dog barks .", "a cat sleeps .", "a dog sleeps .", "a cat barks .", "", "OK"]
TARGETS = ["ein Hund bellt .", "eine Katze schläft .", "ein Hund schläft .", "eine Katze bellt bellt .", "", "OK"]


def test_counts_by_hand():
    report = describe(SOURCES, TARGETS)
    assert (report.pairs, report.aligned_pairs) == (6, 5)
    assert (report.target_tokens, report.target_types) == (18, 8)
    assert report.type_token_ratio == 8 / 18
    assert report.length_ratio == 18 / 17
    assert report.copied_percent == pytest.approx(100 / 6)  # the empty pair is none
    assert report.repeated_percent == pytest.approx(100 / 18)
    assert 0 < report.conditional_entropy < 0.7
    assert report.monotonicity > 0.9


def test_more_ways_to_translate_have_more_entropy():
    one = [f"x{i % 7} y{i % 5} z{i % 3}" for i in range(210)]
    two = [f"x{i % 7} y{i % 5}{'ab'[i // 105]} z{i % 3}" for i in range(210)]
    source = [f"a{i % 7} b{i % 5} c{i % 3}" for i in range(210)]
    assert describe(source, one).conditional_entropy == 0
    assert describe(source, two).conditional_entropy > 0.1


def test_unspaced_scripts_count_by_character():
    assert tokens("犬が bellt ②x-y กา") == ["犬", "が", "bellt", "②x", "-", "y", "ก", "า"]


def test_large_corpora_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr(data, "MAX_PAIRS", 10)
    aligned = []
    monkeypatch.setattr(data, "align", lambda sources, targets: aligned.extend(sources) or align([], []))
    report = describe(["w " * i for i in range(1, 101)], ["x"] * 100)
    assert report.aligned_pairs == 10
    assert list(map(len, aligned)) == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]


def test_two_targets_are_compared_on_the_same_sentences(monkeypatch):
    other = ["eine Katze schläft .", *TARGETS[1:4], "bleibt leer", ""]
    one, two = compare(lambda: zip(SOURCES, TARGETS, other))
    assert (one.pairs, one.aligned_pairs) == (two.pairs, two.aligned_pairs) == (6, 4)
    assert one.conditional_entropy == describe(SOURCES[:4], TARGETS[:4]).conditional_entropy
    assert two.conditional_entropy == describe(SOURCES[:4], other[:4]).conditional_entropy
    assert (one.target_tokens, two.target_tokens) == (18, 19)
    monkeypatch.setattr(data, "MAX_PAIRS", 2)
    aligned = []
    monkeypatch.setattr(
        data, "align", lambda *sides: aligned.append([list(map(len, s)) for s in sides]) or align([], [])
    )
    compare(lambda: zip(SOURCES, TARGETS, other))
    assert aligned == [[[4, 4], [4, 5]], [[4, 4], [4, 5]]]  # the first and the last with three sides
    with pytest.raises(DataError, match="without a line"):
        compare(lambda: [])


def test_sides_of_different_length_and_none():
    for sides in ((["a"], []), ([], [])):
        with pytest.raises(DataError, match="a target for each"):
            describe(*sides)
    report = describe([""], ["x"])
    assert (report.conditional_entropy, report.length_ratio) == (None, None)


@pytest.fixture
def files(tmp_path):
    names = {"source": SOURCES, "target": TARGETS, "other": ["ein Hund .", *TARGETS[1:]]}
    for name, lines in names.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {name: str(tmp_path / name) for name in names}


def test_the_verb(files, capsys):
    command = ["analyze", "data", "--source", files["source"], "--target", files["target"]]
    assert main([*command, "--other-target", files["other"], "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert reports["target"] == describe(SOURCES, TARGETS).as_dict()
    assert reports["other_target"]["target_tokens"] == 17
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "conditional entropy" in out
    assert "18" in out
    Path(files["other"]).write_text("one line\n")
    assert main([*command, "--other-target", files["other"]]) == 2
    assert "other has 1;" in capsys.readouterr().err


def test_a_real_corpus_takes_seconds(corpora):
    sides = read_parallel(corpora / "multi30k" / "train.en", corpora / "multi30k" / "train.de")
    start = time.process_time()
    report = describe(*sides)
    assert time.process_time() - start < 40
    assert report.aligned_pairs > 28_000
    assert 1 < report.conditional_entropy < 1.6
    assert 0.6 < report.monotonicity < 0.9
