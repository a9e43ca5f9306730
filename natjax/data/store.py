"""The token store: a folder of memory-mapped ids and offsets, written atomically, verified after every change.

metadata.json                      format, counts, size and sha256 of each file, and what the caller adds
{train,valid}.source.tokens.npy    u16 or u32, all rows one after another; each source row ends in eos
{train,valid}.source.offsets.npy   i64[rows + 1], row i is tokens[offsets[i] : offsets[i + 1]]
{train,valid}.target.*.npy         the same for targets; they end in eos only if the recipe says so
verified.json                      the state of the files when they were last verified: see `verified.py`; no content

`writing.py` writes it.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from natjax.atomic import sha256
from natjax.data import verified
from natjax.data.vocab import EOS, PAD
from natjax.errors import StoreError, one_line

FORMAT = 1
SPLITS = ("train", "valid")
_SIDES = ("source", "target")
_CHUNK = 1 << 20  # rows looked at in one go: what that takes is bounded


class Batch(NamedTuple):
    """One batch of static shape, in numpy. Ids are padded with 0 on the right.

    Attributes:
        source: i32[B, S], every row ends in eos.
        source_lengths: i32[B], eos included.
        target: i32[B, N].
        target_lengths: i32[B].
        weights: f32[B], 1 for a sentence, 0 for a padding row (source is a lone eos, so no mask is ever empty).
        rows: i64[B], the row of the store, -1 for a padding row.
    """

    source: np.ndarray
    source_lengths: np.ndarray
    target: np.ndarray
    target_lengths: np.ndarray
    weights: np.ndarray
    rows: np.ndarray


class SplitView:
    """The sentences of one split."""

    def __init__(self, source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]):
        """Takes (tokens, offsets) of both sides."""
        self._source, self._target = source, target
        self.rows = len(source[1]) - 1

    @cached_property
    def source_lengths(self) -> np.ndarray:
        """i32[rows], eos included."""
        return _lengths(self._source[1])

    @cached_property
    def target_lengths(self) -> np.ndarray:
        """i32[rows]."""
        return _lengths(self._target[1])

    @property
    def source_tokens(self) -> np.ndarray:
        """u16 or u32, the sources one after another."""
        return self._source[0]

    @property
    def target_tokens(self) -> np.ndarray:
        """u16 or u32, the targets one after another."""
        return self._target[0]

    def source(self, row: int) -> np.ndarray:
        """i32[S] of one row."""
        return _row(*self._source, row)

    def target(self, row: int) -> np.ndarray:
        """i32[N] of one row."""
        return _row(*self._target, row)

    def pad(self, rows: Sequence[int] | np.ndarray, S: int, N: int, batch_rows: int) -> Batch:
        """Gathers rows into static shapes.

        Args:
            rows: row numbers, at most `batch_rows`; the rest become padding rows.
            S: padded source length; no row may be longer.
            N: padded target length; no row may be longer.
            batch_rows: B.

        Raises:
            ValueError: too many rows, or one that is too long.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) > batch_rows:
            raise ValueError(f"{len(rows)} rows do not fit a batch of {batch_rows}")
        source = np.full((batch_rows, S), PAD, np.int32)
        target = np.full((batch_rows, N), PAD, np.int32)
        source[len(rows) :, 0] = EOS
        source_lengths = np.ones(batch_rows, np.int32)
        target_lengths = np.zeros(batch_rows, np.int32)
        source_lengths[: len(rows)] = _gather(*self._source, rows, source)
        target_lengths[: len(rows)] = _gather(*self._target, rows, target)
        weights = (np.arange(batch_rows) < len(rows)).astype(np.float32)
        ids = np.concatenate([rows, np.full(batch_rows - len(rows), -1, np.int64)])
        return Batch(source, source_lengths, target, target_lengths, weights, ids)


class Store:
    """An open store: its metadata and its splits."""

    def __init__(self, folder: Path, metadata: dict[str, Any], splits: dict[str, SplitView]):
        self.folder, self.metadata, self._splits = folder, metadata, splits

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checksums of all files: which tokens these are."""
        sums = {name: file["sha256"] for name, file in self.metadata["files"].items()}
        return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()

    def split(self, name: str) -> SplitView:
        """`train` or `valid`.

        Raises:
            StoreError: the store has no such split.
        """
        if name not in self._splits:
            raise StoreError(f"{self.folder}: has no split {name!r}; run natjax prepare again")
        return self._splits[name]


def array_names(split: str) -> list[str]:
    """The files that hold a split."""
    return [f"{split}.{side}.{kind}.npy" for side in _SIDES for kind in ("tokens", "offsets")]


def open_store(folder: str | Path, *, verify: bool = False) -> Store:
    """Opens a store: in milliseconds, or after comparing all its files with their checksums, some seconds a gigabyte.

    The sizes of all files, the kinds of the arrays and their first and last offsets are looked at each time. Checksums
    are compared, and offsets read from end to end, when a file is not in the state in which that was last done.

    Args:
        folder: what `writing.write_store` wrote.
        verify: compare the checksums whatever state the files are in.

    Raises:
        StoreError: missing, incomplete, damaged, or of another format version.
    """
    folder = Path(folder)
    metadata = _read_metadata(folder / "metadata.json")
    for name, expected in metadata["files"].items():
        path = folder / name
        if not path.is_file():
            raise _unusable(path, "missing")
        if path.stat().st_size != expected["bytes"]:
            raise _unusable(path, f"{path.stat().st_size:,} bytes instead of {expected['bytes']:,}")
    splits = {}
    for split, counts in metadata["splits"].items():
        sides = [_open_side(folder, f"{split}.{side}", counts["rows"], metadata["files"])
                 for side in _SIDES]  # fmt: skip
        splits[split] = SplitView(*sides)
    with verified.once(folder, metadata["files"], again=verify) as needed:
        if needed:
            _verify(folder, metadata)
    return Store(folder, metadata, splits)


def _verify(folder: Path, metadata: dict[str, Any]) -> None:
    for name, expected in metadata["files"].items():
        if sha256(folder / name) != expected["sha256"]:
            raise _unusable(folder / name, "its content has changed (sha256)")
    for path in (folder / f"{split}.{side}.offsets.npy" for split in metadata["splits"] for side in _SIDES):
        offsets = np.load(path, mmap_mode="r", allow_pickle=False)
        if any((np.diff(offsets[i : i + _CHUNK + 1]) < 0).any() for i in range(0, len(offsets), _CHUNK)):
            raise _unusable(path, "offsets do not ascend")


def _read_metadata(path: Path) -> dict[str, Any]:
    """Parses and checks the shape of `metadata.json`, so that later code can rely on its fields."""
    if not path.is_file():
        raise StoreError(f"{path.parent}: no token store there (metadata.json is missing); run natjax prepare")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"not readable as JSON, {one_line(error)}") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else type(metadata).__name__
        raise _unusable(path, f"store format {found!r} instead of {FORMAT}")
    try:
        for file in metadata["files"].values():
            _ = int(file["bytes"]), str(file["sha256"])
        for name, split in metadata["splits"].items():
            _ = int(split["rows"]), [metadata["files"][f] for f in array_names(name)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _unusable(path, f"a needed field is missing or of the wrong type ({error!r})") from None
    return metadata


def _open_side(folder: Path, prefix: str, rows: int, files: dict) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for name in (f"{prefix}.tokens.npy", f"{prefix}.offsets.npy"):
        path = folder / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _unusable(path, f"not readable as numpy array, {one_line(error)}") from None
        if str(array.dtype) != files[name].get("dtype") or array.ndim != 1:
            raise _unusable(path, f"holds {array.dtype} of rank {array.ndim}")
        arrays.append(array)
    tokens, offsets = arrays
    path = folder / f"{prefix}.offsets.npy"
    if offsets.dtype != np.int64 or len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != len(tokens):
        raise _unusable(path, "offsets do not agree with the tokens and the metadata")
    return tokens, offsets


def _unusable(path: Path, what: str) -> StoreError:
    return StoreError(f"{path}: {what}; run natjax prepare again")


def _lengths(offsets: np.ndarray) -> np.ndarray:
    lengths = np.empty(len(offsets) - 1, np.int32)
    for start in range(0, len(lengths), _CHUNK):
        part = offsets[start : start + _CHUNK + 1]
        np.subtract(part[1:], part[:-1], out=lengths[start : start + _CHUNK], casting="same_kind")
    return lengths


def _row(tokens: np.ndarray, offsets: np.ndarray, row: int) -> np.ndarray:
    if not 0 <= row < len(offsets) - 1:
        raise IndexError(f"row {row} of {len(offsets) - 1}")
    return tokens[offsets[row] : offsets[row + 1]].astype(np.int32)


def _gather(tokens: np.ndarray, offsets: np.ndarray, rows: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Copies rows to the left of `into` in one indexing operation; returns their lengths, i32."""
    lengths = offsets[rows + 1] - offsets[rows]
    if lengths.max(initial=0) > into.shape[1]:
        raise ValueError(f"a row of {lengths.max()} pieces does not fit {into.shape[1]}")
    inside = np.arange(into.shape[1]) < lengths[:, None]
    into[: len(rows)][inside] = tokens[(offsets[rows][:, None] + np.arange(into.shape[1]))[inside]]
    return lengths.astype(np.int32)
