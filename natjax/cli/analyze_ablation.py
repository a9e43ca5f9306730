"""natjax analyze ablation: the paper's rows, trained and told in one table."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from natjax.cli.overrides import add_config, config_of
from natjax.errors import UserError

if TYPE_CHECKING:
    from natjax.ablation.place import Place
    from natjax.ablation.results import RowResult

SUMMARY = "train every row of the paper's Table 4, or go on with it, and print the table"
EPILOG = """examples:
  natjax analyze ablation table4 --output runs/table4                        the embedded corpus, all rows, 3 seeds
  natjax analyze ablation table4 --output runs/table4 --rows 'ctc-.*' --seeds 1
  natjax analyze ablation multi30k_en_de --output runs/m30k --teacher runs/teacher --seeds 1 \\
      --rows ctc-raw,ctc-kd,ctc-kd-glat,ctc-kd-vae --source test_2016_flickr.en --reference test_2016_flickr.de
  natjax analyze ablation table4 --output runs/small --training.steps 200 --model.width 64

rows: ce-raw ce-kd axe-raw axe-kd axe-kd-vae axe-kd-rnd axe-kd-glat ctc-raw ctc-raw-vae ctc-raw-glat ctc-kd ctc-kd-vae
      ctc-kd-rnd ctc-kd-glat ctc-kd-vae-glat

Every run has its own workdir, DIR/<row>/seed<k>. Run the same command again to go on after a kill, or with other --rows
or --seeds to add to the table; several processes may work on one DIR. DIR gets ablation.json, ablation.md and, with
matplotlib, ablation.png. docs/ablation.md tells how to read them. Exit codes as of natjax train, such as 75 after
SIGTERM; and 1, after the table, where runs were left out: they diverged, or another process is at them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_config(parser)
    parser.add_argument("--grid", choices=("table4",), default="table4", help="which rows (default: table4)")
    parser.add_argument("--output", metavar="DIR", help="folder of all runs; made if it is not there")
    parser.add_argument("--seeds", metavar="K,...", default="1,2,3", help="training.seed of the runs (default: 1,2,3)")
    parser.add_argument("--rows", metavar="R,...", help="row names or regular expressions (default: all rows)")
    parser.add_argument(
        "--teacher",
        metavar="T",
        help="of the distilled rows: a finished workdir, or a config to train in DIR/teacher (default: CONFIG made "
        "autoregressive)",
    )
    parser.add_argument("--source", metavar="F", help="test source, inside data.root or a path; not for embedded text")
    parser.add_argument("--reference", metavar="F", help="its reference")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Runs what is missing and prints the table; 1 where a run had to be left out.

    Raises UserError, and Interrupted when a signal comes.
    """
    config = config_of(args, rest)
    if config is None:
        return 0
    if not args.output:
        raise UserError(f"--output is missing; name the folder of all runs, such as --output runs/{config.name}")
    if (args.source is None) != (args.reference is None):
        raise UserError("--source and --reference belong together; give both")
    seeds = _seeds(args.seeds)

    from natjax.ablation import results
    from natjax.ablation.grid import GRIDS, TEACHER, select
    from natjax.ablation.place import Place
    from natjax.ablation.run import Runner
    from natjax.ablation.teacher import Teacher
    from natjax.cli.console import TrainingView
    from natjax.cli.runtime import set_up_jax
    from natjax.training.preemption import StopRequest

    set_up_jax()
    rows = select(GRIDS[args.grid], args.rows)
    test = (args.source, args.reference) if args.source else None
    place = Place(Path(args.output), args.grid, config, test)
    for row in rows:
        place.run_config(row, seeds[0])  # a row that cannot be is told before anything is made
    teacher = Teacher(place, args.teacher)

    def collect() -> "tuple[list[RowResult], RowResult]":
        test = place.test_sha256()
        scored = results.read(teacher.folder, test, place.teacher_test)
        of_teacher = results.RowResult(TEACHER, () if scored is None else (scored,))
        return results.collect(place.folder, GRIDS[args.grid], test), of_teacher

    with StopRequest("between two trainings; what is finished is kept, the same command goes on"):
        runner = Runner(
            place,
            teacher,
            say=_say,
            training=lambda label: TrainingView(label, samples=False),
            distilling=_distilling,
            finished=lambda: _write(place, *collect()),
        )
        place.claim(_say)
        runner.run(rows, seeds)
        _tell(place, *collect(), runner.left_out)
    return 1 if runner.left_out else 0


def _seeds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) < 2**32 for word in words):
        raise UserError(f"--seeds {text}: give whole numbers from 0 to 4,294,967,295, such as 1,2,3")
    return list(dict.fromkeys(map(int, words)))


def _say(line: str) -> None:
    print(f"natjax: {line}", file=sys.stderr, flush=True)


@contextmanager
def _distilling() -> Iterator[Callable[[int, int], None]]:
    from natjax.cli.console import WorkView

    with WorkView("distilling", "lines") as view:
        yield view.progress


def _write(place: "Place", found: "list[RowResult]", teacher: "RowResult") -> None:
    from natjax import atomic
    from natjax.ablation import report

    atomic.write_text(place.folder / "ablation.json", report.as_json(place, found, teacher))
    atomic.write_text(place.folder / "ablation.md", report.markdown(place, found, teacher))


def _tell(place: "Place", found: "list[RowResult]", teacher: "RowResult", left_out: list[str]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from natjax import atomic
    from natjax.ablation import report
    from natjax.ablation.order import compare
    from natjax.ablation.plot import png

    _write(place, found, teacher)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 170)  # cut cells say nothing; a narrow terminal wraps them
    table = Table(box=SIMPLE)
    for number, heading in enumerate(report.headings(found)):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for line in report.lines(found, teacher):
        table.add_row(*map(escape, line))
    console.print(report.title(place, found), markup=False)
    console.print(table)
    for line in (report.FOOTNOTE, "", report.ORDER, "", *map(report.order_line, compare(found))):
        console.print(line, markup=False)
    for line in left_out:
        _say(line)
    picture = png(found, report.title(place, found))
    if picture is None:
        _say("no plot was made: matplotlib is not installed; pip install 'natjax[plot]' and run this again")
    else:
        atomic.write_bytes(place.folder / "ablation.png", picture)
    _say(f"{place.folder}: ablation.json, ablation.md{'' if picture is None else ', ablation.png'}")
