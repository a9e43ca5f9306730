"""natjax translate --n-best and --prefix."""

import dataclasses
import io
import json
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

LINES = ["The old farmer sells the horse.", "", "The king sleeps."]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The workdir of an autoregressive model that was never trained, with a beam of 3."""
    config = tiny.config(kind="autoregressive", decoder_layers=1)
    config = dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, loss="ce", target_eos=True),
        decoding=dataclasses.replace(config.decoding, beam_size=3, max_length_ratio=0.5),
    )
    return workdir(tmp_path_factory.mktemp("teacher"), config)


def workdir(folder, config):
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    (folder / "config.json").write_text(to_json(config))
    vocabularies.save(folder)
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": params}, {})
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """(exit code, lines of stdout, lines of stderr) of a call that is given lines."""

    def run(lines, model, *options):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(f"{x}\n" for x in lines).encode())))
        code = main(["translate", "--model", str(model), *map(str, options)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_n_best_are_numbered_lines_with_scores(teacher, run, monkeypatch):
    monkeypatch.setattr(translate, "BLOCK", 2)  # numbers go on over blocks
    details = Translator.load(teacher).translate_with_details(LINES)
    expected = [
        f"{number}\t{score:.6f}\t{text}"
        for number, detail in enumerate(details, 1)
        for text, score in [*zip(detail.n_best, detail.n_best_scores, strict=True)][:2]
    ]
    assert [row.split("\t")[0] for row in expected] == ["1", "1", "2", "3", "3"]
    assert expected[2] == "2\t0.000000\t"
    assert run(LINES, teacher, "--n-best", 2) == (0, expected, [])
    code, rows, _ = run(LINES, teacher, "--n-best", 2, "--json")
    found = [json.loads(row) for row in rows]
    assert code == 0 and len(found) == 3
    for one, detail in zip(found, details, strict=True):
        assert (one["text"], one["n_best"]) == (detail.text, detail.n_best[:2])
        assert one["n_best_scores"] == pytest.approx(detail.n_best_scores[:2])
    assert len(json.loads(run(LINES, teacher, "--json")[1][0])["n_best"]) == 3


@pytest.mark.parametrize(("options", "most"), [((), 3), (("--decode", "greedy"), 1), (("--decoding.beam-size", 2), 2)])
def test_more_than_the_search_gives_is_refused(teacher, run, options, most):
    assert run(LINES, teacher, "--n-best", most, *options)[0] == 0
    for number in (0, most + 1):
        code, out, err = run(LINES, teacher, "--n-best", number, *options)
        assert (code, out, len(err)) == (2, [], 1)
        assert f"--n-best {number}: must be from 1 to {most}" in err[0]


def test_prefixes_are_forced_line_by_line(teacher, run, monkeypatch, tmp_path):
    monkeypatch.setattr(translate, "BLOCK", 2)
    file, prefixes = tmp_path / "begin.de", ["Das", "Die", "Der König"]
    file.write_text("".join(f"{p}\n" for p in prefixes))
    expected = Translator.load(teacher).translate(LINES, prefixes=prefixes)
    assert [text[:3] for text in expected] == ["Das", "", "Der"]
    assert run(LINES, teacher, "--prefix", file) == (0, expected, [])
    code, rows, _ = run(LINES, teacher, "--prefix", file, "--n-best", 3)
    texts = [row.split("\t")[2] for row in rows]
    assert code == 0 and all(text.startswith("Das") for text in texts[:3])
    code, rows, _ = run(LINES, teacher, "--prefix", file, "--json")
    assert code == 0 and [json.loads(row)["text"] for row in rows] == expected


def test_prefixes_that_cannot_be_used(teacher, run, monkeypatch, tmp_path):
    monkeypatch.setattr(translate, "BLOCK", 2)
    file = tmp_path / "begin.de"

    def refused(text, model=teacher):
        if text is not None:
            file.write_text(text)
        code, _, err = run(LINES, model, "--prefix", file)
        assert (code, len(err)) == (2, 1)
        return err[0]

    assert "begin.de: cannot be read" in refused(None)
    assert "begin.de: has 2 lines, but stdin has more" in refused("Das\n\n")
    assert "begin.de: has 4 lines, but stdin only 3" in refused("\n\n\n\n")
    assert "begin.de:3: a prefix of " in refused("Das\n\n" + "Der König schläft. " * 20 + "\n")
    (tmp_path / "nat").mkdir()
    assert "non-autoregressive" in refused("\n\n\n", workdir(tmp_path / "nat", tiny.config()))
