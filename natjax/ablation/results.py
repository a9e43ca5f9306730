"""What the runs of a grid came to: read from their folders, and told row by row."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natjax import atomic
from natjax.ablation.grid import Row
from natjax.errors import UserError
from natjax.training import checkpoint, workdir

TEST = "test.json"
TECHNIQUES = ("kl", "active_units", "mutual_information", "shown")
"""What latents and glancing say of themselves in the last record of a training, and so in `test.json`."""


@dataclass(frozen=True)
class RowResult:
    """A row and its finished runs.

    Attributes:
        row: the row.
        runs: what each run's test.json holds, by seed.
    """

    row: Row
    runs: tuple[dict[str, Any], ...] = ()

    def values(self, metric: str) -> list[float]:
        """A metric of each run; empty where the runs have none."""
        return [run["metrics"][metric] for run in self.runs if run["metrics"].get(metric) is not None]

    def mean(self, metric: str) -> float | None:
        """Its mean over the runs."""
        values = self.values(metric)
        return math.fsum(values) / len(values) if values else None

    def range(self, metric: str) -> tuple[float, float] | None:
        """Its least and its greatest value."""
        values = self.values(metric)
        return (min(values), max(values)) if values else None


def weights_of(folder: Path) -> tuple[str, str] | None:
    """Name and checksum of the weights that a finished run translates with; None while it is not finished."""
    checkpoints = folder / "checkpoints"
    if not (folder / "config.json").is_file() or not checkpoint.steps(checkpoints):
        return None
    if not all((checkpoints / name / checkpoint.CHECKSUMS).is_file() for name in workdir.AVERAGES):
        return None
    best = workdir.best_weights(folder, lambda _: None)[0]
    return best.name, atomic.sha256(best / checkpoint.CHECKSUMS)


def write(file: Path, result: dict[str, Any]) -> None:
    """Keeps a run's scores, whole or not at all. Raises WorkdirError."""
    atomic.write_text(file, json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read(folder: Path, test_sha256: str, file: Path | None = None) -> dict[str, Any] | None:
    """A run's scores, if they are of the weights that it has now, on this test set.

    Args:
        folder: the run's workdir.
        test_sha256: checksum of the test set.
        file: where they are kept; `test.json` of the workdir if none is named.

    Raises:
        UserError: the file is damaged.
    """
    file = file or folder / TEST
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        made_from = found["weights"], found["weights_sha256"], found["test_sha256"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: damaged; remove it, and run the same command again") from None
    return found if made_from == (*(weights_of(folder) or (None, None)), test_sha256) else None


def last_means(folder: Path) -> dict[str, float]:
    """Those of TECHNIQUES that a training has recorded, each as of its last record."""
    file, found = folder / "metrics.jsonl", {}
    for record in map(json.loads, file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()):
        found |= {name: record[name] for name in TECHNIQUES if name in record}
    return found


def collect(folder: Path, rows: Iterable[Row], test_sha256: str) -> list[RowResult]:
    """Every row with the runs that are finished, whichever process made them."""
    return [RowResult(row, tuple(_runs(folder / row.name, test_sha256))) for row in rows]


def _runs(folder: Path, test_sha256: str) -> Sequence[dict[str, Any]]:
    places = {
        int(found[1]): place for place in folder.glob("seed*") if (found := re.fullmatch(r"seed(\d+)", place.name))
    }
    found = [read(places[seed], test_sha256) for seed in sorted(places)]
    return [run for run in found if run is not None]
