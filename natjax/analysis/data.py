"""What a parallel corpus is like: how many ways it translates a word, how it reorders, what words it uses.

Distillation is meant to make these simpler (Zhou et al. 2020), so `natjax distill` measures them before and after.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from natjax.analysis.alignment import Links, align, conditional_entropy, monotonicity
from natjax.data.corpus import normalise
from natjax.errors import DataError

MAX_PAIRS = 30_000
"""Pairs that are aligned at most, spread evenly over the corpus: they tell two corpora apart, in half a gigabyte."""

# Scripts without spaces (Thai to Khmer, kana to Han): each character counts as a token, in every corpus alike.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True)
class DataReport:
    """Measures of a corpus. Tokens are words, punctuation marks, and characters of scripts without spaces.

    Attributes:
        pairs: sentence pairs.
        aligned_pairs: of these, on how many the first two measures rest.
        conditional_entropy: nats, mean over source types of H(target token | source token); see
            `alignment.conditional_entropy`. None where nothing is aligned.
        monotonicity: 1 for the same order on both sides, see `alignment.monotonicity`.
        length_ratio: target tokens ÷ source tokens.
        target_tokens: target tokens in all.
        target_types: different target tokens, the vocabulary used.
        type_token_ratio: types ÷ tokens.
        copied_percent: targets that equal their source, empty ones aside.
        repeated_percent: target words that equal the word before them.
    """

    pairs: int
    aligned_pairs: int
    conditional_entropy: float | None
    monotonicity: float | None
    length_ratio: float | None
    target_tokens: int
    target_types: int
    type_token_ratio: float | None
    copied_percent: float
    repeated_percent: float

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def describe(sources: Sequence[str], targets: Sequence[str]) -> DataReport:
    """Measures a corpus.

    Args:
        sources: raw lines.
        targets: raw lines, one for each source. Pairs with an empty side are not aligned.

    Raises:
        DataError: the sides differ in their number of lines, or have none.
    """
    if len(sources) != len(targets) or not sources:
        raise DataError(f"{len(sources):,} sources for {len(targets):,} targets; give a target for each, and one pair")
    return compare(lambda: zip(sources, targets))[0]


def compare(rows: Callable[[], Iterable[Sequence[str]]]) -> list[DataReport]:
    """Measures target sides of the same sources, all on the same sentences. Holds only those that are aligned.

    Args:
        rows: begins to read anew, raw lines: of each row a source and its targets, equally many in all. It is called
            twice. Rows with an empty side are not aligned.

    Raises:
        DataError: there is no row.
    """
    source_tokens, tallies, full = 0, [], bytearray()
    for source, *targets in _normalised(rows):
        tallies = tallies or [_Tally() for _ in targets]
        full.append(all((source, *targets)))
        source_tokens += len(tokens(source))
        for tally, target in zip(tallies, targets, strict=True):
            tally.add(source, target)
    if not full:
        raise DataError("a corpus without a line; give one pair")
    aligned = np.flatnonzero(np.frombuffer(full, np.uint8))
    if len(aligned) > MAX_PAIRS:
        aligned = aligned[np.linspace(0, len(aligned) - 1, MAX_PAIRS).round().astype(int)]
    wanted = bytearray(len(full))
    for row in aligned.tolist():
        wanted[row] = True
    kept = list(itertools.compress(_normalised(rows), wanted))
    sides = [_ids(side) for side in zip(*kept, strict=True)] or [[]] * (1 + len(tallies))
    links = [align(sides[0], side) for side in sides[1:]]
    return [tally.report(len(full), len(aligned), source_tokens, link) for tally, link in zip(tallies, links)]


class _Tally:
    """What is counted of a target side, line by line."""

    def __init__(self) -> None:
        self.tokens, self.types, self.copied, self.words, self.repeated = 0, set(), 0, 0, 0

    def add(self, source: str, target: str) -> None:
        found, words = tokens(target), target.split()
        self.tokens += len(found)
        self.types.update(found)
        self.copied += source == target != ""
        self.words += len(words)
        self.repeated += sum(word == before for before, word in itertools.pairwise(words))

    def report(self, pairs: int, aligned: int, source_tokens: int, links: Links) -> DataReport:
        return DataReport(
            pairs=pairs,
            aligned_pairs=aligned,
            conditional_entropy=conditional_entropy(links),
            monotonicity=monotonicity(links),
            length_ratio=self.tokens / source_tokens if source_tokens else None,
            target_tokens=self.tokens,
            target_types=len(self.types),
            type_token_ratio=len(self.types) / self.tokens if self.tokens else None,
            copied_percent=100 * self.copied / pairs,
            repeated_percent=100 * self.repeated / max(1, self.words),
        )


def _normalised(rows: Callable[[], Iterable[Sequence[str]]]) -> Iterator[list[str]]:
    return ([normalise(line) for line in row] for row in rows())


def tokens(line: str) -> list[str]:
    """The tokens that are counted.

    >>> tokens("Ein Hund bellt, nicht wahr? 犬だ")
    ['Ein', 'Hund', 'bellt', ',', 'nicht', 'wahr', '?', '犬', 'だ']
    """
    return _TOKEN.findall(line)


def _ids(lines: Sequence[str]) -> list[list[int]]:
    """Ids of each line's tokens, by first appearance."""
    known: dict[str, int] = {}
    return [[known.setdefault(token, len(known)) for token in tokens(line)] for line in lines]
