"""Batches made ahead of time in a background thread, so that the device does not wait for the host."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from natjax.data.store import Batch


class Feed:
    """Iterates over (step, batch), in order, while a thread prepares the next ones.

    Use it as a context manager, or call `close`: the thread then ends at once, even in the middle of an epoch.

    Attributes:
        waited_seconds: how long the consumer has waited for batches; near zero if the thread keeps up.
    """

    def __init__(self, make_batch: Callable[[int], Batch], start_step: int, stop_step: int, depth: int = 2):
        """Starts the thread.

        Args:
            make_batch: step -> batch; called in the thread, steps in order.
            start_step: the first step.
            stop_step: one after the last step.
            depth: batches kept ready at most.
        """
        self.waited_seconds = 0.0
        self._ready: deque[tuple[int, Any]] = deque()
        self._depth = depth
        self._closed = False
        self._finished = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, args=(make_batch, range(start_step, stop_step)), name="natjax-feed", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        return self

    def __next__(self) -> tuple[int, Batch]:
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._finished or self._closed)
            self.waited_seconds += time.perf_counter() - started
            if self._ready and not self._closed:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None and not self._closed:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """Stops the thread and waits until it has ended: at most the making of one batch."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, make_batch: Callable[[int], Batch], steps: range) -> None:
        try:
            for step in steps:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                batch = make_batch(step)
                with self._changed:
                    self._ready.append((step, batch))
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, the consumer must see it: a silent thread would hang the run
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()
