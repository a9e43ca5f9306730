"""Noisy parallel decoding: several translations of a sentence, the best of them chosen by an autoregressive teacher.

Gu et al. (2018), section 4.2; paper, section 4.2 and Table 3. The tries come from the compiled pass; the teacher reads
them as text, so that it may have another vocabulary. It is asked once for a batch, about each text once, and ranks by
the mean log-probability of a token, eos included (fairseq's reranker, as the official release uses it).
"""

import math
from collections.abc import Sequence
from typing import Protocol

from natjax.decoding.scoring import Score


class Teacher(Protocol):
    """What ranks: an autoregressive `Translator`."""

    def score_each(
        self, sources: Sequence[str], targets: Sequence[Sequence[str]], room: int | None = None
    ) -> list[list[Score]]:
        """The score of each source's targets; of no source are there more than `room`."""


def rank(
    teacher: Teacher, sources: Sequence[str], tries: Sequence[Sequence[str]], room: int
) -> list[list[tuple[str, Score]]]:
    """Ranks the different texts among the tries of each sentence.

    Args:
        teacher: see `Teacher`.
        sources: the sentences.
        tries: their translations.
        room: most tries of a sentence; the teacher's program has room for so many, whatever differs.

    Returns:
        Texts and their scores, the best first, among equals the one tried first. A score that is no number comes last.
    """
    texts = [list(dict.fromkeys(some)) for some in tries]
    scores = teacher.score_each(sources, texts, room)
    pairs = (zip(some, theirs, strict=True) for some, theirs in zip(texts, scores, strict=True))
    return [sorted(each, key=lambda pair: (math.isnan(pair[1].mean), -pair[1].mean)) for each in pairs]


def best(teacher: Teacher, sources: Sequence[str], tries: Sequence[Sequence[str]], room: int) -> list[str]:
    """The best text of each sentence, as `rank` has it; a sentence with but one costs the teacher nothing.

    Args:
        teacher: see `Teacher`.
        sources: the sentences.
        tries: their translations, at least one each.
        room: see `rank`.
    """
    found = [some[0] for some in tries]
    open_ = [place for place, some in enumerate(tries) if len(set(some)) > 1]
    if open_:
        ranked = rank(teacher, [sources[place] for place in open_], [tries[place] for place in open_], room)
        for place, pairs in zip(open_, ranked, strict=True):
            found[place] = pairs[0][0]
    return found
