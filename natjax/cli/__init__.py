"""The command line: one module a verb, each thin: parse, call, print.

A verb module has `SUMMARY`, `EPILOG` (examples), `add_arguments(parser)` and `run(args, rest) -> exit code`, where
`rest` holds the arguments that the parser does not know (config overrides). Heavy imports stay inside `run`, so that
help comes at once.
"""

import argparse
import sys
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from natjax import __version__
from natjax.cli.runtime import watched_stdout
from natjax.errors import UserError

VERBS = (
    "demo", "prepare", "train", "translate", "score", "evaluate", "distill", "lm", "tune", "analyze", "export",
    "configs",
)  # fmt: skip
OVERRIDES = ("prepare", "train", "analyze")  # verbs that take --section.field value, or look at it themselves

DESCRIPTION = "Fully non-autoregressive translation: train it, translate with it, measure it."
EPILOG = """start here:
  natjax demo                                   train on a small embedded corpus, score, translate (some minutes)
  natjax configs                                the experiments that ship with natjax
  natjax train multi30k_en_de --workdir W       train on your own or on a public corpus; run again to resume
  natjax translate --model W < in > out         line in, line out
"""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as a UserError, so that every mistake looks the same."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print with its usage."""
        raise UserError(f"{message}; see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code: 0 done, 2 a mistake to mend, 75 or 130 stopped by a signal."""
    try:
        with watched_stdout():
            return _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"natjax: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("natjax: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has gone, as in `natjax translate | head`
        return 141
    except OSError as error:  # the last net: a path that the system refuses is the user's to mend, wherever it came up
        if error.filename is None:
            raise
        print(f"natjax: {error.filename}: {error.strerror}; mend it or name another path", file=sys.stderr)
        return 2


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        _overview().print_help()
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"natjax {__version__}")
        return 0
    verb, *words = argv
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}; choose {', '.join(VERBS)}")
    module = _module(verb)
    parser = _Parser(
        prog=f"natjax {verb}",
        description=module.SUMMARY,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    args, rest = parser.parse_known_args(words)
    if rest and verb not in OVERRIDES:
        parser.error(f"unknown argument {rest[0]!r}")
    return module.run(args, rest)


def _module(verb: str) -> ModuleType:
    return import_module(f"natjax.cli.{verb}")


def _overview() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="natjax",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for verb in VERBS:
        verbs.add_parser(verb, help=_module(verb).SUMMARY)
    return parser
