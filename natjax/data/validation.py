"""Raw text to translate and score: sources with all their references, which nothing has normalised or filtered."""

from typing import NamedTuple

from natjax.config import Config
from natjax.data import grammar
from natjax.data.corpus import read_parallel
from natjax.data.prepare import EMBEDDED_VALID_PAIRS, corpus_files


class ScoredText(NamedTuple):
    """Text with references.

    Attributes:
        sources: raw source lines.
        references: for each line all its references, untouched.
    """

    sources: list[str]
    references: list[list[str]]


def validation_text(config: Config) -> ScoredText:
    """The validation set of a config; the embedded corpus comes with every valid translation.

    Raises:
        DataError: the files are missing, not UTF-8, or not aligned.
    """
    data = config.data
    if data.embedded != "none":
        return embedded_text(data.embedded, "valid", EMBEDDED_VALID_PAIRS)
    files = corpus_files(config, ("valid",))
    sources, targets = read_parallel(files["valid_source"], files["valid_target"])
    return ScoredText(sources, [[target] for target in targets])


def embedded_text(difficulty: grammar.Difficulty, split: grammar.Split, count: int) -> ScoredText:
    """Held-out sentences of the embedded corpus with every valid translation, first the one that was drawn."""
    examples = grammar.generate(difficulty, split, count, seed=0)
    references = [[e.target, *(r for r in e.references if r != e.target)] for e in examples]
    return ScoredText([e.source for e in examples], references)
