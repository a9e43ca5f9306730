"""KenLM reads our files as we do, and its lmplz estimates what we estimate."""

import shutil
import subprocess

import numpy as np
import pytest
from lm_oracle import UNK, corpus, flat

from natjax.lm import estimate, make_tables, read_arpa, score_sentences, stream, write_arpa

V = 204
PIECES = ["<pad>", "<s>", "</s>", "<unk>", *(f"▁p{i}" for i in range(V - 4))]
SETTINGS = [(2, ()), (3, (0, 0, 1)), (4, ()), (4, (0, 1, 1, 2)), (5, ()), (6, (0, 0, 0, 1))]


def rows_of(order):
    # Without empty lines and unknown pieces, which lmplz refuses or treats in its own way.
    return [row for row in corpus(order, 800, V - 24) if row]


@pytest.mark.parametrize(("order", "prune"), SETTINGS)
def test_kenlm_reads_the_same_probabilities(order, prune, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    rows, generator = rows_of(order), np.random.default_rng(order)
    model, _ = estimate(stream(*flat(rows)), order=order, vocabulary_size=V, prune=prune)
    write_arpa(tmp_path / "lm.arpa", model, PIECES)
    peer = kenlm.Model(str(tmp_path / "lm.arpa"))
    assert peer.order == order
    asked = rows[:60] + [generator.integers(UNK, V, generator.integers(1, 20)).tolist() for _ in range(60)]
    for row, found in zip(asked, score_sentences(make_tables(model), asked), strict=True):
        scores = [score for score, _, _ in peer.full_scores(" ".join(PIECES[t] for t in row))]
        np.testing.assert_allclose(found / np.log(10), scores, atol=1e-5)


@pytest.mark.parametrize(("order", "prune"), SETTINGS)
def test_lmplz_estimates_the_same_model(order, prune, tmp_path):
    lmplz = shutil.which("lmplz")
    if not lmplz:
        pytest.skip("KenLM's lmplz is not in the path")
    rows = rows_of(order)
    text = "".join(" ".join(PIECES[t] for t in row) + "\n" for row in rows)
    settings = ["--order", str(order), "--discount_fallback", "-S", "200M", "-T", str(tmp_path)]
    settings += ["--prune", *map(str, prune)] if prune else []
    done = subprocess.run([lmplz, *settings], input=text, capture_output=True, text=True, check=True)
    (tmp_path / "lm.arpa").write_text(done.stdout)
    peer = read_arpa(tmp_path / "lm.arpa", PIECES)
    model, _ = estimate(stream(*flat(rows)), order=order, vocabulary_size=V, prune=prune)
    assert model.counts == peer.counts
    for mine, other in zip(model[1:3], peer[1:3], strict=True):
        np.testing.assert_allclose(mine / np.log(10), other / np.log(10), atol=1e-5)
    for mine, other in zip(model.levels, peer.levels, strict=True):
        np.testing.assert_array_equal(mine.keys, other.keys)
        np.testing.assert_allclose(mine.log_probs / np.log(10), other.log_probs / np.log(10), atol=1e-5)
        np.testing.assert_allclose(mine.backoffs / np.log(10), other.backoffs / np.log(10), atol=1e-5)
