"""Times natjax.ctc beside what one would use instead: ratios measured side by side in one run, medians.

    python benchmarks/ctc.py [loss|linear|top_k|alignment|growth|products|associative ...]

Writes benchmarks/results/ctc/<part>.json (ctc_gpu/ on a GPU). Nothing else should run on the machine meanwhile. torch
is compared where it is installed (extra: oracle). All share one malloc, which keeps freed memory, as the command line
of natjax sets it: else two thirds of the largest shape's time are page faults, the same ones for each competitor.

What runs between two calls decides how warm the caches are. So the loss is raced twice: with all competitors in turn,
and alone with cross-entropy (`..._alone`), which finds its own logits and gradient still in the cache.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from natjax import ctc
from natjax.cli.runtime import keep_freed_memory
from natjax.ctc import _head, _lattice, _loss, _problem
from natjax.evaluation.report import write_result

RESULTS = Path(__file__).parent / "results"
SHAPES = ((16, 120, 40, 8000), (64, 60, 20, 4000), (16, 120, 40, 32_000))  # (B, T, N, V)
LINEAR, WIDTH = (32, 180, 60, 32_000), 512
TARGETS = {
    **{f"loss_over_cross_entropy{name}": value for name, value in zip("123", (1.20, 1.20, 1.10))},
    **{f"loss_over_cross_entropy{name}_alone": value for name, value in zip("123", (1.20, 1.20, 1.10))},
    **{f"optax_over_loss{name}": value for name, value in zip("123", (2.8, 2.8, 3.5))},
    **{f"torch_over_loss{name}": 3.0 for name in "123"},
    "gradient_temporary_mb": 12.0,
    "objective_temporary_mb": 160 + 4e-6 * 32 * 180 * WIDTH,
    "objective_over_unfused": 0.75,
    "objective_over_unfused_float32": 0.75,
    "top_1_over_argmax": 1.0,
    "top_20_over_argmax": 1.0,
    "top_1_temporary_mb": 100.0,
    "top_20_temporary_mb": 100.0,
    "viterbi_over_forward": 1.5,
    "viterbi_temporary_over_bound": 1.0,
}


def race(*functions: Callable, seconds: float = 12.0) -> list[float]:
    """Median seconds of each; in turn, so that they share the machine's moods, each round with another one first."""
    for function in functions:
        jax.block_until_ready(function())
    times, started = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - started < seconds and len(times) < 50):
        row = [0.0] * len(functions)
        for turn in range(len(functions)):
            place = (turn + len(times)) % len(functions)
            begun = time.perf_counter()
            jax.block_until_ready(functions[place]())
            row[place] = time.perf_counter() - begun
        times.append(row)
    return np.median(times, axis=0).tolist()


def batch(B: int, T: int, N: int, V: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """logit_lengths, labels and label_lengths, all rows at full length."""
    labels = np.random.default_rng(0).integers(1, V, (B, N), np.int32)
    return jnp.full(B, T, jnp.int32), jnp.asarray(labels), jnp.full(B, N, jnp.int32)


def normal(seed: int, *shape: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Random numbers, made on the device."""
    return jax.jit(lambda: jax.random.normal(jax.random.key(seed), shape, dtype))()


def megabytes(function: Callable, *arguments: jax.Array) -> float:
    """Temporary memory of the compiled function."""
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes / 1e6


def loss() -> dict[str, float]:
    """Loss with gradient against cross-entropy with gradient, optax and torch."""
    found = {}
    for name, shape in zip("123", SHAPES):
        rows, logits = batch(*shape), normal(0, shape[0], shape[1], shape[3])
        targets = jnp.asarray(np.random.default_rng(1).integers(0, shape[3], shape[:2], np.int32))
        paddings = jnp.zeros(shape[:2]), jnp.zeros((shape[0], shape[2]))

        def cross_entropy(z, targets=targets):
            return optax.losses.softmax_cross_entropy_with_integer_labels(z, targets).sum()

        def ours(z, rows=rows):
            return ctc.ctc_loss(z, *rows).sum()

        def peer(z, rows=rows, paddings=paddings):
            return optax.losses.ctc_loss(z, paddings[0], rows[1], paddings[1]).sum()

        functions = [partial(jax.jit(jax.value_and_grad(f)), logits) for f in (cross_entropy, ours, peer)]
        functions += torch_ctc(np.asarray(logits), *(np.asarray(a) for a in rows))
        plain, mine, theirs, *torch_seconds = race(*functions)
        found |= {f"loss_over_cross_entropy{name}": mine / plain, f"optax_over_loss{name}": theirs / mine,
                  f"loss_milliseconds{name}": 1000 * mine}  # fmt: skip
        found |= {f"torch_over_loss{name}": seconds / mine for seconds in torch_seconds}
        plain, mine = race(*functions[:2])
        found[f"loss_over_cross_entropy{name}_alone"] = mine / plain
    B, T, N, V = 16, 128, 64, 8000
    rows = batch(B, T, N, V)
    whole = megabytes(jax.grad(lambda z: ctc.ctc_loss(z, *rows).sum()), normal(0, B, T, V))
    return found | {"gradient_temporary_mb": whole}


def torch_ctc(logits: np.ndarray, frames: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> list[Callable]:
    """torch's loss with gradient, log-softmax included; nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return []
    z = torch.tensor(logits, requires_grad=True)
    frames, labels, sizes = (torch.tensor(a) for a in (frames, labels, sizes))

    def run() -> None:
        z.grad = None
        log_prob = z.log_softmax(-1).transpose(0, 1)
        torch.nn.functional.ctc_loss(log_prob, labels, frames, sizes, reduction="sum", zero_infinity=True).backward()

    return [run]


def linear() -> dict[str, float]:
    """The objective of hidden states against the same by way of all logits, bfloat16 hidden states.

    The other way takes its products' operands as they are, in bfloat16, and, as somebody would who knows that a CPU is
    slower with these, in float32.
    """
    (B, T, N, V), rows = LINEAR, batch(*LINEAR)
    hidden, kernel = normal(0, B, T, WIDTH, dtype=jnp.bfloat16), normal(1, WIDTH, V) / WIDTH**0.5
    weights = jnp.full(B, 1 / (B * N))

    def fused(hidden, kernel):
        return ctc.linear_ctc_objective(hidden, kernel, *rows, weights=weights)[0]

    def unfused(hidden, kernel, dtype=jnp.bfloat16):
        operands = hidden.reshape(-1, WIDTH).astype(dtype), kernel.astype(dtype)
        flat = jax.lax.dot(*operands, preferred_element_type=jnp.float32)
        return (weights * ctc.ctc_loss(flat.reshape(B, T, V), *rows)).sum()

    ways = [jax.value_and_grad(f, argnums=(0, 1)) for f in (fused, unfused, partial(unfused, dtype=jnp.float32))]
    first, second, third = race(*(partial(jax.jit(f), hidden, kernel) for f in ways), seconds=90.0)
    return {
        "objective_over_unfused": first / second,
        "objective_over_unfused_float32": first / third,
        "objective_seconds": first,
        "objective_temporary_mb": megabytes(ways[0], hidden, kernel),
        "unfused_temporary_mb": megabytes(ways[1], hidden, kernel),
    }


def top_k() -> dict[str, float]:
    """The best tokens of each frame against product and argmax."""
    B, T, V = 64, 180, 32_000
    hidden, kernel = normal(0, B, T, WIDTH), normal(1, WIDTH, V)

    def plain(hidden, kernel):
        return jnp.argmax(hidden.reshape(-1, WIDTH) @ kernel, axis=-1)

    found = {}
    for k in (1, 20):
        ours = jax.jit(lambda h, w, k=k: ctc.linear_top_k(h, w, k))
        mine, theirs = race(partial(ours, hidden, kernel), partial(jax.jit(plain), hidden, kernel), seconds=30.0)
        found |= {
            f"top_{k}_over_argmax": mine / theirs,
            f"top_{k}_seconds": mine,
            f"top_{k}_temporary_mb": megabytes(lambda h, w, k=k: ctc.linear_top_k(h, w, k), hidden, kernel),
        }
    return found


def alignment() -> dict[str, float]:
    """The best path against the value of the loss, and its memory against pointers and scores."""
    B, T, N, V = shape = 64, 120, 40, 4000
    rows, logits = batch(*shape), normal(0, B, T, V)
    best = jax.jit(lambda z: ctc.viterbi_alignment(z, *rows))
    value = jax.jit(lambda z: ctc.ctc_loss(z, *rows))
    mine, forward = race(partial(best, logits), partial(value, logits))
    bound = (B * T * (2 * N + 1) + 4 * B * T * (N + 1)) / 1e6
    used = megabytes(lambda z: ctc.viterbi_alignment(z, *rows), logits)
    return {"viterbi_over_forward": mine / forward, "viterbi_temporary_mb": used,
            "viterbi_temporary_over_bound": used / bound}  # fmt: skip


def growth() -> dict[str, float]:
    """Milliseconds of loss with gradient over a decade of T·N, at V = 64 so that the recursion is what is seen."""
    found = {}
    for scale in (1, 2, 3, 5, 7, 10):
        T, N = 100 * scale, 30
        rows, logits = batch(16, T, N, 64), normal(0, 16, T, 64)
        function = jax.jit(jax.grad(lambda z, rows=rows: ctc.ctc_loss(z, *rows).sum()))
        found[f"milliseconds_at_{T}_frames"] = 1000 * race(partial(function, logits), seconds=4.0)[0]
    for scale in (1, 2, 3, 5, 7, 10):
        T, N = 1000, 20 * scale
        rows, logits = batch(16, T, N, 64), normal(0, 16, T, 64)
        function = jax.jit(jax.grad(lambda z, rows=rows: ctc.ctc_loss(z, *rows).sum()))
        found[f"milliseconds_at_{N}_labels"] = 1000 * race(partial(function, logits), seconds=4.0)[0]
    for what in ("frames", "labels"):
        sizes = {int(key.split("_")[2]): value for key, value in found.items() if key.endswith(what)}
        slope = np.polyfit(np.log(list(sizes)), np.log(list(sizes.values())), 1)[0]
        found[f"exponent_in_{what}"] = float(slope)  # 1: time is proportional
    return found


def products() -> dict[str, float]:
    """The three products of an output projection, float32 operands and bfloat16: which the CPU is faster with."""
    R, V = 720, 32_000
    hidden, kernel, slope = normal(0, R, WIDTH), normal(1, WIDTH, V), normal(2, R, V)
    found = {}
    for name, left, right, axes in (
        ("forward", hidden, kernel, (1, 0)),
        ("to_hidden", slope, kernel, (1, 1)),
        ("to_kernel", hidden, slope, (0, 0)),
    ):
        product = jax.jit(lambda a, b, axes=axes: _head.product(a, b, *axes))
        half = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
        single, halved = race(partial(product, left, right), partial(product, *half), seconds=6.0)
        found |= {f"{name}_bfloat16_over_float32": halved / single,
                  f"{name}_float32_gflops": 2e-9 * R * WIDTH * V / single}  # fmt: skip
    return found


def associative() -> dict[str, float]:
    """The forward recursion as a parallel scan over the frames' [L, L] transition matrices, against `lax.scan`.

    log T steps instead of T, for L³ operations a pair of frames instead of 3·L a frame: the reason why natjax.ctc has
    no such implementation.
    """
    B, V, found = 8, 64, {}
    for T, N in ((100, 3), (1000, 3), (200, 10)):
        rows, logits = batch(B, T, N, V), normal(0, B, T, V)
        problem = jax.jit(lambda z, rows=rows: _loss.pose(z, _problem.rows(*rows), _OPTIONS))(logits)
        scores_TBU = jax.jit(lambda z, problem=problem: _loss.log_probs(z, problem)[0])(logits)
        scan = jax.jit(lambda s, problem=problem: _lattice.total(_lattice.forward(problem.lattice, s, 1), problem.ends))
        parallel = jax.jit(lambda s, problem=problem: _by_matrices(problem, s))
        np.testing.assert_allclose(scan(scores_TBU), parallel(scores_TBU), rtol=1e-4)
        steps, matrices = race(partial(scan, scores_TBU), partial(parallel, scores_TBU), seconds=6.0)
        found[f"associative_over_scan_{T}_frames_{N}_labels"] = matrices / steps
    return found


_OPTIONS = _problem.checked_options(0, 0.0, "zero", 1)


def _by_matrices(problem: _problem.Problem, scores_TBU: jax.Array) -> jax.Array:
    """Log mass [B] of all paths by `jax.lax.associative_scan`; every row at full length."""
    emitted_TBL, skip_BL = _lattice.spread(scores_TBU), problem.lattice.can_skip
    back = jnp.arange(skip_BL.shape[1])[None, :] - jnp.arange(skip_BL.shape[1])[:, None]  # state entered - state left
    may_BLL = (back == 0) | (back == 1) | ((back == 2) & skip_BL[:, None, :])
    step_TBLL = jnp.where(may_BLL, emitted_TBL[1:, :, None, :], -jnp.inf)

    def then(first: jax.Array, second: jax.Array) -> jax.Array:
        return _lattice.log_sum_exp(jnp.swapaxes(first[..., None] + second[..., None, :, :], -1, -2))

    whole_BLL = jax.lax.associative_scan(then, step_TBLL)[-1]
    first_BL = problem.lattice.start + emitted_TBL[0]
    return _lattice.total(_lattice.log_sum_exp(jnp.swapaxes(first_BL[..., None] + whole_BLL, -1, -2)), problem.ends)


def main() -> None:
    keep_freed_memory()  # for all alike, and before JAX starts its threads
    folder = RESULTS / ("ctc" if jax.default_backend() == "cpu" else "ctc_gpu")
    folder.mkdir(parents=True, exist_ok=True)
    parts = {f.__name__: f for f in (loss, linear, top_k, alignment, growth, products, associative)}
    for name in sys.argv[1:] or parts:
        started = time.perf_counter()
        found = parts[name]()
        for key, value in found.items():
            target = TARGETS.get(key)
            print(f"{key:<34} {value:10.3f}" + (f"   (target {target:g})" if target else ""), flush=True)
        write_result(
            folder / f"{name}.json",
            name=f"{folder.name}/{name}",
            command=f"python benchmarks/ctc.py {name}",
            data="random numbers",
            seed=0,
            wall_seconds=time.perf_counter() - started,
            metrics=found,
            targets={key: value for key, value in TARGETS.items() if key in found},
            peers=["torch"] * any("torch" in key for key in found),
        )


if __name__ == "__main__":
    main()
