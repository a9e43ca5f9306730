"""Writes token stores: rows are appended, so that none is held, and the folder appears whole or not at all."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from natjax.atomic import new_folder, sha256
from natjax.data.encoding import Ragged
from natjax.data.store import FORMAT, SPLITS, array_names
from natjax.data.verified import STAMP
from natjax.data.vocab import EOS, Vocabularies
from natjax.errors import StoreError

Rows = Sequence[Sequence[int]]

_ARRAYS = [name for split in SPLITS for name in array_names(split)]
_OWN_FILES = {"metadata.json", "vocab.model", "vocab.source.model", "vocab.target.model", STAMP, *_ARRAYS}


class StoreWriter:
    """A store in the making.

    Attributes:
        metadata: what else `metadata.json` shall hold (recipe, filter reports).
    """

    def __init__(self, folder: Path, splits: Sequence[str], dtype: np.dtype, stack: ExitStack):
        """Opens the files of these splits; `stack` closes them."""
        self.metadata: dict[str, Any] = {}
        self.folder, self._splits = folder, splits
        self._arrays: dict[str, _ArrayFile] = {}
        for name in (name for split in splits for name in array_names(split)):
            kind = np.dtype(np.int64) if name.endswith(".offsets.npy") else dtype
            self._arrays[name] = stack.enter_context(_ArrayFile(folder / name, kind))
        for name in self._arrays:
            if name.endswith(".offsets.npy"):
                self._arrays[name].append(np.zeros(1, np.int64))

    def append(self, split: str, source: Ragged, target: Ragged) -> None:
        """Adds rows, exactly as they shall be stored: sources end in eos already."""
        for side, (tokens, lengths) in (("source", source), ("target", target)):
            ids, offsets = (self._arrays[f"{split}.{side}.{kind}.npy"] for kind in ("tokens", "offsets"))
            offsets.append(ids.count + np.cumsum(lengths, dtype=np.int64))
            ids.append(tokens)

    def describe(self, vocabularies: Vocabularies | None) -> dict[str, Any]:
        """`metadata.json`, once the arrays are closed."""
        counts = {
            split: {
                "rows": self._arrays[f"{split}.source.offsets.npy"].count - 1,
                "source_tokens": self._arrays[f"{split}.source.tokens.npy"].count,
                "target_tokens": self._arrays[f"{split}.target.tokens.npy"].count,
            }
            for split in self._splits
        }
        about: dict[str, Any] = {"format": FORMAT, "splits": counts}
        if vocabularies is not None:
            about["vocabularies"] = {
                side: {"size": len(vocabulary), "fingerprint": vocabulary.fingerprint}
                for side, vocabulary in zip(("source", "target"), vocabularies)
            }
        about["files"] = {
            path.name: {
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
                **({"dtype": str(self._arrays[path.name].dtype)} if path.name in self._arrays else {}),
            }
            for path in sorted(self.folder.iterdir())
        }
        return {**about, **self.metadata}


@contextmanager
def new_store(
    folder: str | Path,
    splits: Sequence[str],
    dtype: np.dtype,
    vocabularies: Vocabularies | None = None,
) -> Iterator[StoreWriter]:
    """Yields the writer of a store that appears, in the place of an older one, when the block ends well.

    Args:
        folder: where.
        splits: train, valid, or both.
        dtype: of the tokens, u16 or u32.
        vocabularies: saved beside the tokens, and their sizes and fingerprints recorded.

    Raises:
        StoreError: the folder holds other things, or cannot be written.
    """
    folder = Path(folder)
    check_free(folder)
    with new_folder(folder, StoreError, replace=True) as new:
        with ExitStack() as stack:
            writer = StoreWriter(new, splits, dtype, stack)
            yield writer
        for name, vocabulary in vocabularies.files().items() if vocabularies else ():
            (new / name).write_bytes(vocabulary.model)
        text = json.dumps(writer.describe(vocabularies), indent=2, ensure_ascii=False)
        (new / "metadata.json").write_text(text + "\n", encoding="utf-8")


def write_store(
    folder: str | Path,
    splits: dict[str, tuple[Rows, Rows]],
    metadata: dict[str, Any],
    vocabularies: Vocabularies | None = None,
) -> None:
    """Writes a store of rows that are held, whole or not at all; one that exists is replaced.

    Args:
        folder: where.
        splits: name (train, valid) -> source rows and target rows, exactly as they shall be stored (sources end in
            eos already).
        metadata: what else `metadata.json` shall hold.
        vocabularies: as `new_store`.

    Raises:
        StoreError: the folder holds other things, or cannot be written.
        ValueError: sides differ in length, a source does not end in eos, an unknown split.
    """
    for split, (source, target) in splits.items():
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}")
        if len(source) != len(target):
            raise ValueError(f"{split}: {len(source)} sources, {len(target)} targets")
        if any(len(row) == 0 or row[-1] != EOS for row in source):
            raise ValueError(f"{split}: a source does not end in eos")
    ragged = {split: [_ragged(rows) for rows in sides] for split, sides in splits.items()}
    largest = max((int(side.tokens.max(initial=0)) for sides in ragged.values() for side in sides), default=0)
    dtype = np.dtype(np.uint16 if largest < 1 << 16 else np.uint32)
    with new_store(folder, list(splits), dtype, vocabularies) as writer:
        writer.metadata |= metadata
        for split, sides in ragged.items():
            writer.append(split, *sides)


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


def _ragged(rows: Rows) -> Ragged:
    lengths = np.fromiter((len(row) for row in rows), np.int32, len(rows))
    return Ragged(np.concatenate([np.zeros(0, np.uint32), *(np.asarray(row, np.uint32) for row in rows)]), lengths)


class _ArrayFile:
    """A numpy file of one dimension that grows. Its bytes are those of `numpy.save`."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.dtype, self.count = dtype, 0
        self._file = path.open("wb")
        self._header()

    def __enter__(self) -> "_ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._header()

    def append(self, array: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(array, self.dtype))
        self.count += len(array)

    def _header(self) -> None:
        # numpy leaves room in it for the length to grow, so it takes the same bytes in the end.
        about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, about)
