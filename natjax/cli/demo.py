"""natjax demo: trains vanilla NAT and CTC on the embedded corpus, scores both, translates."""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from natjax import atomic
from natjax.config import Config, load_config

if TYPE_CHECKING:
    from rich.table import Table

    from natjax.data.validation import ScoredText
    from natjax.translator import Translator

SUMMARY = "train two small translators on an embedded corpus, score them, translate (some minutes)"
EPILOG = """examples:
  natjax demo
  natjax demo --workdir runs/demo
  echo "The very clever boy often feeds the dog here." | natjax translate --model runs/demo

Vanilla NAT (cross-entropy by position) and CTC see the same pairs for the same number of updates. Every source has
several valid translations; both are scored on held-out sentences against all of them. Run it again to resume.
"""

TEST_SENTENCES = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--workdir", metavar="W", default="runs/demo", help="folder of the run (default: runs/demo)")


class _Row(NamedTuple):
    system: str
    bleu: float
    valid: list[bool]
    repetition: float
    milliseconds: float
    translations: list[str]

    @property
    def exact(self) -> float:
        """Percentage of translations that are exactly valid."""
        return 100 * sum(self.valid) / len(self.valid)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Trains both systems and prints the table."""
    from rich.console import Console

    from natjax.cli.runtime import set_up_jax

    set_up_jax()
    from natjax.data.validation import embedded_text
    from natjax.training.workdir import check
    from natjax.translator import Translator

    console, workdir = Console(highlight=False, soft_wrap=True), Path(args.workdir)
    ctc = load_config("demo")
    vanilla = replace(ctc, name="demo_vanilla", objective=replace(ctc.objective, loss="ce"))
    difficulty = ctc.data.embedded
    test = embedded_text(difficulty, "test", TEST_SENTENCES)
    check(workdir, ctc)
    check(workdir / "vanilla", vanilla)

    _train(vanilla, workdir / "vanilla", "vanilla NAT")
    translator = Translator.load(workdir / "vanilla")
    # Golden length: that of the translation which was drawn, so that the loss is seen without the classifier's
    # mistakes. (The length of the most probable one would give away which wording to choose.)
    golden = [len(ids) for ids in translator.vocabularies.target.encode([r[0] for r in test.references])]
    rows = [
        _score("vanilla NAT, predicted length", translator, test, difficulty),
        _score("vanilla NAT, golden length", translator, test, difficulty, golden),
    ]
    _train(ctc, workdir, "CTC")
    for system, penalty in (("CTC, plain argmax", 0.0), ("CTC", ctc.decoding.blank_penalty)):
        rows.append(_score(system, Translator.load(workdir, decoding={"blank_penalty": penalty}), test, difficulty))

    console.print(_table(rows, len(test.sources), ctc.training.steps))
    atomic.write_text(workdir / "demo.json", _as_json(rows, ctc, len(test.sources)))
    for i in range(5):
        console.print(f"\nsource   {test.sources[i]}", markup=False)
        for row in (rows[0], rows[-1]):
            mark = "valid" if row.valid[i] else "not valid"
            console.print(f"{row.system.split(',')[0]:<12} {row.translations[i]}  ({mark})", markup=False)
    console.print(f"\nTranslate with it:  natjax translate --model {workdir}", markup=False)
    return 0


def _train(config: Config, folder: Path, label: str) -> None:
    from natjax.cli.console import TrainingView
    from natjax.training.loop import train

    with TrainingView(label, samples=False) as watch:
        train(config, folder, watch=watch)


def _score(
    system: str, translator: "Translator", test: "ScoredText", difficulty: str, golden: list[int] | None = None
) -> _Row:
    from natjax.data.grammar import exactly_valid
    from natjax.evaluation.metrics import score

    translator.translate_with_details(test.sources, golden_lengths=golden)  # compiles, outside the clock
    started = time.perf_counter()
    texts = [t.text for t in translator.translate_with_details(test.sources, golden_lengths=golden)]
    milliseconds = 1000 * (time.perf_counter() - started) / len(texts)
    scores = score(texts, test.references)
    valid = [exactly_valid(difficulty, source, text) for source, text in zip(test.sources, texts)]
    return _Row(system, scores.bleu, valid, scores.repetition_rate, milliseconds, texts)


def _as_json(rows: list[_Row], config: Config, sentences: int) -> str:
    """What the table shows, for programs."""
    systems = [{"system": r.system, "bleu": r.bleu, "exactly_valid": r.exact, "repetition_rate": r.repetition,
                "milliseconds": r.milliseconds} for r in rows]  # fmt: skip
    data = f"embedded corpus {config.data.embedded}, {sentences} held-out sentences, all valid translations"
    about = {"data": data, "seed": config.training.seed, "updates": config.training.steps, "systems": systems}
    return json.dumps(about, indent=2) + "\n"


def _table(rows: list[_Row], sentences: int, updates: int) -> "Table":
    from rich.table import Table

    title = f"{sentences} held-out sentences, {updates} updates each; valid: exactly one of the right translations"
    table = Table(title=title)
    table.add_column("system", no_wrap=True)
    for column in ("BLEU", "valid %", "repeats %", "ms a sentence"):
        table.add_column(column, justify="right")
    for r in rows:
        table.add_row(r.system, f"{r.bleu:.1f}", f"{r.exact:.1f}", f"{r.repetition:.1f}", f"{r.milliseconds:.2f}")
    return table
