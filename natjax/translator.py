"""Text in, text out: the whole way of a sentence through a trained model."""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from natjax import memory, models, objectives
from natjax.config import Config, validate
from natjax.data.corpus import normalise
from natjax.data.vocab import Vocabularies
from natjax.decoding import autoregressive, scoring, single_pass
from natjax.decoding.beam import BeamResult
from natjax.decoding.shapes import CPU_ROWS, Shape, batches
from natjax.errors import ConfigError, UserError
from natjax.frames import length_limit, target_limit
from natjax.training import workdir as workdirs
from natjax.typing import EOS, PyTree

OnBatch = Callable[[int], None]
OnCut = Callable[[int, int], None]


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
        seconds: time of the line's batch divided by the batch's sentences; compiling a new shape counts, too, see
            `Translator.warm_up`.
        segments: 1, or into how many parts an over-long line was cut.
        n_best: the texts of all hypotheses, best first; greedy decoding gives its one. Of several segments, the
            first alternatives are joined, then the second ones, and so on.
        n_best_scores: their scores, for a beam divided by length^length_penalty; added up over segments.
    """

    text: str
    tokens: list[str]
    frames: list[str]
    score: float
    seconds: float
    segments: int
    n_best: list[str]
    n_best_scores: list[float]


class Translator:
    """A trained model, ready to translate.

    Attributes:
        config: of the run.
        vocabularies: of the run.
        params: the weights, in the form that the compiled pass takes them (`prepare` in `decoding`).

    >>> translator = Translator.load("runs/demo")                   # doctest: +SKIP
    >>> translator.translate(["The very clever boy often feeds the dog here."])   # doctest: +SKIP
    ['Der ganz besonders kluge Junge füttert immer wieder an diesem Ort den Hund.']
    """

    def __init__(self, config: Config, vocabularies: Vocabularies, params: PyTree | None, *, decode: str | None = None):
        """Use `load`; this is for code that has the parts at hand.

        Args:
            config: the run's config.
            vocabularies: of the run.
            params: the model's parameters; None where `with_params` is to give them.
            decode: see `load`.

        Raises:
            UserError: see `load`.
        """
        ways = ("beam", "greedy") if config.model.kind == "autoregressive" else ("greedy",)
        decode = decode or ways[0]
        if decode not in ways:
            raise UserError(
                f"decoding by {decode!r} does not exist for {config.model.kind}; choose {' or '.join(ways)}"
            )
        self.config, self.vocabularies = config, vocabularies
        self.objective = objectives.build(config)
        self._model = model = models.build(config, len(vocabularies.source), len(vocabularies.target))
        decoding = config.decoding
        if config.model.kind == "autoregressive":
            self._decode = autoregressive.make_decode(
                model,
                beam_size=decoding.beam_size if decode == "beam" else 1,
                length_penalty=decoding.length_penalty,
                max_length_ratio=decoding.max_length_ratio,
            )
        else:
            self._decode = single_pass.make_decode(
                model,
                self.objective,
                candidates=decoding.length_candidates,
                length_multiplier=decoding.length_multiplier,
                blank_penalty=decoding.blank_penalty,
                temperature=decoding.latent_temperature,
                seed=config.training.seed,
            )
        self.params = self._prepared(params)

    def _prepared(self, params: PyTree | None) -> PyTree | None:
        if params is None:
            return None
        how = autoregressive if self.config.model.kind == "autoregressive" else single_pass
        return how.prepare(params, self.config.model.dtype)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        decode: str | None = None,
        decoding: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = _warn,
    ) -> "Translator":
        """Loads a workdir.

        Args:
            path: a workdir of `natjax train`. Of its averages and checkpoints the one with the best validation BLEU
                is used; of an unfinished run, the latest checkpoint.
            decode: "greedy", or for autoregressive models "beam" with the config's `decoding.beam_size` and
                `length_penalty`, which is their default.
            decoding: fields of the config's decoding section, in place of what it says.
            say: told of damaged weights that are passed over; a Python warning unless given.

        Raises:
            WorkdirError: something that translating needs is not there.
            CheckpointError: the weights are damaged.
            ConfigError: a field of `decoding` is out of range, or not for this model.
            UserError: a way of decoding that does not exist, or not for this model.
        """
        config, vocabularies, params = workdirs.load_model(Path(path), say)
        config = replace(config, decoding=replace(config.decoding, **(decoding or {})))
        validate(config)
        _check_applies(path, config, decoding or {})
        return cls(config, vocabularies, params, decode=decode)

    def with_params(self, params: PyTree) -> "Translator":
        """The same compiled programs with other weights."""
        other = object.__new__(Translator)
        other.__dict__.update(self.__dict__, params=self._prepared(params))
        return other

    def warm_up(self, lines: Sequence[str]) -> int:
        """Compiles the programs that translating these lines takes and runs each once, for clocks to start after it.

        Returns:
            How many programs that were.
        """
        shapes = list(dict.fromkeys(shape for shape, _ in self._plan(self._segments(lines).sources)))
        for shape in shapes:
            jax.block_until_ready(self._decode(self.params, *single_pass.arrays(shape, [])))
        return len(shapes)

    def translate(
        self, lines: Sequence[str], *, on_batch: OnBatch | None = None, on_cut: OnCut | None = None
    ) -> list[str]:
        """Translates lines; order is kept, and an empty line stays empty.

        A line of more than `decoding.max_source_length` pieces is cut, after a sentence's end where there is one and
        else between words; the parts are translated and joined by a space.

        Args:
            lines: raw text, one sentence each.
            on_batch: called with the number of segments that each finished batch held.
            on_cut: called with the place in `lines` and the number of segments of each line that is cut, before
                anything is translated.

        Raises:
            TypeError: `lines` is a single string.
        """
        segments = self._segments(lines, on_cut)
        texts = [""] * len(segments.sources)
        for done in self._passes(segments, keep=lambda out: (out.tokens, out.lengths)):
            decoded = self.vocabularies.target.decode(_rows(*done.results, len(done.indices)))
            for index, text in zip(done.indices, decoded, strict=True):
                texts[index] = text
            if on_batch:
                on_batch(len(done.indices))
        return [_joined(parts) for parts in segments.by_line(texts)]

    def translate_with_details(
        self,
        lines: Sequence[str],
        *,
        golden_lengths: Sequence[int] | None = None,
        on_batch: OnBatch | None = None,
        on_cut: OnCut | None = None,
    ) -> list[Translation]:
        """As `translate`, with what happened inside.

        Args:
            lines: raw text.
            golden_lengths: target lengths in pieces, one a line, instead of predicted ones; for losses with a length,
                to tell the loss from the length classifier.
            on_batch: see `translate`.
            on_cut: see `translate`.

        Raises:
            TypeError: `lines` is a single string.
            ValueError: there are more or fewer golden lengths than lines.
        """
        segments = self._segments(lines, on_cut)
        if golden_lengths is not None and len(golden_lengths) != len(lines):
            raise ValueError(f"{len(golden_lengths)} golden lengths for {len(lines)} lines; give one a line")
        golden = None if golden_lengths is None else [golden_lengths[line] for line in segments.owners]
        results: list[_Segment | None] = [None] * len(segments.sources)
        for done in self._passes(segments, golden=golden):
            out, count = done.results, len(done.indices)
            tokens, frames = _rows(out.tokens, out.lengths, count), _rows(out.frames, out.frame_lengths, count)
            for row, index in enumerate(done.indices):
                score = float(out.scores[row])
                hypotheses = _hypotheses(out.n_best, row) if out.n_best else [(tokens[row], score)]
                results[index] = _Segment(tokens[row], frames[row], score, done.seconds, hypotheses)
            if on_batch:
                on_batch(count)
        return [self._translation(parts) for parts in segments.by_line(results)]

    def score(self, sources: Sequence[str], targets: Sequence[str]) -> list[scoring.Score]:
        """How probable given translations are: by teacher forcing, or for CTC summed over all alignments.

        Args:
            sources: raw text. An empty line is a sentence without pieces, and scored like any other.
            targets: raw text, one a source.

        Returns:
            The log-probability of each target, its mean by token, and its number of tokens; order is kept. A target
            that CTC's frames cannot hold has -inf.

        Raises:
            TypeError: one side is a single string.
            ValueError: the sides differ in their number of lines.
            DataError: a line is too long; nothing is scored then.
            UserError: the model gives translations no probability: trained with `ce` or `axe`, and not
                autoregressive.
        """
        if isinstance(sources, str | bytes) or isinstance(targets, str | bytes):
            raise TypeError("one side is a single string, which would be scored letter by letter; give lists: [line]")
        if len(sources) != len(targets):
            raise ValueError(f"{len(targets)} targets for {len(sources)} sources; give one a source")
        source, target = (
            vocabulary.encode([normalise(line) for line in lines])
            for vocabulary, lines in zip(self.vocabularies, (sources, targets), strict=True)
        )
        end = [EOS] if self.config.objective.target_eos else []
        sides = [[*ids, EOS] for ids in source], [[*ids, *end] for ids in target]
        with self._memory_explained():
            return scoring.scores(self._scorer, self.params, *sides, self.config.decoding.batch_frames, _most_rows())

    @functools.cached_property
    def _scorer(self) -> scoring.Scorer:
        return scoring.scorer(self._model, self.objective, self.config)

    def _segments(self, lines: Sequence[str], on_cut: OnCut | None = None) -> "_Segments":
        if isinstance(lines, str | bytes):
            raise TypeError("lines is a single string, which would be translated letter by letter; give a list: [line]")
        pieces = self.vocabularies.source.encode([normalise(line) for line in lines])
        sources, owners = [], []
        for line, ids in enumerate(pieces):
            limit = self.config.decoding.max_source_length - 1  # room for eos
            parts = _cut(ids, self.vocabularies.source.pieces(ids), limit) if len(ids) > limit else [ids] if ids else []
            sources += [[*part, EOS] for part in parts]
            owners += [line] * len(parts)
            if on_cut and len(parts) > 1:
                on_cut(line, len(parts))
        return _Segments(sources, owners, len(pieces))

    def _plan(self, sources: list[list[int]]) -> list[tuple[Shape, list[int]]]:
        decoding = self.config.decoding
        return batches(
            [len(ids) for ids in sources],
            decoding.max_source_length,
            decoding.batch_frames,
            self._frames,
            _most_rows(),
        )

    def _frames(self, S: int) -> int:
        """Decoder positions of a padded source length, those of all length candidates together."""
        decoding = self.config.decoding
        if self.config.model.kind == "autoregressive":
            return target_limit(S, decoding.max_length_ratio)
        if not self.objective.needs_length:
            return self.objective.max_frames(S, 0)
        longest = length_limit(S, self.config.objective.length_range, decoding.length_multiplier)
        return decoding.length_candidates * self.objective.max_frames(S, longest)

    def _passes(self, segments: "_Segments", **options: Any) -> Iterator[single_pass.Pass]:
        plan = self._plan(segments.sources)
        with self._memory_explained():
            yield from single_pass.passes(self._decode, self.params, plan, segments.sources, **options)

    def _memory_explained(self) -> AbstractContextManager[None]:
        frames = self.config.decoding.batch_frames
        return memory.explained(
            f"batches of decoding.batch_frames {frames:,} do not fit into memory; lower it in config.json"
        )

    def _translation(self, parts: list["_Segment"]) -> Translation:
        vocabulary = self.vocabularies.target
        # One entry for each rank that all segments have; a line without any has its one empty text.
        ranks = list(zip(*(p.hypotheses for p in parts), strict=False)) or [()]
        return Translation(
            text=_joined(vocabulary.decode([p.tokens for p in parts])),
            tokens=[piece for p in parts for piece in vocabulary.pieces(p.tokens)],
            frames=[piece if f else "" for p in parts for f, piece in zip(p.frames, vocabulary.pieces(p.frames))],
            score=sum(p.score for p in parts),
            seconds=sum(p.seconds for p in parts),
            segments=len(parts),
            n_best=[_joined(vocabulary.decode([tokens for tokens, _ in rank])) for rank in ranks],
            n_best_scores=[sum(score for _, score in rank) for rank in ranks],
        )


class _Segment(NamedTuple):
    tokens: list[int]
    frames: list[int]
    score: float
    seconds: float
    hypotheses: list[tuple[list[int], float]]


def _check_applies(path: str | Path, config: Config, decoding: Mapping[str, Any]) -> None:
    """Raises ConfigError if a field is given that changes nothing for this model."""
    is_nat, loss = config.model.kind == "nat", config.objective.loss
    has = {
        "blank_penalty": (is_nat and loss == "ctc", "blank to hold back"),
        "length_candidates": (is_nat and config.objective.needs_length, "length to predict"),
        "length_multiplier": (is_nat and config.objective.needs_length, "length to predict"),
        "latent_temperature": (config.model.latents == "vae", "latents to draw"),
        **dict.fromkeys(("beam_size", "length_penalty", "max_length_ratio"), (not is_nat, "beam")),
    }
    for name in decoding:
        applies, what = has.get(name, (True, ""))
        if not applies:
            how = f"trained with {loss}" if is_nat else "autoregressive"
            raise ConfigError(f"{path}: {how}, which has no {what}; leave decoding.{name} out")


class _Segments(NamedTuple):
    """Lines as what is translated in one piece: source ids with eos, and the line that each belongs to."""

    sources: list[list[int]]
    owners: list[int]
    lines: int

    def by_line(self, results: list[Any]) -> list[list[Any]]:
        found: list[list[Any]] = [[] for _ in range(self.lines)]
        for line, result in zip(self.owners, results, strict=True):
            found[line].append(result)
        return found


def _most_rows() -> int | None:
    return CPU_ROWS if jax.default_backend() == "cpu" else None


def _joined(texts: list[str]) -> str:
    return " ".join(filter(None, texts))


def _rows(ids_BT: np.ndarray, lengths_B: np.ndarray, count: int) -> list[list[int]]:
    """The first `count` rows without their padding."""
    return [ids_BT[row, : lengths_B[row]].tolist() for row in range(count)]


def _hypotheses(found: BeamResult, row: int) -> list[tuple[list[int], float]]:
    """Tokens and score of those that exist."""
    each = zip(found.tokens[row], found.lengths[row], found.scores[row], strict=True)
    return [(tokens[:length].tolist(), float(score)) for tokens, length, score in each if score > -np.inf]


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
