"""How the command line sets its process up. A program that imports natjax decides all this on its own."""

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from natjax.errors import UserError

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def set_up_jax() -> None:
    """Keeps compiled programs on disk between runs, and freed memory in the process.

    The programs lie in `$NATJAX_CACHE`, or in the user's cache folder; an empty `NATJAX_CACHE` turns that off, and so
    does a user without a home directory.
    """
    keep_freed_memory()
    import jax

    folder = os.environ.get("NATJAX_CACHE", _users_cache())
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _users_cache() -> str:
    try:
        return str(Path("~/.cache/natjax/compiled").expanduser())
    except RuntimeError:  # no $HOME and a user id that no name belongs to, as in containers
        return ""


@contextlib.contextmanager
def watched_stdout() -> Iterator[None]:
    """Inside, what the system refuses to write to stdout is a UserError, whoever writes; all is flushed at the end.

    A stdout that a program or a test has put in the place of the process's own is left alone.

    Raises:
        UserError: stdout is closed, or a write is refused (disk full).
        BrokenPipeError: the reader has gone, as in `natjax translate | head`.
    """
    if sys.stderr is None:  # closed: print would send its lines to stdout
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    before = sys.stdout
    if before is None:
        raise UserError("stdout is closed; give it a place, such as `natjax ... > file` or `> /dev/null`")
    if before is sys.__stdout__:
        before.flush()
        raw = io.BufferedWriter(_Stdout(before.fileno(), "w", closefd=False))
        line_buffering = before.line_buffering or before.write_through
        sys.stdout = io.TextIOWrapper(raw, before.encoding, before.errors, line_buffering=line_buffering)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout = before


class _Stdout(io.FileIO):
    """The process's stdout. An OSError does not tell which file refused it; this one does."""

    def write(self, data: bytes) -> int | None:
        """As FileIO's."""
        try:
            return super().write(data)
        except OSError as refusal:
            # What is still buffered goes nowhere, or Python would complain once more when it leaves.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(refusal, BrokenPipeError):
                raise
            raise UserError(
                f"stdout: cannot be written ({refusal.strerror}); free some space there, or write to another place"
            ) from refusal


def keep_freed_memory() -> bool:
    """Lets malloc keep what is freed instead of handing it back to the system.

    On CPU every run of a compiled program allocates its temporaries anew, hundreds of megabytes in a training step,
    from whichever thread is at hand. By default glibc maps and unmaps them each time, and the system clears every page
    again, which is an eighth of the demo's time (benchmarks/results/layers.json). So there is one arena, since those
    of threads give back what they hold as soon as it is free, and nothing is mapped apart.

    Returns:
        Whether this C library has the switch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    never = -1  # to trim; the largest int would trim what is above 2 GiB, which a large batch's temporaries are
    options = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: never, _TOP_PAD: 64 << 20}
    return all(mallopt(option, value) for option, value in options.items())
