"""The ways of decoding that a model offers, by name, and what each is made of.

An autoregressive model has its beam, and greedy decoding. All others decode greedily; with CTC the frames can be
searched (beam), with latents or a length to predict a teacher can choose among tries (npd); with CTC and latents, both
(npd+beam).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from natjax.config import Config, DecodingConfig
from natjax.decoding import autoregressive, single_pass
from natjax.decoding.lattice import Search, weights
from natjax.decoding.passes import Decode
from natjax.decoding.shapes import CPU_ROWS, CPU_STEP_ROWS, rung
from natjax.errors import ConfigError, UserError
from natjax.frames import length_limit, target_limit
from natjax.models import Model
from natjax.objectives.base import Objective
from natjax.typing import PyTree, TokenScorer


class Way(NamedTuple):
    """A way of decoding.

    Attributes:
        decode: the compiled function.
        prepare: the model's parameters in the form that it takes.
        frames: decoder positions of a padded source length, those of all tries together.
        tries: how many translations of a sentence a teacher is to choose from; 1 where there is no choosing.
        hypotheses: how many translations of a sentence there are to tell, at most.
        cpu_rows: rows of a full batch on CPU.
        length_penalty: exponent of the length by which the sum of a translation is divided, see `segments.Hypothesis`.
    """

    decode: Decode
    prepare: Callable[[PyTree], PyTree]
    frames: Callable[[int], int]
    tries: int
    hypotheses: int
    cpu_rows: int
    length_penalty: float


def names(config: Config) -> list[str]:
    """The ways of a config's model, the default first."""
    if config.model.kind == "autoregressive":
        return ["beam", "greedy"]
    searches = not config.objective.needs_length
    tries = config.model.latents == "vae" or config.objective.needs_length
    return ["greedy", *["beam"] * searches, *["npd"] * tries, *["npd+beam"] * (searches and tries)]


def chosen(config: Config, name: str | None) -> str:
    """The way of that name, or the default. Raises UserError if the model does not offer it."""
    offered = names(config)
    if name not in (None, *offered):
        what = config.model.kind if config.model.kind == "autoregressive" else _described(config)
        raise UserError(f"decoding by {name!r} does not exist for {what}; choose {' or '.join(offered)}")
    return name or offered[0]


def _described(config: Config) -> str:
    latents = "with latents" if config.model.latents == "vae" else "without latents"
    return f"a model trained with {config.objective.loss} {latents}"


def searches_frames(config: Config, way: str) -> bool:
    """Whether a way searches CTC's frames."""
    return config.model.kind == "nat" and way.endswith("beam")


def uses_lm(config: Config, way: str) -> bool:
    """Whether a way asks a language model."""
    return searches_frames(config, way) and config.decoding.lm_weight != 0


def build(model: Model, objective: Objective, config: Config, way: str, lm: TokenScorer | None) -> Way:
    """Makes a way of decoding.

    Args:
        model: the model.
        objective: its loss.
        config: its run.
        way: one of `names`.
        lm: of the search, where `uses_lm` says so.

    Raises:
        ConfigError: a search that is wider than the vocabulary or the frames allow, or with a weight for a language
            model that is not given.
    """
    decoding = config.decoding
    if config.model.kind == "autoregressive":
        beam_size = decoding.beam_size if way == "beam" else 1
        decode = autoregressive.make_decode(
            model,
            beam_size=beam_size,
            length_penalty=decoding.length_penalty,
            max_length_ratio=decoding.max_length_ratio,
        )
        prepare = partial(autoregressive.prepare, dtype=config.model.dtype)
        frames = partial(target_limit, ratio=decoding.max_length_ratio)
        return Way(decode, prepare, frames, 1, beam_size, CPU_STEP_ROWS, decoding.length_penalty)

    npd, latents = way.startswith("npd"), config.model.latents == "vae"
    samples = decoding.npd_samples if npd and latents else 1
    lengths = 1
    if objective.needs_length:
        most = 2 * config.objective.length_range + 1
        lengths = min(decoding.npd_lengths, most) if npd else decoding.length_candidates
    search = None
    if way.endswith("beam"):
        check_search(decoding, model, objective)
        search = search_of(config, lm)
    decode = single_pass.make_decode(
        model,
        objective,
        candidates=lengths,
        length_multiplier=decoding.length_multiplier,
        blank_penalty=decoding.blank_penalty,
        samples=samples,
        temperature=decoding.npd_temperature if npd and latents else decoding.latent_temperature,
        seed=config.training.seed,
        search=search,
        every_try=npd,
    )
    if search is not None:
        decode = partial(decode, weights=weights(lm, decoding.lm_weight, decoding.length_bonus))

    def frames(S: int) -> int:
        longest = 0
        if objective.needs_length:
            longest = length_limit(S, config.objective.length_range, decoding.length_multiplier)
        return lengths * samples * objective.max_frames(S, longest)

    prepare = partial(single_pass.prepare, dtype=config.model.dtype)
    # A search has its length bonus; else the mean by frame, and what a teacher ranks by, its mean by token.
    tries, length_penalty = lengths * samples if npd else 1, 0.0 if way == "beam" else 1.0
    hypotheses = decoding.ctc_beam_size if way == "beam" else tries
    return Way(decode, prepare, frames, tries, hypotheses, CPU_ROWS, length_penalty)


def search_of(config: Config, lm: TokenScorer | None) -> Search:
    """What a config's search is compiled for."""
    decoding = config.decoding
    return Search(
        decoding.ctc_beam_size,
        decoding.ctc_top_k,
        decoding.length_bonus_form,
        decoding.score_eos and lm is not None,
        config.objective.target_eos,
    )


def prune_of(model: Model, objective: Objective, config: Config) -> Callable:
    """`single_pass.make_prune`, of the very frames that the way "beam" searches."""
    decoding = config.decoding
    return single_pass.make_prune(
        model,
        objective,
        decoding.ctc_top_k,
        temperature=decoding.latent_temperature,
        seed=config.training.seed,
    )


def check_search(decoding: DecodingConfig, model: Model, objective: Objective) -> None:
    """Raises ConfigError for a search that is wider than the vocabulary, or the shortest sentences' frames, allow."""
    V, frames = model.target_size, objective.max_frames(rung(1, decoding.max_source_length), 0)
    if decoding.ctc_top_k >= V:
        raise ConfigError(
            f"decoding.ctc_top_k: must be at most {V - 1} here, the pieces of the vocabulary beside the blank, "
            f"not {decoding.ctc_top_k}"
        )
    most = (decoding.ctc_top_k + 1) ** frames
    if decoding.ctc_beam_size > most:
        raise ConfigError(
            f"decoding.ctc_beam_size: {decoding.ctc_beam_size} is wider than decoding.ctc_top_k allows, {most:,} for "
            f"{frames} frames; lower it, or raise decoding.ctc_top_k"
        )
