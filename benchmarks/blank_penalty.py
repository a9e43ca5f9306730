"""Chooses the demo's `decoding.blank_penalty` on its validation split, over several seeds; the test split is shown too.

    python benchmarks/blank_penalty.py --workdir runs/blank_penalty

Trains the demo's CTC model for each seed that is not trained yet. Writes
benchmarks/results/embedded_demo/blank_penalty.json.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "embedded_demo" / "blank_penalty.json"
SEEDS = (1, 2, 3)
PENALTIES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
SENTENCES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="folder of the runs, one a seed")
    args = parser.parse_args()

    from natjax.cli.console import TrainingView
    from natjax.cli.runtime import set_up_jax
    from natjax.config import load_config
    from natjax.data.grammar import exactly_valid
    from natjax.data.validation import embedded_text
    from natjax.evaluation.metrics import score
    from natjax.evaluation.report import write_result
    from natjax.training.loop import train
    from natjax.translator import Translator

    set_up_jax()
    began, demo, metrics = time.perf_counter(), load_config("demo"), {}
    for seed in SEEDS:
        folder = Path(args.workdir) / f"seed{seed}"
        with TrainingView(f"seed {seed}", samples=False) as watch:
            train(replace(demo, training=replace(demo.training, seed=seed)), folder, watch=watch)
        for split in ("valid", "test"):
            sources, references = embedded_text("demo", split, SENTENCES)
            for penalty in PENALTIES:
                texts = Translator.load(folder, decoding={"blank_penalty": penalty}).translate(sources)
                right = [exactly_valid("demo", s, t) for s, t in zip(sources, texts)]
                found = {"exactly_valid": 100 * sum(right) / len(right), "bleu": score(texts, references).bleu}
                metrics |= {f"seed{seed}_{split}_{name}_at_{penalty}": value for name, value in found.items()}
                print(f"seed {seed}  {split:<5} {penalty:4.2f}  {found['exactly_valid']:5.1f}%  {found['bleu']:5.1f}")
    for split in ("valid", "test"):
        means = {
            p: sum(metrics[f"seed{seed}_{split}_exactly_valid_at_{p}"] for seed in SEEDS) / len(SEEDS)
            for p in PENALTIES
        }
        metrics |= {f"mean_{split}_exactly_valid_at_{p}": value for p, value in means.items()}
        metrics[f"best_on_{split}"] = max(means, key=means.get)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    write_result(
        RESULT,
        name="embedded_demo/blank_penalty",
        command=" ".join(["python", *sys.argv]),
        data=f"embedded corpus demo, {SENTENCES} sentences of each split, all valid translations",
        seed=SEEDS[0],
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={},
    )
    print(f"{RESULT}: best on valid {metrics['best_on_valid']}")


if __name__ == "__main__":
    main()
