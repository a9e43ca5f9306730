import itertools

import numpy as np
import pytest
from plain_scores import corpus_bleu
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from natjax.errors import DataError
from natjax.evaluation.metrics import score
from natjax.evaluation.significance import paired_bootstrap


def corpus(sentences=60, seed=0):
    """Random sentences as references, and what remains of them when a share of the words is replaced."""
    random = np.random.default_rng(seed)
    references = [[f"w{word}" for word in random.integers(50, size=random.integers(8, 20))] for _ in range(sentences)]

    def system(share):
        return [" ".join("x" if random.random() < share else word for word in words) for words in references]

    return [[" ".join(words)] for words in references], system


def test_a_system_against_itself_does_not_differ():
    references, system = corpus()
    hypotheses = system(0.2)
    for comparison in paired_bootstrap(hypotheses, hypotheses, references, samples=200).values():
        assert comparison.difference == 0
        assert comparison.interval == (0, 0)
        assert comparison.p_value == 1
        assert comparison.system_mean == comparison.baseline_mean


def test_a_clearly_better_system_is_significant_and_the_sign_is_right():
    references, system = corpus()
    good, bad = system(0.1), system(0.3)
    up, down = paired_bootstrap(good, bad, references), paired_bootstrap(bad, good, references)
    for metric in ("bleu", "chrf"):
        assert up[metric].p_value < 0.05
        assert up[metric].difference > 0
        assert up[metric].interval[0] > 0
        assert down[metric].difference == -up[metric].difference
        assert down[metric].p_value == up[metric].p_value
        assert down[metric].interval == pytest.approx([-bound for bound in up[metric].interval[::-1]])


def test_two_equally_good_systems_are_rarely_significant():
    p_values = []
    for seed in range(20):
        references, system = corpus(seed=seed)
        p_values.append(paired_bootstrap(system(0.2), system(0.2), references, samples=200)["bleu"].p_value)
    assert sum(p < 0.05 for p in p_values) <= 4  # 1 expected; more than 4 has probability 0.003
    assert max(p_values) > 0.3


def test_differences_are_those_of_the_scores():
    references, system = corpus()
    one, other = system(0.1), system(0.2)
    options = {"tokenize": "none", "compound_split": True}
    comparison = paired_bootstrap(one, other, references, **options, samples=10)
    ours, theirs = score(one, references, **options), score(other, references, **options)
    assert comparison["bleu"].difference == pytest.approx(ours.bleu - theirs.bleu, abs=1e-9)
    assert comparison["chrf"].difference == pytest.approx(ours.chrf - theirs.chrf, abs=1e-9)


def test_the_seed_decides_everything():
    references, system = corpus()
    one, other = system(0.1), system(0.12)
    first = paired_bootstrap(one, other, references, samples=100, seed=0)
    assert paired_bootstrap(one, other, references, samples=100, seed=0) == first
    assert paired_bootstrap(one, other, references, samples=100, seed=1) != first


def test_means_are_those_of_sacrebleu_for_the_same_seed(monkeypatch):
    references, system = corpus()
    for i in range(0, len(references), 3):
        references[i].append(" ".join(reversed(references[i][0].split())))  # varying numbers of references
    one, other = system(0.1), system(0.12)
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    streams = list(itertools.zip_longest(*references))
    metrics = {"BLEU": BLEU(), "chrF2++": CHRF(word_order=2)}
    _, peer = PairedTest([("other", other), ("one", one)], metrics, streams, test_type="bs", n_samples=100)()
    ours = paired_bootstrap(one, other, references, samples=100, seed=7)
    for name, metric in (("BLEU", "bleu"), ("chrF2++", "chrf")):
        baseline, ours_there = peer[name]
        assert ours[metric].system_mean == pytest.approx(ours_there.mean, rel=1e-5)
        assert ours[metric].baseline_mean == pytest.approx(baseline.mean, rel=1e-5)
        assert ours[metric].difference == pytest.approx(ours_there.score - baseline.score, rel=1e-5)


def test_p_value_and_interval_against_all_resamples():
    """Four sentences have 256 equally likely resamples: all of them, scored by the plain formula."""
    references = [["a b c d e f g"], ["b c d e f a a"], ["c d e f b g"], ["d e f a b c g h"]]
    one = ["a b c d e f x", "b c d e f a", "c d e f b g", "x e f a b c g h"]
    other = ["a b c d x f g", "b c d e x", "c d e f g b", "d e f a b c g h"]
    differences = np.array([
        corpus_bleu([one[i] for i in rows], [references[i] for i in rows])[0]
        - corpus_bleu([other[i] for i in rows], [references[i] for i in rows])[0]
        for rows in itertools.product(range(4), repeat=4)
    ])  # fmt: skip
    observed = corpus_bleu(one, references)[0] - corpus_bleu(other, references)[0]
    samples = 4000
    found = paired_bootstrap(one, other, references, tokenize="none", samples=samples)["bleu"]
    # Sampling moves the mean, over which differences are counted, and the count itself: four deviations of each.
    distances, shift = np.abs(differences - differences.mean()), 4 * differences.std() / samples**0.5
    least, most = ((distances >= abs(observed) + move).mean() for move in (shift, -shift))
    assert 0.05 < least <= most < least + 0.1
    assert least - 4 * (0.25 / samples) ** 0.5 <= found.p_value <= most + 4 * (0.25 / samples) ** 0.5
    assert found.difference == pytest.approx(observed)
    low, high = found.interval
    assert (differences < low - 1e-9).mean() <= 0.035
    assert (differences <= low + 1e-9).mean() >= 0.015
    assert (differences > high + 1e-9).mean() <= 0.035
    assert (differences >= high - 1e-9).mean() >= 0.015


def test_unequal_systems_are_refused():
    with pytest.raises(DataError, match="1 translations but references of 2"):
        paired_bootstrap(["a", "b"], ["a"], [["a"], ["b"]])
