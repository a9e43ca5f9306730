"""SentencePiece vocabularies with the special ids that all of natjax relies on."""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece

from natjax.atomic import write_bytes
from natjax.config import VocabConfig
from natjax.errors import VocabularyError, one_line

# As in natjax.typing, which cannot be imported where jax is not wanted.
PAD, BOS, EOS, UNK = range(4)

MAX_SENTENCES = 2_000_000
"""Sentences that a vocabulary is trained on; of larger corpora, about this many are drawn at random. SentencePiece
holds them, some hundred megabytes, and as much again for the words in them."""

_TRAINING_THREADS = 2  # fixed: the pieces may depend on it


class Vocabulary:
    """Text <-> piece ids: 0 padding and blank, 1 bos, 2 eos, 3 unknown, then the pieces.

    Sentences are expected in the form that `corpus.normalise` gives; the model itself normalises nothing.
    """

    def __init__(self, model: bytes, where: str = "vocabulary"):
        """Wraps a serialised SentencePiece model; `where` names it in errors.

        Raises:
            VocabularyError: not a SentencePiece model, or one with its special ids in other places.
        """
        self.model = model
        if not model:  # SentencePiece accepts it, and then answers nonsense
            raise VocabularyError(f"{where}: the file is empty; run natjax prepare again")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            message = "damaged, or no SentencePiece model; run natjax prepare again"
            raise VocabularyError(f"{where}: {message}") from None
        p = self._processor
        found = (p.pad_id(), p.bos_id(), p.eos_id(), p.unk_id())
        if found != (PAD, BOS, EOS, UNK):
            raise VocabularyError(
                f"{where}: has pad, bos, eos, unk at {found} instead of (0, 1, 2, 3); train the vocabulary with natjax"
            )

    @classmethod
    def train(cls, sentences: Iterable[str], config: VocabConfig) -> "Vocabulary":
        """Learns the pieces; the same sentences in the same order give the same bytes.

        Args:
            sentences: normalised text, all of which is used (see `Draw`). They are handed on one by one.
            config: size, algorithm and character coverage.

        Raises:
            VocabularyError: the text allows no vocabulary of this size; the message says which size it does allow.
        """
        writer = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=writer,
                vocab_size=config.size,
                model_type=config.algorithm,
                character_coverage=config.character_coverage,
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                normalization_rule_name="identity",
                max_sentence_length=1 << 16,
                num_threads=_TRAINING_THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise VocabularyError(_explain(str(error), config.size)) from None
        return cls(writer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Reads a `vocab.model` file.

        Raises:
            VocabularyError: missing, damaged, or not natjax's.
        """
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            advice = "run the natjax prepare or natjax train that made it once more"
            raise VocabularyError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
        return cls(model, where=str(path))

    def save(self, path: str | Path) -> None:
        """Writes the model, whole or not at all. Raises WorkdirError where the system refuses."""
        write_bytes(path, self.model)

    def encode(self, sentences: Sequence[str], threads: int = -1) -> list[list[int]]:
        """Piece ids of each sentence, without bos and eos. `threads`: how many do it; -1, one a core."""
        return self._processor.encode(list(sentences), num_threads=threads)

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """Text of each row of ids. Padding, bos and eos are silent; an unknown piece reads ` ⁇ `."""
        return [self._processor.decode([int(i) for i in row]) for row in rows]

    def text(self, ids: Iterable[int], unknown: str) -> str:
        """As `decode`, of one row, but an unknown piece reads as this character and parts no words."""
        pieces = (unknown if i == UNK else self._processor.id_to_piece(int(i)) for i in ids if i not in (PAD, BOS, EOS))
        return "".join(pieces).replace("▁", " ").strip()

    def surfaces(self, sentence: str) -> list[str]:
        """The text of each piece of a sentence as it stands there, of unknown ones too; joined they give it back."""
        return [piece.replace("▁", " ") for piece in self._processor.encode(sentence, out_type=str)]

    @cached_property
    def unknown_character(self) -> str:
        """A character that is unknown here, and that `corpus.normalise` leaves as it is: one for private use."""
        return next(c for c in map(chr, range(0xE000, 0xF900)) if UNK in self._processor.encode(c))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The piece of each id, special ones included."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def __len__(self) -> int:
        return len(self._processor)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this vocabulary from any other."""
        return hashlib.sha256(self.model).hexdigest()[:16]


class Vocabularies(NamedTuple):
    """The vocabularies of both sides: one and the same object if joint."""

    source: Vocabulary
    target: Vocabulary

    @property
    def joint(self) -> bool:
        """Whether both sides share one vocabulary."""
        return self.source is self.target

    @classmethod
    def load(cls, folder: str | Path) -> "Vocabularies":
        """Reads `vocab.model`, or `vocab.source.model` and `vocab.target.model`.

        Raises:
            VocabularyError: missing, damaged, or not natjax's.
        """
        folder = Path(folder)
        if (folder / "vocab.source.model").exists():
            return cls(Vocabulary.load(folder / "vocab.source.model"), Vocabulary.load(folder / "vocab.target.model"))
        joint = Vocabulary.load(folder / "vocab.model")
        return cls(joint, joint)

    def save(self, folder: str | Path) -> None:
        """Writes into an existing folder what `load` reads."""
        for name, vocabulary in self.files().items():
            vocabulary.save(Path(folder) / name)

    def files(self) -> dict[str, Vocabulary]:
        """File name -> vocabulary."""
        if self.joint:
            return {"vocab.model": self.source}
        return {"vocab.source.model": self.source, "vocab.target.model": self.target}


class Draw:
    """Chooses `MAX_SENTENCES` of a number of sentences, or all where there are no more, in one pass and no memory.

    Each sentence is drawn on its own, equally likely, so how many are drawn is right in the mean only: within some
    thousand.

    Attributes:
        sentences: how many there are.
        wanted: how many shall be drawn.
        all: whether that is all of them.
    """

    def __init__(self, sentences: int, seed: int = 0):
        """Takes how many sentences will be asked about in all. The seed decides which of them are drawn."""
        self.sentences, self.wanted = sentences, min(sentences, MAX_SENTENCES)
        self.all = self.wanted == sentences
        self._below = np.uint64(min((self.wanted << 64) // max(sentences, 1), (1 << 64) - 1))
        # The raw stream: numpy keeps it the same for ever.
        self._stream = np.random.Philox(seed)

    def next(self, count: int) -> np.ndarray:
        """bool[count], which of the next sentences are drawn."""
        if self.all:
            return np.ones(count, bool)
        return self._stream.random_raw(count) < self._below


def _explain(message: str, size: int) -> str:
    """SentencePiece's message, in natjax's words."""
    if found := re.search(r"set it to a value <= (\d+)", message):
        return f"vocab.size {size}: the text allows at most {found[1]} pieces; set --vocab.size {found[1]}"
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"vocab.size {size}: the characters of the text alone need {found[1]}; "
            f"raise --vocab.size to at least that, or lower --vocab.character_coverage"
        )
    if "sentences_.empty()" in message:
        return "the vocabulary has no text to be trained on; check the training files"
    return f"SentencePiece cannot train the vocabulary: {one_line(message)}"
