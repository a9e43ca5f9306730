"""A teacher's translations of a training source, as a file that can be trained on.

The lines are translated block by block; each finished block is kept in OUTPUT.parts (`parts.py`). A block is the same
lines, translated together, whatever happened before: so a run that was killed and goes on gives the same bytes on the
same machine. Whoever finds all blocks there joins them; OUTPUT.json comes last, which makes it done.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natjax import atomic
from natjax.data.corpus import read_lines
from natjax.distillation import teachers as teaching
from natjax.distillation.checks import check_language, check_training_text
from natjax.distillation.job import Job, Settings
from natjax.distillation.join import finished, join
from natjax.distillation.parts import Parts
from natjax.distillation.teachers import Say, Teacher
from natjax.errors import DataError, UserError

if TYPE_CHECKING:
    from natjax.translator import Translator


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        metadata: what OUTPUT.json holds; None where blocks of other shards are missing.
        missing: how many.
        made: whether this process made OUTPUT; else it was there.
    """

    metadata: dict[str, Any] | None
    missing: int = 0
    made: bool = False


def distill(
    folders: Sequence[str | Path],
    job: Job,
    *,
    say: Say,
    progress: Callable[[int, int], None] = lambda done, lines: None,
) -> Outcome:
    """Distils, or goes on with it.

    Args:
        folders: workdirs of the teachers.
        job: what is to be done.
        say: told what people should know, a line at a time.
        progress: called with the lines of this shard that are done, and all of them; it may raise to stop the run.

    Raises:
        UserError: files, settings and teachers that do not go together, text that is held out or of another language,
            an output that was made otherwise, a disk that is full. Finished blocks are kept.
    """
    job.check()
    lines = _read(job.source)
    _read_target(job, len(lines))  # a mistake is told at once; the text is needed at the end
    teachers = [teaching.identify(folder, say) for folder in folders]
    identity = _identity(job, lines, teachers)
    parts = Parts(job.output, -(-len(lines) // job.block))
    if (done := finished(job, identity)) is not None:
        parts.remove()  # of a run that was killed between its last two steps
        return Outcome(done)
    parts.check(identity)
    for file in job.outputs:
        if file.exists() and parts.missing() and finished(job, identity) is None:
            raise UserError(
                f"{file}: exists, and no {job.about.name} tells how it was made; name another file, or remove it"
            )
    atomic.clear_leftovers(job.output.absolute().parent)
    if parts.missing(*job.shard):
        _check(job, lines, teachers, say)
        with parts.shard(*job.shard, identity):
            # Asked again, in this order: whoever joins says so before the blocks go, and they may have gone just now.
            missing = parts.missing(*job.shard)
            if missing and finished(job, identity) is None:
                _translate(job, lines, teachers, parts, missing, progress)
    count = sum(len(_lines(job, lines, block)) for block in parts.of_shard(*job.shard))
    pause = partial(progress, count, count)
    made = False
    with parts.joining(pause) as all_there:
        done = finished(job, identity)  # another shard may have been faster
        if done is None and all_there:
            original = _read_target(job, len(lines))
            done, made = join(job, lines, original, teachers, identity, parts, say, pause), True
    if done is None:
        return Outcome(None, missing=len(parts.missing()))
    parts.remove()
    return Outcome(done, made=made)


def _read(file: Path) -> list[str]:
    lines = read_lines(file)
    if not lines:
        raise DataError(f"{file}: has no lines; name the training source")
    return lines


def _read_target(job: Job, count: int) -> list[str] | None:
    if job.target is None:
        return None
    lines = read_lines(job.target)
    if len(lines) != count:
        raise DataError(
            f"{job.source} has {count:,} lines but {job.target} has {len(lines):,}; line i of one must translate line "
            "i of the other"
        )
    return lines


def _identity(job: Job, lines: list[str], teachers: Sequence[Teacher]) -> dict[str, Any]:
    """All that decides the bytes of the output."""
    source = hashlib.sha256()
    for line in lines:
        source.update(f"{line}\n".encode())
    made_by = {"teachers": [teacher.identity for teacher in teachers], **asdict(job.settings), "block": job.block}
    return {"source_sha256": source.hexdigest(), "lines": len(lines), **made_by}


def _check(job: Job, lines: list[str], teachers: Sequence[Teacher], say: Say) -> None:
    """Raises UserError, before anything is written, for teachers or text that should not be distilled."""
    teaching.check(teachers, job.settings)
    if not job.allow_held_out:
        check_training_text(job.source, lines, teachers, say)
    if not job.allow_language:
        for teacher in teachers:
            check_language(job.source, lines, teacher, say)


def _lines(job: Job, lines: list[str], block: int) -> list[str]:
    return lines[block * job.block : (block + 1) * job.block]


def _translate(
    job: Job, lines: list[str], teachers: Sequence[Teacher], parts: Parts, missing: list[int],
    progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    """Makes the missing blocks of a shard."""
    translators = teaching.load(teachers, job.settings)
    sizes = {block: len(_lines(job, lines, block)) for block in parts.of_shard(*job.shard)}
    total = sum(sizes.values())
    done = total - sum(sizes[block] for block in missing)
    for block in missing:
        report = partial(_advance, progress, done, total)
        result = _block(job.settings, translators, _lines(job, lines, block), block * job.block, report)
        parts.write(block, result)
        done += sizes[block]
    progress(done, total)


def _advance(progress: Callable[[int, int], None], done: int, total: int, more: int) -> None:
    progress(done + more, total)


def _block(
    settings: Settings, translators: Sequence["Translator"], lines: list[str], first: int,
    progress: Callable[[int], None],
) -> dict[str, Any]:  # fmt: skip
    """One block's result: rows of (line, text, score, teacher), and what happened.

    `progress` is called with the number of its lines that are done, about; an over-long one counts more than once.
    """
    start, cut, counts, rows, segments = time.perf_counter(), set(), Counter(), [], 0

    def on_batch(count: int) -> None:
        nonlocal segments
        segments += count
        progress(min(segments // len(translators), len(lines)))

    progress(0)
    by_teacher = [
        translator.translate_with_details(lines, on_batch=on_batch, on_cut=lambda place, _: cut.add(first + place))
        for translator in translators
    ]
    for place, translations in enumerate(zip(*by_teacher)):
        if not any(translation.segments for translation in translations):  # nothing to translate: kept in place
            counts["empty_sources"] += 1
            rows.append((first + place, "", None, None))
            continue
        choices, left_out = teaching.choose(translations, settings)
        counts.update(left_out)
        counts["dropped_lines"] += not choices
        counts["empty_translations"] += sum(not choice.text for choice in choices)
        rows += [(first + place, *choice) for choice in choices]
    seconds = time.perf_counter() - start
    return {"rows": rows, "cut": sorted(cut), "counts": dict(counts), "seconds": seconds}
