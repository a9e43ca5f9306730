"""Exported models in CTranslate2 itself: the same log-probabilities token by token; folders that explain themselves."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import plain_transformer
import pytest
import tiny

from natjax import models
from natjax.cli import main
from natjax.config import to_json
from natjax.data.corpus import normalise
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.errors import UserError
from natjax.export.ctranslate2 import QUANTIZATIONS, save
from natjax.training import checkpoint
from natjax.translator import Translator

ctranslate2 = pytest.importorskip("ctranslate2", reason="CTranslate2 is not installed (extra: peers)")

SOURCES = ["The old farmer sells the horse.", "The king sleeps.", "I know."]
TARGETS = ["Der König schläft.", "Das Pferd", "Ich weiß, dass er heute kommt."]


def autoregressive(**model):
    made = tiny.config(kind="autoregressive", **{"max_positions": 96, **model})
    made = dataclasses.replace(made, vocab=dataclasses.replace(made.vocab, joint=made.model.share_embeddings))
    return dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss="ce", target_eos=True))


@pytest.fixture(scope="module")
def vocabularies():
    (sources, targets), _ = read_corpus(tiny.config())
    half = dataclasses.replace(tiny.config().vocab, size=260)
    apart = dataclasses.replace(tiny.config(), vocab=dataclasses.replace(half, joint=False))
    text = sources[:300], targets[:300]
    return {True: train_vocabularies(text, tiny.config()), False: train_vocabularies(text, apart)}


def build(config, vocabularies):
    """Vocabularies, and parameters of which none is zero or one, so that each has its place to lose."""
    pair = vocabularies[config.vocab.joint]
    network = models.build(config, len(pair.source), len(pair.target))
    params = models.init(network, 0)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noisy = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return pair, jax.tree.unflatten(tree, noisy)


def ids(vocabulary, line, *end):
    return [*vocabulary.encode([normalise(line)])[0], *end]


def peer_scores(folder, vocabularies, sources, targets):
    translator = ctranslate2.Translator(str(folder), intra_threads=1)
    pieces = [
        [vocabulary.pieces(ids(vocabulary, line)) for line in lines]
        for vocabulary, lines in zip(vocabularies, (sources, targets), strict=True)
    ]
    return [np.array(result.log_probs) for result in translator.score_batch(*pieces)]


SIZES = (
    dict(),
    dict(width=24, heads=3, feed_forward=20, encoder_layers=2, decoder_layers=1),
    dict(width=32, heads=1, feed_forward=16, encoder_layers=3, decoder_layers=3),
)
CHOICES = itertools.product(("pre", "post"), ("sinusoidal", "learned"), (True, False), ("gelu", "relu"))


@pytest.mark.parametrize(("number", "choice"), list(enumerate(CHOICES)))
def test_every_kind_of_model_gives_the_same_log_probabilities(tmp_path, vocabularies, number, choice):
    names = ("norm", "positions", "share_embeddings", "activation")
    config = autoregressive(**dict(zip(names, choice, strict=True)), **SIZES[number % 3])
    pair, params = build(config, vocabularies)
    save(tmp_path / "out", config, pair, params)
    found = peer_scores(tmp_path / "out", pair, SOURCES, TARGETS)
    for source, target, theirs in zip(SOURCES, TARGETS, found, strict=True):
        tokens = ids(pair.target, target, 2)
        plain = plain_transformer.log_probs(params, config.model, ids(pair.source, source, 2), tokens)
        assert theirs.shape == (len(tokens),)
        assert np.ptp(plain) > 1  # else a misplaced weight could go unnoticed
        np.testing.assert_allclose(theirs, plain, rtol=0, atol=1e-4)
    if number in (0, 6, 9, 15):  # each choice twice; natjax itself is held to plain numpy in test_scoring.py
        for theirs, ours in zip(found, Translator(config, pair, params).score(SOURCES, TARGETS), strict=True):
            assert theirs.mean() == pytest.approx(ours.mean, abs=1e-4)


@pytest.fixture(scope="module")
def teacher(vocabularies):
    config = autoregressive()
    return config, *build(config, vocabularies)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_quantised_weights_are_smaller_and_near(tmp_path, teacher, quantization):
    config, pair, params = teacher
    save(tmp_path / "whole", config, pair, params)
    save(tmp_path / "out", config, pair, params, quantization=quantization)
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("whole", "out")]
    assert sizes[1] < sizes[0] * 0.8 or quantization == "float32"
    exact, near = (np.concatenate(peer_scores(tmp_path / name, pair, SOURCES, TARGETS)) for name in ("whole", "out"))
    assert np.abs(near - exact).max() < 0.2


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, teacher):
    folder = tmp_path_factory.mktemp("teacher")
    config, pair, params = teacher
    (folder / "config.json").write_text(to_json(config))
    pair.save(folder)
    checkpoint.save(checkpoint.at(folder / "checkpoints", 1), {"params": params}, {})
    return folder


def program(folder):
    """The program in the folder's README.md."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return code


@pytest.mark.parametrize("joint", [True, False])
def test_the_readme_translates(tmp_path, vocabularies, joint):
    config = autoregressive(share_embeddings=joint)
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, beam_size=3, length_penalty=0.3))
    pair, params = build(config, vocabularies)
    params["output_bias"] = params["output_bias"].at[2].add(2.0)  # some are short
    save(tmp_path / "out", config, pair, params)
    odd = ["  I\u00a0 know. ", "I\u2028kn\u00adow.", "\u200eI\u2581know\x00.\r", "I\u0085\x0bknow.\f", "a\u0301\rb"]
    lines = [*SOURCES, "", " ".join(SOURCES * 9), *odd]
    done = subprocess.run(
        [sys.executable, "-c", program(tmp_path / "out")],
        cwd=tmp_path / "out", input="\n".join(lines).encode(), capture_output=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    texts = done.stdout.decode().split("\n")[:-1]
    assert len(texts) == len(lines)
    assert texts[3] == ""
    assert texts[5:9] == [texts[2]] * 4
    peer = ctranslate2.Translator(str(tmp_path / "out"), intra_threads=1)
    pieces = [pair.source.pieces(ids(pair.source, line)) for line in [*SOURCES, odd[-1]]]

    def search(**options):
        return [r.hypotheses[0] for r in peer.translate_batch(pieces, max_decoding_length=80, **options)]

    best = search(beam_size=3, length_penalty=0.3)
    assert best != search(beam_size=5, length_penalty=0.3)
    assert best != search(beam_size=3) or not joint  # there all are as long as they may be
    names = {piece: i for i, piece in enumerate(pair.target.pieces(range(len(pair.target))))}
    expected = pair.target.decode([[names[piece] for piece in hypothesis] for hypothesis in best])
    assert [*texts[:3], texts[-1]] == expected
    assert len(set(expected)) > 1


def test_the_command_line_exports_once(workdir, tmp_path, capsys):
    command = ["export", "--model", str(workdir), "--output", str(tmp_path / "out"), "--format", "ctranslate2"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert (err, len(out.splitlines())) == ("", 1)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "config.json", "model.bin", "shared_vocabulary.json", "vocab.model"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["add_source_eos"] is True
    assert main([*command, "--quantization", "int8"]) == 2
    assert "exists already; name a new folder" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def refusal(capsys, *arguments):
    assert main(["export", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


def test_what_cannot_be_exported(workdir, tmp_path, capsys, monkeypatch):
    to = "--output", tmp_path / "out", "--format", "ctranslate2"
    assert "choose float32, " in refusal(capsys, "--model", workdir, *to, "--quantization", "int4")
    assert "not a workdir" in refusal(capsys, "--model", tmp_path / "nowhere", *to)
    assert "invalid choice" in refusal(capsys, "--model", workdir, *to[:2], "--format", "onnx")
    (tmp_path / "nat").mkdir()
    (tmp_path / "nat" / "config.json").write_text(to_json(tiny.config()))
    assert "non-autoregressive" in refusal(capsys, "--model", tmp_path / "nat", *to)
    (tmp_path / "file").write_text("")
    assert "exists already" in refusal(capsys, "--model", workdir, "--output", tmp_path / "file", *to[2:])
    below = tmp_path / "file" / "out"
    assert "cannot be written (File exists)" in refusal(capsys, "--model", workdir, "--output", below, *to[2:])
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert "pip install 'natjax[peers]'" in refusal(capsys, "--model", workdir, *to)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(teacher, tmp_path, monkeypatch):
    config, pair, params = teacher

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("natjax.atomic.write_text", full)
    with pytest.raises(UserError, match="No space left"):
        save(tmp_path / "out", config, pair, params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_how_ctranslate2_scores_hypotheses(teacher, tmp_path, penalty):
    """What comparisons rest on: Σ log p / (pieces + eos)^penalty; eos is allowed at once with min_decoding_length 0."""
    config, pair, params = teacher
    eager = {**params, "output_bias": params["output_bias"].at[2].add(6.0)}
    save(tmp_path / "out", config, pair, eager)
    pieces = [pair.source.pieces(ids(pair.source, line)) for line in SOURCES]
    results = ctranslate2.Translator(str(tmp_path / "out"), intra_threads=1).translate_batch(
        pieces, beam_size=4, num_hypotheses=4, length_penalty=penalty, return_scores=True, min_decoding_length=0,
        max_decoding_length=60,
    )  # fmt: skip
    names = {piece: i for i, piece in enumerate(pair.target.pieces(range(len(pair.target))))}
    lengths = set()
    for line, result in zip(SOURCES, results, strict=True):
        for hypothesis, score in zip(result.hypotheses, result.scores, strict=True):
            tokens = [*(names[piece] for piece in hypothesis), 2]
            lengths.add(len(tokens))
            total = plain_transformer.log_probs(eager, config.model, ids(pair.source, line, 2), tokens).sum()
            assert score == pytest.approx(total / len(tokens) ** penalty, rel=1e-4)
    assert len(lengths) > 1
    assert max(lengths) < 60  # a hypothesis that is cut off has no eos
