"""Teachers: who they are, how they search, and which of their translations a line takes."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from natjax import atomic
from natjax.config import validate
from natjax.distillation.job import Settings
from natjax.errors import CheckpointError, UserError
from natjax.training import checkpoint, workdir

if TYPE_CHECKING:
    from natjax.translator import Translation, Translator

Say = Callable[[str], None]


class Teacher(NamedTuple):
    """A teacher before it is loaded.

    Attributes:
        folder: its workdir.
        identity: what decides its translations: checksums of the config, the weights and the vocabularies.
        about: what else to know: name of the workdir, name of the weights, their BLEU on the validation set.
    """

    folder: Path
    identity: dict[str, Any]
    about: dict[str, Any]


class Choice(NamedTuple):
    """A translation that a line takes, the score by which it won, and the place of its teacher."""

    text: str
    score: float
    teacher: int


def identify(folder: str | Path, say: Say) -> Teacher:
    """Looks at a workdir without loading the model.

    Args:
        folder: the workdir.
        say: told of damaged weights that are passed over.

    Raises:
        WorkdirError: not a workdir, or one without a checkpoint.
        CheckpointError: all weights are damaged.
        VocabularyError: the vocabulary is missing.
    """
    folder = Path(folder)
    workdir.load_config(folder)
    vocabularies = workdir.Vocabularies.load(folder)
    place = _weights(folder, say)
    info = checkpoint.read_info(place)
    identity = {
        "config_sha256": atomic.sha256(folder / "config.json"),
        "weights_sha256": atomic.sha256(place / checkpoint.CHECKSUMS),
        "vocabulary_sha256": hashlib.sha256(b"".join(v.model for v in vocabularies)).hexdigest(),
    }
    about = {"workdir": folder.resolve().name, "weights": place.name, "steps": info.get("steps", info.get("step"))}
    return Teacher(folder, identity, {**about, "valid_bleu": info.get("bleu")})


def _weights(folder: Path, say: Say) -> Path:
    """The weights that `Translator.load` takes: the best that are whole."""
    damaged: CheckpointError | None = None
    for place in workdir.best_weights(folder, say):
        try:
            checkpoint.verify(place)
            return place
        except CheckpointError as error:
            damaged = damaged or error
    raise CheckpointError(f"{folder}: no usable weights (the best: {damaged}); train again in a new workdir")


def load(teachers: Sequence[Teacher], settings: Settings, say: Say) -> list["Translator"]:
    """Loads the models.

    Raises:
        UserError: they translate between different languages, or one cannot be loaded or cannot search so.
    """
    configs = [workdir.load_config(teacher.folder).data for teacher in teachers]
    directions = [(data.source_language, data.target_language) for data in configs]
    for teacher, direction in zip(teachers, directions):
        if direction != directions[0]:
            raise UserError(
                f"{teacher.folder}: translates {'-'.join(direction)}, but {teachers[0].folder} translates "
                f"{'-'.join(directions[0])}; name teachers of one direction"
            )
    return [_translator(teacher.folder, settings, say) for teacher in teachers]


def _translator(folder: Path, settings: Settings, say: Say) -> "Translator":
    """The model of a workdir with the search of the settings in place of its own."""
    from natjax.translator import Translator

    config, vocabularies, params = workdir.load_model(folder, say)
    if settings.beam == 1:
        return Translator(config, vocabularies, params, decode="greedy")
    if config.model.kind != "autoregressive":
        raise UserError(f"{folder}: is {config.model.kind} and has no beam; give --beam 1")
    decoding = replace(config.decoding, beam_size=settings.beam, length_penalty=settings.length_penalty)
    config = replace(config, decoding=decoding)
    validate(config)
    return Translator(config, vocabularies, params, decode="beam")


def choose(translations: Sequence["Translation"], settings: Settings) -> tuple[list[Choice], dict[str, int]]:
    """What one line takes.

    Args:
        translations: one of each teacher.
        settings: how many are wanted, and the least score.

    Returns:
        The best translations with different texts, best first, the first teacher's among equals; and how many were
        left out, because another had the same text (`duplicates`) or for their score (`low_scores`).
    """
    every = [
        Choice(text, float(score), place)
        for place, translation in enumerate(translations)
        for text, score in zip(translation.n_best, translation.n_best_scores, strict=True)
    ]
    every.sort(key=lambda choice: -choice.score)  # stable
    distinct = list({choice.text: choice for choice in reversed(every)}.values())[::-1]  # the best of each text
    distinct.sort(key=lambda choice: -choice.score)
    best = distinct[: settings.n_best]
    least = -math.inf if settings.minimum_score is None else settings.minimum_score
    kept = [choice for choice in best if choice.score >= least]
    return kept, {"duplicates": len(every) - len(distinct), "low_scores": len(best) - len(kept)}
