"""Times `natjax prepare` on synthetic corpora of growing size; tells its memory, and whether the stores are the same.

    python benchmarks/prepare.py
    python benchmarks/prepare.py --pairs 8000 --vocabulary 400 --output /tmp/prepare.json     (a try)

Made-up words by a Zipf law, frequent ones short, in sentences as long as WMT14's: 25 words on average, few above 100;
one pair in a hundred is no translation, and some have an empty side. Everything is written below a temporary folder
(TMPDIR; 4M pairs take 5 GB with their stores). Prepared is `wmt14_en_de` with this text. A vocabulary is trained once,
on the largest corpus; then the eighth, the quarter, the half and the whole are prepared with it. Speed counts from the
moment when the vocabulary is there to the end of the command. Memory is what all its processes hold together, pages
that they share counted in each. Writes benchmarks/results/prepare.json. Nothing else should run meanwhile.
"""

import argparse
import hashlib
import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
BLOCK = 20_000
TARGETS = {
    "pairs_per_second": 25_000,
    "peak_gigabytes": 2.0,
    "seconds_per_pair_largest_over_smallest": 1.1,
    "identical": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4_000_000, help="of the largest corpus")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=40_000)
    parser.add_argument("--output", type=Path, default=RESULTS / "prepare.json")
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        metrics = measure(Path(name), args.pairs, args.processes, args.vocabulary)
    from natjax.evaluation.report import write_result

    write_result(
        args.output,
        name="prepare",
        command=shlex.join(["python", *sys.argv]),
        data=f"synthetic: {args.pairs:,} pairs of made-up words, lengths as in WMT14",
        seed=0,
        wall_seconds=time.perf_counter() - began,
        metrics=metrics,
        targets=TARGETS,
        extra={"processes": args.processes, "vocabulary": args.vocabulary},
    )
    for key, value in metrics.items():
        print(f"{key:<42} {value:,.4g}")


def measure(folder: Path, pairs: int, processes: int, vocabulary: int) -> dict[str, float]:
    sizes = [pairs // 8, pairs // 4, pairs // 2, pairs]
    for size in sizes:
        (folder / str(size)).mkdir()
    write(folder, sizes)
    metrics: dict[str, float] = {}

    def run(size: int, count: int, *options: str) -> tuple[Path, float, float, float]:
        store = folder / f"store-{size}-{count}{'-trained' * (not options)}"
        sized = options or ("--vocab.size", str(vocabulary))
        found = prepare(folder / str(size), store, count, sized)
        print(f"{size:,} pairs, {count} processes: {found[0]:.1f} s until the vocabulary, {found[1]:.1f} s after it, "
              f"{found[2] / 1e9:.2f} GB", flush=True)  # fmt: skip
        return store, *found

    trained, seconds, _, memory = run(pairs, processes)
    metrics |= {"vocabulary_seconds": seconds, "peak_gigabytes": memory / 1e9}
    given = "--vocab.path", str(trained)
    each = {}
    for size in sizes:
        _, before, after, memory = run(size, processes, *given)
        each[size] = after / size
        metrics[f"pairs_per_second_{size}"] = 1 / each[size]
        metrics[f"peak_gigabytes_{size}"] = memory / 1e9
    metrics["pairs_per_second"] = 1 / each[pairs]
    metrics["pairs_per_second_with_the_first_look"] = pairs / (before + after)
    metrics["seconds_per_pair_largest_over_smallest"] = each[pairs] / each[sizes[0]]
    small = folder / f"store-{sizes[0]}-{processes}"
    others = [run(sizes[0], count, *given)[0] for count in (1, processes + 1)]
    metrics["identical"] = int({digest(store) for store in others} == {digest(small)})
    return metrics


def prepare(text: Path, store: Path, processes: int, options: tuple[str, ...]) -> tuple[float, float, float]:
    """(seconds until the vocabulary is there, seconds after, bytes of all processes at most)."""
    command = [sys.executable, "-m", "natjax", "prepare", "wmt14_en_de", "--processes", str(processes),
               "--data.root", str(text), "--data.store", str(store), *options]  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    watch = Memory(process.pid)
    seen = 0.0
    for line in process.stderr:
        if line.startswith("vocabulary:") and " pieces (" in line:
            seen = time.perf_counter() - began
        elif not line.startswith("preparing:"):
            print(f"  {line}", end="", flush=True)
    if process.wait():
        raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}")
    return seen, time.perf_counter() - began - seen, watch.stop()


class Memory(threading.Thread):
    """Looks ten times a second what a process and all below it hold."""

    def __init__(self, process: int):
        super().__init__(daemon=True)
        self.process, self.most, self._done = process, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.1):
            self.most = max(self.most, sum(map(resident, tree(self.process))))

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.most


def tree(process: int) -> list[int]:
    """A process and those that it has started, and so on."""
    try:
        lists = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return [process]
    below = [int(child) for text in lists for child in text.split()]
    return [process, *itertools.chain.from_iterable(map(tree, below))]


def resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def digest(store: Path) -> str:
    """Of the names and bytes of all that the store holds; when it was verified is no content."""
    found = hashlib.sha256()
    for file in sorted(store.iterdir()):
        if file.name != "verified.json":
            found.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def write(folder: Path, sizes: list[int]) -> None:
    """The corpora: each is the beginning of the next. 2,000 more pairs are the validation text of all."""
    valid = list(itertools.islice(pairs(seed=1), 2000))
    for size in sizes:
        for place, side in enumerate(("eng", "deu")):
            (folder / str(size) / f"valid.{side}").write_text("".join(pair[place] + "\n" for pair in valid))
    for side, name in enumerate(("train.eng", "train.deu")):
        files = {size: (folder / str(size) / name).open("w") for size in sizes}
        for number, pair in enumerate(itertools.islice(pairs(seed=0), sizes[-1])):
            for size, file in files.items():
                if number < size:
                    file.write(pair[side] + "\n")
        for file in files.values():
            file.close()


def pairs(seed: int) -> Iterator[tuple[str, str]]:
    """Sentences of made-up words, without end."""
    english = Words(
        300_000, "aeiou", ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "th", "w"]
    )
    german = Words(600_000, "aeiouäöü", ["b", "d", "f", "g", "h", "k", "l", "m", "n", "r", "s", "sch", "t", "z", "ß"])
    for block in itertools.count():
        generator = np.random.default_rng([seed, block])
        source = np.clip(generator.gamma(2.3, 25 / 2.3, BLOCK), 1, 240).astype(int)
        target = np.clip(source * generator.lognormal(-0.05, 0.2, BLOCK), 1, 240).astype(int)
        other = generator.random(BLOCK) < 0.01
        target[other] = generator.permutation(source)[other]
        target[generator.random(BLOCK) < 0.001] = 0
        yield from zip(english.sentences(source, generator), german.sentences(target, generator), strict=True)


class Words:
    """A vocabulary, most frequent first: the r-th word spells r in syllables, so frequent words are short."""

    def __init__(self, count: int, vowels: str, onsets: list[str]):
        syllables = [onset + vowel for onset in onsets for vowel in vowels]
        shuffled = np.random.default_rng(0).permutation(len(syllables))
        self.words, base = [], len(syllables)
        for rank in range(count):
            word = ""
            while rank >= 0:
                word, rank = word + syllables[shuffled[rank % base]], rank // base - 1
            self.words.append(word)
        mass = np.cumsum(1 / (np.arange(count) + 2.7) ** 1.05)
        self.mass = mass / mass[-1]

    def sentences(self, lengths: np.ndarray, generator: np.random.Generator) -> Iterator[str]:
        ranks = np.searchsorted(self.mass, generator.random(lengths.sum()))
        words = list(map(self.words.__getitem__, ranks.tolist()))
        ends = np.cumsum(lengths).tolist()
        for start, end in zip([0, *ends], ends):
            sentence = " ".join(words[start:end])
            yield sentence[:1].upper() + sentence[1:] + " ." * bool(sentence)


if __name__ == "__main__":
    main()
