"""Times the estimation of an n-gram model, and tells what its tables take and how they compare with KenLM.

    export NATJAX_DATA=<folder that holds tatoeba_deen/>    (without it, all text is synthetic)
    python benchmarks/lm.py

Synthetic text: pieces by a Zipf law, each drawn again from few followers of the piece before, so that n-grams repeat
as they do in text. Every figure is of a process of its own that runs on one core. KenLM's lmplz is timed side by side,
with one thread and its ARPA file's writing, where it is in the path; probabilities are compared where `pip install
kenlm` is there. Writes benchmarks/results/lm.json. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
V, ORDER, TOKENS, MANY_TOKENS = 32_000, 4, 2_500_000, 100_000_000
MANY_PRUNE = (0, 0, 1)
BLOCK = 2_500_000
PARTS = ("estimate", "query", "peers", "real", "many")
TARGETS = {
    "estimate_seconds": 5.0,
    "tables_5m_megabytes": 160.0,
    "kenlm_max_difference_log10": 1e-5,
    "lmplz_max_difference_log10": 1e-5,
    "many_peak_gigabytes": 8.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(json.dumps(globals()[args.part]()))
        return
    from natjax.evaluation.report import write_result

    began, metrics, real = time.perf_counter(), {}, bool(os.environ.get("NATJAX_DATA"))
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        metrics |= json.loads(done.stdout)
        print(part, done.stdout, flush=True)
    write_result(
        RESULTS / "lm.json",
        name="lm",
        command=shlex.join(["python", *sys.argv]),
        data=f"synthetic text of {V:,} pieces, {TOKENS:,} tokens, and {MANY_TOKENS:,} pruned by {MANY_PRUNE}"
        + ", Tatoeba's German" * real,
        seed=0,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets={name: target for name, target in TARGETS.items() if name in metrics},
        peers=["kenlm"] * ("kenlm_max_difference_log10" in metrics),
        extra={"order": ORDER},
    )


def text(tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, offsets): sentences of 25 on average."""
    blocks = [_block(seed, min(BLOCK, tokens - seed * BLOCK)) for seed in range(-(-tokens // BLOCK))]
    lengths = np.concatenate([lengths for _, lengths in blocks])
    return np.concatenate([made for made, _ in blocks]), np.concatenate([[0], np.cumsum(lengths)])


def _block(seed: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)

    def ranks(exponent: int, top: int) -> np.ndarray:
        return np.minimum(top * generator.random(tokens) ** exponent, top - 1).astype(np.int64)

    lengths = generator.integers(1, 50, tokens // 20)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), tokens)]
    drawn, follower, fresh = ranks(4, V - 4), ranks(12, 60), generator.random(tokens) < 0.1
    made = drawn
    for _ in range(16):  # runs of a few pieces that hang together
        before = np.roll(made, 1)
        made = np.where(fresh, drawn, (before * 31 + follower * (1 + before % 7)) % (V - 4))
    return (made[: lengths.sum()] + 4).astype(np.uint16), lengths


def estimate(many: int = TOKENS, prune: tuple[int, ...] = ()) -> dict[str, float]:
    """Seconds and memory of estimation and of the tables."""
    from natjax import lm

    tokens, offsets = text(many)
    base, began = peak(), time.perf_counter()
    model, _ = lm.estimate(lm.stream(tokens, offsets), order=ORDER, vocabulary_size=V, prune=prune)
    estimated, used = time.perf_counter() - began, peak() - base
    began = time.perf_counter()
    tables = lm.make_tables(model)
    made = lm.sizes(tables)
    each = made.nbytes / made.ngrams
    return {
        "estimate_seconds": estimated,
        "estimate_peak_megabytes": used / 1e6,
        "tables_seconds": time.perf_counter() - began,
        "ngrams": made.ngrams,
        "tables_megabytes_per_million": each,
        "tables_5m_megabytes": 5 * each,
        "tables_load": made.load,
    }


def many() -> dict[str, float]:
    """The most memory that the process ever held: text, counts, model and tables."""
    found = estimate(MANY_TOKENS, MANY_PRUNE)
    return {
        "many_tokens": MANY_TOKENS,
        "many_ngrams_kept": found["ngrams"],
        "many_estimate_seconds": found["estimate_seconds"],
        "many_peak_gigabytes": peak() / 1e9,
    }


def peers() -> dict[str, float]:
    """Differences to KenLM, in log10, and lmplz' seconds."""
    from natjax import lm

    tokens, offsets = text(TOKENS)
    pieces = ["<pad>", "<s>", "</s>", "<unk>", *(f"p{i}" for i in range(4, V))]
    model, _ = lm.estimate(lm.stream(tokens, offsets), order=ORDER, vocabulary_size=V)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        lm.write_arpa(Path(folder) / "own.arpa", model, pieces)
        found["arpa_write_seconds"] = time.perf_counter() - began
        began = time.perf_counter()
        lm.read_arpa(Path(folder) / "own.arpa", pieces)
        found["arpa_read_seconds"] = time.perf_counter() - began
        try:
            import kenlm
        except ImportError:
            kenlm = None
        if kenlm:
            peer, generator = kenlm.Model(f"{folder}/own.arpa"), np.random.default_rng(1)
            rows = [tokens[offsets[i] : offsets[i + 1]].tolist() for i in range(1500)]
            rows += [generator.integers(4, V, 25).tolist() for _ in range(500)]
            # Half of a sentence the text holds, and on with another's: both ends of every back-off.
            rows += [a[: len(a) // 2] + b[len(b) // 2 :] for a, b in zip(rows[:500], rows[500:1000], strict=True)]
            ours = lm.score_sentences(lm.make_tables(model), rows)
            theirs = [[s for s, *_ in peer.full_scores(" ".join(pieces[t] for t in row))] for row in rows]
            found["kenlm_max_difference_log10"] = max(
                float(np.abs(a / np.log(10) - b).max()) for a, b in zip(ours, theirs, strict=True)
            )
        if lmplz := shutil.which("lmplz"):
            found |= _lmplz(lmplz, Path(folder), model, pieces, tokens, offsets)
    return found


def _lmplz(lmplz: str, folder: Path, model, pieces, tokens, offsets) -> dict[str, float]:
    from natjax import lm

    words = [pieces[t] for t in tokens.tolist()]
    with (folder / "text").open("w") as file:
        file.writelines(" ".join(words[a:b]) + "\n" for a, b in pairwise(offsets))
    command = [lmplz, "-o", str(ORDER), "--text", f"{folder}/text", "--arpa", f"{folder}/lmplz.arpa", "-T", str(folder)]
    began = time.perf_counter()
    subprocess.run([*command, "-S", "2G", "--discount_fallback"], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    peer = lm.read_arpa(folder / "lmplz.arpa", pieces)
    assert peer.counts == model.counts
    pairs = [*zip(model[1:3], peer[1:3], strict=True)]
    for a, b in zip(model.levels, peer.levels, strict=True):
        assert (a.keys == b.keys).all()
        pairs += [(a.log_probs, b.log_probs), (a.backoffs, b.backoffs)]
    worst = max(float(np.abs(a - b).max()) for a, b in pairs) / np.log(10)
    return {"lmplz_seconds": seconds, "lmplz_max_difference_log10": worst}


def real() -> dict[str, float]:
    """A real text with a vocabulary trained on it."""
    folder = os.environ.get("NATJAX_DATA", "")
    if not folder:
        return {}
    file = Path(folder) / "tatoeba_deen" / "train.de"
    from natjax import lm
    from natjax.config import VocabConfig
    from natjax.data.corpus import normalise, read_lines
    from natjax.data.vocab import Vocabulary

    lines = [line for line in map(normalise, read_lines(file)) if line]
    rows = Vocabulary.train(lines[::10], VocabConfig(size=8000)).encode(lines)
    tokens, offsets = np.array([t for row in rows for t in row], np.uint16), np.cumsum([0, *map(len, rows)])
    began = time.perf_counter()
    model, _ = lm.estimate(lm.stream(tokens, offsets), order=ORDER, vocabulary_size=8000)
    seconds = time.perf_counter() - began
    made = lm.sizes(lm.make_tables(model))
    return {
        "real_tokens": len(tokens),
        "real_estimate_seconds": seconds,
        "real_ngrams": made.ngrams,
        "real_tables_megabytes_per_million": made.nbytes / made.ngrams,
    }


def query() -> dict[str, float]:
    """Milliseconds of the queries of one sentence's search: 90 frames, a beam of 20, 20 tokens each."""
    import jax
    import jax.numpy as jnp

    from natjax import lm

    tokens, offsets = text(TOKENS)
    model, _ = lm.estimate(lm.stream(tokens, offsets), order=ORDER, vocabulary_size=V)
    tables = jax.device_put(lm.make_tables(model))
    asked = np.random.default_rng(1).choice(tokens, (90, 20, 20)).astype(np.int32)

    @jax.jit
    def search(tables, asked):
        def step(states, tokens):
            log_probs, following = tables.score(jnp.broadcast_to(states[:, None], tokens.shape), tokens)
            return following[:, 0], log_probs.sum()

        return jax.lax.scan(step, jnp.broadcast_to(tables.start(), (20,)), asked)[1]

    search(tables, asked).block_until_ready()
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        search(tables, asked).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return {"query_milliseconds": float(np.median(seconds) * 1e3)}


def peak() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
