"""What is looked at before a teacher translates: that the text is training data, in the teacher's source language.

The languages. A character that occurs in none of the vocabulary's pieces is unknown: few of Japanese news are so
under the vocabulary of everyday Japanese sentences, nearly all under a German one. What shares a script with the
right language shows in likelihoods: the store holds the pieces of both training sides, and how often each occurs
gives both sides' log-probability of the text, by single pieces, in nats a character.

The limits rest on nothing but trials, with Multi30k, Tatoeba and WMT's news: there the right side led by about half a
nat or more, and in swapped files the wrong one; `tests/distillation/test_checks.py` holds real text, joint and separate
vocabularies, both ways round, to them. Other corpora may lie elsewhere, so each check can be switched off.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from natjax.config import expand
from natjax.data.corpus import normalise
from natjax.data.store import Store, open_store
from natjax.data.validation import validation_text
from natjax.data.vocab import Vocabularies, Vocabulary
from natjax.distillation.teachers import Say, Teacher
from natjax.errors import ConfigError, DataError, StoreError, UserError

MOST_UNKNOWN = 0.1
"""Share of unknown characters from which the text is refused."""
SWAPPED_LEAD = 0.25
"""Nats a character by which the target side's model must lead for the files to count as swapped."""
HELD_OUT_SHARE = 0.5
"""Share of lines in the teacher's validation set from which the text counts as held out."""

_COUNTED_TOKENS = 2_000_000  # of a store's side: enough to tell languages
_CHECKED_LINES = 1024  # for their language, evenly over the file
_HELD_OUT_SETS = r"news(?:discuss)?(?:test|dev)|(?:dev|test|valid|val|eval)set|devtest|testdev|tst|held[-_. ]?out"
_HELD_OUT_NAME = re.compile(rf"(?<![a-z])({_HELD_OUT_SETS}|valid|validation|val|dev|test|eval)(?![a-z])")
# Folders called test or dev are not only those of held-out text.
_HELD_OUT_FOLDER = re.compile(rf"(?<![a-z])({_HELD_OUT_SETS})(?![a-z])")


def check_training_text(file: Path, lines: Sequence[str], teachers: Sequence[Teacher], say: Say) -> None:
    """Refuses text that students are to be measured on.

    Args:
        file: its name and its folder's tell, too.
        lines: its lines.
        teachers: their validation sets are looked up.
        say: told where a validation set is not there.

    Raises:
        UserError: the name or the lines are those of held-out text.
    """
    advice = "distil training text; --allow-held-out does it all the same"
    if found := _HELD_OUT_NAME.search(file.name.lower()):
        raise UserError(f"{file}: {found[1]!r} in its name says held-out text; {advice}")
    if found := _HELD_OUT_FOLDER.search(file.absolute().parent.name.lower()):
        raise UserError(f"{file}: {found[1]!r} in its folder's name says held-out text; {advice}")
    for teacher in teachers:
        folder = teacher.folder
        try:
            valid = set(map(normalise, validation_text(teacher.config).sources))
        except DataError as error:
            say(f"{folder}: its validation text is not here ({error}); not checked against it")
            continue
        are_held_out = Counter(line in valid for line in map(normalise, lines) if line)
        share = are_held_out[True] / max(1, are_held_out.total())
        if share > HELD_OUT_SHARE:
            raise UserError(f"{file}: {share:.0%} of its lines are in the validation set of {folder}; {advice}")


def check_language(file: Path, lines: Sequence[str], teacher: Teacher, say: Say) -> None:
    """Refuses text that is not in a teacher's source language, as far as its vocabulary and its store can tell.

    Args:
        file: for the message.
        lines: its lines, of which some hundreds are looked at.
        teacher: the teacher.
        say: told where the store is not there.

    Raises:
        UserError: too many unknown characters, or more likely to be of the target language.
    """
    advice = "--allow-language distils it all the same"
    folder, config, vocabularies = teacher.folder, teacher.config, teacher.vocabularies
    lines = [line for line in map(normalise, sample(lines)) if line]
    if not lines:
        return
    share = unknown_share(vocabularies.source, lines)
    if share > MOST_UNKNOWN:
        raise UserError(
            f"{file}: the vocabulary of {folder} does not know {share:.0%} of its characters; is this "
            f"{config.data.source_language}, or are source and target swapped? {advice}"
        )
    try:
        store = open_store(expand(config.data.store) or folder / "store")
        recorded = [store.metadata["vocabularies"][side]["fingerprint"] for side in ("source", "target")]
    except (StoreError, ConfigError, KeyError, TypeError) as error:
        say(f"{folder}: its store is not here ({error}); not checked whether source and target are swapped")
        return
    if recorded != [v.fingerprint for v in vocabularies]:
        say(f"{folder}: its store has another vocabulary; not checked whether source and target are swapped")
        return
    lead = source_lead(store, vocabularies, lines)
    if lead < -SWAPPED_LEAD:
        raise UserError(
            f"{file}: looks like the target side of {folder}, {config.data.target_language} (by {-lead:.2f} nats a "
            f"character); are source and target swapped? {advice}"
        )


def sample(lines: Sequence[str]) -> Sequence[str]:
    """As many as are looked at, evenly over all: a corpus may begin with a part that is unlike the rest."""
    return lines[:: -(-len(lines) // _CHECKED_LINES) or 1]


def unknown_share(vocabulary: Vocabulary, lines: Sequence[str]) -> float:
    """Share of characters, spaces aside, that no piece of the vocabulary holds."""
    counts, unknown = _characters(vocabulary, lines)
    return unknown / max(1, counts)


def source_lead(store: Store, vocabularies: Vocabularies, lines: Sequence[str]) -> float:
    """Nats a character by which the text is likelier on the store's source side than on its target side."""
    train = store.split("train")
    sides = zip(vocabularies, (train.source_tokens, train.target_tokens))
    source, target = (_log_probability(vocabulary, tokens, lines) for vocabulary, tokens in sides)
    return (source - target) / max(1, sum(map(len, lines)))


def _log_probability(vocabulary: Vocabulary, tokens: np.ndarray, lines: Sequence[str]) -> float:
    counts = np.bincount(tokens[:_COUNTED_TOKENS], minlength=len(vocabulary)) + 1.0
    log_probability_V = np.log(counts / counts.sum())
    # A run of unknown characters is one piece; each counts, or a text of nothing else would be the likeliest.
    unknown = _characters(vocabulary, lines)[1]
    pieces = np.concatenate([np.asarray(row, np.int64) for row in vocabulary.encode(lines)])
    return float(log_probability_V[pieces].sum() + unknown * log_probability_V.min())


def _characters(vocabulary: Vocabulary, lines: Sequence[str]) -> tuple[int, int]:
    """How many there are, spaces aside, and how many of them are unknown."""
    known = {character for piece in vocabulary.pieces(range(4, len(vocabulary))) for character in piece}
    every = [character for line in lines for character in line if character != " "]
    return len(every), sum(character not in known for character in every)
