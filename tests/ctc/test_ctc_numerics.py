"""The table of cases at the head of the loss, line by line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import loss, loss_and_vjp, rows
from ctc_oracle import all_targets, loss_and_gradient

from natjax.ctc import _lattice

BOTH = pytest.mark.parametrize(("infeasible", "cost"), [("zero", 0.0), ("inf", np.inf)])


def single(logits, target, frames=None, **options):
    logits = jnp.asarray(np.asarray(logits, np.float32))[None]
    labels = jnp.array([[*target, *[0] * (3 - len(target))]], jnp.int32)
    frames = logits.shape[1] if frames is None else frames
    lengths = jnp.array([frames], jnp.int32), jnp.array([len(target)], jnp.int32)
    losses, gradients = loss_and_vjp(logits, lengths[0], labels, lengths[1], **options)
    return losses[0], gradients[0]


def table():
    return np.random.default_rng(1).normal(size=(4, 4))


def test_empty_target_is_all_blanks(implementation):
    loss, gradient = single(table(), (), implementation=implementation)
    expected = all_targets(table())[()]
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_arrays_without_frames(implementation, label_smoothing):
    labels, nothing = jnp.array([[1, 2], [0, 0]], jnp.int32), jnp.zeros(2, jnp.int32)
    options = {"label_smoothing": label_smoothing, "implementation": implementation}
    losses, gradients = loss_and_vjp(jnp.zeros((2, 0, 4)), nothing, labels, jnp.array([2, 0]), **options)
    assert losses.tolist() == [0, 0] and gradients.shape == (2, 0, 4)


def test_arrays_without_room_for_labels_or_frames(implementation):
    no_labels = jnp.zeros((2, 0), jnp.int32)
    losses, gradients = loss_and_vjp(
        jnp.zeros((2, 3, 4)), jnp.array([3, 0]), no_labels, jnp.zeros(2, jnp.int32), implementation=implementation
    )
    np.testing.assert_allclose(losses, [3 * np.log(4), 0], rtol=1e-6)
    np.testing.assert_allclose(gradients[0], np.tile([-0.75, 0.25, 0.25, 0.25], (3, 1)), rtol=1e-6)
    assert (gradients[1] == 0).all()
    losses, gradients = loss_and_vjp(
        jnp.zeros((1, 0, 4)), jnp.array([0]), no_labels[:1], jnp.array([0]), implementation=implementation
    )
    assert losses.tolist() == [0] and gradients.shape == (1, 0, 4)


@BOTH
def test_no_frames(implementation, infeasible, cost):
    options = {"infeasible": infeasible, "implementation": implementation, "label_smoothing": 0.1}
    loss, gradient = single(table(), (), frames=0, **options)
    assert loss == 0 and (gradient == 0).all()
    loss, gradient = single(table(), (2,), frames=0, **options)
    assert loss == cost and (gradient == 0).all()


@BOTH
def test_too_few_frames_cost_nothing_or_infinity_whatever_the_logits_hold(implementation, infeasible, cost):
    for junk in (0.0, np.nan, np.inf, -np.inf):
        logits = table()
        logits[1, 2] = junk
        loss, gradient = single(logits, (2, 2, 1), frames=3, infeasible=infeasible, implementation=implementation)
        assert loss == cost and (gradient == 0).all()


def test_some_impossible_tokens(of_logits):
    logits = table()
    logits[0, 0] = logits[2, 1] = logits[3, 3] = -np.inf
    for target in ((1,), (1, 2), (3, 2, 1)):
        loss, gradient = single(logits, target, implementation=of_logits)
        expected = loss_and_gradient(logits, target)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, expected[1], atol=1e-6)
        assert (gradient[np.isneginf(logits)] == 0).all()


@BOTH
def test_no_path_left_among_impossible_tokens(of_logits, infeasible, cost):
    logits = table()
    logits[:, 2] = -np.inf
    loss, gradient = single(logits, (1, 2), infeasible=infeasible, implementation=of_logits)
    assert loss == cost and (gradient == 0).all()


@BOTH
def test_a_frame_without_any_token(of_logits, infeasible, cost):
    logits = table()
    logits[1] = -np.inf
    loss, gradient = single(logits, (1, 2), infeasible=infeasible, implementation=of_logits)
    assert loss == cost and (gradient == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("token", [0, 1, 3])
def test_nan_and_plus_infinity_are_seen_in_their_row_alone(implementation, bad, token):
    logits, *_ = rows(61, 3, 4, 2, 4)
    logits = logits.at[1, 2, token].set(bad)
    lengths, labels = jnp.full(3, 4, jnp.int32), jnp.array([[1, 2]] * 3, jnp.int32)
    sizes = jnp.full(3, 2, jnp.int32)
    losses, gradients = loss_and_vjp(logits, lengths, labels, sizes, implementation=implementation)
    assert np.isnan(losses).tolist() == [False, True, False]
    assert np.isnan(gradients).any((1, 2)).tolist() == [False, True, False]


def test_an_id_outside_the_vocabulary_is_seen(implementation):
    for wrong in (-1, -4, 4, 1000):
        assert np.isnan(single(table(), (1, wrong), implementation=implementation)[0])


def test_label_smoothing_of_an_impossible_token_is_infinite_with_a_finite_gradient(of_logits):
    logits = table()
    logits[2, 3] = -np.inf
    options = {"label_smoothing": 0.1, "implementation": of_logits}
    loss, gradient = single(logits, (1, 2), **options)
    assert loss == np.inf and np.isfinite(gradient).all()
    loss, gradient = single(logits, (), **options)
    np.testing.assert_allclose(loss, 0.9 * loss_and_gradient(logits, ())[0], rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_certainty_never_costs_less_than_nothing(of_logits):
    random = np.random.default_rng(62)
    logits = random.normal(size=(500, 6, 3)).astype(np.float32)
    logits[:, :, 1] += random.uniform(10, 40, (500, 1))
    # The three paths of this row round to a sum of more than 1.
    logits[0, :2] = [0.0, 17.0, -np.inf]
    args = jnp.full(500, 6, jnp.int32).at[0].set(2), jnp.ones((500, 1), jnp.int32), jnp.ones(500, jnp.int32)
    losses, gradients = loss_and_vjp(jnp.asarray(logits), *args, implementation=of_logits)
    assert (losses >= 0).all() and losses.max() < 1e-2
    assert np.isfinite(gradients).all()
    assert losses[0] == 0


def test_large_logits_do_not_overflow(implementation):
    logits = table() * 1e4
    loss, gradient = single(logits, (1, 2), implementation=implementation)
    expected = loss_and_gradient(logits.astype(np.float32), (1, 2))
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-5)


def test_a_second_derivative_is_refused_in_words(implementation):
    lengths, labels = jnp.array([3]), jnp.array([[1]])

    def total(logits):
        return loss(logits, lengths, labels, jnp.array([1]), implementation=implementation).sum()

    logits = jnp.zeros((1, 3, 4))
    with pytest.raises(NotImplementedError, match="first derivative only"):
        jax.make_jaxpr(jax.grad(lambda z: jax.grad(total)(z)[0, 0, 0]))(logits)
    with pytest.raises(NotImplementedError, match="first derivative only"):
        jax.make_jaxpr(jax.hessian(total))(logits)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(total, (logits,), (logits,))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere there is no fast path")
def test_the_fast_path_of_the_normaliser_is_as_exact_and_blind_to_company():
    assert jax.device_count() == 1, "with more devices there is no fast path to test"
    offsets = np.array([-1e4, -200, -60, -40, 0, 40, 79, 85, 200, 1e4], np.float32)
    logits = np.random.default_rng(63).normal(size=(len(offsets), 3000)).astype(np.float32) * 3 + offsets[:, None]
    logits[4, 7], logits[3, 1:] = -np.inf, -np.inf
    expected = logits.astype(np.float64)
    peak = expected.max(axis=1)
    expected = peak + np.log(np.exp(expected - peak[:, None]).sum(axis=1))
    normaliser = jax.jit(_lattice.log_normaliser)
    together = np.asarray(normaliser(logits))
    np.testing.assert_allclose(together, expected, rtol=3e-7, atol=1e-6)
    bias = np.random.default_rng(64).normal(size=3000).astype(np.float32)
    np.testing.assert_array_equal(normaliser(logits, bias), normaliser(logits + bias))
    # The row of 0 takes the fast path with and without rows beside it that cannot.
    company = np.broadcast_to(logits[4], logits.shape)
    assert together[4] == np.asarray(normaliser(company))[4]
    assert np.isneginf(normaliser(np.full((1, 5), -np.inf, np.float32)))[0]
    for bad in (np.inf, np.nan):
        assert np.isnan(normaliser(np.array([[0.0, bad], [0.0, 0.0]], np.float32))).tolist() == [True, False]
