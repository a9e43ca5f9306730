"""Trains a system, or finishes its training, scores it on a test set, and writes the result with its learning curve.

    python benchmarks/system.py multi30k_en_de --name multi30k_en_de/nat_ctc_raw --workdir runs/multi30k_en_de \
        --source test_2016_flickr.en --reference test_2016_flickr.de --target-bleu 32

Fields of the config are overridden as in `natjax train`: --data.train-target distilled.de. --decode and --decoding.*
are for the test set's translations alone, as in `natjax translate`: above what `natjax tune` has found, and no part of
the training. Run on a finished workdir it only scores. Seconds are those of the whole test set at once; batch1_ms is
what a sentence takes that comes alone, over the first --latency-sentences ones. --hypotheses keeps the translations,
for `natjax evaluate --baseline`. Writes benchmarks/results/<name>.json and <name>.metrics.jsonl.
"""

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from natjax.cli.model import add_decoding, decoding_of

if TYPE_CHECKING:
    from natjax.translator import Translator

RESULTS = Path(__file__).parent / "results"


def arguments(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and those that override fields of the config; --decoding.* are never among the latter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", help="config file, or the name of a shipped one")
    parser.add_argument("--name", required=True, help="<corpus>/<system>, such as multi30k_en_de/nat_ctc_raw")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--source", help="test source, inside data.root; the embedded corpus has its own test split")
    parser.add_argument("--reference", help="test reference, inside data.root")
    parser.add_argument("--tokenize", default="13a", help="tokens of BLEU (default: 13a)")
    parser.add_argument("--target-bleu", type=float, help="what BLEU was to be, if anything")
    parser.add_argument("--latency-sentences", type=int, default=100, metavar="N", help="0: latency is not measured")
    parser.add_argument("--hypotheses", metavar="F", help="write the translations here")
    add_decoding(parser)
    args, rest = parser.parse_known_args(words)
    if others := [word for word in rest if word.startswith("--decoding.")]:
        parser.error(f"unknown option {others[0]}; spell it as natjax translate does")
    return args, rest


def main() -> None:
    args, rest = arguments(sys.argv[1:])

    from natjax import atomic
    from natjax.cli.console import TrainingView
    from natjax.cli.overrides import override
    from natjax.cli.runtime import set_up_jax
    from natjax.config import expand, load_config
    from natjax.data.corpus import read_parallel
    from natjax.data.grammar import exactly_valid
    from natjax.data.validation import embedded_text
    from natjax.decoding import ways
    from natjax.evaluation.metrics import score
    from natjax.evaluation.report import write_result
    from natjax.training.loop import train
    from natjax.training.step import parameter_count
    from natjax.translator import Translator

    set_up_jax()
    config, workdir = override(load_config(args.config), rest), Path(args.workdir)
    began, curve = time.perf_counter(), workdir / "metrics.jsonl"
    before = _seconds(curve)
    with TrainingView(config.name) as watch:
        valid = train(config, workdir, watch=watch)
    starts = workdir / "starts.jsonl"
    commits = sorted(
        {json.loads(line)["commit"] for line in starts.read_text().splitlines()} if starts.exists() else []
    )

    if config.data.embedded == "none":
        root = Path(expand(config.data.root))
        sources, targets = read_parallel(root / args.source, root / args.reference)
        references, data = [[t] for t in targets], f"{config.name}: {args.source} against {args.reference}"
    else:
        sources, references = embedded_text(config.data.embedded, "test", 1000)
        data = f"embedded corpus {config.data.embedded}: 1,000 held-out sentences, all valid translations"
    translator = Translator.load(workdir, decode=args.decode, decoding=decoding_of(args))
    if translator.way != ways.names(config)[0]:  # by which validation translates: its scores are another way's
        valid = {"weights": valid["weights"]}
    translator.warm_up(sources)
    started = time.perf_counter()
    translations = translator.translate(sources)
    seconds = time.perf_counter() - started
    if args.hypotheses:
        atomic.write_text(args.hypotheses, "".join(f"{line}\n" for line in translations))
    scores = score(translations, references, tokenize=args.tokenize, language=config.data.target_language)

    target = RESULTS / f"{args.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    metrics = {
        **scores.as_dict(),
        "seconds": seconds,
        **latency(translator, sources[: args.latency_sentences]),
        "steps": config.training.steps,
        "parameters": parameter_count(translator.params),
        **{f"valid_{k}": v for k, v in valid.items() if k != "weights"},
    }
    if config.data.embedded != "none":  # where all right translations are known
        right = [exactly_valid(config.data.embedded, s, t) for s, t in zip(sources, translations)]
        metrics["exactly_valid"] = 100 * sum(right) / len(right)
    write_result(
        target,
        name=args.name,
        command=" ".join(["python", *sys.argv]),
        data=data,
        seed=config.training.seed,
        wall_seconds=before + time.perf_counter() - began,
        metrics=metrics,
        targets={"bleu": args.target_bleu} if args.target_bleu else {},
        extra={
            "weights": valid["weights"],
            "train_command": " ".join(["natjax train", args.config, "--workdir", args.workdir, *rest]),
            **decoding(translator, workdir),
            "train_seconds": _seconds(curve),
            "train_commits": commits,
        },
    )
    shutil.copy(curve, target.with_suffix(".metrics.jsonl"))  # after the commit was asked for: it changes the tree
    print(f"{target}: BLEU {scores.bleu:.2f}" + (f" (target {args.target_bleu})" if args.target_bleu else ""))


def latency(translator: "Translator", sources: list[str]) -> dict[str, float]:
    """Milliseconds a sentence of those that come one by one, every program compiled and run before."""
    if not sources:
        return {}
    times: list[float] = []
    for kept in ([], times):
        for line in sources:
            started = time.perf_counter()
            translator.translate([line])
            kept.append(1e3 * (time.perf_counter() - started))
    return {"batch1_ms": np.mean(times), "batch1_ms_median": np.median(times), "batch1_sentences": len(times)}


def decoding(translator: "Translator", workdir: Path) -> dict[str, Any]:
    """What has run, and by which language model and teacher."""
    from natjax.decoding import ways
    from natjax.distillation.teachers import identify
    from natjax.lm import fingerprint

    config, lm, teacher = translator.config, None, None
    if ways.uses_lm(config, translator.way):
        lm = fingerprint(config.decoding.lm or workdir / "lm")
    if translator.way.startswith("npd"):
        teacher = identify(config.decoding.teacher or workdir / "teacher", print).identity
    return {"decode": translator.way, "decoding": asdict(config.decoding), "lm_fingerprint": lm, "teacher": teacher}


def _seconds(curve: Path) -> float:
    """What a run has taken so far, from its first start on, pauses left out."""
    lines = curve.read_text().splitlines() if curve.exists() else []
    return max((json.loads(line)["seconds"] for line in lines), default=0.0)


if __name__ == "__main__":
    main()
