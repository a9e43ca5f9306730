"""natjax export: a trained model in the format of another program."""

import argparse
import sys

SUMMARY = "write a trained model in the format of another program"
EPILOG = """examples:
  natjax export --model runs/teacher --output teacher-ct2 --format ctranslate2
  natjax export --model runs/teacher --output teacher-int8 --format ctranslate2 --quantization int8

CTranslate2 runs autoregressive Transformers without Python or JAX; it has no non-autoregressive decoder. The folder
holds its model files, the SentencePiece vocabulary, and a README.md with a program that translates. In float32 its
scores are natjax's. It must not exist beforehand, and appears whole or not at all. `pip install 'natjax[peers]'`
brings CTranslate2.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train`")
    parser.add_argument("--output", metavar="DIR", required=True, help="the folder to make")
    parser.add_argument("--format", choices=("ctranslate2",), required=True, help="of which program")
    parser.add_argument(
        "--quantization",
        metavar="Q",
        default="float32",
        help="how weights are stored: float32 (default), float16, int16, int8, int8_float32, int8_float16",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Writes the folder.

    Raises:
        UserError: the model cannot be used or has no such form, or the folder is not free or cannot be written.
    """
    from natjax.cli.runtime import set_up_jax

    set_up_jax()
    from natjax.export import ctranslate2

    ctranslate2.export(
        args.model,
        args.output,
        quantization=args.quantization,
        say=lambda line: print(f"natjax: {line}", file=sys.stderr),
    )
    print(f"{args.output}: written; its README.md shows how to translate with it")
    return 0
