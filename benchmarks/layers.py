"""Times the choices that the layers make, side by side in one run; ratios above 1 favour what natjax does.

    python benchmarks/layers.py

Writes benchmarks/results/layers.json. Nothing else should run on the machine meanwhile.
"""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

RESULTS = Path(__file__).parent / "results"
REPEATS = 9


def race(*functions: Callable) -> list[float]:
    """Median seconds of each, interleaved so that they share the machine's moods."""
    for function in functions:
        jax.block_until_ready(function())
    times = []
    for _ in range(REPEATS):
        row = []
        for function in functions:
            started = time.perf_counter()
            jax.block_until_ready(function())
            row.append(time.perf_counter() - started)
        times.append(row)
    return np.median(times, axis=0).tolist()


TRAINING = """
import json, pathlib, sys, tempfile
from natjax.cli.runtime import keep_freed_memory
{call}
from dataclasses import replace
from natjax.config import load_config
from natjax.training.loop import train
config = load_config("demo")
steps = dict(steps=300, log_every=25, eval_every=300, save_every=300, cooldown_steps=0)
config = replace(config, training=replace(config.training, **steps))
with tempfile.TemporaryDirectory() as folder:
    train(config, pathlib.Path(folder))
    records = map(json.loads, (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines())
    print(*(record["steps_per_second"] for record in records if "steps_per_second" in record))
"""


def kept_over_freed() -> float:
    """Updates a second of the demo with freed memory kept, over the same with freed memory handed back.

    Which of the two is decided when a process starts, so each has its own. The first updates compile.
    """

    def speed(call: str) -> float:
        program = [sys.executable, "-c", TRAINING.format(call=call)]
        shown = subprocess.run(program, check=True, capture_output=True, text=True).stdout
        return float(np.median([float(word) for word in shown.split()[4:]]))

    return speed("assert keep_freed_memory()") / speed("")


def main() -> None:
    import flax.linen as nn

    from natjax.config import ModelConfig
    from natjax.ctc._top_k import largest
    from natjax.evaluation.report import write_result
    from natjax.layers import stack
    from natjax.layers.dropout import dropout
    from natjax.layers.linear import matmul
    from natjax.layers.noise import step_noise

    started, generator, metrics = time.perf_counter(), np.random.default_rng(0), {}

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    # Layers unrolled against layers in a loop: gradient of a 3-layer decoder, 128 sentences of 32 frames.
    frames, memory, lengths = normal(128, 32, 192), normal(128, 16, 192), jnp.full((128,), 30)
    network = stack.Stack(ModelConfig.tiny(), 3)
    params = network.init(jax.random.key(0), frames, lengths, memory, jnp.full((128,), 15))

    def gradient() -> Callable:
        def total(params):
            return network.apply(params, frames, lengths, memory, jnp.full((128,), 15)).sum()

        return jax.jit(jax.grad(total)).lower(params).compile()

    unrolled, scan = gradient(), nn.scan
    stack.nn.scan = lambda *args, **kwargs: scan(*args, **{**kwargs, "unroll": 1})
    looped = gradient()
    stack.nn.scan = scan
    slow, fast = race(lambda: looped(params), lambda: unrolled(params))
    metrics |= {"loop_over_unrolled": slow / fast, "decoder_gradient_seconds": fast}

    # The output projection's gradient, rows flattened or not.
    kernel = normal(192, 4000)

    def gradient_of(product: Callable) -> Callable:
        function = jax.jit(jax.grad(lambda x, k: jnp.square(product(x, k)).sum(), argnums=(0, 1)))
        return lambda: function(frames, kernel)

    plain = gradient_of(lambda x, k: jnp.einsum("btd,dv->btv", x, k))
    slow, fast = race(plain, gradient_of(lambda x, k: matmul(x, k, jnp.dtype(jnp.float32))))
    metrics["three_dimensions_over_flattened"] = slow / fast

    # Dropout by a hash against jax.random.
    wide, noise, key = normal(8192, 768), step_noise(1, jnp.int32(0), 8192), jax.random.key(0)
    library = jax.jit(lambda x: jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0.0))
    ours = jax.jit(lambda x: dropout(x, 0.3, noise))
    slow, fast = race(lambda: library(wide), lambda: ours(wide))
    metrics |= {"bernoulli_over_hash_dropout": slow / fast, "hash_dropout_milliseconds": 1000 * fast}

    # Two-stage argmax against argmax.
    scores = normal(512, 32_000)
    single, grouped = jax.jit(lambda s: jnp.argmax(s, axis=-1)), jax.jit(lambda s: largest(s, 1)[1])
    slow, fast = race(lambda: single(scores), lambda: grouped(scores))
    metrics["argmax_over_grouped"] = slow / fast

    # bfloat16 against float32 products in training: the same decoder.
    half = stack.Stack(dataclasses.replace(ModelConfig.tiny(), dtype="bfloat16"), 3)
    total = jax.jit(
        jax.grad(lambda p: half.apply(p, frames.astype(jnp.bfloat16), lengths, memory.astype(jnp.bfloat16),
                                      jnp.full((128,), 15)).astype(jnp.float32).sum())
    )  # fmt: skip
    slow, fast = race(lambda: unrolled(params), lambda: total(params))
    metrics["float32_over_bfloat16_gradient"] = slow / fast

    metrics["training_with_memory_kept_over_freed"] = kept_over_freed()

    write_result(RESULTS / "layers.json", name="layers", command=" ".join(["python", *sys.argv]), data="random numbers",
                 seed=0, wall_seconds=time.perf_counter() - started, metrics=metrics, targets={})  # fmt: skip
    for name, value in metrics.items():
        print(f"{name:<36} {value:.3f}")


if __name__ == "__main__":
    main()
