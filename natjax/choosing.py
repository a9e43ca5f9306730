"""What a batch has given, as lists; and a teacher's choice among the tries of noisy parallel decoding."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from natjax.data.vocab import Vocabulary
from natjax.decoding import npd
from natjax.decoding.passes import Hypotheses
from natjax.segments import Hypothesis

if TYPE_CHECKING:
    from natjax.translator import Translator


def hypotheses(found: Hypotheses, row: int) -> list[Hypothesis]:
    """Those of a row that exist, eos counted in their length.

    Where none has a number for a score, as of a model that has diverged, it is the first.
    """
    exist = np.flatnonzero(found.sums[row] > -np.inf)
    extra = [None if kind is None else kind[row] for kind in (found.ctc_scores, found.lm_scores)]
    return [
        Hypothesis(
            found.tokens[row, i, : found.lengths[row, i]].tolist(),
            float(found.sums[row, i]),
            int(found.lengths[row, i]) + 1,
            *(None if kind is None else float(kind[i]) for kind in extra),
        )
        for i in (exist.tolist() or [0])
    ]


class Chooser(NamedTuple):
    """Lets a teacher choose.

    Attributes:
        teacher: an autoregressive translator. It reads texts, so that it may have another vocabulary.
        vocabulary: of the tries.
        room: most tries of a sentence.
    """

    teacher: "Translator"
    vocabulary: Vocabulary
    room: int

    def ranked(self, sources: Sequence[str], tries: Hypotheses) -> list[list[Hypothesis]]:
        """The different texts among the tries of each sentence, the best first, ranked by the teacher's mean."""
        each = self._each(sources, tries)
        found = []
        for some, scored in zip(each, npd.rank(self.teacher, sources, list(map(list, each)), self.room), strict=True):
            found.append([Hypothesis(some[text], score.sum, score.tokens) for text, score in scored])
        return found

    def best(self, sources: Sequence[str], tries: Hypotheses) -> list[list[int]]:
        """Only the best of each sentence; the teacher is not asked where there is nothing to choose."""
        each = self._each(sources, tries)
        chosen = npd.best(self.teacher, sources, list(map(list, each)), self.room)
        return [some[text] for some, text in zip(each, chosen, strict=True)]

    def _each(self, sources: Sequence[str], tries: Hypotheses) -> list[dict[str, list[int]]]:
        """For each sentence its different texts, as the teacher is to read them, and the tokens of each.

        What the tries' vocabulary does not know must be unknown to the teacher, too, and not the question marks that a
        person would be shown.
        """
        unknown, made = self.teacher.vocabularies.target.unknown_character, []
        for row in range(len(sources)):
            texts: dict[str, list[int]] = {}
            for try_ in hypotheses(tries, row):
                texts.setdefault(self.vocabulary.text(try_.tokens, unknown), try_.tokens)
            made.append(texts)
        return made
