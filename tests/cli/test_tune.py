"""natjax tune as a person calls it."""

import dataclasses
import json

import jax
import pytest
import tiny

from natjax import models, tuning
from natjax.cli import main
from natjax.config import to_json
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.evaluation.metrics import score
from natjax.training import checkpoint

LINES = ["The old farmer sells the horse.", "The king sleeps.", "I know that the girl reads the newspaper."]


@pytest.fixture(scope="module")
def vocabularies():
    (sources, targets), _ = read_corpus(tiny.config())
    return train_vocabularies((sources[:300], targets[:300]), tiny.config())


def saved(folder, config, vocabularies):
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    (folder / "config.json").write_text(to_json(config))
    vocabularies.save(folder)
    params = jax.device_get(models.init(network, 0))
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": params}, {})
    for name in ("source", "reference"):
        (folder / name).write_text("".join(f"{line}\n" for line in LINES))
    return folder


@pytest.fixture
def model(tmp_path, vocabularies):
    return saved(tmp_path, tiny.config(), vocabularies)


def command(model, *more):
    return ["tune", "--model", str(model), "--source", str(model / "source"), "--reference", str(model / "reference"),
            *more]  # fmt: skip


def test_it_tries_prints_and_stores(model, capsys):
    words = command(
        model, "--betas", "0,2", "--beams", "2,4", "--search", "grid", "--json", "--plot", str(model / "p.png")
    )
    assert main(words) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert len(told["points"]) == 4 and told["best"] in told["points"]
    assert told["best"]["bleu"] == max(point["bleu"] for point in told["points"])
    assert "no language model, so alpha stays 0" in err
    assert err.count("beam 2") == err.count("beam 4") == 2
    stored = json.loads((model / "decoding.json").read_text())
    about = stored.pop("about")
    weights = {name: told["best"][name] for name in ("ctc_beam_size", "lm_weight", "length_bonus")}
    assert stored == {**weights, "ctc_top_k": 20, "length_bonus_form": "linear", "score_eos": False}
    assert about == {
        "lm": None, "bleu": told["best"]["bleu"], "bleu_signature": told["signature"], "sentences": 3,
        "source": str(model / "source"), "reference": str(model / "reference"),
    }  # fmt: skip
    assert (model / "p.png").exists() or "natjax[plot]" in err


class Known:
    """Scores of points that are known beforehand, in place of those of translations."""

    programs, tried = 0, []

    def __init__(self, *_, **__):
        type(self).tried = []

    def score(self, point):
        self.tried.append(point)
        bleu = 30 - abs(point.length_bonus - 1) - abs(point.ctc_beam_size - 4) / 10
        return tuning.Tried(point, dataclasses.replace(score(["a"], [["a"]]), bleu=bleu))


@pytest.mark.parametrize("search", ["grid", "coordinates"])
def test_the_best_point_is_shown_starred_and_stored(model, capsys, monkeypatch, search):
    monkeypatch.setattr(tuning, "Tuner", Known)
    words = command(model, "--betas=-1,0,1,2", "--beams", "2,4,8", "--search", search)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("*") == 2 and "30.00*" in out and "BLEU with beam 4; * the best" in out
    assert out.splitlines()[-1].startswith("beam 4  alpha 0  beta 1  BLEU 30.00")
    stored = json.loads((model / "decoding.json").read_text())
    assert (stored["ctc_beam_size"], stored["lm_weight"], stored["length_bonus"]) == (4, 0.0, 1.0)
    assert stored["about"]["bleu"] == 30.0
    if search == "coordinates":  # from what the config says, nearest to 20 and 0
        assert Known.tried[0] == tuning.Point(8, 0.0, 0.0)
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["best"]["ctc_beam_size"], told["best"]["length_bonus"], told["best"]["bleu"]) == (4, 1.0, 30.0)


def test_of_equals_the_first_wins(model, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "Tuner", Known)
    assert main(command(model, "--betas", "2,0", "--beams", "4", "--search", "grid")) == 0
    assert json.loads((model / "decoding.json").read_text())["length_bonus"] == 2.0
    capsys.readouterr()


def test_fields_of_the_search(model, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "Tuner", Known)
    fields = ["--decoding.length-bonus-form", "log", "--decoding.ctc-top-k", "9"]
    assert main(command(model, *fields)) == 0
    stored = json.loads((model / "decoding.json").read_text())
    assert (stored["length_bonus_form"], stored["ctc_top_k"]) == ("log", 9)
    capsys.readouterr()
    for more, message in (
        (["--decoding.blank-penalty", "1"], "decoding by beam sums over the alignments"),
        (["--decoding.npd-samples", "2"], "which has no latents to draw; leave decoding.npd_samples out"),
        (["--decoding.score-eos"], "decoding.score_eos needs a language model; name one with --lm"),
        (["--decoding.lm-weight", "1"], "unknown argument '--decoding.lm-weight'"),
    ):
        assert main(command(model, *more)) == 2, more
        out, err = capsys.readouterr()
        assert out == "" and message in err, err


def test_a_dry_run_stores_nothing_and_a_table_is_for_people(model, capsys):
    assert main(command(model, "--betas", "0,1.5", "--limit", "2", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "alpha \\ beta" in out and "1.5" in out and "*" in out
    assert not (model / "decoding.json").exists()


def test_mistakes(model, vocabularies, capsys):
    (model / "short").write_text("Ja\n")
    (model / "empty").write_text("")
    for more, message in (
        (["--alphas", "0,x"], "argument --alphas: invalid list such as 0,1,2 value: '0,x'"),
        (["--alphas", "-1"], "--alphas: give numbers from 0 to 100"),
        (["--betas", "1,1"], "invalid list"),
        (["--beams", "0"], "--beams: give numbers from 1 to 1,024"),
        (["--limit", "0"], "--limit 0"),
        (["--plot", "x.jpg"], "ends in .png"),
        (["--plot", str(model / "nowhere" / "x.png")], "its folder does not exist"),
        (["--lm", str(model / "nowhere")], "nowhere: no language model there; make one with `natjax lm train --model"),
        (["--reference", str(model / "short")], "lines"),
        (["--tokenize", "x"], "x"),
        (["--source", str(model / "empty"), "--reference", str(model / "empty")], "has no lines"),
        (["--model", str(model / "nowhere")], "not a workdir"),
    ):
        assert main(command(model, *more)) == 2, more
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and message in err, err
        assert "decoding.lm_weight" not in err
    assert not (model / "decoding.json").exists()


def test_models_without_frames_to_search(tmp_path, vocabularies, capsys):
    config = tiny.config()
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss="axe"))
    assert main(command(saved(tmp_path, config, vocabularies))) == 2
    assert "trained with axe, which has no frames to search" in capsys.readouterr().err


def test_a_search_wider_than_the_vocabulary(tmp_path, vocabularies, capsys):
    config = tiny.config()
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, ctc_top_k=900))
    assert main(command(saved(tmp_path, config, vocabularies))) == 2
    out, err = capsys.readouterr()
    assert out == "" and "decoding.ctc_top_k: must be at most" in err and "Traceback" not in err
    assert not (tmp_path / "decoding.json").exists()
