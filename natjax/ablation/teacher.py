"""The distilled target of a grid: a teacher, trained or given, and its translations of the training source."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from natjax.ablation.grid import teacher_config
from natjax.ablation.place import Place
from natjax.config import Config, load_config, validate
from natjax.data.prepare import corpus_files
from natjax.distillation.job import Job, Settings
from natjax.distillation.run import Say, distill
from natjax.errors import ConfigError, UserError
from natjax.training import checkpoint, workdir
from natjax.training.loop import Watch, train

Progress = Callable[[int, int], None]
"""Told of the lines that are translated, and of all of them."""

_TEXT = (
    "root", "train_source", "train_target", "valid_source", "valid_target", "embedded", "obtain", "source_language",
    "target_language",
)  # fmt: skip


class Teacher:
    """What `--teacher` means: a finished workdir, a config, or the grid's own config made autoregressive.

    Attributes:
        folder: its workdir.
        config: what is trained there; None where the workdir is given.
    """

    def __init__(self, place: Place, named: str | None):
        """Looks and writes nothing. Raises UserError for a workdir that is not finished, or a config of no teacher."""
        self._place = place
        self.folder, self.config = place.teacher, None
        if named is None:
            self.config = teacher_config(place.config)
        elif Path(named).is_dir():
            self.folder = Path(named)
            _check_finished(self.folder)
        else:
            try:
                self.config = _on_text_of(load_config(named), place.config)
            except ConfigError as error:
                raise ConfigError(f"--teacher {error}") from None

    def distill(
        self,
        say: Say,
        training: Callable[[str], AbstractContextManager[Watch]],
        distilling: Callable[[], AbstractContextManager[Progress]],
    ) -> None:
        """Trains and distils, or goes on with it; at once where all is there.

        Args:
            say: told a line at a time.
            training: the view of a training, by its label.
            distilling: the view of a distillation.

        Raises:
            BusyError: another process is at it.
            UserError: see `train` and `distill`.
        """
        (self._place.folder / "text").mkdir(exist_ok=True)
        with workdir.locked(self._place.folder / "text"):
            if self.config is not None:
                with training("teacher") as watch:
                    train(self.config, self.folder, watch=watch)
            decoding = (self.config or workdir.load_config(self.folder)).decoding
            files = corpus_files(self._place.config, ("train",))
            job = Job(
                source=files["train_source"],
                output=self._place.distilled,
                target=files["train_target"],
                settings=Settings(decoding.beam_size, decoding.length_penalty),
            )
            with distilling() as progress:
                distill([self.folder], job, say=say, progress=progress)


def _check_finished(folder: Path) -> None:
    config = workdir.load_config(folder)
    made = max(checkpoint.steps(folder / "checkpoints"), default=0)
    if made < config.training.steps:
        raise UserError(
            f"{folder}: has made {made:,} of {config.training.steps:,} updates; finish it with natjax train, or name "
            "another --teacher"
        )
    if config.model.kind != "autoregressive":
        raise UserError(f"{folder}: model.kind={config.model.kind} is no teacher; name an autoregressive model")


def _on_text_of(config: Config, grid: Config) -> Config:
    """A teacher's config on the text and the vocabulary of the grid."""
    if config.model.kind != "autoregressive":
        raise ConfigError(f"{config.name}: model.kind={config.model.kind} is no teacher; name an autoregressive config")
    text = {name: getattr(grid.data, name) for name in _TEXT}
    made = replace(config, data=replace(config.data, store="", **text), vocab=grid.vocab)
    validate(made)
    return made
