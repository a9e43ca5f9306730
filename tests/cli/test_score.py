"""natjax score as a person calls it."""

import json

import jax
import pytest
import tiny

from natjax import models
from natjax.cli import main
from natjax.config import to_json
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.training import checkpoint
from natjax.translator import Translator

SOURCES = ["The old farmer sells the horse.", "Ja", ""]
TARGETS = ["Der Bauer.", "Der alte Bauer verkauft heute das Pferd.", ""]  # the second has too few frames


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (sources, targets), _ = read_corpus(tiny.config())
    vocabularies = train_vocabularies((sources[:300], targets[:300]), tiny.config())
    network = models.build(tiny.config(), len(vocabularies.source), len(vocabularies.target))
    (folder / "config.json").write_text(to_json(tiny.config()))
    vocabularies.save(folder)
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": jax.device_get(models.init(network, 0))}, {})
    (folder / "source").write_text("".join(f"{line}\n" for line in SOURCES))
    (folder / "target").write_text("".join(f"{line}\n" for line in TARGETS))
    return folder


def command(model, *more, target="target"):
    return ["score", "--model", str(model), "--source", str(model / "source"), "--target", str(model / target), *more]


def test_one_line_a_pair(model, capsys):
    expected = Translator.load(model).score(SOURCES, TARGETS)
    assert main(command(model)) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(float(a), float(b), int(c)) for a, b, c in rows] == [pytest.approx(s, abs=1e-6) for s in expected]
    assert rows[1][0] == "-inf"
    assert rows[2][2] == "0"


def test_json(model, capsys):
    expected = Translator.load(model).score(SOURCES, TARGETS)
    assert main(command(model, "--json")) == 0
    found = [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines()]
    assert found[0] == expected[0]._asdict()
    assert found[1] == {"sum": None, "mean": None, "tokens": expected[1].tokens}


def test_mistakes(model, capsys):
    (model / "short").write_text("Ja\n")
    for target, message in (("short", "has 3 lines but"), ("nowhere", "cannot be read")):
        assert main(command(model, target=target)) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert message in err
    (model / "source").write_text("x\n" + "The old farmer sells the horse. " * 20 + "\n\n")
    try:
        assert main(command(model)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("natjax: line 2: a source of ")
    finally:
        (model / "source").write_text("".join(f"{line}\n" for line in SOURCES))
