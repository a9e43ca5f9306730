"""Which fields of the decoding section change anything: for a model, and for one of its ways of decoding."""

from collections.abc import Iterable
from pathlib import Path

from natjax.config import Config
from natjax.decoding import ways
from natjax.errors import ConfigError

_SEARCH = ("ctc_beam_size", "ctc_top_k", "lm", "lm_weight", "length_bonus", "length_bonus_form", "score_eos")
_TRIES = ("teacher", "npd_samples", "npd_temperature", "npd_lengths")

FIELDS = {
    "blank_penalty": "blank to hold back", "length_candidates": "length to predict",
    "length_multiplier": "length to predict", "npd_lengths": "length to predict",
    "latent_temperature": "latents to draw", "npd_samples": "latents to draw", "npd_temperature": "latents to draw",
    "teacher": "tries to choose from", **dict.fromkeys(_SEARCH, "frames to search"),
    **dict.fromkeys(("beam_size", "length_penalty", "max_length_ratio"), "autoregressive search"),
}  # fmt: skip
"""Fields of the decoding section that are for some models only, and what the others lack."""


def check_given(path: str | Path, config: Config, way: str, given: Iterable[str]) -> None:
    """Checks fields that somebody has asked for.

    Args:
        path: of the workdir, for the message.
        config: its config, with the fields given.
        way: how it is to decode.
        given: names of the fields.

    Raises:
        ConfigError: one that changes nothing.
    """
    for name in given:
        if what := lacks(config, name):
            how = f"trained with {config.objective.loss}" if config.model.kind == "nat" else "autoregressive"
            hint = "; the width of the search over CTC's frames is decoding.ctc_beam_size"
            hint = hint if name == "beam_size" and "beam" in ways.names(config) else ""
            raise ConfigError(f"{path}: {how}, which has no {what}; leave decoding.{name} out{hint}")
        if why := unused(config, way, name):
            others = [other for other in ways.names(config) if other != way and not unused(config, other, name)]
            instead = f", or decode by {' or '.join(others)}" if others else ""
            raise ConfigError(f"{path}: decoding by {way} {why}; leave decoding.{name} out{instead}")


def lacks(config: Config, field: str) -> str | None:
    """What a model lacks for a field of its decoding section to mean anything; None: nothing."""
    is_nat, needs_length = config.model.kind == "nat", config.objective.needs_length
    has = {
        "blank to hold back": is_nat and not needs_length,
        "frames to search": is_nat and not needs_length,
        "length to predict": is_nat and needs_length,
        "latents to draw": config.model.latents == "vae",
        "tries to choose from": any(name.startswith("npd") for name in ways.names(config)),
        "autoregressive search": not is_nat,
    }
    what = FIELDS.get(field)
    return None if what is None or has[what] else what


def unused(config: Config, way: str, field: str) -> str | None:
    """Why a field that the model has a use for changes nothing for a way of decoding; None: it does change something.

    What other fields say counts, too: a language model's folder means nothing where its weight is 0.
    """
    searches, chooses = way.endswith("beam"), way.startswith("npd")
    if field == "beam_size":
        return None if searches else "has no beam"
    if field in _SEARCH and not searches:
        return "searches nothing"
    if field in ("lm", "score_eos") and config.decoding.lm_weight == 0:
        return "asks no language model while decoding.lm_weight is 0"
    if field == "length_bonus_form" and config.decoding.length_bonus == 0:
        return "adds no bonus while decoding.length_bonus is 0"
    if field == "blank_penalty" and searches:
        return "sums over the alignments that the penalty makes up for"
    if field in _TRIES and not chooses:
        return "makes no tries to choose from"
    if field == "latent_temperature" and chooses:
        return "draws with decoding.npd_temperature"
    if field == "length_candidates" and chooses:
        return "tries decoding.npd_lengths"
    return None
