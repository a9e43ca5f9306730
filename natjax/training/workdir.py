"""A run's folder: config, vocabulary, store, checkpoints, metrics. Enough to go on, and enough to translate."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from natjax import atomic
from natjax.config import Config, differing_fields, from_json, to_json
from natjax.data.vocab import Vocabularies
from natjax.errors import CheckpointError, WorkdirError
from natjax.evaluation.report import commit, versions
from natjax.training import checkpoint
from natjax.typing import PyTree

AVERAGES = ("average-best", "average-last")

# Fields that change nothing about the updates already made.
FREE = {"training.log_every", "decoding.batch_frames", "decoding.length_candidates"}


def check(folder: Path, config: Config) -> None:
    """Checks that a workdir is free or belongs to this config, and clears what killed runs have left behind.

    Raises:
        WorkdirError: it holds a run of another config (the differing fields are listed) or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"{folder}: cannot be made ({error.strerror}); name another workdir") from error
    for place in (folder, folder / "checkpoints"):
        atomic.clear_leftovers(place)
    file = folder / "config.json"
    if file.exists():
        old = from_json(file.read_text(), str(file))
        # Without a cool-down the number of steps bends nothing that came before: a run may be made longer.
        cools = old.training.cooldown_steps or config.training.cooldown_steps
        free = FREE if cools else FREE | {"training.steps"}
        differing = [d for d in differing_fields(old, config) if d.split(":")[0] not in free]
        if differing:
            raise WorkdirError(
                f"{folder}: holds a run of another config ({'; '.join(differing)}); use a new workdir or that config"
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
    if not file.is_file():
        raise WorkdirError(f"{folder}: no config.json, so not a workdir; name a folder that `natjax train` made")
    return from_json(file.read_text(), str(file))


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
    for place in best_weights(folder):
        try:
            return config, vocabularies, checkpoint.load_params(place)
        except CheckpointError as error:
            say(f"{error}; using the next best weights")
    raise CheckpointError(f"{folder}: every checkpoint is damaged; train again in a new workdir")


def best_weights(folder: Path) -> list[Path]:
    """Averages and checkpoints by validation BLEU, best first; of an unfinished run, the latest checkpoint first.

    A single checkpoint may lead: after a cool-down the last one is an average in itself.

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
    return sorted(averages + latest_first, key=checkpoint.bleu_of, reverse=True)


class Metrics:
    """`metrics.jsonl`: one JSON object a line, in the order of steps."""

    def __init__(self, file: Path, last_step: int):
        """Opens the file; records after `last_step` are dropped, since those steps are made again.

        Args:
            file: the file, which need not exist.
            last_step: the step from which training goes on.
        """
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        kept = [r for r in map(_record, lines) if r and r["step"] <= last_step]
        self.seconds = max((r["seconds"] for r in kept), default=0.0)
        if len(kept) != len(lines):
            atomic.write_text(file, "".join(json.dumps(r) + "\n" for r in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record."""
        atomic.append_text(self.file, json.dumps(record) + "\n")


def _record(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:  # the line that was being written when the run was killed
        return None


def average(
    folder: Path, config: Config, name: str, score: Callable[[PyTree], dict[str, float]], say: Callable[[str], None]
) -> dict[str, float]:
    """Averages the checkpoints that a name stands for, scores the result on the validation set, and keeps it.

    Args:
        folder: the workdir.
        config: the run's config.
        name: one of AVERAGES.
        score: validation scores of parameters; must hold "bleu".
        say: told of checkpoints that could not be read.
    """
    checkpoints, training = folder / "checkpoints", config.training
    candidates = checkpoint.regular(checkpoints, training.save_every, training.steps)
    if name == "average-best":
        chosen = checkpoint.best(checkpoints, candidates, training.keep_best)
    else:
        chosen = candidates[-training.keep_last :]
    trees = []
    for step in chosen:
        try:
            trees.append(checkpoint.load_params(checkpoint.at(checkpoints, step)))
        except CheckpointError as error:
            say(f"{error}; left out of {name}")
    if not trees:
        raise CheckpointError(f"{checkpoints}: no checkpoint left to average; run the training again")
    params = checkpoint.mean(trees)
    scores = score(params)
    checkpoint.save(checkpoints / name, {"params": params}, {"steps": chosen, **scores})
    return scores
