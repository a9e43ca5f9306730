"""Weights that a new run takes over from another one: all of them, or a teacher's encoder."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from natjax.config import Config, expand
from natjax.data.vocab import Vocabularies
from natjax.errors import WorkdirError
from natjax.training import workdir
from natjax.typing import PyTree

# What a student takes over from its teacher, and the fields in which both must agree.
_PARTS = ("source_embedding", "output_embedding", "encoder_positions", "encoder")
_FIELDS = (
    "encoder_layers", "width", "feed_forward", "heads", "activation", "norm", "positions", "max_positions",
    "share_embeddings",
)  # fmt: skip


def check(config: Config, init_from: Path | None) -> None:
    """Raises UserError unless a new run has at most one place to begin from, and it is a workdir."""
    encoder_from = config.training.encoder_from
    if init_from is not None and encoder_from:
        raise WorkdirError(f"--init-from {init_from} and training.encoder_from {encoder_from}: give one of them")
    if init_from is not None or encoder_from:
        workdir.load_config(init_from or Path(expand(encoder_from)))


def model(other: Path, vocabularies: Vocabularies, like: PyTree, say: Callable[[str], None]) -> PyTree:
    """The weights that another workdir translates with.

    Args:
        other: the workdir.
        vocabularies: of the new run.
        like: its fresh parameters.
        say: told which weights are read.

    Raises:
        WorkdirError: it has no weights, another vocabulary, or a model of other sizes.
    """
    _, params = _load(other, vocabularies, say)
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, like):
        raise WorkdirError(f"{other}: a model of other sizes; --init-from needs the same model section")
    return params


def encoder(other: Path, config: Config, vocabularies: Vocabularies, say: Callable[[str], None]) -> PyTree:
    """Embeddings and encoder of another workdir's model, whatever its decoder: a part of the parameters.

    Args:
        other: the workdir.
        config: the new run.
        vocabularies: of the new run.
        say: told which weights are read.

    Raises:
        WorkdirError: it has no weights, another vocabulary, or another encoder.
    """
    theirs, params = _load(other, vocabularies, say)
    pairs = [(name, getattr(theirs.model, name), getattr(config.model, name)) for name in _FIELDS]
    differing = "; ".join(f"model.{name}: {there!r}, here {here!r}" for name, there, here in pairs if there != here)
    if differing:
        raise WorkdirError(f"{other}: another encoder ({differing}); training.encoder_from needs the same")
    return {name: params[name] for name in _PARTS if name in params}


def _load(other: Path, vocabularies: Vocabularies, say: Callable[[str], None]) -> tuple[Config, PyTree]:
    config, theirs, params = workdir.load_model(other, say)
    if [v.fingerprint for v in theirs] != [v.fingerprint for v in vocabularies]:
        raise WorkdirError(
            f"{other}: another vocabulary than this run's; take that one with --vocab.path {other}, in a new store"
        )
    return config, params
