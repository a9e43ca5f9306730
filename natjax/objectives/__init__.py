"""Losses behind one interface, and the training objective composed of them.

A loss is one small object (see `base.Objective`); the model, glancing and decoding use only its few functions, so a
new loss is one more object here and a line in `build`.
"""

from natjax.config import Config
from natjax.errors import ConfigError
from natjax.objectives.axe import AXE
from natjax.objectives.base import Objective
from natjax.objectives.cross_entropy import CrossEntropy, NextToken
from natjax.objectives.ctc import CTC


def build(config: Config) -> Objective:
    """The loss that a config names."""
    smoothing, eos = config.objective.label_smoothing, config.objective.target_eos
    match config.objective.loss:
        case "ctc":
            return CTC(config.model.ratio, smoothing, eos)
        case "ce":
            return NextToken(smoothing, eos) if config.model.kind == "autoregressive" else CrossEntropy(smoothing, eos)
        case "axe":
            return AXE(config.objective.skip_target_penalty, smoothing, eos)
    raise ConfigError(f"objective.loss: {config.objective.loss!r} is not ctc | axe | ce")


__all__ = ["AXE", "CTC", "CrossEntropy", "NextToken", "Objective", "build"]
