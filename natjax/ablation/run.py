"""Runs a grid, or goes on with it: whatever is finished is left as it is."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from natjax.ablation import results
from natjax.ablation.grid import Row
from natjax.ablation.place import Place
from natjax.ablation.teacher import Progress, Teacher
from natjax.config import Config, expand
from natjax.data.grammar import exactly_valid
from natjax.data.prepare import open_prepared
from natjax.distillation.run import Say
from natjax.errors import BusyError, DivergedError
from natjax.evaluation.metrics import score
from natjax.evaluation.report import commit
from natjax.training import workdir
from natjax.training.loop import Watch, train
from natjax.training.planning import sentences_seen, training_plan
from natjax.translator import Translator


@dataclass
class Runner:
    """Goes through rows and seeds, one run after another.

    Attributes:
        place: the grid's folder.
        teacher: of the distilled rows.
        say: told a line at a time.
        training: the view of a training, by its label.
        distilling: the view of a distillation.
        finished: called after each run that came to its end.
        left_out: runs that could not be made, and why.
    """

    place: Place
    teacher: Teacher
    say: Say
    training: Callable[[str], AbstractContextManager[Watch]]
    distilling: Callable[[], AbstractContextManager[Progress]]
    finished: Callable[[], None]
    left_out: list[str] = field(default_factory=list)
    _distilled: bool = False

    def run(self, rows: Sequence[Row], seeds: Sequence[int]) -> None:
        """Seed by seed, so that a whole table is there early.

        A run that another process is at, or that diverges, is told and left out.

        Raises:
            UserError: anything else that stops a training, a signal too. What is finished is kept.
        """
        test = self.place.test_sha256()
        runs = [(row, seed) for seed in seeds for row in rows]
        missing = [run for run in runs if results.read(self.place.workdir(*run), test) is None]
        if len(missing) < len(runs):
            self.say(f"{len(runs) - len(missing)} of {len(runs)} runs are finished")
        if any(row.distilled for row in rows):
            self._score_teacher(test)
        for number, (row, seed) in enumerate(missing, 1):
            if results.read(self.place.workdir(row, seed), test) is not None:  # another process was faster
                continue
            self.say(f"{row.label}, seed {seed} ({number} of {len(missing)})")
            try:
                self._one(row, seed, test)
            except (BusyError, DivergedError) as error:
                self.left_out.append(f"{row.name} seed {seed}: left out ({error})")
                self.say(self.left_out[-1])
            else:
                self.finished()

    def _one(self, row: Row, seed: int, test: str) -> None:
        config, folder = self.place.run_config(row, seed), self.place.workdir(row, seed)
        if self._needs_teacher(config, row) and not self._distilled:
            self.teacher.distill(self.say, self.training, self.distilling)
            self._distilled = True
            self._score_teacher(test)
        self.place.prepare(config, self.say)
        with self.training(f"{row.name} seed {seed}") as watch:
            train(config, folder, watch=watch)
        scores = self._scored(folder, sentences_of(folder, config))
        results.write(folder / results.TEST, {"row": row.name, "seed": seed, "test_sha256": test, **scores})
        jax.clear_caches()  # the next run has programs of its own, and finds on disk what another one has compiled

    def _score_teacher(self, test: str) -> None:
        """Once, when it has come to its end: it is what the rows are to come near."""
        folder, file, config = self.teacher.folder, self.place.teacher_test, self.teacher.config
        if results.weights_of(folder) is None or results.read(folder, test, file) is not None:
            return
        self.say("the teacher on the test set")
        seen = {} if config is None else sentences_of(folder, config)  # of a given one the data may be gone
        scores = self._scored(folder, seen)
        seed = workdir.load_config(folder).training.seed
        results.write(file, {"row": "teacher", "seed": seed, "test_sha256": test, **scores})

    def _needs_teacher(self, config: Config, row: Row) -> bool:
        encoder = config.training.encoder_from
        return row.distilled or (encoder != "" and Path(expand(encoder)).resolve() == self.place.teacher)

    def _scored(self, folder: Path, seen: dict[str, float]) -> dict[str, Any]:
        """What the run's weights come to on the test set, and what it took: `seen`, updates, seconds."""
        weights, checksum = results.weights_of(folder)
        translator = Translator.load(folder, say=self.say)
        sources, references = self.place.test
        translator.warm_up(sources)
        started = time.perf_counter()
        translations = translator.translate(sources)
        seconds = time.perf_counter() - started
        scores = score(translations, references, language=translator.config.data.target_language)
        metrics = {**scores.as_dict(), "translating_seconds": seconds, "exactly_valid": None}
        if self.place.difficulty is not None:  # where all right translations are known
            right = [exactly_valid(self.place.difficulty, s, t) for s, t in zip(sources, translations, strict=True)]
            metrics["exactly_valid"] = 100 * sum(right) / len(right)
        metrics |= {"updates": translator.config.training.steps, "training_seconds": _seconds(folder), **seen}
        metrics |= results.last_means(folder)
        return {"weights": weights, "weights_sha256": checksum, "commit": commit(), "metrics": metrics}


def sentences_of(folder: Path, config: Config) -> dict[str, float]:
    """How many sentences a finished run was trained on, each as often as it was met; and how many epochs that is."""
    place = Path(expand(config.data.store)) if config.data.store else folder / "store"
    plan = training_plan(config, open_prepared(config, place)[0])
    seen = sentences_seen(plan, config.training.steps)
    return {"sentences": seen, "epochs": seen / plan.rows}


def _seconds(folder: Path) -> float | None:
    """What the run took, pauses left out; None where no record was kept."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return max((json.loads(line)["seconds"] for line in lines), default=None)
