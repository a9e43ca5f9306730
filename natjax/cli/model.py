"""The options of verbs that translate with a model."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from natjax.translator import Translator


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Declares how the model decodes."""
    parser.add_argument(
        "--decode",
        choices=("greedy", "beam"),
        help="how to decode; beam is for autoregressive models and their default (see decoding.beam_size and "
        "decoding.length_penalty of the config), greedy that of all others",
    )
    parser.add_argument(
        "--blank-penalty",
        metavar="P",
        type=float,
        help="CTC: nats by which the blank must lead the best token, more for longer translations (default: the "
        "config's decoding.blank_penalty)",
    )


def load(args: argparse.Namespace, say: Callable[[str], None]) -> "Translator":
    """The translator that `--model` and these options name. Raises UserError; see `Translator.load`."""
    from natjax.translator import Translator

    return Translator.load(args.model, decode=args.decode, blank_penalty=args.blank_penalty, say=say)
