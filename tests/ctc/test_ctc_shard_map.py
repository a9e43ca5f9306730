"""Under jax.shard_map, with its check of what varies over devices, and on meshes with explicit sharding."""

from ctc_devices import run_on_two

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from natjax import ctc
from natjax.ctc import Implementation
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
keys = jax.random.split(jax.random.key(0), 3)
logits = jax.random.normal(keys[0], (8, 12, 31))
hidden, kernel = jax.random.normal(keys[1], (8, 12, 16)), jax.random.normal(keys[2], (16, 31))
bias, weights = jnp.linspace(-1.0, 1.0, 31), jnp.arange(8.0)
rows = (jnp.array([12, 12, 11, 3, 12, 0, 12, 9]), jax.random.randint(keys[0], (8, 5), 1, 31, jnp.int32),
        jnp.array([5, 0, 4, 5, 1, 0, 3, 5]))

def compare(function, sharded, replicated, summed=()):
    # Outputs are rows, but for those whose places are in `summed`.
    specs = tuple(P() if place in summed else P("data") for place in range(len(function(*sharded, *replicated))))
    split = jax.shard_map(function, mesh=mesh, in_specs=(*[P("data")] * len(sharded), *[P()] * len(replicated)),
                          out_specs=specs)
    for one, other in zip(function(*sharded, *replicated), jax.jit(split)(*sharded, *replicated), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
"""

FUNCTIONS = {
    "ctc_loss": """
def loss(logits, *rows):
    values, vjp = jax.vjp(lambda z: ctc.ctc_loss(z, *rows, label_smoothing=0.1), logits)
    return values, vjp(jnp.cos(values))[0]
compare(loss, (logits, *rows), ())
""",
    "viterbi_alignment": "compare(lambda z, *rows: tuple(ctc.viterbi_alignment(z, *rows)), (logits, *rows), ())",
    "occupancy": "compare(lambda z, *rows: (ctc.occupancy(z, *rows),), (logits, *rows), ())",
    "linear_top_k": """
compare(lambda h, k, b: tuple(ctc.linear_top_k(h, k, 3, bias=b)), (hidden,), (kernel, bias))
""",
    "linear_viterbi_alignment": """
def align(h, *rest):
    *rows, k, b = rest
    return tuple(ctc.linear_viterbi_alignment(h, k, *rows, bias=b))
compare(align, (hidden, *rows), (kernel, bias))
""",
    "linear_label_logits": """
compare(lambda h, n, k, b: (ctc.linear_label_logits(h, k, n, bias=b),), (hidden, rows[1]), (kernel, bias))
""",
    "collapse": "compare(lambda ids, n: ctc.collapse(ids, n), (rows[1], rows[2]), ())",
    **{
        f"linear_ctc_loss {name}": f"""
def loss(hidden, *rest):
    *rows, kernel, bias = rest
    values, vjp = jax.vjp(lambda h, k, b: ctc.linear_ctc_loss(
        h, k, *rows, bias=b, label_smoothing=0.1, implementation=Implementation.{name}), hidden, kernel, bias)
    return values, *vjp(jnp.cos(values))
compare(loss, (hidden, *rows), (kernel, bias), summed=(2, 3))
"""
        for name in ("SENTENCES", "BLOCKS")
    },
    **{
        f"linear_ctc_objective {name}": f"""
def total(hidden, weights, *rest):
    *rows, kernel, bias = rest
    def objective(h, k, b, w):
        return ctc.linear_ctc_objective(
            h, k, *rows, weights=w, bias=b, implementation=Implementation.{name})
    (_, losses), gradients = jax.value_and_grad(objective, (0, 1, 2, 3), has_aux=True)(hidden, kernel, bias, weights)
    return losses, gradients[0], gradients[3], gradients[1], gradients[2]
compare(total, (hidden, weights, *rows), (kernel, bias), summed=(3, 4))
"""
        for name in ("SENTENCES", "BLOCKS")
    },
}

EXPLICIT = """
explicit = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
def run(z, *rows):
    values, vjp = jax.vjp(lambda z: ctc.ctc_loss(z, *rows), z)
    return values, vjp(jnp.ones_like(values))[0], *ctc.viterbi_alignment(z, *rows), ctc.occupancy(z, *rows)
whole = jax.jit(run)(logits, *rows)
with jax.set_mesh(explicit):
    put = lambda array: jax.device_put(array, NamedSharding(explicit, P("data")))
    for one, other in zip(whole, jax.jit(run)(*map(put, (logits, *rows))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
"""


def test_every_function_gives_under_shard_map_what_it_gives_alone():
    run_on_two(PROGRAM + "\n".join(FUNCTIONS.values()) + '\nprint("the same on two devices")')


def test_rows_on_a_mesh_with_explicit_sharding():
    run_on_two(PROGRAM + EXPLICIT + '\nprint("the same on two devices")')
