"""Tables in a folder: an .npy file an array, and metadata.json with what they are and each file's SHA-256."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from natjax.atomic import clear_leftovers, new_folder, sha256
from natjax.errors import LanguageModelError, one_line
from natjax.lm.hashing import WIDTH
from natjax.lm.tables import NgramTables, sizes

FORMAT = 1
_DTYPES = {
    "keys": "int32",
    "log_probs": "float32",
    "following": "int32",
    "seed": "uint32",
    "aliases": "int32",
    "unigrams": "float32",
    "first": "int32",
    "backoffs": "float32",
    "shorter": "int32",
}
_OWN_FILES = {"metadata.json", *(f"{name}.npy" for name in _DTYPES)}


def check_free(folder: str | Path) -> None:
    """Whether tables may be written there: the place is free, or holds tables and nothing else.

    Raises:
        LanguageModelError: it holds other things.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise LanguageModelError(f"{folder}: is a file; name a folder with --output")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    # A file called metadata.json alone may be anybody's.
    foreign = sorted(names - _OWN_FILES) or sorted(names if "keys.npy" not in names else ())
    if foreign:
        raise LanguageModelError(
            f"{folder}: holds {foreign[0]!r}, which is no part of a language model; name another --output"
        )


def save_tables(folder: str | Path, tables: NgramTables, *, vocabulary: str, about: dict[str, Any]) -> None:
    """Writes tables, whole or not at all; those that exist there are replaced.

    Args:
        folder: where.
        tables: what.
        vocabulary: the fingerprint of the vocabulary that token ids are of.
        about: what else `metadata.json` shall hold (how the model was made).

    Raises:
        LanguageModelError: the folder holds other things, or cannot be written.
    """
    folder = Path(folder)
    clear_leftovers(folder.absolute().parent)
    check_free(folder)
    with new_folder(folder, LanguageModelError, replace=True) as new:
        for name, dtype in _DTYPES.items():
            array = np.asarray(getattr(tables, name))
            assert array.dtype == dtype, name
            with (new / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(new.iterdir())}
        metadata = {
            "format": FORMAT,
            "order": tables.order,
            "vocabulary": {"size": len(tables.aliases), "fingerprint": vocabulary},
            "sizes": sizes(tables)._asdict(),
            "files": files,
            **about,
        }
        text = json.dumps(metadata, indent=2, ensure_ascii=False)
        (new / "metadata.json").write_text(text + "\n", encoding="utf-8")


def load_tables(folder: str | Path, *, vocabulary: str) -> NgramTables:
    """Reads tables into numpy arrays, after comparing all files with the metadata.

    Args:
        folder: what `save_tables` wrote.
        vocabulary: the fingerprint of the model's target vocabulary.

    Raises:
        LanguageModelError: missing, incomplete, damaged, of another format version or of another vocabulary.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if metadata["vocabulary"]["fingerprint"] != vocabulary:
        raise LanguageModelError(
            f"{folder}: a language model of another vocabulary than this model's; run natjax lm train for this model"
        )
    arrays = {name: _read(folder / f"{name}.npy", metadata["files"], dtype) for name, dtype in _DTYPES.items()}
    tables = NgramTables(metadata["order"], **arrays)
    _check_shapes(folder, tables)
    return tables


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """What a folder says about its tables. Raises LanguageModelError."""
    path = Path(folder) / "metadata.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder}: no language model there (metadata.json is missing); run natjax lm train")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"not readable as JSON, {one_line(error)}") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else type(metadata).__name__
        raise _unusable(path, f"language model format {found!r} instead of {FORMAT}")
    try:
        if not (isinstance(metadata["order"], int) and metadata["order"] >= 1):
            raise TypeError(metadata["order"])
        _ = int(metadata["vocabulary"]["size"]), str(metadata["vocabulary"]["fingerprint"])
        for name in _DTYPES:
            file = metadata["files"][f"{name}.npy"]
            _ = int(file["bytes"]), str(file["sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(path, f"a needed field is missing or of the wrong type ({error!r})") from None
    return metadata


def fingerprint(folder: str | Path) -> str:
    """16 hexadecimal digits that tell a folder's tables from any others. Raises LanguageModelError."""
    files = read_metadata(folder)["files"]
    return hashlib.sha256("".join(files[f"{name}.npy"]["sha256"] for name in _DTYPES).encode()).hexdigest()[:16]


def _read(path: Path, files: dict[str, Any], dtype: str) -> np.ndarray:
    expected = files[path.name]
    if not path.is_file():
        raise _unusable(path, "missing")
    if path.stat().st_size != expected["bytes"]:
        raise _unusable(path, f"{path.stat().st_size:,} bytes instead of {expected['bytes']:,}")
    if sha256(path) != expected["sha256"]:
        raise _unusable(path, "its content has changed (sha256)")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unusable(path, f"not readable as numpy array, {one_line(error)}") from None
    if array.dtype != dtype:
        raise _unusable(path, f"holds {array.dtype} instead of {dtype}")
    return array


def _check_shapes(folder: Path, tables: NgramTables) -> None:
    """That the arrays belong together: wrong ones would be read out of bounds, in silence."""
    shapes = {field.name: getattr(tables, field.name).shape for field in dataclasses.fields(tables)[1:]}
    buckets, V, states = len(tables.keys), len(tables.aliases), len(tables.shorter)
    expected = {
        **dict.fromkeys(("log_probs", "following"), (buckets, WIDTH)),
        "keys": (buckets, 2 * WIDTH),
        "seed": (),
        **dict.fromkeys(("aliases", "unigrams", "first"), (V,)),
        **dict.fromkeys(("backoffs", "shorter"), (states,)),
    }
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise _unusable(folder / f"{name}.npy", f"of shape {shapes[name]} instead of {shape}")


def _unusable(path: Path, what: str) -> LanguageModelError:
    return LanguageModelError(f"{path}: {what}; run natjax lm train or natjax lm import again")
