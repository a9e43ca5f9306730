"""Times the compiled beam search against flashlight-text on the same frames; ratios below 1 favour natjax.

    python benchmarks/search.py

Both search on one and the same core, in frames of 32,000 tokens with beam 20 and top-k 20, without a language model and
with the same 4-gram one (KenLM inside flashlight), in turns; milliseconds are medians a sentence, with every program
compiled before. natjax starts from logits and prunes them itself ("both" is that and the search); flashlight is given
log-probabilities that are ready. It keeps blank-ended and token-ended alignments of a prefix in places of their own,
takes one sentence at a time and always scores the end, as natjax does here; it has no bonus. The text is random: each
token is followed by one of 32 others or by any, by Zipf's law; a sentence of it is hidden in the frames, among rivals.

"agreement" is over many more sentences, of frames as sure as those that are timed and of less sure ones: how many best
hypotheses are the same, how far their scores lie apart, and in how many the greedy path is flashlight's best, too, so
that no search was needed. flashlight has twice the beam there, for its two places a prefix.

"pass" is one whole compiled pass of a base model with random weights, from sources to tokens, greedy and with either
search, in one race; "over_greedy" what the search adds to it.

Writes benchmarks/results/search.json; --toy tries everything at small sizes and writes nothing. Nothing else should run
on the machine meanwhile.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ct2 import pin, race

RESULTS = Path(__file__).parent / "results"
FRAMES, VOCABULARY, LENGTH, TEXT = 90, 32_000, 26, 2_500_000
BEAM, TOP_K, ORDER, LM_WEIGHT = 20, 20, 4, 0.4
BATCHES = (1, 8, 32)
SENTENCES, SHARPNESS = 200, (2.0, 1.2)
SOURCE, MODEL = FRAMES // 3, {}  # pieces of a sentence; changes of the base model


class Best(NamedTuple):
    """A best hypothesis."""

    tokens: tuple[int, ...]
    score: float


def text(tokens: int, generator: np.random.Generator) -> np.ndarray:
    """Sentences of LENGTH tokens, i32[n, LENGTH]; the first ids are the special ones."""
    zipf = 1 / np.arange(1, VOCABULARY - 3)
    zipf /= zipf.sum()
    followers = np.random.default_rng(0).choice(VOCABULARY - 4, (VOCABULARY, 32), p=zipf) + 4
    shape = tokens // LENGTH, LENGTH
    rank = np.minimum(generator.geometric(0.15, shape) - 1, 31)
    made = generator.choice(VOCABULARY - 4, shape, p=zipf) + 4
    for i in range(1, LENGTH):
        followed = generator.random(shape[0]) < 0.75
        made[:, i] = np.where(followed, followers[made[:, i - 1], rank[:, i]], made[:, i])
    return made.astype(np.int32)


def frames(sentences: np.ndarray, generator: np.random.Generator, sharpness: float = 2.0) -> np.ndarray:
    """Logits f32[B, T, V] as a trained model's: mostly blanks; tokens on one frame or two, some with rivals."""
    logits = generator.normal(size=(len(sentences), FRAMES, VOCABULARY)).astype(np.float32)
    logits[:, :, 0] += 16
    logits[:, :, 1:4] = -20  # nothing but tokens of a text
    for row, sentence in zip(logits, sentences, strict=True):
        places = np.sort(generator.choice(FRAMES - 1, len(sentence), replace=False))
        for t, token in zip(places, sentence, strict=True):
            row[t, token] += generator.uniform(14, 19)
            row[t + 1, token] += generator.uniform(9, 16)
            row[t, generator.integers(4, VOCABULARY, 4)] += generator.uniform(9, 15, 4)
            row[t, 0] -= generator.uniform(0, 6)
        row[-1, 0] += 8
    return np.float32(sharpness) * logits


def language_model(generator: np.random.Generator, folder: str):
    """natjax's tables, and KenLM's reading of the same model for flashlight."""
    import jax
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    from natjax import lm

    sentences = text(TEXT, generator)
    stream = lm.stream(sentences.reshape(-1), np.arange(len(sentences) + 1) * LENGTH)
    model, _ = lm.estimate(stream, order=ORDER, vocabulary_size=VOCABULARY)
    words = [{1: "<s>", 2: "</s>", 3: "<unk>"}.get(i, f"w{i}") for i in range(VOCABULARY)]
    lm.write_arpa(path := f"{folder}/model.arpa", model, words)
    dictionary = Dictionary()
    for word in words:
        dictionary.add_entry(word)
    dictionary.set_default_index(3)
    return jax.device_put(lm.make_tables(model)), KenLM(path, dictionary)


def ours(logits: np.ndarray, batch: int, tables) -> dict[str, Callable]:
    """natjax's pruning, its search in what was pruned, and both; the latter two give each row's best tokens, scored."""
    import jax
    import jax.numpy as jnp

    from natjax import ctc

    parts = [jnp.asarray(logits[i : i + batch]) for i in range(0, len(logits), batch)]
    options = {} if tables is None else {"lm": tables, "lm_weight": LM_WEIGHT, "score_eos": True}
    lengths = jnp.full(batch, FRAMES, jnp.int32)

    def search(pruned) -> list[Best]:
        found = ctc.beam_search(pruned, lengths, beam_size=BEAM, top_k=TOP_K, **options)
        best = jax.device_get((found.tokens[:, 0], found.lengths[:, 0], found.scores[:, 0]))
        return [Best(tuple(row[:size].tolist()), float(score)) for row, size, score in zip(*best, strict=True)]

    pruned = [ctc.prune(part, top_k=TOP_K) for part in parts]
    return {
        "prune": lambda: [jax.block_until_ready(ctc.prune(part, top_k=TOP_K)) for part in parts],
        "search": lambda: [best for part in pruned for best in search(part)],
        "both": lambda: [best for part in parts for best in search(ctc.prune(part, top_k=TOP_K))],
    }


def theirs(log_probs: np.ndarray, kenlm, beam: int = BEAM) -> Callable[[], list[Best]]:
    """flashlight's best tokens of each row, scored. Its weight is of logarithms to base 10."""
    from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM

    weight = 0.0 if kenlm is None else LM_WEIGHT * float(np.log(10))
    options = LexiconFreeDecoderOptions(
        beam_size=beam, beam_size_token=TOP_K + 1, beam_threshold=1e9, lm_weight=weight, sil_score=0.0, log_add=True,
        criterion_type=CriterionType.CTC,
    )  # fmt: skip
    engine = LexiconFreeDecoder(options, ZeroLM() if kenlm is None else kenlm, -1, 0, [])

    def run() -> list[Best]:
        best = []
        for row in log_probs:
            found = engine.decode(row.ctypes.data, *row.shape)[0]
            best.append(Best(collapsed(np.array(found.tokens)), found.score))
        return best

    return run


def collapsed(path: np.ndarray) -> tuple[int, ...]:
    """A path's tokens; flashlight's begins and ends with tokens below 0."""
    path = path[np.append(True, path[1:] != path[:-1])]
    return tuple(path[path > 0].tolist())


def compare(logits: np.ndarray, log_probs: np.ndarray, batch: int, models: tuple, name: str, repeats: int) -> dict:
    """Milliseconds a sentence of all, the ratio of the whole, and how many best hypotheses are the same."""
    rows = max(batch, 8)
    natjax, peer = ours(logits[:rows], batch, models[0]), theirs(log_probs[:rows], models[1])
    same = np.mean([a.tokens == b.tokens for a, b in zip(natjax["both"](), peer(), strict=True)])
    natjax["prune"](), natjax["search"]()
    seconds = race(repeats, **natjax, flashlight=peer)
    metrics = {f"{name}_{part}_ms": 1e3 * value / rows for part, value in seconds.items()}
    ratios = {part: seconds[part] / seconds["flashlight"] for part in ("search", "both")}
    return metrics | {f"{name}_{part}_ratio": value for part, value in ratios.items()} | {f"{name}_identical": same}


def agreement(models: tuple, sharpness: float, generator: np.random.Generator) -> dict[str, float]:
    """How often both find the same, and the greedy path with them, some sentences at a time."""
    import jax

    rows = max(BATCHES[1], 1)
    same, off = {}, {}
    for _ in range(-(-SENTENCES // rows)):
        logits = frames(text(LENGTH * rows, generator), generator, sharpness)
        log_probs = np.stack([np.asarray(jax.nn.log_softmax(row, axis=-1)) for row in logits])
        greedy = [collapsed(row.argmax(axis=-1)) for row in logits]
        for kind, pair in (("plain", (None, None)), ("lm", models)):
            mine, peer = ours(logits, rows, pair[0])["both"](), theirs(log_probs, pair[1], 2 * BEAM)()
            for a, b, path in zip(mine, peer, greedy, strict=True):
                same.setdefault(f"{kind}_identical", []).append(a.tokens == b.tokens)
                same.setdefault(f"{kind}_greedy_identical", []).append(path == b.tokens)
                off.setdefault(f"{kind}_score_difference", []).append(abs(a.score - b.score))
    found = {name: np.mean(values) for name, values in same.items()} | {name: max(v) for name, v in off.items()}
    found["sentences"] = len(same["lm_identical"])
    return {f"agreement_{sharpness:g}_{name}": float(value) for name, value in found.items()}


def passes(tables, batch: int, generator: np.random.Generator, repeats: int) -> dict[str, float]:
    """Milliseconds a sentence of whole passes, and what either search adds to the greedy one."""
    import jax
    import jax.numpy as jnp

    from natjax import models, objectives
    from natjax.config import Config, ModelConfig
    from natjax.decoding import lattice, single_pass
    from natjax.decoding.lattice import Search

    config = Config(name="search", model=ModelConfig.base(**MODEL))
    network, objective = models.build(config, VOCABULARY, VOCABULARY), objectives.build(config)
    params = single_pass.prepare(models.init(network, 0), config.model.dtype)
    source = jnp.asarray(generator.integers(4, VOCABULARY, (batch, SOURCE)), jnp.int32)
    lengths = jnp.full(batch, SOURCE, jnp.int32)
    assert objective.max_frames(SOURCE, 0) == FRAMES
    greedy = single_pass.make_decode(network, objective)
    search = single_pass.make_decode(network, objective, search=Search(BEAM, TOP_K, "linear", False))

    def run(decode, **weights) -> Callable:
        return lambda: jax.block_until_ready(decode(params, source, lengths, None, **weights))

    ways = {
        "greedy": run(greedy),
        "beam": run(search, weights=lattice.weights(None, 0.0, 0.5)),
        "beam_lm": run(search, weights=lattice.weights(tables, LM_WEIGHT, 0.5)),
    }
    for way in ways.values():
        way()
    seconds = race(repeats, **ways)
    metrics = {f"batch{batch}_pass_{way}_ms": 1e3 * value / batch for way, value in seconds.items()}
    return metrics | {
        f"batch{batch}_pass_{way}_over_greedy": seconds[way] / seconds["greedy"] for way in ("beam", "beam_lm")
    }


def toy() -> None:
    """Small sizes, for a try of every part."""
    model = dict(encoder_layers=1, decoder_layers=1, width=32, feed_forward=64, heads=2)
    sizes = dict(VOCABULARY=300, TEXT=20_000, FRAMES=45, LENGTH=13, SOURCE=15, BEAM=6, TOP_K=5)
    globals().update(**sizes, BATCHES=(1, 2), SENTENCES=6, MODEL=model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--toy", action="store_true", help="small sizes; nothing is written")
    args = parser.parse_args()
    if args.toy:
        toy()

    pin()
    import jax

    from natjax.cli.runtime import set_up_jax
    from natjax.evaluation.report import write_result

    set_up_jax()
    began, generator = time.perf_counter(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        models = language_model(generator, folder)
    logits = frames(text(LENGTH * max(BATCHES), generator), generator)
    log_probs = np.stack([np.asarray(jax.nn.log_softmax(row, axis=-1)) for row in logits])
    metrics: dict[str, float] = {"lm_mb": sum(leaf.nbytes for leaf in jax.tree.leaves(models[0])) / 1e6}
    for batch in BATCHES:
        for pair, kind in (((None, None), "plain"), (models, "lm")):
            metrics |= compare(logits, log_probs, batch, pair, f"batch{batch}_{kind}", args.repeats)
    del logits, log_probs
    for sharpness in SHARPNESS:
        metrics |= agreement(models, sharpness, generator)
    for batch in BATCHES:
        metrics |= passes(models[0], batch, generator, args.repeats)
    for key, value in metrics.items():
        print(f"{key:<40} {value:10.3f}")
    if args.toy:
        return
    write_result(
        RESULTS / "search.json",
        name="search",
        command=" ".join(["python", *sys.argv]),
        data=f"random frames T = {FRAMES}, V = {VOCABULARY:,}; order {ORDER} estimated on {TEXT:,} random tokens",
        seed=1,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={"batch1_lm_both_ms": 30}
        | {f"batch{batch}_{kind}_both_ratio": 1.0 for batch in BATCHES for kind in ("plain", "lm")}
        | {f"agreement_{s:g}_{kind}_identical": 0.95 for s in SHARPNESS for kind in ("plain", "lm")}
        | {f"agreement_{s:g}_{kind}_score_difference": 0.05 for s in SHARPNESS for kind in ("plain", "lm")}
        | {f"batch{batch}_pass_{way}_over_greedy": 1.1 for batch in BATCHES[1:] for way in ("beam", "beam_lm")},
        peers=["flashlight-text"],
    )


if __name__ == "__main__":
    main()
