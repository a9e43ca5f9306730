"""What must not matter: padding, the other rows, transformations, weights. What must not exist: a one-hot."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import loss, loss_and_vjp, rows
from ctc_devices import run_on_two

from natjax import ctc
from natjax.ctc import Implementation

SMOOTHINGS = pytest.mark.parametrize("label_smoothing", [0.0, 0.1])


def repeating(batch):
    """The same rows with few distinct tokens, so that labels occur many times in a row."""
    logits, logit_lengths, labels, label_lengths = batch
    return logits, logit_lengths, 1 + labels % 3, label_lengths


@pytest.mark.parametrize(("more_frames", "more_labels", "label_smoothing"), [(1, 0, 0.0), (0, 1, 0.1), (64, 40, 0.1)])
def test_padding_changes_no_bit(implementation, more_frames, more_labels, label_smoothing):
    logits, logit_lengths, labels, label_lengths = repeating(rows(41, 8, 37, 13, 29, feasible=True))
    random = np.random.default_rng(42)
    junk = random.choice(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), (8, more_frames, 29))
    wider_logits = jnp.concatenate([logits, jnp.asarray(junk)], axis=1)
    inside = jnp.arange(37)[None, :, None] < logit_lengths[:, None, None]
    wider_logits = wider_logits.at[:, :37].set(jnp.where(inside, logits, jnp.nan))
    wider_labels = jnp.concatenate([labels, jnp.asarray(random.integers(-9, 99, (8, more_labels), np.int32))], axis=1)
    wider_labels = jnp.where(jnp.arange(13 + more_labels)[None] < label_lengths[:, None], wider_labels, -7)
    options = {"label_smoothing": label_smoothing, "implementation": implementation}
    losses, gradients = loss_and_vjp(logits, logit_lengths, labels, label_lengths, **options)
    wide_losses, wide_gradients = loss_and_vjp(wider_logits, logit_lengths, wider_labels, label_lengths, **options)
    # Pieces of another size round otherwise.
    bound = 0 if implementation is Implementation.SCAN else 1e-5
    np.testing.assert_allclose(losses, wide_losses, rtol=bound, atol=0)
    np.testing.assert_allclose(gradients, wide_gradients[:, :37], rtol=0, atol=bound)
    assert (wide_gradients[:, 37:] == 0).all()


def test_padding_many_equal_labels_changes_no_bit():
    # As many labels as a product of matrices is cut into pieces for; most tokens come many times.
    logits, labels = (
        jnp.asarray(np.random.default_rng(5).normal(size=(4, 120, 5)), jnp.float32),
        rows(6, 4, 120, 50, 5)[2],
    )
    sizes = jnp.array([50, 49, 33, 1])
    _, one = loss_and_vjp(logits, jnp.full(4, 120), labels, sizes)
    for more in (1, 14, 50):
        _, other = loss_and_vjp(logits, jnp.full(4, 120), jnp.pad(labels, ((0, 0), (0, more))), sizes)
        np.testing.assert_array_equal(one, other)


@SMOOTHINGS
def test_other_rows_change_no_bit(implementation, label_smoothing):
    options = {"label_smoothing": label_smoothing, "implementation": implementation}
    one = repeating(rows(43, 8, 37, 13, 29))
    other = list(repeating(rows(44, 8, 37, 13, 29)))
    other[0] = other[0].at[3].set(jnp.nan).at[7, 2].set(-jnp.inf)
    kept = jnp.array([0, 4, 5])
    mixed = [theirs.at[kept].set(ours[kept]) for ours, theirs in zip(one, other)]
    losses, gradients = loss_and_vjp(*one, **options)
    mixed_losses, mixed_gradients = loss_and_vjp(*mixed, **options)
    np.testing.assert_array_equal(losses[kept], mixed_losses[kept])
    np.testing.assert_array_equal(gradients[kept], mixed_gradients[kept])


@SMOOTHINGS
def test_value_alone_equals_value_with_gradient(implementation, label_smoothing):
    batch = rows(45, 8, 37, 13, 29)
    options = {"label_smoothing": label_smoothing, "implementation": implementation}
    alone = jax.jit(partial(loss, **options))(*batch)
    np.testing.assert_array_equal(alone, loss_and_vjp(*batch, **options)[0])


@SMOOTHINGS
def test_gradient_sums_to_zero_in_each_frame_and_is_zero_in_padding(implementation, label_smoothing):
    logits, logit_lengths, labels, label_lengths = rows(46, 8, 37, 13, 29)
    _, gradients = loss_and_vjp(
        logits, logit_lengths, labels, label_lengths, label_smoothing=label_smoothing, implementation=implementation
    )
    np.testing.assert_allclose(gradients.sum(-1), 0, atol=2e-6)
    assert (gradients[np.arange(37)[None] >= np.asarray(logit_lengths)[:, None]] == 0).all()
    assert np.abs(gradients).max() > 0.1


def test_weights_scale_each_row_and_a_zero_weight_is_exact(implementation):
    logits, *rest = rows(47, 8, 37, 13, 29, feasible=True)
    logits = logits.at[2, 0, 0].set(jnp.nan)
    rest[0] = jnp.maximum(rest[0], 1)
    weights = jnp.array([1.0, 0.0, 0.0, -3.0, 0.25, 2.0, -1.0, 1e-3])
    _, ones = loss_and_vjp(logits, *rest, implementation=implementation)
    _, scaled = loss_and_vjp(logits, *rest, weights=weights, implementation=implementation)
    assert np.isnan(ones[2]).any()
    assert (scaled[1:3] == 0).all()
    for row in (0, 3, 4, 5, 6, 7):
        np.testing.assert_allclose(scaled[row], float(weights[row]) * ones[row], rtol=1e-6)


def test_vmap_and_a_rematerialised_loop_change_nothing(implementation):
    groups = [rows(seed, 8, 37, 13, 29) for seed in (48, 49, 50)]
    stacked = [jnp.stack(arrays) for arrays in zip(*groups)]
    smooth = partial(loss, label_smoothing=0.1, implementation=implementation)

    def gradient(batch, loss):
        return jax.grad(lambda logits: loss(logits, *batch[1:]).sum())(batch[0])

    mapped = jax.jit(jax.vmap(partial(gradient, loss=smooth)))(stacked)
    looped = jax.jit(partial(jax.lax.map, partial(gradient, loss=jax.checkpoint(smooth))))(stacked)
    for index, group in enumerate(groups):
        _, alone = loss_and_vjp(*group, label_smoothing=0.1, implementation=implementation)
        np.testing.assert_allclose(mapped[index], alone, atol=1e-5)
        np.testing.assert_allclose(looped[index], alone, atol=1e-5)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_nothing_as_large_as_a_one_hot_of_the_labels_exists(of_logits):
    batch, frames, size, vocabulary = 3, 11, 5, 97
    args = rows(51, batch, frames, size, vocabulary)
    traced = jax.make_jaxpr(lambda z: jax.value_and_grad(lambda z: ctc.ctc_loss(
        z, *args[1:], label_smoothing=0.1, implementation=of_logits).sum())(z))(args[0])  # fmt: skip
    primitives, shapes = set(), set()
    for equation in equations(traced.jaxpr):
        primitives.add(equation.primitive.name)
        shapes |= {tuple(variable.aval.shape) for variable in equation.outvars}
    assert {"scan", "gather", "scatter"} <= primitives  # the walk does reach the inside
    wide = {tuple(sorted(shape)) for shape in shapes if vocabulary in shape and len(shape) > 1}
    assert wide == {(batch, frames, vocabulary)}
    assert max(np.prod(shape) for shape in shapes if vocabulary not in shape) <= 4 * frames * batch * (2 * size + 1)


def test_residuals_are_the_logits_and_little_more(of_logits):
    batch, frames, size, vocabulary = 3, 11, 5, 97
    args = rows(52, batch, frames, size, vocabulary)
    loss = partial(ctc.ctc_loss, implementation=of_logits)
    kept = jax.eval_shape(lambda z, *rest: jax.tree.leaves(jax.vjp(lambda z: loss(z, *rest), z)[1]), *args)
    sizes = sorted(leaf.size for leaf in kept)
    assert sizes[-1] == batch * frames * vocabulary
    assert sum(sizes[:-1]) <= 2 * frames * batch * (2 * size + 1)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from natjax import ctc
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("data"))
key = jax.random.key(0)
args = (jax.random.normal(key, (8, 20, 31)), jnp.full(8, 20, jnp.int32),
        jax.random.randint(key, (8, 6), 1, 31, jnp.int32), jnp.arange(8, dtype=jnp.int32) % 7)
def run(logits, *rest):
    losses, vjp = jax.vjp(lambda z: ctc.ctc_loss(z, *rest, label_smoothing=0.1), logits)
    return losses, vjp(jnp.ones_like(losses))[0]
whole = jax.jit(run)(*args)
compiled = jax.jit(run, in_shardings=rows, out_shardings=rows).lower(*args).compile()
for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
    assert word not in compiled.as_text(), word
split = compiled(*jax.device_put(args, rows))
assert len(split[1].sharding.device_set) == 2
for one, other in zip(whole, split):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
print("the same on two devices")
"""


def test_a_batch_sharded_over_devices_needs_no_communication():
    run_on_two(SHARDED)
