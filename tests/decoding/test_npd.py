"""Noisy parallel decoding: the tries against single passes by hand, the choice against the teacher's own scores."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from natjax import models
from natjax.choosing import Chooser
from natjax.config import to_json
from natjax.data.corpus import normalise
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.decoding import npd, scoring
from natjax.decoding.passes import Hypotheses
from natjax.decoding.scoring import Score
from natjax.decoding.single_pass import make_decode
from natjax.errors import ConfigError, UserError, WorkdirError
from natjax.layers.noise import mix32, sentence_noise
from natjax.segments import segments
from natjax.training import checkpoint
from natjax.translator import Translator
from natjax.typing import EOS, UNK

LINES = ["The old farmer sells the horse.", "", "The king sleeps.", "I know that the girl reads the newspaper."]
LATENT = {"latents": "vae", "latent_width": 3, "posterior_layers": 1}


@pytest.mark.parametrize("temperature", [0.6, 0.0])
def test_samples_are_the_mean_and_draws_around_it(temperature):
    _, network, objective, params = tiny.build(**LATENT)
    params = jax.tree.map(lambda p: p * 3, params)
    batch = tiny.batch()
    decode = make_decode(network, objective, samples=4, temperature=temperature, seed=5, every_try=True)
    out = decode(params, batch.source, batch.source_lengths)

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    memory = apply("encode", batch.source, batch.source_lengths)
    prior, noise = apply("prior", memory), sentence_noise(5, batch.source)
    lengths = objective.frames(batch.source_lengths, batch.target_lengths)
    found = []
    for sample in range(4):
        draw = noise._replace(rows=noise.rows ^ mix32(jnp.uint32(sample)))
        latent = prior.sample(draw, temperature) if sample and temperature else prior.mean
        head = apply("project", apply("decode", apply("upsample", memory, batch.source_lengths, 16, latent), lengths,
                                      memory, batch.source_lengths))  # fmt: skip
        log_probs = np.asarray(jax.nn.log_softmax(head.hidden @ head.kernel + head.bias[None, None]))
        real = np.arange(16) < np.asarray(lengths)[:, None]
        best = np.where(real, log_probs.argmax(-1), 0).astype(np.int32)
        tokens, count = objective.collapse(jnp.asarray(best), lengths)
        sums = (log_probs.max(-1) * real).sum(1)
        found.append((np.asarray(sums), np.asarray(tokens), np.asarray(count)))
    different = 0
    for row in range(4):
        order = sorted(range(4), key=lambda sample, row=row: -found[sample][0][row])  # frames are as many for all
        np.testing.assert_allclose(out.n_best.sums[row], [found[s][0][row] for s in order], rtol=1e-3, atol=1e-4)
        if temperature:
            assert out.n_best.tokens[row].tolist() == [found[s][1][row].tolist() for s in order]
            assert out.n_best.lengths[row].tolist() == [found[s][2][row] for s in order]
        assert out.tokens[row].tolist() == out.n_best.tokens[row, 0].tolist()
        different += len({tuple(tokens) for tokens in out.n_best.tokens[row].tolist()})
    assert (different > 4) == (temperature > 0)


def test_a_sentences_tries_do_not_depend_on_its_company():
    _, network, objective, params = tiny.build(**LATENT)
    params = jax.tree.map(lambda p: p * 3, params)
    decode = make_decode(network, objective, samples=3, temperature=0.5, every_try=True)
    batch, other = tiny.batch(seed=0), tiny.batch(seed=1)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([b[:2], a[:2]]), batch, other)
    one, two = (decode(params, b.source, b.source_lengths) for b in (batch, mixed))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:2], b[2:]), one, two)


class Fixed:
    """A teacher with an opinion about each text."""

    def __init__(self, means):
        self.means, self.asked = means, []

    def score_each(self, sources, targets, room=None):
        self.asked.append((list(sources), [list(some) for some in targets], room))
        return [[Score(2 * self.means[text], self.means[text], 2) for text in some] for some in targets]


def test_each_text_is_asked_about_once_and_the_best_comes_first():
    teacher = Fixed({"a": -3.0, "b": -1.0, "c": -1.0, "": -9.0})
    ranked = npd.rank(teacher, ["x", "y", "z"], [["a", "c", "a", "b"], ["", "", ""], []], 4)
    assert [[text for text, _ in some] for some in ranked] == [["c", "b", "a"], [""], []]
    assert teacher.asked == [(["x", "y", "z"], [["a", "c", "b"], [""], []], 4)]


def test_where_there_is_nothing_to_choose_the_teacher_is_not_asked():
    teacher = Fixed({"a": -3.0, "b": -1.0})
    assert npd.best(teacher, ["x", "y", "z"], [["a", "a"], ["a", "b", "a"], [""]], 4) == ["a", "b", ""]
    assert teacher.asked == [(["y"], [["a", "b"]], 4)]
    assert npd.best(teacher, ["x", "y"], [["c", "c"], ["d"]], 4) == ["c", "d"] and len(teacher.asked) == 1


def test_a_mean_that_is_no_number_comes_last():
    ranked = npd.rank(Fixed({"a": np.nan, "b": -1.0, "c": -np.inf}), ["x"], [["a", "b", "c"]], 3)
    assert [text for text, _ in ranked[0]] == ["b", "c", "a"]


@pytest.fixture(scope="module")
def vocabularies():
    (sources, targets), _ = read_corpus(tiny.config())
    return train_vocabularies((sources[:300], targets[:300]), tiny.config())


@pytest.fixture(scope="module")
def others(vocabularies):
    """A smaller vocabulary, for a teacher that has one of its own."""
    (sources, targets), _ = read_corpus(tiny.config())
    config = tiny.config()
    return train_vocabularies(
        (sources[:300], targets[:300]), dataclasses.replace(config, vocab=dataclasses.replace(config.vocab, size=200))
    )


def made(config, vocabularies, seed, **parts):
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, seed))
    return Translator(config, vocabularies, params, **parts), params


def autoregressive():
    config = tiny.config(kind="autoregressive", decoder_layers=1)
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, loss="ce", target_eos=True))


def student(loss="ctc", **decoding):
    config = tiny.config(**({} if loss == "axe" else LATENT))
    return dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, loss=loss, length_range=3),
        decoding=dataclasses.replace(config.decoding, **decoding),
    )


@pytest.mark.parametrize(
    ("loss", "decoding", "tries"),
    [
        ("ctc", {"npd_samples": 4, "npd_temperature": 3.0}, 4),
        ("axe", {"npd_lengths": 5}, 5),
        ("axe", {"npd_lengths": 100}, 7),
        ("ce", {"npd_samples": 2, "npd_temperature": 3.0, "npd_lengths": 3}, 6),
    ],
)
def test_the_teacher_chooses_by_its_mean(vocabularies, others, loss, decoding, tries):
    teacher, _ = made(autoregressive(), others, 1, decode="greedy")
    ours, params = made(student(loss, **decoding), vocabularies, 0, decode="npd", teacher=teacher)
    assert ours._how.tries == tries
    details = ours.translate_with_details(LINES)
    assert [d.text for d in details] == ours.translate(LINES)
    assert details[1].text == ""
    for line, detail in zip(LINES, details, strict=True):
        if not line:
            continue
        assert len(set(detail.n_best)) == len(detail.n_best) <= tries
        scores = teacher.score([line] * len(detail.n_best), detail.n_best)
        np.testing.assert_allclose(detail.n_best_scores, [s.mean for s in scores], rtol=1e-4)
        assert detail.n_best_scores == sorted(detail.n_best_scores, reverse=True)
        assert detail.text == detail.n_best[0]
        np.testing.assert_allclose(detail.score, scores[0].sum, rtol=1e-4)
    assert max(len(detail.n_best) for detail in details) > 1
    # What a plain pass says is among the tries: the mean, or the first length.
    plain, _ = made(student(loss, **decoding), vocabularies, 0)
    assert all(text in detail.n_best for text, detail in zip(plain.translate(LINES), details, strict=True))


def as_tries(*sentences):
    """`Hypotheses` of ids, all with a score."""
    most, longest = max(map(len, sentences)), max(len(ids) for some in sentences for ids in some)
    tokens = np.zeros((len(sentences), most, longest), np.int32)
    lengths, scores = np.zeros(tokens.shape[:2], np.int32), np.full(tokens.shape[:2], -np.inf, np.float32)
    for row, some in enumerate(sentences):
        for place, ids in enumerate(some):
            tokens[row, place, : len(ids)], lengths[row, place], scores[row, place] = ids, len(ids), -place
    return Hypotheses(tokens, lengths, scores)


def test_the_teacher_reads_the_pieces_that_nobody_knows(vocabularies, others):
    teacher, params = made(autoregressive(), vocabularies, 1, decode="greedy")
    sources, said = ["The ☃ king☃s sleeps."], ["Der ☃ König☃s schläft.", "Der König☃ schläft.", "☃ Der"]
    tries = vocabularies.target.encode(said)
    assert [ids.count(UNK) for ids in tries] == [2, 1, 1]
    found = Chooser(teacher, vocabularies.target, 3).ranked(sources, as_tries(tries))[0]
    # What scoring the very ids gives, without a text in between.
    source = [[*vocabularies.source.encode(sources)[0], EOS]]
    expected = scoring.scores(teacher._scorer, params, source, [[[*ids, EOS] for ids in tries]], 1024, 8)[0]
    order = sorted(range(3), key=lambda place: -expected[place].mean)
    assert [hypothesis.tokens for hypothesis in found] == [tries[place] for place in order]
    assert [hypothesis.length for hypothesis in found] == [expected[place].tokens for place in order]
    np.testing.assert_allclose(
        [hypothesis.sum for hypothesis in found], [expected[place].sum for place in order], rtol=1e-4
    )

    # A teacher with another vocabulary does not know them, either.
    stranger, _ = made(autoregressive(), others, 1, decode="greedy")
    texts = Chooser(stranger, vocabularies.target, 3)._each(sources, as_tries(tries))[0]
    assert [ids.count(UNK) for ids in others.target.encode([normalise(text) for text in texts])] == [2, 1, 1]


def test_the_teacher_is_given_the_source_as_it_was_written(vocabularies, others):
    real, _ = made(autoregressive(), others, 1, decode="greedy")
    heard = []

    class Listening:
        vocabularies = real.vocabularies

        def score_each(self, sources, targets, room=None):
            heard.extend(sources)
            return real.score_each(sources, targets, room)

    ours, params = made(student(npd_samples=3, npd_temperature=3.0), vocabularies, 0, decode="npd", teacher=Listening())
    lines = ["The ☃\u00a0king  sleeps.", "The old ☃armer sells the horse. " * 6]
    details = ours.translate_with_details(lines)
    assert details[1].segments > 1
    assert sorted(heard, key=len)[0] == "The ☃ king sleeps."
    assert heard.count("The ☃ king sleeps.") == 1 and len(heard) == 1 + details[1].segments
    assert sum(text.count("☃armer") for text in heard) == 6
    assert not any("?" in text or "⁇" in text for text in heard)


def test_the_parts_of_a_cut_line_join_to_the_line(vocabularies):
    line = normalise("The old ☃armer sells the ☃ horse. " * 6)
    parts = segments([line, "", "A ☃ runs."], vocabularies.source, 20)
    assert len(parts.texts) == len(parts.sources) > 3
    assert " ".join(parts.texts[:-1]) == line and parts.texts[-1] == "A ☃ runs."
    for ids, text in zip(parts.sources, parts.texts, strict=True):
        assert vocabularies.source.encode([text])[0] == ids[:-1]


def test_the_teacher_s_time_counts(vocabularies):
    class Slow:
        def __init__(self, real):
            self.real, self.vocabularies = real, real.vocabularies

        def score_each(self, *asked):
            time.sleep(0.1)
            return self.real.score_each(*asked)

    teacher, _ = made(autoregressive(), vocabularies, 1, decode="greedy")
    config = student(npd_samples=3, npd_temperature=3.0)
    ours, _ = made(config, vocabularies, 0, decode="npd", teacher=Slow(teacher))
    lines = [*LINES, *["A dog runs."] * 20]
    ours.translate_with_details(lines)
    batches = len(ours._plan(ours._segments(lines).sources))
    started = time.perf_counter()
    details = ours.translate_with_details(lines)
    passed = time.perf_counter() - started
    # Of the last batch, too, and of each once.
    assert 0.1 * batches <= sum(detail.seconds for detail in details) <= passed


def test_a_model_that_has_diverged_is_translated_with_all_the_same(vocabularies):
    teacher, _ = made(autoregressive(), vocabularies, 1, decode="greedy")
    ours, params = made(student(npd_samples=3), vocabularies, 0, decode="npd", teacher=teacher)
    broken = ours.with_params(jax.tree.map(lambda p: p * jnp.nan, params))
    assert len(broken.translate(LINES)) == len(broken.translate_with_details(LINES)) == len(LINES)


def test_scores_of_several_targets_are_those_of_each(vocabularies):
    for model in (autoregressive(), tiny.config()):
        scorer, _ = made(model, vocabularies, 2)
        targets = [["Der König schläft.", "", "Ja."], [], ["Der Bauer."], ["Das Mädchen liest.", "Ja " * 90]]
        found = scorer.score_each(LINES, targets, room=4)
        assert [len(some) for some in found] == [3, 0, 1, 2]
        for line, some, theirs in zip(LINES, targets, found, strict=True):
            for text, score in zip(some, theirs, strict=True):
                if len(text) > 90:
                    assert score.sum == score.mean == -np.inf
                    continue
                alone = scorer.score([line], [text])[0]
                np.testing.assert_allclose(score.sum, alone.sum, rtol=1e-4)
                assert score.tokens == alone.tokens
    assert scorer.score_each([], []) == []
    too_long = scorer.score_each(["word " * 200, LINES[0]], [["Ja."], ["Ja."]])
    assert too_long[0][0].mean == -np.inf < too_long[1][0].mean


def saved(folder, config, vocabularies, seed):
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    folder.mkdir()
    (folder / "config.json").write_text(to_json(config))
    vocabularies.save(folder)
    checkpoint.save(
        checkpoint.at(folder / "checkpoints", 1), {"params": jax.device_get(models.init(network, seed))}, {}
    )


def test_the_teacher_lies_in_the_workdir_or_is_named(tmp_path, vocabularies):
    saved(tmp_path / "student", student(), vocabularies, 0)
    saved(tmp_path / "teacher", autoregressive(), vocabularies, 1)
    with pytest.raises(UserError, match=r"student/teacher: no such folder, but noisy parallel decoding needs"):
        Translator.load(tmp_path / "student", decode="npd")
    named = Translator.load(tmp_path / "student", decode="npd", decoding={"teacher": str(tmp_path / "teacher")})
    (tmp_path / "student" / "teacher").symlink_to(tmp_path / "teacher")
    assert Translator.load(tmp_path / "student", decode="npd").translate(LINES) == named.translate(LINES)
    with pytest.raises(UserError, match="not autoregressive, so it cannot choose"):
        Translator.load(tmp_path / "student", decode="npd", decoding={"teacher": str(tmp_path / "student")})


def test_ways_that_a_model_does_not_offer(vocabularies):
    for config, way, message in (
        (tiny.config(), "npd", "a model trained with ctc without latents; choose greedy or beam"),
        (student("axe"), "beam", "a model trained with axe without latents; choose greedy or npd"),
        (student("ce"), "npd+beam", "a model trained with ce with latents; choose greedy or npd"),
        (autoregressive(), "npd", "does not exist for autoregressive; choose beam or greedy"),
    ):
        with pytest.raises(UserError, match=message):
            Translator(config, vocabularies, None, decode=way)


def test_what_was_tuned_stands_in_for_the_config(tmp_path, vocabularies):
    saved(tmp_path / "student", student(npd_samples=4), vocabularies, 0)
    file = tmp_path / "student" / "decoding.json"
    file.write_text('{"length_bonus": 1.5, "ctc_beam_size": 7}')
    load = Translator.load
    decoding = load(tmp_path / "student").config.decoding
    assert (decoding.length_bonus, decoding.ctc_beam_size, decoding.npd_samples) == (1.5, 7, 4)
    given = load(tmp_path / "student", decode="beam", decoding={"ctc_beam_size": 3})
    assert given.config.decoding.ctc_beam_size == 3
    for text, error, message in (
        ("{", WorkdirError, "decoding.json: not valid JSON; run `natjax tune` again"),
        ('{"alpha": 1}', ConfigError, "unknown field 'alpha'"),
        ('{"ctc_beam_size": "x"}', ConfigError, "'x' is not int"),
        ('{"ctc_beam_size": 0}', ConfigError, "decoding.ctc_beam_size: must be from 1"),
    ):
        file.write_text(text)
        with pytest.raises(error, match=message):
            load(tmp_path / "student")


def test_a_search_wider_than_the_vocabulary_or_the_frames_allow(vocabularies):
    config = tiny.config()
    for fields, message in (
        ({"ctc_top_k": 400}, r"decoding\.ctc_top_k: must be at most \d+ here, .* not 400"),
        (
            {"ctc_top_k": 1, "ctc_beam_size": 300, "max_source_length": 4},
            "300 is wider than decoding.ctc_top_k allows, 256",
        ),
    ):
        narrow = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, **fields))
        with pytest.raises(ConfigError, match=message):
            Translator(narrow, vocabularies, None, decode="beam")
