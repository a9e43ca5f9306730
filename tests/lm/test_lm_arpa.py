"""ARPA files: round trips, what other programs write, and every mistake with its line."""

import gzip
import tracemalloc

import jax
import numpy as np
import pytest
from lm_oracle import BOS, EOS, UNK, KneserNey, back_off, corpus, flat

from natjax.errors import LanguageModelError
from natjax.lm import estimate, make_tables, read_arpa, score_sentences, stream, write_arpa

V = 50
# Pieces that Python's bare split() would break, or that look like numbers or headers.
PIECES = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "\u3000a",
    "b\u00a0c",
    "-1.5",
    "\\2-grams:",
    "ngram",
    *map(chr, range(0x3041, 0x306A)),
]
SMALL = """\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.5
-0.7\t</s>
-1.5\t<unk>
-0.9\tx\t-0.25
-1.1\ty\t-0.125

\\2-grams:
-0.3\t<s> x\t-0.0625
-0.4\tx y
-0.2\ty </s>

\\3-grams:
-0.1\t<s> x y

\\end\\
"""
NAMES = ["<pad>", "<s>", "</s>", "<unk>", "x", "y", "z"]


@pytest.fixture(scope="module", params=[2, 4])
def model(request):
    return estimate(stream(*flat(corpus(1, 80))), order=request.param, vocabulary_size=V)[0]


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_round_trip_keeps_every_bit(model, tmp_path, name):
    write_arpa(tmp_path / name, model, PIECES)
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b" if name.endswith("gz") else b"\\data\\\nngram 1=")
    steps = []
    same(read_arpa(tmp_path / name, PIECES, progress=lambda *step: steps.append(step)), model)
    assert steps[-1] == (sum(model.counts),) * 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_writing_holds_a_block_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("natjax.lm.arpa._BLOCK", 100)
    model = estimate(stream(*flat(corpus(1, 1500))), order=4, vocabulary_size=V)[0]
    tracemalloc.start()
    try:
        write_arpa(tmp_path / "lm.arpa", model, PIECES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    same(read_arpa(tmp_path / "lm.arpa", PIECES), model)
    # The texts of all n-grams, as Python's strings, would take several times the file.
    assert peak < (tmp_path / "lm.arpa").stat().st_size / 2


def written(tmp_path, text=SMALL, encoding="utf-8"):
    file = tmp_path / "small.arpa"
    file.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\t", " "),
        lambda text: "made by hand\n\n" + text,
        lambda text: text.replace("ngram 1=5", "ngram 1 = 5").replace("\n\n", "\n \n"),
        lambda text: text.replace("</s>\n", "</s>\t0\n").replace("<unk>", "<UNK>"),
        lambda text: text + "\nanything\n",
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["crlf", "spaces", "preamble", "blanks", "zeros", "after the end", "gzip"],
)
def test_ways_to_write_the_same(tmp_path, change):
    same(read_arpa(written(tmp_path, change(SMALL)), NAMES), read_arpa(written(tmp_path), NAMES))


def test_numbers_become_natural_logarithms(tmp_path):
    model = read_arpa(written(tmp_path), NAMES)
    assert (model.order, model.counts) == (3, [5, 3, 1])
    x, y = 4, 5
    assert model.log_probs[y] == pytest.approx(-1.1 * np.log(10))
    found = model.score(stream(*flat([[x, y], [y, 6]])))
    expected = [0, -0.3, -0.1, -0.2, 0, -0.5 - 1.1, -0.125 - 1.5, -0.7]
    assert found == pytest.approx(np.array(expected) * np.log(10))


def test_an_unknown_piece_without_a_probability_has_that_of_kenlm(tmp_path):
    text = SMALL.replace("-1.5\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4")
    assert read_arpa(written(tmp_path, text), NAMES).log_probs[UNK] == pytest.approx(-100 * np.log(10))


def test_models_with_gaps_back_off_as_their_definition_says(tmp_path):
    # As SRILM prunes: `x y` is gone although `<s> x y` and `z x y` are there; and <unk> has n-grams of its own.
    text = SMALL.replace("-0.4\tx y\n", "-0.8\tz x\t-0.03\n-0.6\tx <unk>\t-0.7\n")
    text = text.replace("-1.1\ty\t-0.125", "-1.1\ty\t-0.125\n-1.3\tz\t-0.35")
    text = text.replace("-0.1\t<s> x y", "-0.1\t<s> x y\n-0.15\tz x y\n-0.45\tx <unk> x")
    text = text.replace("1=5", "1=6").replace("2=3", "2=4").replace("3=1", "3=3")
    model = read_arpa(written(tmp_path, text), NAMES)
    entries = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            gram = tuple(NAMES.index(word) for word in fields[1].split(" "))
            entries[gram] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0
    generator = np.random.default_rng(0)
    rows = [generator.integers(UNK, 7, 8).tolist() for _ in range(60)]
    for row, found in zip(rows, score_sentences(make_tables(model), rows), strict=True):
        padded = [BOS, *row, EOS]
        plain = [back_off(entries, tuple(padded[max(0, i - 2) : i]), padded[i]) for i in range(1, len(padded))]
        np.testing.assert_allclose(found, np.array(plain) * np.log(10), rtol=1e-5)
        np.testing.assert_allclose(model.score(stream(*flat([row])))[1:], found, rtol=1e-5)


def test_order_one(tmp_path):
    text = "\\data\\\nngram 1=4\n\n\\1-grams:\n0\t<s>\n-0.5\t</s>\n-1\t<unk>\n-0.25\tx\n\n\\end\\\n"
    model = read_arpa(written(tmp_path, text), NAMES)
    (found,) = score_sentences(make_tables(model), [[4, 5]])
    assert found == pytest.approx(np.array([-0.25, -1, -0.5]) * np.log(10))


MISTAKES = {
    "no ngram": ("-0.4\tx y\n", "-0.4\n", 15, "'-0.4' is no 2-gram; expected a log-probability, 2 pieces, perhaps"),
    "long": ("-0.4\tx y\n", "-0.4\tx y x y\n", 15, "is no 2-gram"),
    "back-off at the top": ("<s> x y\n", "<s> x y\t-1\n", 19, "is no 3-gram; expected a log-probability, 3 pieces"),
    "no number": ("-0.4\tx y", "zero\tx y", 15, "holds no number"),
    "no back-off": ("x\t-0.0625", "x\tnone", 14, "holds no number"),
    "not finite": ("-0.4\tx y", "nan\tx y", 15, "not finite"),
    "minus infinity": ("-0.4\tx y", "-inf\tx y", 15, "not finite"),
    "positive": ("-0.4\tx y", "0.4\tx y", 15, "the log-probability 0.4 is positive"),
    "positive unigram": ("-0.9\tx", "1e-3\tx", 10, "the log-probability 1e-3 is positive"),
    "vocabulary": ("-0.4\tx y", "-0.4\tx foo", 15, "'foo' is no piece of the model's vocabulary"),
    "padding": ("-0.4\tx y", "-0.4\tx <pad>", 15, "'<pad>' is no piece"),
    "fewer": ("-0.4\tx y\n", "", 16, "the 2-grams end here, but"),
    "more": ("-0.4\tx y\n", "-0.4\tx y\n-0.5\tx x\n", 17, "more 2-grams than the 3 of `ngram 2=3`"),
    "twice": ("-0.2\ty </s>", "-0.2\tx y", 16, "this 2-gram stands in the file twice"),
    "piece twice": ("-1.1\ty", "-1.1\tx", 11, "this piece stands in the file twice"),
    "context": ("<s> x y", "y y y", 19, "its context (all but the last piece), or its last piece, is no n-gram"),
    "last": ("-0.4\tx y", "-0.4\tx z", 15, "its context (all but the last piece), or its last piece, is no n-gram"),
    "no start": ("-99\t<s>\t-0.5", "-99\tz", 11, "no <s> among the 1-grams"),
    "no end of sentence": ("-0.7\t</s>", "-0.7\tz", 11, "no </s> among the 1-grams"),
    "header": ("\\2-grams:", "\\3-grams:", 13, "'\\\\\\\\3-grams:' where \\\\2-grams: belongs"),
    "count": ("ngram 2=3", "ngram 2=many", 3, "'ngram 2=many' is not a count"),
    "counts in order": ("ngram 2=3", "ngram 3=3", 3, "the count of order 3 where that of 2 belongs"),
    "no end": ("\\end\\\n", "", 20, "the file ends here, before its \\\\end\\\\; it is truncated"),
    "truncated": (SMALL[SMALL.index("x y\n-0.2") :], "", 15, "is no 2-gram"),
    "truncated counts": (SMALL[SMALL.index("\n\\1-grams") :], "", 4, "it is truncated"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(tmp_path, name):
    old, new, line, message = MISTAKES[name]
    assert old in SMALL
    file = written(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(LanguageModelError) as caught:
        read_arpa(file, NAMES)
    text = str(caught.value)
    assert text.startswith(f"{file}:{line}: ")
    assert message.replace("\\\\", "\\") in text
    assert "\n" not in text


def test_files_that_are_no_arpa(tmp_path):
    def refused(data):
        with pytest.raises(LanguageModelError) as caught:
            read_arpa(written(tmp_path, data), NAMES)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "a KenLM binary" in refused(b"mmap lm http://kheafield.com/code format version 5\n\0\0\xff")
    assert "no line says \\data\\" in refused("just text\nand more\n")
    assert "no line says \\data\\" in refused("")
    assert ":10: not UTF-8 (byte 0xe9)" in refused(SMALL.replace("\tx\t", "\t\xe9\t").encode("latin-1"))
    assert "damaged gzip file" in refused(gzip.compress(SMALL.encode())[:-20])
    with pytest.raises(LanguageModelError, match="cannot be read"):
        read_arpa(tmp_path / "nowhere", NAMES)
    with pytest.raises(LanguageModelError, match="cannot be read"):
        read_arpa(tmp_path, NAMES)


def test_pieces_that_cannot_be_written(model, tmp_path):
    for piece in ("a b", "a\tb", "", "<s>"):
        with pytest.raises(LanguageModelError, match="cannot stand in an ARPA file"):
            write_arpa(tmp_path / "x", model, [*PIECES[:4], piece, *PIECES[5:]])
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_old_one(model, tmp_path):
    file = tmp_path / "lm.arpa"
    file.write_text("old")
    with pytest.raises(LanguageModelError, match="cannot stand"):
        write_arpa(file, model, ["a b"] * V)
    assert file.read_text() == "old"
    with pytest.raises(LanguageModelError, match="cannot be written"):
        write_arpa(tmp_path / "nowhere" / "lm.arpa", model, PIECES)


def test_kneser_ney_through_a_file(tmp_path):
    rows = corpus(8, 100)
    write_arpa(tmp_path / "x", estimate(stream(*flat(rows)), order=3, vocabulary_size=V)[0], PIECES)
    model, plain = read_arpa(tmp_path / "x", PIECES), KneserNey(rows, 3)
    for row in rows[:10]:
        np.testing.assert_allclose(model.score(stream(*flat([row])))[1:], plain.score(row), atol=5e-6)
