"""Times a training step of other objectives and models beside a config's own, on the same batch of sentences.

    export NATJAX_DATA=<folder that holds multi30k/>
    python benchmarks/steps.py --config multi30k_en_de
    python benchmarks/steps.py --config multi30k_en_de rnd="--objective.glancing rnd" ce="--objective.loss ce"

Without arguments: glancing, latents, AXE. Each NAME=OVERRIDES is a variant: the config with these changed (of its
sections objective and model). All run in one process and take turns, each round beginning with another one; a ratio is
the median over rounds of the variant's seconds over those of the config as it is. The batch is the config's largest
that is common: the longest bucket with at least an even share of the training pairs. Writes
benchmarks/results/steps.json. Nothing else should run meanwhile.
"""

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
VARIANTS = ("glat=--objective.glancing glat", "vae=--model.latents vae", "axe=--objective.loss axe")
TARGETS = {"glat_over_ctc": 1.45, "vae_over_ctc": 1.35, "axe_over_ctc": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=VARIANTS, metavar="NAME=OVERRIDES")
    parser.add_argument("--config", default="multi30k_en_de", help="config file, or the name of a shipped one")
    parser.add_argument("--rounds", type=int, default=40)
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
    steps = {name: stepper(config, vocabularies, batch) for name, config in configs.items()}
    seconds = take_turns(steps, args.rounds)
    own, metrics = seconds[base.objective.loss], {}
    for name, taken in seconds.items():
        metrics[f"{name}_seconds"] = median(taken)
        if taken is not own:
            metrics[f"{name}_over_{base.objective.loss}"] = median([a / b for a, b in zip(taken, own, strict=True)])
    changed = {name: dict(differences(base, config)) for name, config in configs.items()}
    write_result(
        RESULTS / "steps.json",
        name="steps",
        command=shlex.join(["python", *sys.argv]),
        data=f"{base.name}: one batch of its training pairs",
        seed=base.training.seed,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={name: target for name, target in TARGETS.items() if name in metrics},
        extra={"bucket": bucket._asdict(), "rounds": args.rounds, "changed": changed},
    )
    for name, value in metrics.items():
        print(f"{name:<28} {value:.3f}")


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


def stepper(config, vocabularies, batch) -> Callable[[], None]:
    """Compiles the training step of a config, and returns a function that makes one and waits for it."""
    import jax
    import numpy as np

    from natjax import models, objectives
    from natjax.training.state import new_state
    from natjax.training.step import make_train_step

    model = models.build(config, len(vocabularies.source), len(vocabularies.target))
    step = make_train_step(model, objectives.build(config), config)
    state, seed = new_state(models.init(model, config.training.seed), config.training), np.uint32(config.training.seed)

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
