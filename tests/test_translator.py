"""The translator: order, empty and over-long lines, batches of any size, details."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.errors import UserError, VocabularyError, WorkdirError
from natjax.models import nat
from natjax.translator import Translator, _cut


@pytest.fixture(scope="module")
def translator():
    config = tiny.config()
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network = nat.build(config, len(vocabularies.source), len(vocabularies.target), needs_length=False)
    return Translator(config, vocabularies, jax.tree.map(lambda p: p * 3, nat.init(network, 0)))


LINES = ["The old farmer sells the horse.", "", "The king sleeps.", "   ", "I know that the girl reads the newspaper."]


def test_order_and_empty_lines(translator):
    out = translator.translate(LINES)
    assert len(out) == 5
    assert out[1] == out[3] == ""
    for i in (0, 2, 4):
        assert out[i] == translator.translate([LINES[i]])[0]


def test_nothing_gives_nothing(translator):
    assert translator.translate([]) == []


def test_any_number_of_lines_in_any_order(translator):
    generator = np.random.default_rng(0)
    lines = [LINES[i] for i in generator.integers(0, 5, 70)]
    alone = {line: translator.translate([line])[0] for line in set(lines)}
    assert translator.translate(lines) == [alone[line] for line in lines]


def test_details_agree_with_the_text(translator):
    for line, detail in zip(LINES, translator.translate_with_details(LINES)):
        merged = [f for i, f in enumerate(detail.frames) if f and (i == 0 or detail.frames[i - 1] != f)]
        assert merged == detail.tokens
        words = [piece for piece in detail.tokens if piece not in ("<s>", "</s>")]  # an untrained model says them
        assert "".join(words).replace("▁", " ").strip() == detail.text
        assert detail.n_best == [detail.text]
        assert detail.segments == (1 if line.strip() else 0)
        assert detail.score <= 0
        assert len(detail.frames) % 2 == 0  # two frames a piece


def test_an_over_long_line_is_cut_and_every_part_translated(translator):
    long = " ".join(["The old farmer sells the horse."] * 12)
    (detail,) = translator.translate_with_details([long])
    assert detail.segments > 1
    pieces = translator.vocabularies.source.encode([long])[0]
    assert len(detail.frames) == 2 * (len(pieces) + detail.segments)  # every piece and one eos a segment
    reported = []
    translator.translate([long, "The king sleeps."], on_batch=reported.append)
    assert sum(reported) == detail.segments + 1


def test_cut_prefers_sentence_ends_then_words_then_anything():
    pieces = ["▁a", "b", ".", "▁c", "▁d", "e", "▁f", "g"]
    assert _cut(list(range(8)), pieces, 5) == [[0, 1, 2], [3, 4, 5, 6, 7]]
    pieces[2] = "x"
    assert _cut(list(range(8)), pieces, 5) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert _cut(list(range(7)), ["▁a", *"bcdefg"], 3) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_cut_loses_nothing(limit):
    generator = np.random.default_rng(limit)
    pieces = [str(generator.choice(["▁a", "b", ".", "▁c."])) for _ in range(40)]
    parts = _cut(list(range(40)), pieces, limit)
    assert [i for part in parts for i in part] == list(range(40))
    assert all(1 <= len(part) <= limit for part in parts)


def test_other_weights_share_the_programs(translator):
    other = translator.with_params(jax.tree.map(lambda p: p * 0, translator.params))
    assert other._decode is translator._decode
    assert other.translate(["The king sleeps."]) != translator.translate(["The king sleeps."])


def test_unknown_ways_of_decoding_and_folders(tmp_path):
    with pytest.raises(UserError, match="choose greedy"):
        Translator.load(tmp_path, decode="magic")
    with pytest.raises(WorkdirError, match="not a workdir"):
        Translator.load(tmp_path)
    with pytest.raises(WorkdirError, match="not a workdir"):
        Translator.load(tmp_path / "nowhere")


def test_a_folder_without_vocabulary(tmp_path, translator):
    from natjax.training import checkpoint, workdir

    workdir.check(tmp_path, translator.config)
    workdir.claim(tmp_path, translator.config)
    checkpoint.save(checkpoint.at(tmp_path / "checkpoints", 1), {"params": translator.params}, {})
    with pytest.raises(VocabularyError, match=r"vocab\.model"):
        Translator.load(tmp_path)
    translator.vocabularies.save(tmp_path)
    assert Translator.load(tmp_path).translate(LINES) == translator.translate(LINES)


def test_length_candidates_run(translator):
    config = dataclasses.replace(
        translator.config,
        objective=dataclasses.replace(translator.config.objective, loss="ce"),
        decoding=dataclasses.replace(translator.config.decoding, length_candidates=3),
    )
    vocabularies = translator.vocabularies
    network = nat.build(config, len(vocabularies.source), len(vocabularies.target), needs_length=True)
    vanilla = Translator(config, vocabularies, nat.init(network, 0))
    golden = vanilla.translate_with_details(LINES, golden_lengths=[3, 1, 5, 1, 2])
    assert [len(t.frames) for t in golden] == [3, 0, 5, 0, 2]
    assert len(vanilla.translate(LINES)) == 5
