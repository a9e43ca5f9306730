"""Configs from Python files, and to and from JSON."""

import dataclasses
import json
import os
import runpy
from pathlib import Path

from natjax.config.checks import validate
from natjax.config.sections import Config
from natjax.errors import ConfigError, nearest, one_line
from natjax.typed import build, leaves


def configs_folder() -> Path:
    """Where the shipped configs lie: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).parents[1]
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Name -> file of every config that ships with natjax."""
    return {p.stem: p for p in sorted(configs_folder().glob("*.py")) if not p.stem.startswith("_")}


def load_config(path: str | Path) -> Config:
    """Builds the config that a file describes.

    Args:
        path: a Python file with `get_config() -> Config`, or the name of a shipped config (`natjax configs`). A name
            is a name, whatever lies in the folder; a file is meant where there is a suffix or a folder.

    Raises:
        ConfigError: no such file or name, the file fails, or the values are impossible.
    """
    shipped = shipped_configs()
    file = shipped.get(str(path), Path(path))
    if not file.is_file():
        message = f"{path}: no such config file, nor one of natjax's ({', '.join(shipped)})"
        raise ConfigError(message + nearest(str(path), shipped))
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        config = get_config() if get_config else None
    except (Exception, SystemExit) as error:  # a config is the user's program: whatever ends it is theirs to mend
        hint = "; return a Config instead of leaving the program" if isinstance(error, SystemExit) else ""
        if "unexpected keyword argument" in str(error):
            hint = nearest(str(error).split("'")[-2], [name.split(".")[-1] for name, _ in leaves(Config(""))])
        raise ConfigError(f"{file}: failed with {type(error).__name__}: {one_line(error)}{hint}") from error
    if get_config is None:
        raise ConfigError(f"{file}: has no function get_config(); see `natjax configs` for examples")
    if not isinstance(config, Config):
        raise ConfigError(f"{file}: get_config() must return natjax.config.Config, not {type(config).__name__}")
    config = build(Config, dataclasses.asdict(config), str(file))  # Python does not check the types of fields
    validate(config)
    return config


def to_json(config: Config) -> str:
    """The config as indented JSON, every field written out."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str, where: str = "config.json") -> Config:
    """Reads what `to_json` wrote.

    Raises:
        ConfigError: not JSON, an unknown field (a file of a newer natjax), or a value of the wrong type.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON ({one_line(error)}); restore it from a backup") from None
    config = build(Config, tree, where)
    validate(config)
    return config


def differing_fields(old: Config, new: Config) -> list[str]:
    """Lines `section.field: old -> new` for every field that differs."""
    new_values = dict(leaves(new))
    return [f"{name}: {value!r} -> {new_values[name]!r}" for name, value in leaves(old) if value != new_values[name]]


def expand(path: str) -> str:
    """Expands `$VARIABLES` and `~`.

    Raises:
        ConfigError: a variable is not set.
    """
    expanded = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise ConfigError(f"{path}: the environment variable {variable} is not set; export {variable[1:]}=<folder>")
    return expanded
