"""natjax translate: line in, line out."""

import argparse
import dataclasses
import io
import json
import queue
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from natjax.cli.model import add_decoding, load
from natjax.errors import DataError, PrefixError, UserError

if TYPE_CHECKING:
    from natjax.segments import OnCut
    from natjax.translator import Translator

SUMMARY = "translate stdin to stdout, line by line"
EPILOG = """examples:
  natjax translate --model runs/demo < in.en > out.de
  echo "The very clever boy often feeds the dog here." | natjax translate --model runs/demo
  natjax translate --model runs/demo --json < in.en | jq .score
  natjax translate --model runs/teacher --n-best 5 < in.en | awk -F '\\t' '$1 == 3'      # all that line 3 has
  natjax translate --model runs/teacher --prefix begin.de < in.en > out.de

Text in and out is UTF-8, whatever the locale. Order is kept, an empty line stays empty, and each block of lines is
flushed as soon as it is translated. A line of more pieces than decoding.max_source_length is cut after a sentence's end
or between words, its parts are translated and joined by a space; that is said on stderr with the line's number, and
--json gives the number of segments.

--n-best N prints up to N translations a line, the best first, each on a line of its own: the line's number, from 1,
what it is ranked by, and the text, separated by tabs. An empty line has its one empty translation. With --json there is
one object a line as ever, whose n_best, and the lists of their scores, have N entries at most.

--prefix F forces how translations begin: line i of F is for line i of stdin, and empty where nothing is forced. It is
for autoregressive models.
"""

_N_BEST = ("n_best", "n_best_scores", "n_best_ctc_scores", "n_best_lm_scores")

BLOCK = 2048  # lines that are translated together when they are there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train` or `natjax demo`")
    add_decoding(parser)
    parser.add_argument("--n-best", metavar="N", type=int, help="up to N translations a line: number, score, text")
    parser.add_argument("--prefix", metavar="F", help="file with the words that each translation has to begin with")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: text, tokens, frames, score ...")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Translates until stdin ends.

    Raises:
        UserError: the model cannot be used, or not so, or stdin or the prefixes cannot be read.
    """
    from natjax.cli.runtime import set_up_jax
    from natjax.data.corpus import read_lines
    from natjax.prefixes import check

    prefixes = read_lines(args.prefix) if args.prefix else None
    set_up_jax()
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a program has put something else in its place
        sys.stdout.reconfigure(encoding="utf-8", errors="strict", newline="\n")
    translator = load(args, lambda line: print(f"natjax: {line}", file=sys.stderr))
    if args.n_best is not None and not 1 <= args.n_best <= translator.hypotheses:
        raise UserError(
            f"--n-best {args.n_best}: must be from 1 to {translator.hypotheses}, what {translator.way} decoding gives; "
            "search wider with --decode and --decoding.*, or ask for fewer"
        )
    if prefixes is not None:
        check(translator.config)
    number = 0  # of lines that came before the block

    def on_cut(place: int, segments: int) -> None:
        print(f"natjax: line {number + place + 1}: too long, cut into {segments} segments", file=sys.stderr)

    for lines in _blocks():
        some = None if prefixes is None else prefixes[number : number + len(lines)]
        if some is not None and len(some) < len(lines):
            raise DataError(f"{args.prefix}: has {len(prefixes):,} lines, but stdin has more; give a prefix for each")
        try:
            sys.stdout.writelines(line + "\n" for line in _output(translator, lines, some, number, args, on_cut))
        except PrefixError as error:
            raise DataError(f"{args.prefix}:{number + error.place + 1}: {error.reason}") from None
        sys.stdout.flush()
        number += len(lines)
    if prefixes is not None and number < len(prefixes):
        raise DataError(f"{args.prefix}: has {len(prefixes):,} lines, but stdin only {number:,}; align them by line")
    return 0


def _output(
    translator: "Translator",
    lines: list[str],
    prefixes: list[str] | None,
    number: int,
    args: argparse.Namespace,
    on_cut: "OnCut",
) -> Iterator[str]:
    """What is printed for a block, before which `number` lines came."""
    if not args.json and args.n_best is None:
        yield from translator.translate(lines, prefixes=prefixes, on_cut=on_cut)
        return
    for line, detail in enumerate(translator.translate_with_details(lines, prefixes=prefixes, on_cut=on_cut), 1):
        lists = {name: getattr(detail, name)[: args.n_best] for name in _N_BEST}
        if args.json:
            yield json.dumps(dataclasses.asdict(dataclasses.replace(detail, **lists)), ensure_ascii=False)
        else:
            pairs = zip(lists["n_best"], lists["n_best_scores"], strict=True)
            yield from (f"{number + line}\t{score:.6f}\t{text}" for text, score in pairs)


def _blocks() -> Iterator[list[str]]:
    """Lines of stdin in blocks: all that have arrived, but at least one. A person at a terminal gets an answer to
    each line, a file is translated in large batches.

    Raises:
        DataError: a line is not UTF-8; the lines before it have been given out.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise DataError("stdin is closed; give the text as `natjax translate ... < file`")
    lines: queue.Queue[bytes | None] = queue.Queue(maxsize=4 * BLOCK)
    refused: list[OSError] = []

    def read() -> None:
        try:
            for line in _stdin():
                lines.put(line)
        except OSError as error:
            refused.append(error)
        lines.put(None)

    threading.Thread(target=read, name="natjax-stdin", daemon=True).start()
    number, ended = 0, False
    while not ended:
        raw = [lines.get()]
        while raw[-1] is not None and len(raw) < BLOCK:
            try:
                # A pipe delivers many lines at once; the short wait lets the reader catch up with it.
                raw.append(lines.get(timeout=0.002))
            except queue.Empty:
                break
        ended = raw[-1] is None
        block, error = [], None
        for line in filter(None, raw):
            number += 1
            try:
                block.append(line.decode().rstrip("\r\n"))
            except UnicodeDecodeError as fault:
                error = DataError(f"stdin:{number}: not UTF-8 (byte {fault.start} of the line); convert it with iconv")
                break
        if block:
            yield block
        if error:
            raise error
    if refused:
        raise DataError(f"stdin: cannot be read ({refused[0].strerror}); give the text as `... < file`")


def _stdin() -> BinaryIO:
    """Stdin for a thread that may still wait for a line when the program leaves. Python then closes its own reader,
    and breaks down if somebody is reading from it.
    """
    return open(sys.stdin.fileno(), "rb", closefd=False) if sys.stdin is sys.__stdin__ else sys.stdin.buffer
