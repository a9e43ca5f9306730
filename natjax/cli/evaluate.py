"""natjax evaluate: scores of a model, or of translations that stand in a file."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from natjax.cli.model import add_decoding, decoding_of, load
from natjax.errors import DataError, UserError

if TYPE_CHECKING:
    from natjax.evaluation.metrics import Scores
    from natjax.evaluation.significance import Comparison
    from natjax.translator import Translator

SUMMARY = "BLEU and chrF2++ of a model or of a file of translations"
EPILOG = """examples:
  natjax evaluate --model runs/demo --source test.en --reference test.de --output test.hyp.de
  natjax evaluate --hypothesis test.hyp.de --reference test.de --baseline teacher.hyp.de
  natjax evaluate --hypothesis test.tok.de --reference ref0.tok.de ref1.tok.de --tokenize none --json

"seconds" is what --model takes to translate --source, text to text: the model is loaded by then, and every program that
the text needs has been compiled and run once. An over-long line is cut, as by natjax translate; stderr says which.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="W", help="workdir; its translations of --source are scored")
    what.add_argument("--hypothesis", metavar="F", help="file of translations to score instead")
    parser.add_argument("--source", metavar="F", help="source text; needed by --model and --metric-plugin")
    parser.add_argument(
        "--reference",
        metavar="F",
        nargs="+",
        required=True,
        help="reference translations; of several files each gives one reference a line, none where its line is empty",
    )
    parser.add_argument("--baseline", metavar="F", help="translations of another system: paired bootstrap against it")
    parser.add_argument(
        "--tokenize", metavar="T", default="13a", help="tokens of BLEU: 13a (default), none, moses, ja-mecab, zh, ..."
    )
    parser.add_argument(
        "--compound-split", action="store_true", help="break words at inner hyphens, as some WMT14 En-De papers do"
    )
    parser.add_argument(
        "--language",
        metavar="L",
        help="target language of --tokenize moses (default: the model's; de for --hypothesis)",
    )
    parser.add_argument(
        "--metric-plugin", metavar="F", help="Python file with score(sources, hypotheses, references) -> {name: number}"
    )
    parser.add_argument("--output", metavar="F", help="write the translations of --model here")
    add_decoding(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Scores, prints, returns 0.

    Every input is checked before the model is loaded, so that no mistake costs a translation.

    Raises:
        UserError: options that do not go together, unusable files, tokenization or plugin.
    """
    if args.model and not args.source:
        raise UserError("--model needs the text to translate; add --source FILE")
    if decoding_of(args) and not args.model:
        raise UserError("--decoding.* is for the translations of a model; use it with --model only")
    if args.output and not args.model:
        raise UserError("--output writes the translations of a model; use it with --model only")
    if args.output and not Path(args.output).parent.is_dir():
        raise UserError(f"{args.output}: its folder does not exist; make it first")
    if args.output and (Path(args.output).is_dir() or not os.access(Path(args.output).parent, os.W_OK)):
        raise UserError(f"{args.output}: cannot be written; name another file")
    for name in [*args.reference, args.source, args.baseline]:
        if args.output and name and Path(name).resolve() == Path(args.output).resolve():
            raise UserError(f"{args.output}: is read, too; name another file for --output")
    if args.metric_plugin and not args.source:
        raise UserError("--metric-plugin is given the source too; add --source FILE")

    from natjax import atomic
    from natjax.data.corpus import read_lines
    from natjax.evaluation.metrics import bleu_metric, load_metric_plugin, score
    from natjax.evaluation.significance import paired_bootstrap

    names = [name for name in (args.hypothesis, args.source, args.baseline) if name]
    texts = {name: read_lines(name) for name in [*args.reference, *names]}
    _check_alignment(texts)
    references = _gather_references(args.reference, [texts[name] for name in args.reference])
    tokens = {"tokenize": args.tokenize, "compound_split": args.compound_split, "language": args.language or "de"}
    bleu_metric(**tokens)
    plugin = load_metric_plugin(args.metric_plugin) if args.metric_plugin else None

    seconds = None
    if args.model:
        from natjax.cli.runtime import set_up_jax

        set_up_jax()
        translator = load(args, _say)
        tokens["language"] = args.language or translator.config.data.target_language
        hypotheses, seconds = _translate(translator, args.source, texts[args.source])
        if args.output:
            atomic.write_text(args.output, "".join(line + "\n" for line in hypotheses), UserError)
    else:
        hypotheses = texts[args.hypothesis]

    scores = score(hypotheses, references, **tokens)
    extra = plugin(texts[args.source], hypotheses, references) if plugin else {}
    comparisons = paired_bootstrap(hypotheses, texts[args.baseline], references, **tokens) if args.baseline else {}
    (_print_json if args.json else _print_table)(scores, extra, comparisons, seconds)
    return 0


def _say(line: str) -> None:
    print(f"natjax: {line}", file=sys.stderr)


def _translate(translator: "Translator", file: str, lines: list[str]) -> tuple[list[str], float]:
    """The translations, and the seconds that they took once everything was compiled."""
    translator.warm_up(lines)
    start = time.perf_counter()
    translations = translator.translate(
        lines, on_cut=lambda place, count: _say(f"{file}:{place + 1}: too long, cut into {count} segments")
    )
    return translations, time.perf_counter() - start


def _check_alignment(texts: dict[str, list[str]]) -> None:
    first, *others = texts
    if not texts[first]:
        raise DataError(f"{first}: has no lines; give at least one reference")
    for name in others:
        if len(texts[name]) != len(texts[first]):
            raise DataError(
                f"{name}: {len(texts[name])} lines, but {first} has {len(texts[first])}; align them by line"
            )


def _gather_references(names: list[str], columns: list[list[str]]) -> list[list[str]]:
    """References by sentence; an empty line is a reference of its own only where there is a single file."""
    if len(columns) == 1:
        return [[line] for line in columns[0]]
    references = [[line for line in lines if line.strip()] for lines in zip(*columns)]
    for number, some in enumerate(references, 1):
        if not some:
            raise DataError(f"{names[0]}:{number}: no reference in any of the {len(names)} files; give at least one")
    return references


def _print_json(
    scores: "Scores", plugin: dict[str, float], comparisons: dict[str, "Comparison"], seconds: float | None
) -> None:
    report = {
        **scores.as_dict(),
        "seconds": seconds,
        "plugin": plugin,
        "baseline": {name: comparison._asdict() for name, comparison in comparisons.items()},
    }
    print(json.dumps(report, ensure_ascii=False))


def _print_table(
    scores: "Scores", plugin: dict[str, float], comparisons: dict[str, "Comparison"], seconds: float | None
) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", box=SIMPLE)
    table.add_column("score", justify="right")
    if comparisons:
        for heading in ("- baseline", "95% interval", "p"):
            table.add_column(heading, justify="right")
    rows = [(f"BLEU ({scores.tokenize})", f"{scores.bleu:.2f}", "bleu"), ("chrF2++", f"{scores.chrf:.2f}", "chrf")]
    rows += [(escape(name), f"{value:.4f}", "") for name, value in plugin.items()]
    rows += [
        ("brevity penalty", f"{scores.bp:.3f}", ""),
        ("length ratio", f"{scores.length_ratio:.3f}", ""),
        ("repeated words", f"{scores.repetition_rate:.2f}%", ""),
        ("sentences", f"{scores.sentences}", ""),
    ]
    if seconds is not None:
        rows.append(("seconds", f"{seconds:.2f}", ""))
    for label, value, metric in rows:
        table.add_row(label, value, *(_cells(comparisons[metric]) if metric in comparisons else ()))
    Console().print(table)
    print(f"BLEU    {scores.bleu_signature}")
    print(f"chrF2++ {scores.chrf_signature}")


def _cells(comparison: "Comparison") -> tuple[str, str, str]:
    low, high = comparison.interval
    return f"{comparison.difference:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{comparison.p_value:.3f}"
