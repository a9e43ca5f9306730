import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_oracle import collapse as collapse_by_groupby
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc

collapse = jax.jit(ctc.collapse, static_argnames="blank_id")


@settings(max_examples=300, deadline=None)
@given(data=st.data(), blank=st.sampled_from([0, 2]))
def test_equals_groupby(data, blank):
    row = st.lists(st.integers(0, 3), min_size=9, max_size=9)
    frames = np.array(data.draw(st.lists(row, min_size=3, max_size=3)), np.int32)
    lengths = np.array(data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)), np.int32)
    tokens, counts = collapse(frames, lengths, blank_id=blank)
    assert tokens.shape == (3, 9) and tokens.dtype == counts.dtype == jnp.int32
    for row in range(3):
        expected = collapse_by_groupby(frames[row, : lengths[row]], blank)
        assert counts[row] == len(expected)
        assert tokens[row].tolist() == [*expected, *[0] * (9 - len(expected))]


def test_under_vmap_and_for_other_integers():
    frames = jnp.array([[[1, 1, 0, 1]], [[0, 2, 2, 3]]], jnp.uint8)
    tokens, lengths = jax.vmap(ctc.collapse)(frames, jnp.array([[4], [3]], jnp.int16))
    assert tokens.tolist() == [[[1, 1, 0, 0]], [[2, 0, 0, 0]]]
    assert lengths.tolist() == [[2], [1]]


def test_no_frames_at_all():
    tokens, lengths = ctc.collapse(jnp.zeros((2, 0), jnp.int32), jnp.zeros(2, jnp.int32))
    assert tokens.shape == (2, 0) and lengths.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("frames", "lengths", "error", "words"),
    [
        (jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), TypeError, "frames must have an integer dtype"),
        (jnp.zeros(3, jnp.int32), jnp.zeros(2, jnp.int32), ValueError, r"frames must have the dimensions \[B, T\]"),
        (jnp.zeros((2, 3), jnp.int32), jnp.zeros(3, jnp.int32), ValueError, "batch dimensions differ: frames 2"),
    ],
)
def test_wrong_shapes_are_refused(frames, lengths, error, words):
    with pytest.raises(error, match=words):
        ctc.collapse(frames, lengths)


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(st.integers(1, 2), max_size=6), frames=st.integers(0, 12))
def test_feasible_is_what_some_path_spells(labels, frames):
    # The shortest path that spells the labels: a blank between equal neighbours and nowhere else.
    shortest = []
    for label in labels:
        shortest += [0, label] if shortest and shortest[-1] == label else [label]
    assert list(collapse_by_groupby(shortest)) == labels
    padded = jnp.array([labels + [1] * (6 - len(labels))], jnp.int32)
    feasible = ctc.is_feasible(padded, jnp.array([len(labels)]), jnp.array([frames]))
    assert feasible.shape == (1,) and feasible.dtype == bool
    assert bool(feasible[0]) == (len(shortest) <= frames)


def test_feasibility_of_small_integers():
    lengths = jnp.array([100], jnp.int8)
    labels = jnp.pad(jnp.arange(1, 101, dtype=jnp.int32), (0, 100))[None]  # 200 columns: more than int8 counts
    assert ctc.is_feasible(labels, lengths, lengths).tolist() == [True]
    assert ctc.is_feasible(labels, lengths, lengths - 1).tolist() == [False]
    assert ctc.is_feasible(labels, jnp.zeros(1, jnp.int8), jnp.zeros(1, jnp.int8)).tolist() == [True]
