"""natjax train: trains a config in a workdir, or goes on where the last run stopped."""

import argparse
import json
from pathlib import Path

from natjax.cli.overrides import add_config, config_of, without_effect

SUMMARY = "train a config in a workdir; run it again to resume"
EPILOG = """examples:
  natjax train configs/multi30k_en_de.py --workdir runs/m30k
  natjax train multi30k_en_de --workdir runs/m30k --training.steps 20000 --model.dropout 0.3
  natjax train my.py --workdir runs/tuned --init-from runs/m30k --vocab.path runs/m30k
  natjax train multi30k_en_de --fields                     every field that can be overridden

Ctrl-C and SIGTERM save and leave; the same command goes on from there. Exit codes: 0 finished, 2 something to mend,
75 stopped by SIGTERM, 130 stopped by Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    add_config(parser)
    parser.add_argument("--workdir", metavar="W", help="folder of the run; made if it is not there")
    parser.add_argument("--init-from", metavar="W0", help="start from the weights of another workdir")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Trains and prints the validation scores as JSON."""
    config = config_of(args, rest)
    if config is None:
        return 0
    if not args.workdir:
        from natjax.errors import UserError

        raise UserError("--workdir is missing; name the folder of the run, such as --workdir runs/" + config.name)
    from natjax.cli.console import TrainingView
    from natjax.cli.runtime import set_up_jax

    set_up_jax()
    from natjax.training.loop import train

    with TrainingView(config.name) as watch:
        if unused := without_effect(config, rest):
            watch.say(unused)
        scores = train(
            config, Path(args.workdir), init_from=Path(args.init_from) if args.init_from else None, watch=watch
        )
    print(json.dumps({"workdir": args.workdir, **scores}))
    return 0
