"""Text as blocks of lines, so that no file is ever held whole. It is read several times: each `blocks` begins anew."""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple, Protocol

from natjax.errors import DataError

BLOCK = 4096
"""Lines of a block, the last one excepted: some hundred kilobytes of text, a twentieth of a second of work."""

_BUFFER = 1 << 20


class Lines(Protocol):
    """One side of a corpus."""

    def blocks(self) -> Iterator[list[str]]:
        """The raw lines, `BLOCK` at a time."""


@dataclass(frozen=True)
class FileLines:
    """The raw lines of a UTF-8 text file, `.gz` too.

    Only LF and CRLF end a line. Unicode's other separators (U+2028, U+0085, form feed) stay inside it: splitting
    there would shift one side of a parallel corpus against the other. A leading byte order mark is dropped.
    """

    path: Path

    def blocks(self) -> Iterator[list[str]]:
        """As `Lines`.

        Raises:
            DataError: no such file, not readable, not UTF-8 (with line and byte offset), damaged gzip.
        """
        line, offset = 1, 0
        try:
            with self._open() as file:
                while raw := list(islice(file, BLOCK)):
                    data = b"".join(raw)
                    yield self._decode(data, line, offset)
                    line, offset = line + len(raw), offset + len(data)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: damaged gzip file ({error}); fetch it again") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); check the path") from None

    def _open(self) -> io.BufferedReader:
        if self.path.suffix == ".gz":  # GzipFile splits lines in Python, a buffer around it in C
            return io.BufferedReader(gzip.open(self.path, "rb"), _BUFFER)
        return self.path.open("rb", buffering=_BUFFER)

    def _decode(self, data: bytes, line: int, offset: int) -> list[str]:
        """The lines of a block that begins at this line (from 1) and byte."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line += data.count(b"\n", 0, error.start)
            raise DataError(
                f"{self.path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x} at offset {offset + error.start}); "
                f"convert the file, for example with iconv"
            ) from None
        if offset == 0:
            text = text.removeprefix("\ufeff")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        return [line.removesuffix("\r") for line in lines]

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class HeldLines:
    """Lines that are there already."""

    lines: list[str]

    def blocks(self) -> Iterator[list[str]]:
        """As `Lines`."""
        for start in range(0, len(self.lines), BLOCK):
            yield self.lines[start : start + BLOCK]

    def __str__(self) -> str:
        return "text in memory"


class Corpus(NamedTuple):
    """Two sides whose lines translate each other, and a score of each pair where there are scores."""

    source: Lines
    target: Lines
    scores: FileLines | None = None

    def blocks(self) -> Iterator[tuple[list[str], list[str]]]:
        """Blocks of both sides, of equal length.

        Raises:
            DataError: as `FileLines`, or the sides differ in their number of lines.
        """
        for source, target in zip_longest(self.source.blocks(), self.target.blocks(), fillvalue=[]):
            if len(source) != len(target):
                raise DataError(
                    f"{self.source} has {count(self.source):,} lines but {self.target} has {count(self.target):,}; "
                    f"line i of one must translate line i of the other"
                )
            yield source, target


def count(lines: Lines) -> int:
    """How many there are."""
    return sum(map(len, lines.blocks()))


def held(corpus: Corpus) -> tuple[list[str], list[str]]:
    """All lines of both sides. Raises DataError as `Corpus.blocks`."""
    sides: tuple[list[str], list[str]] = [], []
    for block in corpus.blocks():
        for side, lines in zip(sides, block, strict=True):
            side += lines
    return sides
