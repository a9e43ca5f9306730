"""The rows of the paper's Table 4, each one config with four fields changed, and the teacher of the distilled ones.

All see about the same sentences in an update: where frames are counted otherwise than by the config's own loss, so is
`training.batch_frames`.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from natjax.config import Config, ObjectiveConfig, validate
from natjax.errors import ConfigError, UserError, nearest
from natjax.typed import build


class Row(NamedTuple):
    """One row: the four choices, and what the paper reports.

    Attributes:
        loss: `objective.loss`.
        distilled: whether it trains on the teacher's translations (KD), or on the raw targets.
        latents: `model.latents`.
        glancing: `objective.glancing`.
        paper_bleu: the paper's BLEU, WMT14 English-German.
        inferred: whether the paper's table does not say plainly which row that number is of.
    """

    loss: str
    distilled: bool
    latents: str
    glancing: str
    paper_bleu: float
    inferred: bool = False

    @property
    def data(self) -> str:
        """The data in a word."""
        return "kd" if self.distilled else "raw"

    @property
    def name(self) -> str:
        """What the command line and folders call it, such as `ctc-kd-vae-glat`."""
        techniques = [choice for choice in (self.latents, self.glancing) if choice != "none"]
        return "-".join([self.loss, self.data, *techniques])

    @property
    def label(self) -> str:
        """What tables call it, such as `CTC KD + VAE + GLAT`."""
        data = "KD" if self.distilled else "raw"
        techniques = [choice.upper() for choice in (self.latents, self.glancing) if choice != "none"]
        return " + ".join([f"{self.loss.upper()} {data}", *techniques])


TABLE4 = (
    Row("ce", False, "none", "none", 11.40),
    Row("ce", True, "none", "none", 19.50),
    Row("axe", False, "none", "none", 16.59),
    Row("axe", True, "none", "none", 21.66),
    Row("axe", True, "vae", "none", 22.19),
    Row("axe", True, "none", "rnd", 22.74, inferred=True),
    Row("axe", True, "none", "glat", 24.67, inferred=True),
    Row("ctc", False, "none", "none", 18.18),
    Row("ctc", False, "vae", "none", 23.58),
    Row("ctc", False, "none", "glat", 21.81),
    Row("ctc", True, "none", "none", 26.51),
    Row("ctc", True, "vae", "none", 27.49),
    Row("ctc", True, "none", "rnd", 26.16, inferred=True),
    Row("ctc", True, "none", "glat", 27.20),
    Row("ctc", True, "vae", "glat", 27.21),
)
"""Gu and Kong (2021), Table 4, in its order."""

TEACHER = Row("ce", False, "none", "none", 27.48)
"""The autoregressive teacher, told above the rows: Transformer base of Gu and Kong (2021), Table 2."""

GRIDS = {"table4": TABLE4}


def select(rows: Sequence[Row], wanted: str | None) -> list[Row]:
    """The rows that a comma list of names or regular expressions means, in the grid's order; all without one.

    An expression must match a name from end to end.

    Raises:
        UserError: one that matches none, or is no expression.
    """
    if wanted is None:
        return list(rows)
    names = [row.name for row in rows]
    chosen: set[str] = set()
    for part in filter(None, map(str.strip, wanted.split(","))):
        try:
            found = {name for name in names if re.fullmatch(part, name)}
        except re.error as error:
            raise UserError(
                f"--rows {part}: not a regular expression ({error}); name rows: {', '.join(names)}"
            ) from None
        if not found:
            raise UserError(f"--rows {part}: no such row{nearest(part, names) or '; choose ' + ', '.join(names)}")
        chosen |= found
    if not chosen:
        raise UserError(f"--rows {wanted!r}: names no row; choose {', '.join(names)}")
    return [row for row in rows if row.name in chosen]


def row_config(config: Config, row: Row, distilled: str) -> Config:
    """The config of a row: `config` with its four fields, and as many sentences in an update.

    Args:
        config: what all rows share.
        row: the row.
        distilled: `data.train_target` of the distilled rows.

    Raises:
        ConfigError: the row and the rest of the config do not go together.
    """
    made = replace(
        config,
        data=replace(config.data, train_target=distilled if row.distilled else config.data.train_target),
        model=replace(config.model, latents=row.latents),
        objective=replace(config.objective, loss=row.loss, glancing=row.glancing),
        training=replace(config.training, batch_frames=_batch_frames(config, row.loss)),
    )
    try:
        made = build(Config, dataclasses.asdict(made), "the config")  # replace does not look at types
        validate(made)
    except ConfigError as error:
        raise ConfigError(f"row {row.name}: {error}") from None
    return made


def _batch_frames(config: Config, loss: str) -> int:
    """`training.batch_frames` for so many sentences as the config has in an update, with this loss.

    A source piece has `model.ratio` frames without a length, and about one with it.
    """

    def frames_a_piece(objective: ObjectiveConfig) -> float:
        return 1.0 if objective.needs_length else config.model.ratio

    own, wanted = map(frames_a_piece, (config.objective, replace(config.objective, loss=loss)))
    return round(config.training.batch_frames * wanted / own)


def teacher_config(config: Config) -> Config:
    """The autoregressive teacher of the same sizes, on the same data, as long: what distilled rows learn from."""
    made = replace(
        config,
        name=f"{config.name}_teacher",
        data=replace(config.data, store=""),
        model=replace(config.model, kind="autoregressive", latents="none"),
        objective=replace(config.objective, loss="ce", target_eos=True, label_smoothing=0.1, glancing="none"),
        training=replace(config.training, encoder_from="", batch_frames=_batch_frames(config, "ce")),
    )
    try:
        validate(made)
    except ConfigError as error:
        raise ConfigError(f"the teacher: {error}; or name one with --teacher") from None
    return made
