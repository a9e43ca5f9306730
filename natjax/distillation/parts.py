"""Finished blocks on disk: what a killed run leaves to the next one, and shards to whoever comes last.

OUTPUT.parts/index.json           what is being made: checksums of source and teachers, settings
OUTPUT.parts/<number>.json        the result of one block, which appears whole or not at all
OUTPUT.parts/<i>-of-<n>.lock      locked while a process works on shard i of n
OUTPUT.parts/join.lock            locked while a process joins

Locks are on files that are open for writing, since NFS, which passes them on between hosts, gives no others.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from natjax import atomic
from natjax.errors import UserError

INDEX = "index.json"

_LOOK = 0.2  # seconds between two looks at a lock that another process holds


class Parts:
    """The folder of one output's finished blocks."""

    def __init__(self, output: Path, blocks: int):
        """Args: output: the file that the blocks will be joined into; blocks: how many it has."""
        self.folder, self.blocks = output.with_name(f"{output.name}.parts"), blocks

    def check(self, identity: dict[str, Any]) -> None:
        """Raises UserError if blocks of something else lie there."""
        found = read_json(self.folder / INDEX)
        if found is not None and (changes := differences(found, identity)):
            raise UserError(
                f"{self.folder}: holds blocks made otherwise ({changes}); finish that run first, "
                "or remove the folder to begin anew"
            )

    @contextmanager
    def shard(self, number: int, count: int, identity: dict[str, Any]) -> Iterator[None]:
        """Keeps other processes out of a shard, and claims the folder.

        Args:
            number: from 1.
            count: of shards.
            identity: what is being made.

        Raises:
            UserError: another process works on this shard, the folder cannot be written, or it cannot be locked.
        """
        with atomic.refusals(self.folder, UserError):
            self.folder.mkdir(exist_ok=True)
            file = (self.folder / f"{number}-of-{count}.lock").open("w")
        with file:
            if not _locked(file):
                raise UserError(
                    f"{self.folder}: another process works on shard {number}/{count}; wait for it, "
                    "or name another with --shard"
                )
            atomic.clear_leftovers(self.folder)
            self.check(identity)
            if not (self.folder / INDEX).exists():
                atomic.write_text(self.folder / INDEX, json.dumps(identity, indent=2) + "\n", UserError)
            yield

    @contextmanager
    def joining(self, waiting: Callable[[], None]) -> Iterator[bool]:
        """Lets one process join at a time.

        Args:
            waiting: called again and again while another process joins; it may raise to stop waiting.

        Yields:
            Whether all blocks are there. Where none is the folder has been removed: another process has joined.

        Raises:
            UserError: the folder cannot be written or locked.
        """
        try:
            with atomic.refusals(self.folder, UserError):
                file = (self.folder / "join.lock").open("w")
        except UserError:
            if self.folder.exists():
                raise
            yield False
            return
        with file:
            while not _locked(file):
                waiting()
                time.sleep(_LOOK)
            yield (self.folder / INDEX).exists() and not self.missing()

    def write(self, number: int, result: dict[str, Any]) -> None:
        """Keeps a block. Raises UserError where the system refuses."""
        atomic.write_text(self._file(number), json.dumps(result, ensure_ascii=False) + "\n", UserError)

    def read(self, number: int) -> dict[str, Any]:
        """A block. Raises UserError if it is damaged."""
        result = read_json(self._file(number))
        if not isinstance(result, dict) or not {"rows", "cut", "counts", "seconds"} <= result.keys():
            raise UserError(f"{self._file(number)}: damaged; remove this file and run the same command again")
        return result

    def of_shard(self, number: int, count: int) -> range:
        """Numbers of a shard's blocks: neighbours go to different shards, so that all have as much to do."""
        return range(number - 1, self.blocks, count)

    def missing(self, number: int = 1, count: int = 1) -> list[int]:
        """Numbers of the blocks that are not there, of a shard or of all."""
        return [block for block in self.of_shard(number, count) if not self._file(block).exists()]

    def remove(self) -> None:
        """Removes the folder, once all is joined."""
        atomic.remove_folder(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.json"


def _locked(file: IO[str]) -> bool:
    """Takes a lock until the file is closed, unless another process has it. Raises UserError where there are none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name}: cannot be locked ({error.strerror}); name an --output on a file system that has locks"
        ) from None
    return True


def read_json(file: Path) -> Any:
    """What a file of ours holds; None if it is not there. Raises UserError if it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); mend its permissions") from None
    except ValueError:
        raise UserError(f"{file}: damaged; remove this file and run the same command again") from None


def differences(found: Any, wanted: dict[str, Any]) -> str:
    """How what was made differs from what is wanted, in words; empty if it does not."""
    if not isinstance(found, dict):
        return "of an unknown kind"
    said = [
        _difference(name, found.get(name), wanted.get(name))
        for name in {**found, **wanted}
        if found.get(name) != wanted.get(name)
    ]
    return ", ".join(said)


def _difference(name: str, old: Any, new: Any) -> str:
    if name == "teachers":
        return "by another teacher"
    return "from another source" if name == "source_sha256" else f"{name} {old} -> {new}"
