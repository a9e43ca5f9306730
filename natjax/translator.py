"""Text in, text out: the whole way of a sentence through a trained model."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from natjax import objectives
from natjax.config import Config
from natjax.data.corpus import normalise
from natjax.data.vocab import Vocabularies
from natjax.decoding.shapes import Shape, batches
from natjax.decoding.single_pass import Decoded, make_decode
from natjax.errors import UserError
from natjax.models import nat
from natjax.training import workdir as workdirs
from natjax.typing import EOS, PyTree


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


@dataclass(frozen=True)
class Translation:
    """One translated line.

    Attributes:
        text: the translation.
        tokens: its pieces.
        frames: the piece of each decoder frame, "" for blank; several segments follow one another.
        score: log-probability of the frames' best tokens, nats.
        seconds: time of the line's batch divided by its rows.
        segments: 1, or into how many parts an over-long line was cut.
        n_best: alternatives, best first; the greedy decoder gives its one.
    """

    text: str
    tokens: list[str]
    frames: list[str]
    score: float
    seconds: float
    segments: int
    n_best: list[str]


class Translator:
    """A trained model, ready to translate.

    >>> translator = Translator.load("runs/demo")                   # doctest: +SKIP
    >>> translator.translate(["The old farmer sells the horse."])   # doctest: +SKIP
    ['Der alte Bauer verkauft das Pferd.']
    """

    def __init__(self, config: Config, vocabularies: Vocabularies, params: PyTree):
        """Use `load`; this is for code that has the parts at hand.

        Args:
            config: the run's config.
            vocabularies: of the run.
            params: the model's parameters.
        """
        self.config, self.vocabularies, self.params = config, vocabularies, params
        self.objective = objectives.build(config)
        model = nat.build(
            config, len(vocabularies.source), len(vocabularies.target), needs_length=self.objective.needs_length
        )
        self._decode = make_decode(model, self.objective, candidates=config.decoding.length_candidates)

    @classmethod
    def load(cls, path: str | Path, *, decode: str = "greedy", say: Callable[[str], None] = _warn) -> "Translator":
        """Loads a workdir.

        Args:
            path: a workdir of `natjax train`. Of its averages and checkpoints the one with the best validation BLEU
                is used; of an unfinished run, the latest checkpoint.
            decode: "greedy".
            say: told of damaged weights that are passed over; a Python warning unless given.

        Raises:
            WorkdirError: something that translating needs is not there.
            CheckpointError: the weights are damaged.
            UserError: a way of decoding that does not exist.
        """
        if decode != "greedy":
            raise UserError(f"unknown way of decoding {decode!r}; choose greedy")
        config, vocabularies, params = workdirs.load_model(Path(path), say)
        return cls(config, vocabularies, params)

    def with_params(self, params: PyTree) -> "Translator":
        """The same compiled programs with other weights."""
        other = object.__new__(Translator)
        other.__dict__.update(self.__dict__, params=params)
        return other

    def translate(self, lines: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> list[str]:
        """Translates lines; order is kept, and an empty line stays empty.

        A line of more than `decoding.max_source_length` pieces is cut, after a sentence's end where there is one and
        else between words; the parts are translated and joined by a space.

        Args:
            lines: raw text, one sentence each.
            on_batch: called with the number of segments that each finished batch held.
        """
        return [t.text for t in self.translate_with_details(lines, on_batch=on_batch)]

    def translate_with_details(
        self,
        lines: Sequence[str],
        *,
        golden_lengths: Sequence[int] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Translation]:
        """As `translate`, with what happened inside.

        Args:
            lines: raw text.
            golden_lengths: target lengths in pieces, one a line, instead of predicted ones; for losses with a length,
                to tell the loss from the length classifier.
            on_batch: see `translate`.
        """
        pieces = self.vocabularies.source.encode([normalise(line) for line in lines])
        limit = self.config.decoding.max_source_length
        segments: list[list[int]] = []
        owners: list[int] = []
        for line, ids in enumerate(pieces):
            parts = _cut(ids, self.vocabularies.source.pieces(ids), limit - 1) if ids else []
            segments += parts
            owners += [line] * len(parts)
        golden = None if golden_lengths is None else [golden_lengths[line] for line in owners]
        results: list[_Segment | None] = [None] * len(segments)
        plan = batches(
            [len(s) + 1 for s in segments],
            limit,
            self.config.decoding.batch_frames,
            lambda S: self.objective.max_frames(S, S + self.config.objective.length_range),
        )
        for shape, indices in plan:
            for index, result in zip(indices, self._run(shape, indices, segments, golden), strict=True):
                results[index] = result
            if on_batch:
                on_batch(len(indices))
        by_line: list[list[_Segment]] = [[] for _ in lines]
        for line, result in zip(owners, results, strict=True):
            by_line[line].append(result)
        return [self._join(parts) for parts in by_line]

    def _run(
        self, shape: Shape, indices: list[int], segments: list[list[int]], golden: list[int] | None
    ) -> list["_Segment"]:
        source = np.zeros((shape.rows, shape.S), np.int32)
        source[:, 0] = EOS  # rows of padding hold an empty sentence
        lengths = np.ones(shape.rows, np.int32)
        for row, index in enumerate(indices):
            ids = [*segments[index], EOS]
            source[row, : len(ids)] = ids
            lengths[row] = len(ids)
        wanted = None
        if golden is not None:
            wanted = np.ones(shape.rows, np.int32)
            wanted[: len(indices)] = [golden[i] for i in indices]
            wanted = jnp.asarray(wanted)
        start = time.perf_counter()
        out: Decoded = jax.device_get(self._decode(self.params, jnp.asarray(source), jnp.asarray(lengths), wanted))
        seconds = (time.perf_counter() - start) / len(indices)
        return [
            _Segment(
                out.tokens[r, : out.lengths[r]].tolist(),
                out.frames[r, : out.frame_lengths[r]].tolist(),
                float(out.scores[r]),
                seconds,
            )
            for r in range(len(indices))
        ]

    def _join(self, parts: list["_Segment"]) -> Translation:
        vocabulary = self.vocabularies.target
        text = " ".join(filter(None, vocabulary.decode([p.tokens for p in parts]))) if parts else ""
        return Translation(
            text=text,
            tokens=[piece for p in parts for piece in vocabulary.pieces(p.tokens)],
            frames=[vocabulary.pieces([f])[0] if f else "" for p in parts for f in p.frames],
            score=sum(p.score for p in parts),
            seconds=sum(p.seconds for p in parts),
            segments=len(parts),
            n_best=[text],
        )


@dataclasses.dataclass(frozen=True)
class _Segment:
    tokens: list[int]
    frames: list[int]
    score: float
    seconds: float


def _cut(ids: list[int], pieces: list[str], limit: int) -> list[list[int]]:
    """Parts of at most `limit` pieces: after a sentence's end if one lies in the second half, else between words."""
    parts = []
    while len(ids) > limit:
        words = [i for i in range(1, limit + 1) if pieces[i].startswith("▁")]
        ends = [i for i in words if i > limit // 2 and pieces[i - 1].endswith((".", "!", "?", "。"))]
        at = ends[-1] if ends else words[-1] if words else limit
        parts.append(ids[:at])
        ids, pieces = ids[at:], pieces[at:]
    return [*parts, ids]
