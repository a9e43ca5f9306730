import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from natjax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, VocabConfig, to_json, validate
from natjax.data import corpus, lines, vocab, workers
from natjax.data import prepare as module
from natjax.data.corpus import normalise
from natjax.data.prepare import corpus_files, open_prepared, prepare, recipe
from natjax.data.verified import STAMP
from natjax.data.vocab import Vocabularies, Vocabulary
from natjax.errors import ConfigError, DataError, StoreError, UserError, VocabularyError, WorkerError

SOURCE = [f"the {colour} {thing} \u00a0 number {i} is here ." for i in range(12)
          for colour in ("red", "green") for thing in ("house", "garden")]  # fmt: skip
TARGET = [f"hier ist {thing} Nummer {i} in {colour} ." for i in range(12)
          for colour in ("Rot", "Grün") for thing in ("das Haus", "der Garten")]  # fmt: skip
# One pair for each filter: empty, too long, ratio, infeasible at 2 frames a piece.
ODD_SOURCE = ["", "word " * 70, "the house", "a"]
ODD_TARGET = ["leer", "Wort", "x " * 12, "r" * 4]
OBTAIN = "get it from https://example.org/corpus"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def config(tmp_path) -> Config:
    """A corpus on disk with a pair for each filter, and a config that names it."""
    write(tmp_path / "text", [*SOURCE, *ODD_SOURCE], [*TARGET, *ODD_TARGET])
    return Config(
        name="small",
        data=DataConfig(root=str(tmp_path / "text"), max_length=64, max_ratio=2.0, obtain=OBTAIN),
        vocab=VocabConfig(size=70),
        model=ModelConfig(ratio=2.0),
    )


def write(folder: Path, source: list[str], target: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    files = {
        "train.source": source,
        "train.target": target,
        "valid.source": [*SOURCE[:5], "", "word " * 70],
        "valid.target": [*TARGET[:5], "y", "z"],
    }
    for name, text in files.items():
        (folder / name).write_text("".join(line + "\n" for line in text), encoding="utf-8")


def change(config: Config, fields: dict) -> Config:
    for name, value in fields.items():
        section, field = name.split(".")
        changed = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def silent(line: str) -> None:
    pass


def fails(config: Config, folder: Path, kind: type[UserError], match: str) -> None:
    """Preparing raises one line of this kind and leaves neither the folder nor anything beside it."""
    beside = names(folder.parent)
    with pytest.raises(kind, match=match) as caught:
        prepare(config, folder, silent)
    assert "\n" not in str(caught.value)
    assert names(folder.parent) == beside


def test_text_becomes_rows_that_decode_to_the_normalised_text(config, tmp_path):
    said = []
    prepare(config, tmp_path / "store", said.append)
    store, vocabularies = open_prepared(config, tmp_path / "store")
    assert vocabularies.joint and len(vocabularies.source) == 70
    for split, rows in (("train", len(SOURCE)), ("valid", 5)):
        view = store.split(split)
        assert view.rows == rows
        sources, targets = ([side(i).tolist() for i in range(rows)] for side in (view.source, view.target))
        assert vocabularies.source.decode(sources) == [normalise(line) for line in SOURCE[:rows]]
        assert vocabularies.target.decode(targets) == [normalise(line) for line in TARGET[:rows]]
        assert all(row[-1] == 2 and 2 not in row[:-1] for row in sources)
        assert not any(2 in row for row in targets)
    assert said[1] == (
        "train: 52 pairs read, 48 kept; dropped: 1 empty, 1 too long (> 64 pieces), 1 ratio > 2.0, "
        "1 infeasible at 2.0 frames a piece"
    )
    assert said[2] == "valid: 7 pairs read, 5 kept; dropped: 1 empty, 1 too long (> 64 pieces)"
    assert store.metadata["filters"]["train"].items() >= {
        ("total", 52), ("kept", 48), ("empty", 1), ("too_long", 1), ("ratio", 1), ("infeasible", 1)
    }  # fmt: skip
    assert names(tmp_path) == ["store", "text"]


def test_chunks_change_nothing(config, tmp_path, monkeypatch):
    prepare(config, tmp_path / "whole", silent)
    monkeypatch.setattr(lines, "BLOCK", 7)
    prepare(config, tmp_path / "chunks", silent)
    assert len(names(tmp_path / "whole")) == 10 and names(tmp_path / "whole") == names(tmp_path / "chunks")
    for name in names(tmp_path / "whole"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "chunks" / name).read_bytes()


def stored(folder: Path) -> dict[str, bytes]:
    """All that a store holds; when it was verified is no content."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != STAMP}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 5 lines, and a process for every 8 pairs."""
    monkeypatch.setattr(lines, "BLOCK", 5)
    monkeypatch.setattr(workers, "PAIRS_PER_PROCESS", 8)


@pytest.mark.parametrize("joint", [True, False])
def test_the_number_of_processes_changes_nothing(config, tmp_path, monkeypatch, joint):
    config = change(config, {"vocab.joint": joint, "model.share_embeddings": joint, "vocab.size": 60})
    prepare(config, tmp_path / "whole", silent)
    monkeypatch.setattr(lines, "BLOCK", 5)
    monkeypatch.setattr(workers, "PAIRS_PER_PROCESS", 8)
    for processes in (1, 2, 3):
        said, steps = [], []
        folder = tmp_path / str(processes)
        prepare(config, folder, said.append, processes=processes, progress=lambda *step, to=steps: to.append(step))
        assert stored(folder) == stored(tmp_path / "whole")
        assert said[1].startswith("train: 52 pairs read, 48 kept; dropped: 1 empty, 1 too long")
        assert steps == [(min(done, 52), 52) for done in range(5, 56, 5)]


def test_the_vocabulary_of_a_large_corpus_is_trained_on_a_draw(config, tmp_path, monkeypatch):
    prepare(config, tmp_path / "all", silent)
    monkeypatch.setattr(vocab, "MAX_SENTENCES", 60)
    trained, said = [], []
    train = Vocabulary.train
    monkeypatch.setattr(
        Vocabulary, "train", lambda text, config: train(trained.append(list(text)) or trained[-1], config)
    )
    for block in (4096, 5):
        monkeypatch.setattr(lines, "BLOCK", block)
        prepare(config, tmp_path / str(block), said.append)
    assert stored(tmp_path / "5") == stored(tmp_path / "4096")
    assert said[0] == "vocabulary: trained on about 60 of 102 sentences, drawn at random"
    assert trained[0] == trained[1] and 40 < len(trained[0]) < 80
    usable = [normalise(line) for line in [*SOURCE, *ODD_SOURCE[1:], *TARGET, *ODD_TARGET[1:]]]
    places = [usable.index(sentence) for sentence in trained[0]]
    assert places == sorted(set(places))  # in the order of the text, none twice
    assert sum(place < 51 for place in places) > 20 and sum(place >= 51 for place in places) > 20  # of both sides
    assert Vocabularies.load(tmp_path / "5").source.model != Vocabularies.load(tmp_path / "all").source.model


def test_progress_is_told_with_speed_and_time_left(config, tmp_path, small_blocks, monkeypatch):
    clock = itertools.count(0, 20.0)  # each look takes place 20 s after the last one
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    said = []
    prepare(config, tmp_path / "store", said.append, processes=1)
    assert said[1] == "train: 10 of 52 pairs, 0 pairs/s, about 3 min left"  # 42 pairs, ten in 40 s
    assert [line.startswith("train: ") for line in said] == [False] + 6 * [True] + 2 * [False]


def test_compressed_text_gives_the_same_rows(config, tmp_path, small_blocks):
    scores = [("0.49", "0.5", " 9e-1 ")[i % 3] for i in range(len(SOURCE) + 4)]
    plain = scored(config, scores)
    prepare(plain, tmp_path / "plain", silent)
    (tmp_path / "gz").mkdir()
    for file in (tmp_path / "text").iterdir():
        # In two members, as logs and joined corpora have it.
        data = file.read_bytes()
        (tmp_path / "gz" / f"{file.name}.gz").write_bytes(gzip.compress(data[:333]) + gzip.compress(data[333:]))
    fields = {
        f"data.{split}_{side}": f"{split}.{side}.gz" for split in ("train", "valid") for side in ("source", "target")
    }
    fields |= {"data.root": str(tmp_path / "gz"), "data.train_scores": "train.scores.gz"}
    prepare(change(plain, fields), tmp_path / "packed", silent, processes=2)
    for name, content in stored(tmp_path / "plain").items():
        assert name == "metadata.json" or stored(tmp_path / "packed")[name] == content, name


def test_mistakes_in_a_later_block_are_placed(config, tmp_path, small_blocks):
    text = tmp_path / "text"
    good = (text / "train.target").read_bytes()
    place = good.index(b"Nummer 7")
    (text / "train.target").write_bytes(good[:place] + b"\xfe" + good[place:])
    line = good[:place].count(b"\n") + 1
    message = rf"train\.target:{line}: not UTF-8 \(byte 0xfe at offset {place}\)"
    fails(config, tmp_path / "store", DataError, message)
    (text / "train.target").write_bytes(good)
    bad = scored(config, ["1"] * 37 + ["good"] + ["1"] * 14)
    fails(bad, tmp_path / "store", DataError, r"train\.scores:38: 'good' is not a number; give one score a line$")
    for count in (50, 51, 53, 55, 56, 60):
        many = scored(config, ["1"] * count)
        fails(many, tmp_path / "store", DataError, rf"train\.scores has {count} lines but the training text 52")


def test_a_process_that_dies_is_one_line(config, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(workers, "_PROGRAM", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    killed = (
        r"a process that encodes was killed by SIGKILL, as happens when memory runs out; run the same .* --processes"
    )
    with pytest.raises(WorkerError, match=killed) as caught:
        prepare(config, tmp_path / "store", silent, processes=2)
    assert "\n" not in str(caught.value) and names(tmp_path) == ["text"]
    monkeypatch.setattr(workers, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(WorkerError, match="a process that encodes ended with exit code 3"):
        prepare(config, tmp_path / "store", silent, processes=3)
    monkeypatch.setattr(workers.sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(WorkerError, match=r"cannot start 2 processes that encode \(No such file or directory\)"):
        prepare(config, tmp_path / "store", silent, processes=2)
    assert names(tmp_path) == ["text"]


def test_text_that_changes_meanwhile(config, tmp_path, small_blocks):
    """Between the first look and the last one."""
    whole = [*SOURCE, *ODD_SOURCE], [*TARGET, *ODD_TARGET]
    text = tmp_path / "text" / "train.target"
    other = {
        "one line more": text.read_text() + "noch eine\n",
        "the same size": text.read_text().replace("hier", "dort"),
        "ten pairs less": None,
    }
    for changed in other.values():
        write(tmp_path / "text", *whole)
        os.utime(text, ns=(0, 0))

        def report(line, changed=changed):
            if line.startswith("vocabulary") and changed is None:
                write(tmp_path / "text", *(side[:-10] for side in whole))
            elif line.startswith("vocabulary"):
                text.write_text(changed)

        with pytest.raises(
            DataError, match=r"changed while it was read; run the same command again|line i of one must"
        ):
            prepare(config, tmp_path / "store", report)
        assert names(tmp_path) == ["text"]


def test_a_full_disk_in_the_middle(config, tmp_path, small_blocks):
    prepare(config, tmp_path / "store", silent)
    before = stored(tmp_path / "store")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(StoreError, match=r"/store: cannot be written \(File too large\)"):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
            prepare(change(config, {"vocab.size": 69}), tmp_path / "store", silent, processes=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stored(tmp_path / "store") == before and names(tmp_path) == ["store", "text"]


_KILLED = """
import dataclasses, os, signal, sys
from pathlib import Path
from natjax.config import from_json
from natjax.data import lines, workers
from natjax.data.prepare import prepare
lines.BLOCK, workers.PAIRS_PER_PROCESS = 5, 8
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes its background jobs deaf to it
def progress(done, total):
    if done >= 25:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
        print(children, flush=True)
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
config = from_json(Path(sys.argv[1]).read_text(), "config")
prepare(config, sys.argv[2], lambda line: None, processes=2, progress=progress)
"""


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGINT"])
def test_a_run_that_is_killed_is_done_again(config, tmp_path, signal):
    """Nothing of it is left: neither its processes, nor, after the next run, its files."""
    (tmp_path / "config.json").write_text(to_json(config))
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "config.json"), str(tmp_path / "store"), signal]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (-9, -2, 1), done.stderr
    children = [int(child) for child in done.stdout.split()]
    assert len(children) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    left = [name for name in names(tmp_path) if name.startswith(".store.")]
    assert len(left) == (signal == "SIGKILL") and not (tmp_path / "store").exists()
    prepare(config, tmp_path / "store", silent)
    prepare(config, tmp_path / "undisturbed", silent)
    assert stored(tmp_path / "store") == stored(tmp_path / "undisturbed")
    assert names(tmp_path) == ["config.json", "store", "text", "undisturbed"]


_MEASURED = """
import re, sys
from pathlib import Path
from natjax.config import from_json
from natjax.data.prepare import prepare
prepare(from_json(Path(sys.argv[1]).read_text(), "config"), sys.argv[2], lambda line: None, processes=1)
# Not getrusage: its maximum is handed down from the process that started this one.
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_what_is_held_does_not_grow_with_the_text(config, tmp_path):
    """60,000 pairs and 10,000: the difference, held once as strings alone, would be 40 megabytes."""
    prepare(config, tmp_path / "vocabulary", silent)
    long = "漢" * 150  # one unknown piece: nothing to store, and little to do
    config = change(config, {"vocab.path": str(tmp_path / "vocabulary")})
    peaks = {}
    for pairs in (10_000, 60_000):
        folder = tmp_path / str(pairs)
        write(folder, [f"the house {i} {long}" for i in range(pairs)], [f"das Haus {i} {long}" for i in range(pairs)])
        (tmp_path / "config.json").write_text(to_json(change(config, {"data.root": str(folder)})))
        command = [sys.executable, "-c", _MEASURED, str(tmp_path / "config.json"), str(tmp_path / "store")]
        peaks[pairs] = 1024 * int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert peaks[60_000] - peaks[10_000] < 12e6


def test_target_eos_separate_vocabularies_and_other_losses(config, tmp_path):
    config = change(
        config,
        {
            "objective.target_eos": True,
            "objective.loss": "ce",
            "vocab.joint": False,
            "model.share_embeddings": False,
            "vocab.size": 50,
        },
    )
    said = []
    prepare(config, tmp_path / "store", said.append)
    store, vocabularies = open_prepared(config, tmp_path / "store")
    train = store.split("train")
    assert not vocabularies.joint and vocabularies.source.fingerprint != vocabularies.target.fingerprint
    assert said[0] == "vocabulary: 50 and 50 pieces (bpe)"
    assert all(train.target(i)[-1] == 2 for i in range(train.rows))
    assert vocabularies.target.decode([train.target(0)]) == [normalise(TARGET[0])]
    assert "infeasible" not in said[1] and "frames_ratio" not in store.metadata["recipe"]


@pytest.mark.parametrize(("max_length", "eos"), [(18, False), (19, False), (19, True), (20, True)])
def test_lengths_count_eos_so_that_no_row_is_longer_than_promised(config, tmp_path, max_length, eos):
    # Targets of this corpus have 18 or 19 pieces, sources fewer.
    config = change(config, {"data.max_length": max_length, "objective.target_eos": eos})
    prepare(config, tmp_path / "store", silent)
    train = open_prepared(config, tmp_path / "store")[0].split("train")
    assert train.target_lengths.max() == max_length > train.source_lengths.max()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"vocab.size": 60}, "vocab.size 70 -> 60"),
        ({"model.ratio": 3.0}, "frames_ratio 2.0 -> 3.0"),
        ({"objective.loss": "ce"}, "frames_ratio 2.0 -> None"),
        ({"objective.loss": "axe"}, "frames_ratio 2.0 -> None"),
        ({"objective.target_eos": True}, "objective.target_eos False -> True"),
        ({"data.train_target": "distilled"}, "data.train_target 'train.target' -> 'distilled'"),
        ({"data.embedded": "demo"}, "data.embedded 'none' -> 'demo', grammar_version None -> "),
        ({"data.max_length": 32, "data.max_ratio": 3.0}, "data.max_length 64 -> 32, data.max_ratio 2.0 -> 3.0"),
    ],
)
def test_a_store_of_another_recipe_is_refused_with_every_difference(config, tmp_path, arguments, named):
    prepare(config, tmp_path / "store", silent)
    with pytest.raises(StoreError, match="made with other settings") as caught:
        open_prepared(change(config, arguments), tmp_path / "store")
    assert f"({named}" in str(caught.value)
    assert str(caught.value).endswith("run natjax prepare again, or name another --data.store")


def test_what_a_store_does_not_depend_on_may_change(config, tmp_path):
    prepare(config, tmp_path / "store", silent)
    other = change(
        config,
        {
            "data.buckets": 3,
            "data.length_multiple": 16,
            "data.store": "elsewhere",
            "data.obtain": "x",
            "training.seed": 9,
            "model.dropout": 0.0,
        },
    )
    assert recipe(other) == recipe(config)
    assert open_prepared(other, tmp_path / "store")[0].split("train").rows == 48


def test_every_field_of_data_and_vocabulary_is_in_the_recipe_or_named_here(config):
    without = {"data.store", "data.obtain", "data.buckets", "data.length_multiple"}
    fields = {f"data.{field.name}" for field in dataclasses.fields(DataConfig)}
    fields |= {f"vocab.{field.name}" for field in dataclasses.fields(VocabConfig)}
    given = change(config, {"vocab.path": "somewhere", "data.train_scores": "scores"})
    assert set(recipe(given)) == fields - without | {"objective.target_eos", "frames_ratio"}
    assert set(recipe(config)) == set(recipe(given)) - {"vocab.path", "data.train_scores", "data.minimum_score"}


def scored(config, scores: list[str], minimum: float = 0.5) -> Config:
    """The same config with scores of its training pairs."""
    (Path(config.data.root) / "train.scores").write_text("".join(score + "\n" for score in scores))
    return change(config, {"data.train_scores": "train.scores", "data.minimum_score": minimum})


def test_pairs_of_low_scores_are_left_out_before_all_else_and_counted(config, tmp_path):
    # Every third pair has a low score, the empty and the infeasible one among them; the least score itself is kept.
    scores = [("0.49", "0.5", " 9e-1 ")[i % 3] for i in range(len(SOURCE) + 4)]
    said = []
    prepare(scored(config, scores), tmp_path / "store", said.append)
    store, vocabularies = open_prepared(scored(config, scores), tmp_path / "store")
    assert said[1] == (
        "train: 52 pairs read, 32 kept; dropped: 18 score < 0.5, 0 empty, 1 too long (> 64 pieces), 1 ratio > 2.0, "
        "0 infeasible at 2.0 frames a piece"
    )
    filters = store.metadata["filters"]
    assert filters["train"]["low_score"] == 18 and filters["valid"]["low_score"] == 0
    assert filters["train"]["total"] == sum(filters["train"][name] for name in ("kept", *corpus.REASONS))
    rows = store.split("train")
    kept = [normalise(line) for i, line in enumerate(SOURCE) if i % 3]
    assert vocabularies.source.decode(rows.source(i).tolist() for i in range(rows.rows)) == kept
    # As if the others had never been there: the same vocabulary, the same rows.
    text = [[line for i, line in enumerate(side) if i % 3] for side in ([*SOURCE, *ODD_SOURCE], [*TARGET, *ODD_TARGET])]
    write(tmp_path / "fewer", *text)
    prepare(change(config, {"data.root": str(tmp_path / "fewer")}), tmp_path / "other", silent)
    for file in (tmp_path / "other").glob("*"):
        if file.name != "metadata.json":
            assert (tmp_path / "store" / file.name).read_bytes() == file.read_bytes(), file.name


def test_scores_are_part_of_the_recipe(config, tmp_path):
    with_scores = scored(config, ["1"] * 52)
    prepare(with_scores, tmp_path / "store", silent)
    for fields, named in (
        ({"data.minimum_score": 0.6}, "data.minimum_score 0.5 -> 0.6"),
        ({"data.train_scores": "", "data.minimum_score": 0.0}, "data.train_scores 'train.scores' -> None"),
    ):
        with pytest.raises(StoreError, match="made with other settings") as caught:
            open_prepared(change(with_scores, fields), tmp_path / "store")
        assert named in str(caught.value)
    scored(config, ["1"] * 51 + ["0.25"])
    with pytest.raises(StoreError, match=r"train\.scores has changed since the store was made"):
        open_prepared(with_scores, tmp_path / "store")


def test_text_behind_a_variable_that_has_changed(config, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLED", str(tmp_path))
    shutil.copy(Path(config.data.root) / config.data.train_target, tmp_path / "train.distilled")
    behind = change(config, {"data.train_target": "$DISTILLED/train.distilled"})
    prepare(behind, tmp_path / "store", silent)
    open_prepared(behind, tmp_path / "store")
    with (tmp_path / "train.distilled").open("a") as file:
        file.write("Noch eine Zeile.\n")
    with pytest.raises(StoreError, match=r"train\.distilled has changed since the store was made"):
        open_prepared(behind, tmp_path / "store")
    monkeypatch.delenv("DISTILLED")  # nobody can tell where the text is: that is no mistake
    open_prepared(behind, tmp_path / "store")


@pytest.mark.parametrize(
    ("scores", "match"),
    [
        (["1"] * 51, r"train\.scores has 51 lines but the training text 52; line i must be the score of pair i$"),
        (["1"] * 7 + ["good"] + ["1"] * 44, r"train\.scores:8: 'good' is not a number; give one score a line$"),
        (["1"] * 51 + ["nan"], r"train\.scores:52: 'nan' is not a number"),
        (["1"] * 51 + [""], r"train\.scores:52: '' is not a number"),
        (["0.1"] * 52, r"train corpus is empty .*0 kept; dropped: 52 score < 0\.5, .*, data\.minimum_score and data\."),
    ],
)
def test_unusable_scores(config, tmp_path, scores, match):
    fails(scored(config, scores), tmp_path / "store", DataError, match)


def test_scores_that_are_missing_or_unused(config, tmp_path):
    missing = change(config, {"data.train_scores": "nowhere", "data.minimum_score": 0.5})
    fails(missing, tmp_path / "store", DataError, rf"text/nowhere: no such file; check data\.root; {OBTAIN}$")
    with pytest.raises(ConfigError, match=r"data\.minimum_score: needs data\.train_scores"):
        validate(change(config, {"data.minimum_score": 0.5}))


def test_a_given_vocabulary_is_taken_as_it_is(config, tmp_path):
    prepare(config, tmp_path / "first", silent)
    write(tmp_path / "distilled", SOURCE, [line.replace("Nummer", "Name") for line in TARGET])
    other = change(
        config, {"data.root": str(tmp_path / "distilled"), "vocab.path": str(tmp_path / "first"), "vocab.size": 99}
    )
    prepare(other, tmp_path / "second", silent)
    store, vocabularies = open_prepared(other, tmp_path / "second")
    assert vocabularies.target.model == Vocabularies.load(tmp_path / "first").target.model
    rows = store.split("train")
    words = vocabularies.target.decode([rows.target(row) for row in range(rows.rows)])
    assert words == [normalise(line.replace("Nummer", "Name")) for line in TARGET]
    with pytest.raises(StoreError, match=r"vocab\.path"):
        open_prepared(change(other, {"vocab.path": ""}), tmp_path / "second")
    with pytest.raises(ConfigError, match=r"first has a joint vocabulary; set --vocab\.joint"):
        prepare(change(other, {"vocab.joint": False}), tmp_path / "third", silent)
    prepare(change(config, {"vocab.size": 71}), tmp_path / "first", silent)
    with pytest.raises(StoreError, match=r"first has changed since the store was made"):
        open_prepared(other, tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    open_prepared(other, tmp_path / "second")
    with pytest.raises(VocabularyError, match=r"first.vocab\.model: cannot be read"):
        prepare(other, tmp_path / "third", silent)
    assert not (tmp_path / "third").exists()


def test_a_vocabulary_that_was_exchanged_is_found(config, tmp_path):
    prepare(config, tmp_path / "store", silent)
    prepare(change(config, {"vocab.size": 71}), tmp_path / "other", silent)
    model = (tmp_path / "other" / "vocab.model").read_bytes()
    (tmp_path / "store" / "vocab.model").write_bytes(model)
    with pytest.raises(StoreError, match=r"vocab\.model: .* bytes instead of"):
        open_prepared(config, tmp_path / "store")
    path = tmp_path / "store" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["files"]["vocab.model"].update(bytes=len(model), sha256=hashlib.sha256(model).hexdigest())
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="the vocabulary is not the one of the tokens"):
        open_prepared(config, tmp_path / "store")
    metadata["recipe"] = None
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="names no recipe"):
        open_prepared(config, tmp_path / "store")


def test_missing_text_says_where_to_get_it(config, tmp_path, monkeypatch):
    (tmp_path / "text" / "valid.target").unlink()
    fails(config, tmp_path / "store", DataError, rf"text/valid\.target: no such file; check data\.root; {OBTAIN}$")
    elsewhere = change(config, {"data.root": str(tmp_path / "nowhere")})
    fails(elsewhere, tmp_path / "store", DataError, rf"nowhere/train\.source: no such file.*; {OBTAIN}$")
    monkeypatch.delenv("NATJAX_DATA", raising=False)
    unset = change(config, {"data.root": "$NATJAX_DATA/corpus"})
    fails(unset, tmp_path / "store", DataError, rf"NATJAX_DATA is not set; .*; {OBTAIN}$")
    silent_config = change(unset, {"data.obtain": ""})
    fails(silent_config, tmp_path / "store", DataError, r"export NATJAX_DATA=<folder>$")


def test_unusable_text_leaves_nothing_behind(config, tmp_path):
    text = tmp_path / "text"
    good = (text / "train.target").read_bytes()
    (text / "train.target").write_bytes(good + b"one more\n")
    fails(config, tmp_path / "store", DataError, r"train\.source has 52 lines but .*train\.target has 53")
    (text / "train.target").write_bytes(good[:40] + b"\xff" + good[40:])
    fails(config, tmp_path / "store", DataError, r"train\.target:2: not UTF-8 \(byte 0xff at offset 40\)")


def test_nothing_left_after_filtering_tells_the_counts(config, tmp_path):
    tight = change(config, {"data.max_length": 2})
    fails(
        tight, tmp_path / "store", DataError, r"train corpus is empty .*52 pairs read, 0 kept; dropped: 1 empty, 51 too"
    )
    write(tmp_path / "text", ["", " \u00a0"], ["", "x"])
    fails(config, tmp_path / "store", DataError, r"train corpus is empty .*2 pairs read, 0 kept; dropped: 2 empty")
    write(tmp_path / "text", [], [])
    fails(config, tmp_path / "store", DataError, r"train corpus is empty .*0 pairs read, 0 kept")
    write(tmp_path / "text", SOURCE, TARGET)
    for name in ("valid.source", "valid.target"):
        (tmp_path / "text" / name).write_text("")
    fails(config, tmp_path / "store", DataError, r"valid corpus is empty after filtering: 0 pairs read")


def test_a_vocabulary_that_the_text_does_not_allow(config, tmp_path):
    fails(change(config, {"vocab.size": 50000}), tmp_path / "store", VocabularyError, r"at most \d+ pieces")
    fails(change(config, {"vocab.size": 8}), tmp_path / "store", VocabularyError, r"raise --vocab\.size")


def test_a_failed_second_run_keeps_the_first_store(config, tmp_path):
    prepare(config, tmp_path / "store", silent)
    before = {p.name: p.read_bytes() for p in (tmp_path / "store").iterdir()}
    fails(change(config, {"vocab.size": 50000}), tmp_path / "store", VocabularyError, "at most")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 2500):  # less than the first array, less than metadata.json alone
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            fails(change(config, {"vocab.size": 80}), tmp_path / "store", StoreError, r"/store: cannot be written")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in (tmp_path / "store").iterdir()} == before
    open_prepared(config, tmp_path / "store")


def test_the_store_may_not_replace_other_things(config, tmp_path):
    fails(config, tmp_path / "text", StoreError, r"text: holds 'train\.source', which is no part of a token store")
    assert (tmp_path / "text" / "train.source").is_file()


def test_the_embedded_corpus_needs_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EMBEDDED_PAIRS", {"demo": 300, "hard": 400})
    monkeypatch.setattr(module, "EMBEDDED_VALID_PAIRS", 50)
    for difficulty, pairs in (("demo", 300), ("hard", 400)):
        config = Config(
            name=difficulty,
            data=DataConfig(embedded=difficulty),
            vocab=VocabConfig(size=120),
            objective=ObjectiveConfig(loss="ce"),
        )
        prepare(config, tmp_path / difficulty, silent)
        store, vocabularies = open_prepared(config, tmp_path / difficulty)
        assert (store.split("train").rows, store.split("valid").rows) == (pairs, 50)
        sources = [store.split(split).source(i).tolist() for split in ("train", "valid") for i in range(50)]
        examples = [e for split in ("train", "valid") for e in module.grammar.generate(difficulty, split, 50, seed=0)]
        assert vocabularies.source.decode(sources) == [normalise(example.source) for example in examples]


def test_real_text(corpora, tmp_path):
    names = dict(train_source="train.en", train_target="train.de", valid_source="valid.en", valid_target="valid.de")
    config = Config("real", DataConfig(root=str(corpora / "multi30k"), **names), model=ModelConfig(ratio=2.0))
    said = []
    prepare(config, tmp_path / "store", said.append)
    store, vocabularies = open_prepared(config, tmp_path / "store")
    assert said[1].startswith("train: 28,998 pairs read, 28,99")
    lines = (corpora / "multi30k" / "valid.de").read_text(encoding="utf-8").splitlines()
    valid = store.split("valid")
    decoded = vocabularies.target.decode(valid.target(i) for i in range(valid.rows))
    same = sum(a == normalise(b) for a, b in zip(decoded, lines, strict=True))
    assert same > 0.99 * len(lines)  # the others hold a character that training never shows


def test_the_data_side_does_not_need_jax():
    modules = ", ".join(f"natjax.data.{p.stem}" for p in sorted(Path(module.__file__).parent.glob("[!_]*.py")))
    program = f"import sys, {modules}\nprint([m for m in ('jax', 'flax', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_may_lie_elsewhere_and_be_named_by_a_variable(tmp_path, monkeypatch):
    names = dict(train_source="a.en", train_target="$ELSEWHERE/a.de", valid_source="a.en", valid_target="a.de")
    config = Config("elsewhere", DataConfig(root=str(tmp_path / "root"), **names))
    with pytest.raises(DataError, match=r"data\.train_target .*ELSEWHERE is not set"):
        corpus_files(config)
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "other"))
    for file in ("root/a.en", "root/a.de", "other/a.de"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("text\n")
    assert corpus_files(config)["train_target"] == tmp_path / "other" / "a.de"
