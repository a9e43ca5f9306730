"""The table and the paper's order, on numbers made up for the purpose."""

import sys

import pytest

from natjax.ablation import report
from natjax.ablation.grid import TABLE4
from natjax.ablation.order import claims, compare
from natjax.ablation.plot import png
from natjax.ablation.results import RowResult

ROWS = {row.name: row for row in TABLE4}


def run(bleu, seed=1, **more):
    metrics = {"bleu": bleu, "chrf": 50.0, "bp": 0.9876, "repetition_rate": 1.25, "exactly_valid": None,
               "training_seconds": 61.4, "updates": 500, **more}  # fmt: skip
    return {"seed": seed, "metrics": metrics}


def results(**bleus):
    """RowResults of all rows; names with underscores, a list of BLEUs each."""
    given = {name.replace("_", "-"): values for name, values in bleus.items()}
    return [RowResult(row, tuple(run(b, s) for s, b in enumerate(given.get(row.name, []), 1))) for row in TABLE4]


def test_the_claims_are_those_of_the_paper_and_hold_there():
    found = [(claim, better.name, worse.name) for claim, better, worse in claims(TABLE4)]
    assert found == [
        ("CTC above AXE", "ctc-raw", "axe-raw"),
        ("CTC above AXE", "ctc-kd", "axe-kd"),
        ("CTC above AXE", "ctc-kd-vae", "axe-kd-vae"),
        ("CTC above AXE", "ctc-kd-rnd", "axe-kd-rnd"),
        ("CTC above AXE", "ctc-kd-glat", "axe-kd-glat"),
        ("AXE above CE", "axe-raw", "ce-raw"),
        ("AXE above CE", "axe-kd", "ce-kd"),
        ("KD above raw", "ce-kd", "ce-raw"),
        ("KD above raw", "axe-kd", "axe-raw"),
        ("KD above raw", "ctc-kd", "ctc-raw"),
        ("KD above raw", "ctc-kd-vae", "ctc-raw-vae"),
        ("KD above raw", "ctc-kd-glat", "ctc-raw-glat"),
        ("VAE above none, raw", "ctc-raw-vae", "ctc-raw"),
        ("GLAT above none, raw", "ctc-raw-glat", "ctc-raw"),
    ]
    paper = [RowResult(row, (run(row.paper_bleu),)) for row in TABLE4]
    assert {comparison.verdict for comparison in compare(paper)} == {"holds"}
    assert all(c.difference == pytest.approx(c.paper_difference) for c in compare(paper))


def test_verdicts_on_made_up_numbers():
    found = results(ctc_raw=[20.0, 22.0], axe_raw=[19.0, 21.0], ce_raw=[10.0, 12.0], ctc_kd=[15.0], axe_kd=[15.0],
                    ctc_raw_vae=[23.0, 24.0])  # fmt: skip
    by_rows = {(c.better.name, c.worse.name): c for c in compare(found)}
    told = by_rows["ctc-raw", "axe-raw"]
    assert (told.difference, told.low, told.high, told.verdict) == (1.0, -1.0, 3.0, "undecided")
    assert by_rows["axe-raw", "ce-raw"].verdict == "holds"
    assert by_rows["ctc-kd", "ctc-raw"].verdict == "does not hold"
    assert by_rows["ctc-kd", "axe-kd"].verdict == "does not hold"  # equal is not above
    assert by_rows["ctc-raw-glat", "ctc-raw"].verdict == "not run"
    assert (
        report.order_line(by_rows["ctc-raw-vae", "ctc-raw"])
        == "VAE above none, raw: CTC raw + VAE - CTC raw: +2.50 [+1.00 to +4.00], holds (paper +5.40)"
    )
    assert report.order_line(by_rows["ce-kd", "ce-raw"]) == "KD above raw: CE KD - CE raw: not run (paper +8.10)"


def test_cells_of_a_row():
    found = results(ctc_raw=[20.0, 22.0], ctc_kd_rnd=[30.0])
    by_name = {result.row.name: report.cells(result, found) for result in found}
    assert by_name["ctc-raw"] == ["CTC raw", "2", "21.00", "20.00 to 22.00", "50.00", "0.988", "1.25", "61", "500",
                                  "18.18"]  # fmt: skip
    assert by_name["ctc-kd-rnd"][3] == "-"
    assert by_name["ctc-kd-rnd"][-1] == "26.16*"
    assert by_name["ce-raw"] == ["CE raw", "0", "not run", *"------", "11.40"]
    assert {len(cells) for cells in by_name.values()} == {len(report.headings(found))}
    valid = [RowResult(ROWS["ctc-raw"], (run(20.0, exactly_valid=12.34),)), RowResult(ROWS["ctc-kd"])]
    assert report.cells(valid[0], valid)[7] == "12.3"
    assert len(report.headings(valid)) == len(report.cells(valid[1], valid)) == 11


def test_the_picture():
    shown = png(results(ctc_raw=[20.0, 22.0]), "a title")
    assert shown.startswith(b"\x89PNG")
    assert shown != png(results(ctc_raw=[20.0, 30.0]), "a title")


def test_no_picture_without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert png(results(), "a title") is None
