"""Modified Kneser-Ney and back-off by dictionaries over tuples, straight from their definitions."""

import math
from collections import Counter, defaultdict

import numpy as np

BOS, EOS, UNK = 1, 2, 3


def corpus(seed: int, sentences: int = 250, words: int = 40, unknown: float = 0.0) -> list[list[int]]:
    """Sentences whose words depend a little on the word before, some of them very common."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(sentences):
        row, word = [], int(generator.integers(words))
        for _ in range(generator.integers(0, 12)):
            word = (word * 3 + int(generator.zipf(1.6))) % words
            row.append(UNK if generator.random() < unknown else 4 + word)
        rows.append(row)
    return rows


def flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, offsets)."""
    return np.array([t for row in rows for t in row], np.int32), np.cumsum([0, *map(len, rows)])


class KneserNey:
    """p(word | context) of a text, for any context."""

    def __init__(self, rows: list[list[int]], order: int, prune: tuple[int, ...] = ()):
        self.order = order
        self.raw = {k: Counter() for k in range(1, order + 1)}
        for row in rows:
            padded = (BOS, *row, EOS)
            for k in self.raw:
                self.raw[k].update(padded[i : i + k] for i in range(len(padded) - k + 1))
        self.count = {order: dict(self.raw[order])}
        for k in range(1, order):
            before = defaultdict(set)
            for gram in self.raw[k + 1]:
                before[gram[1:]].add(gram[0])
            self.count[k] = {g: self.raw[k][g] if g[0] == BOS else len(before[g]) for g in self.raw[k]}
        del self.count[1][(BOS,)]
        for k, grams in self.count.items():
            self.count[k] = {g: c for g, c in grams.items() if UNK not in g}
        self.discounts = {k: self._discounts(grams.values()) for k, grams in self.count.items()}
        limits = [*prune, *[prune[-1]] * order] if prune else [0] * order
        self.kept = {k: {g for g in grams if k == 1 or self.raw[k][g] > limits[k - 1]}
                     for k, grams in self.count.items()}  # fmt: skip
        self.words = {g[0] for g in self.count[1]} | {EOS, UNK}
        self.following = defaultdict(dict)
        for grams in self.count.values():
            for gram, c in grams.items():
                self.following[gram[:-1]][gram[-1]] = c

    @staticmethod
    def _discounts(counts) -> list[float]:
        n = Counter(counts)
        if n[1] and n[2] and n[3]:
            # Multiplied out: whether one is 0 must not depend on rounding.
            whole = n[1] + 2 * n[2]
            taken = [2 * n[1] * n[2], 3 * n[1] * n[3], 4 * n[1] * n[4]]
            if all(t < j * whole * n[j] for j, t in enumerate(taken, 1)):
                return [j - t / (whole * n[j]) for j, t in enumerate(taken, 1)]
        return [0.5, 1.0, 1.5]

    def gamma(self, context: tuple[int, ...]) -> float:
        """The share of a context that shorter ones have."""
        following, k = self.following[context], len(context) + 1
        kept = [c for w, c in following.items() if (*context, w) in self.kept[k]]
        lost = sum(following.values()) - sum(kept)
        return (lost + sum(self.discounts[k][min(c, 3) - 1] for c in kept)) / sum(following.values())

    def prob(self, context: tuple[int, ...], word: int) -> float:
        context = context[-(self.order - 1) :]
        if word not in self.words:
            word = UNK
        following, k = self.following.get(context, {}), len(context) + 1
        below = self.prob(context[1:], word) if context else 1 / len(self.words)
        if not following:
            return below
        own, gram = 0.0, (*context, word)
        if gram in self.kept[k]:
            c = following[word]
            own = (c - self.discounts[k][min(c, 3) - 1]) / sum(following.values())
        return own + self.gamma(context) * below

    def score(self, row: list[int]) -> list[float]:
        """Natural log-probability of each token and of the end."""
        padded = (BOS, *(t if t in self.words else UNK for t in row), EOS)
        return [math.log(self.prob(padded[:i], padded[i])) for i in range(1, len(padded))]


def back_off(entries: dict[tuple, tuple[float, float]], context: tuple, word) -> float:
    """Katz' recursion over {n-gram: (log-probability, back-off)}."""
    if (*context, word) in entries:
        return entries[(*context, word)][0]
    return entries.get(context, (0.0, 0.0))[1] + back_off(entries, context[1:], word)
