"""The contract of ctc_loss: values and gradients against enumeration, differences, a second formulation and peers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ctc_cases import loss as loss_by
from ctc_cases import loss_and_vjp, rows
from ctc_oracle import all_targets, log_mass, log_softmax, loss_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc

# Enumeration


@pytest.mark.parametrize(("vocabulary", "blank", "infeasible"), [(4, 0, "zero"), (3, 2, "inf"), (2, 1, "zero")])
def test_equals_the_sum_over_all_paths(implementation, vocabulary, blank, infeasible):
    tokens = [token for token in range(vocabulary) if token != blank]
    targets = [target for n in range(6) for target in itertools.product(tokens, repeat=n)]
    # Every target against every number of frames: far too many, exactly enough, and each number too few.
    cases = [(target, frames) for frames in range(7) for target in targets]
    logits = np.random.default_rng(vocabulary).normal(size=(6, vocabulary), scale=2.0).astype(np.float32)
    labels = np.full((len(cases), 5), blank, np.int32)
    for row, (target, _) in enumerate(cases):
        labels[row, : len(target)] = target
    losses, gradients = loss_and_vjp(
        jnp.broadcast_to(logits, (len(cases), *logits.shape)),
        jnp.array([frames for _, frames in cases], jnp.int32),
        jnp.asarray(labels),
        jnp.array([len(target) for target, _ in cases], jnp.int32),
        blank_id=blank,
        infeasible=infeasible,
        implementation=implementation,
    )
    expected = [all_targets(logits[:frames], blank) for frames in range(7)]
    seen = set()
    for (target, frames), loss, gradient in zip(cases, losses, gradients):
        assert (gradient[frames:] == 0).all()
        seen.add(target in expected[frames])
        if target in expected[frames]:
            np.testing.assert_allclose(loss, expected[frames][target][0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(gradient[:frames], expected[frames][target][1], atol=1e-5)
        else:
            assert loss == (0 if infeasible == "zero" else np.inf)
            assert (gradient == 0).all()
    assert seen == {True, False}


@pytest.mark.parametrize("target", [(2, 2), (1, 2, 1), (1, 1, 1), (3, 1, 2, 3), (1, 2, 2, 1)])
def test_exactly_enough_frames_and_one_too_few(implementation, target):
    needed = len(target) + sum(a == b for a, b in itertools.pairwise(target))
    logits = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    args = jnp.array([target + (0,) * (4 - len(target))] * 2, jnp.int32), jnp.full(2, len(target), jnp.int32)
    lengths = jnp.array([needed, needed - 1], jnp.int32)
    both = jnp.broadcast_to(logits, (2, *logits.shape))
    losses, gradients = loss_and_vjp(both, lengths, *args, implementation=implementation)
    loss, gradient = all_targets(logits[:needed])[target]
    np.testing.assert_allclose(losses, [loss, 0], rtol=1e-5)
    np.testing.assert_allclose(gradients[0, :needed], gradient, atol=1e-5)
    assert (gradients[1] == 0).all()
    assert ctc.is_feasible(*args, lengths).tolist() == [True, False]


# A second formulation, on random rows


@pytest.fixture(scope="module")
def one_row():
    @jax.jit
    def run(logits, frames, labels, size):
        return jax.value_and_grad(
            lambda z: ctc.ctc_loss(z[None], frames[None], labels[None], size[None], infeasible="inf")[0]
        )(logits)

    return run


@st.composite
def cases(draw):
    frames, size = draw(st.integers(0, 8)), draw(st.integers(0, 5))
    # Few distinct tokens: neighbours repeat, first and last coincide.
    labels = draw(st.lists(st.integers(1, draw(st.integers(1, 4))), min_size=5, max_size=5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = random.normal(size=(8, 5), scale=draw(st.sampled_from([0.1, 1.0, 5.0, 30.0])))
    impossible = random.random((8, 5)) < draw(st.sampled_from([0.0, 0.0, 0.2, 0.5]))
    # One token a frame stays possible; test_a_frame_without_any_token has the frames where none is.
    impossible[np.arange(8), random.integers(0, 5, 8)] = False
    return np.where(impossible, -np.inf, logits).astype(np.float32), frames, np.array(labels, np.int32), size


def check_row(run, case):
    logits, frames, labels, size = case
    loss, gradient = run(jnp.asarray(logits), jnp.int32(frames), jnp.asarray(labels), jnp.int32(size))
    expected_loss, expected_gradient = loss_and_gradient(logits[:frames], tuple(labels[:size].tolist()))
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(gradient[:frames], expected_gradient, atol=2e-5)
    assert (np.asarray(gradient)[frames:] == 0).all()


@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_random_rows(one_row, case):
    check_row(one_row, case)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(case=cases())
def test_many_random_rows(one_row, case):
    check_row(one_row, case)


def test_long_rows_stay_accurate(implementation):
    frames, size, vocabulary = 400, 150, 64
    logits, _, labels, _ = rows(3, 2, frames, size, vocabulary)
    lengths = jnp.array([400, 333], jnp.int32), jnp.array([150, 77], jnp.int32)
    losses, gradients = loss_and_vjp(logits, lengths[0], labels, lengths[1], implementation=implementation)
    for row in range(2):
        frames, size = int(lengths[0][row]), int(lengths[1][row])
        log_prob = log_softmax(np.asarray(logits[row, :frames]))
        target = tuple(np.asarray(labels[row, :size]).tolist())
        np.testing.assert_allclose(losses[row], -log_mass(log_prob, target), rtol=1e-5)
        # The chance of a blank at the middle frame, from the same mass with all else forbidden there.
        forced = log_prob.copy()
        forced[frames // 2, 1:] = -np.inf
        blank = np.exp(log_mass(forced, target) - log_mass(log_prob, target))
        slope = np.exp(log_prob[frames // 2, 0]) - blank
        np.testing.assert_allclose(gradients[row, frames // 2, 0], slope, atol=1e-3)


# Differences


def test_gradient_equals_finite_differences_in_float64(implementation):
    with jax.enable_x64(True):
        logits, logit_lengths, labels, label_lengths = rows(5, 6, 5, 3, 4)
        logits = logits.astype(jnp.float64)
        weights = jnp.array([1.0, -2.0, 0.5, 0.0, 3.0, 1.5], jnp.float64)

        @jax.jit
        def total(logits):
            losses = loss_by(
                logits,
                logit_lengths,
                labels,
                label_lengths,
                label_smoothing=0.2,
                implementation=implementation,
            )
            assert losses.dtype == jnp.float64
            return jnp.vdot(weights, losses)

        step, places = 1e-6, jnp.eye(logits.size, dtype=jnp.float64).reshape(-1, *logits.shape)
        totals = jax.jit(jax.vmap(lambda place: total(logits + place)))
        slopes = (totals(step * places) - totals(-step * places)) / (2 * step)
        gradient = jax.grad(total)(logits)
        assert gradient.dtype == jnp.float64
        np.testing.assert_allclose(gradient, slopes.reshape(logits.shape), atol=1e-8)


# Peers


@jax.jit
def optax_loss_and_vjp(logits, logit_paddings, labels, label_paddings, weights):
    losses, vjp = jax.vjp(lambda z: optax.losses.ctc_loss(z, logit_paddings, labels, label_paddings), logits)
    return losses, vjp(weights)[0]


def test_equals_optax_where_a_path_exists(implementation):
    logits, logit_lengths, labels, label_lengths = batch = rows(11, 8, 37, 13, 29, feasible=True)
    logit_paddings = (jnp.arange(37)[None] >= logit_lengths[:, None]).astype(jnp.float32)
    label_paddings = (jnp.arange(13)[None] >= label_lengths[:, None]).astype(jnp.float32)
    weights = jnp.linspace(-1.0, 2.0, 8, dtype=jnp.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        peer_losses, peer_gradients = optax_loss_and_vjp(logits, logit_paddings, labels, label_paddings, weights)
    losses, gradients = loss_and_vjp(*batch, weights=weights, implementation=implementation)
    np.testing.assert_allclose(losses, peer_losses, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradients, peer_gradients, atol=1e-4)
    adapted = jax.jit(ctc.from_optax)
    np.testing.assert_allclose(
        adapted(logits, logit_paddings, labels, label_paddings), peer_losses, rtol=1e-5, atol=1e-4
    )


def test_equals_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: oracle)")
    logits, logit_lengths, labels, label_lengths = rows(12, 8, 37, 13, 29)
    losses, gradients = loss_and_vjp(logits, logit_lengths, labels, label_lengths)
    z = torch.tensor(np.asarray(logits), requires_grad=True)
    peer = torch.nn.functional.ctc_loss(
        z.log_softmax(-1).transpose(0, 1),
        torch.tensor(np.asarray(labels)),
        torch.tensor(np.asarray(logit_lengths)),
        torch.tensor(np.asarray(label_lengths)),
        reduction="none",
        zero_infinity=True,
    )
    peer.sum().backward()
    np.testing.assert_allclose(losses, peer.detach().numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradients, z.grad.numpy(), atol=1e-4)


# Label smoothing


@pytest.mark.parametrize("epsilon", [0.1, 0.9])
def test_label_smoothing_is_the_documented_formula(implementation, epsilon):
    logits, logit_lengths, labels, label_lengths = batch = rows(21, 8, 37, 13, 29)
    losses, gradients = loss_and_vjp(*batch, label_smoothing=epsilon, implementation=implementation)
    feasible = np.asarray(ctc.is_feasible(labels, label_lengths, logit_lengths))
    assert not feasible.all() and feasible.any()
    for row in np.flatnonzero(feasible):
        frames, size = int(logit_lengths[row]), int(label_lengths[row])
        real = np.asarray(logits[row, :frames])
        log_prob = log_softmax(real)
        loss, slope = loss_and_gradient(real, tuple(labels[row, :size].tolist()))
        uniform = -(size / max(frames, 1)) * log_prob.mean(-1).sum()
        np.testing.assert_allclose(losses[row], (1 - epsilon) * loss + epsilon * uniform, rtol=1e-5, atol=1e-5)
        slope = (1 - epsilon) * slope + epsilon * size / max(frames, 1) * (np.exp(log_prob) - 1 / 29)
        np.testing.assert_allclose(gradients[row, :frames], slope, atol=1e-5)
    assert (losses[~feasible] == 0).all() and (gradients[~feasible] == 0).all()


# bfloat16


def test_bfloat16_logits_are_computed_in_float32(implementation):
    logits, *rest = rows(31, 8, 37, 13, 29, feasible=True)
    options = {"label_smoothing": 0.1, "implementation": implementation}
    half = logits.astype(jnp.bfloat16)
    losses, gradients = loss_and_vjp(half, *rest, **options)
    full_losses, full_gradients = loss_and_vjp(half.astype(jnp.float32), *rest, **options)
    assert losses.dtype == np.float32 and gradients.dtype == jnp.bfloat16
    np.testing.assert_allclose(losses, full_losses, rtol=1e-6)
    # Half a unit in the last place of bfloat16: the gradient is rounded once, at the very end.
    np.testing.assert_allclose(gradients.astype(np.float32), full_gradients, rtol=2.0**-8, atol=1e-6)
