"""Times the compiled beam search against flashlight-text on the same frames; ratios below 1 favour natjax.

    python benchmarks/search.py

Both search on one and the same core, in frames of 32,000 tokens with beam 20 and top-k 20, without a language model and
with the same 4-gram one (KenLM inside flashlight), in turns; milliseconds are medians a sentence, with every program
compiled before. natjax starts from logits and prunes them itself ("both" is that and the search); flashlight is given
log-probabilities that are ready. It keeps blank-ended and token-ended alignments of a prefix in places of their own,
takes one sentence at a time and always scores the end, as natjax does here; it has no bonus. The text is random: each
token is followed by one of 32 others or by any, by Zipf's law; a sentence of it is hidden in the frames, among rivals.
Writes benchmarks/results/search.json. Nothing else should run on the machine meanwhile.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ct2 import pin, race

RESULTS = Path(__file__).parent / "results"
FRAMES, VOCABULARY, LENGTH, TEXT = 90, 32_000, 26, 2_500_000
BEAM, TOP_K, ORDER, LM_WEIGHT = 20, 20, 4, 0.4
BATCHES = (1, 8, 32)


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


def frames(sentences: np.ndarray, generator: np.random.Generator) -> np.ndarray:
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
    return 2 * logits


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
    """natjax's pruning, its search in what was pruned, and both; the latter two give the best tokens of each row."""
    import jax
    import jax.numpy as jnp

    from natjax import ctc

    parts = [jnp.asarray(logits[i : i + batch]) for i in range(0, len(logits), batch)]
    options = {} if tables is None else {"lm": tables, "lm_weight": LM_WEIGHT, "score_eos": True}
    lengths = jnp.full(batch, FRAMES, jnp.int32)

    def search(pruned) -> list[tuple[int, ...]]:
        found = ctc.beam_search(pruned, lengths, beam_size=BEAM, top_k=TOP_K, **options)
        tokens, sizes = jax.device_get((found.tokens[:, 0], found.lengths[:, 0]))
        return [tuple(row[:size].tolist()) for row, size in zip(tokens, sizes, strict=True)]

    pruned = [ctc.prune(part, top_k=TOP_K) for part in parts]
    return {
        "prune": lambda: [jax.block_until_ready(ctc.prune(part, top_k=TOP_K)) for part in parts],
        "search": lambda: [best for part in pruned for best in search(part)],
        "both": lambda: [best for part in parts for best in search(ctc.prune(part, top_k=TOP_K))],
    }


def theirs(log_probs: np.ndarray, kenlm) -> Callable[[], list[tuple[int, ...]]]:
    """flashlight's best tokens of each row. Its weight is of logarithms to base 10."""
    from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM

    weight = 0.0 if kenlm is None else LM_WEIGHT * float(np.log(10))
    options = LexiconFreeDecoderOptions(
        beam_size=BEAM, beam_size_token=TOP_K + 1, beam_threshold=1e9, lm_weight=weight, sil_score=0.0, log_add=True,
        criterion_type=CriterionType.CTC,
    )  # fmt: skip
    engine = LexiconFreeDecoder(options, ZeroLM() if kenlm is None else kenlm, -1, 0, [])

    def run() -> list[tuple[int, ...]]:
        best = []
        for row in log_probs:
            path = np.array(engine.decode(row.ctypes.data, *row.shape)[0].tokens)
            path = path[np.append(True, path[1:] != path[:-1])]
            best.append(tuple(path[path > 0].tolist()))
        return best

    return run


def compare(logits: np.ndarray, log_probs: np.ndarray, batch: int, models: tuple, name: str, repeats: int) -> dict:
    """Milliseconds a sentence of all, the ratio of the whole, and how many best hypotheses are the same."""
    rows = max(batch, 8)
    natjax, peer = ours(logits[:rows], batch, models[0]), theirs(log_probs[:rows], models[1])
    same = np.mean([a == b for a, b in zip(natjax["both"](), peer(), strict=True)])
    natjax["prune"](), natjax["search"]()
    seconds = race(repeats, **natjax, flashlight=peer)
    metrics = {f"{name}_{part}_ms": 1e3 * value / rows for part, value in seconds.items()}
    ratios = {part: seconds[part] / seconds["flashlight"] for part in ("search", "both")}
    return metrics | {f"{name}_{part}_ratio": value for part, value in ratios.items()} | {f"{name}_identical": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()

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
    for key, value in metrics.items():
        print(f"{key:<32} {value:10.3f}")
    write_result(
        RESULTS / "search.json",
        name="search",
        command=" ".join(["python", *sys.argv]),
        data=f"random frames T = {FRAMES}, V = {VOCABULARY:,}; order {ORDER} estimated on {TEXT:,} random tokens",
        seed=1,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={"batch1_lm_both_ms": 30}
        | {f"batch{batch}_{kind}_both_ratio": 1.0 for batch in BATCHES for kind in ("plain", "lm")},
        peers=["flashlight-text"],
    )


if __name__ == "__main__":
    main()
