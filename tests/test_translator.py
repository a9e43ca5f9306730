"""The translator: order, empty and over-long lines, batches of any size, details."""

import dataclasses
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import memory, models
from natjax.ctc import operand_dtype
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.data.vocab import Vocabulary
from natjax.errors import ConfigError, UserError, VocabularyError, WorkdirError
from natjax.segments import cut
from natjax.translator import Translator


@pytest.fixture(scope="module")
def vocabularies():
    (sources, targets), _ = read_corpus(tiny.config())
    return train_vocabularies((sources[:300], targets[:300]), tiny.config())


@pytest.fixture(scope="module")
def params(vocabularies):
    network = models.build(tiny.config(), len(vocabularies.source), len(vocabularies.target))
    return jax.tree.map(lambda p: p * 3, models.init(network, 0))


@pytest.fixture(scope="module")
def translator(vocabularies, params):
    return Translator(tiny.config(), vocabularies, params)


LINES = ["The old farmer sells the horse.", "", "The king sleeps.", "   ", "I know that the girl reads the newspaper."]


def test_order_and_empty_lines(translator):
    out = translator.translate(LINES)
    assert len(out) == 5
    assert out[1] == out[3] == ""
    for i in (0, 2, 4):
        assert out[i] == translator.translate([LINES[i]])[0]


def test_nothing_gives_nothing(translator):
    assert translator.translate([]) == []
    assert translator.translate_with_details([]) == []
    assert translator.warm_up(["", " "]) == 0


@pytest.mark.parametrize("line", ["A dog runs.", "", b"A dog runs."])
def test_a_single_string_is_no_list_of_lines(translator, line):
    for method in (translator.translate, translator.translate_with_details, translator.warm_up):
        with pytest.raises(TypeError, match=r"a single string.*give a list"):
            method(line)


@pytest.mark.parametrize("count", [0, 4, 6])
def test_golden_lengths_are_one_a_line(translator, count):
    with pytest.raises(ValueError, match=f"{count} golden lengths for 5 lines"):
        translator.translate_with_details(LINES, golden_lengths=[3] * count)


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
        assert detail.n_best_scores == [detail.score / max(1, len(detail.frames))]
        assert detail.segments == (1 if line.strip() else 0)
        assert detail.score <= 0
        assert len(detail.frames) % 2 == 0  # two frames a piece


def test_text_alone_is_the_text_of_the_details(translator):
    lines = [*LINES, " ".join(LINES * 5)] * 9
    assert translator.translate(lines) == [t.text for t in translator.translate_with_details(lines)]


def test_text_alone_makes_no_pieces(translator, monkeypatch):
    expected = translator.translate(LINES)

    def refuse(vocabulary, ids):
        raise AssertionError("pieces are made that nobody asked for")

    monkeypatch.setattr(Vocabulary, "pieces", refuse)
    assert translator.translate(LINES) == expected
    with pytest.raises(AssertionError, match="nobody asked"):
        translator.translate_with_details(LINES)


def test_after_warming_up_nothing_is_compiled(vocabularies, params):
    fresh = Translator(tiny.config(), vocabularies, params)
    lines = [*LINES * 4, " ".join(LINES * 5)]
    programs = fresh.warm_up(lines)
    assert programs == fresh._how.decode._cache_size() > 1
    fresh.translate(lines)
    fresh.translate_with_details(lines)
    assert fresh._how.decode._cache_size() == programs


def test_seconds_of_the_lines_are_those_that_passed(translator):
    lines = LINES * 20
    translator.warm_up(lines)
    start = time.perf_counter()
    details = translator.translate_with_details(lines)
    passed = time.perf_counter() - start
    assert 0 < sum(t.seconds for t in details) < passed
    assert all((t.seconds > 0) == bool(line.strip()) for line, t in zip(lines, details))


def test_an_over_long_line_is_cut_and_every_part_translated(translator):
    long = " ".join(["The old farmer sells the horse."] * 12)
    (detail,) = translator.translate_with_details([long])
    assert detail.segments > 1
    pieces = translator.vocabularies.source.encode([long])[0]
    assert len(detail.frames) == 2 * (len(pieces) + detail.segments)  # every piece and one eos a segment
    reported = []
    translator.translate([long, "The king sleeps."], on_batch=reported.append)
    assert sum(reported) == detail.segments + 1


def test_cut_lines_are_told_by_their_place(translator):
    long = " ".join(["The old farmer sells the horse."] * 12)
    lines = ["The king sleeps.", "", long, "The king sleeps.", f"{long} {long}"]
    expected = [(i, t.segments) for i, t in enumerate(translator.translate_with_details(lines)) if t.segments > 1]
    assert [place for place, _ in expected] == [2, 4]
    for method in (translator.translate, translator.translate_with_details):
        told = []
        method(lines, on_cut=lambda *cut, told=told: told.append(cut))
        assert told == expected


def test_cut_prefers_sentence_ends_then_words_then_anything():
    pieces = ["▁a", "b", ".", "▁c", "▁d", "e", "▁f", "g"]
    assert cut(list(range(8)), pieces, 5) == [[0, 1, 2], [3, 4, 5, 6, 7]]
    pieces[2] = "x"
    assert cut(list(range(8)), pieces, 5) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert cut(list(range(7)), ["▁a", *"bcdefg"], 3) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_cut_loses_nothing(limit):
    generator = np.random.default_rng(limit)
    pieces = [str(generator.choice(["▁a", "b", ".", "▁c."])) for _ in range(40)]
    parts = cut(list(range(40)), pieces, limit)
    assert [i for part in parts for i in part] == list(range(40))
    assert all(1 <= len(part) <= limit for part in parts)


def test_other_weights_share_the_programs(translator, params):
    other = translator.with_params(jax.tree.map(lambda p: p * 0, params))
    assert other._how.decode is translator._how.decode
    assert other.translate(["The king sleeps."]) != translator.translate(["The king sleeps."])
    assert other.with_params(params).translate(LINES) == translator.translate(LINES)
    assert other.with_params(translator.params).translate(LINES) == translator.translate(LINES)


def test_reloaded_float32_weights_are_cast_once(vocabularies, params):
    config = tiny.config(dtype="bfloat16")
    for half in (Translator(config, vocabularies, params), Translator(config, vocabularies, None).with_params(params)):
        dtypes = {jax.tree_util.keystr(p): str(x.dtype) for p, x in jax.tree_util.tree_leaves_with_path(half.params)}
        assert len(dtypes) > 20
        table = str(operand_dtype(jnp.bfloat16))  # the output projection takes it so
        for path, dtype in dtypes.items():
            assert dtype == ("bfloat16" if "kernel" in path else table if "table" in path else "float32"), path


def autoregressive():
    config = tiny.config(kind="autoregressive")
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss="ce", target_eos=True))


def test_an_autoregressive_model_has_a_beam_and_greedy_decoding(vocabularies):
    config = autoregressive()
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, beam_size=3))
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    beam, greedy, single = (
        Translator(dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, **changes)),
                   vocabularies, params, decode=way)
        for way, changes in ((None, {}), ("greedy", {}), ("beam", dict(beam_size=1)))
    )  # fmt: skip
    lines = [*LINES, " ".join(LINES * 5)]
    details = beam.translate_with_details(lines)
    assert beam.translate(lines) == [d.text for d in details] != greedy.translate(lines)
    for line, detail in zip(lines, details, strict=True):
        assert detail.n_best[0] == detail.text
        assert len(detail.n_best) == len(detail.n_best_scores) == (3 if line.strip() else 1)
        if detail.segments == 1:
            assert detail.n_best_scores == sorted(detail.n_best_scores, reverse=True)
        assert detail.score <= 0
    for one, two in zip(greedy.translate_with_details(lines), single.translate_with_details(lines), strict=True):
        assert dataclasses.replace(one, seconds=0) == dataclasses.replace(two, seconds=0)
        assert one.n_best == [one.text]


@pytest.mark.parametrize("way", ["beam", "greedy", "nat", "ctc beam"])
def test_a_line_that_was_cut_has_a_score_like_any_other(vocabularies, way):
    nat = way in ("nat", "ctc beam")
    config = tiny.config() if nat else autoregressive()
    decoding = dataclasses.replace(config.decoding, beam_size=3, length_penalty=0.6, ctc_beam_size=3, ctc_top_k=3)
    config = dataclasses.replace(config, decoding=dataclasses.replace(decoding, length_bonus=0.3))
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    made = Translator(config, vocabularies, params, decode={"nat": "greedy", "ctc beam": "beam"}.get(way, way))
    long = " ".join(["The old farmer sells the horse.", "The king sleeps.", LINES[4]] * 2)
    ids = vocabularies.source.encode([long])[0]
    parts = vocabularies.source.decode(cut(ids, vocabularies.source.pieces(ids), decoding.max_source_length - 1))
    whole, *each = made.translate_with_details([long, *parts])
    assert whole.segments == len(parts) > 1
    assert {one.segments for one in each} == {1}
    assert whole.score == pytest.approx(sum(one.score for one in each), rel=1e-5)
    if way == "ctc beam":  # a sum whose length has a bonus
        assert whole.n_best_scores[0] == pytest.approx(sum(one.n_best_scores[0] for one in each), rel=1e-5)
        assert each[0].n_best_scores[0] > each[0].score
        return
    lengths = [len(one.frames) if nat else len(one.tokens) + 1 for one in each]
    exponent = 1.0 if nat else 0.6
    for one, length in zip([*each, whole], [*lengths, sum(lengths)], strict=True):
        assert one.n_best_scores[0] == pytest.approx(one.score / length**exponent, rel=1e-5)


def test_unknown_ways_of_decoding_and_folders(tmp_path, vocabularies):
    with pytest.raises(UserError, match="'npd' does not exist for a model trained with ctc without latents"):
        Translator(tiny.config(), vocabularies, None, decode="npd")
    with pytest.raises(UserError, match="'magic' does not exist for autoregressive; choose beam or greedy"):
        Translator(autoregressive(), vocabularies, None, decode="magic")
    with pytest.raises(WorkdirError, match="not a workdir"):
        Translator.load(tmp_path)
    with pytest.raises(WorkdirError, match="not a workdir"):
        Translator.load(tmp_path / "nowhere")


def test_a_folder_without_vocabulary(tmp_path, translator, params):
    from natjax.training import checkpoint, workdir

    workdir.check(tmp_path, translator.config)
    workdir.claim(tmp_path, translator.config)
    checkpoint.save(checkpoint.at(tmp_path / "checkpoints", 1), {"params": params}, {})
    with pytest.raises(VocabularyError, match=r"vocab\.model"):
        Translator.load(tmp_path)
    translator.vocabularies.save(tmp_path)
    assert Translator.load(tmp_path).translate(LINES) == translator.translate(LINES)


def test_the_config_holds_the_blank_back(translator, params):
    # Of two tokens that are likely everywhere the blank leads by 3.
    bias = jnp.full_like(params["output_bias"], -1000.0).at[jnp.array([0, 9])].set(jnp.array([3.0, 0.0]))

    def emitted(penalty):
        decoding = dataclasses.replace(translator.config.decoding, blank_penalty=penalty)
        config = dataclasses.replace(translator.config, decoding=decoding)
        flat = {**params, "source_embedding": jax.tree.map(jnp.zeros_like, params["source_embedding"])}
        held = Translator(config, translator.vocabularies, {**flat, "output_bias": bias})
        return set(held.translate_with_details(LINES)[0].frames)

    assert emitted(2.5) == {""}
    assert emitted(3.5) == {translator.vocabularies.target.pieces([9])[0]}


def test_fields_of_decoding_that_a_model_has_no_use_for(vocabularies, monkeypatch):
    config = tiny.config()
    for loss, name, value, message in (
        ("ce", "blank_penalty", 1.0, "trained with ce, which has no blank"),
        ("axe", "blank_penalty", 1.0, "trained with axe, which has no blank"),
        ("ctc", "blank_penalty", -1.0, "decoding.blank_penalty: must be from 0"),
        ("ctc", "length_multiplier", 1.1, "trained with ctc, which has no length to predict"),
        ("ctc", "latent_temperature", 0.5, "has no latents to draw; leave decoding.latent_temperature out"),
        ("axe", "beam_size", 4, r"which has no autoregressive search; leave decoding\.beam_size out$"),
        ("ctc", "beam_size", 4, r"leave decoding\.beam_size out; the width of the .* is decoding\.ctc_beam_size$"),
    ):
        kept = dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss=loss))
        monkeypatch.setattr("natjax.translator.workdirs.load_model", lambda *_, kept=kept: (kept, vocabularies, None))
        with pytest.raises(ConfigError, match=message):
            Translator.load("runs/a", decoding={name: value})
    monkeypatch.setattr("natjax.translator.workdirs.load_model", lambda *_: (config, vocabularies, None))
    assert Translator.load("runs/a", decoding={"blank_penalty": 0.75}).config.decoding.blank_penalty == 0.75


VAE = {"latents": "vae", "latent_width": 3, "posterior_layers": 1}


@pytest.mark.parametrize(
    ("way", "given", "message"),
    [
        (
            "greedy",
            {"lm_weight": 0.4},
            "greedy searches nothing; leave decoding.lm_weight out, or decode by beam or npd",
        ),
        ("greedy", {"length_bonus": 0.4}, "greedy searches nothing; leave decoding.length_bonus out"),
        ("npd", {"ctc_beam_size": 4}, "npd searches nothing; leave decoding.ctc_beam_size out, or decode by beam"),
        ("beam", {"lm": "x"}, "beam asks no language model while decoding.lm_weight is 0; leave decoding.lm out"),
        ("beam", {"score_eos": True}, "beam asks no language model while decoding.lm_weight is 0"),
        ("beam", {"length_bonus_form": "log"}, "beam adds no bonus while decoding.length_bonus is 0"),
        ("beam", {"blank_penalty": 1.0}, "leave decoding.blank_penalty out, or decode by greedy or npd"),
        ("npd+beam", {"blank_penalty": 1.0}, "sums over the alignments that the penalty makes up for"),
        ("beam", {"npd_samples": 2}, "makes no tries to choose from; leave decoding.npd_samples out, or decode by npd"),
        ("greedy", {"teacher": "x"}, "makes no tries to choose from; leave decoding.teacher out"),
        ("npd", {"latent_temperature": 1.0}, "draws with decoding.npd_temperature"),
    ],
)
def test_fields_of_decoding_that_a_way_has_no_use_for(vocabularies, monkeypatch, way, given, message):
    config = tiny.config(**VAE)
    monkeypatch.setattr("natjax.translator.workdirs.load_model", lambda *_: (config, vocabularies, None))
    with pytest.raises(ConfigError, match=re.escape(message)):
        Translator.load("runs/a", decode=way, decoding=given)


def test_fields_that_a_way_has_a_use_for(vocabularies, monkeypatch):
    monkeypatch.setattr("natjax.translator.workdirs.load_model", lambda *_: (tiny.config(**VAE), vocabularies, None))
    for way, given in (
        ("beam", {"lm_weight": 0.0, "ctc_beam_size": 3, "length_bonus": 1.0, "length_bonus_form": "log"}),
        ("beam", {"latent_temperature": 1.0, "ctc_top_k": 4}),
        ("greedy", {"latent_temperature": 1.0, "blank_penalty": 1.0, "max_source_length": 16}),
    ):
        loaded = Translator.load("runs/a", decode=way, decoding=given).config.decoding
        assert {name: getattr(loaded, name) for name in given} == given


def test_a_language_model_s_weight_needs_a_language_model(vocabularies):
    config = tiny.config()
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, lm_weight=0.4))
    with pytest.raises(ConfigError, match=r"decoding\.lm_weight: is 0.4, but no language model was given"):
        Translator(config, vocabularies, None, decode="beam")
    Translator(config, vocabularies, None, decode="greedy")


def test_a_search_tells_each_part_of_its_scores(vocabularies, params):
    table = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (len(vocabularies.target),)))
    config = tiny.config()
    fields = dict(lm_weight=0.5, length_bonus=0.25, ctc_beam_size=3)
    weighted = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, **fields))
    lines = [LINES[0], " ".join(LINES * 5), ""]
    for translator in (
        Translator(weighted, vocabularies, params, decode="beam", lm=tiny.Letters(table)),
        Translator(dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, ctc_beam_size=3)),
                   vocabularies, params, decode="beam"),
    ):  # fmt: skip
        alpha, beta = translator.config.decoding.lm_weight, translator.config.decoding.length_bonus
        details = translator.translate_with_details(lines)
        assert details[1].segments > 1
        first, cut, empty = details
        assert len(first.n_best_scores) == len(first.n_best_ctc_scores) == 3
        assert len(first.n_best_lm_scores) == len(cut.n_best_lm_scores) == (3 if alpha else 0)
        lm = first.n_best_lm_scores or [0.0] * 3
        np.testing.assert_allclose(first.score, first.n_best_ctc_scores[0], rtol=1e-6)
        rest = np.array(first.n_best_scores) - np.array(first.n_best_ctc_scores) - alpha * np.array(lm)
        np.testing.assert_allclose(rest[0], beta * len(first.tokens), atol=1e-3)
        assert empty.n_best_ctc_scores == empty.n_best_lm_scores == []
    greedy = Translator(config, vocabularies, params).translate_with_details(lines)[0]
    assert greedy.n_best_ctc_scores == greedy.n_best_lm_scores == []


def test_too_little_memory_is_one_line():
    with pytest.raises(UserError, match="lower it"), memory.explained("too large; lower it"):
        jax.block_until_ready(jax.jit(lambda: jnp.zeros(1 << 44))())
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"), memory.explained("too large"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize("loss", ["ce", "axe"])
def test_length_candidates_run(translator, loss):
    config = dataclasses.replace(
        translator.config,
        objective=dataclasses.replace(translator.config.objective, loss=loss),
        decoding=dataclasses.replace(translator.config.decoding, length_candidates=3, length_multiplier=1.5),
    )
    vocabularies = translator.vocabularies
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    vanilla = Translator(config, vocabularies, models.init(network, 0))
    golden = vanilla.translate_with_details(LINES, golden_lengths=[3, 1, 5, 1, 2])
    assert [len(t.frames) for t in golden] == [3, 0, 5, 0, 2]
    assert len(vanilla.translate(LINES)) == 5
    # A batch holds the frames of all candidates: (16 + 32) · 1.5 for each of the three.
    assert vanilla._how.frames(16) == 216
