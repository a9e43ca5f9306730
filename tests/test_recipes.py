"""Recipes: the paper's values, the presets, and commands that natjax understands."""

import argparse
import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from natjax.ablation.grid import TABLE4
from natjax.cli import OVERRIDES, VERBS
from natjax.cli.overrides import override
from natjax.config import Config, ObjectiveConfig, TrainingConfig, differing_fields, load_config, shipped_configs
from natjax.training.warm_start import _FIELDS as SAME_ENCODER

DOCS = Path(__file__).parent.parent / "docs" / "recipes.md"
WMT = [name for name in shipped_configs() if name.startswith("wmt")]
TATOEBA = [name for name in shipped_configs() if name.startswith("tatoeba")]
PAIRS = {"wmt14_en_de", "wmt14_de_en", "wmt16_en_ro", "wmt16_ro_en", "wmt20_ja_en"}
FILES = {"de": "deu", "en": "eng", "ro": "ron", "ja": "jpn"}


def test_the_presets_are_those_of_the_paper_and_of_its_release():
    # (field, paper, release); what the paper does not say, or both share, comes from the release.
    table = [
        ("label_smoothing", 0.01, 0.1), ("normalizer", "token_mean", "sentence_mean"), ("target_eos", False, True),
        ("glancing_distance", "levenshtein", "hamming"), ("glancing_ratio", 0.5, 0.5),
        ("glancing_ratio_end", None, None), ("glancing_random", "uniform", "scaled"),
        ("glancing_sampler", "poisson", "poisson"), ("glancing_blanks", True, True),
        ("glancing_dropout", "fresh", "fresh"), ("free_bits", 1.0, 1.0), ("free_bits_hold", 9000 / 300_000, 0.03),
        ("free_bits_end", 18_000 / 300_000, 0.06), ("length_weight", 0.1, 0.1), ("loss", "ctc", "ctc"),
        ("eval_every", 1000, 5000), ("save_every", 1000, 5000), ("keep_last", 5, 10), ("keep_best", 5, 5),
        ("steps", 300_000, 300_000), ("learning_rate", 5e-4, 5e-4), ("warmup_steps", 10_000, 10_000),
        ("cooldown_steps", 0, 0), ("adam_b1", 0.9, 0.9), ("adam_b2", 0.999, 0.999), ("adam_epsilon", 1e-6, 1e-6),
        ("weight_decay", 0.01, 0.01), ("clip_norm", 2.4, 2.4), ("batch_frames", 131_072, 131_072),
    ]  # fmt: skip
    both = [
        {**vars(ObjectiveConfig.paper()), **vars(TrainingConfig.paper())},
        {**vars(ObjectiveConfig.release()), **vars(TrainingConfig.release())},
    ]
    for field, *wanted in table:
        assert [preset[field] for preset in both] == wanted, field
    differing = {field for field, *wanted in table if wanted[0] != wanted[1]}
    assert {field for field in both[0] if both[0][field] != both[1][field]} == differing
    assert (ObjectiveConfig.release(loss="ce").loss, TrainingConfig.release(steps=9).steps) == ("ce", 9)


@pytest.mark.parametrize("name", WMT)
def test_wmt_has_the_papers_values(name):
    config = load_config(name)
    pair = next(pair for pair in PAIRS if name.startswith(pair))
    source, target = pair.split("_")[1:]
    data, model, training = config.data, config.model, config.training
    assert (data.source_language, data.target_language) == (source, target)
    for split in ("train", "valid"):
        named = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
        assert named == (f"{split}.{FILES[source]}", f"{split}.{FILES[target]}")
    assert model.dropout == (0.1 if source == "ja" else 0.3)
    assert (model.encoder_layers, model.decoder_layers, model.norm, model.ratio) == (6, 6, "post", 3.0)
    assert (data.minimum_score, config.vocab.character_coverage) == ((0.5, 0.9995) if source == "ja" else (0.0, 1.0))
    assert config.vocab.size == (32_000 if source == "ja" else 40_000) and config.vocab.joint
    assert (config.decoding.beam_size, config.decoding.length_penalty) == (5, 1.0)
    teacher = name.endswith("teacher")
    assert config.objective == (
        ObjectiveConfig.paper(loss="ce", target_eos=True) if teacher else ObjectiveConfig.paper()
    )
    assert training == TrainingConfig.paper(batch_frames=131_072 * (1 if teacher else 3))
    big = name in ("wmt14_en_de_big", "wmt20_ja_en_teacher")
    assert (model.width, model.feed_forward) == ((1024, 4096) if big else (512, 2048))
    assert model.heads == (16 if name == "wmt20_ja_en_teacher" else 8)
    assert model.kind == ("autoregressive" if teacher else "nat")
    assert model.activation == ("relu" if teacher else "gelu")


@pytest.mark.parametrize("name", TATOEBA)
def test_tatoeba_names_its_text_and_a_student_fits_its_teacher(name, corpora):
    config = load_config(name)
    source, target = name.split("_")[1:3]
    assert (config.data.source_language, config.data.target_language) == (source, target)
    root = corpora / config.data.root.removeprefix("$NATJAX_DATA/")
    for split, field in (("train", "train_source"), ("valid", "valid_source"), ("valid", "valid_target")):
        assert getattr(config.data, field) == f"{split}.{source if 'source' in field else target}"
        assert (root / getattr(config.data, field)).is_file()
    whole, cpu = "_".join(name.split("_")[:3]), "_cpu" * name.endswith("_cpu")
    if name == f"{whole}_kd{cpu}":
        assert config.data.train_target == "$NATJAX_DISTILLED/train.target"
        fields = [line.split(":")[0] for line in differing_fields(load_config(whole + cpu), config)]
        assert fields == ["name", "data.train_target"]
    else:
        assert (root / config.data.train_target).is_file()
    teacher = load_config(f"{whole}_teacher{cpu}")
    assert teacher.model.kind == "autoregressive" and teacher.vocab == config.vocab
    assert {f: getattr(config.model, f) for f in SAME_ENCODER} == {f: getattr(teacher.model, f) for f in SAME_ENCODER}
    assert abs(config.training.cooldown_steps / config.training.steps - 0.6) < 0.03


@pytest.mark.parametrize("ending", ["", "_full"])
def test_a_student_on_multi30k_differs_in_its_targets_and_fits_its_teacher(ending):
    raw, student = load_config(f"multi30k_en_de{ending}"), load_config(f"multi30k_en_de_kd{ending}")
    fields = [line.split(":")[0] for line in differing_fields(raw, student)]
    assert fields == ["name", "data.train_target"]
    assert student.data.train_target == "$NATJAX_DISTILLED/train.target"
    teacher = load_config("multi30k_en_de_teacher" + ("" if ending else "_cpu"))
    assert teacher.model.kind == "autoregressive" and teacher.vocab == student.vocab
    assert {f: getattr(student.model, f) for f in SAME_ENCODER} == {f: getattr(teacher.model, f) for f in SAME_ENCODER}


@pytest.mark.parametrize("name", ["deep", "teacher"])
def test_full_recipes_of_multi30k_differ_in_their_budget_alone(name):
    whole, small = load_config(f"multi30k_en_de_{name}"), load_config(f"multi30k_en_de_{name}_cpu")
    fields = {line.split(":")[0] for line in differing_fields(whole, small)}
    assert fields <= {"name", "model.dropout", *(f"training.{f}" for f in (
        "steps", "batch_frames", "warmup_steps", "cooldown_steps"
    ))}  # fmt: skip
    assert whole.training.steps * whole.training.batch_frames > 2 * small.training.steps * small.training.batch_frames


def commands(text: str) -> list[list[str]]:
    """The natjax commands of a docstring or a page, one list of words each; lines that end in a backslash go on."""
    starts = tuple(f"natjax {verb} " for verb in VERBS)  # a sentence may begin with natjax, too
    lines = map(str.strip, text.replace("\\\n", " ").splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(starts)]


def understood(words: list[str]) -> Config | None:
    """Parses a command as `natjax` does; the config of those that have one."""
    verb, *rest = words
    module = import_module(f"natjax.cli.{verb}")
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    module.add_arguments(parser)
    args, unknown = parser.parse_known_args(rest)
    if verb in OVERRIDES:
        return override(load_config(args.config), unknown)
    assert not unknown, words
    return None


@pytest.mark.parametrize("name", shipped_configs())
def test_commands_of_docstrings_are_understood(name):
    docstring = ast.get_docstring(ast.parse(shipped_configs()[name].read_text()), clean=False)
    found = commands(docstring)
    configs = {config.name for config in map(understood, found) if config}
    assert name in configs or f"{name}.py" in docstring
    # Rows of a table: options of `natjax train NAME`, one row a system.
    if heading := re.search(r"\| options of `natjax train (\w+)` ", docstring):
        rows = re.findall(r"^\| (?:the same, )?`(--[^`]+)`", docstring, re.MULTILINE)
        assert rows
        for row in rows:
            understood(["train", heading[1], *row.split()])
    if name.startswith(("wmt", "tatoeba")):
        expectation = " ".join(docstring.split("What to expect: ")[1].split())
        assert ("natjax has not been trained on WMT" if name in WMT else "not measured yet") in expectation


def test_wmt_options_reach_the_fields_that_they_mean():
    docstring = ast.get_docstring(ast.parse(shipped_configs()["wmt14_en_de"].read_text()), clean=False)
    (release,) = [words for words in commands(docstring) if "runs/wmt14_en_de/release" in words]
    config, paper = understood(release), load_config("wmt14_en_de")
    assert config.objective == ObjectiveConfig.release()
    assert config.training == TrainingConfig.release(batch_frames=paper.training.batch_frames)
    assert config.model == paper.model


def test_the_table_of_wmt14_is_that_of_the_ablation():
    """One source: each row of the grid with its figure, and a star where its row was inferred."""
    docstring = ast.get_docstring(ast.parse(shipped_configs()["wmt14_en_de"].read_text()), clean=False)
    _, table = docstring.split("| options of `natjax train wmt14_en_de`")
    found = {}
    for options, *cells in re.findall(r"^\| (.*?) +\| +(\S*) +\| +(\S*) +\|$", table, re.MULTILINE):
        changed = understood(["train", "wmt14_en_de", *options.strip("`").split()])
        for distilled, cell in zip((False, True), cells):
            if cell:
                found[changed.objective.loss, distilled, changed.model.latents, changed.objective.glancing] = cell
    assert found == {row[:4]: f"{row.paper_bleu:.2f}{'*' * row.inferred}" for row in TABLE4}


def test_the_page_names_configs_that_exist_and_all_of_them():
    page = DOCS.read_text()
    named = set(re.findall(r"\b(?:wmt\d\d|tatoeba|multi30k(?:_tok)?)_\w\w_\w\w\w*\b(?!/)", page))  # no folder
    assert named <= set(shipped_configs())
    assert set(WMT) <= named
    assert {name for name in TATOEBA if not name.endswith("_cpu")} <= named
    assert {name for name in shipped_configs() if name.startswith("multi30k")} <= named
    assert len(commands(page)) > 5
    for words in commands(page):
        understood(words)


def test_the_page_has_the_presets_of_the_code():
    rows = re.findall(r"^\| `(objective|training)\.(.+)` \| (.+?) \| (.+?) \|$", DOCS.read_text(), re.MULTILINE)
    presets = {
        "objective": (ObjectiveConfig.paper(), ObjectiveConfig.release()),
        "training": (TrainingConfig.paper(), TrainingConfig.release()),
    }
    shown = set()
    for section, fields, *cells in rows:
        for field in fields.split("`, `"):
            shown.add(field)
            for preset, cell in zip(presets[section], cells):
                value = re.match(r"`?([\w.,]+)", cell)[1].rstrip(",").replace(",", "")
                assert value == str(getattr(preset, field)).lower(), field
    differing = {
        field for paper, release in presets.values() for field in vars(paper)
        if getattr(paper, field) != getattr(release, field)
    }  # fmt: skip
    assert shown == differing | {"keep_best"}
