"""Held-out text, other languages and swapped sides: refused; the right text: never."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import tiny

from natjax.config import Config, DataConfig, VocabConfig
from natjax.data.corpus import normalise, read_lines
from natjax.data.prepare import open_prepared, prepare
from natjax.data.validation import validation_text
from natjax.distillation.checks import check_language, check_training_text
from natjax.errors import UserError
from natjax.translator import Translator


@pytest.mark.parametrize(
    "name", ["valid.en", "VALID.en", "test_2016_flickr.en", "newstest2014.en", "corpus.dev.en", "newsdev2016-roen.ro"]
)
def test_names_of_held_out_text(name):
    with pytest.raises(UserError, match=r"in its name says held-out text; .*--allow-held-out"):
        check_training_text(Path("valid") / name, [], {}, print)


@pytest.mark.parametrize("name", ["train.en", "latest.en", "contest.en", "devices.en", "validated.tsv", "europarl.en"])
def test_names_of_training_text(name):
    check_training_text(Path("test") / name, ["a"], {}, print)


def test_lines_of_the_validation_set():
    config, training = tiny.small(), ["The old farmer sells the horse, I know."] * 100
    valid = validation_text(config).sources
    check_training_text(Path("a"), training, {Path("W"): config}, pytest.fail)
    check_training_text(Path("a"), [*training, *valid[:100]], {Path("W"): config}, pytest.fail)
    for lines in (valid, [*training, *valid[:101]], ["", *(f" {line} " for line in valid[:3]), ""]):
        with pytest.raises(UserError, match=r"a: (100|50)% of its lines are in the validation set of W"):
            check_training_text(Path("a"), lines, {Path("W"): config}, pytest.fail)


def test_a_validation_set_that_is_not_here(tmp_path):
    said = []
    check_training_text(Path("a"), ["x"], {Path("W"): Config("a", DataConfig(root=str(tmp_path)))}, said.append)
    assert len(said) == 1
    assert "not checked against it" in said[0]


@pytest.fixture(scope="module")
def translator(teacher):
    return Translator.load(teacher)


def look(lines, folder, translator, say=pytest.fail):
    check_language(Path("a"), lines, folder, translator.config, translator.vocabularies, say)


def test_swapped_sides_under_a_joint_vocabulary(teacher, translator, text):
    sources, targets = text
    look(sources, teacher, translator)
    look(sources[1:3], teacher, translator)
    look(["", " "], teacher, translator)
    with pytest.raises(UserError, match=r"a: looks like the target side of .*first, de .*swapped\?"):
        look(targets, teacher, translator)


def test_unknown_characters(teacher, translator, text):
    with pytest.raises(UserError, match=r"does not know 100% of its characters; is this en, or"):
        look(["犬が走る", "猫"], teacher, translator)
    look([*text[0], "犬が走る"], teacher, translator)


def test_without_the_store_it_is_said(teacher, translator, text, tmp_path):
    said = []
    look(text[1], tmp_path, translator, said.append)
    (tmp_path / "store").mkdir()
    shutil.copytree(teacher / "store", tmp_path / "W" / "store")
    (tmp_path / "W" / "store" / "train.source.tokens.npy").write_bytes(b"x")
    look(text[1], tmp_path / "W", translator, said.append)
    assert len(said) == 2
    assert all("not checked whether source and target are swapped" in line for line in said)


def test_the_store_of_another_vocabulary(teacher, translator, text, tmp_path):
    config = tiny.small()
    prepare(dataclasses.replace(config, vocab=VocabConfig(size=280)), tmp_path / "store", lambda line: None)
    said = []
    look(text[1], tmp_path, translator, said.append)
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
        lines = list(map(normalise, read_lines(file)[:1024]))
        check_language(file, lines, tmp_path, config, vocabularies, pytest.fail)

    check(tmp_path / f"train.{source}")
    check(corpora / news[source])
    for file in (tmp_path / f"train.{target}", corpora / news[target]):
        with pytest.raises(UserError, match=r"swapped\?"):
            check(file)
