"""Teachers: whose scores can be compared, what their scores are, and which weights are loaded."""

import dataclasses
import shutil

import pytest
import tiny

from natjax import atomic
from natjax.distillation.job import Settings
from natjax.distillation.run import distill
from natjax.distillation.teachers import check, identify, load
from natjax.errors import CheckpointError, UserError
from natjax.training import checkpoint, workdir
from natjax.translator import Translator

GREEDY = Settings(beam=1)


def changed(teacher, section, **fields):
    made = dataclasses.replace(getattr(teacher.config, section), **fields)
    return teacher._replace(config=dataclasses.replace(teacher.config, **{section: made}))


@pytest.fixture(scope="module")
def known(teacher, beamed):
    """(non-autoregressive, autoregressive)."""
    return identify(teacher, pytest.fail), identify(beamed[0], lambda line: None)


def test_teachers_whose_scores_mean_different_things(known):
    nat, at = known
    check([nat, nat], GREEDY)
    check([at, at], Settings(length_penalty=0.5))
    by_length = changed(nat, "objective", loss="ce")
    check([by_length, changed(by_length, "model", ratio=9.0)], GREEDY)
    for teachers, settings, match in (
        ([at, nat], GREEDY, "is scored by frame of ctc at ratio 2, but .*autoregressive is scored by token; name"),
        ([nat, at], GREEDY, "is scored by token, but .*first is scored by frame"),
        ([nat, changed(nat, "objective", loss="axe")], GREEDY, "is scored by frame of axe, but"),
        ([nat, changed(nat, "model", ratio=3.0)], GREEDY, "at ratio 3, but .* at ratio 2; name"),
        (
            [at, at._replace(identity={"vocabulary_sha256": "x"})],
            GREEDY,
            "has another vocabulary than .*autoregressive",
        ),
        ([at, changed(at, "data", source_language="de", target_language="en")], GREEDY, "translates de-en, but"),
        ([nat], Settings(beam=2), "is nat and has no beam; give --beam 1"),
        ([nat], Settings(beam=1, length_penalty=0.5), "is nat, its score is the mean of its frames; leave --length"),
    ):
        with pytest.raises(UserError, match=match):
            check(teachers, settings)


def test_what_is_refused_leaves_nothing_behind(teacher, beamed, job):
    before = sorted(job.output.parent.iterdir())
    with pytest.raises(UserError, match="name teachers that agree"):
        distill([beamed[0], teacher], job, say=lambda line: None)
    assert sorted(job.output.parent.iterdir()) == before


@pytest.mark.parametrize("beam", [1, 3])
def test_the_length_penalty_of_the_settings(known, text, beam):
    _, at = known
    long = " ".join(text[0][1:9])
    scored = {}
    for penalty in (0.3, 1.0):
        (translator,) = load([at], Settings(beam, penalty))
        scored[penalty] = translator.translate_with_details([*text[0][1:6], long])
        for line in scored[penalty]:
            # A piece each, and an eos for each part.
            length = len(line.tokens) + line.segments
            assert line.n_best_scores[0] == pytest.approx(line.score / length**penalty, rel=1e-5)
    assert scored[1.0][-1].segments > 1
    if beam == 1:
        greedy = Translator(at.config, at.vocabularies, workdir.load_params(at.place, at.config, at.vocabularies),
                            decode="greedy")  # fmt: skip
        assert [line.text for line in scored[0.3]] == greedy.translate([*text[0][1:6], long])


def test_a_minimum_score_keeps_long_lines_that_are_as_good(beamed, job, text):
    lines = [*text[0][1:9], " ".join(text[0][1:9])]
    job.source.write_text("".join(f"{line}\n" for line in lines))
    (translator,) = load([identify(beamed[0], lambda line: None)], GREEDY)
    details = translator.translate_with_details(lines)
    least = min(line.n_best_scores[0] for line in details)
    assert details[-1].segments > 1
    assert details[-1].segments * details[-1].n_best_scores[0] < least  # what the sum of means would be
    settings = dataclasses.replace(GREEDY, minimum_score=least - 1e-6)
    job = dataclasses.replace(job, target=None, settings=settings, output_source=job.output.with_name("kd.en"))
    made = distill([beamed[0]], job, say=lambda line: None)
    assert made.metadata["pairs"] == len(lines)
    assert job.output_source.read_text() == job.source.read_text()


@pytest.fixture
def copy(teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "W")
    return tmp_path / "W"


def test_what_was_identified_is_what_translates(copy, text, with_weights):
    known = identify(copy, pytest.fail)
    (first,) = load([known], GREEDY)
    expected = first.translate(text[0])
    place = copy / "checkpoints" / "average-last"
    checkpoint.save(place, {"params": tiny.read_params(checkpoint.at(place.parent, 1))}, {"steps": [1], "bleu": 99.0})
    assert workdir.best_weights(copy, pytest.fail)[0] == place  # a training goes on meanwhile
    (again,) = load([known], GREEDY)
    assert again.translate(text[0]) == expected
    with_weights(copy, -2.0)
    with pytest.raises(UserError, match="average-best: has changed since this run began"):
        load([known], GREEDY)


def test_a_training_that_is_not_finished_is_told(copy):
    said = []
    identify(copy, said.append)
    assert said == []
    workdir.drop_averages(copy)
    assert identify(copy, said.append).about["weights"] == "00000001"
    assert said == [f"{copy}: its training is not finished (no averages); its latest checkpoint translates, 00000001"]


def test_damaged_weights_are_passed_over_and_told(copy):
    damaged = next(f for f in (copy / "checkpoints" / "average-best" / "arrays").rglob("*") if f.is_file())
    damaged.write_bytes(damaged.read_bytes() + b"x")
    said = []
    known = identify(copy, said.append)
    assert known.place.name == "00000001"
    assert known.identity["weights_sha256"] == atomic.sha256(known.place / checkpoint.CHECKSUMS)
    assert len(said) == 1 and said[0].endswith("damaged (checksum differs); using the next best weights, 00000001")
    for file in (known.place / "arrays").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(CheckpointError, match="no usable weights"):
        identify(copy, said.append)
