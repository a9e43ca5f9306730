"""The lines of an ARPA file, with their numbers for what is wrong with one."""

import gzip
import zlib
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from natjax.errors import LanguageModelError

_KENLM = b"mmap lm http://kheafield.com/code"
_GZIP = b"\x1f\x8b"


class Lines:
    """Reads a text file line by line, compressed by gzip or not.

    Attributes:
        number: of the line that was read last, from 1.
    """

    def __init__(self, path: str | Path):
        """Opens the file. Raises LanguageModelError for one that cannot be read, and for a KenLM binary."""
        self.path, self.number, self._pushed = Path(path), 0, False
        self._line, self._ended = "", False
        try:
            with self.path.open("rb") as file:
                start = file.read(len(_KENLM))
            if start == _KENLM:
                raise LanguageModelError(
                    f"{path}: a KenLM binary, which only KenLM reads; give the ARPA file that build_binary made it "
                    "from, or estimate one with `natjax lm train`"
                )
            opener = gzip.open if start.startswith(_GZIP) else open
            self._file: BinaryIO = opener(self.path, "rb")
        except OSError as error:
            raise LanguageModelError(f"{path}: cannot be read ({error.strerror}); check the path") from None

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def error(self, message: str, number: int | None = None) -> LanguageModelError:
        """The error of a line, by default of the one that was read last."""
        return LanguageModelError(f"{self.path}:{self.number if number is None else number}: {message}")

    def next(self) -> str:
        """The next line that is not empty. Raises LanguageModelError at the end of the file."""
        if self._pushed:
            self._pushed = False
            return self._line
        while True:
            line = self.block(1)[0]
            if line:
                self._line = line
                return line

    def back(self) -> None:
        """Lets `next` give the last line once more."""
        self._pushed = True

    def expect(self, header: str, *, first: bool = False) -> None:
        """Goes to a header, which must be the next line; the first one may have others before it."""
        try:
            found = self.next()
            while first and found != header:
                found = self.next()
        except LanguageModelError:
            if first and self._ended:
                raise LanguageModelError(
                    f"{self.path}: no line says {header}, so not an ARPA file; `natjax lm train --arpa F` writes one"
                ) from None
            raise
        if found != header:
            raise self.error(f"{found[:60]!r} where {header} belongs")

    def block(self, size: int) -> list[str]:
        """The next lines, empty ones too, without blanks at their ends; at most `size`, at least one.

        Raises:
            LanguageModelError: the file has ended, is damaged or not UTF-8.
        """
        try:
            raw = list(islice(self._file, size))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise self.error(f"damaged gzip file after this line ({error}); fetch it again") from None
        except OSError as error:
            raise LanguageModelError(f"{self.path}: cannot be read ({error.strerror}); check the path") from None
        if not raw:
            self._ended = True
            raise self.error("the file ends here, before its \\end\\; it is truncated, write it again")
        try:
            lines = b"".join(raw).decode("utf-8").split("\n")
        except UnicodeDecodeError:
            for i, line in enumerate(raw, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise self.error(
                        f"not UTF-8 (byte 0x{line[error.start]:02x}); give a text file in UTF-8", self.number + i
                    ) from None
            raise
        self.number += len(raw)
        return [line.rstrip(" \t\r") for line in lines[: len(raw)]]
