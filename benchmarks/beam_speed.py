"""Times beam search and greedy decoding against CTranslate2 on the same base-size model; ratios below 1 favour natjax.

    python benchmarks/beam_speed.py

Both compute in float32 on one and the same core, token ids to token ids, in turns; seconds are medians, with every
program compiled before. Weights are random, but for one dimension of the decoder, which only its position table writes
and which is eos's logit. There are two workloads:

    equal       eos is the most improbable token up to position LENGTH and then the most probable. So every hypothesis
                of either engine has LENGTH tokens, which is checked, and no row waits for another: natjax's best case,
                since it decodes a batch until the last sentence is done.
    differing   eos's logit rises slowly and passes the others' at a position that depends on source and hypothesis, so
                that sentences of a batch, and hypotheses of a sentence, end at different steps.

Outputs of the two engines are compared. Writes benchmarks/results/beam_speed.json. Nothing else should run on the
machine meanwhile.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ct2 import pin, race

RESULTS = Path(__file__).parent / "results"
VOCABULARY, SOURCES, PADDED, LENGTH = 32_000, (24, 32), 32, 28  # sources: fewest and most pieces, eos included
BEAM, RATIO, LENGTH_PENALTY = 5, 2.0, 1.0
SHARP = 0.25  # standard deviation of the token table: that of logits is √512 times as large
RISE, ZERO = 0.004, -18  # of eos's dimension in "differing", a position, and where it is 0: ends lie between 20 and 30


def weights(model, workload: str, seed: int):
    """Random parameters of a Transformer, with which translations end as the workload says."""
    import jax
    import jax.numpy as jnp

    from natjax.typing import BOS, EOS, PAD

    generator = np.random.default_rng(seed)
    example = jnp.zeros((1, 4), jnp.int32), jnp.ones((1,), jnp.int32), 4
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *example)["params"])

    def draw(path: tuple, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "scale":
            return np.ones(shape.shape, np.float32)
        if "bias" in name:
            return np.zeros(shape.shape, np.float32)
        deviation = SHARP if name == "table" else 0.5 * shape.shape[-2] ** -0.5  # the residual goes before the blocks
        return (deviation * generator.normal(size=shape.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    for block, kernel in (("self_attention", "out"), ("cross_attention", "out"), ("feed_forward", "down_kernel")):
        part = params["decoder"]["layers"][block][kernel]
        (part["kernel"] if kernel == "out" else part)[..., 0] = 0.0
    table, positions = params["source_embedding"]["table"], params["decoder_positions"]["table"]
    table[:, 0] = 0.0
    place = np.arange(len(positions))
    positions[:, 0] = np.where(place < LENGTH, -1.0, 1.0) if workload == "equal" else RISE * (place - ZERO)
    table[EOS] = np.eye(1, table.shape[1])[0] * 50.0
    # States resemble the vector of the last token, which is the output's, too: signs keep it from being repeated.
    sign = np.sign(generator.normal(size=table.shape[1]))
    sign[0] = 1.0
    params["decoder"]["layers"]["feed_forward_norm"]["scale"][-1] = sign
    params["output_bias"][[PAD, BOS]] = -1e4  # CTranslate2 would generate them
    return params


class Words:
    """A vocabulary as an export needs it."""

    def __len__(self) -> int:
        return VOCABULARY

    def pieces(self, ids) -> list[str]:
        return [("<pad>", "<s>", "</s>", "<unk>")[i] if i < 4 else f"w{i}" for i in ids]


def ours(model, params, sources: list[list[int]], beam: int) -> Callable[[], list[list[int]]]:
    """natjax's best hypotheses of a batch."""
    import jax

    from natjax.decoding import autoregressive
    from natjax.decoding.passes import arrays as batch_arrays
    from natjax.decoding.shapes import Shape

    decode = autoregressive.make_decode(
        model, beam_size=beam, length_penalty=LENGTH_PENALTY if beam > 1 else 0.0, max_length_ratio=RATIO
    )

    def run() -> list[list[int]]:
        arrays = batch_arrays(Shape(len(sources), PADDED), sources)
        found = decode(params, *arrays)
        tokens, lengths = jax.device_get((found.tokens, found.lengths))
        return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]

    return run


def theirs(engine, sources: list[list[int]], beam: int) -> Callable[[], list[list[int]]]:
    """CTranslate2's best hypotheses of a batch."""
    words = Words()
    pieces = [words.pieces(source[:-1]) for source in sources]  # it adds eos itself
    ids = {piece: number for number, piece in enumerate(words.pieces(range(VOCABULARY)))}
    options = dict(
        beam_size=beam, length_penalty=LENGTH_PENALTY if beam > 1 else 0.0, max_decoding_length=2 * PADDED,
        max_batch_size=len(sources),
    )  # fmt: skip

    def run() -> list[list[int]]:
        return [[ids[piece] for piece in result.hypotheses[0]] for result in engine.translate_batch(pieces, **options)]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    pin()
    import ctranslate2
    import jax.numpy as jnp

    from natjax import models
    from natjax.cli.runtime import set_up_jax
    from natjax.config import Config, ModelConfig
    from natjax.decoding import autoregressive
    from natjax.evaluation.report import write_result
    from natjax.export.ctranslate2 import specification
    from natjax.typing import EOS

    set_up_jax()
    began, generator = time.perf_counter(), np.random.default_rng(0)
    config = Config("beam_speed", model=ModelConfig.base(kind="autoregressive"))
    model = models.Transformer(config.model, VOCABULARY, VOCABULARY)
    sources = [[*generator.integers(4, VOCABULARY, n - 1).tolist(), EOS] for n in generator.integers(*SOURCES, 32)]
    metrics: dict[str, float] = {}
    for workload in ("equal", "differing"):
        params = weights(model, workload, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            spec = specification(config, SimpleNamespace(source=Words(), target=Words()), params)
            spec.optimize(quantization="float32")
            spec.save(folder)
            engine = ctranslate2.Translator(folder, compute_type="float32", inter_threads=1, intra_threads=1)
        params = autoregressive.prepare(params, jnp.float32)
        for beam in (1, BEAM):
            for batch in (32, 1):
                name = f"{workload}_batch{batch}_" + (f"beam{beam}" if beam > 1 else "greedy")
                metrics |= compare(ours(model, params, sources[:batch], beam), theirs(engine, sources[:batch], beam),
                                   args.repeats * (1 if batch > 1 else 3), name)  # fmt: skip
    for key, value in metrics.items():
        print(f"{key:<36} {value:10.4f}")
    write_result(
        RESULTS / "beam_speed.json",
        name="beam_speed",
        command=" ".join(["python", *sys.argv]),
        data=f"32 random sources of {SOURCES[0]} to {SOURCES[1] - 1} pieces, translations of {LENGTH} tokens and eos "
        f"(equal) or of differing lengths, {VOCABULARY:,} pieces",
        seed=0,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={key: 1.3 for key in metrics if "batch32" in key and key.endswith("_ratio")},
        peers=["ctranslate2"],
    )


def compare(natjax: Callable, peer: Callable, repeats: int, name: str) -> dict[str, float]:
    """Seconds of both, their ratio, how many translations are the same, and how long natjax's are."""
    first, second = natjax(), peer()
    lengths = [len(row) for row in first]
    if name.startswith("equal"):
        assert set(lengths) == {LENGTH} == {len(row) for row in second}, f"translations have {lengths} tokens"
    seconds = race(repeats, natjax=natjax, ctranslate2=peer)
    return {
        f"{name}_ratio": seconds["natjax"] / seconds["ctranslate2"],
        f"{name}_natjax_seconds": seconds["natjax"],
        f"{name}_ctranslate2_seconds": seconds["ctranslate2"],
        f"{name}_mean_length": float(np.mean(lengths)),
        f"{name}_longest": max(lengths),
        f"{name}_identical_outputs": sum(a == b for a, b in zip(first, second, strict=True)) / len(first),
    }


if __name__ == "__main__":
    main()
