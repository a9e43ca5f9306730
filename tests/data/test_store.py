import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax.atomic import sha256
from natjax.config import VocabConfig
from natjax.data import store as module
from natjax.data import verified
from natjax.data.encoding import Ragged
from natjax.data.store import open_store
from natjax.data.verified import STAMP
from natjax.data.vocab import Vocabularies, Vocabulary
from natjax.data.writing import new_store, write_store
from natjax.errors import StoreError

ids = st.integers(3, 70_000)
source_rows = st.lists(ids, max_size=6).map(lambda row: [*row, 2])
pairs = st.lists(st.tuples(source_rows, st.lists(ids, max_size=6)), min_size=1, max_size=8)

SMALL = {"train": ([[5, 6, 2], [7, 2], [8, 9, 10, 2]], [[4], [5, 6, 7], [8, 8]]), "valid": ([[5, 2]], [[6, 7]])}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path) -> Path:
    write_store(tmp_path / "store", SMALL, {"recipe": {"a": 1}})
    return tmp_path / "store"


@given(pairs, pairs)
@settings(deadline=None, max_examples=50)
def test_rows_come_back_as_written(train, valid):
    splits = {"train": tuple(zip(*train)), "valid": tuple(zip(*valid))}
    with tempfile.TemporaryDirectory() as folder:
        write_store(folder, splits, {"recipe": {"x": [1, "ü"]}})
        store = open_store(folder)
        assert store.metadata["recipe"] == {"x": [1, "ü"]}
        for name, (source, target) in splits.items():
            view = store.split(name)
            assert view.rows == len(source) == store.metadata["splits"][name]["rows"]
            assert [view.source(i).tolist() for i in range(view.rows)] == list(source)
            assert [view.target(i).tolist() for i in range(view.rows)] == list(target)
            assert view.source_lengths.tolist() == [len(row) for row in source]
            assert view.target_lengths.tolist() == [len(row) for row in target]
            assert view.source_lengths.dtype == view.target_lengths.dtype == view.source(0).dtype == np.int32


@given(pairs, st.data())
@settings(deadline=None, max_examples=50)
def test_padding_agrees_with_a_plain_loop(pairs, data):
    source, target = zip(*pairs)
    rows = data.draw(st.lists(st.integers(0, len(pairs) - 1), max_size=5))
    S, N, B = (
        7 + data.draw(st.integers(0, 2)),
        6 + data.draw(st.integers(0, 2)),
        len(rows) + data.draw(st.integers(0, 3)),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_store(folder, {"train": (source, target)}, {})
        batch = open_store(folder).split("train").pad(rows, S, N, B)
    assert [array.shape for array in batch] == [(B, S), (B,), (B, N), (B,), (B,), (B,)]
    assert [array.dtype for array in batch] == [np.int32] * 4 + [np.float32, np.int64]
    for b in range(B):
        real = b < len(rows)
        s, t = (list(source[rows[b]]), list(target[rows[b]])) if real else ([2], [])
        assert batch.source[b].tolist() == s + [0] * (S - len(s))
        assert batch.target[b].tolist() == t + [0] * (N - len(t))
        assert (batch.source_lengths[b], batch.target_lengths[b]) == (len(s), len(t))
        assert (batch.weights[b], batch.rows[b]) == ((1, rows[b]) if real else (0, -1))


def test_padding_refuses_what_does_not_fit(folder):
    train = open_store(folder).split("train")
    for rows, S, N, B in (([0, 1], 4, 3, 1), ([2], 3, 3, 1), ([1], 4, 2, 1)):
        with pytest.raises(ValueError, match="fit"):
            train.pad(rows, S, N, B)


def test_rows_out_of_range_are_refused(folder):
    for row in (-1, 3):
        with pytest.raises(IndexError):
            open_store(folder).split("train").source(row)


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_tokens_take_two_bytes_while_they_can(tmp_path, largest, dtype):
    write_store(tmp_path / "s", {"train": ([[5, 2]], [[largest]])}, {})
    assert np.load(tmp_path / "s" / "train.source.tokens.npy").dtype == dtype
    assert open_store(tmp_path / "s").split("train").target(0).tolist() == [largest]


def test_tokens_are_mapped_and_not_read(folder):
    view = open_store(folder).split("train")
    assert all(isinstance(array, np.memmap) for array in (*view._source, *view._target))


def test_the_same_rows_give_the_same_bytes(folder, tmp_path):
    write_store(tmp_path / "again", SMALL, {"recipe": {"a": 1}})
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_the_vocabulary_lies_beside_the_tokens(tmp_path):
    vocabulary = Vocabulary.train(["ab ba", "abba bab"], VocabConfig(size=8))
    write_store(tmp_path / "s", SMALL, {}, Vocabularies(vocabulary, vocabulary))
    store = open_store(tmp_path / "s")
    assert store.metadata["vocabularies"]["target"] == {"size": 8, "fingerprint": vocabulary.fingerprint}
    assert Vocabularies.load(tmp_path / "s").source.model == vocabulary.model
    (tmp_path / "s" / "vocab.model").unlink()
    with pytest.raises(StoreError, match=r"vocab\.model: missing; run natjax prepare again"):
        open_store(tmp_path / "s")


def test_what_can_be_no_store_is_refused_before_anything_is_written(tmp_path):
    for splits in ({"train": ([[5, 2]], [])}, {"train": ([[5]], [[5]])}, {"train": ([[]], [[5]])}, {"test": ([], [])}):
        with pytest.raises(ValueError):
            write_store(tmp_path / "s", splits, {})
    assert names(tmp_path) == []


def test_a_store_is_replaced_and_other_folders_are_not(folder):
    write_store(folder, {"train": ([[5, 2]], [[6]])}, {})
    assert open_store(folder).split("train").rows == 1
    with pytest.raises(StoreError, match=r"has no split 'valid'"):
        open_store(folder).split("valid")
    for name in ("metadata.json", "vocab.model"):  # no store without its arrays
        (folder.parent / name).mkdir()
        (folder.parent / name / name).write_text("{}")
        with pytest.raises(StoreError, match=rf"holds '{name}', which is no part of a token store"):
            write_store(folder.parent / name, {"train": ([[5, 2]], [[6]])}, {})
        assert names(folder.parent / name) == [name]
    text = folder.parent / "text"
    text.write_text("years of work")
    with pytest.raises(StoreError, match="text: is a file; name a folder"):
        write_store(text, {"train": ([[5, 2]], [[6]])}, {})
    assert text.read_text() == "years of work"
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"holds 'thesis\.tex', which is no part of a token store"):
        write_store(folder, SMALL, {})
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert open_store(folder).split("train").rows == 1


def test_a_folder_without_a_store(tmp_path):
    with pytest.raises(StoreError, match=r"no token store there \(metadata\.json is missing\); run natjax prepare"):
        open_store(tmp_path)


def open_metadata(folder: Path) -> dict:
    return json.loads((folder / "metadata.json").read_text())


def _edit_metadata(folder: Path, change) -> None:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def _rewrite(folder: Path, name: str, array: np.ndarray) -> None:
    """Another array under the same name, with metadata that vouch for it."""
    np.save(folder / name, array)
    data = (folder / name).read_bytes()
    about = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "dtype": str(array.dtype)}
    _edit_metadata(folder, lambda m: m["files"].__setitem__(name, about))


@pytest.mark.parametrize("name", ["train.source.tokens.npy", "valid.target.offsets.npy"])
def test_a_missing_or_cut_file_is_named(folder, name):
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(StoreError, match=rf"{name}: {len(data) - 1} bytes instead of {len(data)}; run natjax prepare"):
        open_store(folder)
    path.unlink()
    with pytest.raises(StoreError, match=rf"{name}: missing; run natjax prepare again"):
        open_store(folder)


def test_a_changed_byte_is_found(folder):
    path = folder / "train.target.tokens.npy"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"train\.target\.tokens\.npy: its content has changed"):
        open_store(folder)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The files whose checksums are computed; how young a file is does not matter."""
    seen = []
    monkeypatch.setattr(module, "sha256", lambda path: seen.append(path.name) or sha256(path))
    monkeypatch.setattr(verified, "_SETTLED", -60)
    return seen


def _flip(path: Path) -> None:
    """A byte changes in place: name, size and inode stay."""
    with path.open("r+b") as file:
        file.seek(-2, 2)
        byte = file.read(1)[0]
        file.seek(-2, 2)
        file.write(bytes([byte ^ 1]))


def test_a_store_is_read_once_and_then_opened(folder, reads):
    fingerprint = open_store(folder).fingerprint
    assert sorted(reads) == [name for name in names(folder) if name.endswith(".npy")]
    reads.clear()
    assert open_store(folder).fingerprint == fingerprint and open_store(folder).split("train").rows == 3
    assert reads == []
    open_store(folder, verify=True)
    assert len(reads) == 8


@pytest.mark.parametrize("name", ["train.source.tokens.npy", "train.source.offsets.npy", "valid.target.tokens.npy"])
@pytest.mark.parametrize("times", ["as they come", "put back"])
def test_a_byte_that_changes_after_that_is_found(folder, reads, name, times):
    open_store(folder)
    assert (folder / STAMP).is_file()
    path, before = folder / name, (folder / name).stat()
    time.sleep(0.02)  # the clock of the file system must have moved on
    _flip(path)
    if times == "put back":  # mtime, as programs that copy do; nobody can put ctime back
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StoreError, match=rf"{name}: (its content has changed|offsets)"):
        open_store(folder)
    _flip(path)
    open_store(folder)


def test_decay_that_changes_no_time_is_found_when_asked_for(folder, reads):
    _flip(folder / "train.target.tokens.npy")
    stat = {name: (folder / name).stat() for name in open_metadata(folder)["files"]}
    vouched = {
        name: [file["sha256"], stat[name].st_size, stat[name].st_mtime_ns, stat[name].st_ctime_ns]
        for name, file in open_metadata(folder)["files"].items()
    }
    (folder / STAMP).write_text(json.dumps(vouched))
    open_store(folder)
    with pytest.raises(StoreError, match=r"train\.target\.tokens\.npy: its content has changed"):
        open_store(folder, verify=True)


def test_what_could_change_unseen_is_not_recorded(folder, monkeypatch):
    """Two changes within the resolution of the clock leave the same times, so young files are compared again."""
    open_store(folder)
    assert STAMP not in names(folder)
    monkeypatch.setattr(verified, "_SETTLED", 0.05)
    time.sleep(0.1)
    open_store(folder)
    assert STAMP in names(folder)


def test_a_copy_is_compared_again(folder, reads):
    open_store(folder)
    reads.clear()
    time.sleep(0.02)
    shutil.copytree(folder, folder.parent / "copy")  # with all times, and with the record
    assert STAMP in names(folder.parent / "copy")
    open_store(folder.parent / "copy")
    assert len(reads) == 8


@pytest.mark.parametrize("record", ["", "{", "[]", "\udcff", '{"train.source.tokens.npy": 3}'])
def test_a_damaged_record_costs_a_comparison(folder, reads, record):
    (folder / STAMP).write_bytes(record.encode(errors="surrogateescape"))
    open_store(folder)
    assert len(reads) == 8
    open_store(folder)
    assert len(reads) == 8


def test_where_nothing_can_be_recorded_the_store_opens_all_the_same(folder, reads):
    (folder / STAMP).mkdir()  # a refusal that root meets, too
    for _ in range(2):
        assert open_store(folder).split("train").rows == 3
    assert len(reads) == 16


def test_a_record_is_part_of_the_store(folder, reads):
    open_store(folder)
    write_store(folder, {"train": ([[5, 2]], [[6]])}, {})
    assert STAMP not in names(folder)


def test_the_fingerprint_is_that_of_the_checksums(folder):
    """Checkpoints hold it, so it may never change: the digest of all files' digests, by name."""
    sums = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir() if f.suffix == ".npy"}
    text = "{" + ", ".join(f'"{name}": "{digest}"' for name, digest in sorted(sums.items())) + "}"
    assert open_store(folder).fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_arrays_are_the_files_that_numpy_saves(folder, tmp_path):
    for name in (n for n in names(folder) if n.endswith(".npy")):
        np.save(tmp_path / "again.npy", np.load(folder / name))
        assert (tmp_path / "again.npy").read_bytes() == (folder / name).read_bytes()


def test_rows_may_come_in_blocks(folder, tmp_path):
    def ragged(rows):
        return Ragged(
            np.array([i for row in rows for i in row], np.uint16), np.array([len(row) for row in rows], np.int32)
        )

    with new_store(tmp_path / "blocks", ["train", "valid"], np.dtype(np.uint16)) as writer:
        source, target = SMALL["train"]
        writer.append("train", ragged(source[:1]), ragged(target[:1]))
        writer.append("valid", *map(ragged, SMALL["valid"]))
        writer.append("train", ragged([]), ragged([]))
        writer.append("train", ragged(source[1:]), ragged(target[1:]))
        writer.metadata["recipe"] = {"a": 1}
    for file in folder.iterdir():
        assert (tmp_path / "blocks" / file.name).read_bytes() == file.read_bytes()


def test_offsets_that_do_not_ascend_are_found(folder):
    _rewrite(folder, "train.source.offsets.npy", np.array([0, 5, 3, 9]))
    with pytest.raises(StoreError, match=r"train\.source\.offsets\.npy: offsets do not ascend"):
        open_store(folder)


@pytest.mark.parametrize("offsets", [[1, 3, 5, 9], [0, 3, 5, 8], [0, 3, 9], [0.0, 3.0, 5.0, 9.0]])
def test_offsets_that_do_not_fit_the_tokens(folder, offsets):
    _rewrite(folder, "train.source.offsets.npy", np.array(offsets))
    with pytest.raises(StoreError, match=r"train\.source\.offsets\.npy: offsets do not agree"):
        open_store(folder)


@pytest.mark.parametrize("array", [np.array([object()]), np.zeros((2, 2), np.uint16)])
def test_arrays_of_another_kind(folder, array):
    _rewrite(folder, "train.source.tokens.npy", array)
    with pytest.raises(StoreError, match=r"train\.source\.tokens\.npy: (not readable as numpy array|holds)"):
        open_store(folder)


def test_a_header_that_is_not_numpy(folder):
    path = folder / "train.source.tokens.npy"
    data = b"x" * path.stat().st_size
    path.write_bytes(data)
    vouched = {"sha256": hashlib.sha256(data).hexdigest()}
    _edit_metadata(folder, lambda m: m["files"]["train.source.tokens.npy"].update(vouched))
    with pytest.raises(StoreError, match=r"train\.source\.tokens\.npy: not readable as numpy array"):
        open_store(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("files"),
        lambda m: m.pop("splits"),
        lambda m: m["files"].pop("train.source.tokens.npy"),
        lambda m: m["files"]["train.source.tokens.npy"].pop("bytes"),
        lambda m: m["files"].__setitem__("train.source.tokens.npy", 3),
        lambda m: m["splits"]["train"].__setitem__("rows", "many"),
        lambda m: m.__setitem__("splits", [1]),
        lambda m: m.__setitem__("format", 99),
    ],
)
def test_changed_metadata(folder, change):
    _edit_metadata(folder, change)
    with pytest.raises(StoreError, match=r"metadata\.json: .*; run natjax prepare again") as caught:
        open_store(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\udcff"])
def test_metadata_that_are_no_json_object(folder, text):
    (folder / "metadata.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=r"metadata\.json: .*; run natjax prepare again"):
        open_store(folder)


def test_row_counts_that_do_not_match(folder):
    _edit_metadata(folder, lambda m: m["splits"]["train"].__setitem__("rows", 2))
    with pytest.raises(StoreError, match=r"train\.source\.offsets\.npy: offsets do not agree"):
        open_store(folder)


def test_an_open_store_outlives_its_replacement(folder):
    view = open_store(folder).split("train")
    write_store(folder, {"train": ([[9, 2]], [[9]])}, {})
    assert view.source(0).tolist() == [5, 6, 2]
    shutil.rmtree(folder)
    assert view.target(1).tolist() == [5, 6, 7]
