"""Signals that ask a long run to stop: noticed between two pieces of work, never inside one."""

import signal
from types import FrameType

from natjax.errors import Interrupted

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class StopRequest:
    """While active, SIGTERM and Ctrl-C only set a flag; a second Ctrl-C ends the program at once.

    Every long loop asks `requested`, saves, and raises `interrupted(...)`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in EXIT_CODES:
            self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None

    def interrupted(self, message: str) -> Interrupted:
        """The error to raise once everything is saved."""
        return Interrupted(message, exit_code=EXIT_CODES[self.signal])
