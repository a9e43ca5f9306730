import itertools
import time
from contextlib import closing

import numpy as np
import pytest

from natjax.config import VocabConfig
from natjax.data.corpus import FilterReport, Limits, normalise
from natjax.data.encoding import token_dtype
from natjax.data.vocab import Vocabularies, Vocabulary
from natjax.data.workers import Workers, encoded
from natjax.errors import WorkerError

TEXT = ["ein Haus", "das  Haus\u00a0dort", "ein Garten , grün", "", "dort dort dort dort dort dort", " \u200b", "Haus"]


@pytest.fixture(scope="module")
def vocabularies() -> Vocabularies:
    text = [normalise(line) for line in TEXT if normalise(line)]
    return Vocabularies(*(Vocabulary.train(text, VocabConfig(size=size)) for size in (24, 28)))


LIMITS = Limits(max_length=14, max_ratio=2.0, frames_ratio=2.0, target_eos=True)


def blocks(count: int):
    """Every pair of lines, some blocks without a pair that is kept."""
    pairs = itertools.cycle(itertools.product(TEXT, TEXT))
    for number in range(count):
        block = [("", "x")] * 3 if number % 4 == 3 else list(itertools.islice(pairs, 1 + number % 5))
        yield [source for source, _ in block], [target for _, target in block]


def plain(block, vocabularies):
    """Rows and counts, pair by pair, from the definitions."""
    sources, targets, counts = [], [], FilterReport(LIMITS)
    for source, target in zip(*block, strict=True):
        s, t = vocabularies.source.encode([normalise(source)])[0], vocabularies.target.encode([normalise(target)])[0]
        needed = len(t) + sum(a == b for a, b in itertools.pairwise(t)) + 1
        longer, shorter = max(len(s), len(t)), min(len(s), len(t))
        reasons = {
            "empty": not (s and t),
            "too_long": longer + 1 > 14,
            "ratio": longer > 5 and longer > 2 * shorter,
            "infeasible": needed > 2 * (len(s) + 1),
        }
        reason = next((name for name, applies in reasons.items() if applies), "kept")
        counts += FilterReport(LIMITS, total=1, **{reason: 1})
        if reason == "kept":
            sources.append([*s, 2])
            targets.append([*t, 2])
    return sources, targets, counts


def rows(ragged) -> list[list[int]]:
    assert ragged.tokens.dtype == np.uint16 and ragged.lengths.dtype == np.int32
    ends = np.cumsum(ragged.lengths)
    return [ragged.tokens[end - length : end].tolist() for end, length in zip(ends, ragged.lengths, strict=True)]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_order_whoever_made_them(vocabularies, processes, monkeypatch):
    monkeypatch.setattr("natjax.data.workers.PAIRS_PER_PROCESS", 1)
    found = list(encoded(blocks(40), 99, vocabularies, LIMITS, processes))
    expected = [plain(block, vocabularies) for block in blocks(40)]
    assert [(rows(r.source), rows(r.target), r.counts) for r in found] == expected
    total = sum((counts for _, _, counts in expected), FilterReport(LIMITS)).counts()
    assert all(total[reason] for reason in ("kept", "empty", "too_long", "ratio"))


def test_no_more_blocks_are_read_than_are_worked_on(vocabularies):
    read = []
    endless = (read.append(0) or block for block in itertools.cycle(blocks(5)))
    with closing(Workers(vocabularies, LIMITS, 2)) as workers:
        results = workers.encode(endless)
        for done in range(1, 20):
            next(results)
            assert len(read) <= done + 3


def test_a_process_that_is_killed_ends_the_work_and_the_others(vocabularies):
    with closing(Workers(vocabularies, LIMITS, 3)) as workers:
        results = workers.encode(itertools.cycle(blocks(5)))
        next(results)
        workers.workers[1].process.kill()
        with pytest.raises(WorkerError, match="a process that encodes was killed by SIGKILL"):
            for _ in results:
                pass
    assert [worker.process.returncode for worker in workers.workers] == [-9, -9, -9]


def test_leaving_early_ends_them_at_once(vocabularies, monkeypatch):
    monkeypatch.setattr("natjax.data.workers.PAIRS_PER_PROCESS", 1)
    started = []
    start = Workers.__init__
    monkeypatch.setattr(Workers, "__init__", lambda self, *rest: started.append(self) or start(self, *rest))
    with closing(encoded(itertools.cycle(blocks(5)), 99, vocabularies, LIMITS, 2)) as results:
        next(results)
    (workers,) = started
    assert all(worker.process.returncode is not None for worker in workers.workers)
    began = time.monotonic()
    workers.close()  # once more is no mistake
    assert time.monotonic() - began < 5


def test_tokens_are_as_small_as_the_vocabularies_allow():
    for sizes, dtype in (((10, 65_536), np.uint16), ((65_537, 10), np.uint32), ((10, 65_537), np.uint32)):
        assert token_dtype(tuple(range(size) for size in sizes)) == dtype
