"""The arrows of docs/architecture.md, read from the import statements; and how long modules may be."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "natjax"

# What each part may import of natjax, besides itself. Dependencies point downwards only.
LOW = {"natjax.typing", "natjax.typed", "natjax.errors", "natjax.frames", "natjax.config", "natjax.atomic"}
LAYERS = LOW | {"natjax.layers"}
MODELS = LAYERS | {"natjax.models"}
OBJECTIVES = MODELS | {"natjax.objectives", "natjax.ctc"}
DATA = LOW - {"natjax.typing"} | {"natjax.data"}
ALLOWED = {
    "natjax.typing": set(),
    "natjax.errors": set(),
    "natjax.frames": set(),
    "natjax.typed": {"natjax.errors"},
    "natjax.config": {"natjax.errors", "natjax.frames", "natjax.typed"},
    "natjax.atomic": {"natjax.errors"},
    "natjax.memory": {"natjax.errors"},
    "natjax.ctc": {"natjax.typing"},
    "natjax.lm": {"natjax.typing", "natjax.errors", "natjax.atomic"},
    "natjax.data": DATA,
    "natjax.layers": LAYERS,
    "natjax.models": MODELS,
    "natjax.objectives": OBJECTIVES,
    "natjax.decoding": OBJECTIVES | {"natjax.decoding"},
    "natjax.segments": DATA | {"natjax.typing"},
    "natjax.prefixes": DATA | {"natjax.segments"},
    "natjax.evaluation": LOW | {"natjax.evaluation"},
    "natjax.training": OBJECTIVES | DATA | {"natjax.decoding", "natjax.evaluation", "natjax.training",
                                            "natjax.translator", "natjax.memory"},
    "natjax.choosing": DATA | {"natjax.decoding", "natjax.segments", "natjax.translator"},
    "natjax.translator": OBJECTIVES | DATA | {"natjax.decoding", "natjax.training", "natjax.memory", "natjax.segments",
                                              "natjax.choosing", "natjax.prefixes", "natjax.lm"},
    "natjax.tuning": OBJECTIVES | DATA | {"natjax.decoding", "natjax.evaluation", "natjax.segments", "natjax.training",
                                          "natjax.translator"},
    "natjax.analysis": DATA | {"natjax.analysis", "natjax.evaluation"},
    "natjax.distillation": DATA | {"natjax.distillation", "natjax.analysis", "natjax.evaluation", "natjax.training",
                                   "natjax.translator"},
    "natjax.ablation": DATA | {"natjax.ablation", "natjax.distillation", "natjax.evaluation", "natjax.training",
                               "natjax.translator"},
    "natjax.export": OBJECTIVES | DATA | {"natjax.training", "natjax.export"},
    "natjax.cli": None,  # everything
    "natjax.__main__": {"natjax.cli"},
    "natjax": set(),
}  # fmt: skip


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, file, ast.parse(file.read_text())


def part(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("name", "file", "tree"), list(modules()), ids=lambda x: x if isinstance(x, str) else "")
def test_dependencies_point_downwards(name, file, tree):
    allowed = ALLOWED[part(name)]
    for imported in imports(tree):
        if imported.startswith("natjax") and allowed is not None and part(imported) != part(name):
            assert part(imported) in allowed or imported == "natjax", f"{name} imports {imported}"


def test_the_arrows_are_looked_at():
    assert part("natjax.data.plan") == "natjax.data"
    assert "natjax.models" not in ALLOWED["natjax.data"]
    assert list(imports(ast.parse("from natjax.models import nat"))) == ["natjax.models.nat"]


def test_data_does_not_import_jax():
    for name, _, tree in modules():
        if part(name) == "natjax.data":
            assert not [i for i in imports(tree) if i.split(".")[0] in ("jax", "flax")], name


def test_only_the_checkpoint_module_imports_orbax():
    importers = {name for name, _, tree in modules() if any(i.startswith("orbax") for i in imports(tree))}
    assert importers == {"natjax.training.checkpoint"}


def test_only_the_command_line_prints():
    for name, _, tree in modules():
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert "print" not in calls or part(name) == "natjax.cli", name


def test_no_pickle_and_no_eval():
    for name, _, tree in modules():
        assert not [i for i in imports(tree) if i.split(".")[0] in ("pickle", "marshal", "shelve", "dill")], name
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"eval", "exec"}, name


def test_modules_stay_readable():
    lengths = {name: len(file.read_text().splitlines()) for name, file, _ in modules()}
    assert not {name: n for name, n in lengths.items() if n > 400}
    assert sorted(lengths.values())[len(lengths) // 2] <= 160


def test_setup_cfg_lists_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(f.parent.relative_to(ROOT).parts) for f in PACKAGE.rglob("*.py")}
    assert listed == found | {"natjax.configs"}
