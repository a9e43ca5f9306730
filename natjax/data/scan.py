"""A first look at a corpus: are its files sound and aligned, which pairs can be used, what trains the vocabulary."""

from collections.abc import Iterator
from itertools import compress
from typing import NamedTuple

import numpy as np

from natjax.data.corpus import FilterReport, Limits, normalise, parse_scores
from natjax.data.lines import Corpus, Lines, count
from natjax.data.vocab import Draw
from natjax.errors import DataError


class Scan(NamedTuple):
    """What is known before there is a vocabulary: two bytes a pair, all that is ever held of a whole corpus.

    Attributes:
        scored: bool[pairs], the score is high enough, or there are no scores.
        usable: bool[pairs], it is, and neither side is empty.
    """

    scored: np.ndarray
    usable: np.ndarray

    def low_scores(self, limits: Limits) -> FilterReport:
        """The report of the pairs whose score is too low, alone."""
        dropped = len(self.scored) - int(self.scored.sum())
        return FilterReport(limits, total=dropped, low_score=dropped)


def scan(corpus: Corpus, limits: Limits) -> Scan:
    """Reads a corpus once.

    Raises:
        DataError: text that cannot be read, sides or scores of another number of lines, a score that is no number.
    """
    scores = corpus.scores.blocks() if corpus.scores else iter(())
    scored, usable, pairs = [np.zeros(0, bool)], [np.zeros(0, bool)], 0
    for source, target in corpus.blocks():
        high = np.ones(len(source), bool)
        if corpus.scores:
            lines = next(scores, [])
            if len(lines) != len(source):
                raise _unequal(corpus)
            high = parse_scores(lines, corpus.scores.path, pairs + 1) >= limits.minimum_score
        full = np.fromiter((not (_empty(s) or _empty(t)) for s, t in zip(source, target)), bool, len(source))
        scored.append(high)
        usable.append(full & high)
        pairs += len(source)
    if next(scores, []):
        raise _unequal(corpus)
    return Scan(np.concatenate(scored), np.concatenate(usable))


def drawn(side: Lines, usable: np.ndarray, draw: Draw) -> Iterator[str]:
    """The normalised sentences of one side that train a vocabulary: drawn from those of usable pairs."""
    place = 0
    for block in side.blocks():
        chosen = usable[place : place + len(block)].copy()
        chosen[chosen] = draw.next(int(chosen.sum()))
        yield from map(normalise, compress(block, chosen))
        place += len(block)


def scored_blocks(corpus: Corpus, scored: np.ndarray) -> Iterator[tuple[list[str], list[str]]]:
    """Blocks of the pairs whose score is high enough.

    Raises:
        DataError: as `Corpus.blocks`, or there are more or fewer pairs than when `scored` was made.
    """
    place = 0
    for source, target in corpus.blocks():
        kept = scored[place : place + len(source)]
        place += len(source)
        if place > len(scored):
            break
        if kept.any():
            yield list(compress(source, kept)), list(compress(target, kept))
    if place != len(scored):
        raise changed(corpus)


def changed(corpus: Corpus) -> DataError:
    """The error of text that is no longer what it was."""
    return DataError(f"{corpus.source} or {corpus.target} changed while it was read; run the same command again")


def _empty(line: str) -> bool:
    """Whether nothing is left of a line. Nearly all begin with a character that settles it."""
    return not ("!" <= line[:1] <= "~") and not normalise(line)


def _unequal(corpus: Corpus) -> DataError:
    return DataError(
        f"{corpus.scores} has {count(corpus.scores):,} lines but the training text {count(corpus.source):,}; "
        f"line i must be the score of pair i"
    )
