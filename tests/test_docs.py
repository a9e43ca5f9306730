"""Figures in the documentation are those of the results they name."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# | anything | measured | target or nothing | `part.metric` |
ROW = re.compile(r"^\|(?:[^|]*)\| *([\d.,]+)(?: [A-Za-z]+)? *\|([^|]*)\| *`(\w+)\.(\w+)` *\|$", re.MULTILINE)


def test_the_table_of_ctc_follows_its_results():
    rows = ROW.findall((ROOT / "docs" / "ctc.md").read_text())
    named = {(part, metric) for *_, part, metric in rows}
    for shown, target, part, metric in rows:
        result = json.loads((ROOT / "benchmarks" / "results" / "ctc" / f"{part}.json").read_text())
        digits = len(shown.partition(".")[2])
        assert f"{result['metrics'][metric]:,.{digits}f}" == shown, metric
        wanted = result["targets"].get(metric)
        assert target.strip(" ≤≥") == ("" if wanted is None else f"{wanted:g}"), metric
    # None that has a target is left out, least of all one that misses it.
    for part in ("loss", "linear", "top_k", "alignment"):
        result = json.loads((ROOT / "benchmarks" / "results" / "ctc" / f"{part}.json").read_text())
        assert {(part, metric) for metric in result["targets"]} <= named
