"""Choosing the search's weights: what is tried, and that it is what translating with these weights gives."""

import dataclasses

import jax
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from natjax import models, tuning
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.errors import ConfigError
from natjax.evaluation.metrics import score
from natjax.training import tuned
from natjax.translator import Translator
from natjax.tuning import Point

LINES = ["The old farmer sells the horse.", "", "The king sleeps.", "I know that the girl reads the newspaper.",
         *["A dog runs.", "The very clever boy often feeds the dog here."] * 4]  # fmt: skip
REFERENCES = [[line.lower()] for line in LINES]


def test_a_grid_holds_every_combination_once():
    points = tuning.grid([5, 20], [0.0, 0.5], [1.0, 2.0, 3.0])
    assert len(points) == len(set(points)) == 12
    assert Point(20, 0.5, 3.0) in points


values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=5, unique=True)


@given(values, values, st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True), st.data())
def test_coordinates_end_where_no_line_is_better(alphas, betas, beams, data):
    grid = tuning.grid(beams, alphas, betas)
    scores = dict(zip(grid, data.draw(st.lists(st.integers(0, 9), min_size=len(grid), max_size=len(grid)))))
    start = data.draw(st.sampled_from(grid))
    seen = []
    for point in tuning.coordinates(lambda p: scores[p] if p in seen else pytest.fail(), beams, alphas, betas, start):
        assert point not in seen and point in scores
        seen.append(point)
    best = max(seen, key=scores.get)
    assert seen[0] == start and scores[best] >= scores[start]
    for other in grid:
        differs = sum(getattr(best, f.name) != getattr(other, f.name) for f in dataclasses.fields(Point))
        assert differs > 1 or scores[other] <= scores[best]


def test_a_start_is_the_point_nearest_to_the_config():
    decoding = dataclasses.replace(tiny.config().decoding, lm_weight=0.29, length_bonus=9.0, ctc_beam_size=6)
    assert tuning.start(decoding, [20, 5, 1], [0.0, 0.2, 0.3], [0.0, 1.0]) == Point(5, 0.3, 1.0)


@pytest.fixture(scope="module")
def parts():
    config = dataclasses.replace(tiny.config(), decoding=dataclasses.replace(tiny.config().decoding, ctc_top_k=8))
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    table = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(0), (len(vocabularies.target),)))
    return config, vocabularies, params, tiny.Letters(table)


def test_a_point_scores_what_translating_with_its_weights_gives(parts):
    config, vocabularies, params, lm = parts
    tuner = tuning.Tuner(Translator(config, vocabularies, params), lm, LINES, REFERENCES)
    found = set()
    for point in (Point(4, 0.0, 0.0), Point(4, 0.7, 0.0), Point(4, 0.7, 2.0), Point(2, 0.7, 2.0)):
        decoding = dataclasses.replace(config.decoding, **dataclasses.asdict(point))
        there = Translator(dataclasses.replace(config, decoding=decoding), vocabularies, params, decode="beam", lm=lm)
        texts = there.translate(LINES)
        assert tuner.score(point).scores == score(texts, REFERENCES)
        found.add(tuple(texts))
    assert len(found) >= 3
    assert tuner.programs == 2 * len({batch.results[0].blank.shape for batch in tuner._batches})


def test_a_heat_map_is_a_picture():
    pytest.importorskip("matplotlib")
    scores = score(["a b c d"], [["a b c d"]])
    assert tuning.heat_map([tuning.Tried(p, scores) for p in tuning.grid([5], [0.0, 0.5], [1.0, 2.0])[:3]]).startswith(
        b"\x89PNG"
    )


def test_all_that_the_search_was_compiled_with_is_stored(tmp_path, parts):
    config, vocabularies, params, lm = parts
    (tmp_path / "decoding.json").write_text('{"blank_penalty": 0.5, "lm_weight": 0.9}')
    decoding = dataclasses.replace(config.decoding, length_bonus_form="log", score_eos=True, lm=str(tmp_path / "lm"))
    translator = Translator(dataclasses.replace(config, decoding=decoding), vocabularies, params)
    won = tuning.Tried(Point(7, 0.25, 1.5), score(["a b c d e"], [["a b c d f"]]))
    tuning.store(tmp_path, won, tuning.Opened(translator, lm, "abc"), {"source": "valid.en"})
    found = tuned.read(tmp_path)
    assert found.fields == {
        "blank_penalty": 0.5, "ctc_beam_size": 7, "lm_weight": 0.25, "length_bonus": 1.5, "ctc_top_k": 8,
        "length_bonus_form": "log", "score_eos": True, "lm": str(tmp_path / "lm"),
    }  # fmt: skip
    assert found.about == {"lm": "abc", "bleu": won.scores.bleu, "bleu_signature": won.scores.bleu_signature,
                           "source": "valid.en"}  # fmt: skip


def test_a_weight_without_a_language_model_is_no_point(parts):
    config, vocabularies, params, _ = parts
    tuner = tuning.Tuner(Translator(config, vocabularies, params), None, LINES[:2], REFERENCES[:2])
    with pytest.raises(ConfigError, match="no language model was given"):
        tuner.score(Point(4, 0.5, 0.0))


def test_tuning_draws_the_latents_that_translating_draws():
    config = tiny.config(latents="vae", latent_width=3, posterior_layers=1)
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, ctc_top_k=8, ctc_beam_size=4))
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    found = []
    for temperature in (0.0, 3.0):
        decoding = dataclasses.replace(config.decoding, latent_temperature=temperature)
        drawn = dataclasses.replace(config, decoding=decoding)
        texts = Translator(drawn, vocabularies, params, decode="beam").translate(LINES)
        tuner = tuning.Tuner(Translator(drawn, vocabularies, params), None, LINES, REFERENCES)
        assert tuner.score(Point(4, 0.0, 0.0)).scores == score(texts, REFERENCES)
        found.append(texts)
    assert found[0] != found[1]
