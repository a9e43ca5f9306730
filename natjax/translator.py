"""Text in, text out: the whole way of a sentence through a trained model."""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from natjax import lm as language_models
from natjax import memory, models, objectives
from natjax.choosing import Chooser, hypotheses
from natjax.config import Config, DecodingConfig, validate
from natjax.data.corpus import normalise
from natjax.data.vocab import Vocabularies
from natjax.decoding import fields, scoring, ways
from natjax.decoding.passes import Decoded, Hypotheses, Pass, arrays, on_cpu, passes, unpadded
from natjax.decoding.shapes import CPU_ROWS, Shape, batches
from natjax.errors import UserError
from natjax.prefixes import forced
from natjax.segments import Hypothesis, OnCut, Segment, Segments, Translation, joined, segments, translation
from natjax.training import tuned
from natjax.training import workdir as workdirs
from natjax.typing import EOS, PyTree, TokenScorer

OnBatch = Callable[[int], None]


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


class Translator:
    """A trained model, ready to translate.

    Attributes:
        config: of the run.
        vocabularies: of the run.
        params: the weights, in the form that the compiled pass takes them (`prepare` in `decoding`).
        way: how it decodes, one of `decoding.ways.names`.

    >>> translator = Translator.load("runs/demo")                   # doctest: +SKIP
    >>> translator.translate(["The very clever boy often feeds the dog here."])   # doctest: +SKIP
    ['Der ganz besonders kluge Junge füttert immer wieder an diesem Ort den Hund.']
    """

    def __init__(
        self,
        config: Config,
        vocabularies: Vocabularies,
        params: PyTree | None,
        *,
        decode: str | None = None,
        lm: TokenScorer | None = None,
        teacher: "Translator | None" = None,
    ):
        """Use `load`; this is for code that has the parts at hand.

        Args:
            config: the run's config.
            vocabularies: of the run.
            params: the model's parameters; None where `with_params` is to give them.
            decode: see `load`.
            lm: of the target's pieces; a search with `decoding.lm_weight` needs it.
            teacher: what chooses in noisy parallel decoding.

        Raises:
            UserError: see `load`.
        """
        self.way = ways.chosen(config, decode)
        self.config, self.vocabularies = config, vocabularies
        self.objective = objectives.build(config)
        self._model = models.build(config, len(vocabularies.source), len(vocabularies.target))
        self._how = ways.build(self._model, self.objective, config, self.way, lm)
        self._chooser = Chooser(teacher, vocabularies.target, self._how.tries) if teacher else None
        self.params = None if params is None else self._how.prepare(params)

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
            decode: "greedy" is every model's. "beam" is the default of autoregressive models, and for CTC the prefix
                search, with a language model if `decoding.lm_weight` is not 0. "npd" and for CTC "npd+beam": noisy
                parallel decoding with `decoding.teacher`, for models with latents or a length to predict.
            decoding: fields of the config's decoding section, in place of what it says.
            say: told of damaged weights that are passed over, and of tuned weights that were tuned for another search;
                a Python warning unless given.

        Raises:
            WorkdirError: something that translating needs is not there.
            CheckpointError: the weights are damaged.
            ConfigError: a field of `decoding` is out of range, or changes nothing for this model and way of decoding.
            UserError: a way of decoding that does not exist, or not for this model.
        """
        config, vocabularies, params = workdirs.load_model(Path(path), say)
        found = tuned.read(Path(path))
        config = replace(config, decoding=replace(config.decoding, **{**found.fields, **(decoding or {})}))
        validate(config)
        way = ways.chosen(config, decode)
        fields.check_given(path, config, way, decoding or {})
        lm, fingerprint = None, None
        if ways.uses_lm(config, way):
            lm, fingerprint = language_model(Path(path), config, vocabularies)
        if ways.searches_frames(config, way):
            for doubt in tuned.doubts(Path(path), found, config.decoding, fingerprint):
                say(doubt)
        teacher = _teacher(Path(path), config, say) if way.startswith("npd") else None
        return cls(config, vocabularies, params, decode=way, lm=lm, teacher=teacher)

    def with_params(self, params: PyTree) -> "Translator":
        """The same compiled programs with other weights."""
        other = object.__new__(Translator)
        other.__dict__.update(self.__dict__, params=self._how.prepare(params))
        return other

    def warm_up(self, lines: Sequence[str]) -> int:
        """Compiles the programs that translating these lines takes and runs each once, for clocks to start after it.

        Returns:
            How many programs that were.
        """
        shapes = list(dict.fromkeys(shape for shape, _ in self._plan(self._segments(lines).sources)))
        for shape in shapes:
            jax.block_until_ready(self._how.decode(self.params, *arrays(shape, [])))
        if self._chooser:  # its shapes depend on what is translated
            self.translate(lines)
        return len(shapes)

    @property
    def hypotheses(self) -> int:
        """How many translations of a line there are at most in `Translation.n_best`."""
        return self._how.hypotheses

    def translate(
        self,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        on_batch: OnBatch | None = None,
        on_cut: OnCut | None = None,
    ) -> list[str]:
        """Translates lines; order is kept, and an empty line stays empty.

        A line of more than `decoding.max_source_length` pieces is cut, after a sentence's end where there is one and
        else between words; the parts are translated and joined by a space.

        Args:
            lines: raw text, one sentence each.
            prefixes: how each line's translation has to begin, for autoregressive models; empty where it is free. An
                empty line stays empty all the same, and of a line that is cut the first part begins so.
            on_batch: called with the number of segments that each finished batch held.
            on_cut: called with the place in `lines` and the number of segments of each line that is cut, before
                anything is translated.

        Raises:
            TypeError: `lines` or `prefixes` is a single string.
            ValueError: there are more or fewer prefixes than lines.
            UserError: prefixes, but the model is not autoregressive, or one leaves its translation no room
                (`PrefixError`); nothing has been translated then.
        """
        parts = self._segments(lines, on_cut)
        begin = forced(prefixes, parts, self.config, self.vocabularies.target)
        texts = [""] * len(parts.sources)

        def finish(indices: list[int], kept: Any) -> list[list[int]]:
            if self._chooser:
                return self._chooser.best([parts.texts[i] for i in indices], kept)
            return unpadded(*kept, len(indices))

        keep = _tries if self._chooser else _essence
        for done in self._passes(parts, prefixes=begin, keep=keep, finish=finish):
            for index, text in zip(done.indices, self.vocabularies.target.decode(done.results), strict=True):
                texts[index] = text
            if on_batch:
                on_batch(len(done.indices))
        return [joined(some) for some in parts.by_line(texts)]

    def translate_with_details(
        self,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        golden_lengths: Sequence[int] | None = None,
        on_batch: OnBatch | None = None,
        on_cut: OnCut | None = None,
    ) -> list[Translation]:
        """As `translate`, with what happened inside.

        Args:
            lines: raw text.
            prefixes: see `translate`.
            golden_lengths: target lengths in pieces, one a line, instead of predicted ones; for losses with a length,
                to tell the loss from the length classifier.
            on_batch: see `translate`.
            on_cut: see `translate`.

        Raises:
            ValueError: there are more or fewer golden lengths than lines. Else see `translate`.
        """
        parts = self._segments(lines, on_cut)
        if golden_lengths is not None and len(golden_lengths) != len(lines):
            raise ValueError(f"{len(golden_lengths)} golden lengths for {len(lines)} lines; give one a line")
        golden = None if golden_lengths is None else [golden_lengths[line] for line in parts.owners]
        begin = forced(prefixes, parts, self.config, self.vocabularies.target)
        results: list[Segment | None] = [None] * len(parts.sources)
        finish = functools.partial(self._outcomes, parts)
        for done in self._passes(parts, golden=golden, prefixes=begin, finish=finish):
            for index, segment in zip(done.indices, done.results, strict=True):
                results[index] = segment._replace(seconds=done.seconds)
            if on_batch:
                on_batch(len(done.indices))
        target, length_penalty = self.vocabularies.target, self._how.length_penalty
        return [translation(some, target, length_penalty) for some in parts.by_line(results)]

    def _outcomes(self, parts: Segments, indices: list[int], out: Decoded) -> list[Segment]:
        """What came of a batch's sentences, but for its time."""
        if self._chooser:
            ranked = self._chooser.ranked([parts.texts[i] for i in indices], out.n_best)
            return [Segment(best[0].tokens, best[0].tokens, best[0].sum, 0.0, best) for best in ranked]
        tokens, frames = (unpadded(*pair, len(indices)) for pair in (out[:2], out[2:4]))
        found = []
        for row in range(len(indices)):
            score = float(out.scores[row])
            n_best = hypotheses(out.n_best, row) if out.n_best else [Hypothesis(tokens[row], score, len(frames[row]))]
            found.append(Segment(tokens[row], frames[row], score, 0.0, n_best))
        return found

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
        source, target = self._pieces(sources, targets)
        return [score for (score,) in self._scores(source, [[ids] for ids in target])]

    def score_each(
        self, sources: Sequence[str], targets: Sequence[Sequence[str]], room: int | None = None
    ) -> list[list[scoring.Score]]:
        """As `score`, of several targets a source, which is encoded once for all of them.

        Args:
            sources: raw text.
            targets: raw text, some for each source.
            room: of how many targets a source the compiled program has room; None: the most that one has here.

        Returns:
            The scores of each source's targets; -inf for those where either side is too long for the model.

        Raises:
            ValueError: the sides differ in their number of lines.
            UserError: see `score`.
        """
        counts = [len(some) for some in targets]
        source, flat = self._pieces(sources, [text for some in targets for text in some])
        rest, (most_source, most_target) = iter(flat), self._scorer.limits
        target = [[next(rest) for _ in range(count)] for count in counts]
        unsayable = scoring.Score(-np.inf, -np.inf, 0)
        fits = [
            [len(ids) <= (most_target or len(ids)) and len(of) <= most_source for ids in some]
            for of, some in zip(source, target, strict=True)
        ]
        kept = [row for row, some in enumerate(fits) if any(some)]
        given = [[ids for ids, fit in zip(target[row], fits[row], strict=True) if fit] for row in kept]
        scores = dict(zip(kept, map(iter, self._scores([source[row] for row in kept], given, room)), strict=True))
        return [[next(scores[row]) if fit else unsayable for fit in some] for row, some in enumerate(fits)]

    def _pieces(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        source, target = (
            vocabulary.encode([normalise(line) for line in lines])
            for vocabulary, lines in zip(self.vocabularies, (sources, targets), strict=True)
        )
        end = [EOS] if self.config.objective.target_eos else []
        return [[*ids, EOS] for ids in source], [[*ids, *end] for ids in target]

    def _scores(
        self, sources: list[list[int]], targets: list[list[list[int]]], room: int | None = None
    ) -> list[list[scoring.Score]]:
        with self._memory_explained():
            frames = self.config.decoding.batch_frames
            return scoring.scores(self._scorer, self.params, sources, targets, frames, on_cpu(CPU_ROWS), room)

    def check_search(self, decoding: DecodingConfig) -> None:
        """Raises ConfigError for a search over CTC's frames that is wider than this model allows."""
        ways.check_search(decoding, self._model, self.objective)

    def pruned(self, lines: Sequence[str]) -> tuple[Segments, list[Pass]]:
        """What a search over CTC's frames would look at.

        Args:
            lines: raw text.

        Returns:
            The lines' segments, and for each batch `Pruned` and the rows' numbers of frames.

        Raises:
            ConfigError: a search that is wider than the vocabulary or the frames allow.
        """
        self.check_search(self.config.decoding)
        parts, prune = self._segments(lines), ways.prune_of(self._model, self.objective, self.config)
        with self._memory_explained():
            return parts, list(passes(prune, self.params, self._plan(parts.sources), parts.sources))

    @functools.cached_property
    def _scorer(self) -> scoring.Scorer:
        return scoring.scorer(self._model, self.objective, self.config)

    def _segments(self, lines: Sequence[str], on_cut: OnCut | None = None) -> Segments:
        return segments(lines, self.vocabularies.source, self.config.decoding.max_source_length, on_cut)

    def _plan(self, sources: list[list[int]]) -> list[tuple[Shape, list[int]]]:
        decoding, lengths = self.config.decoding, [len(ids) for ids in sources]
        rows = on_cpu(self._how.cpu_rows)
        return batches(lengths, decoding.max_source_length, decoding.batch_frames, self._how.frames, rows)

    def _passes(self, parts: Segments, **options: Any) -> Iterator[Pass]:
        with self._memory_explained():
            yield from passes(self._how.decode, self.params, self._plan(parts.sources), parts.sources, **options)

    def _memory_explained(self) -> AbstractContextManager[None]:
        frames = self.config.decoding.batch_frames
        return memory.explained(
            f"batches of decoding.batch_frames {frames:,} do not fit into memory; lower it in config.json"
        )


def language_model(path: Path, config: Config, vocabularies: Vocabularies) -> tuple[TokenScorer, str]:
    """The tables that a search asks, and their fingerprint. Raises UserError: none there, or those of other pieces."""
    folder = Path(config.decoding.lm or path / "lm")
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no language model there; make one with `natjax lm train --model {path}`, or name another folder"
            + (f"; or set decoding.lm_weight 0, it is {weight:g}" if (weight := config.decoding.lm_weight) else "")
        )
    # Once, and not with each batch.
    tables = jax.device_put(language_models.load_tables(folder, vocabulary=vocabularies.target.fingerprint))
    return tables, language_models.fingerprint(folder)


def _teacher(path: Path, config: Config, say: Callable[[str], None]) -> Translator:
    """What chooses among tries. Raises UserError where there is none, or one that is not autoregressive."""
    folder = Path(config.decoding.teacher or path / "teacher")
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder, but noisy parallel decoding needs a teacher; name its workdir with "
            f"--decoding.teacher, or link it there"
        )
    teacher = Translator.load(folder, decode="greedy", say=say)
    if teacher.config.model.kind != "autoregressive":
        raise UserError(f"{folder}: not autoregressive, so it cannot choose; name the workdir of a teacher")
    return teacher


def _tries(out: Decoded) -> Hypotheses:
    return out.n_best


def _essence(out: Decoded) -> tuple[Any, Any]:
    return out.tokens, out.lengths
