"""Times `ctc.beam_search` with a 4-gram model against flashlight-text, side by side on one core; and batches of it.

    pip install flashlight-text==0.0.7
    python benchmarks/search.py

Frames are made to look as a trained model's do: many blanks, most frames sure, tokens that return in the next frame.
Both are given the same logits [T, V] of a sentence, prune them to the same number of tokens, and ask the same n-gram
model: natjax's own tables, and KenLM's reading of the ARPA file that natjax writes (flashlight-text brings KenLM). The
length bonus is 0, which flashlight-text lacks without a lexicon; its weight is in log10. Seconds are medians of
interleaved repeats, everything compiled before.

How far the two agree is a question of real frames: on made-up ones, where much is doubtful, what a beam loses decides.

    natjax lm train --model W --arpa W/lm.arpa
    python benchmarks/search.py --model W --arpa W/lm.arpa --source test.en

adds that for a trained model and its language model. Writes benchmarks/results/search.json. Nothing else should run.
"""

import argparse
import math
import shlex
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ct2 import pin, race
from lm import text

RESULTS = Path(__file__).parent / "results"
T, V, BEAM, TOP_K, ORDER, ALPHA, SENTENCES = 90, 32_000, 20, 20, 4, 0.4, 50
TARGETS = {"milliseconds": 30.0, "over_flashlight": 1.0, "flashlight_same_best": 0.95}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--model", help="workdir of a model trained with ctc, with its language model")
    parser.add_argument("--arpa", type=Path, help="the same language model as an ARPA file")
    parser.add_argument("--source", help="text that it translates")
    parser.add_argument("--sentences", type=int, default=500, help="of that text")
    args = parser.parse_args()
    pin()
    import jax
    import jax.numpy as jnp

    from natjax import ctc, lm
    from natjax.evaluation.report import write_result

    began = time.perf_counter()
    tokens, offsets = text(2_500_000)
    model, _ = lm.estimate(lm.stream(tokens, offsets), order=ORDER, vocabulary_size=V)
    tables = lm.make_tables(model)
    device_tables = jax.tree.map(jnp.asarray, tables)
    logits = frames(tokens, SENTENCES)
    lengths = jnp.array([T])

    def search(rows: np.ndarray, lm=device_tables, alpha: float = ALPHA):
        frame_lengths = jnp.full((len(rows),), T, jnp.int32)
        # flashlight-text asks for the sentence's end, too.
        options = dict(lm=lm, lm_weight=alpha, score_eos=lm is not None)
        found = ctc.beam_search(rows, frame_lengths, beam_size=BEAM, top_k=TOP_K, **options)
        return jax.block_until_ready(found)

    on_device = [jnp.asarray(one[None]) for one in logits]
    greedy = jax.jit(lambda rows: ctc.collapse(ctc.prune(rows, top_k=1).tokens[..., 0], jnp.full((len(rows),), T)))
    pruned = jax.jit(lambda rows: ctc.prune(rows, top_k=TOP_K))
    cut = [pruned(one) for one in on_device]

    def of_pruned(lm):
        return lambda: jax.block_until_ready(
            ctc.beam_search(cut[0], lengths, beam_size=BEAM, top_k=TOP_K, lm=lm, lm_weight=ALPHA)
        )

    functions = {
        "natjax": lambda: search(on_device[0]),
        "natjax_without_lm": lambda: search(on_device[0], None, 0.0),
        "search_alone": of_pruned(device_tables),
        "search_alone_without_lm": of_pruned(None),
        "argmax": lambda: jax.block_until_ready(greedy(on_device[0])),
    }
    metrics: dict[str, float] = {"lm_ngrams": lm.sizes(tables).ngrams}
    peer = None
    with tempfile.TemporaryDirectory() as folder:
        arpa, pieces = Path(folder) / "model.arpa", ["<pad>", "<s>", "</s>", "<unk>", *(f"p{i}" for i in range(4, V))]
        lm.write_arpa(arpa, model, pieces)
        if made := flashlight(arpa, pieces):
            peer, peer_without = made
            functions["flashlight"] = lambda: peer(logits[0])
            functions["flashlight_without_lm"] = lambda: peer_without(logits[0])
        for function in functions.values():
            function()
        seconds = race(args.repeats, **functions)
    metrics |= {f"{name}_milliseconds": 1e3 * value for name, value in seconds.items()}
    metrics["milliseconds"] = metrics["natjax_milliseconds"]
    if peer:
        metrics["over_flashlight"] = seconds["natjax"] / seconds["flashlight"]
        metrics["over_flashlight_without_lm"] = seconds["natjax_without_lm"] / seconds["flashlight_without_lm"]
        if args.model:
            metrics |= agreement(Path(args.model), args.arpa, args.source, args.sentences)
    for B in (8, 32):
        batch = jnp.asarray(np.resize(logits, (B, T, V)))
        batch_seconds = race(
            max(3, args.repeats // 3), **{"w": lambda b=batch: search(b), "g": lambda b=batch: greedy(b)}
        )
        metrics[f"batch_{B}_milliseconds_each"] = 1e3 * batch_seconds["w"] / B
        metrics[f"batch_{B}_argmax_milliseconds_each"] = 1e3 * batch_seconds["g"] / B
    for name, value in metrics.items():
        print(f"{name:<40} {value:.3f}")
    write_result(
        RESULTS / "search.json",
        name="search",
        command=shlex.join(["python", *sys.argv]),
        data="synthetic frames and text",
        seed=0,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={name: target for name, target in TARGETS.items() if name in metrics},
        extra={"T": T, "V": V, "beam": BEAM, "top_k": TOP_K, "order": ORDER, "lm_weight": ALPHA, "cores": 1},
    )


def frames(tokens: np.ndarray, sentences: int) -> np.ndarray:
    """Logits f32[sentences, T, V] over stretches of a text, every third frame a token, the others blank or doubtful."""
    generator = np.random.default_rng(0)
    made = generator.normal(0, 1, (sentences, T, V)).astype(np.float32)
    for one in made:
        start = generator.integers(0, len(tokens) - T)
        for t in range(T):
            token = int(tokens[start + t // 3])
            one[t, generator.integers(4, V, 3)] += generator.uniform(6, 12, 3).astype(np.float32)
            one[t, token] += 12 * (t % 3 == 0) + 6 * (t % 3 == 1)
            one[t, 0] += generator.uniform(6, 10) + 5 * (t % 3 == 2)
            if generator.random() < 0.8:
                one[t, one[t].argmax()] += 5
        one[-1, 0] += 20  # a hypothesis of flashlight-text ends in a blank or it does not: here all do
    return made


def flashlight(arpa: Path, pieces: list[str]):
    """Two functions from logits f32[T, V] to (score, tokens), with the model and without; None if not installed."""
    try:
        from flashlight.lib.text import decoder
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError:
        return None

    def make(model, weight: float):
        options = decoder.LexiconFreeDecoderOptions(
            beam_size=BEAM, beam_size_token=TOP_K, beam_threshold=1e9, lm_weight=weight, sil_score=0.0, log_add=True,
            criterion_type=decoder.CriterionType.CTC,
        )  # fmt: skip
        search = decoder.LexiconFreeDecoder(options, model, -1, 0, [])

        def decode(logits: np.ndarray) -> tuple[float, list[int]]:
            top = logits.max(1, keepdims=True)
            log_probs = logits - (np.log(np.exp(logits - top).sum(1, keepdims=True)) + top)
            best = search.decode(np.ascontiguousarray(log_probs).ctypes.data, *logits.shape)[0]
            path = [token for token in best.tokens if token >= 0]
            kept = [token for i, token in enumerate(path) if token != 0 and (i == 0 or path[i - 1] != token)]
            return best.score, kept

        return decode

    return make(KenLM(str(arpa), Dictionary(pieces)), ALPHA * math.log(10)), make(decoder.ZeroLM(), 0.0)


def agreement(workdir: Path, arpa: Path, source: str, sentences: int) -> dict[str, float]:
    """How far the best hypotheses of both agree on a trained model's frames."""
    import jax
    import jax.numpy as jnp

    from natjax import ctc, lm
    from natjax.data.corpus import read_lines
    from natjax.decoding.passes import arrays
    from natjax.decoding.shapes import Shape, rung
    from natjax.decoding.single_pass import make_output
    from natjax.layers.head import logits as full_logits
    from natjax.models import build
    from natjax.objectives import build as build_objective
    from natjax.translator import Translator

    translator = Translator.load(workdir)
    config, target = translator.config, translator.vocabularies.target
    model, most = build(config, len(translator.vocabularies.source), len(target)), config.decoding.max_source_length
    tables = lm.load_tables(workdir / "lm", vocabulary=target.fingerprint)
    device_tables = jax.tree.map(jnp.asarray, tables)
    output = make_output(model, build_objective(config))

    @jax.jit
    def run(params, *batch):
        head, lengths, _ = output(params, *batch)
        return full_logits(head), lengths

    peer, _ = flashlight(arpa, target.pieces(range(len(target))))
    same, differences, leads = [], [], []
    for line in read_lines(source)[:sentences]:
        ids = [*translator.vocabularies.source.encode([line])[0], 2]
        logits, lengths = run(translator.params, *arrays(Shape(1, rung(len(ids), most)), [ids]))
        logits = logits[:, : int(lengths[0])]
        found = ctc.beam_search(logits, lengths, beam_size=BEAM, top_k=TOP_K, lm=device_tables, lm_weight=ALPHA,
                                score_eos=True)  # fmt: skip
        score, tokens = peer(np.asarray(logits[0], np.float32))
        own = found.tokens[0, 0, : int(found.lengths[0, 0])].tolist()
        same.append(own == tokens)
        leads.append(float(found.scores[0, 0]) - score)
        differences.append(abs(leads[-1]))
    return {
        "real_sentences": len(same),
        "flashlight_same_best": float(np.mean(same)),
        "flashlight_score_difference_median": float(np.median(differences)),
        "flashlight_scores_within_0.05": float(np.mean(np.asarray(differences) < 0.05)),
        "own_score_not_below": float(np.mean(np.asarray(leads) > -0.01)),
    }


if __name__ == "__main__":
    main()
