"""Text to score: untouched, with all its references."""

import dataclasses

import pytest
import tiny

from natjax.data import grammar
from natjax.data.validation import embedded_text, validation_text
from natjax.errors import DataError


def test_the_embedded_text_has_every_reference_and_the_drawn_one_first():
    text = embedded_text("demo", "test", 40)
    examples = grammar.generate("demo", "test", 40, seed=0)
    assert text.sources == [e.source for e in examples]
    assert [r[0] for r in text.references] == [e.target for e in examples]
    assert any(e.target != e.references[0] for e in examples)
    for references, example in zip(text.references, examples):
        assert sorted(references) == sorted(example.references)


def test_files_are_given_out_as_they_are(tmp_path):
    (tmp_path / "valid.source").write_text("a  b \n")
    (tmp_path / "valid.target").write_text("c\u00a0d\n")
    for side in ("source", "target"):
        (tmp_path / f"train.{side}").write_text("x\n")
    config = tiny.config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, embedded="none", root=str(tmp_path)))
    assert validation_text(config) == (["a  b "], [["c\u00a0d"]])
    (tmp_path / "valid.source").unlink()
    with pytest.raises(DataError, match="no such file"):
        validation_text(config)
