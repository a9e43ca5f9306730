"""What a training run looks like on a terminal, or in a log file. All of it goes to stderr."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from natjax.training.loop import Watch

LOG_SECONDS = 30.0  # without a terminal: at most one progress line in this time


class TrainingView:
    """A progress bar with loss, speed and time left on a terminal; plain lines elsewhere."""

    def __init__(self, label: str = "training", *, samples: bool = True):
        """Args: label: what the bar is called; samples: whether translations are shown after each evaluation."""
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.label, self._show_samples = label, samples
        self._printed, self._first_step, self._started = -LOG_SECONDS, None, 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=None, figures="preparing")

    def __enter__(self) -> "Watch":
        from natjax.training.loop import Watch

        self._bar.start()
        return Watch(self.say, self.progress, self.samples)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(line, markup=False)

    def progress(self, step: int, steps: int, record: dict[str, Any]) -> None:
        """Moves the bar; without a terminal, prints a line now and then."""
        figures = _figures(record)
        self._bar.update(self._task, completed=step, total=steps, figures=figures)
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = step, now
        due = now - self._printed >= LOG_SECONDS or step == steps
        if not self.console.is_terminal and due and figures:
            self._printed = now
            done = step - self._first_step
            left = f", {_clock((now - self._started) / done * (steps - step))} left" if done else ""
            self.say(f"{self.label}: step {step:,}/{steps:,}  {figures}{left}")

    def samples(self, triples: list[tuple[str, str, str]]) -> None:
        """Prints sources, references and translations."""
        if self._show_samples:
            for source, reference, translation in triples:
                self.say(f"  source       {source}\n  reference    {reference}\n  translation  {translation}\n")


def _figures(record: dict[str, Any]) -> str:
    shown = [("loss", "loss {:.3f}"), ("kl", "KL {:.2f}"), ("active_units", "{:.1f} active units"),
             ("shown", "shown {:.2f}"), ("source_tokens_per_second", "{:,.0f} tokens/s"),
             ("valid_bleu", "BLEU {:.2f}")]  # fmt: skip
    return "  ".join(form.format(record[name]) for name, form in shown if name in record)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class WorkView:
    """A progress bar for work that is counted, with speed and time left; plain lines without a terminal."""

    def __init__(self, label: str, unit: str):
        """Args: label: what is being done; unit: what is counted."""
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.label, self.unit = label, unit
        self._first: tuple[int, float] | None = None
        self._printed = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=None, speed="")

    def __enter__(self) -> "WorkView":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.line(f"natjax: {line}")

    def line(self, line: str) -> None:
        """Prints a line above the bar as it is."""
        self.console.print(line, markup=False)

    def progress(self, done: int, total: int) -> None:
        """Moves the bar; without a terminal, prints a line now and then. What was done before has no speed."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._printed = (done, now), now
        rate = (done - self._first[0]) / max(now - self._first[1], 1e-9)
        speed = f"{rate:,.1f} {self.unit}/s, {_clock((total - done) / rate)} left" if rate else ""
        self._bar.update(self._task, completed=done, total=total, speed=speed)
        if not self.console.is_terminal and now - self._printed >= LOG_SECONDS:
            self._printed = now
            self.console.print(f"{self.label}: {done:,}/{total:,} {self.unit}  {speed}", markup=False)
