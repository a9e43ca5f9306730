"""Distils a training source, or takes what is there, and writes throughput and what it did to the data.

    python benchmarks/distill.py --teacher runs/multi30k/teacher --source $NATJAX_DATA/multi30k/train.en \
        --target $NATJAX_DATA/multi30k/train.de --output runs/multi30k/distilled/train.target \
        --name multi30k_en_de/distillation

Sentences a second are those of the metadata that `natjax distill` writes: the time of all blocks, compilation included.
Writes benchmarks/results/<name>.json.
"""

import argparse
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, action="append", help="a workdir")
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--name", required=True, help="of the result, such as multi30k_en_de/distillation")
    parser.add_argument("--beam", type=int, default=5)
    args = parser.parse_args()

    from natjax.cli.console import WorkView
    from natjax.cli.runtime import set_up_jax
    from natjax.distillation.job import Job, Settings
    from natjax.distillation.run import distill
    from natjax.evaluation.report import write_result
    from natjax.training.workdir import load_config

    set_up_jax()
    files = {name: Path(getattr(args, name)) for name in ("source", "output", "target")}
    job = Job(**files, settings=Settings(beam=args.beam))
    with WorkView("distilling", "lines") as view:
        metadata = distill(args.teacher, job, say=view.say, progress=view.progress).metadata
    if metadata is None:
        sys.exit("other shards are at work; run again when they are done")
    before, after = metadata["report"]["before"], metadata["report"]["after"]
    metrics = {
        "sentences_per_second": metadata["sentences_per_second"],
        "sentences": metadata["pairs"],
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
    }
    target = RESULTS / f"{args.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_result(
        target,
        name=args.name,
        command=" ".join(["python", *sys.argv]),
        data=f"{files['source'].name}, translated by {', '.join(t['workdir'] for t in metadata['teachers'])}",
        seed=load_config(Path(args.teacher[0])).training.seed,
        wall_seconds=metadata["seconds"],
        metrics={name: value for name, value in metrics.items() if value is not None},
        targets={},
        extra={"teachers": metadata["teachers"], "counts": metadata["counts"], "made_from": metadata["made_from"]},
    )
    print(f"{target}: {metadata['sentences_per_second']:.1f} sentences a second")


if __name__ == "__main__":
    main()
