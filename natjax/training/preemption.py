"""Signals that ask a long run to stop: noticed between two pieces of work, never inside one."""

import signal
import threading
from types import FrameType

from natjax.errors import Interrupted

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class StopRequest:
    """While active, SIGTERM and Ctrl-C raise `Interrupted`, and half-written files are cleaned up on the way out.

    After `defer` they only set a flag: every long loop asks `requested`, saves, and raises `interrupted(...)`. A second
    Ctrl-C ends the program at once. Outside the main thread of a program, where no handler may be set, nothing happens.
    """

    def __init__(self, until_deferred: str = "before this run added anything; run the same command again") -> None:
        """Args: until_deferred: how the line ends that tells of a signal before `defer`."""
        self._until_deferred = until_deferred
        self.signal: signal.Signals | None = None
        self._deferred = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in EXIT_CODES:
                self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        # One that the work inside did not heed, since it was about to end, is for the work around it.
        outer = getattr(self._previous.get(self.signal), "__self__", None)
        if isinstance(outer, StopRequest) and not (kind and issubclass(kind, Interrupted | KeyboardInterrupt)):
            outer._notice(self.signal, None)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if not self._deferred:
            raise self.interrupted(f"stopped by {self.signal.name} {self._until_deferred}")

    def defer(self) -> None:
        """From now on there is something to save."""
        self._deferred = True

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None

    def interrupted(self, message: str) -> Interrupted:
        """The error to raise once everything is saved."""
        return Interrupted(message, exit_code=EXIT_CODES[self.signal])
