"""Blocks of a corpus encoded by several processes, in the order of the corpus.

The processes are programs of their own, started afresh: a fork would copy the locks of JAX's threads, and
`multiprocessing` would run the caller's main program once more in each. They import no JAX, get blocks and send arrays
through a socket, write no file, and end when it closes, so none outlives the process that started it.
"""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from natjax.data.corpus import FilterReport, Limits
from natjax.data.encoding import Encoded, Encoder, Ragged
from natjax.data.vocab import Vocabularies, Vocabulary
from natjax.errors import WorkerError

Block = tuple[list[str], list[str]]

PAIRS_PER_PROCESS = 50_000
"""Another process is worth its start from this many pairs on."""

_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from natjax.data.workers import serve; serve(int(sys.argv[1]))"
_UNDER_WAY = 2  # blocks for each process: one at work, one that waits


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def encoded(
    blocks: Iterator[Block], pairs: int, vocabularies: Vocabularies, limits: Limits, processes: int
) -> Iterator[Encoded]:
    """Encodes blocks in as many processes as are worth it, in this one if one is.

    Args:
        blocks: raw lines of both sides.
        pairs: how many there are in all.
        vocabularies: of both sides.
        limits: which pairs are kept.
        processes: how many at most.

    Yields:
        One result a block, in order; those of a few blocks are under way.

    Raises:
        WorkerError: a process cannot be started, or has died.
    """
    processes = min(processes, 1 + pairs // PAIRS_PER_PROCESS)
    if processes == 1:
        encoder = Encoder(vocabularies, limits)
        yield from (encoder.encode(*block) for block in blocks)
        return
    with closing(Workers(vocabularies, limits, processes)) as workers:
        yield from workers.encode(blocks)


class _Worker(NamedTuple):
    process: subprocess.Popen
    connection: Connection


class Workers:
    """Processes that encode. Close it, or they wait for ever."""

    def __init__(self, vocabularies: Vocabularies, limits: Limits, processes: int):
        """Starts them. Raises WorkerError where the system refuses."""
        self.workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._limits, self._dtype = limits, Encoder(vocabularies, limits).dtype
        # A thread for each process waits for its answers.
        self._threads = ThreadPoolExecutor(processes, "natjax-encode")
        try:
            for _ in range(processes):
                self._start(vocabularies)
        except OSError as error:
            self.close()
            raise WorkerError(
                f"cannot start {processes} processes that encode ({error.strerror}); give fewer --processes"
            ) from error

    def _start(self, vocabularies: Vocabularies) -> None:
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is for the process that started it
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        worker = _Worker(process, ours)
        self.workers.append(worker)
        self._threads.submit(self._set_up, worker, vocabularies)

    def _set_up(self, worker: _Worker, vocabularies: Vocabularies) -> None:
        models = [vocabulary.model for vocabulary in vocabularies.files().values()]
        with suppress(OSError):  # who asks it for a block finds out that it has died
            for message in (json.dumps(asdict(self._limits)).encode(), bytes([len(models)]), *models):
                worker.connection.send_bytes(message)
        self._idle.put(worker)

    def encode(self, blocks: Iterator[Block]) -> Iterator[Encoded]:
        """As `encoded`."""
        under_way: deque = deque()
        for block in blocks:
            under_way.append(self._threads.submit(self._ask, block))
            if len(under_way) >= _UNDER_WAY * len(self.workers):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        for worker in self.workers:
            worker.process.kill()  # its thread, if it waits, sees the end of the connection
        self._threads.shutdown(cancel_futures=True)
        for worker in self.workers:
            worker.process.wait()
            worker.connection.close()

    def _ask(self, block: Block) -> Encoded:
        """Has a block encoded by the next process that is idle."""
        worker = self._idle.get()
        connection = worker.connection
        try:
            for lines in block:
                connection.send_bytes("\n".join(lines).encode())
            counts = FilterReport(self._limits, **json.loads(connection.recv_bytes()))
            sides = [
                Ragged(*(np.frombuffer(connection.recv_bytes(), dtype) for dtype in (self._dtype, np.int32)))
                for _ in range(2)
            ]
            return Encoded(*sides, counts)
        except (EOFError, OSError):
            raise _died(worker.process) from None
        finally:
            self._idle.put(worker)  # a dead one too: who waits for it must hear of it


def _died(process: subprocess.Popen) -> WorkerError:
    try:
        code = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        code = None
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}, as happens when memory runs out"
    else:
        how = f"ended with exit code {code}; its own message stands above"
    return WorkerError(f"a process that encodes {how}; run the same command again, with fewer --processes")


def serve(descriptor: int) -> None:
    """The program of a worker: encodes what comes through a socket until it closes."""
    # Cluster managers send it to all processes: the one that started this one heeds it, and closes the socket.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError), Connection(descriptor) as connection:
        limits = Limits(**json.loads(connection.recv_bytes()))
        models = [Vocabulary(connection.recv_bytes()) for _ in range(connection.recv_bytes()[0])]
        encoder = Encoder(Vocabularies(models[0], models[-1]), limits)
        while True:
            source, target = (connection.recv_bytes().decode().split("\n") for _ in range(2))
            result = encoder.encode(source, target)
            connection.send_bytes(json.dumps(result.counts.counts()).encode())
            for array in (*result.source, *result.target):
                connection.send_bytes(array.tobytes())
