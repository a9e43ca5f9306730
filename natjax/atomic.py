"""Files and folders that appear whole or not at all: a temporary name beside the target, fsync, rename.

What the operating system refuses (disk full, no permission) becomes a `UserError` of one line.
"""

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from natjax.errors import UserError, WorkdirError

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and run the same command again"),
    errno.EFBIG: "raise the file size limit (ulimit -f) and run the same command again",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a folder that you may write to"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY), "name another path"),
}


def write_bytes(path: str | Path, data: bytes, error: type[UserError] = WorkdirError) -> None:
    """Writes a file so that readers see the old content or the new one, never a part, whenever the power fails.

    Args:
        path: the file; its folder must exist.
        data: the whole content.
        error: the kind of error to raise.

    Raises:
        UserError: of kind `error`, where the operating system refuses. The old file is then untouched.
    """
    path = Path(path)
    temporary = _temporary(path)
    with refusals(path, error):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


@contextmanager
def new_file(path: str | Path, error: type[UserError] = WorkdirError) -> Iterator[Path]:
    """Yields the path of a file to be written that becomes `path` when the block ends well and vanishes otherwise.

    For what is too large to be held as bytes: see `write_bytes`.

    Args:
        path: the file; its folder must exist.
        error: the kind of error to raise.

    Raises:
        UserError: of kind `error`, where the operating system refuses, inside the block too.
    """
    path = Path(path)
    temporary = _temporary(path)
    with refusals(path, error):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def write_text(path: str | Path, text: str, error: type[UserError] = WorkdirError) -> None:
    """As `write_bytes`, for text, in UTF-8."""
    write_bytes(path, text.encode(), error)


def append_text(path: str | Path, text: str, error: type[UserError] = WorkdirError) -> None:
    """Appends to a text file; what a full disk cuts off is the end of the file alone. Raises `error`."""
    with refusals(Path(path), error), Path(path).open("a", encoding="utf-8") as file:
        file.write(text)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear_leftovers(folder: Path) -> None:
    """Removes what processes of this host left in a folder when they were killed, after saving what is worth it.

    What another user left, or another process removes at the same time, stays as it is.
    """
    with suppress(OSError):
        for path in sorted(folder.glob(f".*.{platform.node()}.*.*")):
            number, kind = path.name.split(".")[-2:]
            if number.isdigit() and kind in ("tmp", "old") and not _alive(int(number)):
                with suppress(OSError):
                    _clear(path, path.name.removesuffix(f".{platform.node()}.{number}.{kind}").removeprefix("."), kind)


def _clear(path: Path, name: str, kind: str) -> None:
    if kind == "old" and not path.with_name(name).exists():  # killed between the two renames: the only good copy
        path.rename(path.with_name(name))
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


@contextmanager
def new_folder(path: str | Path, error: type[UserError] = WorkdirError, *, replace: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path` that becomes `path` when the block ends well and vanishes otherwise.

    Missing parents are made. Everything inside is synced to disk before the rename.

    Args:
        path: the folder to make; it must not exist, or be an empty folder.
        error: the kind of error to raise.
        replace: a folder that exists is replaced, with all it holds. It goes only once the new one is complete.

    Raises:
        UserError: of kind `error`, where the operating system refuses, inside the block too.
    """
    path = Path(path)
    temporary, old = _temporary(path), _temporary(path, "old")
    with refusals(path, error):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed run: containers give out the same id again
            temporary.mkdir()
            yield temporary
            for file in [*temporary.rglob("*"), temporary]:
                _sync(file)
            if replace:
                with suppress(FileNotFoundError):
                    path.rename(old)
            try:
                temporary.rename(path)
            except BaseException:
                if old.exists() and not path.exists():
                    old.rename(path)
                raise
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Removes a folder, which vanishes at once: a kill leaves nothing of that name. One that is gone is no mistake."""
    temporary = _temporary(path)
    with suppress(FileNotFoundError):
        path.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path, kind: str = "tmp") -> Path:
    """A hidden sibling: on the same file system, so that the rename is atomic. Host and id keep writers apart."""
    path = path.absolute()
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{kind}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def refusals(path: Path, error: type[UserError]) -> Iterator[None]:
    """Turns what the operating system refuses at a path into `error`, one line with advice."""
    try:
        yield
    except OSError as refusal:
        # numpy reports a short write without an errno; that is a full disk too.
        number = refusal.errno or errno.ENOSPC
        advice = _ADVICE.get(number, "check the file system")
        raise error(f"{path}: cannot be written ({os.strerror(number)}); {advice}") from refusal
