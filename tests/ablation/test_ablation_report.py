"""The table and the paper's order, on numbers made up for the purpose."""

import json
import sys

import pytest

from natjax.ablation import report
from natjax.ablation.grid import TABLE4, TEACHER
from natjax.ablation.order import claims, compare
from natjax.ablation.plot import png
from natjax.ablation.results import RowResult, last_means

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
        ("VAE above none, KD", "axe-kd-vae", "axe-kd"),
        ("VAE above none, raw", "ctc-raw-vae", "ctc-raw"),
        ("VAE above none, KD", "ctc-kd-vae", "ctc-kd"),
        ("GLAT above none, KD", "axe-kd-glat", "axe-kd"),
        ("GLAT above none, raw", "ctc-raw-glat", "ctc-raw"),
        ("GLAT above none, KD", "ctc-kd-glat", "ctc-kd"),
        ("GLAT above RND", "axe-kd-glat", "axe-kd-rnd"),
        ("GLAT above RND", "ctc-kd-glat", "ctc-kd-rnd"),
    ]
    paper = [RowResult(row, (run(row.paper_bleu), run(row.paper_bleu, 2))) for row in TABLE4]
    assert {comparison.verdict for comparison in compare(paper)} == {"holds"}
    assert all(c.difference == pytest.approx(c.paper_difference) for c in compare(paper))


def test_verdicts_on_made_up_numbers():
    found = results(ctc_raw=[20.0, 22.0], axe_raw=[19.0, 21.0], ce_raw=[10.0, 12.0], ctc_kd=[15.0] * 2,
                    axe_kd=[15.0] * 2, ctc_raw_vae=[23.0, 24.0])  # fmt: skip
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


def test_one_run_of_a_row_is_no_verdict():
    found = results(ctc_raw=[20.0], axe_raw=[19.0], ce_raw=[10.0, 12.0])
    by_rows = {(c.better.name, c.worse.name): c for c in compare(found)}
    assert (
        report.order_line(by_rows["ctc-raw", "axe-raw"])
        == "CTC above AXE: CTC raw - AXE raw: +1.00, one run each (paper +1.59)"
    )
    assert (
        report.order_line(by_rows["axe-raw", "ce-raw"])
        == "AXE above CE: AXE raw - CE raw: +8.00 [+7.00 to +9.00], one run of a row (paper +5.19)"
    )


def test_cells_of_a_row():
    found = results(ctc_raw=[20.0, 22.0], ctc_kd_rnd=[30.0])
    by_name = {result.row.name: report.cells(result, found) for result in found}
    assert by_name["ctc-raw"] == ["CTC raw", "2", "21.00", "20.00 to 22.00", "50.00", "0.988", "1.25", "61", "500",
                                  "-", "-", "18.18"]  # fmt: skip
    assert by_name["ctc-kd-rnd"][3] == "-"
    assert by_name["ctc-kd-rnd"][-1] == "26.16*"
    assert by_name["ce-raw"] == ["CE raw", "0", "not run", *"--------", "11.40"]
    assert {len(cells) for cells in by_name.values()} == {len(report.headings(found))}
    valid = [RowResult(ROWS["ctc-raw"], (run(20.0, exactly_valid=12.34),)), RowResult(ROWS["ctc-kd"])]
    assert report.cells(valid[0], valid)[7] == "12.3"
    assert len(report.headings(valid)) == len(report.cells(valid[1], valid)) == 13


def test_what_techniques_said_and_the_teacher_stand_in_the_report():
    runs = (run(20.0, kl=0.5, active_units=2.0, mutual_information=1.0), run(21.0, 2, kl=0.7, active_units=3.0))
    found = [RowResult(ROWS["ctc-raw-vae"], runs), RowResult(ROWS["ctc-kd-glat"], (run(9.0, shown=0.25),)),
             RowResult(ROWS["ctc-kd"], (run(9.0, sentences=12345, epochs=6.25),))]  # fmt: skip
    heading, *lines = report.technique_lines(found)
    assert len(heading) == len(lines[0])
    assert lines == [
        ["CTC raw + VAE", "0.600", "2.500", "1.000", "-"],
        ["CTC KD + GLAT", "-", "-", "-", "0.250"],
    ]
    assert report.technique_lines(found[2:]) == []
    teacher = RowResult(TEACHER, (run(30.0),))
    above, *rest = report.lines(found, teacher)
    assert (above[0], above[2], above[-1]) == ("AT teacher", "30.00", "27.48")
    assert rest == report.lines(found, None) == [report.cells(result, found) for result in found]
    assert rest[-1][-3:-1] == ["12,345", "6.2"]


def test_the_last_record_of_each_technique(tmp_path):
    assert last_means(tmp_path) == {}
    lines = [{"step": 1, "kl": 1.0, "shown": 0.5}, {"step": 2, "kl": 0.5, "loss": 3.0}, {"step": 2, "valid_kl": 9.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert last_means(tmp_path) == {"kl": 0.5, "shown": 0.5}


def test_the_picture():
    shown = png(results(ctc_raw=[20.0, 22.0]), "a title")
    assert shown.startswith(b"\x89PNG")
    assert shown != png(results(ctc_raw=[20.0, 30.0]), "a title")


def test_no_picture_without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert png(results(), "a title") is None
