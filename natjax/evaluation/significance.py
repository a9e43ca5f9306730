"""Whether two systems differ by more than chance: paired bootstrap resampling (Koehn, 2004).

Both systems are scored on the same resamples of the test set. Scores come from the sentences' sufficient statistics,
which add up, so a resample is one product of counts and statistics. sacreBLEU's own paired test gives the same means
for the same seed; it is not used because it takes its seed from the environment, gives no interval of the
difference, and reports p = 0.001 for a system against itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.base import Metric

from natjax.evaluation.metrics import bleu_metric, chrf_metric, reference_streams


class Comparison(NamedTuple):
    """One metric of a system against a baseline.

    Attributes:
        system_mean: mean score of the system over the resamples.
        baseline_mean: the same of the baseline.
        difference: score of the system minus that of the baseline, on the whole test set.
        p_value: two-sided: how often chance alone would give a difference at least that large.
        interval: the middle 95% of the differences over the resamples, (low, high).
    """

    system_mean: float
    baseline_mean: float
    difference: float
    p_value: float
    interval: tuple[float, float]


def paired_bootstrap(
    system: Sequence[str],
    baseline: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    compound_split: bool = False,
    language: str = "de",
    samples: int = 1000,
    seed: int = 12345,
) -> dict[str, Comparison]:
    """Compares two systems on the same sentences, under `bleu` and `chrf`.

    Differences of the resamples are shifted to mean zero, which is what they would be were there no difference; the
    p-value counts those at least as far from zero as the one observed (Riezler & Maxwell, 2005), the observed one
    included, so that it is never zero.

    Args:
        system: one translation a sentence.
        baseline: the same of the baseline.
        references: as in `metrics.score`.
        tokenize: as in `metrics.score`.
        compound_split: as in `metrics.score`.
        language: as in `metrics.score`.
        samples: number of resamples of the test set.
        seed: of the resampling; the result depends on nothing else.

    Raises:
        DataError: nothing to score, unequal numbers of sentences, or a sentence without reference.
        UserError: an unknown tokenization, or one whose package is not installed.
    """
    reference_streams(baseline, references)
    streams = reference_streams(system, references)
    metrics = {"bleu": bleu_metric(tokenize, compound_split=compound_split, language=language), "chrf": chrf_metric()}
    pairs = {
        name: (sentence_statistics(metric, system, streams), sentence_statistics(metric, baseline, streams))
        for name, metric in metrics.items()
    }
    random = np.random.default_rng(seed)
    scores = {name: np.empty((samples, 2)) for name in metrics}
    for sample in range(samples):
        counts = np.bincount(random.integers(len(system), size=len(system)), minlength=len(system)).astype(np.float64)
        for name, metric in metrics.items():
            scores[name][sample] = [corpus_score(metric, counts @ statistics) for statistics in pairs[name]]
    return {name: _compare(metrics[name], *pairs[name], scores[name]) for name in metrics}


def sentence_statistics(
    metric: Metric, hypotheses: Sequence[str], streams: Sequence[Sequence[str | None]]
) -> np.ndarray:
    """Sufficient statistics of each sentence, f64[sentences, k]: whole numbers whose sums determine the score."""
    # sacreBLEU has no public way to them; its own significance tests call the same method.
    return np.array(metric._extract_corpus_statistics(hypotheses, streams), np.float64)


def corpus_score(metric: Metric, totals: np.ndarray) -> float:
    """The score that belongs to summed statistics, f64[k]."""
    return metric._compute_score_from_stats(totals.tolist()).score


def _compare(metric: Metric, system: np.ndarray, baseline: np.ndarray, scores: np.ndarray) -> Comparison:
    difference = corpus_score(metric, system.sum(0)) - corpus_score(metric, baseline.sum(0))
    differences = scores[:, 0] - scores[:, 1]
    extreme = np.abs(differences - differences.mean()) >= abs(difference)
    low, high = np.quantile(differences, [0.025, 0.975])
    system_mean, baseline_mean = scores.mean(0)
    return Comparison(
        system_mean=float(system_mean),
        baseline_mean=float(baseline_mean),
        difference=difference,
        p_value=float((extreme.sum() + 1) / (len(scores) + 1)),
        interval=(float(low), float(high)),
    )
