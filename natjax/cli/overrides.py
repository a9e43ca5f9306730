"""What the verbs that take a config share: the file, the typed overrides, and the list of fields."""

import argparse
import contextlib
import io
import re
import sys

from natjax.config import Config, leaves, load_config, nearest, validate
from natjax.errors import ConfigError


def config_of(args: argparse.Namespace, rest: list[str]) -> Config | None:
    """The config with its overrides; None after `--fields` has listed them on stdout.

    Raises:
        ConfigError: see `natjax.config` and `override`.
    """
    config = load_config(args.config)
    if args.fields:
        sys.stdout.write(fields_help(config))
        return None
    return override(config, rest)


def override(config: Config, arguments: list[str]) -> Config:
    """Applies `--section.field value` overrides, typed by the dataclasses.

    Raises:
        ConfigError: an unknown field (the nearest names are listed) or a value of the wrong type.
    """
    known = {name for name, _ in leaves(config)}
    for argument in arguments:
        name = argument.removeprefix("--").split("=", 1)[0].replace("-", "_")
        for unsigned in (name, name.replace(".no_", ".")):  # --data.no-x negates a flag
            if argument.startswith("--") and unsigned in known:
                break
        else:
            if argument.startswith("--"):
                raise ConfigError(f"unknown option {argument.split('=', 1)[0]}{nearest(name, known, prefix='--')}")
    said = io.StringIO()
    try:
        config = _tyro(config, arguments, said)
    except SystemExit:
        raise ConfigError(_tyro_message(said.getvalue())) from None
    validate(config)
    return config


def fields_help(config: Config) -> str:
    """Every `--section.field` with its type, meaning and value, for people."""
    said = io.StringIO()
    with contextlib.suppress(SystemExit):
        _tyro(config, ["--help"], said)
    return said.getvalue()


def _tyro(config: Config, arguments: list[str], said: io.StringIO) -> Config:
    import tyro  # a tenth of a second that only command lines need

    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        return tyro.cli(Config, default=config, args=arguments, prog="natjax", use_underscores=True)


def _tyro_message(panel: str) -> str:
    """The one sentence that matters out of tyro's panel: what stands between its first and second rule."""
    words = " ".join(panel.translate({ord(c): " " for c in "╭╮╰╯│─┌┐└┘"}).split())
    return [*re.split(r"-{10,}", words), words][1].strip()
