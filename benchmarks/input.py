"""Times the way from a large store to batches, alone and under training steps of a base model.

    python benchmarks/input.py
    python benchmarks/input.py --pairs 13000000 --part store          (the store and the plan of 13M pairs alone)
    python benchmarks/input.py --pairs 20000 --config demo --batch-frames 2000 --seconds 1 --output /tmp/i.json  (a try)

A synthetic store with lengths as WMT14's is written below a temporary folder (TMPDIR; 0.6 GB for 4M pairs). Then, each
in a process of its own: how long the store takes to open, verified or not; the buckets, the plan, the order of an
epoch, and any step of it, with the most memory that this took; the tokens a second that plan, padding and `Feed` give
when nothing else is done; and the tokens a second of training steps of the config's model on the devices that are
there, fed by the same `Feed`, with the share of time in which they waited for it. The steps have one shape, with real
lengths. Writes benchmarks/results/input.json. Nothing else should run meanwhile.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
PARTS = ("store", "pipeline", "steps")
TARGETS = {"open_milliseconds": 50.0, "pipeline_over_steps": 20.0, "steps_waited_share": 0.001}
V, BLOCK = 40_000, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4_000_000)
    parser.add_argument("--config", default="wmt14_en_de", help="whose buckets and model: a file, or a shipped one")
    parser.add_argument(
        "--batch-frames", type=int, default=6144, help="decoder frames of a step (default: for two cores)"
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the pipeline alone runs")
    parser.add_argument("--part", choices=PARTS, action="append", help="only these")
    parser.add_argument("--output", type=Path, default=RESULTS / "input.json")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.store:
        print(json.dumps(globals()[args.part[-1]](args)))
        return
    from natjax.evaluation.report import write_result

    began, metrics, parts = time.perf_counter(), {}, args.part or PARTS
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        write(store, args.pairs)
        time.sleep(3)  # files must be some seconds old before it is recorded that they were verified
        for part in parts:
            command = [sys.executable, *sys.argv, "--part", part, "--store", str(store)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            metrics |= json.loads(done.stdout)
            print(part, done.stdout, flush=True)
    if {"pipeline", "steps"} <= set(parts):
        metrics["pipeline_over_steps"] = (
            metrics["pipeline_source_tokens_per_second"] / metrics["steps_source_tokens_per_second"]
        )
    if not args.part:
        write_result(
            args.output,
            name="input",
            command=shlex.join(["python", *sys.argv]),
            data=f"synthetic: {args.pairs:,} pairs of random pieces, lengths as in WMT14",
            seed=0,
            wall_seconds=time.perf_counter() - began,
            metrics=metrics,
            targets=TARGETS,
            extra={"config": args.config, "batch_frames": args.batch_frames, "steps": args.steps},
        )
    for name, value in metrics.items():
        print(f"{name:<42} {value:,.5g}")


def write(folder: Path, pairs: int) -> None:
    """A store of random pieces: what they are changes nothing here."""
    from natjax.data.encoding import Ragged
    from natjax.data.writing import new_store

    def side(lengths: np.ndarray, generator: np.random.Generator, end: bool) -> Ragged:
        tokens = generator.integers(4, V, lengths.sum(), np.uint16)
        if end:
            tokens[np.cumsum(lengths) - 1] = 2
        return Ragged(tokens, lengths.astype(np.int32))

    with new_store(folder, ["train", "valid"], np.dtype(np.uint16)) as writer:
        blocks = [("train", min(BLOCK, pairs - start)) for start in range(0, pairs, BLOCK)]
        for number, (split, rows) in enumerate([*blocks, ("valid", 2000)]):
            generator = np.random.default_rng(number)
            source = np.clip(generator.gamma(2.3, 30 / 2.3, rows), 1, 254).astype(int)
            target = np.clip(source * generator.lognormal(0.0, 0.2, rows), 1, 255).astype(int)
            writer.append(split, side(source + 1, generator, True), side(target, generator, False))


def store(args: argparse.Namespace) -> dict[str, float]:
    """Opening, and planning."""
    import natjax.objectives  # noqa: F401 -- what it takes is not the plan's
    from natjax.data.store import open_store

    def timed(function):
        began = time.perf_counter()
        result = function()
        return result, time.perf_counter() - began

    _, verified = timed(lambda: open_store(args.store))
    opened, each = None, []
    for _ in range(9):
        opened, seconds = timed(lambda: open_store(args.store))
        each.append(seconds)
    base = peak()
    (split, buckets), chosen = timed(lambda: shapes(args, opened))
    made, planned = timed(lambda: plan(args, split, buckets))
    _, first = timed(lambda: made.batch(0))
    anywhere = np.random.default_rng(0).integers(0, made.batches_per_epoch // 2, 1000).tolist()
    _, found = timed(lambda: [made.batch(step) for step in anywhere])
    _, padded = timed(lambda: [pad(split, made, step) for step in anywhere[:200]])
    return {
        "pairs": split.rows,
        "verify_seconds": verified,
        "open_milliseconds": 1e3 * float(np.median(each)),
        "buckets_seconds": chosen,
        "plan_seconds": planned,
        "epoch_order_seconds": first,
        "any_step_microseconds": 1e6 * found / len(anywhere),
        "any_batch_milliseconds": 1e3 * padded / 200,
        "plan_peak_megabytes": (peak() - base) / 1e6,
        "plan_peak_bytes_a_pair": (peak() - base) / split.rows,
    }


def pipeline(args: argparse.Namespace) -> dict[str, float]:
    """Plan, padding and `Feed`, as fast as they can."""
    from natjax.data.feed import Feed
    from natjax.data.store import open_store

    opened = open_store(args.store)
    split, buckets = shapes(args, opened)
    made = plan(args, split, buckets)
    made.batch(0)
    tokens = batches = 0
    began = time.perf_counter()
    with Feed(lambda step: pad(split, made, step), 0, 1 << 40) as feed:
        for _, batch in feed:
            tokens, batches = tokens + int(batch.source_lengths.sum()), batches + 1
            if time.perf_counter() - began > args.seconds:
                break
    seconds = time.perf_counter() - began
    return {"pipeline_source_tokens_per_second": tokens / seconds, "pipeline_batches_per_second": batches / seconds}


def steps(args: argparse.Namespace) -> dict[str, float]:
    """Training steps on batches of one shape, as the training loop makes them."""
    from natjax.cli.runtime import set_up_jax

    set_up_jax()  # before JAX starts its threads
    import jax

    from natjax import models, objectives
    from natjax.config import load_config
    from natjax.data.feed import Feed
    from natjax.data.store import open_store
    from natjax.training.state import new_state
    from natjax.training.step import make_train_step, to_device

    config = load_config(args.config)
    model = models.build(config, V, V)
    train_step = make_train_step(model, objectives.build(config), config)
    state, seed = new_state(models.init(model, config.training.seed), config.training), np.uint32(1)
    split, buckets = shapes(args, open_store(args.store))
    shares = np.histogram(split.source_lengths, [0, *(bucket.S + 1 for bucket in buckets)])[0]
    common = buckets[int(np.argmax(shares))]
    fits = (split.source_lengths <= common.S) & (split.target_lengths <= common.N)
    rows = np.flatnonzero(fits)[: common.rows * (args.steps + 2)]

    def batch(step: int):
        return split.pad(rows[step * common.rows : (step + 1) * common.rows], common.S, common.N, common.rows)

    tokens, waited, began = 0, 0.0, 0.0
    with Feed(batch, 0, args.steps + 2) as feed:
        for step, made in feed:
            if step == 2:  # the first compiles
                jax.block_until_ready(state)
                began, waited = time.perf_counter(), feed.waited_seconds
            state, report = train_step(state, to_device(made), seed)
            if step >= 2:
                tokens += int(made.source_lengths.sum())
            jax.block_until_ready(report)
        seconds = time.perf_counter() - began
        waited = feed.waited_seconds - waited
    return {
        "steps_source_tokens_per_second": tokens / seconds,
        "steps_seconds": seconds / args.steps,
        "steps_waited_share": waited / seconds,
    }


def shapes(args: argparse.Namespace, opened):
    """The training split and the buckets of the config for it."""
    from natjax import objectives
    from natjax.config import load_config
    from natjax.data.plan import choose_buckets

    config, split = load_config(args.config), opened.split("train")
    buckets = choose_buckets(
        split.source_lengths,
        split.target_lengths,
        buckets=config.data.buckets,
        multiple=config.data.length_multiple,
        max_length=256,
        batch_frames=args.batch_frames,
        max_frames=objectives.build(config).max_frames,
    )
    return split, buckets


def plan(args: argparse.Namespace, split, buckets):
    from natjax.data.plan import Plan

    return Plan(split.source_lengths, split.target_lengths, buckets, seed=1)


def pad(split, plan, step: int):
    planned = plan.batch(step)
    return split.pad(planned.rows, planned.bucket.S, planned.bucket.N, planned.bucket.rows)


def peak() -> int:
    """Bytes that this process held at most. What getrusage tells is handed down from the one that started it."""
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    main()
