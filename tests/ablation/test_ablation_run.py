"""A grid as a whole, on tiny models: teacher, distillation, rows, table; resumed, stopped, shared, refused."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
from ablation_files import read_json, write_config

from natjax.cli import main
from natjax.data import grammar
from natjax.data.store import open_store
from natjax.errors import DivergedError, Interrupted
from natjax.evaluation.metrics import score
from natjax.training import workdir
from natjax.training.loop import Watch, train
from natjax.translator import Translator

ROWS, TEST = "ctc-raw,ctc-kd", 12


def command(config_file, folder, *more):
    return ["analyze", "ablation", config_file, "--output", str(folder), *more]


@pytest.fixture
def trainings(monkeypatch):
    """Folders that were trained in, in order."""
    folders = []

    def counted(config, folder, **more):
        folders.append("/".join(folder.parts[-2:]))
        return train(config, folder, **more)

    monkeypatch.setattr("natjax.ablation.run.train", counted)
    monkeypatch.setattr("natjax.ablation.teacher.train", counted)
    return folders


def rows_of(folder, store):
    """Training pairs of a store."""
    return open_store(folder / "stores" / store).split("train").rows


def stamps(folder):
    """When each file of the runs was written."""
    places = [folder / "text", *folder.glob("*/seed*"), folder / "stores", folder / "teacher"]
    return {file: file.stat().st_mtime_ns for place in places for file in place.rglob("*") if file.is_file()}


def test_two_rows_with_teacher_and_distillation_and_again(small_corpus, config_file, tmp_path, capsys, trainings):
    folder = tmp_path / "grid"
    words = command(config_file, folder, "--rows", ROWS, "--seeds", "2")
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert trainings == ["ctc-raw/seed2", "grid/teacher", "ctc-kd/seed2"]
    # The distilled target stands beside the text, line by line, and the distilled rows alone were trained on it.
    text = folder / "text"
    assert len((text / "train.distilled").read_text().splitlines()) == len(
        (text / "train.source").read_text().splitlines()
    )
    for name, target in (("ctc-raw", "train.target"), ("ctc-kd", str(text / "train.distilled"))):
        assert read_json(folder / name / "seed2" / "config.json")["data"]["train_target"] == target
    assert sorted(place.name for place in (folder / "stores").iterdir()) == ["kd-frames", "raw-frames"]
    vocabularies = {file.read_bytes() for file in folder.rglob("vocab.model")}
    assert len(vocabularies) == 1
    # The scores are those of the weights on the test split with all references.
    examples = grammar.generate("demo", "test", TEST)
    translations = Translator.load(folder / "ctc-kd" / "seed2").translate([e.source for e in examples])
    expected = score(translations, [e.references for e in examples])
    found = read_json(folder / "ctc-kd" / "seed2" / "test.json")
    assert found["metrics"]["bleu"] == expected.bleu
    assert found["metrics"]["chrf"] == expected.chrf
    assert found["metrics"]["exactly_valid"] == 100 * sum(
        t in e.references for t, e in zip(translations, examples)
    ) / TEST  # fmt: skip
    assert found["metrics"]["updates"] == 4
    assert found["metrics"]["sentences"] == pytest.approx(found["metrics"]["epochs"] * rows_of(folder, "kd-frames"))
    # The teacher stands above the rows, scored with its beam on the same test set.
    teacher = Translator.load(folder / "teacher", decode="beam").translate([e.source for e in examples])
    above = read_json(folder / "teacher_test.json")
    assert above["metrics"]["bleu"] == score(teacher, [e.references for e in examples]).bleu
    told = read_json(folder / "ablation.json")
    assert told["teacher"] == above
    assert "| AT teacher | 1 | " in (folder / "ablation.md").read_text()
    assert "AT teacher" in out
    assert {row["row"]: len(row["runs"]) for row in told["rows"] if row["runs"]} == {"ctc-raw": 1, "ctc-kd": 1}
    assert len(told["rows"]) == 15
    assert (folder / "ablation.md").read_text().count("| not run |") == 13
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert out.count("not run") >= 13
    assert "CTC KD + VAE + GLAT" in out  # no cell is cut
    assert "KD above raw: CTC KD - CTC raw: " in out
    assert err.splitlines()[-1] == f"natjax: {folder}: ablation.json, ablation.md, ablation.png"

    # Again: nothing is trained, nothing is written anew, the table is the same.
    before = stamps(folder)
    trainings.clear()
    assert main(words) == 0
    again = capsys.readouterr()
    assert (again.out, trainings, stamps(folder)) == (out, [], before)
    assert "2 of 2 runs are finished" in again.err
    # A lost score is made again from the weights, and a table counts only what belongs to the weights that are there.
    (folder / "ctc-raw" / "seed2" / "test.json").unlink()
    (folder / "ctc-kd" / "seed2" / "test.json").write_text(
        json.dumps(found | {"weights_sha256": "0" * 64, "metrics": found["metrics"] | {"bleu": 99.0}})
    )
    assert main(words) == 0
    assert capsys.readouterr().out == out
    anew = read_json(folder / "ctc-kd" / "seed2" / "test.json")
    anew["metrics"]["translating_seconds"] = found["metrics"]["translating_seconds"]
    assert anew == found
    # Another config is refused, and nothing is touched.
    before = stamps(folder)
    capsys.readouterr()
    assert main([*words, "--training.learning-rate", "0.1"]) == 2
    err = capsys.readouterr().err
    assert "holds a grid of another config (training.learning_rate: 0.001 -> 0.1)" in err
    assert err.count("\n") == 1
    assert stamps(folder) == before


@pytest.mark.slow
def test_more_rows_and_no_matplotlib(small_corpus, config_file, tmp_path, capsys, monkeypatch, trainings):
    folder = tmp_path / "grid"
    assert main(command(config_file, folder, "--rows", "ctc-raw", "--seeds", "5")) == 0
    capsys.readouterr()
    trainings.clear()
    assert main(command(config_file, folder, "--rows", "ce-raw", "--seeds", "5", "--training.log-every", "1")) == 0
    assert trainings == ["ce-raw/seed5"]
    assert sorted(place.name for place in (folder / "stores").iterdir()) == ["raw-frames", "raw-lengths"]
    capsys.readouterr()
    # Without matplotlib there is a table, and a line that tells how to get the picture.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(command(config_file, folder, "--rows", "ce-raw", "--seeds", "5")) == 0
    out, err = capsys.readouterr()
    assert "CTC raw - AXE raw: not run" in out
    assert "natjax: no plot was made: matplotlib is not installed; pip install 'natjax[plot]'" in err
    assert "ablation.png" not in err


@pytest.mark.slow
def test_files_and_a_given_teacher(small_corpus, config, tmp_path, capsys, trainings):
    """Text in files, with a test set beside it; the teacher is a finished workdir."""
    for split, count in (("train", 200), ("valid", 20), ("test_set", 10)):
        examples = grammar.generate("demo", "train" if split == "train" else "valid", count)
        (tmp_path / f"{split}.source").write_text("".join(f"{e.source}\n" for e in examples))
        (tmp_path / f"{split}.target").write_text("".join(f"{e.target}\n" for e in examples))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, embedded="none", root=str(tmp_path)))
    teacher = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, kind="autoregressive"),
        objective=dataclasses.replace(config.objective, loss="ce", target_eos=True),
    )
    file, folder = write_config(config, tmp_path / "grid.py"), tmp_path / "grid"
    more = ["--rows", ROWS, "--seeds", "1", "--teacher", str(tmp_path / "teacher")]
    assert main(command(file, folder, *more)) == 2
    assert capsys.readouterr().err.startswith(f"natjax: {config.name}: is trained on files; name its test set")
    more += ["--source", "test_set.source", "--reference", str(tmp_path / "test_set.target")]
    with pytest.raises(Interrupted):
        train(teacher, tmp_path / "teacher", watch=Watch(progress=stop_at(2)))
    assert main(command(file, folder, *more)) == 2
    assert "teacher: has made 2 of 4 updates; finish it with natjax train" in capsys.readouterr().err
    assert not folder.exists()
    train(teacher, tmp_path / "teacher")
    capsys.readouterr()
    trainings.clear()
    assert main(command(file, folder, *more)) == 0
    assert trainings == ["ctc-raw/seed1", "ctc-kd/seed1"]
    assert not (folder / "teacher").exists()
    assert read_json(folder / "text" / "train.distilled.json")["teachers"][0]["workdir"] == "teacher"
    (run,) = read_json(folder / "ablation.json")["rows"][7]["runs"]
    examples = grammar.generate("demo", "valid", 10)
    translations = Translator.load(folder / "ctc-raw" / "seed1").translate([e.source for e in examples])
    assert run["metrics"]["bleu"] == score(translations, [[e.target] for e in examples]).bleu
    assert run["metrics"]["exactly_valid"] is None
    assert "valid %" not in capsys.readouterr().out


def stop_at(wanted):
    """Progress that sends this process SIGTERM at a step."""

    def progress(step, *_):
        if step == wanted:
            signal.raise_signal(signal.SIGTERM)

    return progress


@pytest.mark.slow
def test_a_stop_inside_a_run_and_between_two(small_corpus, config_file, tmp_path, capsys, monkeypatch, trainings):
    folder, words = tmp_path / "grid", command(config_file, tmp_path / "grid", "--rows", "ctc-raw", "--seeds", "1,2")
    once = [stop_at(2)]

    class View:
        def __init__(self, label, samples):
            pass

        def __enter__(self):
            return Watch(progress=once.pop() if once else lambda *_: None)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("natjax.cli.console.TrainingView", View)
    assert main(words) == 75
    assert "stopped by SIGTERM at step 2; everything is saved" in capsys.readouterr().err
    scored = score

    def stopping(*args, **more):
        signal.raise_signal(signal.SIGTERM)
        return scored(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr("natjax.ablation.run.score", stopping)
        assert main(words) == 75
    err = capsys.readouterr().err
    assert "stopped by SIGTERM between two trainings; what is finished is kept, the same command goes on" in err
    assert not list(folder.rglob("test.json"))
    assert main(words) == 0
    assert trainings == ["ctc-raw/seed1"] * 3 + ["ctc-raw/seed2"]
    assert len(list(folder.rglob("test.json"))) == 2


@pytest.mark.slow
def test_a_run_that_another_process_is_at_is_left_out(small_corpus, config_file, tmp_path, capsys):
    folder, words = tmp_path / "grid", command(config_file, tmp_path / "grid", "--rows", ROWS, "--seeds", "1")
    with workdir.locked(folder / "ctc-raw" / "seed1"), workdir.locked(folder / "text"):
        # Its folder is there, so it must be known as a grid's.
        (folder / "grid.json").write_text("{")
        assert main(words) == 2
        assert "grid.json: damaged" in capsys.readouterr().err
        (folder / "grid.json").unlink()
        assert main(words) == 2
        assert "holds other things" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*words[:-4], "--rows", "ctc-raw", "--seeds", "9"]) == 0
    with workdir.locked(folder / "ctc-raw" / "seed1"), workdir.locked(folder / "text"):
        assert main(words) == 1
    out, err = capsys.readouterr()
    assert "ctc-raw seed 1: left out" in err
    assert "seed1: another training is running there" in err
    assert "ctc-kd seed 1: left out" in err
    assert "text: " in err
    assert main(words) == 0
    assert "left out" not in capsys.readouterr().err


def test_a_run_that_diverges_is_told_and_the_others_go_on(small_corpus, config_file, tmp_path, capsys, monkeypatch):
    def diverging(config, folder, **more):
        if config.training.seed == 1:
            raise DivergedError("loss nan")
        return train(config, folder, **more)

    monkeypatch.setattr("natjax.ablation.run.train", diverging)
    assert main(command(config_file, tmp_path / "grid", "--rows", "ctc-raw", "--seeds", "1,2")) == 1
    out, err = capsys.readouterr()
    assert "ctc-raw seed 1: left out (loss nan)" in err
    assert "CTC KD + VAE + GLAT" in out  # the table is there all the same
    assert [run["seed"] for run in read_json(tmp_path / "grid" / "ablation.json")["rows"][7]["runs"]] == [2]


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--rows", "ctc-rw"], "--rows ctc-rw: no such row"),
        (["--seeds", "1,x"], "--seeds 1,x: give whole numbers"),
        (["--seeds", "4294967296"], "give whole numbers"),
        (["--rows", "ctc-kd", "--teacher", "nowhere"], "--teacher nowhere: no such config file"),
        (["--rows", "ctc-kd", "--teacher", "demo"], "--teacher demo: model.kind=nat is no teacher"),
        (["--source", "a"], "belong together"),
        (["--source", "a", "--reference", "b"], "the embedded corpus has its test set"),
        (["--grid", "table5"], "invalid choice"),
        (["--training.stepps", "5"], "unknown option --training.stepps"),
        (["--rows", "ctc-kd", "--model.heads", "3"], "model.width: must be a multiple"),
        (["--model.kind", "autoregressive", "--objective.loss", "ce", "--objective.target-eos"], "is no student"),
    ],
)
def test_mistakes(config_file, tmp_path, capsys, more, match):
    before = sorted(tmp_path.iterdir())
    assert main(command(config_file, tmp_path / "grid", *more)) == 2
    err = capsys.readouterr().err
    assert match in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_no_folder_and_a_taken_one(config_file, tmp_path, capsys):
    assert main(["analyze", "ablation", config_file]) == 2
    assert "--output is missing" in capsys.readouterr().err
    assert main(command(config_file, tmp_path)) == 2
    assert "holds other things" in capsys.readouterr().err
    assert main(command(config_file, config_file)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_like_an_undisturbed_grid(config, tmp_path):
    """The real program, on files: SIGKILL at any time, and at last the scores of a run that nobody disturbed."""
    for split, count in (("train", 2100), ("valid", 20), ("test_set", 10)):
        examples = grammar.generate("demo", "train" if split == "train" else "valid", count)
        (tmp_path / f"{split}.source").write_text("".join(f"{e.source}\n" for e in examples))
        (tmp_path / f"{split}.target").write_text("".join(f"{e.target}\n" for e in examples))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, embedded="none", root=str(tmp_path)))
    file = write_config(config, tmp_path / "grid.py")

    def words(folder):
        test = ["--source", "test_set.source", "--reference", "test_set.target"]
        return [sys.executable, "-m", "natjax", *command(file, folder, "--rows", ROWS, "--seeds", "1", *test)]

    done = subprocess.run(words(tmp_path / "undisturbed"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills, finished = 0, False
    for seconds in (3, 5, 7, 9, 11, 13):
        process = subprocess.Popen(words(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        finished = process.poll() is not None
        process.kill()
        process.wait()
        kills += not finished
        if finished:
            break
    assert kills
    done = subprocess.run(words(tmp_path / "killed"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ROWS.split(","):
        one, other = (read_json(tmp_path / k / name / "seed1" / "test.json") for k in ("undisturbed", "killed"))
        for result in (one, other):
            for varying in ("training_seconds", "translating_seconds"):
                del result["metrics"][varying]
        assert one["metrics"] == other["metrics"]
    same = [(tmp_path / kind / "text" / "train.distilled").read_bytes() for kind in ("undisturbed", "killed")]
    assert same[0] == same[1]
