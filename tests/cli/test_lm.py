"""natjax lm as a person calls it."""

import dataclasses
import io
import json
import shutil
import sys

import numpy as np
import pytest
import tiny

from natjax.cli import main
from natjax.config import to_json
from natjax.data.corpus import normalise
from natjax.data.prepare import open_prepared, prepare
from natjax.data.vocab import Vocabularies
from natjax.lm import estimate, load_tables, read_arpa, stream

LINES = ["Der alte Bauer verkauft das Pferd.", "", "Ja ☃", "Das Kind füttert  den Hund.\u00a0"]
TEXT = "".join(f"{line}\n" for line in LINES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workdir as training begins it: no weights are needed here."""
    folder = tmp_path_factory.mktemp("model") / "run"
    prepare(tiny.small(), folder / "store", lambda line: None)
    Vocabularies.load(folder / "store").save(folder)
    (folder / "config.json").write_text(to_json(tiny.small()))
    return folder


@pytest.fixture
def model(prepared):
    """The same, without what other tests have added."""
    before = sorted(prepared.iterdir())
    yield prepared
    shutil.rmtree(prepared / "lm", ignore_errors=True)
    assert sorted(prepared.iterdir()) == before


def lm(*words):
    return main(["lm", *map(str, words)])


def mistake(capsys, *words) -> str:
    assert lm(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    return err


def query(monkeypatch, capsys, *words, text=TEXT):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode() if isinstance(text, str) else text)))
    code = lm("query", *words)
    out, err = capsys.readouterr()
    return code, [line.split("\t") for line in out.splitlines()], err


def test_the_model_s_own_targets(model, tmp_path, capsys, monkeypatch):
    assert lm("train", "--model", model, "--order", 3, "--arpa", tmp_path / "lm.arpa") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "validation targets: perplexity" in err
    store, vocabularies = open_prepared(tiny.small(), model / "store")
    vocabulary, split = vocabularies.target, store.split("train")
    rows = [split.target(i).tolist() for i in range(split.rows)]
    text = stream(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
    expected, _ = estimate(text, order=3, vocabulary_size=len(vocabulary))
    found = read_arpa(tmp_path / "lm.arpa", vocabulary.pieces(range(len(vocabulary))))
    assert found.counts == expected.counts
    np.testing.assert_array_equal(found.levels[1].log_probs, expected.levels[1].log_probs)
    metadata = json.loads((model / "lm" / "metadata.json").read_text())
    assert (metadata["order"], metadata["store"], metadata["prune"]) == (3, store.fingerprint, [])
    assert metadata["sentences"] == split.rows
    assert str(f"{metadata['valid']['perplexity']:,.2f}") in err

    code, columns, err = query(monkeypatch, capsys, "--model", model)
    assert code == 0
    pieces = vocabulary.encode([normalise(line) for line in LINES])
    total = 0.0
    for row, (log_prob, tokens, unknown) in zip(pieces, columns, strict=True):
        scores = expected.score(stream(np.array(row, np.int32), np.array([0, len(row)])))
        assert float(log_prob) == pytest.approx(scores.sum(), abs=1e-4)
        assert int(tokens) == len(row) + 1
        assert int(unknown) == int((expected.aliases[np.array(row, int)] == 3).sum())
        total += scores.sum()
    assert int(columns[2][2]) >= 1
    everything = sum(len(row) + 1 for row in pieces)
    assert f"perplexity {np.exp(-total / everything):,.2f} over {everything} tokens in 4 sentences" in err


def test_other_text_and_another_folder(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.de").write_text(TEXT)
    words = "train", "--model", model, "--text", tmp_path / "text.de", "--prune", 0, 0, 1, "--output", tmp_path / "a/lm"
    assert lm(*words) == 0
    assert "3 sentences" in capsys.readouterr().err  # the empty line is none
    assert not (model / "lm").exists()
    metadata = json.loads((tmp_path / "a/lm/metadata.json").read_text())
    assert (metadata["order"], metadata["prune"], metadata["counts"][3]) == (4, [0, 0, 1], 0)
    assert lm(*words) == 0  # replaces it
    capsys.readouterr()
    assert query(monkeypatch, capsys, "--model", model, "--lm", tmp_path / "a/lm")[0] == 0


def test_a_text_gives_what_the_store_of_it_gives(model, tmp_path, monkeypatch):
    monkeypatch.setattr("natjax.cli.lm_train._LINES", 7)
    store, vocabularies = open_prepared(tiny.small(), model / "store")
    split = store.split("train")
    lines = vocabularies.target.decode(split.target(i) for i in range(split.rows))
    (tmp_path / "text.de").write_text("".join(f"{line}\n" for line in lines))
    found = []
    for more in ((), ("--text", tmp_path / "text.de")):
        assert lm("train", "--model", model, "--order", 2, *more) == 0
        found.append(load_tables(model / "lm", vocabulary=vocabularies.target.fingerprint).log_probs)
    np.testing.assert_array_equal(*found)


def test_imported(model, tmp_path, capsys, monkeypatch):
    assert (
        lm("train", "--model", model, "--order", 3, "--arpa", tmp_path / "lm.arpa.gz", "--output", tmp_path / "a") == 0
    )
    assert lm("import", "--model", model, "--arpa", tmp_path / "lm.arpa.gz") == 0
    capsys.readouterr()
    one = query(monkeypatch, capsys, "--model", model)
    assert one == query(monkeypatch, capsys, "--model", model, "--lm", tmp_path / "a")
    assert one[0] == 0
    assert len(one[1]) == len(LINES)


def test_mistakes_of_train(model, tmp_path, capsys):
    train = "train", "--model", model
    assert "order 9: must be from 2 to 6" in mistake(capsys, *train, "--order", 9)
    assert "prune 1: give one threshold" in mistake(capsys, *train, "--prune", 1)
    assert "invalid int value" in mistake(capsys, *train, "--prune", "x")
    assert "cannot be read" in mistake(capsys, *train, "--text", tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n \n")
    assert "holds no text" in mistake(capsys, *train, "--text", tmp_path / "empty")
    assert "there is no such folder" in mistake(capsys, *train, "--arpa", tmp_path / "no" / "lm.arpa")
    assert "vocab.model: cannot be read" in mistake(capsys, "train", "--model", tmp_path)
    assert "'empty', which is no part of a language model" in mistake(capsys, *train, "--output", tmp_path)
    (model / "store").rename(model / "elsewhere")
    try:
        assert "run natjax prepare, or give the text with --text" in mistake(capsys, *train)
    finally:
        (model / "elsewhere").rename(model / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_mistakes_of_import(model, tmp_path, capsys):
    file = tmp_path / "lm.arpa"
    words = "import", "--model", model, "--arpa", file
    file.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    assert "a KenLM binary" in mistake(capsys, *words)
    file.write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n0\t<s>\n-1\t</s>\n-1\tnotapiece\n\n\\end\\\n")
    assert f"{file}:7: 'notapiece' is no piece of the model's vocabulary" in mistake(capsys, *words)


def test_mistakes_of_query(model, tmp_path, capsys, monkeypatch):
    code, lines, err = query(monkeypatch, capsys, "--model", model)
    assert (code, lines) == (2, [])
    assert "no language model there" in err
    (tmp_path / "text").write_text("Ja\n")
    assert lm("train", "--model", model, "--text", tmp_path / "text") == 0
    capsys.readouterr()
    code, lines, err = query(monkeypatch, capsys, "--model", model, text=b"Ja\n\xff\nNein\n")
    assert (code, len(lines)) == (2, 1)
    assert "stdin:2: not UTF-8" in err
    monkeypatch.setattr(sys, "stdin", None)
    assert "stdin is closed" in mistake(capsys, "query", "--model", model)


def test_another_model_s(model, tmp_path, capsys, monkeypatch):
    other = dataclasses.replace(tiny.small(), vocab=dataclasses.replace(tiny.small().vocab, size=200))
    prepare(other, tmp_path / "store", lambda line: None)
    Vocabularies.load(tmp_path / "store").save(tmp_path)
    (tmp_path / "text").write_text("Ja\n")
    assert lm("train", "--model", tmp_path, "--text", tmp_path / "text") == 0
    capsys.readouterr()
    code, _, err = query(monkeypatch, capsys, "--model", model, "--lm", tmp_path / "lm")
    assert code == 2
    assert "of another vocabulary than this model's" in err


@pytest.mark.parametrize("what", ["train", "import", "query"])
def test_help(what, capsys):
    with pytest.raises(SystemExit):
        lm(what, "--help")
    assert f"natjax lm {what} --model" in capsys.readouterr().out
