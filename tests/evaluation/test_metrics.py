import json
import re
import sys
from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_scores import corpus_bleu, corpus_chrf

from natjax.errors import DataError, UserError
from natjax.evaluation.metrics import TOKENIZERS, load_metric_plugin, repetition_rate, score

# Few words, so that random sentences share long n-grams.
sentences = st.lists(st.sampled_from(["der", "Hund", "bellt", "a-b"]), max_size=9).map(" ".join)
corpora_of_text = st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=4)


def read(path):
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.mark.parametrize(("system", "published"), [("ctc_sd", 26.85), ("glat_sd", 25.67), ("null_sd", 22.71)])
def test_published_outputs_score_what_was_published(corpora, system, published):
    folder = corpora / "nat_outputs_wmt14ende"
    hypotheses = read(folder / f"{system}.hyp.de")
    references = [[line] for line in read(folder / f"{system}.ref.de")]
    scores = score(hypotheses, references, tokenize="none")
    assert scores.sentences == 3003
    assert round(scores.bleu, 2) == published
    assert scores.bleu == pytest.approx(corpus_bleu(hypotheses, references)[0], abs=1e-9)


def test_bleu_by_hand():
    # Matches over n-grams: 5/6, 4/5, 3/4, 2/3; six tokens, seven in the reference.
    scores = score(["a b c d e x"], [["a b c d e f g"]], tokenize="none")
    assert scores.bp == pytest.approx(2.718281828459045 ** (1 - 7 / 6))
    assert scores.length_ratio == pytest.approx(6 / 7)
    assert scores.bleu == pytest.approx(100 * scores.bp * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


@given(corpora_of_text)
def test_scores_agree_with_the_plain_formulas(corpus):
    hypotheses, references = map(list, zip(*corpus))
    scores = score(hypotheses, references, tokenize="none")
    bleu, penalty, ratio = corpus_bleu(hypotheses, references)
    assert (scores.bleu, scores.bp, scores.length_ratio) == pytest.approx((bleu, penalty, ratio), abs=1e-9)
    plain = [text.replace("a-b", "ab") for text in hypotheses]  # the oracle of chrF knows no punctuation
    plain_references = [[text.replace("a-b", "ab") for text in some] for some in references]
    assert score(plain, plain_references).chrf == pytest.approx(corpus_chrf(plain, plain_references), abs=1e-9)


@given(corpora_of_text)
def test_fewer_references_are_the_same_as_repeated_ones(corpus):
    hypotheses, references = map(list, zip(*corpus))
    padded = [(some * 3)[:3] for some in references]
    for tokenize in ("13a", "none"):
        ragged, full = score(hypotheses, references, tokenize=tokenize), score(hypotheses, padded, tokenize=tokenize)
        assert (ragged.bleu, ragged.chrf, ragged.bp) == (full.bleu, full.chrf, full.bp)


def test_a_second_reference_is_used_where_it_exists():
    hypotheses, first = ["ein Hund läuft über die Wiese", "eine Katze schläft hier auf dem Sofa"], ["x", "y"]
    references = [[first[0], hypotheses[0]], [first[1]]]
    assert score(hypotheses, [[f] for f in first]).chrf < 5
    assert score(hypotheses, references).chrf > 40
    assert score(hypotheses, [[*some, h] for some, h in zip(references, hypotheses)]).bleu == pytest.approx(100)


def test_13a_splits_punctuation_and_none_does_not():
    raw, reference = "Hello, world! It works (well) here.", "Hello, world! It worked (well) here."
    by_hand = "Hello , world ! It works ( well ) here ."
    by_hand_reference = "Hello , world ! It worked ( well ) here ."
    assert score([raw], [[reference]]).bleu == pytest.approx(corpus_bleu([by_hand], [[by_hand_reference]])[0])
    tokenized = score([raw], [[reference]], tokenize="none").bleu
    assert tokenized == corpus_bleu([raw], [[reference]])[0] == 0  # no four words in common, and no smoothing


def test_compound_split_breaks_inner_hyphens_on_both_sides():
    hypothesis, reference = "das Vier-Sterne-Hotel ist - laut A-Z - neu", "das Fünf-Sterne-Hotel ist - laut A-Z - alt"
    by_hand = "das Vier ##AT##-##AT## Sterne ##AT##-##AT## Hotel ist - laut A ##AT##-##AT## Z - neu"
    by_hand_reference = "das Fünf ##AT##-##AT## Sterne ##AT##-##AT## Hotel ist - laut A ##AT##-##AT## Z - alt"
    scores = score([hypothesis], [[reference]], tokenize="none", compound_split=True)
    plain = score([hypothesis], [[reference]], tokenize="none")
    assert scores.bleu == pytest.approx(corpus_bleu([by_hand], [[by_hand_reference]])[0])
    assert scores.bleu > plain.bleu > 0
    assert scores.chrf == plain.chrf
    assert scores.tokenize == "none+compound-split"
    assert "tok:none+compound-split|" in scores.bleu_signature


def test_compound_split_works_on_the_tokens_of_13a():
    raw, reference = "Ein Kurz-Text, ganz neu.", "Ein Kurz-Text, ganz alt."
    by_hand = "Ein Kurz ##AT##-##AT## Text , ganz neu ."
    by_hand_reference = "Ein Kurz ##AT##-##AT## Text , ganz alt ."
    scores = score([raw], [[reference]], compound_split=True)
    assert scores.bleu == pytest.approx(corpus_bleu([by_hand], [[by_hand_reference]])[0])
    assert scores.tokenize == "13a+compound-split"


def test_text_is_not_normalised():
    composed, decomposed = "Übung macht den Meister", "U\u0308bung macht den Meister"
    assert score([composed], [[composed]]).bleu == pytest.approx(100)
    assert score([decomposed], [[composed]]).bleu < 100
    assert score(["„Ja“ sagt er nun"], [['"Ja" sagt er nun']]).bleu < 100


def test_repetition_rate_by_hand():
    # 2 repeats (der der, nein nein) of 8 words; a word at the start of a line has no predecessor.
    hypotheses = ["der der Hund bellt", "bellt nein nein  ja", ""]
    assert repetition_rate(hypotheses) == 25
    assert score(hypotheses, [["a"]] * 3).repetition_rate == 25
    assert repetition_rate(["", " "]) == 0


def test_signatures_tell_version_references_and_tokenization():
    one = score(["ein Hund"], [["ein Hund"]])
    two = score(["ein Hund"], [["ein Hund", "der Hund"]], tokenize="none")
    varying = score(["ein Hund", "ja"], [["ein Hund", "der Hund"], ["ja"]])
    for signature in (one.bleu_signature, one.chrf_signature, two.bleu_signature):
        assert signature.endswith(f"|version:{version('sacrebleu')}")
    for scores, references in ((one, "1"), (two, "2"), (varying, "var")):
        assert scores.bleu_signature.startswith(f"nrefs:{references}|")
        assert scores.chrf_signature.startswith(f"nrefs:{references}|")
    assert "|tok:13a|smooth:exp|" in one.bleu_signature
    assert "|tok:none|smooth:none|" in two.bleu_signature
    assert "|nc:6|nw:2|" in one.chrf_signature


def test_scores_go_into_json():
    scores = score(["ein Hund"], [["ein Hund"]])
    assert json.loads(json.dumps(scores.as_dict())) == scores.as_dict()
    assert scores.as_dict()["tokenize"] == "13a"


def test_moses_tokens_on_both_sides():
    pytest.importorskip("sacremoses")
    hypothesis, reference = 'Er sagt: "Nein!" zu Katze-Sofa & mir.', 'Sie sagt: "Nein!" zu Katze-Sofa & mir.'
    by_hand = 'Er sagt : " Nein ! " zu Katze-Sofa & mir .'
    by_hand_reference = 'Sie sagt : " Nein ! " zu Katze-Sofa & mir .'
    scores = score([hypothesis], [[reference]], tokenize="moses", language="de")
    assert scores.bleu == pytest.approx(corpus_bleu([by_hand], [[by_hand_reference]])[0])
    assert f"|tok:moses-de-{version('sacremoses')}|smooth:none|" in scores.bleu_signature
    split = score([hypothesis], [[reference]], tokenize="moses", compound_split=True)
    assert split.tokenize == "moses+compound-split"
    assert split.length_ratio == 1
    assert split.bleu > scores.bleu


def test_moses_rules_that_do_not_exist_are_not_named():
    pytest.importorskip("sacremoses")
    with pytest.raises(UserError, match="--language klingon: Moses has no rules for it; choose as, bn"):
        score(["a"], [["b"]], tokenize="moses", language="klingon")


def test_moses_without_sacremoses_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(UserError, match=r"install natjax\[data\]"):
        score(["ein Hund"], [["ein Hund"]], tokenize="moses")


def test_mecab_that_is_missing_names_the_package(monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(UserError, match=r"install sacrebleu\[ja\]"):
        score(["犬"], [["犬"]], tokenize="ja-mecab")


def test_other_tokenizers_of_sacrebleu_pass_through():
    assert score(["我喜欢狗和猫"], [["我喜欢狗和猫"]], tokenize="none").bleu == 0  # one token
    scores = score(["我喜欢狗和猫"], [["我喜欢狗和猫"]], tokenize="zh")
    assert scores.bleu == pytest.approx(100)
    assert "|tok:zh|" in scores.bleu_signature


def test_an_unknown_tokenization_lists_the_choices():
    with pytest.raises(UserError, match="unknown tokenization '13b'") as raised:
        score(["a"], [["a"]], tokenize="13b")
    assert all(name in str(raised.value) for name in TOKENIZERS)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "no sentences"),
        (["a", "b"], [["a"]], "2 translations but references of 1 sentences"),
        (["a", "b"], [["a"], []], "sentence 2 has no reference"),
    ],
)
def test_corpora_that_cannot_be_scored(hypotheses, references, message):
    with pytest.raises(DataError, match=message):
        score(hypotheses, references)


def test_references_as_plain_strings_are_refused():
    with pytest.raises(TypeError, match="list of references"):
        score(["abc"], ["abc"])


def test_a_metric_plugin_is_called_with_everything(tmp_path):
    file = tmp_path / "metric.py"
    file.write_text(
        "import numpy as np\n"
        "def score(sources, hypotheses, references):\n"
        "    return {'lines': len(sources), 'references': np.float32(sum(map(len, references)) / len(hypotheses))}\n"
    )
    result = load_metric_plugin(file)(["a", "b"], ["c", "d"], [["e"], ["f", "g"]])
    assert result == {"lines": 2.0, "references": 1.5}
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def score(:\n", "failed with SyntaxError"),
        ("import no_such_package\n", "failed with ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise ValueError('two\\nlines')\n", "failed with ValueError: two lines"),
        ("def metric(): pass\n", "has no function score"),
        ("score = 3\n", "has no function score"),
        ("import sys\nsys.exit(0)\n", "failed with SystemExit"),
    ],
)
def test_a_bad_metric_plugin_is_one_line(tmp_path, text, message):
    file = tmp_path / "metric.py"
    file.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        load_metric_plugin(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_missing_metric_plugin(tmp_path):
    with pytest.raises(UserError, match="no such metric plugin"):
        load_metric_plugin(tmp_path / "metric.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 0.5", "must return a dict"),
        ("return {'comet': 'high'}", "must return a dict"),
        ("return {'comet': float('nan')}", "finite"),
        ("return sources[5]", "failed with IndexError"),
        ("raise SystemExit(0)", "failed with SystemExit"),
    ],
)
def test_a_metric_plugin_that_fails_while_scoring(tmp_path, body, message):
    file = tmp_path / "metric.py"
    file.write_text(f"def score(sources, hypotheses, references):\n    {body}\n")
    plugin = load_metric_plugin(file)
    with pytest.raises(UserError, match=message) as raised:
        plugin(["a"], ["b"], [["c"]])
    assert "\n" not in str(raised.value)
