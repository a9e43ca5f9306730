"""Translates with natjax and with CTranslate2 on the exported model, and compares outputs, scores and seconds.

    python benchmarks/ct2.py --model runs/teacher --source test.en --name multi30k_en_de/ct2

Both compute in float32 on one and the same core, with the same beam and length penalty, one after the other in each
repeat; seconds are medians, text to text, with every program compiled before, and ratios below 1 favour natjax. In
"batch32" CTranslate2 gets batches of 32 and natjax forms its own; in "batch1" each line is translated alone. Writes
benchmarks/results/<name>.json. Nothing else should run on the machine meanwhile.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"


def pin() -> None:
    """Keeps the process, and all threads that it will start, on one core; to be called before jax is imported."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def race(repeats: int, **functions: Callable[[], list[str]]) -> dict[str, float]:
    """Median seconds of each; interleaved, so that they share the machine's moods."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in times.items()}


class Peer:
    """CTranslate2 on a folder of `natjax export`, text to text."""

    def __init__(self, folder: Path, vocabularies, beam: int, length_penalty: float, max_output: int):
        import ctranslate2

        self.vocabularies = vocabularies
        self.engine = ctranslate2.Translator(str(folder), compute_type="float32", inter_threads=1, intra_threads=1)
        self.options = dict(beam_size=beam, length_penalty=length_penalty, max_decoding_length=max_output,
                            max_input_length=0)  # fmt: skip
        pieces = vocabularies.target.pieces(range(len(vocabularies.target)))
        self.ids = {piece: number for number, piece in enumerate(pieces)}

    def results(self, lines: list[str], batch: int, **more) -> list:
        """What the engine gives."""
        from natjax.data.corpus import normalise

        source = self.vocabularies.source
        pieces = [source.pieces(ids) for ids in source.encode([normalise(line) for line in lines])]
        return self.engine.translate_batch(pieces, max_batch_size=batch, **{**self.options, **more})

    def translate(self, lines: list[str], batch: int) -> list[str]:
        """The best translation of each line."""
        return self.vocabularies.target.decode(self.tokens(self.results(lines, batch)))

    def tokens(self, results: list) -> list[list[int]]:
        """Piece ids of the best hypotheses."""
        return [[self.ids[piece] for piece in result.hypotheses[0]] for result in results]


def score_difference(translator, peer: Peer, lines: list[str], length_penalty: float) -> float:
    """The largest difference per token between the scores that CTranslate2 reports and natjax's of the same outputs."""
    from natjax import models
    from natjax.data.corpus import normalise
    from natjax.decoding import scoring
    from natjax.typing import EOS

    config, vocabularies = translator.config, translator.vocabularies
    # Where eos is held back CTranslate2 renormalises what is left, so here it may come at once.
    results = peer.results(lines, 32, return_scores=True, min_decoding_length=0)
    targets = [[*ids, EOS] for ids in peer.tokens(results)]
    sources = [[*ids, EOS] for ids in vocabularies.source.encode([normalise(line) for line in lines])]
    # CTranslate2 answers an empty source without asking the model; at the limit a hypothesis is cut off, without eos.
    limit = peer.options["max_decoding_length"]
    whole = [i for i, source in enumerate(sources) if len(source) > 1 and len(targets[i]) <= limit]
    model = models.build(config, len(vocabularies.source), len(vocabularies.target))
    how, frames = scoring.scorer(model, translator.objective, config), config.decoding.batch_frames
    ours = scoring.scores(how, translator.params, [sources[i] for i in whole], [[targets[i]] for i in whole], frames, 8)
    return max(
        abs(results[i].scores[0] * score.tokens ** (length_penalty - 1) - score.mean)
        for i, (score,) in zip(whole, ours, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="workdir of an autoregressive model")
    parser.add_argument("--source", required=True, help="text to translate; its first --lines lines")
    parser.add_argument("--name", required=True, help="of the result, such as multi30k_en_de/ct2")
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 1], help="beam sizes; 1 is greedy")
    args = parser.parse_args()

    pin()
    from natjax.cli.runtime import set_up_jax
    from natjax.data.corpus import normalise, read_lines
    from natjax.evaluation.report import write_result
    from natjax.export import ctranslate2
    from natjax.export.readme import most_pieces
    from natjax.training.workdir import load_model
    from natjax.translator import Translator

    set_up_jax()
    began, lines = time.perf_counter(), read_lines(args.source)[: args.lines]
    config, vocabularies, params = load_model(Path(args.model), print)
    # natjax cuts over-long lines into parts, CTranslate2 does not: those are left out.
    lengths = map(len, vocabularies.source.encode([normalise(line) for line in lines]))
    lines = [line for line, length in zip(lines, lengths) if length < config.decoding.max_source_length]
    metrics, targets = {}, {}
    with tempfile.TemporaryDirectory() as place:
        ctranslate2.save(Path(place) / "model", config, vocabularies, params)
        for beam in args.beams:
            penalty = config.decoding.length_penalty if beam > 1 else 0.0
            name = f"beam{beam}" if beam > 1 else "greedy"
            ours = Translator.load(args.model, decode="beam" if beam > 1 else "greedy")
            if (ours.config.model.dtype, beam) not in (("float32", 1), ("float32", ours.config.decoding.beam_size)):
                parser.error("the model's config must say model.dtype float32 and decoding.beam_size as in --beams")
            peer = Peer(Path(place) / "model", vocabularies, beam, penalty, most_pieces(config)[1])
            metrics |= compare(ours, peer, lines, penalty, args.repeats, name)
            targets |= {f"{name}_identical_outputs": 0.995, f"{name}_largest_score_difference": 1e-3}
    for key, value in metrics.items():
        print(f"{key:<40} {value:12.6f}")
    target = RESULTS / f"{args.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_result(
        target,
        name=args.name,
        command=" ".join(["python", *sys.argv]),
        data=f"{Path(args.source).name}, {len(lines):,} of the first {args.lines:,} lines, over-long ones left out",
        seed=config.training.seed,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets=targets,
        peers=["ctranslate2"],
    )


def compare(translator, peer: Peer, lines: list[str], length_penalty: float, repeats: int, name: str) -> dict:
    """Metrics of one way of decoding."""
    translator.warm_up(lines)
    for line in lines:
        translator.warm_up([line])
    first, second = translator.translate(lines), peer.translate(lines, 32)
    found = {
        f"{name}_identical_outputs": sum(a == b for a, b in zip(first, second, strict=True)) / len(lines),
        f"{name}_largest_score_difference": score_difference(translator, peer, lines, length_penalty),
    }
    seconds = race(
        repeats,
        natjax_batch32=lambda: translator.translate(lines),
        ctranslate2_batch32=lambda: peer.translate(lines, 32),
        natjax_batch1=lambda: [translator.translate([line])[0] for line in lines],
        ctranslate2_batch1=lambda: [peer.translate([line], 1)[0] for line in lines],
    )
    for batch in (32, 1):
        found[f"{name}_batch{batch}_ratio"] = seconds[f"natjax_batch{batch}"] / seconds[f"ctranslate2_batch{batch}"]
    return found | {f"{name}_{key}_seconds": value for key, value in seconds.items()}


if __name__ == "__main__":
    main()
