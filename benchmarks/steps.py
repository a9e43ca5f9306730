"""Times a training step of other objectives and models beside a config's own, on the same batch of sentences.

    export NATJAX_DATA=<folder that holds multi30k/>
    python benchmarks/steps.py --config multi30k_en_de
    python benchmarks/steps.py --config multi30k_en_de rnd="--objective.glancing rnd" ce="--objective.loss ce"
    python benchmarks/steps.py --config table4 --seeds 3 --name steps_table4

Without arguments: glancing, latents, AXE. Each NAME=OVERRIDES is a variant: the config with these changed (of its
sections objective and model). All run in one process and take turns, each round beginning with another one; a ratio is
the median over rounds of the variant's seconds over those of the config as it is. The batch is the config's largest
that is common: the longest bucket with at least an even share of the training pairs.

All is measured at two depths: the config's own, and that of the paper's base model, 6+6 layers with 3+3 of the
posterior (`deep_…`), since what latents cost depends on the proportion. `--seeds K` adds the config's step for K seeds
under one vmap, over K steps one after another (`seeds_vmapped_over_apart`). Writes benchmarks/results/NAME.json.
Nothing else should run meanwhile.
"""

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
VARIANTS = ("glat=--objective.glancing glat", "vae=--model.latents vae", "axe=--objective.loss axe")
TARGETS = {"glat_over_ctc": 1.45, "vae_over_ctc": 1.35, "axe_over_ctc": 1.3}
DEEP = {"encoder_layers": 6, "decoder_layers": 6, "posterior_layers": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=VARIANTS, metavar="NAME=OVERRIDES")
    parser.add_argument("--config", default="multi30k_en_de", help="config file, or the name of a shipped one")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=0, help="compare so many seeds under one vmap with as many steps")
    parser.add_argument("--name", default="steps", help="of the result")
    args = parser.parse_args()

    from natjax.cli.overrides import override
    from natjax.cli.runtime import set_up_jax

    set_up_jax()  # before JAX starts its threads
    from natjax.config import load_config
    from natjax.data.prepare import open_prepared, prepare
    from natjax.evaluation.report import write_result

    began, base = time.perf_counter(), load_config(args.config)
    named = dict(variant.split("=", 1) for variant in args.variants)
    configs = {base.objective.loss: base} | {name: override(base, shlex.split(text)) for name, text in named.items()}
    others = {name: [f for f in ("data", "vocab", "training") if getattr(c, f) != getattr(base, f)]
              for name, c in configs.items()}  # fmt: skip
    if len(configs) != 1 + len(named) or any(others.values()):
        parser.error("variants need names of their own, and the same data, vocab and training as the config")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        prepare(base, store, print)
        data, vocabularies = open_prepared(base, store)
        bucket, batch = largest_common_batch(base, data)
    print(f"batch: {bucket}")
    metrics = compare(configs, vocabularies, batch, args.rounds)
    deep = {name: replace(config, model=replace(config.model, **DEEP)) for name, config in configs.items()}
    metrics |= {f"deep_{name}": value for name, value in compare(deep, vocabularies, batch, args.rounds).items()}
    if args.seeds:
        metrics |= compare_seeds(base, vocabularies, batch, args.seeds, args.rounds)
    changed = {name: dict(differences(base, config)) for name, config in configs.items()}
    write_result(
        RESULTS / f"{args.name}.json",
        name=args.name,
        command=shlex.join(["python", *sys.argv]),
        data=f"{base.name}: one batch of its training pairs",
        seed=base.training.seed,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={n: TARGETS[n.removeprefix("deep_")] for n in metrics if n.removeprefix("deep_") in TARGETS},
        extra={"bucket": bucket._asdict(), "rounds": args.rounds, "changed": changed, "deep": DEEP},
    )
    for name, value in metrics.items():
        print(f"{name:<28} {value:.3f}")


def compare(configs, vocabularies, batch, rounds: int) -> dict[str, float]:
    """Seconds of each config's step, and their ratios to those of the first."""
    seconds = take_turns({name: stepper(config, vocabularies, batch) for name, config in configs.items()}, rounds)
    first, *_ = configs
    metrics = {f"{name}_seconds": median(taken) for name, taken in seconds.items()}
    for name, taken in seconds.items():
        if name != first:
            metrics[f"{name}_over_{first}"] = median([a / b for a, b in zip(taken, seconds[first], strict=True)])
    return metrics


def compare_seeds(config, vocabularies, batch, seeds: int, rounds: int) -> dict[str, float]:
    """Seconds of one step of all seeds under vmap, over those of as many steps, each seed with a state of its own."""
    apart = [stepper(config, vocabularies, batch, seed) for seed in range(1, seeds + 1)]

    def one_after_another() -> None:
        for step in apart:
            step()

    together = vmapped_stepper(config, vocabularies, batch, range(1, seeds + 1))
    seconds = take_turns({"apart": one_after_another, "vmapped": together}, rounds)
    ratios = [a / b for a, b in zip(seconds["vmapped"], seconds["apart"], strict=True)]
    return {
        "seeds": seeds,
        "seeds_apart_seconds": median(seconds["apart"]),
        "seeds_vmapped_seconds": median(seconds["vmapped"]),
        "seeds_vmapped_over_apart": median(ratios),
    }


def largest_common_batch(config, store):
    """The bucket and a full batch of it, as training would meet it."""
    import numpy as np

    from natjax import objectives
    from natjax.data.plan import Plan, choose_buckets
    from natjax.training.step import to_device

    split = store.split("train")
    lengths = split.source_lengths, split.target_lengths
    buckets = choose_buckets(
        *lengths,
        buckets=config.data.buckets,
        multiple=config.data.length_multiple,
        max_length=config.data.max_length,
        batch_frames=config.training.batch_frames,
        max_frames=objectives.build(config).max_frames,
    )
    plan = Plan(*lengths, buckets, config.training.seed)
    batches = [plan.batch(step) for step in range(plan.batches_per_epoch)]
    pairs = {bucket: sum(len(b.rows) for b in batches if b.bucket == bucket) for bucket in buckets}
    common = [bucket for bucket in buckets if len(buckets) * pairs[bucket] >= sum(pairs.values())]
    bucket = max(common, key=lambda b: b.S)
    rows = next(b.rows for b in batches if b.bucket == bucket and len(b.rows) == bucket.rows)
    return bucket, to_device(split.pad(np.asarray(rows), bucket.S, bucket.N, bucket.rows))


def vmapped_stepper(config, vocabularies, batch, seeds) -> Callable[[], None]:
    """As `stepper`, for several seeds at once: parameters, moments, noise and batch of each in one program."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from natjax import models, objectives
    from natjax.training.state import new_state
    from natjax.training.step import make_train_step

    model = models.build(config, len(vocabularies.source), len(vocabularies.target))
    one = make_train_step(model, objectives.build(config), config)
    step = jax.jit(jax.vmap(one), donate_argnums=0)
    states = [new_state(models.init(model, seed), config.training) for seed in seeds]
    state, seed = jax.tree.map(lambda *x: jnp.stack(x), *states), np.array(seeds, np.uint32)
    batches = jax.tree.map(lambda x: jnp.stack([x] * len(seeds)), batch)

    def run() -> None:
        nonlocal state
        state, report = step(state, batches, seed)
        jax.block_until_ready((state, report))

    run()
    return run


def stepper(config, vocabularies, batch, seed: int | None = None) -> Callable[[], None]:
    """Compiles the training step of a config, and returns a function that makes one and waits for it."""
    import jax
    import numpy as np

    from natjax import models, objectives
    from natjax.training.state import new_state
    from natjax.training.step import make_train_step

    model = models.build(config, len(vocabularies.source), len(vocabularies.target))
    step = make_train_step(model, objectives.build(config), config)
    seed = np.uint32(config.training.seed if seed is None else seed)
    state = new_state(models.init(model, int(seed)), config.training)

    def run() -> None:
        nonlocal state
        state, report = step(state, batch, seed)
        jax.block_until_ready((state, report))

    run()
    return run


def take_turns(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each round."""
    names, seconds = list(functions), {name: [] for name in functions}
    for first in range(rounds):
        for turn in range(len(names)):
            name = names[(first + turn) % len(names)]
            started = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median(values: list[float]) -> float:
    import numpy as np

    return float(np.median(values))


def differences(base, config):
    """(field, value) of what a variant changes."""
    from natjax.config import leaves

    own = dict(leaves(base))
    return [(name, value) for name, value in leaves(config) if value != own[name]]


if __name__ == "__main__":
    main()
