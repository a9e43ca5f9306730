"""Options that go together and such that do not, and the choice among candidates."""

import dataclasses
from types import SimpleNamespace

import pytest

from natjax.distillation.job import Settings
from natjax.distillation.teachers import Choice, choose
from natjax.errors import UserError


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"beam": 0}, "--beam 0"),
        ({"length_penalty": -1.0}, "--length-penalty -1"),
        ({"length_penalty": float("nan")}, "--length-penalty nan"),
        ({"n_best": 0}, "--n-best 0"),
        ({"n_best": 6}, "from 1 to the beam, 5"),
        ({"minimum_score": float("inf")}, "--minimum-score inf"),
    ],
)
def test_settings_out_of_range(options, match):
    with pytest.raises(UserError, match=match):
        Settings(**options)


def test_files_that_do_not_go_together(job, files):
    job.check()
    listed, scored = Settings(n_best=2), Settings(minimum_score=-1.0)
    for changes, match in (
        ({"settings": listed}, "add --output-source"),
        ({"settings": scored}, "add --output-source"),
        ({"output_source": files / "kd.en"}, "without them"),
        ({"shard": (0, 2)}, "from 1/n to n/n"),
        ({"shard": (3, 2)}, "from 1/n to n/n"),
        ({"output": files / "nowhere" / "kd.de"}, "its folder does not exist"),
        ({"output": files}, "is a folder"),
        ({"output": files / "kd.de.gz"}, "plain text"),
        ({"output": files / "train.en"}, "different files"),
        ({"output": files / ".." / "work" / "train.de"}, "different files"),
        ({"output_source": files / "kd.de.json", "settings": listed}, "different files"),
    ):
        with pytest.raises(UserError, match=match):
            dataclasses.replace(job, **changes).check()


def said(**texts):
    return SimpleNamespace(n_best=list(texts), n_best_scores=list(texts.values()))


def test_the_best_of_all_candidates():
    first, second = said(a=-1.0, b=-2.0, c=-4.0), said(b=-0.5, d=-1.0, c=-5.0)
    chosen, left_out = choose([first, second], Settings(n_best=3))
    assert chosen == [Choice("b", -0.5, 1), Choice("a", -1.0, 0), Choice("d", -1.0, 1)]
    assert left_out == {"duplicates": 2, "low_scores": 0}
    chosen, left_out = choose([first, second], Settings(n_best=5, minimum_score=-1.0))
    assert [choice.text for choice in chosen] == ["b", "a", "d"]
    assert left_out == {"duplicates": 2, "low_scores": 1}
    assert choose([first], Settings())[0] == [Choice("a", -1.0, 0)]


def test_a_teacher_offers_what_it_ranks_first():
    # Of a line that was cut, its second translation may have the better score.
    cut = SimpleNamespace(n_best=["a", "b", "a", "c"], n_best_scores=[-2.0, -1.0, -3.0, -4.0])
    assert choose([cut], Settings()) == ([Choice("a", -2.0, 0)], {"duplicates": 0, "low_scores": 0})
    assert choose([cut], Settings(n_best=2))[0] == [Choice("b", -1.0, 0), Choice("a", -2.0, 0)]
    texts, left_out = choose([cut], Settings(n_best=3))
    assert [choice.text for choice in texts] == ["b", "a", "c"]
    assert left_out["duplicates"] == 1
    assert choose([cut, said(b=-1.5)], Settings()) == ([Choice("b", -1.5, 1)], {"duplicates": 0, "low_scores": 0})
    assert choose([cut, said(a=-1.5)], Settings()) == ([Choice("a", -1.5, 1)], {"duplicates": 1, "low_scores": 0})


def test_among_equals_the_first_teachers():
    assert choose([said(a=-1.0), said(b=-1.0)], Settings())[0] == [Choice("a", -1.0, 0)]
    assert choose([said(a=-1.0), said(a=-1.0)], Settings())[0] == [Choice("a", -1.0, 0)]
