"""natjax configs: the experiments that ship with natjax."""

import argparse
import ast
from pathlib import Path

from natjax import atomic
from natjax.config import shipped_configs
from natjax.errors import ConfigError, UserError

SUMMARY = "list or copy the configs that ship with natjax"
EPILOG = """examples:
  natjax configs                                 names, and what each is
  natjax configs copy multi30k_en_de             writes ./multi30k_en_de.py, to be changed
  natjax configs copy demo --output my.py
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("action", nargs="?", choices=("list", "copy"), default="list", help="default: list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="which config to copy")
    parser.add_argument("--output", metavar="F", help="where to (default: NAME.py here)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Lists, or copies one."""
    configs = shipped_configs()
    if args.action == "list":
        width = max(map(len, configs))
        for name, file in configs.items():
            summary = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
            print(f"{name:<{width}} {summary}")
        return 0
    if args.name is None:
        raise UserError(f"which config? natjax configs copy NAME; choose {', '.join(configs)}")
    if args.name not in configs:
        raise ConfigError(f"no shipped config is called {args.name!r}; choose {', '.join(configs)}")
    target = Path(args.output or f"{args.name}.py")
    if target.exists():
        raise UserError(f"{target}: exists already; name another file with --output")
    atomic.write_text(target, configs[args.name].read_text())
    print(target)
    return 0
