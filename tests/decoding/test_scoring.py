"""Scores of given translations against plain numpy, over vocabularies, shapes and companies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_transformer
import pytest
import tiny
from ctc.ctc_oracle import log_mass, log_softmax

from natjax import models
from natjax.data.corpus import normalise
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.errors import DataError, UserError
from natjax.layers import head as heads
from natjax.translator import Translator

LINES = ["The old farmer sells the horse.", "The king sleeps.", "I know that the girl reads the newspaper.", ""]
OTHERS = ["Der König schläft.", "", "Ich weiß, dass das Mädchen heute die alte Zeitung liest.", "Ja."]


@pytest.fixture(scope="module")
def vocabularies():
    (sources, targets), _ = read_corpus(tiny.config())
    return train_vocabularies((sources[:300], targets[:300]), tiny.config())


def translator(vocabularies, config):
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 2, models.init(network, 5))
    bias = jax.random.normal(jax.random.key(1), params["output_bias"].shape)
    return Translator(config, vocabularies, {**params, "output_bias": bias}), {**params, "output_bias": bias}


def autoregressive(**model):
    made = tiny.config(kind="autoregressive", **model)
    return dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss="ce", target_eos=True))


@pytest.fixture(scope="module")
def teacher(vocabularies):
    return translator(vocabularies, autoregressive())


@pytest.fixture(scope="module")
def student(vocabularies):
    return translator(vocabularies, tiny.config())


def ids(vocabulary, line, *end):
    return [*vocabulary.encode([normalise(line)])[0], *end]


def test_a_model_with_latents_is_scored_at_the_priors_mean(vocabularies):
    config = tiny.config(latents="vae", latent_width=3, posterior_layers=1)
    ours, params = translator(vocabularies, config)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))

    def apply(method, *arguments):
        return network.apply({"params": params}, *arguments, method=method)

    for source, target, found in zip(LINES[:2], OTHERS[:2], ours.score(LINES[:2], OTHERS[:2]), strict=True):
        pieces = ids(vocabularies.source, source, 2)
        lengths, frames = jnp.array([len(pieces)]), 2 * len(pieces)
        memory = apply("encode", jnp.array([pieces]), lengths)
        latent = apply("prior", memory).mean
        given = apply("upsample", memory, lengths, frames, latent)
        head = apply("project", apply("decode", given, jnp.array([frames]), memory, lengths))
        log_probs = log_softmax(np.asarray(heads.logits(head), np.float64)[0])
        np.testing.assert_allclose(found.sum, log_mass(log_probs, ids(vocabularies.target, target)), rtol=1e-4)
        without = apply("upsample", memory, lengths, frames)
        assert float(jnp.abs(given - without).max()) > 1e-3


@pytest.mark.parametrize("model", [{}, {"norm": "post", "positions": "learned", "max_positions": 96}])
def test_teacher_forcing_equals_plain_numpy(vocabularies, model):
    config = autoregressive(**model)
    ours, params = translator(vocabularies, config)
    for source, target, found in zip(LINES, OTHERS, ours.score(LINES, OTHERS), strict=True):
        tokens = ids(vocabularies.target, target, 2)
        expected = plain_transformer.log_probs(params, config.model, ids(vocabularies.source, source, 2), tokens)
        assert found.sum == pytest.approx(expected.sum(), rel=1e-5)
        assert found.mean == pytest.approx(expected.mean(), rel=1e-5)
        assert found.tokens == len(tokens)


def test_bfloat16_is_near(vocabularies, teacher):
    half, _ = translator(vocabularies, autoregressive(dtype="bfloat16"))
    whole = np.array([s.mean for s in teacher[0].score(LINES, OTHERS)])
    halves = np.array([s.mean for s in half.score(LINES, OTHERS)])
    assert 0 < np.abs(halves / whole - 1).max() < 0.02


def alignments(ours, params, source, target):
    """log p(target) by the oracle, from all logits."""
    config, vocabularies = ours.config, ours.vocabularies
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    row = jnp.array([ids(vocabularies.source, source, 2)], jnp.int32)

    @jax.jit
    def logits(row):
        return heads.logits(network.apply({"params": params}, row, jnp.array([row.shape[1]]), 2 * row.shape[1]))

    return log_mass(log_softmax(logits(row))[0], target)


def test_ctc_sums_all_alignments(vocabularies, student):
    ours, params = student
    # A repeated piece needs a blank in between; the empty pair has two frames, room for two pieces but not for equals.
    targets = ["Der König.", "", OTHERS[2], ""]
    for source, target, found in zip(LINES, targets, ours.score(LINES, targets), strict=True):
        tokens = ids(vocabularies.target, target)
        assert found.sum == pytest.approx(alignments(ours, params, source, tokens), rel=1e-5)
        assert found.tokens == len(tokens)
        assert found.mean == pytest.approx(found.sum / max(len(tokens), 1), rel=1e-6)


def test_ctc_with_eos_in_its_targets(vocabularies):
    made = tiny.config()
    made = dataclasses.replace(made, objective=dataclasses.replace(made.objective, target_eos=True))
    ours, params = translator(vocabularies, made)
    (found,) = ours.score(LINES[:1], OTHERS[:1])
    tokens = ids(vocabularies.target, OTHERS[0], 2)
    assert found.sum == pytest.approx(alignments(ours, params, LINES[0], tokens), rel=1e-5)
    assert found.tokens == len(tokens)


def test_what_the_frames_cannot_hold_is_impossible(student):
    long = " ".join([OTHERS[2]] * 9)
    for target in ("Der König schläft.", long):
        (found,) = student[0].score(["Ja"], [target])
        assert found.sum == found.mean == -np.inf
        assert found.tokens == len(ids(student[0].vocabularies.target, target))


def test_company_and_order_change_nothing(teacher, student):
    generator = np.random.default_rng(0)
    picks = [(LINES[i], OTHERS[j]) for i, j in generator.integers(0, 4, (50, 2))]
    for ours, _ in (teacher, student):
        together = ours.score(*zip(*picks, strict=True))
        alone = {pair: ours.score([pair[0]], [pair[1]])[0] for pair in set(picks)}
        expected = [alone[pair].sum for pair in picks]
        np.testing.assert_allclose([score.sum for score in together], expected, rtol=1e-5)
        assert [score.tokens for score in together] == [alone[pair].tokens for pair in picks]
    assert teacher[0].score([], []) == []


def test_a_long_target_of_a_short_source_is_scored(teacher):
    ours, params = teacher
    target = " ".join([OTHERS[2]] * 3)
    tokens = ids(ours.vocabularies.target, target, 2)
    assert len(tokens) > ours.config.decoding.max_source_length
    (found,) = ours.score(["Ja"], [target])
    source = ids(ours.vocabularies.source, "Ja", 2)
    assert found.sum == pytest.approx(
        plain_transformer.log_probs(params, ours.config.model, source, tokens).sum(), rel=1e-5
    )


def test_over_long_lines_are_named_before_anything_is_scored(teacher, student, monkeypatch):
    long = " ".join(LINES[:3] * 5)
    with pytest.raises(DataError, match=r"^line 2 \(and 1 more lines\): a source of \d+ pieces.*allows 32 "):
        teacher[0].score(["Ja", long, long], ["Ja"] * 3)
    with pytest.raises(DataError, match=r"^line 3: a target of \d+ pieces.*allows 80 "):
        teacher[0].score(["Ja"] * 3, ["Ja", "Ja", long])
    with pytest.raises(DataError, match=r"^line 1: a source"):
        student[0].score([long], ["Ja"])


def test_calls_that_make_no_sense(teacher):
    for sides in (("a", ["b"]), (["a"], b"b")):
        with pytest.raises(TypeError, match="single string"):
            teacher[0].score(*sides)
    with pytest.raises(ValueError, match="1 targets for 2 sources"):
        teacher[0].score(["a", "b"], ["c"])


@pytest.mark.parametrize("loss", ["ce", "axe"])
def test_lengths_that_are_predicted_apart_give_no_probability(vocabularies, loss):
    made = tiny.config()
    made = dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss=loss))
    vanilla, _ = translator(vocabularies, made)
    with pytest.raises(UserError, match=f"trained with {loss} gives translations no probability"):
        vanilla.score(["a"], ["b"])
