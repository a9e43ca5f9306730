"""Held-out text, other languages and swapped sides: refused; the right text: never."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

from natjax.config import Config, DataConfig, VocabConfig
from natjax.data.corpus import read_lines
from natjax.data.prepare import open_prepared, prepare
from natjax.data.validation import validation_text
from natjax.distillation.checks import check_language, check_training_text, sample
from natjax.distillation.teachers import Teacher, identify
from natjax.errors import UserError


def of(folder, config, vocabularies=None):
    return Teacher(Path(folder), config, vocabularies, Path(folder), {}, {})


@pytest.mark.parametrize(
    "name",
    ["valid.en", "VALID.en", "test_2016_flickr.en", "newstest2014.en", "corpus.dev.en", "newsdev2016-roen.ro",
     "tst2013.en", "IWSLT14.TED.tst2010.de-en.en", "testset.en", "devset.en", "validset.de", "val.en", "valset.en",
     "eval.en", "evalset.en", "heldout.en", "held-out.en", "held_out.en", "newsdiscusstest2015.en", "flores.devtest",
     "validation.tsv"],
)  # fmt: skip
def test_names_of_held_out_text(name):
    with pytest.raises(UserError, match=r"in its name says held-out text; .*--allow-held-out"):
        check_training_text(Path("valid") / name, [], [], print)


@pytest.mark.parametrize(
    "folder", ["newstest2014", "WMT-newsdev2016", "tst2013", "testset", "devtest", "held-out", "Validset"]
)
def test_folders_of_held_out_text(folder, tmp_path, monkeypatch):
    for name in ("src.en", "train.en"):
        with pytest.raises(UserError, match=r"in its folder's name says held-out text; .*--allow-held-out"):
            check_training_text(Path(folder) / name, [], [], print)
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    with pytest.raises(UserError, match="in its folder's name"):
        check_training_text(Path("src.en"), [], [], print)


@pytest.mark.parametrize(
    "name",
    ["train.en", "trainset.en", "latest.en", "contest.en", "value.en", "values.tsv", "evaluation-corpus.en",
     "retrieval.en", "medieval.en", "devices.en", "developers.en", "validated.tsv", "valley.en", "europarl.en",
     "testimony.en", "upheld-outcome.en"],
)  # fmt: skip
def test_names_of_training_text(name):
    for folder in ("test", "train", "latest", "contest", "values", "devices"):
        check_training_text(Path(folder) / name, ["a"], [], print)


def test_lines_of_the_validation_set():
    config, training = tiny.small(), ["The old farmer sells the horse, I know."] * 100
    valid, teachers = validation_text(config).sources, [of("W", config)]
    check_training_text(Path("a"), training, teachers, pytest.fail)
    check_training_text(Path("a"), [*training, *valid[:100]], teachers, pytest.fail)
    for lines in (valid, [*training, *valid[:101]], ["", *(f" {line} " for line in valid[:3]), ""]):
        with pytest.raises(UserError, match=r"a: (100|50)% of its lines are in the validation set of W"):
            check_training_text(Path("a"), lines, teachers, pytest.fail)


def test_a_validation_set_that_is_not_here(tmp_path):
    said = []
    teacher = of("W", Config("a", DataConfig(root=str(tmp_path))))
    check_training_text(Path("a"), ["x"], [teacher], said.append)
    assert len(said) == 1
    assert "not checked against it" in said[0]


@pytest.fixture(scope="module")
def known(teacher):
    return identify(teacher, pytest.fail)


def look(lines, known, folder=None, say=pytest.fail):
    check_language(Path("a"), lines, known._replace(folder=folder or known.folder), say)


def test_swapped_sides_under_a_joint_vocabulary(known, text):
    sources, targets = text
    look(sources, known)
    look(sources[1:3], known)
    look(["", " "], known)
    with pytest.raises(UserError, match=r"a: looks like the target side of .*first, de .*swapped\? --allow-language"):
        look(targets, known)


def test_the_whole_file_is_looked_at(known, text):
    sources, targets = (side[1:41] for side in text)
    with pytest.raises(UserError, match="looks like the target side"):
        look([*sources * 30, *targets * 300], known)  # 1,200 lines in the right language first
    look([*targets * 30, *sources * 300], known)


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2049, 10_000])
def test_lines_are_sampled_evenly(count):
    found = np.array(sample(range(count)))
    assert min(count, 1024) / 2 <= len(found) <= 1024
    assert count > 1024 or len(found) == count
    assert len(set(np.diff(found))) <= 1
    assert count == 0 or count - found[-1] <= max(1, count // 500)


def test_unknown_characters(known, text):
    with pytest.raises(UserError, match=r"does not know 100% of its characters; is this en, or .* --allow-language"):
        look(["犬が走る", "猫"], known)
    look([*text[0], "犬が走る"], known)


def test_without_the_store_it_is_said(teacher, known, text, tmp_path):
    said = []
    look(text[1], known, tmp_path, said.append)
    (tmp_path / "store").mkdir()
    shutil.copytree(teacher / "store", tmp_path / "W" / "store")
    (tmp_path / "W" / "store" / "train.source.tokens.npy").write_bytes(b"x")
    look(text[1], known, tmp_path / "W", said.append)
    assert len(said) == 2
    assert all("not checked whether source and target are swapped" in line for line in said)


def test_the_store_of_another_vocabulary(known, text, tmp_path):
    config = tiny.small()
    prepare(dataclasses.replace(config, vocab=VocabConfig(size=280)), tmp_path / "store", lambda line: None)
    said = []
    look(text[1], known, tmp_path, said.append)
    assert "has another vocabulary" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(("corpus", "source", "target"), [
    ("multi30k", "en", "de"), ("tatoeba_deen", "de", "en"), ("tatoeba_jaen", "ja", "en"), ("tatoeba_jaen", "en", "ja"),
])  # fmt: skip
def test_real_languages(corpora, corpus, source, target, joint, tmp_path):
    for language in (source, target):
        for split, count in (("train", 20_000), ("valid", 500)):
            lines = read_lines(corpora / corpus / f"{split}.{language}")[:count]
            (tmp_path / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = {f"{split}_{side}": f"{split}.{language}" for split in ("train", "valid")
             for side, language in (("source", source), ("target", target))}  # fmt: skip
    coverage = 0.9995 if "ja" in (source, target) else 1.0
    config = dataclasses.replace(
        tiny.config(share_embeddings=joint),
        data=DataConfig(root=str(tmp_path), source_language=source, target_language=target, **names),
        vocab=VocabConfig(size=4000, joint=joint, character_coverage=coverage),
    )
    prepare(config, tmp_path / "store", lambda line: None)
    vocabularies = open_prepared(config, tmp_path / "store")[1]
    news = {"de": "newstest_ende/newstest2014.de", "en": "newstest_ende/newstest2014.en",
            "ja": "newstest_jaen/newstest2020.ja-en.ja"}  # fmt: skip

    def check(file):
        check_language(file, read_lines(file), of(tmp_path, config, vocabularies), pytest.fail)

    check(tmp_path / f"train.{source}")
    check(corpora / news[source])
    for file in (tmp_path / f"train.{target}", corpora / news[target]):
        with pytest.raises(UserError, match=r"swapped\?"):
            check(file)
