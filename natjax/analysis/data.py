"""What a parallel corpus is like: how many ways it translates a word, how it reorders, what words it uses.

Distillation is meant to make these simpler (Zhou et al. 2020), so `natjax distill` measures them before and after.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from natjax.analysis.alignment import align, conditional_entropy, monotonicity
from natjax.data.corpus import normalise
from natjax.errors import DataError
from natjax.evaluation.metrics import repetition_rate

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
    sources, targets = ([normalise(line) for line in side] for side in (sources, targets))
    (source_ids, _), (target_ids, target_types) = map(_ids, (sources, targets))
    both = [row for row, (source, target) in enumerate(zip(source_ids, target_ids)) if len(source) and len(target)]
    if len(both) > MAX_PAIRS:
        both = [both[i] for i in np.linspace(0, len(both) - 1, MAX_PAIRS).round().astype(int)]
    links = align([source_ids[row] for row in both], [target_ids[row] for row in both])
    source_tokens, target_tokens = (sum(map(len, ids)) for ids in (source_ids, target_ids))
    return DataReport(
        pairs=len(sources),
        aligned_pairs=len(both),
        conditional_entropy=conditional_entropy(links),
        monotonicity=monotonicity(links),
        length_ratio=target_tokens / source_tokens if source_tokens else None,
        target_tokens=target_tokens,
        target_types=target_types,
        type_token_ratio=target_types / target_tokens if target_tokens else None,
        copied_percent=100 * sum(s == t != "" for s, t in zip(sources, targets)) / len(sources),
        repeated_percent=repetition_rate(targets),
    )


def tokens(line: str) -> list[str]:
    """The tokens that are counted.

    >>> tokens("Ein Hund bellt, nicht wahr? 犬だ")
    ['Ein', 'Hund', 'bellt', ',', 'nicht', 'wahr', '?', '犬', 'だ']
    """
    return _TOKEN.findall(line)


def _ids(lines: list[str]) -> tuple[list[list[int]], int]:
    """Ids of each line's tokens by first appearance, and how many types there are."""
    known: dict[str, int] = {}
    return [[known.setdefault(token, len(known)) for token in tokens(line)] for line in lines], len(known)
