import hashlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

import natjax.typing
from natjax.config import VocabConfig
from natjax.data import vocab
from natjax.data.corpus import normalise
from natjax.data.vocab import Draw, Vocabularies, Vocabulary
from natjax.errors import VocabularyError, WorkdirError

SENTENCES = [
    f"{who} {does} {what} {where} ."
    for who in ("a man", "the dog", "two women", "ein Mann", "young children", "eine Frau mit Hut")
    for does in ("sees", "is holding", "wears", "trägt", "throws", "spielt mit")
    for what in ("a red ball", "the guitar", "eine Mütze", "an orange kite", "several books")
    for where in ("at home", "in the park", "auf der Straße", "near a river")
]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request) -> Vocabulary:
    return Vocabulary.train(SENTENCES, VocabConfig(size=60, algorithm=request.param))


def test_special_ids_are_those_of_the_whole_project(trained):
    assert (vocab.PAD, vocab.BOS, vocab.EOS, vocab.UNK) == (0, 1, 2, 3)
    assert (natjax.typing.PAD, natjax.typing.BOS, natjax.typing.EOS, natjax.typing.UNK) == (0, 1, 2, 3)
    assert trained.pieces([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert len(trained) == 60


words = st.lists(st.text(sorted(set("".join(SENTENCES)) - {" "}), min_size=1, max_size=8), max_size=6)


@given(words)
@settings(deadline=None)
def test_text_of_known_characters_comes_back(trained, words):
    sentence = " ".join(words)
    (ids,) = trained.encode([sentence])
    assert all(3 < i < len(trained) for i in ids)
    assert trained.decode([ids]) == [sentence]
    assert "".join(trained.pieces(ids)).replace("▁", " ").strip() == sentence


@given(st.lists(st.text(max_size=10), max_size=4))
@settings(deadline=None)
def test_no_text_gives_padding_bos_or_eos(trained, sentences):
    rows = trained.encode([normalise(sentence) for sentence in sentences])
    assert len(rows) == len(sentences)
    assert all(i > 2 for row in rows for i in row)


def test_markup_that_looks_like_special_pieces_is_text(trained):
    assert not {0, 1, 2} & set(trained.encode(["a </s> <pad> <s> man"])[0])


def test_decoding_skips_special_ids_and_shows_unknown_ones(trained):
    (ids,) = trained.encode(["a man"])
    assert trained.decode([[1, *ids[:1], 0, 0, *ids[1:], 2, 0], [], [3]]) == ["a man", "", " ⁇ "]
    assert trained.decode([]) == [] and trained.encode([]) == [] and trained.encode([""]) == [[]]


def test_training_gives_the_same_bytes_in_another_process(trained):
    algorithm = "bpe" if trained.model == Vocabulary.train(SENTENCES, VocabConfig(size=60)).model else "unigram"
    program = (
        "import sys, ast\nfrom natjax.config import VocabConfig\nfrom natjax.data.vocab import Vocabulary\n"
        f"config = VocabConfig(size=60, algorithm={algorithm!r})\n"
        "print(Vocabulary.train(ast.literal_eval(sys.stdin.read()), config).fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=repr(SENTENCES), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == trained.fingerprint
    assert done.stderr == ""


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_sizes_that_the_text_does_not_allow_name_the_one_that_it_does(algorithm):
    def train(size):
        return Vocabulary.train(SENTENCES, VocabConfig(size=size, algorithm=algorithm))

    with pytest.raises(VocabularyError, match=r"vocab\.size 5000: the text allows at most \d+ pieces") as large:
        train(5000)
    largest = int(re.search(r"at most (\d+)", str(large.value))[1])
    assert len(train(largest)) == largest
    with pytest.raises(VocabularyError):
        train(largest + 1)
    with pytest.raises(VocabularyError, match=r"vocab\.size 9: the characters of the text alone need \d+") as small:
        train(9)
    characters = set("".join(SENTENCES)) - {" "}
    smallest = int(re.search(r"need (\d+)", str(small.value))[1])
    assert smallest == len(characters) + 1 + 4  # the mark of a space, the special pieces
    with pytest.raises(VocabularyError):
        train(smallest - 1)
    assert "\n" not in str(large.value) + str(small.value)


def test_no_text_at_all_is_one_line():
    with pytest.raises(VocabularyError, match="no text to be trained on"):
        Vocabulary.train([], VocabConfig(size=50))


def test_character_coverage_leaves_rare_characters_unknown():
    sentences = ["ab ba abab bab"] * 1000 + ["ab 漢"]
    rare = Vocabulary.train(sentences, VocabConfig(size=8, character_coverage=0.999)).encode(["漢"])[0]
    known = Vocabulary.train(sentences, VocabConfig(size=8)).encode(["漢"])[0]
    assert vocab.UNK in rare and vocab.UNK not in known


def test_saving_and_loading(trained, tmp_path):
    trained.save(tmp_path / "vocab.model")
    again = Vocabulary.load(tmp_path / "vocab.model")
    assert again.encode(SENTENCES) == trained.encode(SENTENCES)
    assert again.fingerprint == hashlib.sha256((tmp_path / "vocab.model").read_bytes()).hexdigest()[:16]
    with pytest.raises(WorkdirError, match=r"absent/vocab\.model: cannot be written"):
        trained.save(tmp_path / "absent" / "vocab.model")


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_model_file(trained, tmp_path, damage):
    changed = {"empty": b"", "cut": trained.model[: len(trained.model) // 2], "other": b"no model at all"}
    (tmp_path / "vocab.model").write_bytes(changed[damage])
    with pytest.raises(VocabularyError, match=r"vocab\.model: .*run natjax prepare again"):
        Vocabulary.load(tmp_path / "vocab.model")


def test_a_model_with_special_ids_elsewhere(tmp_path):
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=writer, vocab_size=50, minloglevel=2
    )
    (tmp_path / "vocab.model").write_bytes(writer.getvalue())
    with pytest.raises(VocabularyError, match=r"vocab\.model: has pad, bos, eos, unk at \(-1, 1, 2, 0\)"):
        Vocabulary.load(tmp_path / "vocab.model")


def test_vocabularies_joint_and_separate(trained, tmp_path):
    other = Vocabulary.train(SENTENCES, VocabConfig(size=50))
    for name, pair, files in (
        ("joint", Vocabularies(trained, trained), ["vocab.model"]),
        ("separate", Vocabularies(trained, other), ["vocab.source.model", "vocab.target.model"]),
    ):
        (tmp_path / name).mkdir()
        pair.save(tmp_path / name)
        assert names(tmp_path / name) == files
        again = Vocabularies.load(tmp_path / name)
        assert again.joint == pair.joint == (name == "joint")
        assert [v.fingerprint for v in again] == [v.fingerprint for v in pair]
    (tmp_path / "separate" / "vocab.target.model").unlink()
    with pytest.raises(VocabularyError, match=r"vocab\.target\.model: cannot be read"):
        Vocabularies.load(tmp_path / "separate")


def test_of_a_large_corpus_each_sentence_is_drawn_equally_often(monkeypatch):
    monkeypatch.setattr(vocab, "MAX_SENTENCES", 50)
    assert Draw(50, seed=0).next(50).all() and Draw(0, seed=0).next(0).shape == (0,)
    draws = np.array([Draw(200, seed).next(200) for seed in range(2000)])
    # Binomial with mean 500 and standard deviation 19.4; of one draw, with mean 50 and standard deviation 6.1.
    assert np.abs(draws.sum(0) - 500).max() < 5 * 19.4
    assert np.abs(draws.sum(1) - 50).max() < 5 * 6.1 and abs(draws.sum(1).mean() - 50) < 5 * 6.1 / 2000**0.5
    neighbours = (draws[:, 1:] & draws[:, :-1]).sum(0)  # both with probability 1/16, if independent
    assert np.abs(neighbours - 125).max() < 5 * 10.9


def test_a_draw_does_not_depend_on_how_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(vocab, "MAX_SENTENCES", 50)
    whole, parts = Draw(1000, seed=3).next(1000), Draw(1000, seed=3)
    assert np.array_equal(np.concatenate([parts.next(n) for n in (1, 0, 99, 400, 500)]), whole)
    assert not np.array_equal(Draw(1000, seed=4).next(1000), whole)
