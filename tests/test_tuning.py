"""Choosing the search's weights: what is tried, and that it is what translating with these weights gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from natjax import models, tuning
from natjax.data.prepare import read_corpus, train_vocabularies
from natjax.evaluation.metrics import score
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
    decoding = dataclasses.replace(tiny.config().decoding, lm_weight=0.29, length_bonus=9.0)
    assert tuning.start(decoding, [20, 5], [0.0, 0.2, 0.3], [0.0, 1.0]) == Point(20, 0.3, 1.0)


class Letters:
    """A language model that likes some tokens and has no memory, as a scorer on the device."""

    def __init__(self, table):
        self.table = table

    def start(self):
        return jnp.int32(0)

    def score(self, state, token):
        return self.table[token], state


jax.tree_util.register_pytree_node(Letters, lambda lm: ((lm.table,), None), lambda _, children: Letters(*children))


@pytest.fixture(scope="module")
def parts():
    config = dataclasses.replace(tiny.config(), decoding=dataclasses.replace(tiny.config().decoding, ctc_top_k=8))
    (sources, targets), _ = read_corpus(config)
    vocabularies = train_vocabularies((sources[:300], targets[:300]), config)
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    params = jax.tree.map(lambda p: p * 3, models.init(network, 0))
    table = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(0), (len(vocabularies.target),)))
    return config, vocabularies, params, Letters(table)


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


def test_what_is_found_is_stored_beside_what_was(tmp_path):
    (tmp_path / "decoding.json").write_text('{"score_eos": true, "lm_weight": 0.9}')
    tuning.store(tmp_path, Point(7, 0.25, 1.5), str(tmp_path / "lm"))
    from natjax.training import workdir

    expected = {"score_eos": True, "ctc_beam_size": 7, "lm_weight": 0.25, "length_bonus": 1.5}
    assert workdir.tuned(tmp_path) == {**expected, "lm": str(tmp_path / "lm")}
    assert np.isclose(workdir.tuned(tmp_path)["lm_weight"], 0.25)
