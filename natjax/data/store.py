"""The token store: a folder of memory-mapped ids and offsets, written atomically, verified when opened.

metadata.json                      format, counts, size and sha256 of each file, and what the caller adds
{train,valid}.source.tokens.npy    u16 or u32, all rows one after another; each source row ends in eos
{train,valid}.source.offsets.npy   i64[rows + 1], row i is tokens[offsets[i] : offsets[i + 1]]
{train,valid}.target.*.npy         the same for targets; they end in eos only if the recipe says so
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from natjax.atomic import new_folder, sha256
from natjax.data.vocab import EOS, PAD, Vocabularies
from natjax.errors import StoreError, one_line

FORMAT = 1
_SPLITS = ("train", "valid")
_ARRAYS = [f"{split}.{side}.{kind}.npy"
           for split in _SPLITS for side in ("source", "target") for kind in ("tokens", "offsets")]  # fmt: skip
_OWN_FILES = {"metadata.json", "vocab.model", "vocab.source.model", "vocab.target.model", *_ARRAYS}

Rows = Sequence[Sequence[int]]


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
        return np.diff(self._source[1]).astype(np.int32)

    @cached_property
    def target_lengths(self) -> np.ndarray:
        """i32[rows]."""
        return np.diff(self._target[1]).astype(np.int32)

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


def write_store(
    folder: str | Path,
    splits: dict[str, tuple[Rows, Rows]],
    metadata: dict[str, Any],
    vocabularies: Vocabularies | None = None,
) -> None:
    """Writes a store, whole or not at all; one that exists is replaced.

    Args:
        folder: where.
        splits: name (train, valid) -> source rows and target rows, exactly as they shall be stored (sources end in
            eos already).
        metadata: what else `metadata.json` shall hold (recipe, filter reports).
        vocabularies: saved beside the tokens, and their sizes and fingerprints recorded.

    Raises:
        StoreError: the folder holds other things, or cannot be written.
        ValueError: sides differ in length, a source does not end in eos, an unknown split.
    """
    folder = Path(folder)
    arrays = _flatten(splits)
    check_free(folder)
    with new_folder(folder, StoreError, replace=True) as new:
        for name, array in arrays.items():
            with (new / name).open("wb") as file:
                np.save(file, array, allow_pickle=False)
        counts = {
            split: {
                "rows": len(source),
                "source_tokens": len(arrays[f"{split}.source.tokens.npy"]),
                "target_tokens": len(arrays[f"{split}.target.tokens.npy"]),
            }
            for split, (source, _) in splits.items()
        }
        about = {"format": FORMAT, "splits": counts}
        if vocabularies is not None:
            for name, vocabulary in vocabularies.files().items():
                (new / name).write_bytes(vocabulary.model)
            about["vocabularies"] = {
                side: {"size": len(vocabulary), "fingerprint": vocabulary.fingerprint}
                for side, vocabulary in zip(("source", "target"), vocabularies)
            }
        about["files"] = {
            path.name: {
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
                **({"dtype": str(arrays[path.name].dtype)} if path.name in arrays else {}),
            }
            for path in sorted(new.iterdir())
        }
        text = json.dumps({**about, **metadata}, indent=2, ensure_ascii=False)
        (new / "metadata.json").write_text(text + "\n", encoding="utf-8")


def check_free(folder: str | Path) -> None:
    """Whether a store may be written there: the place is free, or holds a store and nothing else. Raises StoreError."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder}: is a file; name a folder with --data.store")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    # A file called metadata.json alone may be anybody's.
    foreign = sorted(names - _OWN_FILES) or sorted(names if names.isdisjoint(_ARRAYS) else ())
    if foreign:
        raise StoreError(
            f"{folder}: holds {foreign[0]!r}, which is no part of a token store; name another --data.store"
        )


def open_store(folder: str | Path) -> Store:
    """Opens a store after comparing all its files with the metadata: a second or two a gigabyte.

    Args:
        folder: what `write_store` wrote.

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
        if sha256(path) != expected["sha256"]:
            raise _unusable(path, "its content has changed (sha256)")
    splits = {}
    for split, counts in metadata["splits"].items():
        sides = [_open_side(folder, f"{split}.{side}", counts["rows"], metadata["files"])
                 for side in ("source", "target")]  # fmt: skip
        splits[split] = SplitView(*sides)
    return Store(folder, metadata, splits)


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
            _ = int(split["rows"]), [metadata["files"][f] for f in _ARRAYS if f.startswith(f"{name}.")]
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
    if (np.diff(offsets) < 0).any():
        raise _unusable(path, "offsets do not ascend")
    return tokens, offsets


def _unusable(path: Path, what: str) -> StoreError:
    return StoreError(f"{path}: {what}; run natjax prepare again")


def _flatten(splits: dict[str, tuple[Rows, Rows]]) -> dict[str, np.ndarray]:
    """File name -> array. All tokens share one dtype."""
    flat = {}
    for split, (source, target) in splits.items():
        if split not in _SPLITS:
            raise ValueError(f"unknown split {split!r}")
        if len(source) != len(target):
            raise ValueError(f"{split}: {len(source)} sources, {len(target)} targets")
        if any(len(row) == 0 or row[-1] != EOS for row in source):
            raise ValueError(f"{split}: a source does not end in eos")
        flat[f"{split}.source"], flat[f"{split}.target"] = _concatenate(source), _concatenate(target)
    largest = max((int(tokens.max(initial=0)) for tokens, _ in flat.values()), default=0)
    dtype = np.uint16 if largest < 1 << 16 else np.uint32
    arrays = {}
    for name, (tokens, offsets) in flat.items():
        arrays[f"{name}.tokens.npy"], arrays[f"{name}.offsets.npy"] = tokens.astype(dtype), offsets
    return arrays


def _concatenate(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return np.concatenate([np.zeros(0, np.uint32), *(np.asarray(row, np.uint32) for row in rows)]), offsets


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
