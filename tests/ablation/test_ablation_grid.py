"""The fifteen rows: which they are, in what they differ, and how they are chosen."""

import dataclasses
import typing

import numpy as np
import pytest
import tiny

from natjax import objectives
from natjax.ablation.grid import TABLE4, row_config, select, teacher_config
from natjax.config import Config, ObjectiveConfig, differing_fields, load_config, validate
from natjax.data.plan import choose_buckets
from natjax.errors import ConfigError, UserError

PAPER = {
    "ce-raw": 11.40, "ce-kd": 19.50, "axe-raw": 16.59, "axe-kd": 21.66, "axe-kd-vae": 22.19, "axe-kd-rnd": 22.74,
    "axe-kd-glat": 24.67, "ctc-raw": 18.18, "ctc-raw-vae": 23.58, "ctc-raw-glat": 21.81, "ctc-kd": 26.51,
    "ctc-kd-vae": 27.49, "ctc-kd-rnd": 26.16, "ctc-kd-glat": 27.20, "ctc-kd-vae-glat": 27.21,
}  # fmt: skip
LOSSES = typing.get_args(typing.get_type_hints(ObjectiveConfig)["loss"])
FIELDS = {"data.train_target", "model.latents", "objective.loss", "objective.glancing", "training.batch_frames"}


def test_the_rows_are_those_of_the_paper():
    assert {row.name: row.paper_bleu for row in TABLE4} == PAPER
    assert [row.name for row in TABLE4 if row.inferred] == ["axe-kd-rnd", "axe-kd-glat", "ctc-kd-rnd"]
    assert TABLE4[-1].label == "CTC KD + VAE + GLAT"
    assert TABLE4[0].label == "CE raw"


@pytest.mark.parametrize("base", [load_config("table4"), load_config("multi30k_en_de")], ids=lambda c: c.name)
@pytest.mark.parametrize("row", TABLE4, ids=lambda row: row.name)
def test_a_row_is_the_config_with_four_fields_changed(base, row):
    if row.loss not in LOSSES:
        with pytest.raises(ConfigError, match=rf"row {row.name}: .*'{row.loss}' is not"):
            row_config(base, row, "kd.de")
        return
    made = row_config(base, row, "kd.de")
    validate(made)
    changes = dict(line.split(": ", 1) for line in differing_fields(base, made))
    assert changes.keys() <= FIELDS
    found = made.model.latents, made.objective.loss, made.objective.glancing
    assert found == (row.latents, row.loss, row.glancing)
    assert made.data.train_target == ("kd.de" if row.distilled else base.data.train_target)
    assert row_config(made, row, "kd.de") == made  # whatever the four fields were before


@pytest.mark.parametrize("own", LOSSES)
def test_all_rows_and_the_teacher_see_as_many_sentences_in_an_update(own):
    """Sources as long as their targets, so that a batch of the same budget would hold λ times as many for AXE."""
    base = load_config("table4")
    base = dataclasses.replace(base, objective=dataclasses.replace(base.objective, loss=own))
    lengths = np.random.default_rng(0).integers(4, 20, 3000).astype(np.int32)

    def sentences(config):
        (bucket,) = choose_buckets(
            lengths, lengths, buckets=1, multiple=4, max_length=20, batch_frames=config.training.batch_frames,
            max_frames=objectives.build(config).max_frames, posterior=config.model.latents == "vae",
        )  # fmt: skip
        return bucket.rows

    seen = {row.name: sentences(row_config(base, row, "kd.de")) for row in TABLE4}
    assert set(seen.values()) == {sentences(base)} == {sentences(teacher_config(base))}


def test_all_rows_differ():
    rows = [row for row in TABLE4 if row.loss in LOSSES]
    configs = [row_config(load_config("table4"), row, "kd.de") for row in rows]
    assert len({repr(config) for config in configs}) == len(rows)


def test_rows_by_name_and_by_expression_in_the_order_of_the_table():
    def names(wanted):
        return [row.name for row in select(TABLE4, wanted)]

    assert names(None) == list(PAPER)
    assert names("ctc-kd, ctc-raw") == ["ctc-raw", "ctc-kd"]
    assert names("ctc-raw.*") == ["ctc-raw", "ctc-raw-vae", "ctc-raw-glat"]
    assert names(".*-kd-(rnd|vae),ce-raw") == ["ce-raw", "axe-kd-vae", "axe-kd-rnd", "ctc-kd-vae", "ctc-kd-rnd"]


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ("ctc-rw", "no such row; did you mean ctc-raw"),
        ("ctc", "no such row"),
        ("zzz", "no such row; choose ce-raw, "),
        ("ctc-(", "not a regular expression"),
        (" ,", "names no row"),
    ],
)
def test_rows_that_are_not_there(wanted, match):
    with pytest.raises(UserError, match=match):
        select(TABLE4, wanted)


def test_the_teacher_is_the_config_made_autoregressive():
    base = load_config("table4")
    base = dataclasses.replace(base, training=dataclasses.replace(base.training, encoder_from="runs/other"))
    made = teacher_config(row_config(base, TABLE4[-1], "kd.de"))
    validate(made)
    changed = {line.split(":")[0] for line in differing_fields(base, made)}
    assert changed == {"name", "data.train_target", "model.kind", "objective.loss", "objective.target_eos",
                       "objective.label_smoothing", "training.encoder_from", "training.batch_frames"}  # fmt: skip
    assert made.objective.label_smoothing == 0.1
    assert made.training.batch_frames == base.training.batch_frames / base.model.ratio
    with pytest.raises(ConfigError, match=r"^the teacher: model\.max_positions: .*--teacher"):
        teacher_config(tiny.config(positions="learned", max_positions=80))


def test_a_row_that_cannot_be_is_named():
    base: Config = load_config("table4")
    broken = dataclasses.replace(base, model=dataclasses.replace(base.model, heads=7))
    with pytest.raises(ConfigError, match=r"^row ctc-raw: model\.width: must be a multiple"):
        row_config(broken, next(row for row in TABLE4 if row.name == "ctc-raw"), "kd.de")
