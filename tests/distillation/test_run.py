"""Distilling as a library: what is written, kills between any two steps, shards, and what is refused."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from natjax import atomic
from natjax.analysis.data import compare
from natjax.distillation import run
from natjax.distillation.job import Settings
from natjax.distillation.parts import Parts
from natjax.distillation.run import distill
from natjax.errors import DataError, UserError
from natjax.training import workdir
from natjax.translator import Translator


def make(teachers, job, **options):
    said = []
    outcome = distill([teachers] if isinstance(teachers, Path) else teachers, job, say=said.append, **options)
    return outcome, said


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def expected(teacher, text):
    """What the teacher says, without distillation."""
    return Translator.load(teacher).translate(text[0])


def test_the_output_is_the_teachers_translation(teacher, job, text, expected, files):
    seen = []
    outcome, said = make(teacher, job, progress=lambda *done: seen.append(done))
    assert outcome.made
    assert said == ["joining 6 blocks", "measuring what distillation did to the data"]
    assert job.output.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in expected)
    assert expected[0] == expected[-1] == ""
    assert sum(map(bool, expected)) > 30
    assert names(files) == ["kd.de", "kd.de.json", "train.de", "train.en"]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, 42), (42, 42))
    about = json.loads(job.about.read_text())
    assert about == outcome.metadata
    assert about["output_sha256"] == atomic.sha256(job.output)
    assert (about["pairs"], about["made_from"]["lines"]) == (42, 42)
    assert (about["made_from"]["beam"], about["made_from"]["n_best"]) == (1, 1)
    assert about["counts"]["empty_sources"] == 2
    (who,) = about["teachers"]
    assert (who["workdir"], who["valid_bleu"], who["chosen"]) == ("first", 12.5, 40)
    assert who["config_sha256"] == atomic.sha256(teacher / "config.json")
    assert about["seconds"] > 0
    assert about["sentences_per_second"] == pytest.approx(42 / about["seconds"], rel=0.01)
    before, after = compare(lambda: zip(*text, expected))
    assert (about["report"]["before"], about["report"]["after"]) == (before.as_dict(), after.as_dict())


def test_again_is_already_done(teacher, job, monkeypatch):
    first, _ = make(teacher, job)
    files = {f: f.read_bytes() for f in job.output.parent.iterdir()}
    monkeypatch.setattr(run.teaching, "load", None)  # no model is loaded for that
    again, _ = make(teacher, job)
    assert (again.made, again.metadata) == (False, first.metadata)
    assert {f: f.read_bytes() for f in job.output.parent.iterdir()} == files


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(0, 6))
def test_a_kill_after_any_block_and_resumed(teacher, job, expected, after):
    def stop(done, _):
        if done > 8 * after:  # in the block after
            raise Killed

    with pytest.raises(Killed):
        make(teacher, job, progress=stop)
    assert not job.output.exists()
    assert len(list(Parts(job.output, 6).folder.glob("0*.json"))) == after
    resumed = []
    make(teacher, job, progress=lambda *done: resumed.append(done))
    assert resumed[0] == (8 * after, 42)
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected
    assert not Parts(job.output, 6).folder.exists()


@pytest.mark.parametrize("step", ["compare", "write_text", "remove_folder"])
def test_a_kill_while_joining(teacher, job, expected, step, monkeypatch):
    where = "natjax.distillation.join." + {"compare": "compare"}.get(step, f"atomic.{step}")

    def kill(path, *args):
        if step != "write_text" or path == job.about:
            raise Killed
        atomic.write_bytes(path, args[0].encode())

    with monkeypatch.context() as patch:
        patch.setattr(where, kill)
        with pytest.raises(Killed):
            make(teacher, job)
    outcome, _ = make(teacher, job)
    assert outcome.metadata is not None
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected
    assert names(job.output.parent) == ["kd.de", "kd.de.json", "train.de", "train.en"]


def test_shards_in_any_order_give_the_same(teacher, job, expected):
    for number, left in ((3, 4), (1, 2)):
        outcome, _ = make(teacher, dataclasses.replace(job, shard=(number, 3)))
        assert (outcome.metadata, outcome.missing) == (None, left)
        assert not job.output.exists()
    again, _ = make(teacher, dataclasses.replace(job, shard=(1, 3)))  # what is done is not done again
    assert again.missing == 2
    outcome, _ = make(teacher, dataclasses.replace(job, shard=(2, 3)))
    assert outcome.made
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected


def test_one_process_a_shard(teacher, job):
    identity = run._identity(job, ["a"], [])
    parts = Parts(job.output, 6)
    with parts.shard(1, 1, identity):
        with pytest.raises(UserError, match=r"another process works on shard 1/1"), parts.shard(1, 1, identity):
            pass
        with parts.shard(1, 2, identity):
            pass
    with parts.shard(1, 1, identity):
        pass


def test_locks_are_on_files_that_are_open_for_writing(teacher, job, monkeypatch):
    """NFS gives no others between hosts."""
    locked = []

    def flock(file, how):
        descriptor = file if isinstance(file, int) else file.fileno()
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        locked.append(Path(file.name).name)

    monkeypatch.setattr("natjax.distillation.parts.fcntl.flock", flock)
    assert make(teacher, job)[0].made
    assert locked == ["1-of-1.lock", "join.lock"]


@pytest.mark.parametrize(("name", "number"), [("1-of-1.lock", errno.ENOLCK), ("join.lock", errno.ENOSYS)])
def test_a_file_system_without_locks(teacher, job, name, number, monkeypatch):
    def flock(file, how):
        if Path(file.name).name == name:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("natjax.distillation.parts.fcntl.flock", flock)
    with pytest.raises(UserError, match=rf"{name}: cannot be locked \(.*\); name an --output on a file system"):
        make(teacher, job)


def test_a_folder_that_cannot_be_made(job, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    parts = Parts(job.output, 6)
    with pytest.raises(UserError, match=r"kd\.de\.parts: cannot be written"), parts.shard(1, 1, {}):
        pass


def test_waiting_for_another_that_joins_can_be_stopped(teacher, job, monkeypatch):
    monkeypatch.setattr("natjax.distillation.parts._LOOK", 0.001)
    looks = []

    def progress(*done):
        looks.append(done)
        if len(looks) > 100:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run, "join", raise_killed)
        with pytest.raises(Killed):
            make(teacher, job)
    with (Parts(job.output, 6).folder / "join.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Killed):
            make(teacher, job, progress=progress)
    assert set(looks) == {(42, 42)}
    assert not job.output.exists()
    assert make(teacher, job)[0].made


@pytest.mark.parametrize("moment", ["Parts.check", "_check", "Parts.shard", "Parts.joining"])
def test_another_that_joins_meanwhile(teacher, job, moment, monkeypatch):
    """A restart that looks while the last of the others ends: nothing is translated again, and nothing is wrong."""
    with pytest.raises(Killed):
        make(teacher, job, progress=lambda done, _: done <= 16 or raise_killed())
    owner = Parts if "." in moment else run
    name = moment.rpartition(".")[2]
    before, others = getattr(owner, name), []

    def after_the_others(*args):
        if not others:
            others.append(None)
            others[0] = make(teacher, job)[0]
            monkeypatch.setattr(run.teaching, "load", None)
        return before(*args)

    if moment == "Parts.joining":  # all blocks are there, but not joined
        with monkeypatch.context() as patch:
            patch.setattr(run, "join", raise_killed)
            with pytest.raises(Killed):
                make(teacher, job)
    monkeypatch.setattr(owner, name, after_the_others)
    outcome, _ = make(teacher, job)
    assert others[0].made
    assert (outcome.made, outcome.metadata) == (False, others[0].metadata)
    assert names(job.output.parent) == ["kd.de", "kd.de.json", "train.de", "train.en"]


def test_one_block_at_a_time_is_joined(teacher, job, expected, monkeypatch):
    class Block(dict):  # a plain one cannot be referred to weakly
        pass

    blocks, alive, read, seen = [], [], Parts.read, []

    def noted(parts, number):
        block = Block(read(parts, number))
        blocks.append(weakref.ref(block))
        alive.append(sum(each() is not None for each in blocks))
        return block

    monkeypatch.setattr(Parts, "read", noted)
    make(teacher, job, progress=lambda *done: seen.append(done))
    assert len(alive) == 3 * 6  # written, counted, aligned
    assert max(alive) <= 2
    assert seen.count((42, 42)) > 3 * 6  # a signal is heeded between any two
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected


def test_a_stop_while_joining(teacher, job, expected):
    for after in (1, 4, 9, 15, 17):
        left = [after]

        def progress(done, _, left=left):
            left[0] -= done == 42
            if left[0] < 0:
                raise Killed

        with pytest.raises(Killed):
            make(teacher, job, progress=progress)
        assert not list(job.output.parent.glob(".*"))
        assert not job.about.exists()
    assert make(teacher, job)[0].made
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"block": 16}, r"block 8 -> 16"),
        ({"settings": Settings(beam=1, length_penalty=0.5)}, r"length_penalty 1.0 -> 0.5"),
    ],
)
def test_other_settings_are_refused(teacher, job, changes, match):
    other = dataclasses.replace(job, **changes)
    with pytest.raises(Killed):
        make(teacher, job, progress=raise_killed)
    with pytest.raises(UserError, match=rf"kd\.de\.parts: holds blocks made otherwise \({match}"):
        make(teacher, other)
    make(teacher, job)
    before = job.output.read_bytes()
    with pytest.raises(UserError, match=rf"kd\.de: exists, made otherwise \({match}"):
        make(teacher, other)
    assert job.output.read_bytes() == before


def raise_killed(*_):
    raise Killed


def test_another_teacher_or_source_is_refused(teacher, second, job, tmp_path):
    make(teacher, job)
    before = job.output.read_bytes()
    with pytest.raises(UserError, match=r"by another teacher\); name another --output"):
        make(second, job)
    job.source.write_text(job.source.read_text().replace("the", "a", 1))
    with pytest.raises(UserError, match="from another source"):
        make(teacher, job)
    assert job.output.read_bytes() == before
    moved = tmp_path / "moved"  # the same teacher is the same wherever it lies
    shutil.copytree(second, moved)
    other = dataclasses.replace(job, output=job.output.with_name("other.de"))
    make(second, other)
    assert not make(moved, other)[0].made


def test_an_output_from_elsewhere_is_refused(teacher, job):
    job.output.write_text("mine\n")
    with pytest.raises(UserError, match=r"kd\.de: exists, and no kd\.de\.json tells"):
        make(teacher, job)
    assert job.output.read_text() == "mine\n"
    job.about.write_text('{"mine": 1}')
    with pytest.raises(UserError, match="of an unknown kind"):
        make(teacher, job)
    job.output.unlink()
    with pytest.raises(UserError, match="of an unknown kind"):
        make(teacher, job)
    job.about.unlink()
    make(teacher, job)
    job.output.write_text("changed\n")
    with pytest.raises(UserError, match=r"kd\.de: is not the file that .*kd\.de\.json tells of"):
        make(teacher, job)


def test_a_file_that_appears_meanwhile_is_kept(teacher, job):
    def appear(done, _):
        if done == 42:
            job.output.write_text("mine\n")

    with pytest.raises(UserError, match="exists, from elsewhere"):
        make(teacher, job, progress=appear)
    assert job.output.read_text() == "mine\n"
    job.output.unlink()
    assert make(teacher, job)[0].made


def test_a_damaged_block_is_named(teacher, job, expected):
    with pytest.raises(Killed):
        make(teacher, job, progress=lambda done, _: done <= 16 or raise_killed())
    block = Parts(job.output, 6).folder / "00000001.json"
    block.write_text(block.read_text()[:40])
    with pytest.raises(UserError, match=r"00000001\.json: damaged; remove this file"):
        make(teacher, job)
    block.unlink()
    make(teacher, job)
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected


def test_lines_of_other_systems(teacher, job, text, expected):
    job.source.write_bytes(("\ufeff" + "\r\n".join(text[0][:-1])).encode())  # CRLF, and none at the end
    job = dataclasses.replace(job, target=None)
    make(teacher, job)
    assert job.output.read_bytes() == "".join(f"{line}\n" for line in expected[:-1]).encode()


def test_over_long_lines_stay_one_line(teacher, job, text):
    lines = [*text[0][:9], " ".join(text[0][1:8]), *text[0][9:]]
    job.source.write_text("".join(f"{line}\n" for line in lines))
    outcome, _ = make(teacher, dataclasses.replace(job, target=None))
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == Translator.load(teacher).translate(lines)
    assert (outcome.metadata["counts"]["cut_lines"], outcome.metadata["first_cut_lines"]) == (1, [10])


@pytest.mark.parametrize("content", [b"", b"gr\xfc\xdfe\n"])
def test_sources_that_cannot_be_read(teacher, job, content):
    job.source.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.en: has no lines|train\.en:1: not UTF-8"):
        make(teacher, dataclasses.replace(job, target=None))
    assert names(job.output.parent) == ["train.de", "train.en"]


def test_a_target_of_another_length(teacher, job):
    job.target.write_text("x\n")
    with pytest.raises(DataError, match=r"42 lines but .*train\.de has 1"):
        make(teacher, job)


FULL = """
import resource, sys
from pathlib import Path
from natjax.distillation.job import Job, Settings
from natjax.distillation.run import distill
from natjax.errors import UserError
folder = Path(sys.argv[1])
job = Job(folder / "train.en", folder / "kd.de", settings=Settings(beam=1), block=8)
calls = []
def progress(done, total):
    if done > 16 and not calls:
        calls.append(done)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    distill([sys.argv[2]], job, say=print, progress=progress)
except UserError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more(teacher, job, expected):
    done = subprocess.run([sys.executable, "-c", FULL, job.source.parent, teacher], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "00000002.json: cannot be written (File too large); raise the file size limit" in done.stdout
    assert len(list(Parts(job.output, 6).folder.glob("*"))) == 4  # two blocks, index, lock
    make(teacher, dataclasses.replace(job, target=None))
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == expected


def test_several_teachers_give_each_line_its_best(teacher, second, job, text):
    outcome, _ = make([teacher, second], job)
    both = [Translator.load(folder).translate_with_details(text[0]) for folder in (teacher, second)]
    best = [max(pair, key=lambda t: t.n_best_scores[0]).text for pair in zip(*both)]
    assert job.output.read_text(encoding="utf-8").split("\n")[:-1] == best
    first, other = (who["chosen"] for who in outcome.metadata["teachers"])
    assert first + other == 40


def test_a_minimum_score_keeps_the_sides_aligned(teacher, job, text):
    details = Translator.load(teacher).translate_with_details(text[0])
    scores = sorted(t.n_best_scores[0] for t in details if t.segments)
    least = (scores[19] + scores[20]) / 2
    job = dataclasses.replace(
        job, settings=Settings(beam=1, minimum_score=least), output_source=job.output.with_name("kd.en")
    )
    outcome, _ = make(teacher, job)
    kept = [(s, t.text) for s, t in zip(text[0], details) if not t.segments or t.n_best_scores[0] >= least]
    sides = [file.read_text(encoding="utf-8").split("\n")[:-1] for file in (job.output_source, job.output)]
    assert list(zip(*sides)) == kept
    assert outcome.metadata["pairs"] == len(kept) == 22
    lines = [i for i, t in enumerate(details) if not t.segments or t.n_best_scores[0] >= least]
    before, after = compare(lambda: [(text[0][i], text[1][i], details[i].text) for i in lines])
    assert outcome.metadata["report"] == {"before": before.as_dict(), "after": after.as_dict()}
    assert outcome.metadata["counts"]["dropped_lines"] == 20
    assert not make(teacher, job)[0].made
    job.output_source.unlink()
    with pytest.raises(UserError, match=r"kd\.en: is not the file"):
        make(teacher, job)


def test_a_minimum_score_that_none_reaches(teacher, job):
    job.source.write_text("The king sleeps.\n")
    settings = Settings(beam=1, minimum_score=1.0)
    job = dataclasses.replace(job, target=None, settings=settings, output_source=job.output.with_name("kd.en"))
    with pytest.raises(UserError, match="no translation has the score; lower --minimum-score"):
        make(teacher, job)


def passed_over(texts):
    """How many of these have a text that came before, until there are two different ones."""
    first_other = next((i for i, text in enumerate(texts) if text != texts[0]), None)
    return len(texts) - 1 if first_other is None else first_other - 1


def test_the_beam_of_the_settings(beamed, teacher, job, text):
    folder, config = beamed
    settings = Settings(beam=4, length_penalty=0.5, n_best=2)
    job = dataclasses.replace(job, settings=settings, output_source=job.output.with_name("kd.en"))
    outcome, _ = make(folder, job)
    decoding = dataclasses.replace(config.decoding, beam_size=4, length_penalty=0.5)
    _, vocabularies, params = workdir.load_model(folder, pytest.fail)
    peer = Translator(dataclasses.replace(config, decoding=decoding), vocabularies, params, decode="beam")
    expected = []
    details = peer.translate_with_details(text[0])
    for source, t in zip(text[0], details):
        expected += [(source, n) for n in list(dict.fromkeys(t.n_best))[:2]] if source else [("", "")]
    sides = [file.read_text(encoding="utf-8").split("\n")[:-1] for file in (job.output_source, job.output)]
    assert list(zip(*sides)) == expected
    assert len(expected) > 60
    assert outcome.metadata["counts"]["duplicates"] == sum(passed_over(t.n_best) for t in details if t.segments)
    # The report: each line once, before and after.
    before, after = compare(lambda: zip(*text, [t.text for t in details]))
    assert outcome.metadata["report"] == {"before": before.as_dict(), "after": after.as_dict()}
    assert before.pairs == after.pairs == 42
    assert outcome.metadata["teachers"][0]["valid_bleu"] is None
    other = dataclasses.replace(job, output=job.output.with_name("b"), output_source=job.output.with_name("b.en"))
    with pytest.raises(UserError, match="is nat and has no beam; give --beam 1"):
        make(teacher, other)
    assert not list(job.output.parent.glob("b*"))
