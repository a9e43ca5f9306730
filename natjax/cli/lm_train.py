"""natjax lm train: estimates an n-gram model on a translation model's own training targets."""

import argparse
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natjax.errors import LanguageModelError, StoreError

if TYPE_CHECKING:
    import numpy as np

    from natjax.data.vocab import Vocabulary
    from natjax.lm import NgramTables

SUMMARY = "estimate an n-gram model on the targets that a model was trained on, or on other text"
EPILOG = """examples:
  natjax lm train --model runs/student                           the distilled targets, if it was trained on those
  natjax lm train --model runs/student --text more.de.gz --order 5 --prune 0 0 1
  natjax lm train --model runs/student --output lm3 --order 3 --arpa lm3.arpa

Interpolated modified Kneser-Ney, over the pieces of the model's target vocabulary. Text is normalised and cut into
pieces as for training. The model goes into W/lm, where translating looks for it, unless --output names another folder;
one that is there is replaced, once the new one is complete. docs/lm.md tells more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--model", metavar="W", required=True, help="a workdir of `natjax train`")
    parser.add_argument("--text", metavar="F", help="text in the target language, one sentence a line; .gz too")
    parser.add_argument("--order", metavar="N", type=int, default=4, help="longest n-grams, 2 to 6 (default: 4)")
    parser.add_argument(
        "--prune",
        metavar="K",
        type=int,
        nargs="+",
        default=[],
        help="for each order, drop n-grams that occur at most K times; the last goes for all longer ones (default: 0)",
    )
    parser.add_argument("--output", metavar="DIR", help="the folder to make (default: W/lm)")
    parser.add_argument("--arpa", metavar="F", help="write an ARPA file, too; .gz is compressed")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Estimates and writes. Raises UserError, and Interrupted when a signal comes."""
    from natjax.cli.console import WorkView
    from natjax.data.vocab import Vocabularies
    from natjax.lm import estimate, make_tables, perplexity, stream, write_arpa
    from natjax.lm.estimate import check_settings
    from natjax.lm.storage import check_free, save_tables
    from natjax.training.preemption import StopRequest

    check_settings(args.order, args.prune)
    folder, output = Path(args.model), Path(args.output or Path(args.model) / "lm")
    vocabulary = Vocabularies.load(folder).target
    check_free(output)
    if args.arpa and not Path(args.arpa).absolute().parent.is_dir():  # told now, not after the work
        raise LanguageModelError(f"{args.arpa}: there is no such folder; make it first")
    with StopRequest(), WorkView("counting", "tokens") as view:
        if args.text:
            train, valid, about = _text(args.text, vocabulary)
        else:
            train, valid, about = _targets(folder)
        text = stream(*train)
        rows = len(train[1]) - 1
        view.say(f"{rows:,} sentences, {len(text) - rows:,} tokens with their ends, of {about['text']}")
        model, discounts = estimate(
            text, order=args.order, vocabulary_size=len(vocabulary), prune=args.prune, progress=view.progress
        )
        for n, (count, discount) in enumerate(zip(model.counts, discounts, strict=True), 1):
            amounts = ", ".join(f"{amount:.3f}" for amount in discount.amounts)
            fallback = " (the counts define none)" if discount.fallback else ""
            view.say(f"order {n}: {count:,} n-grams, discounts {amounts}{fallback}")
        about |= {
            "sentences": rows,
            "prune": args.prune,
            "discounts": [discount._asdict() for discount in discounts],
            "counts": model.counts,
        }
        if valid is not None:
            found = perplexity(model, stream(*valid))
            about["valid"] = {**found._asdict(), "perplexity": found.perplexity}
            view.say(f"validation targets: {found.describe()}")
        if args.arpa:
            write_arpa(args.arpa, model, vocabulary.pieces(range(len(vocabulary))))
            view.say(f"{args.arpa}: written")
        tables = make_tables(model)
        save_tables(output, tables, vocabulary=vocabulary.fingerprint, about=about)
        view.say(describe(output, tables))
    return 0


def describe(folder: Path, tables: "NgramTables") -> str:
    """One line about tables that have been written."""
    from natjax.lm import sizes

    made = sizes(tables)
    each = made.nbytes / 1e6 / max(made.ngrams / 1e6, 1e-6)
    return f"{folder}: {made.ngrams:,} n-grams, {made.nbytes / 1e6:.1f} MB ({each:.1f} MB a million)"


_LINES = 50_000
_Text = tuple["np.ndarray", "np.ndarray"]


def _text(path: str, vocabulary: "Vocabulary") -> tuple[_Text, None, dict[str, Any]]:
    """(tokens, offsets) of a text file; empty lines are left out."""
    import numpy as np

    from natjax.data.corpus import normalise, read_lines

    parts, lengths = [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    raw = read_lines(path)
    # Some lines at a time: normalised ones are copies, and Python's lists of ids take ten times the room of arrays.
    for start in range(0, len(raw), _LINES):
        rows = vocabulary.encode([line for line in map(normalise, raw[start : start + _LINES]) if line])
        lengths.append(np.fromiter(map(len, rows), np.int64))
        parts.append(np.fromiter(chain.from_iterable(rows), np.int32))
    if sum(map(len, lengths)) == 1:
        raise LanguageModelError(f"{path}: holds no text; name another with --text")
    return (np.concatenate(parts), np.cumsum(np.concatenate(lengths))), None, {"text": path}


def _targets(folder: Path) -> tuple[_Text, _Text, dict[str, Any]]:
    """(tokens, offsets) of the training and of the validation targets in the store of a workdir."""
    import numpy as np

    from natjax.config import expand
    from natjax.data.prepare import open_prepared
    from natjax.training import workdir

    config = workdir.load_config(folder)
    place = Path(expand(config.data.store)) if config.data.store else folder / "store"
    try:
        store, vocabularies = open_prepared(config, place)
    except StoreError as error:
        raise StoreError(f"{error}, or give the text with --text") from None
    workdir.check_vocabularies(folder, vocabularies)
    text = {}
    for name in ("train", "valid"):
        split = store.split(name)
        text[name] = split.target_tokens, np.concatenate([[0], np.cumsum(split.target_lengths, dtype=np.int64)])
    name = config.data.train_target if config.data.embedded == "none" else f"embedded corpus {config.data.embedded}"
    return text["train"], text["valid"], {"text": name, "store": store.fingerprint}
