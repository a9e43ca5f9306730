"""Finished blocks on disk: what a killed run leaves to the next one, and shards to whoever comes last.

OUTPUT.parts/index.json           what is being made: checksums of source and teachers, settings
OUTPUT.parts/<number>.json        the result of one block, which appears whole or not at all
OUTPUT.parts/<i>-of-<n>.lock      locked while a process works on shard i of n
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from natjax import atomic
from natjax.errors import UserError

INDEX = "index.json"


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
            UserError: another process works on this shard, or the folder cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{number}-of-{count}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.folder}: another process works on shard {number}/{count}; wait for it, "
                    "or name another with --shard"
                ) from None
            atomic.clear_leftovers(self.folder)
            self.check(identity)
            if not (self.folder / INDEX).exists():
                atomic.write_text(self.folder / INDEX, json.dumps(identity, indent=2) + "\n", UserError)
            yield

    @contextmanager
    def joining(self) -> Iterator[bool]:
        """Lets one process join at a time; yields whether there is still something to join, and all of it."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except FileNotFoundError:  # another process has joined and removed them
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield (self.folder / INDEX).exists() and not self.missing()
        finally:
            os.close(descriptor)

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
