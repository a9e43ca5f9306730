"""Trees of dataclasses: their fields by name, and their values checked against the annotations."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from natjax.errors import ConfigError, nearest, one_line


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


def build(cls: type, tree: Any, where: str) -> Any:
    """A dataclass from parsed JSON, every value checked against its annotation.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type; `where` tells the file.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected an object, found {type(tree).__name__}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(tree) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}{nearest(unknown[0], hints)}")
    values = {}
    for name, value in tree.items():
        hint, place = hints[name], f"{where}: {name}"
        if dataclasses.is_dataclass(hint):
            values[name] = build(hint, value, place)
            continue
        if isinstance(hint, types.UnionType):  # T | None
            if value is None:
                values[name] = value
                continue
            (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
        if hint is float and type(value) is int:
            value = float(value) if abs(value) < 1 << 1000 else math.inf
        if (choices and value not in choices) or (not choices and type(value) is not hint):
            wanted = " | ".join(map(str, choices)) if choices else hint.__name__
            raise ConfigError(f"{place}: {value!r} is not {wanted}")
        values[name] = value
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None
