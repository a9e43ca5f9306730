"""The options of verbs that translate with a model."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from natjax.config import DecodingConfig

if TYPE_CHECKING:
    from natjax.translator import Translator

_PREFIX = "decoding."


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Declares how the model decodes."""
    parser.add_argument(
        "--decode",
        choices=("greedy", "beam"),
        help="how to decode; beam is for autoregressive models and their default, greedy that of all others",
    )
    group = parser.add_argument_group(
        "decoding", "in place of what the model's config says; `natjax train CONFIG --fields` tells what each is"
    )
    for field in dataclasses.fields(DecodingConfig):
        # Same spelling as in `natjax train`.
        group.add_argument(
            f"--{_PREFIX}{field.name.replace('_', '-')}",
            dest=_PREFIX + field.name,
            type=type(field.default),
            metavar="N" if isinstance(field.default, int) else "X",
        )


def decoding_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the decoding section that were given."""
    named = {name.removeprefix(_PREFIX): v for name, v in vars(args).items() if name.startswith(_PREFIX)}
    return {name: value for name, value in named.items() if value is not None}


def load(args: argparse.Namespace, say: Callable[[str], None]) -> "Translator":
    """The translator that `--model` and these options name. Raises UserError; see `Translator.load`."""
    from natjax.translator import Translator

    return Translator.load(args.model, decode=args.decode, decoding=decoding_of(args), say=say)
