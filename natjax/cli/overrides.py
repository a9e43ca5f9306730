"""What the verbs that take a config share: the file, the typed overrides, and the list of fields."""

import argparse
import contextlib
import difflib
import io
import re
import sys
from collections.abc import Iterable
from itertools import zip_longest

from natjax.config import Config, leaves, load_config, unused_fields, validate
from natjax.errors import ConfigError


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declares the config and what lists its fields."""
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that ships with natjax")
    parser.add_argument("--fields", action="store_true", help="list every --section.field with its value, and leave")


def config_of(args: argparse.Namespace, rest: list[str]) -> Config | None:
    """The config with its overrides; None after `--fields` has listed them on stdout.

    Raises:
        ConfigError: see `natjax.config` and `override`.
    """
    config = override(load_config(args.config), rest, [name for name in vars(args) if name not in ("config", "what")])
    if args.fields:
        sys.stdout.write(fields_help(config))
        return None
    return config


def override(config: Config, arguments: list[str], others: Iterable[str] = ()) -> Config:
    """Applies `--section.field value` overrides, typed by the dataclasses.

    Args:
        config: what is overridden.
        arguments: as they stand on the command line.
        others: names of the verb's other options, which a mistyped one may have meant.

    Raises:
        ConfigError: an unknown field (the nearest names are listed) or a value of the wrong type.
    """
    known = dict(leaves(config))
    for argument, following in zip_longest(arguments, arguments[1:]):
        if not argument.startswith("--"):
            continue
        option, given, _ = argument.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        field = name if name in known else name.replace(".no_", ".")  # --data.no_x negates a flag
        if field not in known:
            raise ConfigError(f"unknown option {option}; {_meant(name, [*known, *others])}--fields lists them all")
        if isinstance(known[field], bool) and (given or (following and not following.startswith("-"))):
            section, flag = field.split(".")
            raise ConfigError(f"--{field} takes no value: --{field} says true, --{section}.no_{flag} says false")
    said = io.StringIO()
    try:
        config = _tyro(config, arguments, said)
    except SystemExit:
        raise ConfigError(_tyro_message(said.getvalue())) from None
    validate(config)
    return config


def without_effect(config: Config, arguments: list[str]) -> str | None:
    """A line that names the given options which do nothing with the techniques of the config; None if there is none."""
    given = {argument.partition("=")[0].removeprefix("--").replace("-", "_") for argument in arguments}
    said = [
        f"--{name} ({reason})"
        for name, reason in unused_fields(config).items()
        if given & {name, name.replace(".", ".no_")}
    ]
    return f"without effect here: {', '.join(said)}" if said else None


def _meant(name: str, known: Iterable[str]) -> str:
    """The options that a mistyped or shortened name may stand for, as a question or nothing.

    The last part of the name decides (`--dropout`), or its beginning (`--warmup`), its initials (`--lr`), or letters
    in common; among equals the section.
    """
    word = name.split(".")[-1]

    def likeness(option: str) -> tuple[float, float]:
        field = option.split(".")[-1]
        words = field.split("_")
        whole = difflib.SequenceMatcher(None, name, option).ratio()
        if word in (field, "".join(w[0] for w in words)):
            return 1.0, whole
        if field.startswith(word):
            return 0.9, whole
        letters = difflib.SequenceMatcher(None, word, field).ratio()
        return max(letters, 0.8 if any(w.startswith(word) for w in words) else 0.0), whole

    scores = {option: likeness(option) for option in known}
    enough = max(0.6, max(scores.values())[0] - 0.2)  # beside a sure guess, no vague one
    near = sorted((o for o in scores if scores[o][0] >= enough), key=scores.__getitem__, reverse=True)[:3]
    names = (f"--{option}" if "." in option else f"--{option.replace('_', '-')}" for option in near)
    return f"did you mean {', '.join(names)}? " if near else ""


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
