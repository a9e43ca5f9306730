"""Losses of hidden states against ctc_loss of their logits, with true kernels, weights and cotangents."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import rows
from ctc_devices import run_on_two

from natjax import ctc
from natjax.ctc import Implementation, _head, _linear
from natjax.typing import Head

B, T, N, D, V = 7, 11, 4, 6, 53


@pytest.fixture(params=[Implementation.SENTENCES, Implementation.BLOCKS], ids=lambda member: member.value)
def of_hidden(request):
    """The implementations that are given hidden states and a kernel."""
    return request.param


def problem(seed, dtype=jnp.float32):
    """hidden, kernel, bias, (logit_lengths, labels, label_lengths), weights with zeros among them."""
    random = np.random.default_rng(seed)
    hidden, kernel, bias = (random.normal(size=size) for size in ((B, T, D), (D, V), (V,)))
    _, *lengths = rows(seed, B, T, N, V, feasible=True)
    lengths[0] = lengths[0].at[3].set(0)  # infeasible, unless its target is empty
    weights = jnp.asarray(random.normal(size=B) * (random.random(B) < 0.7), dtype)
    return *(jnp.asarray(array, dtype) for array in (hidden, kernel, bias)), lengths, weights


def reference(hidden, kernel, bias, lengths, weights, **options):
    """Σ weights · loss by way of all the logits."""
    logits = jnp.einsum("btd,dv->btv", hidden, kernel, preferred_element_type=kernel.dtype)
    if bias is not None:
        logits = logits + bias[None, None]
    losses = ctc.ctc_loss(logits, *lengths, **options)
    return jnp.sum(jnp.where(weights == 0, 0.0, weights * losses)), losses


def by_loss(hidden, kernel, bias, lengths, weights, **options):
    losses = ctc.linear_ctc_loss(hidden, kernel, *lengths, bias=bias, **options)
    return jnp.sum(jnp.where(weights == 0, 0.0, weights * losses)), losses


def by_objective(hidden, kernel, bias, lengths, weights, **options):
    return ctc.linear_ctc_objective(hidden, kernel, *lengths, weights=weights, bias=bias, **options)


@pytest.mark.parametrize("function", [by_loss, by_objective])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_equals_the_loss_of_the_logits_in_float64(of_hidden, function, with_bias, label_smoothing):
    with jax.enable_x64(True):
        hidden, kernel, bias, lengths, weights = problem(81, jnp.float64)
        arguments = hidden, kernel, bias if with_bias else None
        places = (0, 1, 2) if with_bias else (0, 1)

        def differentiated(function, **options):
            objective = partial(function, lengths=lengths, weights=weights, label_smoothing=label_smoothing, **options)
            # Through a further factor, so that the cotangent of the total is not 1.
            scaled = lambda *args: (lambda total, losses: (-2.5 * total, losses))(*objective(*args))  # noqa: E731
            return jax.jit(jax.value_and_grad(scaled, argnums=places, has_aux=True))(*arguments)

        (total, losses), gradients = differentiated(function, implementation=of_hidden)
        (expected_total, expected_losses), expected = differentiated(reference)
        np.testing.assert_allclose(total, expected_total, rtol=1e-10)
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
        for gradient, other in zip(gradients, expected):
            assert np.abs(np.asarray(other)).max() > 0.1
            np.testing.assert_allclose(gradient, other, atol=1e-10)


def test_equals_differences_in_float64(of_hidden):
    with jax.enable_x64(True):
        hidden, kernel, bias, lengths, weights = problem(82, jnp.float64)
        total = jax.jit(lambda *head: by_objective(*head, lengths, weights, implementation=of_hidden)[0])
        gradients = jax.grad(total, argnums=(0, 1, 2))(hidden, kernel, bias)
        random = np.random.default_rng(0)
        for _ in range(5):
            way = [jnp.asarray(random.normal(size=array.shape)) for array in (hidden, kernel, bias)]
            moved = [
                total(*(x + step * w for x, w in zip((hidden, kernel, bias), way))) for step in (1e-5, -1e-5)
            ]  # fmt: skip
            slope = sum(jnp.vdot(g, w) for g, w in zip(gradients, way))
            np.testing.assert_allclose((moved[0] - moved[1]) / 2e-5, slope, rtol=1e-6, atol=1e-7)


def test_losses_of_the_objective_carry_no_gradient_and_weights_do(of_hidden):
    hidden, kernel, bias, lengths, weights = problem(83)
    run = partial(by_objective, implementation=of_hidden)
    nothing = jax.grad(lambda h: run(h, kernel, bias, lengths, weights)[1].sum())(hidden)
    assert (np.asarray(nothing) == 0).all()
    to_weights = jax.grad(lambda w: run(hidden, kernel, bias, lengths, w)[0])(weights)
    np.testing.assert_allclose(to_weights, reference(hidden, kernel, bias, lengths, weights)[1], rtol=1e-5)


def test_what_weighs_nothing_and_what_is_padding_may_hold_anything(of_hidden):
    hidden, kernel, bias, lengths, _ = problem(84)
    weights = jnp.asarray([1.0, 0.0, 2.0, 1.0, 0.0, -1.0, 0.5])
    dead = (jnp.arange(T)[None] >= lengths[0][:, None]) | (weights == 0)[:, None]

    def total(*head):
        return by_objective(*head, lengths, weights, implementation=of_hidden)[0]

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    clean, clean_gradients = run(jnp.where(dead[..., None], 0.0, hidden), kernel, bias)
    spoilt, spoilt_gradients = run(jnp.where(dead[..., None], jnp.nan, hidden), kernel, bias)
    assert clean == spoilt
    for one, other in zip(clean_gradients, spoilt_gradients):
        np.testing.assert_array_equal(one, other)
    assert (np.asarray(spoilt_gradients[0])[np.asarray(dead)] == 0).all()


def test_a_token_that_the_bias_forbids(of_hidden):
    hidden, kernel, bias, lengths, weights = problem(85)
    labels = lengths[1]
    bias = bias.at[labels[0, 0]].set(-jnp.inf).at[52].set(-jnp.inf)
    lengths[2] = jnp.maximum(lengths[2], 1)
    lengths[0] = jnp.full(B, T)
    for infeasible in ("zero", "inf"):
        options = {"infeasible": infeasible}
        run = jax.jit(jax.value_and_grad(partial(by_objective, **options, implementation=of_hidden), (0, 1), True))
        (total, losses), gradients = run(hidden, kernel, bias, lengths, weights)
        wanted = jax.value_and_grad(partial(reference, **options), (0, 1), True)
        (expected_total, expected_losses), expected = wanted(hidden, kernel, bias, lengths, weights)
        assert losses[0] == (0 if infeasible == "zero" else jnp.inf)
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
        np.testing.assert_allclose(total, expected_total, rtol=1e-5)
        for one, other in zip(gradients, expected):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("fast", [True, False])
def test_dtypes_and_bfloat16_products(of_hidden, fast, monkeypatch):
    monkeypatch.setattr(_head, "bfloat16_is_fast", lambda: fast)
    jax.clear_caches()
    hidden, kernel, bias, lengths, weights = problem(86)
    half = hidden.astype(jnp.bfloat16)
    run = jax.value_and_grad(partial(by_objective, implementation=of_hidden), (0, 1, 2), has_aux=True)
    (total, losses), gradients = run(half, kernel, bias, lengths, weights)
    assert total.dtype == losses.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    # Where bfloat16 is slow, the kernel is not rounded.
    rounded = kernel.astype(jnp.bfloat16 if fast else jnp.float32).astype(jnp.float32)
    wanted = jax.value_and_grad(reference, (0, 1, 2), has_aux=True)
    (expected_total, expected_losses), expected = wanted(half.astype(jnp.float32), rounded, bias, lengths, weights)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, expected):
        np.testing.assert_allclose(np.asarray(one, np.float32), other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("function", [by_loss, by_objective])
def test_the_logits_never_exist_as_a_whole(of_hidden, function):
    hidden, kernel, bias, lengths, weights = problem(87)
    run = jax.value_and_grad(partial(function, implementation=of_hidden), (0, 1, 2), has_aux=True)
    text = jax.jit(run).lower(hidden, kernel, bias, lengths, weights).as_text()
    shapes = [part.split(">")[0].split("x")[:-1] for part in text.split("tensor<")[1:]]
    assert max(int(np.prod([int(n) for n in shape])) for shape in shapes) < B * T * V / 1.5
    assert str(V) in {n for shape in shapes for n in shape}


def test_second_derivatives_are_refused_in_words(of_hidden):
    hidden, kernel, bias, lengths, weights = problem(88)
    for function in (by_loss, by_objective):
        total = lambda h: function(h, kernel, bias, lengths, weights, implementation=of_hidden)[0]  # noqa: B023, E731
        with pytest.raises(NotImplementedError, match="first derivative only"):
            jax.make_jaxpr(jax.grad(lambda h: jax.grad(total)(h).max()))(hidden)  # noqa: B023


def test_derivatives_of_gradients_by_weights_and_cotangents_are_refused_too(of_hidden):
    hidden, kernel, bias, lengths, weights = problem(88)

    def gradient_by_weights(weights):
        return jax.grad(lambda h: by_objective(h, kernel, bias, lengths, weights, implementation=of_hidden)[0])(hidden)

    def gradient_by_cotangent(cotangent):
        losses = lambda h: ctc.linear_ctc_loss(h, kernel, *lengths, bias=bias, implementation=of_hidden)  # noqa: E731
        return jax.vjp(losses, hidden)[1](cotangent)[0]

    for function in (gradient_by_weights, gradient_by_cotangent):
        with pytest.raises(NotImplementedError, match="first derivative only"):
            jax.make_jaxpr(jax.grad(lambda w: function(w).max()))(weights)  # noqa: B023


def test_a_cotangent_of_zero_leaves_nothing_of_nan_and_infinity(of_hidden):
    hidden, kernel, bias, lengths, _ = problem(90)
    hidden = hidden.at[0, 0].set(jnp.nan)
    weights = jnp.ones(B)

    def nothing(hidden, kernel, weights):
        options = {"infeasible": "inf", "implementation": of_hidden}
        return 0.0 * by_objective(hidden, kernel, bias, lengths, weights, **options)[0]

    gradients = jax.jit(jax.grad(nothing, (0, 1, 2)))(hidden, kernel, weights)
    assert all((np.asarray(gradient) == 0).all() for gradient in gradients)


def test_the_objective_is_right_under_vmap(of_hidden):
    runs = [problem(seed) for seed in (91, 92)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *runs)

    def run(hidden, kernel, bias, lengths, weights):
        objective = lambda h, k: by_objective(h, k, bias, lengths, weights, implementation=of_hidden)  # noqa: E731
        return jax.value_and_grad(objective, (0, 1), has_aux=True)(hidden, kernel)

    together = jax.jit(jax.vmap(run))(*stacked)
    for place, arguments in enumerate(runs):
        alone = jax.jit(run)(*arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[place], b, rtol=1e-5, atol=1e-5), together, alone)  # noqa: B023


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from natjax import ctc
from natjax.ctc import Implementation, _linear
_linear.BYTES = dict.fromkeys(_linear.BYTES, 15_000)  # three blocks would do, but do not divide 64: four are made
mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
key = jax.random.key(0)
hidden, kernel = jax.random.normal(key, (8, 20, 16)), jax.random.normal(key, (16, 64))
rows = (jnp.full(8, 20, jnp.int32), jax.random.randint(key, (8, 6), 1, 64, jnp.int32), jnp.arange(8) % 7)
weights = jnp.arange(8.0)
def run(implementation, hidden, kernel, *rows):
    total = lambda h, k: ctc.linear_ctc_objective(h, k, *rows, weights=weights, implementation=implementation)[0]
    return jax.value_and_grad(total, argnums=(0, 1))(hidden, kernel)
function = jax.jit(lambda *a: run(Implementation.BLOCKS, *a))
whole = function(hidden, kernel, *rows)
for of_rows, of_kernel in ((P("x"), P()), (P(), P(None, "x"))):
    put = lambda array, spec: jax.device_put(array, NamedSharding(mesh, spec))
    args = put(hidden, of_rows), put(kernel, of_kernel), *(put(r, of_rows) for r in rows)
    text = function.lower(*args).compile().as_text()
    # What crosses between devices is sums, never rows, logits or the kernel.
    for word in ("all-gather", "all-to-all", "collective-permute"):
        found = [line for line in text.splitlines() if f" {word}(" in line]
        assert not found, (of_rows, found[0])
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(function(*args))):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
print("the same on two devices")
"""


def test_sharded_rows_or_vocabulary_stay_where_they_are():
    run_on_two(SHARDED)


def test_wrong_arguments_are_refused(of_hidden):
    hidden, kernel, bias, lengths, weights = problem(89)
    with pytest.raises(ValueError, match="the batch dimensions differ: weights 6, labels 7"):
        by_objective(hidden, kernel, bias, lengths, weights[:6])
    with pytest.raises(TypeError, match=r"weights must be an array \[B\], got list"):
        by_objective(hidden, kernel, bias, lengths, weights.tolist())
    with pytest.raises(TypeError, match="weights must have a floating dtype, got int32"):
        by_objective(hidden, kernel, bias, lengths, weights.astype(jnp.int32))
    with pytest.raises(ValueError, match="the widths D differ"):
        by_loss(hidden, kernel[:-1], bias, lengths, weights)
    with pytest.raises(ValueError, match="implementation must be one of AUTO, SENTENCES, BLOCKS here, got SCAN"):
        by_loss(hidden, kernel, bias, lengths, weights, implementation=Implementation.SCAN)
    with pytest.raises(ValueError, match="implementation must be one of AUTO, SCAN here, got"):
        ctc.ctc_loss(hidden, *lengths, implementation=of_hidden)


@pytest.mark.parametrize(
    ("platform", "rows", "frames", "chosen"),
    [("cpu", 1000, 100, "sentences"), ("cpu", 1, 9000, "blocks"), ("gpu", 4, 100, "sentences"),
     ("gpu", 1000, 100, "blocks")],
)  # fmt: skip
def test_auto_goes_by_platform_and_size(platform, rows, frames, chosen, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(_linear, "BYTES", {Implementation.SENTENCES: 72 << 20, Implementation.BLOCKS: 256 << 20})
    shapes = (rows, frames, D), (D, 32_000)
    head = Head(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes), None)
    assert _linear._auto(head) is Implementation(chosen)
    if chosen == "sentences":  # chunks on CPU only
        assert (_linear._chunks(head) > 1) == (platform == "cpu")
