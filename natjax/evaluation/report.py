"""Result files: one JSON object per measurement, with what is needed to judge and to repeat it."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import natjax
from natjax import atomic
from natjax.errors import UserError

_SOURCE = Path(natjax.__file__).parent
_NAMES_OF_REPOSITORIES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
_PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "sentencepiece": "sentencepiece",
    "sacrebleu": "sacrebleu",
    "numpy": "numpy",
}


def write_result(
    path: str | Path,
    *,
    name: str,
    command: str,
    data: str,
    seed: int,
    wall_seconds: float,
    metrics: dict[str, Any],
    targets: dict[str, Any],
    peers: Sequence[str] = (),
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes one measurement, in full or not at all.

    Args:
        path: the file, `benchmarks/results/<name>.json` by convention; its folder must exist.
        name: of the measurement, `<corpus>/<system>` for a trained system.
        command: what was run, its paths as the user gave them.
        data: which data was used, in words.
        seed: of the run.
        wall_seconds: duration of what `command` names.
        metrics: finite numbers by name, signatures beside them.
        targets: what the metrics were to be, by the same names.
        peers: installed packages that natjax was compared with; their versions belong to the result.
        extra: anything else worth keeping, under the key `extra`.

    Returns:
        The object that was written.

    Raises:
        UserError: the file cannot be written.
        PackageNotFoundError: a peer is not installed.
        ValueError: a number is not finite; JSON knows none such.
    """
    result = {
        "name": name,
        "command": command,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), **{peer: version(peer) for peer in peers}},
        "seed": seed,
        "data": data,
        "wall_seconds": wall_seconds,
        "metrics": metrics,
        "targets": targets,
    }
    if extra is not None:
        result["extra"] = extra
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False, default=_number)
    atomic.write_text(path, text + "\n", UserError)
    return json.loads(text)


def commit() -> str:
    """HEAD of the repository that natjax itself runs from, `-dirty` when tracked files differ from it.

    Results are no code: those that one command has written do not make the next one's dirty.

    `unknown` where natjax is installed: the folder that it lies in may belong to a repository, of which it is no part.
    """
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")
        head = _git("rev-parse", "HEAD")
        pathspec = ":(top)", ":(top,exclude)benchmarks/results"
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", *pathspec)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changes else head


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, and the devices that jax sees."""
    import jax

    devices = jax.devices()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
    }


def versions() -> dict[str, str]:
    """Versions of Python, natjax and what it computes with."""
    installed = {key: version(package) for key, package in _PACKAGES.items()}
    return {"python": platform.python_version(), "natjax": natjax.__version__, **installed}


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    # A hook of another repository names that one in its environment, which would go before the folder.
    environment = {name: value for name, value in os.environ.items() if name not in _NAMES_OF_REPOSITORIES}
    command = ["git", "-C", str(_SOURCE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def _number(value: Any) -> int | float:
    """Numpy's and jax's numbers as Python's; anything else is no part of a result."""
    if getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"{type(value).__name__} does not go into a result file")
