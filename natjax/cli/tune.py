"""natjax tune: the weights of the CTC search, chosen on validation text."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from natjax.cli.model import add_fields, decoding_of
from natjax.errors import UserError

if TYPE_CHECKING:
    from natjax.tuning import Opened, Point, Tried

SUMMARY = "find language-model weight, length bonus and beam of the CTC search on validation text"
EPILOG = """examples:
  natjax tune --model W --source valid.en --reference valid.de
  natjax tune --model W --source valid.en --reference valid.de --search grid --alphas 0,0.2,0.4 --betas 0,1,2
  natjax tune --model W --source valid.en --reference valid.de --beams 5,20,50 --plot tune.png
  natjax translate --model W --decode beam < test.en                     # with what was found

The model is run once over the text. A point is a beam, alpha (by which the language model's log-probability is
multiplied) and beta (what each piece adds); it costs one search of all sentences, and no compilation but that of one
program for each beam and shape of a batch. By coordinates, the default, beta, alpha and beam are improved in turn until
nothing changes; a grid tries all combinations. The best BLEU wins, of equals the first tried. What won is written to
W/decoding.json with all that the search was compiled with (--decoding.*), from where `translate`, `evaluate` and the
next `tune` take it; all points go to stdout with --json.

Without a language model (W/lm, of `natjax lm train`, or --lm) alpha stays 0.
"""


def _numbers(kind: type) -> object:
    def parse(text: str) -> list[float]:
        values = [kind(part) for part in text.split(",")]
        if len(set(values)) != len(values):
            raise ValueError
        return values

    parse.__name__ = "list such as 0,1,2"  # what argparse says that the text is not
    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of a model trained with ctc")
    parser.add_argument("--source", metavar="F", required=True, help="source text, one sentence a line")
    parser.add_argument("--reference", metavar="F", required=True, help="its translations, line by line")
    parser.add_argument("--search", choices=("coordinates", "grid"), default="coordinates", help="how to look")
    parser.add_argument(
        "--alphas", type=_numbers(float), metavar="A,...", default=[0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8],
        help="weights of the language model to try (default: 0 to 0.8)",
    )  # fmt: skip
    parser.add_argument(
        "--betas", type=_numbers(float), metavar="B,...", default=[-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
        help="length bonuses to try; with a negative one first, write --betas=-1,0 (default: -0.5 to 3)",
    )  # fmt: skip
    parser.add_argument(
        "--beams", type=_numbers(int), metavar="W,...", help="beams to try (default: decoding.ctc_beam_size alone)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use the first N sentences only")
    parser.add_argument("--tokenize", metavar="T", default="13a", help="tokens of BLEU, as of natjax evaluate")
    parser.add_argument("--lm", metavar="DIR", help="language model in place of decoding.lm; it is stored, too")
    parser.add_argument("--plot", metavar="F", help="write a heat map of BLEU over alpha and beta here (.png)")
    parser.add_argument("--dry-run", action="store_true", help="store nothing in the workdir")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_fields(parser, without=("ctc_beam_size", "lm_weight", "length_bonus", "lm"))


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Tries, prints, stores, returns 0. Raises UserError for what cannot be used, before the model is run."""
    from natjax.cli.runtime import set_up_jax
    from natjax.data.corpus import read_parallel
    from natjax.evaluation.metrics import bleu_metric

    sources, references = read_parallel(args.source, args.reference)
    if args.limit is not None:
        if args.limit < 1:
            raise UserError(f"--limit {args.limit}: give the number of sentences to use, at least 1")
        sources, references = sources[: args.limit], references[: args.limit]
    if not sources:
        raise UserError(f"{args.source}: has no lines; give text to tune on")
    for name, values, least, most in (("--alphas", args.alphas, 0, 100), ("--betas", args.betas, -100, 100),
                                      ("--beams", args.beams or [1], 1, 1024)):  # fmt: skip
        if not all(least <= value <= most for value in values):
            raise UserError(f"{name}: give numbers from {least} to {most:,}")
    if args.plot and not args.plot.endswith(".png"):
        raise UserError(f"--plot {args.plot}: name a file that ends in .png")
    if args.plot and not Path(args.plot).absolute().parent.is_dir():  # told now, not after the work
        raise UserError(f"--plot {args.plot}: its folder does not exist; make it first")
    set_up_jax()
    from natjax import atomic, tuning

    given = decoding_of(args) | ({"lm": args.lm} if args.lm else {})
    opened = tuning.open_model(Path(args.model), given, _say)
    bleu_metric(args.tokenize, compound_split=False, language=opened.translator.config.data.target_language)
    if opened.lm is None:
        _say("no language model, so alpha stays 0; `natjax lm train` makes one")
    tried = _try_all(args, opened, sources, [[line] for line in references])
    best = max(tried, key=lambda one: one.scores.bleu)
    if not args.dry_run:
        text = {"source": args.source, "reference": args.reference, "sentences": len(sources)}
        tuning.store(Path(args.model), best, opened, text)
    if args.plot and (picture := tuning.heat_map(tried)):
        atomic.write_bytes(args.plot, picture, UserError)
    elif args.plot:
        _say("no plot was made: matplotlib is not installed; pip install 'natjax[plot]' and run this again")
    (_print_json if args.json else _print_table)(tried, best)
    return 0


def _say(line: str) -> None:
    print(f"natjax: {line}", file=sys.stderr)


def _try_all(
    args: argparse.Namespace, opened: "Opened", sources: list[str], references: list[list[str]]
) -> "list[Tried]":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from natjax import tuning

    translator, lm = opened.translator, opened.lm
    decoding, language = translator.config.decoding, translator.config.data.target_language
    beams = args.beams or [decoding.ctc_beam_size]
    alphas = args.alphas if lm is not None else [0.0]
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))  # fmt: skip
    tried: dict[Point, Tried] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("model", total=None)
        tuner = tuning.Tuner(translator, lm, sources, references, tokenize=args.tokenize, language=language)
        points = tuning.grid(beams, alphas, args.betas)
        bar.update(task, description="points", total=len(points))
        if args.search == "coordinates":  # how many there will be, nobody knows
            bar.update(task, total=None)
            start = tuning.start(decoding, beams, alphas, args.betas)
            points = tuning.coordinates(lambda p: tried[p].scores.bleu, beams, alphas, args.betas, start)
        for point in points:
            tried[point] = tuner.score(point)
            bar.advance(task)
            console.print(_line(tried[point]), markup=False)
    return list(tried.values())


def _line(one: "Tried") -> str:
    p, s = one.point, one.scores
    return (
        f"beam {p.ctc_beam_size}  alpha {p.lm_weight:g}  beta {p.length_bonus:g}  BLEU {s.bleu:.2f}  "
        f"chrF2++ {s.chrf:.2f}  BP {s.bp:.3f}"
    )


def _print_json(tried: "list[Tried]", best: "Tried") -> None:
    points = [{**asdict(one.point), "bleu": one.scores.bleu, "chrf": one.scores.chrf, "bp": one.scores.bp}
              for one in tried]  # fmt: skip
    print(json.dumps({"best": points[tried.index(best)], "signature": best.scores.bleu_signature, "points": points}))


def _print_table(tried: "list[Tried]", best: "Tried") -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    beam = best.point.ctc_beam_size
    of_beam = {(t.point.lm_weight, t.point.length_bonus): t for t in tried if t.point.ctc_beam_size == beam}
    alphas, betas = sorted({a for a, _ in of_beam}), sorted({b for _, b in of_beam})
    table = Table("alpha \\ beta", *(f"{b:g}" for b in betas), box=SIMPLE)
    for a in alphas:
        cells = [of_beam.get((a, b)) for b in betas]
        table.add_row(f"{a:g}", *(f"{t.scores.bleu:.2f}{'*' if t is best else ''}" if t else "" for t in cells))
    print(f"BLEU with beam {beam}; * the best, {best.scores.bleu_signature}")
    Console().print(table)
    print(_line(best))
