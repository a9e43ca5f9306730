"""The training program, in the order in which it runs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from natjax import memory, models, objectives
from natjax.config import Config, expand
from natjax.data.feed import Feed
from natjax.data.plan import Plan, sequential
from natjax.data.prepare import open_prepared, prepare
from natjax.data.store import Batch, Store
from natjax.data.validation import ScoredText, validation_text
from natjax.data.vocab import Vocabularies
from natjax.errors import DivergedError, WorkdirError
from natjax.evaluation.metrics import score
from natjax.objectives.training import Sums
from natjax.training import checkpoint, warm_start, workdir
from natjax.training.planning import training_plan
from natjax.training.preemption import StopRequest
from natjax.training.state import State, new_state
from natjax.training.step import StepReport, make_loss, make_train_step, parameter_count, to_device
from natjax.translator import Translator
from natjax.typing import PyTree

_SCORES = ("loss", "infeasible", "bleu", "chrf", "bp", "repetition_rate")


def _silent(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is told what while training runs; the default is nobody.

    Attributes:
        say: a line for people.
        progress: (step, steps, record) after each update; the record is the latest one of metrics.jsonl.
        samples: (source, reference, translation) of some validation sentences, after each evaluation.
    """

    say: Callable[[str], None] = _silent
    progress: Callable[[int, int, dict[str, Any]], None] = _silent
    samples: Callable[[list[tuple[str, str, str]]], None] = _silent


class _Stopping(Exception):
    """Unwinds an evaluation when a signal has arrived."""


def train(config: Config, folder: Path, *, init_from: Path | None = None, watch: Watch | None = None) -> dict[str, Any]:
    """Trains, or goes on with, the run of a workdir.

    Args:
        config: the run.
        folder: its workdir; the same command on the same folder continues where the last one stopped.
        init_from: a workdir whose weights a new run starts from; a run that has begun ignores it.
        watch: who is told about progress.

    Returns:
        Validation scores of the weights that translating will use.

    Raises:
        UserError: see `natjax.errors`; `Interrupted` after a signal, once everything is saved.
    """
    watch = watch or Watch()
    if not checkpoint.steps(Path(folder) / "checkpoints"):
        warm_start.check(config, init_from)  # before anything is made
    too_large = (
        f"{config.name}: batches of training.batch_frames {config.training.batch_frames:,} do not fit into memory; "
        "lower it, or the model's sizes"
    )
    with workdir.locked(folder), StopRequest() as stop, memory.explained(too_large):
        workdir.check(folder, config)
        run = _Run(config, folder, watch, stop)
        state = run.restore_or_start(init_from)
        # Only now: a run that could not begin leaves the workdir free.
        run.vocabularies.save(folder)
        workdir.claim(folder, config)
        stop.defer()
        run.updates(state)
        return run.finish()


@dataclass
class _Run:
    """What the sections of one training run share."""

    config: Config
    folder: Path
    watch: Watch
    stop: StopRequest
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config, self._started = self.config, time.perf_counter()
        # Data: store, vocabulary, the plan of batches, validation text.
        self.store, self.vocabularies = _open_data(config, self.folder, self.watch.say)
        self.objective = objectives.build(config)
        train_split = self.store.split("train")
        self.plan = training_plan(config, self.store)
        if self.plan.left_out:
            self.watch.say(f"{self.plan.left_out:,} training pairs fit no bucket and are left out")
        self.validation = validation_text(config)
        # Model: fresh parameters, compiled programs.
        sizes = len(self.vocabularies.source), len(self.vocabularies.target)
        self.model = models.build(config, *sizes)
        self.train_step = make_train_step(self.model, self.objective, config)
        self.loss = make_loss(self.model, replace(self.objective, label_smoothing=0.0), config)
        self.translator = Translator(config, self.vocabularies, None, decode="greedy")
        self.make_batch: Callable[[int], Batch] = lambda step: _pad(train_split, self.plan, step)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    # Start: resume, or begin from other weights, or from scratch.

    def restore_or_start(self, init_from: Path | None) -> State:
        fresh = new_state(models.init(self.model, self.config.training.seed), self.config.training)
        self.watch.say(f"parameters: {parameter_count(fresh.params):,}")
        languages = f"{self.config.data.source_language} to {self.config.data.target_language}"
        idle = f" ({jax.device_count() - 1} more are idle)" if jax.device_count() > 1 else ""
        self.watch.say(f"{self.config.name}, {languages}, on 1 x {jax.local_devices()[0].device_kind}{idle}")
        state = checkpoint.restore_latest(self.checkpoints, fresh, self.watch.say)
        if state is not None:
            self._check_resumed(int(state.step))
            ignored = f"; {init_from} is not looked at again" if init_from is not None else ""
            self.watch.say(f"resuming from step {int(state.step):,}{ignored}")
            init_from = None
        elif init_from is not None:
            state = fresh._replace(params=warm_start.model(init_from, self.vocabularies, fresh.params, self.watch.say))
            self.watch.say(f"starting from the weights of {init_from}")
        elif encoder_from := self.config.training.encoder_from:
            encoder = warm_start.encoder(Path(expand(encoder_from)), self.config, self.vocabularies, self.watch.say)
            state = fresh._replace(params={**fresh.params, **encoder})
            self.watch.say(f"starting from the embeddings and the encoder of {encoder_from}")
        else:
            state = fresh
        self.metrics = workdir.Metrics(self.folder / "metrics.jsonl", int(state.step))
        if int(state.step) < self.config.training.steps:
            workdir.note_start(self.folder, int(state.step), str(init_from) if init_from else None)
            workdir.drop_averages(self.folder)
        return state

    def _check_resumed(self, step: int) -> None:
        if step > self.config.training.steps:
            raise WorkdirError(
                f"{self.folder}: has made {step:,} updates, more than training.steps {self.config.training.steps:,}; "
                "give at least as many, or use a new workdir"
            )
        began_on = checkpoint.read_info(checkpoint.at(self.checkpoints, step)).get("store")
        if began_on not in (None, self.store.fingerprint):
            raise WorkdirError(
                f"{self.folder}: the store has changed since this run began; bring the old text back and run natjax "
                "prepare, or use a new workdir"
            )

    # Updates: step after step, and what is due between two of them.

    def updates(self, state: State) -> None:
        training, first = self.config.training, int(state.step)
        seed = jax.device_put(np.uint32(training.seed))
        self._seconds_before, self._waited, self._collapse_told = self.metrics.seconds, 0.0, False
        self.tally = _Tally()
        if first:
            self.tally = _Tally(checkpoint.read_info(checkpoint.at(self.checkpoints, first)).get("tally"))
            if not checkpoint.read_info(checkpoint.at(self.checkpoints, first)).get("complete"):
                self._due(first, state, stopping=False)
        if first < training.steps:
            self.watch.say(f"batch shapes: {len(self.plan.buckets)}, each compiled when it first comes")
        with Feed(self.make_batch, first, training.steps) as feed:
            pending: tuple[int, Batch, StepReport] | None = None
            for step, batch in feed:
                state, report = self.train_step(state, to_device(batch), seed)
                if pending:  # read while this step runs
                    self.tally.add(*self._checked(*pending))
                pending = (step + 1, batch, report)
                done = step + 1
                self.watch.progress(done, training.steps, self.record)
                stopping = self.stop.requested  # read once: a later signal is for the next step
                if done % training.log_every == 0 or self._is_due(done) or stopping:
                    self.tally.add(*self._checked(*pending))
                    pending = None
                if done % training.log_every == 0 or done == training.steps:
                    self._log(done, feed.waited_seconds)
                self._due(done, state, stopping)

    def _checked(self, step: int, batch: Batch, report: StepReport) -> tuple[StepReport, Batch]:
        report = jax.device_get(report)
        if not (math.isfinite(report.total) and math.isfinite(report.gradient_norm)):
            good, rows = checkpoint.steps(self.checkpoints), [r for r in batch.rows.tolist() if r >= 0]
            shown = ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")
            raise DivergedError(
                f"{self.folder}: loss {report.total:.4g} with gradient norm {report.gradient_norm:.4g} at step {step}, "
                f"batch of {len(rows)} rows ({shown}) of the store; last good checkpoint: "
                f"{good[-1] if good else 'none'}; lower training.learning_rate or training.clip_norm in a new workdir"
                f"{f', from these weights with --init-from {self.folder}' if good else ''}"
            )
        return report, batch

    def _is_due(self, step: int) -> bool:
        training = self.config.training
        return step % training.eval_every == 0 or step % training.save_every == 0 or step == training.steps

    def _due(self, step: int, state: State, stopping: bool) -> None:
        """Evaluation and saving at this step, all of whose reports have been checked."""
        training = self.config.training
        scores: dict[str, Any] = {}
        if not self._is_due(step) and not stopping:
            return
        try:
            if step % training.eval_every == 0 or step == training.steps:
                scores = self._evaluate(state.params)
                self._write({"step": step, **{f"valid_{k}": v for k, v in scores.items()}})
        except _Stopping:
            self._save(step, state, {"complete": False})
        else:
            self._save(step, state, {"complete": True, **scores})
        if self.stop.requested:
            raise self.stop.interrupted(
                f"stopped by {self.stop.signal.name} at step {step:,}; everything is saved, run the same command again "
                "to go on"
            )
        self.tally.started = time.perf_counter()  # speed is that of updates alone

    def _save(self, step: int, state: State, info: dict[str, Any]) -> None:
        training = self.config.training
        info = {"step": step, **info, "store": self.store.fingerprint, "tally": self.tally.totals}
        checkpoint.save(checkpoint.at(self.checkpoints, step), state, info)
        checkpoint.prune(
            self.checkpoints,
            step,
            training.save_every,
            training.steps,
            training.keep_last,
            training.keep_best,
            self.watch.say,
        )

    # Evaluation and reports.

    def _evaluate(self, params: PyTree, *, samples: bool = True) -> dict[str, Any]:
        sums, split = None, self.store.split("valid")
        for planned in sequential(split.source_lengths, split.target_lengths, self.plan.buckets):
            self._poll()
            batch = split.pad(planned.rows, planned.bucket.S, planned.bucket.N, planned.bucket.rows)
            part = self.loss(params, to_device(batch))
            sums = part if sums is None else sums + part
        sums = jax.device_get(sums)
        text = ScoredText(*(side[: self.config.training.eval_sentences] for side in self.validation))
        translations = self.translator.with_params(params).translate(text.sources, on_batch=lambda _: self._poll())
        if samples:
            shown = zip(text.sources[:3], text.references, translations)
            self.watch.samples([(source, references[0], hypothesis) for source, references, hypothesis in shown])
        scores = score(translations, text.references)
        loss = float(sums.loss / max(sums.tokens, 1))
        values = loss, int(sums.infeasible), scores.bleu, scores.chrf, scores.bp, scores.repetition_rate
        techniques = {name: float(mean.sum / max(mean.count, 1e-30)) for name, mean in sums.means.items()}
        if self.objective.needs_length:
            techniques["length_loss"] = float(sums.length_loss / max(sums.sentences, 1))
        return {**dict(zip(_SCORES, values, strict=True)), **techniques}

    def _poll(self) -> None:
        if self.stop.requested:
            raise _Stopping

    def _log(self, step: int, waited: float) -> None:
        found, hold = self.tally.report(), self.config.objective.free_bits_hold
        if found.get("active_units") == 0 and step > hold * self.config.training.steps and not self._collapse_told:
            self._collapse_told = True
            self.watch.say(
                f"step {step:,}: no latent dimension is active (KL {found['kl']:.3f} nats a piece, free bits "
                f"{found['free_bits']:.3f}): the posterior has collapsed, and training goes on as without latents"
            )
        self._write({"step": step, **found, "data_wait_seconds": round(waited - self._waited, 3)})
        self.tally, self._waited = _Tally(), waited

    def _write(self, record: dict[str, Any]) -> None:
        seconds = self._seconds_before + time.perf_counter() - self._started
        record = {**record, "seconds": round(seconds, 2)}
        self.metrics.write(record)
        self.record = {**self.record, **record}
        self.watch.progress(record["step"], self.config.training.steps, self.record)

    # End: averages, and the scores of what translating will use.

    def finish(self) -> dict[str, Any]:
        like = jax.eval_shape(lambda: models.init(self.model, 0))
        for name in workdir.AVERAGES:
            try:
                scores = workdir.average(
                    self.folder, self.config, name, like, lambda p: self._evaluate(p, samples=False), self.watch.say
                )
            except _Stopping:
                raise self.stop.interrupted(
                    f"stopped by {self.stop.signal.name} while averaging; run the same command again to finish"
                ) from None
            self.watch.say(f"{name}: valid BLEU {scores['bleu']:.2f}")
        chosen = workdir.best_weights(self.folder, self.watch.say)[0]
        info = checkpoint.read_info(chosen)
        self.watch.say(f"translating uses {chosen.name}: valid BLEU {info['bleu']:.2f}")
        return {"weights": chosen.name, **{name: info[name] for name in _SCORES}}


class _Tally:
    """Sums over the updates since the last record; checkpoints keep them, so an interrupted run records the same."""

    def __init__(self, totals: dict[str, float] | None = None) -> None:
        self.totals: dict[str, float] = totals or {}
        self.started, self._new_updates, self._new_tokens = time.perf_counter(), 0, 0

    def add(self, report: StepReport, batch: Batch) -> None:
        found = {**_flat(report.sums), "norm": report.gradient_norm, "updates": 1}
        self.totals = {name: self.totals.get(name, 0.0) + float(value) for name, value in found.items()}
        self._new_updates += 1
        self._new_tokens += int((batch.source_lengths * batch.weights).sum())

    def report(self) -> dict[str, float]:
        elapsed, totals = time.perf_counter() - self.started, self.totals
        return {
            "loss": totals["loss"] / max(totals["tokens"], 1),
            "length_loss": totals["length_loss"] / max(totals["sentences"], 1),
            "gradient_norm": totals["norm"] / totals["updates"],
            "infeasible": int(totals["infeasible"]),
            "source_tokens_per_second": self._new_tokens / elapsed,
            "steps_per_second": self._new_updates / elapsed,
            **{name: totals[f"{name}/sum"] / max(totals[f"{name}/count"], 1e-30) for name in _techniques(totals)},
        }


def _flat(sums: Sums) -> dict[str, Any]:
    """Each sum under its own name."""
    named = sums._asdict()
    means = named.pop("means").items()
    return {**named, **{f"{name}/{part}": v for name, mean in means for part, v in mean._asdict().items()}}


def _techniques(totals: dict[str, Any]) -> list[str]:
    return [name.removesuffix("/sum") for name in totals if name.endswith("/sum")]


def _open_data(config: Config, folder: Path, say: Callable[[str], None]) -> tuple[Store, Vocabularies]:
    """The store of a config, prepared if it is not there, and its vocabulary copied into the workdir."""
    path = Path(expand(config.data.store)) if config.data.store else folder / "store"
    if not (path / "metadata.json").exists():
        prepare(config, path, say)
    store, vocabularies = open_prepared(config, path)
    workdir.check_vocabularies(folder, vocabularies)
    return store, vocabularies


def _pad(split: Any, plan: Plan, step: int) -> Batch:
    planned = plan.batch(step)
    return split.pad(planned.rows, planned.bucket.S, planned.bucket.N, planned.bucket.rows)


__all__ = ["Watch", "train"]
