"""The options of verbs that translate with a model."""

import argparse
import dataclasses
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from natjax.config import DecodingConfig

if TYPE_CHECKING:
    from natjax.translator import Translator

_PREFIX = "decoding."


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Declares how the model decodes."""
    parser.add_argument(
        "--decode",
        choices=("greedy", "beam", "npd", "npd+beam"),
        help="how to decode: greedy (default but for autoregressive models); beam: theirs, or the search over CTC, "
        "with a language model if --decoding.lm-weight is given or tuned; npd, npd+beam: several tries, of which a "
        "teacher chooses",
    )
    add_fields(parser)


def add_fields(parser: argparse.ArgumentParser, without: Iterable[str] = ()) -> None:
    """Declares the fields of the decoding section, but those that the verb has options of its own for."""
    group = parser.add_argument_group(
        "decoding", "in place of what the model's config says; `natjax train CONFIG --fields` tells what each is"
    )
    hints = typing.get_type_hints(DecodingConfig)
    for field in dataclasses.fields(DecodingConfig):
        if field.name in without:
            continue
        # Same spelling as in `natjax train`.
        name, dest, hint = field.name.replace("_", "-"), _PREFIX + field.name, hints[field.name]
        if hint is bool:
            group.add_argument(f"--{_PREFIX}{name}", dest=dest, action="store_true", default=None)
            group.add_argument(f"--{_PREFIX}no-{name}", dest=dest, action="store_false", default=None)
        elif choices := typing.get_args(hint):
            group.add_argument(f"--{_PREFIX}{name}", dest=dest, choices=choices)
        else:
            metavar = {int: "N", float: "X", str: "W"}[hint]
            group.add_argument(f"--{_PREFIX}{name}", dest=dest, type=hint, metavar=metavar)


def decoding_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the decoding section that were given."""
    named = {name.removeprefix(_PREFIX): v for name, v in vars(args).items() if name.startswith(_PREFIX)}
    return {name: value for name, value in named.items() if value is not None}


def load(args: argparse.Namespace, say: Callable[[str], None]) -> "Translator":
    """The translator that `--model` and these options name. Raises UserError; see `Translator.load`."""
    from natjax.translator import Translator

    return Translator.load(args.model, decode=args.decode, decoding=decoding_of(args), say=say)
