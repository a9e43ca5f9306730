import jax
import jax.numpy as jnp
import numpy as np
import pytest

from natjax import ctc

GOOD = {
    "logits": np.zeros((2, 5, 4), np.float32),
    "logit_lengths": np.array([5, 0], np.int32),
    "labels": np.array([[1, 3, 2], [-1, 99, 0]], np.int32),
    "label_lengths": np.array([3, 0], np.int32),
}


def changed(name, value, place=None):
    array = np.array(GOOD[name])
    array[place] = value
    return GOOD | {name: array}


def test_what_is_right_passes():
    assert ctc.check(**GOOD) is None
    assert ctc.check(**(GOOD | {"labels": np.array([[1, 0, 2], [0, 0, 0]], np.int32)}), blank_id=3) is None
    assert np.isfinite(ctc.ctc_loss(**GOOD)).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (changed("labels", 0, (0, 1)), r"row 0: labels\[0, 1\] is the blank \(0\)"),
        (changed("labels", -2, (0, 2)), r"row 0: labels\[0, 2\] is -2, outside the vocabulary 0..3"),
        (changed("labels", 4, (0, 0)), r"row 0: labels\[0, 0\] is 4, outside the vocabulary 0..3"),
        (changed("logit_lengths", 6, 1), r"row 1: logit_lengths\[1\] is 6, outside 0..5 \(T = 5\)"),
        (changed("logit_lengths", -1, 0), r"row 0: logit_lengths\[0\] is -1"),
        (changed("label_lengths", 4, 0), r"row 0: label_lengths\[0\] is 4, outside 0..3 \(N = 3\)"),
        (changed("label_lengths", -1, 1), r"row 1: label_lengths\[1\] is -1"),
        (changed("label_lengths", 2, 1), r"row 1: labels\[1, 0\] is -1, outside the vocabulary"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(arguments, words):
    with pytest.raises(ValueError, match=words):
        ctc.check(**arguments)


@pytest.mark.parametrize(
    ("replaced", "error", "words"),
    [
        ({"logits": np.zeros((2, 5), np.float32)}, ValueError, r"logits must have the dimensions \[B, T, V\]"),
        ({"logits": np.zeros((2, 5, 4), np.int32)}, TypeError, "logits must have a floating dtype, got int32"),
        ({"logits": [[[0.0]]]}, TypeError, "logits must be an array"),
        ({"logits": np.zeros((3, 5, 4), np.float32)}, ValueError, "the batch dimensions differ: logits 3, labels 2"),
        ({"labels": np.zeros((2, 3), np.float32)}, TypeError, "labels must have an integer dtype, got float32"),
        ({"labels": np.zeros((3, 3), np.int32)}, ValueError, "the batch dimensions differ"),
        ({"labels": np.zeros(2, np.int32)}, ValueError, r"labels must have the dimensions \[B, N\]"),
        ({"logit_lengths": np.zeros((2, 1), np.int32)}, ValueError, "logit_lengths must have the dimensions"),
        ({"logit_lengths": np.zeros(2, np.float32)}, TypeError, "logit_lengths must have an integer dtype"),
        ({"label_lengths": np.zeros(3, np.int32)}, ValueError, "the batch dimensions differ"),
        ({"blank_id": 4}, ValueError, r"blank_id must lie in 0..3 \(logits have V = 4\), got 4"),
        ({"blank_id": -1}, ValueError, "blank_id must lie in 0..3"),
    ],
)
def test_what_shapes_tell_is_refused_by_loss_and_check_alike(replaced, error, words):
    with pytest.raises(error, match=words):
        ctc.check(**(GOOD | replaced))
    with pytest.raises(error, match=words):
        ctc.ctc_loss(**(GOOD | replaced))


def test_shapes_are_refused_at_trace_time():
    arguments = GOOD | {"labels": np.zeros((3, 3), np.int32)}
    with pytest.raises(ValueError, match="the batch dimensions differ"):
        jax.eval_shape(lambda arrays: ctc.ctc_loss(**arrays), arguments)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"infeasible": "nan"}, ValueError, "infeasible must be one of zero, inf, got 'nan'"),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must lie"),
        ({"implementation": "scan"}, TypeError, "implementation must be a natjax.ctc.Implementation, got 'scan'"),
    ],
)
def test_options_out_of_range_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        ctc.ctc_loss(**GOOD, **options)


def test_paddings_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match=r"logit_paddings must be an array \[B, T\], got list"):
        ctc.from_optax(GOOD["logits"], [[0] * 5] * 2, GOOD["labels"], jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"logit_paddings must have the shape \(2, 5\), got \(2, 4\)"):
        ctc.from_optax(GOOD["logits"], jnp.zeros((2, 4)), GOOD["labels"], jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"label_paddings must have the shape \(2, 3\), got \(2, 5\)"):
        ctc.from_optax(GOOD["logits"], jnp.zeros((2, 5)), GOOD["labels"], jnp.zeros((2, 5)))
