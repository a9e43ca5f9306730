"""Configs: files, overrides, JSON, and every mistake in one line."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from natjax.cli.overrides import fields_help, override, without_effect
from natjax.config import (
    Config,
    ModelConfig,
    differing_fields,
    expand,
    from_json,
    leaves,
    load_config,
    shipped_configs,
    to_json,
    validate,
)
from natjax.errors import ConfigError


def test_every_shipped_config_builds_and_documents_its_command():
    assert {"demo", "multi30k_en_de"} <= set(shipped_configs())
    for name, file in shipped_configs().items():
        assert load_config(name).name == name
        assert load_config(file) == load_config(name)
        commands = f"natjax train {name}", f"natjax train configs/{name}.py", f"natjax analyze ablation {name}"
        assert any(command in file.read_text() for command in commands), name


def test_json_round_trip():
    config = load_config("multi30k_en_de")
    assert from_json(to_json(config)) == config


def test_overrides_are_typed_and_nested():
    config = override(tiny.config(), ["--model.ratio", "2.5", "--training.steps=9", "--data.embedded", "hard",
                                      "--model.no_share_embeddings"])  # fmt: skip
    assert (config.model.ratio, config.training.steps, config.data.embedded) == (2.5, 9, "hard")
    assert config.model.share_embeddings is False
    changed = [line.split(":")[0] for line in differing_fields(tiny.config(), config)]
    assert sorted(changed) == ["data.embedded", "model.ratio", "model.share_embeddings", "training.steps"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.bucket", "3"], "unknown option --data.bucket; did you mean --data.buckets"),
        (["--model.dropuot", "0.1"], "--model.dropout"),
        (["--data.buckets", "many"], "--data.buckets"),
        (["--data.buckets"], "--data.buckets"),
        (["--model.norm", "middle"], "pre"),
        (["--model.width", "17"], "model.width"),
        (["stray"], "stray"),
        (["--lr", "3e-4"], "--training.learning_rate"),
        (["--training.lr", "3e-4"], "did you mean --training.learning_rate"),
        (["--warmup", "5"], "did you mean --training.warmup_steps?"),
        (["--dropout", "0.1"], "did you mean --model.dropout"),
        (["--layers=3"], "did you mean --model.encoder_layers, --model.decoder_layers"),
        (["--batch-size", "64"], "--training.batch_frames"),
        (["--epochs", "3"], "unknown option --epochs; --fields lists them all"),
        (["--model.share_embeddings", "False"], "--model.no_share_embeddings says false"),
        (["--model.no-share-embeddings=True"], "--model.share_embeddings takes no value"),
        (["--objective.target_eos", "yes", "--data.buckets", "2"], "--objective.no_target_eos says false"),
        (["--training.seed", "9" * 5000], "training.seed"),
        (["--training.seed", "9223372036854775808"], "training.seed: must be from 0 to 4,294,967,295, not 9223372036"),
        (["--vocab.size", "99999999999"], "vocab.size: must be from 8 to 1,000,000, not 99999999999"),
        (["--model.width", "1000000000"], "model.width: must be from 2 to 32,768, not 1000000000"),
    ],
)
def test_mistaken_overrides_are_one_line(arguments, words):
    with pytest.raises(ConfigError) as caught:
        override(tiny.config(), arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("vocab", "size", 4), ("model", "ratio", 0.5), ("model", "dropout", 1.0),
        ("objective", "label_smoothing", -0.1),
        ("training", "steps", 0), ("training", "warmup_steps", 0), ("training", "keep_last", 0),
        ("training", "save_every", 0), ("training", "save_every", 4), ("training", "seed", -1), ("data", "buckets", 0),
        ("data", "max_length", 41), ("training", "batch_frames", 50), ("model", "heads", 0),
        ("model", "ratio", float("nan")), ("decoding", "max_source_length", 1), ("decoding", "length_candidates", 0),
        ("decoding", "blank_penalty", -0.5), ("decoding", "length_multiplier", 0.0),
        ("objective", "skip_target_penalty", 0.0), ("training", "cooldown_steps", 100_000),
        ("training", "eval_sentences", 0), ("model", "encoder_layers", 0), ("training", "learning_rate", float("inf")),
    ],
)  # fmt: skip
def test_impossible_values_name_their_field(section, field, value):
    config = tiny.config()
    broken = dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **{field: value})}
    )  # fmt: skip
    with pytest.raises(ConfigError, match=field):
        validate(broken)


@pytest.mark.parametrize("name", [n for n, value in leaves(tiny.config()) if type(value) in (int, float)])
def test_every_number_has_a_least_and_a_greatest_value(name):
    section, field = name.split(".")
    part = getattr(tiny.config(), section)
    wholes, floats = (-1, 10**10, 2**63, 10**400), (-200.5, 1e31, 1e300, float("inf"), float("nan"))
    for value in wholes if type(getattr(part, field)) is int else floats:
        broken = dataclasses.replace(tiny.config(), **{section: dataclasses.replace(part, **{field: value})})
        with pytest.raises(ConfigError, match=rf"^{name}: must be from [\d.e,+-]+ to [\d.e,+-]+, not "):
            validate(broken)


def test_the_greatest_seed_is_the_last_that_is_not_another_one():
    import jax
    import jax.numpy as jnp

    from natjax.layers.noise import step_noise

    def drawn(seed):
        noise = step_noise(seed, jnp.int32(0), 1).seed
        return (*jax.random.key_data(jax.random.key(seed)).tolist(), int(noise))

    validate(tiny.changed(tiny.config(), seed=2**32 - 1))
    assert len({drawn(seed) for seed in (0, 1, 2**31, 2**32 - 1)}) == 4
    assert drawn(2**32) == drawn(0)


def test_linear_upsampling_needs_a_whole_ratio_and_shared_tables_a_joint_vocabulary():
    config = tiny.config(upsampling="linear", ratio=2.5)
    with pytest.raises(ConfigError, match="whole number"):
        validate(config)
    separate = dataclasses.replace(tiny.config(), vocab=dataclasses.replace(config.vocab, joint=False))
    with pytest.raises(ConfigError, match="joint"):
        validate(separate)


def test_positions_must_reach():
    config = tiny.config(positions="learned", max_positions=60)
    with pytest.raises(ConfigError, match="max_positions"):
        validate(config)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--objective.free-bits", "5"], "without effect here: --objective.free_bits (model.latents=none)"),
        (["--model.latent-width=32", "--model.latents", "vae"], None),
        (["--objective.loss", "ce", "--model.upsampling", "linear", "--model.latent-width", "32"],
         "--model.upsampling (objective.loss=ce has no upsampling ratio), --model.latent_width (model.latents=none)"),
        (["--objective.no-glancing-blanks"], "--objective.glancing_blanks (objective.glancing=none)"),
        (["--objective.no_glancing_blanks", "--objective.glancing", "rnd"], None),
        (["--objective.glancing", "rnd", "--objective.glancing-ratio", "0.3"],
         "--objective.glancing_ratio (objective.glancing=rnd without a ratio)"),
        (["--objective.glancing", "rnd", "--objective.glancing-ratio", "0.3", "--objective.glancing-random", "scaled"],
         None),
        (["--objective.skip-target-penalty", "3"], "--objective.skip_target_penalty (objective.loss=ctc)"),
        (["--objective.length-weight", "1"], "(objective.loss=ctc has no length to predict)"),
        (["--model.width", "32", "--training.seed", "3"], None),
    ],
)  # fmt: skip
def test_options_that_do_nothing_are_told(arguments, words):
    told = without_effect(override(tiny.config(), arguments), arguments)
    assert told is None if words is None else words in told and "\n" not in told


def test_a_glancing_ratio_alone_stays_and_an_end_is_ramped_to():
    alone = override(tiny.config(), ["--objective.glancing-ratio", "0.3"]).objective
    assert (alone.glancing_ratio, alone.glancing_ratio_end) == (0.3, None)
    ramp = override(tiny.config(), ["--objective.glancing-ratio-end", "0.3"])
    assert (ramp.objective.glancing_ratio, ramp.objective.glancing_ratio_end) == (0.5, 0.3)
    assert from_json(to_json(ramp)) == ramp
    back = override(ramp, ["--objective.glancing-ratio-end", "None"])
    assert back.objective.glancing_ratio_end is None


def test_a_config_saved_when_the_end_of_the_glancing_ratio_was_a_number():
    """Both 0.5 meant what None means now: such a run goes on."""
    for ratio in (0.5, 0.3):
        now = override(tiny.config(), ["--objective.glancing-ratio", str(ratio)])
        saved = to_json(now).replace('"glancing_ratio_end": null', f'"glancing_ratio_end": {ratio}')
        assert saved != to_json(now)
        assert from_json(saved) == now and differing_fields(from_json(saved), now) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "x", "objective": {"glancing_ratio_end": "0.3"}}', "'0.3' is not float"),
        ('{"name": "x", "objective": {"glancing_ratio_end": -1}}', "glancing_ratio_end: must be from 0 to 100"),
        ('{"name": "x", "objective": {"glancing_ratio": null}}', "None is not float"),
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ('{"name": "x", "modle": {}}', "unknown field 'modle'; did you mean model"),
        ('{"name": 3}', "name: 3 is not str"),
        ('{"name": "x", "model": {"heads": "four"}}', "heads: 'four' is not int"),
        ('{"name": "x", "model": {"norm": "mid"}}', "pre | post"),
        ('{"data": {}}', "name"),
        ('{"name": "x", "training": {"seed": 9223372036854775808}}', "training.seed: must be from 0"),
        ('{"name": "x", "model": {"ratio": 1' + "0" * 400 + "}}", "model.ratio: must be from 1 to 100, not inf"),
        ('{"name": "x", "model": {"ratio": NaN}}', "model.ratio: must be from 1 to 100, not nan"),
    ],
)
def test_damaged_json_is_one_line(text, words):
    with pytest.raises(ConfigError) as caught:
        from_json(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


CONFIG = "from natjax.config import *\ndef get_config(): return "


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1", "no function get_config"),
        ("def get_config(): return 3", "must return"),
        ("def get_config(): raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def get_config(): return {}['missing']", "KeyError"),
        (CONFIG + "Config('x', objective=ObjectiveConfig(loss='CTC'))", "'CTC' is not ctc | axe | ce"),
        (CONFIG + "Config('x', training=TrainingConfig(steps='500'))", "'500' is not int"),
        (CONFIG + "Config('x', model=ModelConfig.tiny(droput=0.1))", "did you mean dropout"),
        ("def get_config(:", "SyntaxError"),
        ("import sys\ndef get_config(): sys.exit(3)", "failed with SystemExit: 3; return a Config instead"),
        ("raise SystemExit", "failed with SystemExit"),
        (CONFIG + "Config('x', training=TrainingConfig(seed=2**63))", "training.seed: must be from 0"),
        (CONFIG + "Config('x', training=TrainingConfig(learning_rate=10**400))", "learning_rate: must be from"),
    ],
)
def test_config_files_that_do_not_work(tmp_path, code, words):
    file = tmp_path / "broken.py"
    file.write_text(code)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_file_can_be_stopped(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text("def get_config(): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_config(file)


def test_a_name_that_does_not_exist_gets_the_nearest_and_all_others():
    with pytest.raises(ConfigError, match=r"\(demo, hard, .*; did you mean multi30k_en_de"):
        load_config("multi30k_ende")
    with pytest.raises(ConfigError, match=r"xyz: .*\(demo, hard, multi30k_en_de.*\)$"):
        load_config("xyz")


def test_a_file_in_the_folder_is_not_taken_for_a_config_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("raise RuntimeError('executed')")
    assert load_config("demo").name == "demo"
    with pytest.raises(ConfigError, match="executed"):
        load_config("./demo")


def test_variables(monkeypatch):
    monkeypatch.setenv("SOMEWHERE", "/tmp/x")
    assert expand("$SOMEWHERE/y") == "/tmp/x/y"
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(ConfigError, match="SOMEWHERE is not set"):
        expand("$SOMEWHERE/y")


def test_help_lists_every_field():
    text = fields_help(tiny.config())
    for name, _ in leaves(tiny.config()):
        assert name in text, name


def test_presets_take_changes():
    assert ModelConfig.small(width=128).width == 128
    assert ModelConfig.base() == ModelConfig()
    deep, tiny_deep = ModelConfig.base_12_1(), ModelConfig.tiny_deep(dropout=0.3)
    assert (deep.encoder_layers, deep.decoder_layers, deep.width) == (12, 1, 512)
    assert (tiny_deep.encoder_layers, tiny_deep.decoder_layers, tiny_deep.width) == (6, 1, ModelConfig.tiny().width)
    assert (tiny_deep.dropout, ModelConfig.big(dropout=0.1).width) == (0.3, 1024)


def test_an_autoregressive_model_needs_cross_entropy_and_eos():
    made = tiny.config(kind="autoregressive")
    for loss, eos in (("ctc", True), ("axe", True), ("ce", False)):
        objective = dataclasses.replace(made.objective, loss=loss, target_eos=eos)
        with pytest.raises(ConfigError, match=r"model.kind: .*--objective.loss ce --objective.target-eos"):
            validate(dataclasses.replace(made, objective=objective))
    fine = dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss="ce", target_eos=True))
    validate(fine)
    learned = dataclasses.replace(fine.model, positions="learned", max_positions=95)
    with pytest.raises(ConfigError, match="max_positions: 96 positions"):  # 2 · 40 (data.max_length) + 16
        validate(dataclasses.replace(fine, model=learned))


def test_losses_with_a_length_need_room_for_it():
    made = tiny.config(positions="learned")
    made = dataclasses.replace(made, objective=dataclasses.replace(made.objective, loss="axe", length_range=10))
    for multiplier, most in ((1.0, 50), (0.5, 50), (1.25, 63)):  # data.max_length 40 + 10, multiplied
        made = dataclasses.replace(made, decoding=dataclasses.replace(made.decoding, length_multiplier=multiplier))
        validate(dataclasses.replace(made, model=dataclasses.replace(made.model, max_positions=most)))
        with pytest.raises(ConfigError, match=f"max_positions: {most} positions"):
            validate(dataclasses.replace(made, model=dataclasses.replace(made.model, max_positions=most - 1)))
    # One frame a label, not model.ratio of them a piece.
    one = dataclasses.replace(made.training, batch_frames=40)
    validate(dataclasses.replace(made, training=one))
    with pytest.raises(ConfigError, match="batch_frames"):
        validate(dataclasses.replace(tiny.config(), training=one))


def _seconds(*command: str) -> float:
    code = (
        "import subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        f"subprocess.run({list(command)!r}, check=True, stdout=subprocess.DEVNULL)\n"
        "print(time.perf_counter() - started)\n"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_import_and_help_are_cheap():
    # The targets are 0.3 s and 0.7 s of time; the modules that are loaded do not depend on how busy the machine is.
    listing = "import sys, natjax; print(sorted(m for m in sys.modules if m.split('.')[0] in ('jax', 'numpy', 'flax')))"
    assert subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True).stdout.strip() == "[]"
    helped = (
        "import sys, contextlib, io\nfrom natjax.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('jax', 'flax', 'numpy', 'tyro')))"
    )
    assert subprocess.run([sys.executable, "-c", helped], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.slow
def test_import_and_help_in_seconds():
    bare = min(_seconds(sys.executable, "-c", "pass") for _ in range(3))
    assert min(_seconds(sys.executable, "-c", "import natjax") for _ in range(5)) - bare < 0.3
    assert min(_seconds(sys.executable, "-m", "natjax", "--help") for _ in range(5)) < 0.7


def test_a_config_equals_itself_after_a_workdir(tmp_path):
    (tmp_path / "config.json").write_text(to_json(tiny.config()))
    from natjax.training.workdir import load_config as of_workdir

    assert of_workdir(tmp_path) == tiny.config()
    assert isinstance(of_workdir(Path(tmp_path)), Config)
