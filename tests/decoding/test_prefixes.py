"""Translations that begin as they are told: against plain Python, in any company, and what is refused."""

import dataclasses
import functools

import beam_oracle as oracle
import jax
import pytest
import tiny
from plain_transformer import logits

from natjax import models
from natjax.data.corpus import normalise
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.errors import PrefixError, UserError
from natjax.frames import target_limit
from natjax.segments import segments
from natjax.translator import Translator

RATIO = 0.1  # short translations: plain Python has to make them, too
LINES = ["The old farmer sells the horse.", "The king sleeps.", "I know that the girl reads the newspaper."]
PREFIXES = ["Das Pferd", "", " Ich\u00a0weiß, dass"]


@pytest.fixture(scope="module")
def teacher():
    """(config, vocabularies, parameters) of an autoregressive model that was never trained."""
    config = tiny.config(kind="autoregressive", decoder_layers=1)
    config = dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, loss="ce", target_eos=True),
        decoding=dataclasses.replace(config.decoding, beam_size=3, max_length_ratio=RATIO),
    )
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    return config, vocabularies, {**params, "output_bias": params["output_bias"].at[2].add(2.0)}  # some end early


@pytest.fixture(scope="module")
def translator(teacher):
    return Translator(*teacher)


@pytest.mark.parametrize("way", ["beam", "greedy"])
def test_hypotheses_are_those_of_the_plain_search(teacher, way):
    config, vocabularies, params = teacher
    found = Translator(*teacher, decode=way).translate_with_details(LINES[::2], prefixes=PREFIXES[::2])
    for line, prefix, detail in zip(LINES[::2], PREFIXES[::2], found, strict=True):
        (source,), (begin,) = vocabularies.source.encode([line]), vocabularies.target.encode([normalise(prefix)])

        @functools.cache
        def model(tokens, source=(*source, 2)):
            return logits(params, config.model, list(source), list(tokens))[-1]

        width, limit = 3 if way == "beam" else 1, target_limit(len(source) + 1, RATIO)
        expected, _ = oracle.search(model, width, limit, prefix=tuple(begin))
        assert detail.n_best == vocabularies.target.decode([e.tokens for e in expected])
        assert detail.score == pytest.approx(expected[0].log_prob, rel=1e-4)
        assert all(text.startswith(normalise(prefix)) for text in detail.n_best)


def test_company_and_order_change_nothing(translator):
    lines = [LINES[i % 3] for i in range(11)]  # enough for a full batch
    prefixes = [PREFIXES[i % 2] for i in range(11)]
    texts = translator.translate(lines, prefixes=prefixes)
    alone = {pair: translator.translate([pair[0]], prefixes=[pair[1]])[0] for pair in zip(lines, prefixes, strict=True)}
    assert texts == [alone[pair] for pair in zip(lines, prefixes, strict=True)]
    assert texts == [t.text for t in translator.translate_with_details(lines, prefixes=prefixes)]
    assert len(set(alone.values())) == len(alone) == 6


def test_empty_prefixes_force_nothing_and_empty_lines_stay_empty(translator):
    assert translator.translate(LINES, prefixes=[""] * 3) == translator.translate(LINES)
    assert translator.translate(["", LINES[0]], prefixes=["Das", ""]) == ["", translator.translate(LINES[:1])[0]]


def test_of_a_line_that_is_cut_the_first_part_begins_so(translator):
    long = " ".join(LINES * 3)
    parts = segments([long], translator.vocabularies.source, translator.config.decoding.max_source_length)
    texts = translator.vocabularies.source.decode([ids[:-1] for ids in parts.sources])
    assert len(texts) > 1
    (found,) = translator.translate([long], prefixes=["Das Pferd"])
    expected = translator.translate(texts, prefixes=["Das Pferd", *[""] * (len(texts) - 1)])
    assert found == " ".join(filter(None, expected))
    assert found.startswith("Das Pferd")


def test_what_is_refused(translator, teacher):
    for method in (translator.translate, translator.translate_with_details):
        with pytest.raises(TypeError, match="a single string"):
            method(LINES, prefixes="Das")
        with pytest.raises(ValueError, match="2 prefixes for 3 lines"):
            method(LINES, prefixes=["", "Das"])
    source = translator.vocabularies.source.encode(LINES[1:2])[0]
    room = target_limit(len(source) + 1, RATIO) - 1
    word = next(w for w in "abcdefghijklmnopqrstuvwxyz" if len(translator.vocabularies.target.encode([w])[0]) == 1)
    words = " ".join([word] * room)
    assert translator.translate(LINES[1:2], prefixes=[words]) == [words]  # just enough
    with pytest.raises(PrefixError, match=rf"line 2: a prefix of {room + 1} pieces, .* have {room} at most") as raised:
        translator.translate(["", *LINES[1:]], prefixes=["", f"{words} {word}", ""])
    assert raised.value.place == 1
    nat = Translator(tiny.config(), teacher[1], None)
    with pytest.raises(UserError, match="non-autoregressive model gives all words at once"):
        nat.translate([], prefixes=[])
