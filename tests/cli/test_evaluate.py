import argparse
import json
import subprocess
import sys
import time
import types
from typing import ClassVar

import pytest
import tiny

from natjax.cli import evaluate
from natjax.errors import DataError, UserError
from natjax.evaluation.metrics import score
from natjax.evaluation.significance import paired_bootstrap

REFERENCES = ["ein Hund läuft über die grüne Wiese", "die Katze schläft auf dem Vier-Sterne-Sofa", "er liest ein Buch"]
HYPOTHESES = ["ein Hund läuft über die die Wiese", "eine Katze schläft auf dem Vier-Sterne-Sofa", "er liest ein Buch"]
BASELINE = ["Hund läuft Wiese", "Katze schläft auf dem Vier-Sterne-Sofa", "liest ein Buch"]


@pytest.fixture
def files(tmp_path):
    def write(name, lines):
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def inputs(files):
    return ["--hypothesis", files("hyp", HYPOTHESES), "--reference", files("ref", REFERENCES)]


def run(arguments, rest=()):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args(arguments), list(rest))


def run_json(arguments, capsys):
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def translator(monkeypatch):
    """Stands in for a trained model: what it was loaded with, and translations from a table."""

    class Translator:
        """A line in capitals is over-long; what is not warm takes a second to compile."""

        loaded: ClassVar = []
        warm: ClassVar = ()
        config = tiny.config()

        @classmethod
        def load(cls, path, *, decode, decoding, say):
            cls.loaded.append((path, decode, decoding))
            return cls()

        def warm_up(self, lines):
            self.warm = tuple(lines)
            time.sleep(5)

        def translate(self, lines, *, on_cut):
            if tuple(lines) != self.warm:
                time.sleep(5)
            for place, line in enumerate(lines):
                if line.isupper():
                    on_cut(place, 2)
            return [dict(zip("abc", HYPOTHESES))[line.lower()] for line in lines]

    module = types.ModuleType("natjax.translator")
    module.Translator = Translator
    monkeypatch.setitem(sys.modules, "natjax.translator", module)
    return Translator


def test_json_holds_the_scores(inputs, capsys):
    report = run_json(inputs, capsys)
    expected = score(HYPOTHESES, [[line] for line in REFERENCES])
    assert {name: report[name] for name in expected.as_dict()} == expected.as_dict()
    assert (report["seconds"], report["plugin"], report["baseline"]) == (None, {}, {})


def test_the_table_shows_numbers_and_signatures(inputs, capsys):
    assert run(inputs) == 0
    shown = capsys.readouterr().out
    expected = score(HYPOTHESES, [[line] for line in REFERENCES])
    for value in (f"{expected.bleu:.2f}", f"{expected.chrf:.2f}", f"{expected.bp:.3f}", f"{expected.length_ratio:.3f}"):
        assert value in shown
    assert f"{100 / 17:.2f}%" in shown  # one repeated word of seventeen
    assert "BLEU (13a)" in shown
    assert expected.bleu_signature in shown
    assert expected.chrf_signature in shown
    assert "baseline" not in shown


def test_tokenization_options_reach_the_scores(inputs, capsys):
    report = run_json([*inputs, "--tokenize", "none", "--compound-split"], capsys)
    expected = score(HYPOTHESES, [[line] for line in REFERENCES], tokenize="none", compound_split=True)
    assert report["bleu"] == expected.bleu
    assert report["tokenize"] == "none+compound-split"


def test_several_references_and_an_empty_line_means_none(inputs, files, capsys):
    report = run_json([*inputs, files("second", [HYPOTHESES[0], "", ""])], capsys)
    expected = score(HYPOTHESES, [[REFERENCES[0], HYPOTHESES[0]], [REFERENCES[1]], [REFERENCES[2]]])
    assert report["bleu"] == expected.bleu
    assert report["bleu_signature"].startswith("nrefs:var|")


def test_baseline_adds_the_comparison(inputs, files, capsys):
    arguments = [*inputs, "--baseline", files("baseline", BASELINE)]
    report = run_json(arguments, capsys)
    expected = paired_bootstrap(HYPOTHESES, BASELINE, [[line] for line in REFERENCES])
    for metric, comparison in expected.items():
        assert report["baseline"][metric] == {**comparison._asdict(), "interval": list(comparison.interval)}
    run(arguments)
    shown = capsys.readouterr().out
    assert f"{expected['bleu'].difference:+.2f}" in shown
    assert f"{expected['chrf'].p_value:.3f}" in shown


def test_a_model_translates_the_source(translator, files, tmp_path, capsys):
    output = tmp_path / "hyp"
    arguments = ["--model", "runs/a", "--source", files("src", "abc"), "--reference", files("ref", REFERENCES)]
    report = run_json([*arguments, "--output", str(output), "--decode", "beam"], capsys)
    assert translator.loaded == [("runs/a", "beam", {})]
    assert report["bleu"] == score(HYPOTHESES, [[line] for line in REFERENCES]).bleu
    assert 0 <= report["seconds"] < 4  # neither warming up nor compiling
    assert output.read_text(encoding="utf-8") == "".join(line + "\n" for line in HYPOTHESES)
    run([*arguments, "--decoding.blank-penalty", "0.5"])
    assert "seconds" in capsys.readouterr().out
    assert translator.loaded[-1] == ("runs/a", None, {"blank_penalty": 0.5})


def test_cut_source_lines_are_told_on_stderr(translator, files, capsys):
    source = files("src", "aBC")
    arguments = ["--model", "runs/a", "--source", source, "--reference", files("ref", REFERENCES)]
    assert run([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == [f"natjax: {source}:{n}: too long, cut into 2 segments" for n in (2, 3)]
    assert json.loads(out)["sentences"] == 3


def test_a_plugin_adds_its_scores(inputs, files, capsys):
    plugin = files("plugin.py", ["def score(s, h, r): return {'com[et]': len(s[0]) + len(h) / 8 + len(r[0])}"])
    arguments = [*inputs, "--source", files("src", "abc"), "--metric-plugin", plugin]
    assert run_json(arguments, capsys)["plugin"] == {"com[et]": 2.375}
    run(arguments)
    shown = capsys.readouterr().out
    assert "com[et]" in shown
    assert "2.3750" in shown


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["--hypothesis", "{short}", "--reference", "{ref}"], DataError, "short: 2 lines, but .*ref has 3"),
        (["--hypothesis", "{ref}", "--reference", "{ref}", "{short}"], DataError, "short: 2 lines"),
        (["--hypothesis", "{ref}", "--reference", "{ref}", "--baseline", "{short}"], DataError, "short: 2 lines"),
        (["--hypothesis", "{ref}", "--reference", "{ref}", "--source", "{short}"], DataError, "short: 2 lines"),
        (["--hypothesis", "{empty}", "--reference", "{empty}"], DataError, "empty: has no lines"),
        (["--hypothesis", "{ref}", "--reference", "{gap}", "{gap}"], DataError, "gap:2: no reference in any"),
        (["--hypothesis", "{missing}", "--reference", "{ref}"], DataError, "missing"),
        (["--hypothesis", "{latin}", "--reference", "{ref}"], DataError, "latin.*UTF-8"),
        (["--hypothesis", "{ref}", "--reference", "{ref}", "--tokenize", "14a"], UserError, "unknown tokenization"),
        (["--hypothesis", "{ref}", "--reference", "{ref}", "--output", "x"], UserError, "--output"),
        (["--hypothesis", "{ref}", "--reference", "{ref}", "--metric-plugin", "x"], UserError, "add --source"),
        (
            ["--hypothesis", "{ref}", "--reference", "{ref}", "--source", "{ref}", "--metric-plugin", "{missing}"],
            UserError,
            "no such metric plugin",
        ),
        (["--model", "runs/a", "--reference", "{ref}"], UserError, "add --source"),
        (
            ["--model", "runs/a", "--source", "{short}", "--reference", "{ref}", "--output", "{ref}"],
            UserError,
            "ref: is read, too; name another file for --output",
        ),
        (
            ["--hypothesis", "{ref}", "--reference", "{ref}", "--decoding.blank-penalty", "1"],
            UserError,
            "with --model only",
        ),
        (
            ["--model", "runs/a", "--source", "{ref}", "--reference", "{ref}", "--output", "{missing}/hyp"],
            UserError,
            "folder does not exist",
        ),
        (["--model", "runs/a", "--source", "{short}", "--reference", "{ref}"], DataError, "short: 2 lines"),
        (
            ["--model", "runs/a", "--source", "{ref}", "--reference", "{ref}", "--tokenize", "14a"],
            UserError,
            "unknown tokenization",
        ),
    ],
)
def test_what_a_person_can_get_wrong(translator, files, tmp_path, options, kind, message):
    names = {
        "ref": files("ref", REFERENCES),
        "short": files("short", REFERENCES[:2]),
        "gap": files("gap", ["a", "", "c"]),
        "empty": files("empty", []),
        "missing": str(tmp_path / "missing"),
        "latin": str(tmp_path / "latin"),
    }
    (tmp_path / "latin").write_bytes("läuft\n".encode("latin-1") * 3)
    with pytest.raises(kind, match=message) as raised:
        run([option.format(**names) for option in options])
    assert "\n" not in str(raised.value)
    assert translator.loaded == []  # refused before the model is loaded


@pytest.mark.parametrize("what", [[], ["--model", "a", "--hypothesis", "b"]])
def test_exactly_one_of_model_and_hypothesis(what, capsys):
    with pytest.raises(SystemExit) as raised:
        run([*what, "--reference", "c"])
    assert raised.value.code == 2
    assert "--hypothesis" in capsys.readouterr().err


def test_the_verb_is_cheap_to_import():
    program = (
        "import sys; from natjax.cli import evaluate; "
        "print(sorted({'jax', 'sacrebleu', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_verb_describes_itself():
    assert "\n" not in evaluate.SUMMARY
    examples, explained = evaluate.EPILOG.strip().split("\n\n")
    assert all(line.startswith("  natjax evaluate ") for line in examples.splitlines()[1:])
    assert '"seconds"' in explained
