"""A run's folder: config, vocabulary, store, checkpoints, metrics. Enough to go on, and enough to translate."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from natjax import atomic, models
from natjax.config import Config, differing_fields, from_json, to_json
from natjax.data.vocab import Vocabularies
from natjax.errors import BusyError, CheckpointError, WorkdirError
from natjax.evaluation.report import commit, versions
from natjax.training import checkpoint
from natjax.typing import PyTree

AVERAGES = ("average-best", "average-last")

# Fields that change nothing about the updates already made: validation decodes greedily, or by the autoregressive beam.
FREE = {"training.log_every", *(f"decoding.{name}" for name in (
    "batch_frames", "beam_size", "length_penalty", "ctc_beam_size", "ctc_top_k", "lm", "lm_weight", "length_bonus",
    "length_bonus_form", "score_eos", "teacher", "npd_samples", "npd_temperature", "npd_lengths",
))}  # fmt: skip

# What follows the length of the run, and so bent updates that were already made. Where nothing does, a run may be made
# longer.
_BOUND_TO_STEPS: tuple[tuple[str, Callable[[Config], bool]], ...] = (
    ("training.cooldown_steps end with the run", lambda c: c.training.cooldown_steps > 0),
    ("free bits fall over shares of the run", lambda c: c.model.latents != "none" and c.objective.free_bits > 0),
    ("the glancing ratio changes over the run",
     lambda c: c.objective.has_glancing_ratio and c.objective.glancing_ratio_end is not None),
)  # fmt: skip


def check(folder: Path, config: Config) -> None:
    """Checks that a locked workdir is free or belongs to this config, and clears what killed runs have left behind.

    Raises:
        WorkdirError: it holds a run of another config (the differing fields are listed).
    """
    for place in (folder, folder / "checkpoints"):
        atomic.clear_leftovers(place)
    if (folder / "config.json").exists():
        old = load_config(folder)
        bound = [why for why, either in _BOUND_TO_STEPS if either(old) or either(config)]
        free = FREE if bound else FREE | {"training.steps"}
        differing = [d for d in differing_fields(old, config) if d.split(":")[0] not in free]
        if differing:
            steps = old.training.steps != config.training.steps
            reason = f"; training.steps cannot change here, since {' and '.join(bound)}" if bound and steps else ""
            raise WorkdirError(
                f"{folder}: holds a run of another config ({'; '.join(differing)}){reason}; use a new workdir or that "
                "config"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes a workdir and keeps every other training out of it. One that stays empty is removed again.

    Raises:
        BusyError: a training is running there.
        WorkdirError: the folder cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    with _refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with _opened(folder) as descriptor:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BusyError(
                        f"{folder}: another training is running there; wait for it, or name another workdir"
                    ) from None
                yield
        finally:
            with suppress(OSError):  # no longer empty
                for place in missing:
                    place.rmdir()


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder itself as a file: a lock on it leaves nothing behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_vocabularies(folder: Path, vocabularies: Vocabularies) -> None:
    """Raises WorkdirError if the workdir has another vocabulary: a model is nothing without its own."""
    if not any((folder / name).exists() for name in vocabularies.files()):
        return
    if [v.fingerprint for v in Vocabularies.load(folder)] != [v.fingerprint for v in vocabularies]:
        raise WorkdirError(
            f"{folder}: its model was trained with another vocabulary than the store now has; "
            "bring the old store back, or use a new workdir"
        )


def claim(folder: Path, config: Config) -> None:
    """Makes the workdir that of a config, once `check` has allowed it. Raises WorkdirError if it cannot be written."""
    atomic.write_text(folder / "config.json", to_json(config))


def note_start(folder: Path, step: int, init_from: str | None) -> None:
    """Appends to `starts.jsonl` which code went on from which step: a result must name the code that made it."""
    record = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, "init_from": init_from,
              "commit": commit(), "versions": versions()}  # fmt: skip
    atomic.append_text(folder / "starts.jsonl", json.dumps(record) + "\n")


def load_config(folder: Path) -> Config:
    """The config of a workdir. Raises WorkdirError when there is none."""
    file = folder / "config.json"
    with _refused(folder):
        if not file.is_file():
            raise WorkdirError(f"{folder}: no config.json, so not a workdir; name a folder that `natjax train` made")
        return from_json(_text(file), str(file))


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    """Turns what the system refuses within a workdir into one line."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        raise WorkdirError(f"{place}: cannot be used ({error.strerror}); mend it or name another workdir") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WorkdirError(f"{file}: damaged (not UTF-8 at byte {error.start}); restore it") from None


def load_model(folder: Path, say: Callable[[str], None]) -> tuple[Config, Vocabularies, PyTree]:
    """What translating needs.

    Args:
        folder: the workdir.
        say: told of damaged weights that are passed over.

    Raises:
        WorkdirError: the config, the vocabulary or every checkpoint is missing.
        CheckpointError: all weights are damaged.
    """
    config = load_config(folder)
    vocabularies = Vocabularies.load(folder)
    damaged: list[CheckpointError] = []
    for place in best_weights(folder, say):
        try:
            params = load_params(place, config, vocabularies)
        except CheckpointError as error:
            damaged.append(error)
            continue
        for error in damaged:
            say(f"{error}; using the next best weights, {place.name}")
        return config, vocabularies, params
    raise CheckpointError(f"{folder}: no usable weights (the best: {damaged[0]}); train again in a new workdir")


def load_params(place: Path, config: Config, vocabularies: Vocabularies) -> PyTree:
    """The parameters of one of the `best_weights`. Raises CheckpointError if they are damaged, or of another model."""
    model = models.build(config, len(vocabularies.source), len(vocabularies.target))
    return checkpoint.load(place, {"params": jax.eval_shape(lambda: models.init(model, 0))})["params"]


def drop_averages(folder: Path) -> None:
    """Removes the averages of a run that goes on: they are no longer those of its last and best checkpoints."""
    for name in AVERAGES:
        shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)


def best_weights(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Averages and checkpoints by validation BLEU, best first; of an unfinished run, the latest checkpoint first.

    A single checkpoint may lead: after a cool-down the last one is an average in itself. `say` is told of those whose
    BLEU cannot be read.

    Raises:
        WorkdirError: there is no checkpoint yet.
    """
    checkpoints = folder / "checkpoints"
    latest_first = [checkpoint.at(checkpoints, step) for step in reversed(checkpoint.steps(checkpoints))]
    if not latest_first:
        raise WorkdirError(f"{folder}: holds no checkpoint; run `natjax train` until the first one is saved")
    averages = [checkpoints / a for a in AVERAGES if (checkpoints / a / checkpoint.CHECKSUMS).is_file()]
    if not averages:
        return latest_first
    # Sorting is stable: averages, which are steadier, come first among equals.
    return sorted(averages + latest_first, key=lambda place: checkpoint.bleu_of(place, say), reverse=True)


class Metrics:
    """`metrics.jsonl`: one JSON object a line, in the order of steps."""

    def __init__(self, file: Path, last_step: int):
        """Opens the file; records after `last_step` are dropped, since those steps are made again.

        Args:
            file: the file, which need not exist.
            last_step: the step from which training goes on.
        """
        self.file = file
        with _refused(file.parent):
            lines = _text(file).splitlines() if file.exists() else []
        kept = [r for r in map(_record, lines) if r and r["step"] <= last_step]
        self.seconds = max((r["seconds"] for r in kept), default=0.0)
        if len(kept) != len(lines):
            atomic.write_text(file, "".join(json.dumps(r) + "\n" for r in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record."""
        atomic.append_text(self.file, json.dumps(record) + "\n")


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # the line that was being written when the run was killed
        return None
    if isinstance(record, dict) and isinstance(record.get("step"), int) and isinstance(record.get("seconds"), float):
        return record
    return None


def average(
    folder: Path,
    config: Config,
    name: str,
    like: PyTree,
    score: Callable[[PyTree], dict[str, float]],
    say: Callable[[str], None],
) -> dict[str, float]:
    """Averages the checkpoints that a name stands for, scores the result on the validation set, and keeps it.

    An average of these checkpoints that is there already is taken as it is.

    Args:
        folder: the workdir.
        config: the run's config.
        name: one of AVERAGES.
        like: parameters.
        score: validation scores of parameters; must hold "bleu".
        say: told of checkpoints that could not be read.
    """
    checkpoints, training = folder / "checkpoints", config.training
    candidates = checkpoint.regular(checkpoints, training.save_every, training.steps)
    if name == "average-best":
        chosen = checkpoint.best(checkpoints, candidates, training.keep_best, say)
    else:
        chosen = candidates[-training.keep_last :]
    if (checkpoints / name / checkpoint.CHECKSUMS).is_file():
        with suppress(CheckpointError):
            checkpoint.verify(checkpoints / name)
            info = checkpoint.read_info(checkpoints / name)
            if info["steps"] == chosen:
                return info
    trees, like = {}, {"params": like}
    for step in chosen:
        try:
            trees[step] = checkpoint.load(checkpoint.at(checkpoints, step), like)["params"]
        except CheckpointError as error:
            say(f"{error}; left out of {name}")
    if not trees:
        raise CheckpointError(f"{checkpoints}: no checkpoint left to average; run the training again")
    params = checkpoint.mean(list(trees.values()))
    scores = score(params)
    checkpoint.save(checkpoints / name, {"params": params}, {"steps": list(trees), **scores})
    return scores
