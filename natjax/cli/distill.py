"""natjax distill: a teacher's translations of the training source, to train a student on."""

import argparse
import re
import sys
from pathlib import Path

from natjax.errors import UserError

SUMMARY = "translate the training source by a teacher, resumable and sharded, to train a student on the result"
EPILOG = """examples:
  natjax distill --teacher runs/teacher --source train.en --output train.kd.de --target train.de
  natjax distill --teacher runs/a --teacher runs/b --source train.en --output train.kd.de
  natjax distill --teacher runs/teacher --source train.en --output train.kd.de --n-best 4 --output-source train.kd.en
  natjax distill --teacher runs/teacher --source train.en --output train.kd.de --shard 2/8      on the second of 8 hosts
  CUDA_VISIBLE_DEVICES=0 natjax distill ... --shard 1/4        on the first of 4 GPUs of a host, and so on

Finished blocks of 1,024 lines are kept in OUTPUT.parts; after a kill the same command goes on. With --shard the
processes share that folder, and whichever finishes last joins the blocks. OUTPUT.json tells how OUTPUT was made, and
what distillation did to the data; --target adds what the data were like before. A non-autoregressive teacher has no
beam: give --beam 1. docs/distillation.md tells more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument(
        "--teacher",
        metavar="W",
        action="append",
        required=True,
        help="a workdir; of several (of one kind, with one vocabulary) each line takes the best scored translation",
    )
    parser.add_argument("--source", metavar="F", required=True, help="the training source, one sentence a line")
    parser.add_argument("--output", metavar="F", required=True, help="the distilled target; line i is of source line i")
    parser.add_argument("--target", metavar="F", help="the target that --source has now: the report compares with it")
    parser.add_argument("--beam", metavar="N", type=int, default=5, help="beam of the teacher (default: 5); 1: greedy")
    parser.add_argument(
        "--length-penalty",
        metavar="A",
        type=float,
        default=1.0,
        help="scores of autoregressive teachers are divided by length^A (default: 1.0)",
    )
    parser.add_argument("--n-best", metavar="N", type=int, default=1, help="translations of each line (default: 1)")
    parser.add_argument("--minimum-score", metavar="X", type=float, help="drop translations of a lower score")
    parser.add_argument(
        "--output-source", metavar="F", help="the source of each line of --output; for --n-best and --minimum-score"
    )
    parser.add_argument("--shard", metavar="I/N", default="1/1", help="do every N-th block, from the I-th on")
    parser.add_argument("--allow-held-out", action="store_true", help="distil validation or test text, too")
    parser.add_argument(
        "--allow-language", action="store_true", help="distil text that does not look like the source language, too"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Distils; the report goes to stdout. Raises UserError, and Interrupted when a signal comes."""
    from natjax.cli.console import WorkView
    from natjax.cli.runtime import set_up_jax
    from natjax.distillation.job import Job, Settings
    from natjax.distillation.run import distill
    from natjax.training.preemption import StopRequest

    if not (shard := re.fullmatch(r"(\d{1,6})/(\d{1,6})", args.shard)):
        raise UserError(f"--shard {args.shard}: give it as 2/8")
    job = Job(
        source=Path(args.source),
        output=Path(args.output),
        output_source=Path(args.output_source) if args.output_source else None,
        target=Path(args.target) if args.target else None,
        settings=Settings(args.beam, args.length_penalty, args.n_best, args.minimum_score),
        shard=(int(shard[1]), int(shard[2])),
        allow_held_out=args.allow_held_out,
        allow_language=args.allow_language,
    )
    set_up_jax()
    with StopRequest() as stop, WorkView("distilling", "lines") as view:

        def progress(done: int, lines: int) -> None:
            stop.defer()
            view.progress(done, lines)
            if stop.requested:
                raise stop.interrupted(
                    f"stopped by {stop.signal.name}; finished blocks are kept, the same command goes on"
                )

        outcome = distill(args.teacher, job, say=view.say, progress=progress)
    if outcome.metadata is None:
        print(f"natjax: this shard is done; {outcome.missing:,} blocks of others are missing", file=sys.stderr)
        return 0
    if not outcome.made:
        print(f"natjax: {args.output}: already done", file=sys.stderr)
        return 0
    _tell(outcome.metadata, args.output)
    return 0


def _tell(metadata: dict, output: str) -> None:
    from natjax.analysis.data import DataReport
    from natjax.cli.analyze_data import print_table

    counts, cut = metadata["counts"], metadata["first_cut_lines"]
    said = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in counts if counts[name]]
    print(f"natjax: {output}: {metadata['pairs']:,} lines{''.join(f', {each}' for each in said)}", file=sys.stderr)
    if cut:
        more = ", ..." if counts["cut_lines"] > len(cut) else ""
        where = ", ".join(map(str, cut)) + more
        print(f"natjax: too long, translated in parts: lines {where} of {metadata['source']}", file=sys.stderr)
    print_table({name: DataReport(**report) for name, report in metadata["report"].items() if report})
