"""Corpus -> vocabulary -> store, for one config, in one atomic folder."""

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from natjax.atomic import clear_leftovers
from natjax.config import Config, expand
from natjax.data import grammar
from natjax.data.corpus import FilterReport, Limits
from natjax.data.encoding import token_dtype
from natjax.data.lines import Corpus, FileLines, HeldLines, held
from natjax.data.scan import Scan, changed, drawn, scan, scored_blocks
from natjax.data.store import Store, open_store
from natjax.data.vocab import Draw, Vocabularies, Vocabulary
from natjax.data.workers import cores, encoded
from natjax.data.writing import StoreWriter, check_free, new_store
from natjax.errors import ConfigError, DataError, StoreError

EMBEDDED_PAIRS = {"demo": 20_000, "hard": 30_000}
"""Training pairs of the embedded corpus, by difficulty."""
EMBEDDED_VALID_PAIRS = 500

_SAY_SECONDS = 30.0

Text = tuple[list[str], list[str]]


def prepare(
    config: Config,
    folder: str | Path,
    report: Callable[[str], None],
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes the token store and the vocabulary of a config; a store that exists there is replaced.

    Training text is normalised and filtered. Validation text is normalised; only pairs with an empty side or longer
    than `data.max_length` are left out of the store (BLEU is measured on the raw text, not on the store).

    Text is read block by block, three times: to check and count it, for the vocabulary, and to encode it. What is held
    does not grow with it, but for two bytes a pair.

    Args:
        config: what to prepare.
        folder: the store.
        report: called with lines for people.
        processes: how many encode; None: one for each core that may be used. The store is the same for any number.
        progress: called with (pairs done, pairs in all) while training text is encoded; None: `report` is told now and
            then.

    Raises:
        DataError: text that is missing or unusable, or nothing left after filtering.
        VocabularyError: the text allows no vocabulary of this size.
        StoreError: the folder cannot be written, or holds other things.
        WorkerError: a process that encodes cannot be started, or has died.
    """
    clear_leftovers(Path(folder).absolute().parent)
    clear_leftovers(Path(folder))
    check_free(folder)
    state, splits = _text_state(config), _splits(config)
    for name, split in splits.items():
        if not split.found.usable.any():
            low, pairs = split.found.low_scores(split.limits), int(split.found.scored.sum())
            raise _nothing_left(name, low + FilterReport(split.limits, total=pairs, empty=pairs))
    train = splits["train"]
    vocabularies = (
        given_vocabularies(config) if config.vocab.path else _trained(train.corpus, train.found, config, report)
    )
    sizes = " and ".join(f"{len(vocabulary):,}" for vocabulary in vocabularies.files().values())
    report(f"vocabulary: {sizes} pieces ({config.vocab.path or config.vocab.algorithm})")
    with new_store(folder, list(splits), token_dtype(vocabularies), vocabularies) as writer:
        filters = {}
        for name, split in splits.items():
            heard = progress or _spoken(name, report) if name == "train" else lambda done, total: None
            counts = _encode(writer, name, split, vocabularies, processes or cores(), heard)
            report(f"{name}: {counts.describe()}")
            if counts.kept == 0:
                raise _nothing_left(name, counts)
            filters[name] = {**counts.counts(), "description": counts.describe()}
        if _text_state(config) != state:
            raise changed(train.corpus)
        writer.metadata |= {"recipe": recipe(config), "text_bytes": _text_bytes(config), "filters": filters}
    report(f"store: {folder}")


def _spoken(name: str, report: Callable[[str], None]) -> Callable[[int, int], None]:
    """Progress as lines, with speed and time left."""
    started = said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_SECONDS:
            said, speed = now, done / (now - started)
            left = math.ceil((total - done) / speed / 60)
            report(f"{name}: {done:,} of {total:,} pairs, {speed:,.0f} pairs/s, about {left} min left")

    return progress


class _Split(NamedTuple):
    """The text of a split, what a first look has found, and which of its pairs are kept."""

    corpus: Corpus
    found: Scan
    limits: Limits


def _splits(config: Config) -> dict[str, _Split]:
    made_from = recipe(config)
    valid = Limits(config.data.max_length, target_eos=config.objective.target_eos)
    train = dataclasses.replace(
        valid,
        max_ratio=config.data.max_ratio,
        frames_ratio=made_from.get("frames_ratio"),
        minimum_score=made_from.get("data.minimum_score"),
    )
    limits, texts = {"train": train, "valid": valid}, corpora(config)
    return {name: _Split(text, scan(text, limits[name]), limits[name]) for name, text in texts.items()}


def _encode(
    writer: StoreWriter,
    name: str,
    split: _Split,
    vocabularies: Vocabularies,
    processes: int,
    progress: Callable[[int, int], None],
) -> FilterReport:
    """Appends the pairs that are kept to a store, and counts all."""
    counts, pairs = FilterReport(split.limits), int(split.found.scored.sum())
    blocks = scored_blocks(split.corpus, split.found.scored)
    # Closed at once when something fails: the processes must not outlive it.
    with closing(encoded(blocks, pairs, vocabularies, split.limits, processes)) as results:
        for result in results:
            writer.append(name, result.source, result.target)
            counts += result.counts
            progress(counts.total, pairs)
    return split.found.low_scores(split.limits) + counts


def recipe(config: Config) -> dict[str, Any]:
    """All fields of a config that a store depends on, by dotted name; `frames_ratio` only where the loss is CTC."""
    fields = {f"data.{name}": value for name, value in dataclasses.asdict(config.data).items()}
    for name in ("store", "obtain", "buckets", "length_multiple"):
        del fields[f"data.{name}"]
    if not config.data.train_scores or config.data.embedded != "none":  # then they decide nothing
        del fields["data.train_scores"], fields["data.minimum_score"]
    fields |= {f"vocab.{name}": value for name, value in dataclasses.asdict(config.vocab).items() if value != ""}
    fields["objective.target_eos"] = config.objective.target_eos
    if config.data.embedded != "none":
        fields["grammar_version"] = grammar.GRAMMAR_VERSION
    if not config.objective.needs_length:
        fields["frames_ratio"] = config.model.ratio
    return fields


def open_prepared(config: Config, folder: str | Path, *, verify: bool = False) -> tuple[Store, Vocabularies]:
    """Opens what `prepare` made for this config; `verify` as for `open_store`.

    Raises:
        StoreError: missing or damaged, made by another recipe (every differing field is listed), or from text that
            has changed since.
        VocabularyError: the vocabulary beside the store is missing or damaged.
    """
    store = open_store(folder, verify=verify)
    made, wanted = store.metadata.get("recipe"), recipe(config)
    if not isinstance(made, dict):
        raise StoreError(f"{folder}: metadata.json names no recipe; run natjax prepare again")
    names = [name for name in {**made, **wanted} if made.get(name) != wanted.get(name)]
    if names:
        changes = ", ".join(f"{name} {made.get(name)!r} -> {wanted.get(name)!r}" for name in names)
        raise StoreError(f"{folder}: made with other settings ({changes}); run natjax prepare again, "
                         "or name another --data.store")  # fmt: skip
    if config.data.embedded == "none":
        _check_text(config, folder, store.metadata.get("text_bytes", {}))
    vocabularies = Vocabularies.load(folder)
    if config.vocab.path:
        _check_vocabularies(config, folder, vocabularies)
    recorded = store.metadata.get("vocabularies")
    found = {side: {"size": len(v), "fingerprint": v.fingerprint} for side, v in vocabularies._asdict().items()}
    if recorded != found:
        raise StoreError(f"{folder}: the vocabulary is not the one of the tokens; run natjax prepare again")
    return store, vocabularies


def corpora(config: Config) -> dict[str, Corpus]:
    """The text of the training and the validation split, which nobody has looked at yet.

    Raises:
        DataError: a file is missing; the line ends with `data.obtain` where the config gives it.
    """
    difficulty = config.data.embedded
    if difficulty != "none":
        pairs = {"train": EMBEDDED_PAIRS[difficulty], "valid": EMBEDDED_VALID_PAIRS}
        return {split: Corpus(*map(HeldLines, _embedded(difficulty, split, n))) for split, n in pairs.items()}
    files = {name: FileLines(file) for name, file in corpus_files(config).items()}
    return {
        "train": Corpus(files["train_source"], files["train_target"], files.get("train_scores")),
        "valid": Corpus(files["valid_source"], files["valid_target"]),
    }


def read_corpus(config: Config) -> tuple[Text, Text]:
    """The raw text of the training and the validation split, all at once: (sources, targets) each.

    Raises:
        DataError: missing or unusable text; the line ends with `data.obtain` where the config gives it.
    """
    train, valid = (held(corpus) for corpus in corpora(config).values())
    return train, valid


def _text_bytes(config: Config) -> dict[str, int]:
    if config.data.embedded != "none":
        return {}
    return {name: file.stat().st_size for name, file in corpus_files(config).items()}


def _text_state(config: Config) -> list[tuple[int, int]]:
    """What changes with the text."""
    if config.data.embedded != "none":
        return []
    found = [file.stat() for file in corpus_files(config).values()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in found]


def _check_text(config: Config, folder: str | Path, recorded: dict[str, int]) -> None:
    """Sizes, not checksums, which would read all text at every start. Text that is gone is no mistake."""
    for name, size in recorded.items():
        try:
            file = Path(expand(config.data.root)) / expand(getattr(config.data, name))
        except ConfigError:  # nowhere to look: the text is gone
            continue
        if file.is_file() and file.stat().st_size != size:
            raise StoreError(f"{folder}: {file} has changed since the store was made; run natjax prepare again")


def corpus_files(config: Config, splits: tuple[str, ...] = ("train", "valid")) -> dict[str, Path]:
    """The text files of a config by field name, two a split, and `train_scores` where they are given.

    Raises:
        DataError: one is missing, or a variable in its path is not set; ends with `data.obtain` where it is given.
    """
    data = config.data
    obtain = f"; {data.obtain}" if data.obtain else ""

    def path(field: str) -> Path:
        try:
            return Path(expand(getattr(data, field)))
        except ConfigError as error:
            raise DataError(f"data.{field} {error}{obtain}") from None

    names = [f"{split}_{side}" for split in splits for side in ("source", "target")]
    if "train" in splits and data.train_scores:
        names.append("train_scores")
    files = {name: path("root") / path(name) for name in names}
    for file in files.values():
        if not file.is_file():
            raise DataError(f"{file}: no such file; check data.root{obtain}")
    return files


def given_vocabularies(config: Config) -> Vocabularies:
    """The vocabulary of `vocab.path`.

    Raises:
        VocabularyError: there is none, or it is damaged.
        ConfigError: it is joint where the config wants two, or the other way round.
    """
    vocabularies = Vocabularies.load(expand(config.vocab.path))
    if vocabularies.joint != config.vocab.joint:
        option = "--vocab.joint" if vocabularies.joint else "--vocab.no-joint --model.no-share-embeddings"
        kind = "joint" if vocabularies.joint else "separate"
        raise ConfigError(f"vocab.path: {config.vocab.path} has a {kind} vocabulary; set {option}")
    return vocabularies


def _check_vocabularies(config: Config, folder: str | Path, vocabularies: Vocabularies) -> None:
    """That `vocab.path` still holds the store's vocabulary. Like text, one that is gone is no mistake."""
    try:
        there = any(Path(expand(config.vocab.path)).glob("vocab*.model"))
    except ConfigError:
        return
    if there and [v.fingerprint for v in given_vocabularies(config)] != [v.fingerprint for v in vocabularies]:
        raise StoreError(
            f"{folder}: the vocabulary of {config.vocab.path} has changed since the store was made; run natjax prepare "
            "again"
        )


def train_vocabularies(text: Text, config: Config) -> Vocabularies:
    """One vocabulary for both sides, or one each, from text that is held. Raises VocabularyError."""
    corpus = Corpus(*map(HeldLines, text))
    return _trained(corpus, scan(corpus, Limits(config.data.max_length)), config)


def _trained(
    corpus: Corpus, found: Scan, config: Config, report: Callable[[str], None] = lambda line: None
) -> Vocabularies:
    # Pairs with an empty side are dropped. The other filters count pieces, so they come after the vocabulary.
    pairs = int(found.usable.sum())
    sides = [(corpus.source, corpus.target)] if config.vocab.joint else [(corpus.source,), (corpus.target,)]
    vocabularies = []
    for lines in sides:
        # Seed 0, not training.seed: runs that differ only in their seed share one store.
        draw = Draw(pairs * len(lines), seed=0)
        if not draw.all:
            report(f"vocabulary: trained on about {draw.wanted:,} of {draw.sentences:,} sentences, drawn at random")
        sentences = chain.from_iterable(drawn(side, found.usable, draw) for side in lines)
        vocabularies.append(Vocabulary.train(sentences, config.vocab))
    return Vocabularies(vocabularies[0], vocabularies[-1])


def _embedded(difficulty: str, split: str, count: int) -> Text:
    examples = grammar.generate(difficulty, split, count, seed=0)
    return [example.source for example in examples], [example.target for example in examples]


def _nothing_left(split: str, counts: FilterReport) -> DataError:
    scores = ", data.minimum_score" if counts.low_score else ""
    return DataError(f"the {split} corpus is empty after filtering: {counts.describe()}; "
                     f"check the files, data.max_length{scores} and data.max_ratio")  # fmt: skip
