"""The weights of the search over CTC's frames, chosen on validation text.

The model is run once over the text; what the search needs of each frame is kept. Weights are arguments of the compiled
search, so that a point (α, β) costs a search and nothing else.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from natjax.config import DecodingConfig, validate
from natjax.ctc import Pruned
from natjax.decoding import fields, ways
from natjax.decoding.lattice import Search, Weights, best, weights
from natjax.errors import UserError
from natjax.evaluation.metrics import Scores, score
from natjax.segments import joined
from natjax.training import tuned, workdir
from natjax.translator import Translator, language_model
from natjax.typing import Array, TokenScorer


@dataclass(frozen=True)
class Point:
    """What is tried: a beam, α and β."""

    ctc_beam_size: int
    lm_weight: float
    length_bonus: float


@dataclass(frozen=True)
class Tried:
    """A point and how good the translations are with it."""

    point: Point
    scores: Scores


class Tuner:
    """Scores points on a text.

    Attributes:
        programs: how many searches have been compiled: one for each beam and each shape of a batch.
    """

    def __init__(
        self,
        translator: Translator,
        lm: TokenScorer | None,
        sources: Sequence[str],
        references: Sequence[Sequence[str]],
        **tokens: str,
    ):
        """Runs the model over the sources.

        Args:
            translator: of a model trained with CTC.
            lm: the language model; None: α must be 0.
            sources: raw text.
            references: of each source.
            **tokens: how BLEU tokenizes; see `metrics.score`.
        """
        self._translator, self._lm, self._references, self._tokens = translator, lm, references, tokens
        self._search = ways.search_of(translator.config, lm)
        self._parts, self._batches = translator.pruned(sources)
        self._compiled: dict[int, Callable] = {}

    @property
    def programs(self) -> int:
        """See above."""
        return sum(compiled._cache_size() for compiled in self._compiled.values())

    def score(self, point: Point) -> Tried:
        """The scores with a point's weights. Raises ConfigError for a beam that is too wide, or a weight without lm."""
        beam = point.ctc_beam_size
        self._translator.check_search(replace(self._translator.config.decoding, ctc_beam_size=beam))
        if beam not in self._compiled:
            self._compiled[beam] = jax.jit(partial(_tokens, search=replace(self._search, beam_size=beam)))
        chosen = weights(self._lm, point.lm_weight, point.length_bonus)
        texts = [""] * len(self._parts.sources)
        for batch in self._batches:
            tokens_BT, lengths_B = jax.device_get(self._compiled[beam](*batch.results, chosen))
            rows = [tokens[:length].tolist() for tokens, length in zip(tokens_BT, lengths_B, strict=True)]
            decoded = self._translator.vocabularies.target.decode(rows[: len(batch.indices)])
            for index, text in zip(batch.indices, decoded, strict=True):
                texts[index] = text
        lines = [joined(parts) for parts in self._parts.by_line(texts)]
        return Tried(point, score(lines, self._references, **self._tokens))


def _tokens(pruned: Pruned, frame_lengths: Array, weights: Weights, *, search: Search) -> tuple[Array, Array]:
    found = best(pruned, frame_lengths, search, weights)
    return found.tokens[:, 0], found.lengths[:, 0]


def grid(beams: Sequence[int], alphas: Sequence[float], betas: Sequence[float]) -> list[Point]:
    """Every combination."""
    return [Point(w, a, b) for w in beams for a in alphas for b in betas]


def start(decoding: DecodingConfig, beams: Sequence[int], alphas: Sequence[float], betas: Sequence[float]) -> Point:
    """The point nearest to what a config says, of equals the first."""
    return Point(
        min(beams, key=lambda beam: abs(beam - decoding.ctc_beam_size)),
        min(alphas, key=lambda alpha: abs(alpha - decoding.lm_weight)),
        min(betas, key=lambda beta: abs(beta - decoding.length_bonus)),
    )


def coordinates(
    tried: Callable[[Point], float], beams: Sequence[int], alphas: Sequence[float], betas: Sequence[float], start: Point
) -> Iterator[Point]:
    """Line by line: the best β, then the best α, then the best beam with the others fixed, until nothing improves.

    Args:
        tried: the score of a point that has been yielded before.
        beams: values to try.
        alphas: values to try.
        betas: values to try.
        start: where to begin.

    Yields:
        Points to try, none twice.
    """
    seen, here = {start}, start
    yield start
    while True:
        before = here
        for name, values in (("length_bonus", betas), ("lm_weight", alphas), ("ctc_beam_size", beams)):
            line = [replace(here, **{name: value}) for value in values]
            for point in line:
                if point not in seen:
                    seen.add(point)
                    yield point
            here = max([here, *line], key=tried)  # the first of equals: it stays where it is
        if here == before:
            return


class Opened(NamedTuple):
    """What is tuned.

    Attributes:
        translator: of the model, greedy; its config's decoding section says how the search is to be compiled.
        lm: the language model, or None.
        fingerprint: of the language model, or None.
    """

    translator: Translator
    lm: TokenScorer | None
    fingerprint: str | None


def open_model(folder: Path, decoding: Mapping[str, Any], say: Callable[[str], None]) -> Opened:
    """A workdir's model and language model.

    Args:
        folder: the workdir.
        decoding: fields of the decoding section, in place of what was tuned before and what the config says. Without
            `lm`, and where they name none, the language model is `lm` in the workdir, if it is there.
        say: see `Translator.load`.

    Raises:
        UserError: the model has no search over CTC's frames, a field changes nothing for that, a language model that
            is named is not there, or one of them cannot be used.
    """
    config, vocabularies, params = workdir.load_model(folder, say)
    if not ways.searches_frames(config, ways.names(config)[-1]):
        what = "autoregressive" if config.model.kind != "nat" else f"trained with {config.objective.loss}"
        raise UserError(f"{folder}: {what}, which has no frames to search; tune a model trained with ctc")
    section = replace(config.decoding, **{**tuned.read(folder).fields, **decoding})
    config = replace(config, decoding=section)
    validate(config)
    # With weights that are not 0 all of the search's fields mean something.
    weighted = replace(config, decoding=replace(section, lm_weight=1.0, length_bonus=1.0))
    fields.check_given(folder, weighted, "beam", decoding)
    translator = Translator(config, vocabularies, params)
    if not section.lm and not (folder / "lm").exists():
        if decoding.get("score_eos"):
            raise UserError(f"{folder}: decoding.score_eos needs a language model; name one with --lm")
        return Opened(translator, None, None)
    return Opened(translator, *language_model(folder, config, vocabularies))


def store(folder: Path, won: Tried, opened: Opened, about: Mapping[str, Any]) -> None:
    """Writes what was found into the workdir, beside what else was tuned.

    Args:
        folder: the workdir.
        won: the best point.
        opened: what was tuned; all that the search was compiled with is kept beside the weights.
        about: of the text.

    Raises:
        WorkdirError: it cannot be written.
    """
    config = opened.translator.config
    names = ["ctc_top_k", "length_bonus_form", "score_eos"]
    names += ["latent_temperature"] * (config.model.latents == "vae") + ["lm"] * bool(config.decoding.lm)
    kept = {name: getattr(config.decoding, name) for name in names}
    scores = {"bleu": won.scores.bleu, "bleu_signature": won.scores.bleu_signature}
    tuned.write(folder, {**asdict(won.point), **kept}, {"lm": opened.fingerprint, **scores, **about})


def heat_map(tried: Sequence[Tried]) -> bytes | None:
    """BLEU over α and β with the beam of the best point, as a PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    best_one = max(tried, key=lambda one: one.scores.bleu)
    shown = {one.point: one.scores.bleu for one in tried if one.point.ctc_beam_size == best_one.point.ctc_beam_size}
    alphas, betas = (sorted({getattr(p, name) for p in shown}) for name in ("lm_weight", "length_bonus"))
    bleu = np.full((len(alphas), len(betas)), np.nan)
    for point, value in shown.items():
        bleu[alphas.index(point.lm_weight), betas.index(point.length_bonus)] = value
    figure = Figure(figsize=(1.5 + 0.8 * len(betas), 1.5 + 0.5 * len(alphas)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    picture = axes.imshow(bleu, origin="lower", aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(betas)), [f"{b:g}" for b in betas])
    axes.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
    axes.set_xlabel("length bonus β")
    axes.set_ylabel("language model weight α")
    for row, column in np.argwhere(np.isfinite(bleu)):
        axes.annotate(f"{bleu[row, column]:.1f}", (column, row), ha="center", va="center", color="white", fontsize=8)
    figure.colorbar(picture, label="BLEU")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
