"""natjax translate: line in, line out."""

import argparse
import dataclasses
import io
import json
import queue
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

from natjax.cli.model import add_decoding, load
from natjax.errors import DataError

SUMMARY = "translate stdin to stdout, line by line"
EPILOG = """examples:
  natjax translate --model runs/demo < in.en > out.de
  echo "The very clever boy often feeds the dog here." | natjax translate --model runs/demo
  natjax translate --model runs/demo --json < in.en | jq .score

Text in and out is UTF-8, whatever the locale. Order is kept, an empty line stays empty, and each block of lines is
flushed as soon as it is translated. A line of more pieces than decoding.max_source_length is cut after a sentence's end
or between words, its parts are translated and joined by a space; that is said on stderr with the line's number, and
--json gives the number of segments.
"""

BLOCK = 2048  # lines that are translated together when they are there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train` or `natjax demo`")
    add_decoding(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line: text, tokens, frames, score ...")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Translates until stdin ends.

    Raises:
        UserError: the model cannot be used, or stdin cannot be read.
    """
    from natjax.cli.runtime import set_up_jax

    set_up_jax()
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a program has put something else in its place
        sys.stdout.reconfigure(encoding="utf-8", errors="strict", newline="\n")
    translator = load(args, lambda line: print(f"natjax: {line}", file=sys.stderr))
    number = 0  # of lines that came before the block

    def on_cut(place: int, segments: int) -> None:
        print(f"natjax: line {number + place + 1}: too long, cut into {segments} segments", file=sys.stderr)

    for lines in _blocks():
        if args.json:
            details = translator.translate_with_details(lines, on_cut=on_cut)
            texts = [json.dumps(dataclasses.asdict(detail), ensure_ascii=False) for detail in details]
        else:
            texts = translator.translate(lines, on_cut=on_cut)
        sys.stdout.writelines(text + "\n" for text in texts)
        sys.stdout.flush()
        number += len(lines)
    return 0


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
