"""Lines into the pieces of pairs that are kept, block by block: what each process of `natjax prepare` does."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from natjax.data.corpus import FilterReport, Limits, keep_pairs, normalise
from natjax.data.vocab import EOS, Vocabularies


class Ragged(NamedTuple):
    """Rows of ids.

    Attributes:
        tokens: u16 or u32, the rows one after another.
        lengths: i32[rows].
    """

    tokens: np.ndarray
    lengths: np.ndarray


class Encoded(NamedTuple):
    """The pairs of a block that are kept, eos added where it belongs, and the counts of all its pairs."""

    source: Ragged
    target: Ragged
    counts: FilterReport


class Encoder:
    """Normalises, encodes and filters blocks of lines."""

    def __init__(self, vocabularies: Vocabularies, limits: Limits):
        """Takes what the store's metadata will name."""
        self.vocabularies, self.limits = vocabularies, limits
        self.dtype = token_dtype(vocabularies)

    def encode(self, source: Sequence[str], target: Sequence[str]) -> Encoded:
        """The pieces of raw lines, side by side. One thread does it: the processes share the cores."""
        source_ids = self.vocabularies.source.encode(list(map(normalise, source)), threads=1)
        target_ids = self.vocabularies.target.encode(list(map(normalise, target)), threads=1)
        kept, counts = keep_pairs(source_ids, target_ids, self.limits)
        sources = self._ragged([source_ids[i] for i in kept], [EOS])
        return Encoded(sources, self._ragged([target_ids[i] for i in kept], [EOS] * self.limits.target_eos), counts)

    def _ragged(self, rows: list[list[int]], end: list[int]) -> Ragged:
        for row in rows:
            row += end
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        return Ragged(np.fromiter(chain.from_iterable(rows), self.dtype, lengths.sum()), lengths)


def token_dtype(vocabularies: Vocabularies) -> np.dtype:
    """The smallest dtype that holds every id: u16 or u32."""
    return np.dtype(np.uint16 if max(map(len, vocabularies)) <= 1 << 16 else np.uint32)
