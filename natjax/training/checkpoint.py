"""Checkpoints: folders that are written whole, verified when read, and kept or removed by one rule.

The only importer of orbax. A checkpoint is `checkpoints/<step>/` with orbax's arrays, `info.json` (step, validation
scores) and `checksums.json` (SHA-256 of every other file). It is written under a temporary name and renamed, so a
kill or a full disk leaves the previous ones as they were; what was damaged later is recognised by its checksums.
"""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from natjax.atomic import new_folder, sha256
from natjax.errors import CheckpointError, one_line
from natjax.typing import PyTree

ARRAYS, INFO, CHECKSUMS = "arrays", "info.json", "checksums.json"


def save(folder: Path, tree: PyTree, info: dict[str, Any]) -> None:
    """Writes a checkpoint, replacing one of the same name.

    Args:
        folder: the checkpoint's folder.
        tree: arrays to keep.
        info: what to know about them without reading them; JSON.

    Raises:
        CheckpointError: the disk is full or not writable. Earlier checkpoints are untouched.
    """
    from orbax.checkpoint import v1 as ocp

    with new_folder(folder, CheckpointError, replace=True) as temporary:
        try:
            with _quiet():
                ocp.save(temporary / ARRAYS, tree)
        except (ValueError, RuntimeError) as error:
            # So tensorstore reports what the system refused; anything else is a defect and must show.
            refused = re.search(r"os_error_code='(\d+)'", str(error))
            if refused is None and "No space left on device" not in str(error):
                raise
            code = int(refused[1]) if refused else errno.ENOSPC
            raise OSError(code, os.strerror(code)) from error
        (temporary / INFO).write_text(json.dumps(info, indent=2) + "\n")
        sums = {str(f.relative_to(temporary)): sha256(f) for f in sorted(temporary.rglob("*")) if f.is_file()}
        (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax's writers report a failure to their caller, and log tracebacks beside, which help nobody.

    The failure of one leaves others at work, who would make the folder anew while it is being removed.
    """
    log, threads = logging.getLogger("absl"), set(threading.enumerate())
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except BaseException:
        for thread in set(threading.enumerate()) - threads:
            thread.join(timeout=10)
        raise
    finally:
        log.setLevel(before)


def load(folder: Path, like: PyTree) -> PyTree:
    """Reads a checkpoint, or the part of it that is asked for, after verifying it.

    Args:
        folder: the checkpoint's folder.
        like: a tree of arrays or `jax.ShapeDtypeStruct` with the structure, shapes and dtypes that were saved; what
            it leaves out at the top is not read.

    Raises:
        CheckpointError: a file is missing or differs from its checksum, or holds other arrays than `like`.
    """
    verify(folder)
    return _read(folder, like)


def _read(folder: Path, like: PyTree) -> PyTree:
    from orbax.checkpoint import v1 as ocp

    arrays = folder.absolute() / ARRAYS  # orbax finds no metadata under a relative path, and does not say so
    top = set(like if isinstance(like, dict) else like._fields)
    saved = _shapes({name: tree for name, tree in ocp.metadata(arrays).metadata.items() if name in top})
    wanted = _shapes(like)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise CheckpointError(
                f"{folder}: {name} is {saved.get(name, 'missing')}, but the model has "
                f"{wanted.get(name, 'no such array')}; use the config that it was trained with"
            )
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(arrays, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like))


def _shapes(tree: PyTree) -> dict[str, str]:
    """Path -> shape and dtype, the same for named tuples and for the dictionaries that checkpoints make of them."""

    def step(key: Any) -> str:
        return str(next(getattr(key, field) for field in ("name", "key", "idx") if hasattr(key, field)))

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(map(step, path)): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves}


def verify(folder: Path) -> None:
    """Compares every file with its checksum. Raises CheckpointError naming the first that differs."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())
        if INFO not in sums or not any(name.startswith(f"{ARRAYS}/") for name in sums):
            raise CheckpointError(f"{folder / CHECKSUMS}: damaged (does not name all files)")
        for name, wanted in sums.items():
            if sha256(folder / name) != wanted:
                raise CheckpointError(f"{folder / name}: damaged (checksum differs)")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: incomplete or damaged ({one_line(error)})") from error


def read_info(folder: Path) -> dict[str, Any]:
    """What `save` was told about the arrays. Raises CheckpointError when it cannot be read."""
    try:
        return dict(json.loads((folder / INFO).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / INFO}: damaged ({one_line(error)})") from error


def bleu_of(folder: Path, say: Callable[[str], None]) -> float:
    """Validation BLEU of a checkpoint; -1 where it was not evaluated, or, as `say` is told, cannot be read."""
    try:
        bleu = read_info(folder).get("bleu")
    except CheckpointError as error:
        say(f"{error}; {folder.name} does not count as one of the best")
        return -1.0
    return -1.0 if bleu is None else bleu


def steps(checkpoints: Path) -> list[int]:
    """Steps of all complete-looking checkpoints, oldest first. Raises CheckpointError if the folder cannot be read."""
    try:
        names = [f.name for f in checkpoints.iterdir()] if checkpoints.exists() else []
    except OSError as error:
        raise CheckpointError(f"{checkpoints}: cannot be read ({error.strerror}); mend its permissions") from error
    return sorted(int(name) for name in names if name.isdigit() and (checkpoints / name / CHECKSUMS).is_file())


def at(checkpoints: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return checkpoints / f"{step:08d}"


def restore_latest(checkpoints: Path, like: PyTree, say: Callable[[str], None]) -> PyTree | None:
    """The newest undamaged checkpoint, or None when there is none at all.

    Args:
        checkpoints: folder of checkpoints.
        like: see `load`.
        say: told of each damaged checkpoint that is passed over.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    damaged: list[tuple[Path, CheckpointError]] = []
    for step in reversed(steps(checkpoints)):
        try:
            verify(at(checkpoints, step))
        except CheckpointError as error:
            damaged.append((at(checkpoints, step), error))
            continue
        for folder, error in damaged:
            # Set aside, so that the run, when it comes to this step again, takes it for neither new nor good. Only
            # now: where all are damaged, starting again must find and report the same.
            aside = folder.with_suffix(".damaged")
            say(f"{error}; set aside as {aside.name}, using the previous checkpoint")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        return _read(at(checkpoints, step), like)
    if damaged:
        raise CheckpointError(f"{checkpoints}: every checkpoint is damaged (the newest: {damaged[0][1]}); "
                              "train in a new workdir")  # fmt: skip
    return None


def regular(checkpoints: Path, save_every: int, last_step: int) -> list[int]:
    """Checkpoints of the schedule; those written because of a signal are not among them.

    Averages are taken over these alone, so a run that was interrupted averages what an undisturbed one does.
    """
    return [s for s in steps(checkpoints) if s % save_every == 0 or s == last_step]


def best(checkpoints: Path, candidates: list[int], count: int, say: Callable[[str], None]) -> list[int]:
    """The `count` steps of the highest validation BLEU; the later one among equals. `say`: see `bleu_of`."""
    ranked = sorted(((bleu_of(at(checkpoints, s), say), s) for s in candidates), reverse=True)
    return sorted(s for bleu, s in ranked[:count] if bleu >= 0)


def prune(
    checkpoints: Path,
    newest: int,
    save_every: int,
    last_step: int,
    keep_last: int,
    keep_best: int,
    say: Callable[[str], None],
) -> None:
    """Removes what is neither the one just written, nor among the last or best of the schedule; `say` as `bleu_of`."""
    candidates = regular(checkpoints, save_every, last_step)
    kept = {newest, *candidates[-keep_last:], *best(checkpoints, candidates, keep_best, say)}
    for step in set(steps(checkpoints)) - kept:
        shutil.rmtree(at(checkpoints, step))


def mean(trees: list[PyTree]) -> PyTree:
    """Element-wise mean of parameters, accumulated in float64 on the host."""

    def average(*leaves: Any) -> np.ndarray:
        wide = np.mean([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
        return np.asarray(wide, np.asarray(leaves[0]).dtype)  # an array for scalars too, as checkpoints need

    return jax.tree.map(average, *trees)
