"""natjax tune as a person calls it."""

import json

import jax
import pytest
import tiny

from natjax import models
from natjax.cli import main
from natjax.config import to_json
from natjax.data.prepare import read_corpus, train_vocabularies
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
    assert stored == {name: told["best"][name] for name in ("ctc_beam_size", "lm_weight", "length_bonus")}
    assert (model / "p.png").exists() or "natjax[plot]" in err


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
        (["--lm", str(model / "nowhere")], "nowhere: no language model"),
        (["--reference", str(model / "short")], "lines"),
        (["--tokenize", "x"], "x"),
        (["--source", str(model / "empty"), "--reference", str(model / "empty")], "has no lines"),
        (["--model", str(model / "nowhere")], "not a workdir"),
    ):
        assert main(command(model, *more)) == 2, more
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and message in err, err
    assert not (model / "decoding.json").exists()


def test_models_without_frames_to_search(tmp_path, vocabularies, capsys):
    import dataclasses

    config = tiny.config()
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss="axe"))
    assert main(command(saved(tmp_path, config, vocabularies))) == 2
    assert "trained with axe, which has no frames to search" in capsys.readouterr().err


def test_a_search_wider_than_the_vocabulary(tmp_path, vocabularies, capsys):
    import dataclasses

    config = tiny.config()
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, ctc_top_k=900))
    assert main(command(saved(tmp_path, config, vocabularies))) == 2
    out, err = capsys.readouterr()
    assert out == "" and "decoding.ctc_top_k: must be at most" in err and "Traceback" not in err
    assert not (tmp_path / "decoding.json").exists()
