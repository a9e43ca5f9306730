"""Errors that a person can cause and mend.

Each carries one line: what is wrong, where, and what to do. The command line prints that line and exits with
`exit_code`; it never shows a traceback for them. Anything else that escapes is a defect of natjax.
"""

import difflib
from collections.abc import Iterable


def one_line(error: BaseException | str) -> str:
    """What another program says, without its line breaks."""
    return " ".join(str(error).split())


def nearest(name: str, known: Iterable[str]) -> str:
    """What a mistyped name may have meant, as the end of a message."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""


class UserError(Exception):
    """Base of all errors that the user can mend. The message is a single line."""

    exit_code = 2


class ConfigError(UserError):
    """A config file or an override that does not describe a run (unknown field, wrong type, impossible value)."""


class DataError(UserError):
    """Text that cannot be used: missing file, not UTF-8, unequal line counts, nothing left after filtering."""


class PrefixError(DataError):
    """A prefix that leaves its translation no room.

    Attributes:
        place: of its line, from 0.
        reason: the message without the line.
    """

    def __init__(self, place: int, reason: str):
        super().__init__(f"line {place + 1}: {reason}")
        self.place, self.reason = place, reason


class VocabularyError(UserError):
    """A vocabulary that cannot be trained or does not belong to the model."""


class LanguageModelError(UserError):
    """A language model that cannot be read, estimated, or used with this model's vocabulary."""


class StoreError(UserError):
    """A token store that is incomplete, damaged, or made from other data than the config names."""


class WorkerError(UserError):
    """A process that was to do a part of the work and cannot be started, or has died."""


class WorkdirError(UserError):
    """A workdir that cannot be used: of another config, without a needed file, not writable."""


class BusyError(WorkdirError):
    """Another process is at work in a folder."""


class CheckpointError(UserError):
    """No usable checkpoint, or a checkpoint that cannot be written."""


class DivergedError(UserError):
    """Training produced a loss that is not finite."""


class Interrupted(UserError):
    """A signal asked the program to stop; everything was saved. Running the same command again continues.

    Exit code 75 (EX_TEMPFAIL) after SIGTERM, so that cluster managers requeue; 130 after Ctrl-C, as shells expect.
    """

    def __init__(self, message: str, *, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
