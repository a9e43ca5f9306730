"""When the files of a store must be compared with their checksums again: whenever one of them may have changed.

Reading gigabytes at every start, on every host, costs more than it finds: what damages a file in transfer, or by a
careless program, changes its times. So after a comparison that found nothing, `verified.json` records size,
modification and change time of each file (mtime, ctime; no program can set the latter), and while all stay the same
nothing is read. A copied store is compared once, since its files are new. Decay of a medium that the file system does
not notice changes no time: `natjax prepare --verify` finds it. A comparison at each start does not either, once a
training is under way, since the files are read all the while.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from natjax.atomic import write_text
from natjax.errors import StoreError

STAMP = "verified.json"

_SETTLED = 2.0
"""Seconds that a file must be old to be recorded: within the resolution of a file system's clock, two changes may leave
the same times."""


@contextmanager
def once(folder: Path, files: dict[str, Any], *, again: bool = False) -> Iterator[bool]:
    """Yields whether the files must be compared now, and records their state when the block ends well.

    A folder that cannot be written holds no record: there the files are compared each time.

    Args:
        folder: the store.
        files: its metadata's `files`.
        again: compare them in any case.
    """
    before = _state(folder, files)
    if not again and _recorded(folder) == before:
        yield False
        return
    yield True
    youngest = max((time for _, *times in before.values() for time in times[1:]), default=0)
    if _state(folder, files) == before and youngest < (time.time() - _SETTLED) * 1e9:
        with suppress(StoreError):
            write_text(folder / STAMP, json.dumps(before, indent=2) + "\n", StoreError)


def _state(folder: Path, files: dict[str, Any]) -> dict[str, list[Any]]:
    """File name -> checksum that is expected, size, mtime and ctime in nanoseconds."""
    found = {name: (folder / name).stat() for name in files}
    return {name: [files[name]["sha256"], s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in found.items()}


def _recorded(folder: Path) -> Any:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
