"""The way that docs/decoding.md shows: lm train, tune, translate; and benchmarks/system.py on the same workdir."""

import dataclasses
import importlib.util
import io
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny

from natjax import ctc, models, objectives
from natjax.cli import main
from natjax.config import to_json
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.lm import load_tables
from natjax.training import checkpoint
from natjax.translator import Translator

ALPHA, BETA, BEAM, TOP_K = 0.5, 1.0, 4, 8
LINES = ["The old farmer sells the horse.", "The king sleeps.", "I know that the girl reads the newspaper."]


def student():
    config = tiny.config(latents="vae", latent_width=3, posterior_layers=1)
    decoding = dataclasses.replace(
        config.decoding, ctc_beam_size=BEAM, ctc_top_k=TOP_K, npd_samples=3, npd_temperature=3.0
    )
    return dataclasses.replace(config, decoding=decoding)


def saved(folder, config, vocabularies, seed):
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, seed))
    if config.model.kind == "nat":  # no frame asks for what is no text
        params["output_bias"] = params["output_bias"].at[jnp.array([1, 2, 3])].set(-1000.0)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    vocabularies.save(folder)
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": jax.device_get(params)}, {})
    return network, params


def by_hand(network, params, vocabularies, line, tables, alpha, beta):
    """The best text of one line: the model's logits, and `ctc.beam_search` in them."""
    objective = objectives.build(student())
    ids = jnp.array([[*vocabularies.source.encode([line])[0], 2]])
    lengths = jnp.array([ids.shape[1]])

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    frames = objective.frames(lengths, lengths)
    head = apply("predict", apply("encode", ids, lengths), lengths, frames, int(frames[0]), None, 0.0)
    logits = head.hidden @ head.kernel + head.bias[None, None]
    weights = {"lm": tables, "lm_weight": alpha} if alpha else {}
    found = ctc.beam_search(logits, frames, beam_size=BEAM, top_k=TOP_K, length_bonus=beta, **weights)
    return vocabularies.target.decode([found.tokens[0, 0, : int(found.lengths[0, 0])].tolist()])[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workdir with a language model, tuned; its teacher; and what a search by hand gives."""
    root = tmp_path_factory.mktemp("search")
    config = student()
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network, params = saved(root / "W", config, vocabularies, 0)
    autoregressive = tiny.config(kind="autoregressive", decoder_layers=1)
    objective = dataclasses.replace(autoregressive.objective, loss="ce", target_eos=True)
    saved(root / "W" / "teacher", dataclasses.replace(autoregressive, objective=objective), vocabularies, 1)
    (root / "text").write_text("".join(f"{line}\n" for line in targets[:300]))
    assert main(["lm", "train", "--model", str(root / "W"), "--text", str(root / "text"), "--order", "3"]) == 0
    tables = jax.device_put(load_tables(root / "W" / "lm", vocabulary=vocabularies.target.fingerprint))
    expected = {
        a: [by_hand(network, params, vocabularies, line, tables, a, BETA) for line in LINES] for a in (0, ALPHA)
    }
    for name, lines in (("source", LINES), ("reference", expected[ALPHA])):
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    words = ["tune", "--model", str(root / "W"), "--source", str(root / "source"), "--reference"]
    assert main([*words, str(root / "reference"), "--alphas", f"0,{ALPHA}", "--betas", f"0,{BETA}"]) == 0
    return root, expected


def translated(monkeypatch, capsys, root, *words):
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(f"{x}\n" for x in LINES).encode())))
    code = main(["translate", "--model", str(root / "W"), *words])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_what_was_tuned_is_what_translating_does(world, monkeypatch, capsys):
    root, expected = world
    stored = json.loads((root / "W" / "decoding.json").read_text())
    assert (stored["lm_weight"], stored["length_bonus"], stored["ctc_beam_size"]) == (ALPHA, BETA, BEAM)
    assert stored["about"]["bleu"] == pytest.approx(100) and "lm" not in stored  # it is where it is looked for
    assert expected[0] != expected[ALPHA]
    assert translated(monkeypatch, capsys, root, "--decode", "beam") == (0, expected[ALPHA], "")
    assert translated(monkeypatch, capsys, root, "--decode", "beam", "--decoding.lm-weight", "0")[1] == expected[0]


def test_of_n_translations_there_are_n_of_each_score(world, monkeypatch, capsys):
    names = ("n_best", "n_best_scores", "n_best_ctc_scores", "n_best_lm_scores")
    command = "--decode", "beam", "--json"
    every, two = (
        [json.loads(line) for line in translated(monkeypatch, capsys, world[0], *command, *more)[1]]
        for more in ((), ("--n-best", "2"))
    )
    assert len(every) == len(LINES) and any(len(one["n_best"]) > 2 for one in every)
    for whole, cut in zip(every, two, strict=True):
        assert all(len(whole[name]) == len(whole["n_best"]) for name in names)
        assert all(cut[name] == whole[name][:2] for name in names)


def test_several_tries_are_each_searched_with_the_language_model(world, monkeypatch, capsys):
    root, expected = world
    found = []
    for more in ((), ("--decoding.lm-weight", "0")):
        code, lines, err = translated(monkeypatch, capsys, root, "--decode", "npd+beam", "--json", *more)
        assert (code, err) == (0, "")
        found.append([set(json.loads(line)["n_best"]) for line in lines])
    for alpha, tries in zip((ALPHA, 0), found, strict=True):  # the prior's mean is one of them
        assert all(text in some for text, some in zip(expected[alpha], tries, strict=True))
    assert found[0] != found[1] and max(map(len, found[0])) > 1


def test_a_language_model_of_another_vocabulary_or_another_one(world, monkeypatch, capsys, tmp_path):
    root, _ = world
    config = dataclasses.replace(student(), vocab=dataclasses.replace(student().vocab, size=200))
    (sources, targets), _ = read_corpus(config)
    saved(tmp_path / "other", config, train_vocabularies((sources[:300], targets[:300]), config), 0)
    train = ["lm", "train", "--text", str(root / "text"), "--order", "2", "--model"]
    assert main([*train, str(tmp_path / "other")]) == 0
    assert main([*train, str(root / "W"), "--output", str(tmp_path / "bigrams")]) == 0
    words = "--decode", "beam", "--decoding.lm"
    code, lines, err = translated(monkeypatch, capsys, root, *words, str(tmp_path / "other" / "lm"))
    assert (code, lines) == (2, []) and len(err.splitlines()) == 1
    assert "a language model of another vocabulary than this model's" in err
    code, _, err = translated(monkeypatch, capsys, root, *words, str(tmp_path / "bigrams"))
    assert code == 0 and "decoding.lm_weight was tuned with another language model; run `natjax tune` again" in err


def test_a_system_s_record_says_what_has_run(world, monkeypatch, capsys, tmp_path):
    root, expected = world
    file = Path(__file__).parents[2] / "benchmarks" / "system.py"
    spec = importlib.util.spec_from_file_location("system_benchmark", file)
    system = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(system)
    monkeypatch.setattr(system, "RESULTS", tmp_path)
    trained = []

    def train(config, workdir, watch):
        trained.append(config)
        return {"bleu": 1.0, "weights": "average-best"}

    monkeypatch.setattr("natjax.training.loop.train", train)
    monkeypatch.setattr("natjax.data.validation.embedded_text", lambda *_: (LINES, [[x] for x in expected[ALPHA]]))
    monkeypatch.setattr("natjax.data.grammar.exactly_valid", lambda *_: False)  # of no sentence of that grammar
    (root / "W" / "metrics.jsonl").write_text("")
    (tmp_path / "tiny.py").write_text("import tiny\n\n\ndef get_config():\n    return tiny.config()\n")
    words = [str(tmp_path / "tiny.py"), "--name", "a", "--workdir", str(root / "W"), "--training.steps", "7",
             "--hypotheses", str(tmp_path / "hypotheses"), "--latency-sentences", "2", "--decode"]  # fmt: skip
    records = {}
    for alpha, way, more in ((ALPHA, "beam", []), (0, "beam", ["--decoding.lm-weight", "0"]), (None, "npd", [])):
        monkeypatch.setattr(sys, "argv", ["system.py", *words, way, *more])
        system.main()
        records[alpha] = json.loads((tmp_path / "a.json").read_text())
        if alpha is not None:
            assert (tmp_path / "hypotheses").read_text().splitlines() == expected[alpha]
    assert all(config.training.steps == 7 and config.decoding.lm_weight == 0 for config in trained)
    tuned, without, npd = (records[alpha]["extra"] for alpha in (ALPHA, 0, None))
    assert records[ALPHA]["metrics"]["bleu"] > 99 > records[0]["metrics"]["bleu"]
    assert (tuned["decode"], tuned["decoding"]["lm_weight"], tuned["decoding"]["length_bonus"]) == ("beam", ALPHA, BETA)
    assert (without["decoding"]["lm_weight"], without["decoding"]["length_bonus"]) == (0, BETA)
    about = json.loads((root / "W" / "decoding.json").read_text())["about"]
    assert tuned["lm_fingerprint"] == about["lm"] and without["lm_fingerprint"] is None
    assert tuned["teacher"] is None and set(npd["teacher"]) >= {"weights_sha256", "config_sha256"}
    assert npd["lm_fingerprint"] is None and npd["decode"] == "npd"
    assert "decoding" not in tuned["train_command"]
    metrics = records[ALPHA]["metrics"]
    assert metrics["batch1_sentences"] == 2 and metrics["batch1_ms"] > 0
    with pytest.raises(SystemExit):
        system.arguments([*words, "beam", "--decoding.lm_weight", "0"])
    assert "--decoding.lm_weight" in capsys.readouterr().err


def test_translators_of_a_workdir_are_loaded_with_its_language_model(world):
    root, expected = world
    assert Translator.load(root / "W", decode="beam").translate(LINES) == expected[ALPHA]
