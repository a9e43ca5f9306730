"""Teachers: who they are, how they search, and which of their translations a line takes."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from natjax import atomic
from natjax.config import Config, validate
from natjax.data.vocab import Vocabularies
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
        config: its run's.
        vocabularies: its run's.
        place: the folder of its weights.
        identity: what decides its translations: checksums of the config, the weights and the vocabularies.
        about: what else to know: name of the workdir, name of the weights, their BLEU on the validation set.
    """

    folder: Path
    config: Config
    vocabularies: Vocabularies
    place: Path
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
        say: told of damaged weights that are passed over, and of a training that is not finished.

    Raises:
        WorkdirError: not a workdir, or one without a checkpoint.
        CheckpointError: all weights are damaged.
        VocabularyError: the vocabulary is missing.
    """
    folder = Path(folder)
    config = workdir.load_config(folder)
    vocabularies = Vocabularies.load(folder)
    place = _weights(folder, say)
    averages = (folder / "checkpoints" / name / checkpoint.CHECKSUMS for name in workdir.AVERAGES)
    if not any(map(Path.is_file, averages)):
        say(f"{folder}: its training is not finished (no averages); its latest checkpoint translates, {place.name}")
    info = checkpoint.read_info(place)
    identity = {
        "config_sha256": atomic.sha256(folder / "config.json"),
        "weights_sha256": atomic.sha256(place / checkpoint.CHECKSUMS),
        "vocabulary_sha256": hashlib.sha256(b"".join(v.model for v in vocabularies)).hexdigest(),
    }
    about = {"workdir": folder.resolve().name, "weights": place.name, "steps": info.get("steps", info.get("step"))}
    return Teacher(folder, config, vocabularies, place, identity, {**about, "valid_bleu": info.get("bleu")})


def _weights(folder: Path, say: Say) -> Path:
    """The best weights that are whole."""
    damaged: list[CheckpointError] = []
    for place in workdir.best_weights(folder, say):
        try:
            checkpoint.verify(place)
        except CheckpointError as error:
            damaged.append(error)
            continue
        for error in damaged:
            say(f"{error}; using the next best weights, {place.name}")
        return place
    raise CheckpointError(f"{folder}: no usable weights (the best: {damaged[0]}); train again in a new workdir")


def check(teachers: Sequence[Teacher], settings: Settings) -> None:
    """Whether teachers can search as is wanted, and choose among each other's translations.

    Raises:
        UserError: one cannot search so, or they translate between different languages, or their scores mean different
            things.
    """
    first = teachers[0]
    for teacher in teachers:
        kind = teacher.config.model.kind
        if kind != "autoregressive" and settings.beam != 1:
            raise UserError(f"{teacher.folder}: is {kind} and has no beam; give --beam 1")
        if kind != "autoregressive" and settings.length_penalty != 1:
            raise UserError(
                f"{teacher.folder}: is {kind}, its score is the mean of its frames; leave --length-penalty out"
            )
        for what, of in (("translates", _direction), ("is scored by", _measure)):
            if (theirs := of(teacher)) != (wanted := of(first)):
                raise UserError(
                    f"{teacher.folder}: {what} {theirs}, but {first.folder} {what} {wanted}; name teachers that agree"
                )
        if teacher.identity["vocabulary_sha256"] != first.identity["vocabulary_sha256"]:
            raise UserError(
                f"{teacher.folder}: has another vocabulary than {first.folder}, so their scores cannot be compared; "
                "name teachers of one vocabulary"
            )


def _direction(teacher: Teacher) -> str:
    return f"{teacher.config.data.source_language}-{teacher.config.data.target_language}"


def _measure(teacher: Teacher) -> str:
    """Of what a teacher's score is the mean: scores of different things would let one teacher always win."""
    config = teacher.config
    if config.model.kind == "autoregressive":
        return "token"
    ratio = "" if config.objective.needs_length else f" at ratio {config.model.ratio:g}"
    return f"frame of {config.objective.loss}{ratio}"


def load(teachers: Sequence[Teacher], settings: Settings) -> list["Translator"]:
    """Loads exactly the weights that were identified, to search as the settings say in place of their own config.

    Raises:
        UserError: weights are not as they were, or a model cannot search so.
    """
    return [_translator(teacher, settings) for teacher in teachers]


def _translator(teacher: Teacher, settings: Settings) -> "Translator":
    from natjax.translator import Translator

    config, way = teacher.config, "greedy"
    if config.model.kind == "autoregressive":  # a beam of 1 is greedy, and scored as a wider one
        decoding = replace(config.decoding, beam_size=settings.beam, length_penalty=settings.length_penalty)
        config, way = replace(config, decoding=decoding), "beam"
        validate(config)
    params = workdir.load_params(teacher.place, config, teacher.vocabularies)
    if atomic.sha256(teacher.place / checkpoint.CHECKSUMS) != teacher.identity["weights_sha256"]:
        raise UserError(f"{teacher.place}: has changed since this run began; let its training end, and run this again")
    return Translator(config, teacher.vocabularies, params, decode=way)


def choose(translations: Sequence["Translation"], settings: Settings) -> tuple[list[Choice], dict[str, int]]:
    """What one line takes. Each teacher offers as many as are wanted, those that it ranks first.

    Args:
        translations: one of each teacher.
        settings: how many are wanted, and the least score.

    Returns:
        The best translations with different texts, best first, the first teacher's among equals; and how many of those
        looked at were left out, because another had the same text (`duplicates`) or for their score (`low_scores`).
    """
    offered, looked_at = [], 0
    for place, translation in enumerate(translations):
        own: dict[str, Choice] = {}
        for text, score in zip(translation.n_best, translation.n_best_scores, strict=True):
            if len(own) == settings.n_best:
                break
            looked_at += 1
            own.setdefault(text, Choice(text, float(score), place))
        offered += own.values()
    offered.sort(key=lambda choice: -choice.score)  # stable
    distinct: dict[str, Choice] = {}
    for choice in offered:
        distinct.setdefault(choice.text, choice)
    best = list(distinct.values())[: settings.n_best]
    least = -math.inf if settings.minimum_score is None else settings.minimum_score
    kept = [choice for choice in best if choice.score >= least]
    return kept, {"duplicates": looked_at - len(distinct), "low_scores": len(best) - len(kept)}
