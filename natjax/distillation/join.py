"""From finished blocks to the output and what is known of it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from natjax import atomic
from natjax.analysis.data import compare
from natjax.distillation.job import Job
from natjax.distillation.parts import Parts, differences, read_json
from natjax.distillation.teachers import Say, Teacher
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
    parts: Parts, say: Say, pause: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """Writes the outputs, then what is known of them. One block is in memory at a time.

    Args:
        job: what was to be done.
        lines: of the source.
        original: the target that they have now, if the report is to compare with it.
        teachers: of the translations.
        identity: what was made.
        parts: where all blocks are.
        say: told what is being done.
        pause: called between two blocks; it may raise to stop, and the same command goes on.

    Raises:
        UserError: no translation has the least score, a file is there already, or the disk is full.
    """
    say(f"joining {parts.blocks:,} blocks")
    totals = _write(job, lines, parts, pause)
    say("measuring what distillation did to the data" if original else "measuring the data")
    *before, after = compare(lambda: _sentences(lines, original, parts, pause))
    metadata = {
        "made_from": identity,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "teachers": [{**t.about, **t.identity, "chosen": totals.chosen[place]} for place, t in enumerate(teachers)],
        "source": job.source.name,
        "target": None if job.target is None else job.target.name,
        "output": job.output.name,
        "output_sha256": atomic.sha256(job.output),
        "output_source": None if job.output_source is None else job.output_source.name,
        "output_source_sha256": None if job.output_source is None else atomic.sha256(job.output_source),
        "pairs": totals.chosen.total(),
        "counts": {**dict.fromkeys(_COUNTS, 0), **totals.counts, "cut_lines": totals.cut_lines},
        "first_cut_lines": totals.first_cut_lines,
        "seconds": round(totals.seconds, 3),
        "sentences_per_second": round(len(lines) / totals.seconds, 3),
        "report": {"before": before[0].as_dict() if before else None, "after": after.as_dict()},
    }
    text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False)
    atomic.write_text(job.about, text + "\n", UserError)
    return metadata


@dataclass
class _Totals:
    """Of all blocks: rows by teacher (None: those of empty lines), what happened, how long it took."""

    chosen: Counter[int | None] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    cut_lines: int = 0
    first_cut_lines: list[int] = field(default_factory=list)
    seconds: float = 0.0


def _write(job: Job, lines: list[str], parts: Parts, pause: Callable[[], None]) -> _Totals:
    """Writes the outputs block by block; they appear when all is there."""
    totals = _Totals()
    with ExitStack() as stack:
        places = {file: stack.enter_context(atomic.new_file(file, UserError)) for file in job.outputs}
        with ExitStack() as opened:
            texts = [opened.enter_context(p.open("w", encoding="utf-8", newline="\n")) for p in places.values()]
            for number in range(parts.blocks):
                pause()
                block = parts.read(number)
                for line, text, _, teacher in block["rows"]:
                    totals.chosen[teacher] += 1
                    for file, side in zip(texts, (text, lines[line])):
                        file.write(f"{side}\n")
                totals.counts.update(block["counts"])
                totals.cut_lines += len(block["cut"])
                totals.first_cut_lines += [line + 1 for line in block["cut"][: 10 - len(totals.first_cut_lines)]]
                totals.seconds += block["seconds"]
        if not totals.chosen:
            raise UserError(
                f"{job.output}: no translation has the score; lower --minimum-score and remove {parts.folder}"
            )
        for file, place in places.items():  # what a kill has left of this run is the same
            if file.exists() and atomic.sha256(file) != atomic.sha256(place):
                raise UserError(f"{file}: exists, from elsewhere; name another file, or remove it")
    return totals


def _sentences(
    lines: list[str], original: list[str] | None, parts: Parts, pause: Callable[[], None]
) -> Iterator[list[str]]:
    """The lines that were translated, each once: source, the target that it has now if that is known, translation."""
    for number in range(parts.blocks):
        pause()
        latest = None
        for line, text, *_ in parts.read(number)["rows"]:
            if line != latest:  # the best comes first
                yield [lines[line], *([] if original is None else [original[line]]), text]
            latest = line


_COUNTS = ("empty_sources", "empty_translations", "duplicates", "low_scores", "dropped_lines")
