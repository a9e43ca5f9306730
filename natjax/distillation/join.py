"""From finished blocks to the output and what is known of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from natjax import atomic
from natjax.analysis.data import DataReport, describe
from natjax.distillation.job import Job
from natjax.distillation.parts import Parts, differences, read_json
from natjax.distillation.teachers import Teacher
from natjax.errors import UserError
from natjax.evaluation.report import commit, versions


def finished(job: Job, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What is known of the output if it is there, made as is wanted now.

    Raises:
        UserError: it was made otherwise, or has changed since.
    """
    about = read_json(job.about)
    made_from = about.get("made_from") if isinstance(about, dict) else None
    if about is None or (made_from and not job.output.exists()):
        return None
    if changes := differences(made_from, identity):
        raise UserError(f"{job.output}: exists, made otherwise ({changes}); name another --output, or remove it")
    for file, wanted in zip(job.outputs, ("output_sha256", "output_source_sha256")):
        if not file.exists() or atomic.sha256(file) != about.get(wanted):
            raise UserError(f"{file}: is not the file that {job.about} tells of; remove that to begin anew")
    return about


def join(
    job: Job, lines: list[str], original: list[str] | None, teachers: Sequence[Teacher], identity: dict[str, Any],
    parts: Parts,
) -> dict[str, Any]:  # fmt: skip
    """Writes the outputs, then what is known of them, and removes the parts."""
    blocks = [parts.read(number) for number in range(parts.blocks)]
    rows = [row for block in blocks for row in block["rows"]]
    sources, targets = [lines[row[0]] for row in rows], [row[1] for row in rows]
    if not rows:
        raise UserError(f"{job.output}: no translation has the score; lower --minimum-score and remove {parts.folder}")
    sums = []
    for file, side in zip(job.outputs, (targets, sources)):
        data = "".join(f"{line}\n" for line in side).encode()
        if file.exists() and file.read_bytes() != data:  # what a kill has left of this run is the same
            raise UserError(f"{file}: exists, from elsewhere; name another file, or remove it")
        atomic.write_bytes(file, data, UserError)
        sums.append(hashlib.sha256(data).hexdigest())
    before = describe(lines, original) if original is not None else None
    counts = sum((Counter(block["counts"]) for block in blocks), Counter())
    chosen = Counter(row[3] for row in rows)
    seconds = sum(block["seconds"] for block in blocks)
    cut = [line + 1 for block in blocks for line in block["cut"]]
    metadata = {
        "made_from": identity,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "teachers": [{**t.about, **t.identity, "chosen": chosen[place]} for place, t in enumerate(teachers)],
        "source": job.source.name,
        "target": None if job.target is None else job.target.name,
        "output": job.output.name,
        "output_sha256": sums[0],
        "output_source": None if job.output_source is None else job.output_source.name,
        "output_source_sha256": None if job.output_source is None else sums[1],
        "pairs": len(rows),
        "counts": {**dict.fromkeys(_COUNTS, 0), **counts, "cut_lines": len(cut)},
        "first_cut_lines": cut[:10],
        "seconds": round(seconds, 3),
        "sentences_per_second": round(len(lines) / seconds, 3),
        "report": {"before": _dict(before), "after": _dict(describe(sources, targets))},
    }
    text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False)
    atomic.write_text(job.about, text + "\n", UserError)
    parts.remove()
    return metadata


_COUNTS = ("empty_sources", "empty_translations", "duplicates", "low_scores", "dropped_lines")


def _dict(report: DataReport | None) -> dict[str, Any] | None:
    return None if report is None else report.as_dict()
