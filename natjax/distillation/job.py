"""What is to be distilled, and how translations are searched for and chosen."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from natjax.errors import UserError

BLOCK = 1024  # lines


@dataclass(frozen=True)
class Settings:
    """How translations are searched for and chosen.

    Attributes:
        beam: width of the teachers' beam; 1 is greedy, the only way of a non-autoregressive teacher.
        length_penalty: exponent of the length, eos counted, by which an autoregressive teacher divides a translation's
            log-probability; all choice rests on that. A non-autoregressive one divides by the frames.
        n_best: translations that a line takes, of those of all teachers the best.
        minimum_score: translations of less are dropped; None: none is. With length penalty 1 nats a token, or a frame.
    """

    beam: int = 5
    length_penalty: float = 1.0
    n_best: int = 1
    minimum_score: float | None = None

    def __post_init__(self) -> None:
        """Raises UserError naming the option that is out of range."""
        checks = [
            (self.beam >= 1, f"--beam {self.beam}: must be 1 or more"),
            (0 <= self.length_penalty < math.inf, f"--length-penalty {self.length_penalty}: must be 0 or more"),
            (1 <= self.n_best <= self.beam, f"--n-best {self.n_best}: must be from 1 to the beam, {self.beam}"),
            (self.minimum_score is None or math.isfinite(self.minimum_score),
             f"--minimum-score {self.minimum_score}: must be a number"),
        ]  # fmt: skip
        for fine, message in checks:
            if not fine:
                raise UserError(message)

    @property
    def keeps_lines(self) -> bool:
        """Whether line i of the output translates line i of the source."""
        return self.n_best == 1 and self.minimum_score is None


@dataclass(frozen=True)
class Job:
    """What is to be distilled.

    Attributes:
        source: the training source, one sentence a line.
        output: the file to make.
        output_source: the file of matching sources; needed and allowed where the settings do not keep lines in place.
        target: the target that `source` has now, for the report; None: the report has the distilled data alone.
        settings: how translations are searched for and chosen.
        shard: (i, n), this process does each n-th block from the i-th on, counted from 1.
        allow_held_out: also validation and test text.
        allow_language: also text that does not look like the teachers' source language.
        block: lines that are translated together, and lost at most in a kill.
    """

    source: Path
    output: Path
    output_source: Path | None = None
    target: Path | None = None
    settings: Settings = field(default_factory=Settings)
    shard: tuple[int, int] = (1, 1)
    allow_held_out: bool = False
    allow_language: bool = False
    block: int = BLOCK

    @property
    def about(self) -> Path:
        """The file that tells how `output` was made."""
        return self.output.with_name(f"{self.output.name}.json")

    @property
    def outputs(self) -> list[Path]:
        """The text files to make."""
        return [file for file in (self.output, self.output_source) if file is not None]

    def check(self) -> None:
        """Raises UserError if the files or the shard do not go together."""
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise UserError(f"--shard {self.shard[0]}/{self.shard[1]}: must be from 1/n to n/n")
        if self.output_source is None and not self.settings.keeps_lines:
            raise UserError("--n-best and --minimum-score change which lines there are; add --output-source FILE")
        if self.output_source is not None and self.settings.keeps_lines:
            raise UserError("--output-source is for --n-best and --minimum-score; without them --source itself matches")
        for file in self.outputs:
            if not file.parent.is_dir():
                raise UserError(f"{file}: its folder does not exist; make it first")
            if file.is_dir() or file.suffix == ".gz":
                raise UserError(f"{file}: is {'a folder' if file.is_dir() else 'written as plain text'}; "
                                "name another file")  # fmt: skip
        files = (self.source, self.target, *self.outputs, self.about)
        taken = [file.resolve() for file in files if file is not None]
        if len(set(taken)) < len(taken):
            raise UserError("--source, --target, --output and --output-source must be different files")
