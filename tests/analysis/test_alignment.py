"""Word alignment against a plain Python version, and measures of corpora for which they are known."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from natjax.analysis.alignment import ITERATIONS, NULL_PRIOR, TENSION, Links, align, conditional_entropy, monotonicity


def plain_align(sources, targets, iterations=ITERATIONS):
    """The same models with dictionaries and loops: (pair, target place) -> weights of the source places, none first."""

    def prior(tension, m, n, j):
        weights = [math.exp(-tension * abs((i + 1) / m - (j + 1) / n)) for i in range(m)]
        return [NULL_PRIOR] + [(1 - NULL_PRIOR) * w / sum(weights) for w in weights]

    theta = defaultdict(lambda: 1.0)
    for tension in [0] * iterations + [TENSION] * iterations:
        counts, totals = defaultdict(float), defaultdict(float)
        for x, y in zip(sources, targets):
            for j, word in enumerate(y):
                weights = [d * theta[s, word] for d, s in zip(prior(tension, len(x), len(y), j), [None, *x])]
                for s, w in zip([None, *x], weights):
                    counts[s, word] += w / sum(weights)
                    totals[s] += w / sum(weights)
        theta = {key: count / totals[key[0]] for key, count in counts.items()}
    return {
        (pair, j): [d * theta[s, word] for d, s in zip(prior(TENSION, len(x), len(y), j), [None, *x])]
        for pair, (x, y) in enumerate(zip(sources, targets))
        for j, word in enumerate(y)
    }


def random_corpus(seed, pairs=25, words=7):
    generator = np.random.default_rng(seed)
    return [[generator.integers(0, words, generator.integers(1, 7)).tolist() for _ in range(pairs)] for _ in range(2)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_as_plain_python(seed, iterations):
    sources, targets = random_corpus(seed)
    links = align(sources, targets, iterations)
    found = {(pair, j): i + 1 for pair, i, j in zip(*links[:3])}
    plain = plain_align(sources, targets, iterations)
    assert found.keys() <= plain.keys()
    clear = 0
    for token, weights in plain.items():
        best, second = sorted(weights, reverse=True)[:2]
        assert weights[found.get(token, 0)] >= best * (1 - 1e-9)
        clear += second < best * (1 - 1e-9)
    assert clear > 0.5 * len(plain)
    for pair, i, j, source, target in zip(*links):
        assert (sources[pair][i], targets[pair][j]) == (source, target)


def lexicon_corpus(translate, pairs=300, words=12, order=lambda row: row):
    generator = np.random.default_rng(0)
    sources = [generator.permutation(words)[: generator.integers(2, 7)].tolist() for _ in range(pairs)]
    return sources, [order([translate(word, n) for word in row]) for n, row in enumerate(sources)]


def test_one_translation_a_word_has_no_entropy():
    sources, targets = lexicon_corpus(lambda word, n: word + 20)
    links = align(sources, targets)
    assert (links.target_type == links.source_type + 20).all()
    assert len(links.pair) == sum(map(len, targets))
    assert conditional_entropy(links) == 0
    assert monotonicity(links) == 1


def test_two_equal_translations_a_word_have_log_2():
    seen = defaultdict(int)

    def alternate(word, n):
        seen[word] += 1
        return 2 * word + seen[word] % 2

    sources, targets = lexicon_corpus(alternate)
    links = align(sources, targets)
    assert (links.target_type // 2 == links.source_type).all()
    assert conditional_entropy(links) == pytest.approx(math.log(2), abs=1e-3)  # odd counts are not quite halves


def test_reversed_targets_are_found_and_keep_no_order():
    sources, targets = lexicon_corpus(lambda word, n: word, 900, 60, order=lambda row: row[::-1])
    links = align(sources, targets)
    assert np.mean(links.source_type == links.target_type) > 0.99
    assert monotonicity(links) < 0.02


def links_of(*pairs):
    """Links from (source place, target place) of each pair."""
    rows = [(p, i, j, i, j) for p, places in enumerate(pairs) for i, j in sorted(places, key=lambda link: link[1])]
    return Links(*(np.array(column, np.int64) for column in zip(*rows)))


def test_entropy_is_the_mean_over_source_types():
    links = Links(*(np.zeros(6, np.int64),) * 3, np.array([0, 0, 0, 0, 7, 7]), np.array([1, 2, 3, 4, 5, 5]))
    assert conditional_entropy(links) == pytest.approx((math.log(4) + 0) / 2)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(0, 0), (1, 1), (2, 2)], 1),
        ([(0, 2), (1, 1), (2, 0)], 0),
        ([(0, 0), (1, 2), (2, 3), (3, 1)], 1 - 2 / 3),  # 0 | 3 | 1 2
        ([(0, 0), (4, 1), (9, 2)], 1),  # source tokens without link leave no gap
        ([(0, 0), (0, 1), (1, 2)], 1),  # two targets of one source token
        ([(0, 0), (0, 3), (1, 1)], 0),  # their mean place, 1.5, is after 1
    ],
)
def test_order_by_hand(places, expected):
    assert monotonicity(links_of(places)) == pytest.approx(expected)
    assert monotonicity(links_of(places, [(0, 0), (1, 1)])) == pytest.approx((expected + 1) / 2)
    assert monotonicity(links_of(places, [(3, 0)])) == pytest.approx(expected)  # one link has no order


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_order_of_every_permutation(length):
    for order in itertools.permutations(range(length)):
        chunks = 1 + sum(b != a + 1 for a, b in itertools.pairwise(order))
        found = monotonicity(links_of([(place, at) for at, place in enumerate(order)]))
        assert found == pytest.approx(1 - (chunks - 1) / (length - 1))


def test_nothing_aligned_has_no_measure():
    links = align([], [])
    assert conditional_entropy(links) is None
    assert monotonicity(links) is None
    assert monotonicity(links_of([(0, 0)])) is None


@pytest.mark.parametrize(("sources", "targets"), [([[1]], []), ([[]], [[1]]), ([[1]], [[]])])
def test_what_cannot_be_aligned(sources, targets):
    with pytest.raises(ValueError, match="none of them empty"):
        align(sources, targets)
