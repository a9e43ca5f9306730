"""Figures in the documentation are those of the results they name."""

import ast
import json
import re
from pathlib import Path

import pytest

from natjax.config import shipped_configs

ROOT = Path(__file__).parent.parent
# | anything | measured | target or nothing | `part.metric` |
ROW = re.compile(r"^\|(?:[^|]*)\| *([\d.,]+)(?: [A-Za-z]+)? *\|([^|]*)\| *`(\w+)\.(\w+)` *\|$", re.MULTILINE)


# Of a config: | anything | BLEU | chrF2++ | file |. Of the README: | ... | BLEU (how) | chrF2++ | [result](file) ... |
OF_CONFIG = re.compile(r"^\|[^|]*\| ([\d.]+) \| ([\d.]+) \| (\S+\.json) \|$", re.MULTILINE)
OF_README = re.compile(r"\| ([\d.]+)(?: \(\w+\))? \| ([\d.]+) \| \[result\]\(benchmarks/results/(\S+\.json)\)")

# Of docs/recipes.md: | config | seconds | [name](file) |.
RUN = re.compile(r"^\| `(\w+)` \| ([\d,]+)[\w ]* \| \[\S+\]\(\.\./benchmarks/results/(\S+)\) \|$", re.MULTILINE)


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def docstring(name):
    return ast.get_docstring(ast.parse(shipped_configs()[name].read_text()))


def scores(found):
    return f"{found['metrics']['bleu']:.1f}", f"{found['metrics']['chrf']:.1f}"


@pytest.mark.parametrize("name", [name for name in shipped_configs() if name.startswith("multi30k")])
def test_configs_tell_what_to_expect_of_them(name):
    text = docstring(name)
    rows = OF_CONFIG.findall(text)
    assert "What to expect" in text
    assert bool(rows) != ("What to expect: not measured yet" in text)
    for *shown, file in rows:
        found = result(file)
        assert tuple(shown) == scores(found), file
        assert f"trained in {round(found['extra']['train_seconds']):,} s" in " ".join(text.split())
        assert re.match(rf"natjax train {name} ", found["extra"]["train_command"])
    named = {file for *_, file in rows}
    for file in (ROOT / "benchmarks" / "results").glob("multi30k*/*.json"):
        command = json.loads(file.read_text()).get("extra", {}).get("train_command", "")
        if command.startswith(f"natjax train {name} ") and command.count("--") == 1:  # as it ships
            assert f"{file.parent.name}/{file.name}" in named


def test_the_tables_of_the_readme_follow_their_results():
    rows = OF_README.findall((ROOT / "README.md").read_text())
    assert len(rows) >= 5
    for *shown, file in rows:
        assert tuple(shown) == scores(result(file)), file


def test_the_recipes_took_what_is_said():
    page = (ROOT / "docs" / "recipes.md").read_text()
    rows = RUN.findall(page)
    assert len(rows) >= 3
    for name, seconds, file in rows:
        extra = result(file)["extra"]
        assert seconds == f"{round(extra['train_seconds']):,}"
        assert extra["train_command"].startswith(f"natjax train {name} ")


def test_the_readme_compares_with_ctranslate2_as_measured():
    text = " ".join((ROOT / "README.md").read_text().split())
    seconds = result("multi30k_en_de/ct2.json")["metrics"]
    for way in ("greedy", "beam5"):
        row = [seconds[f"{way}_{who}_batch{batch}_seconds"] for batch in (1, 32) for who in ("natjax", "ctranslate2")]
        assert f"| {way.replace('5', ' 5')} | {row[0] / row[1]:.2f} | {row[2] / row[3]:.2f} |" in text


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
