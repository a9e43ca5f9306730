"""Corpus -> vocabulary -> store, for one config, in one atomic folder."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from natjax.atomic import clear_leftovers
from natjax.config import Config, expand
from natjax.data import grammar
from natjax.data.corpus import FilterReport, Limits, drop_low_scores, keep_pairs, normalise, read_parallel, read_scores
from natjax.data.store import Store, check_free, open_store, write_store
from natjax.data.vocab import EOS, Vocabularies, Vocabulary
from natjax.errors import ConfigError, DataError, StoreError

EMBEDDED_PAIRS = {"demo": 20_000, "hard": 30_000}
"""Training pairs of the embedded corpus, by difficulty."""
EMBEDDED_VALID_PAIRS = 500

_CHUNK = 50_000  # pairs encoded at a time: Python's lists of ids take ten times the room of arrays

Text = tuple[list[str], list[str]]


def prepare(config: Config, folder: str | Path, report: Callable[[str], None]) -> None:
    """Makes the token store and the vocabulary of a config; a store that exists there is replaced.

    Training text is normalised and filtered. Validation text is normalised; only pairs with an empty side or longer
    than `data.max_length` are left out of the store (BLEU is measured on the raw text, not on the store).

    Args:
        config: what to prepare.
        folder: the store.
        report: called with lines for people.

    Raises:
        DataError: text that is missing or unusable, or nothing left after filtering.
        VocabularyError: the text allows no vocabulary of this size.
        StoreError: the folder cannot be written, or holds other things.
    """
    clear_leftovers(Path(folder).absolute().parent)
    check_free(folder)
    made_from = recipe(config)
    valid_limits = Limits(config.data.max_length, target_eos=config.objective.target_eos)
    train_limits = dataclasses.replace(
        valid_limits,
        max_ratio=config.data.max_ratio,
        frames_ratio=made_from.get("frames_ratio"),
        minimum_score=made_from.get("data.minimum_score"),
    )
    train, valid = read_corpus(config)
    low_scores = FilterReport(train_limits)
    if train_limits.minimum_score is not None:
        scores = read_scores(corpus_files(config)["train_scores"], len(train[0]))
        train, low_scores = drop_low_scores(train, scores, train_limits)
    train, valid = [tuple([normalise(line) for line in side] for side in text) for text in (train, valid)]
    parts = (("train", train, low_scores), ("valid", valid, FilterReport(valid_limits)))
    for split, text, dropped in parts:
        if not any(source and target for source, target in zip(*text)):
            empty = FilterReport(dropped.limits, total=len(text[0]), empty=len(text[0]))
            raise _nothing_left(split, dropped + empty)
    vocabularies = given_vocabularies(config) if config.vocab.path else train_vocabularies(train, config)
    sizes = " and ".join(f"{len(vocabulary):,}" for vocabulary in vocabularies.files().values())
    report(f"vocabulary: {sizes} pieces ({config.vocab.path or config.vocab.algorithm})")
    splits, filters = {}, {}
    for split, text, dropped in parts:
        splits[split], counts = _encode(text, vocabularies, dropped)
        report(f"{split}: {counts.describe()}")
        if counts.kept == 0:
            raise _nothing_left(split, counts)
        filters[split] = {**counts.counts(), "description": counts.describe()}
    about = {"recipe": made_from, "text_bytes": _text_bytes(config), "filters": filters}
    write_store(folder, splits, about, vocabularies)
    report(f"store: {folder}")


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


def open_prepared(config: Config, folder: str | Path) -> tuple[Store, Vocabularies]:
    """Opens what `prepare` made for this config.

    Raises:
        StoreError: missing or damaged, made by another recipe (every differing field is listed), or from text that
            has changed since.
        VocabularyError: the vocabulary beside the store is missing or damaged.
    """
    store = open_store(folder)
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


def read_corpus(config: Config) -> tuple[Text, Text]:
    """The raw text of the training and the validation split: (sources, targets) each.

    Raises:
        DataError: missing or unusable text; the line ends with `data.obtain` where the config gives it.
    """
    data = config.data
    if data.embedded != "none":
        return (
            _embedded(data.embedded, "train", EMBEDDED_PAIRS[data.embedded]),
            _embedded(data.embedded, "valid", EMBEDDED_VALID_PAIRS),
        )
    files = corpus_files(config)
    return (
        read_parallel(files["train_source"], files["train_target"]),
        read_parallel(files["valid_source"], files["valid_target"]),
    )


def _text_bytes(config: Config) -> dict[str, int]:
    if config.data.embedded != "none":
        return {}
    return {name: file.stat().st_size for name, file in corpus_files(config).items()}


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
    """One vocabulary for both sides, or one each, from normalised text. Raises VocabularyError."""
    # Pairs with an empty side are dropped. The other filters count pieces, so they come after the vocabulary.
    sides = list(zip(*((source, target) for source, target in zip(*text) if source and target)))
    # Seed 0, not training.seed: runs that differ only in their seed share one store.
    if config.vocab.joint:
        joint = Vocabulary.train(chain(*sides), config.vocab, seed=0)
        return Vocabularies(joint, joint)
    return Vocabularies(*(Vocabulary.train(iter(side), config.vocab, seed=0) for side in sides))


def _embedded(difficulty: str, split: str, count: int) -> Text:
    examples = grammar.generate(difficulty, split, count, seed=0)
    return [example.source for example in examples], [example.target for example in examples]


def _encode(text: Text, vocabularies: Vocabularies, dropped: FilterReport) -> tuple[tuple[list, list], FilterReport]:
    """Pieces of the pairs that `dropped.limits` allow, eos added where it belongs; the counts, `dropped` among them."""
    sources, targets, total, limits = [], [], dropped, dropped.limits
    for source_lines, target_lines in _chunks(text):
        source_ids = vocabularies.source.encode(source_lines)
        target_ids = vocabularies.target.encode(target_lines)
        kept, counts = keep_pairs(source_ids, target_ids, limits)
        total += counts
        sources += [np.array([*source_ids[i], EOS], np.uint32) for i in kept]
        targets += [np.array(target_ids[i] + [EOS] * limits.target_eos, np.uint32) for i in kept]
    return (sources, targets), total


def _chunks(text: Text) -> Iterator[Text]:
    source, target = text
    for start in range(0, len(source), _CHUNK):
        yield source[start : start + _CHUNK], target[start : start + _CHUNK]


def _nothing_left(split: str, counts: FilterReport) -> DataError:
    scores = ", data.minimum_score" if counts.low_score else ""
    return DataError(f"the {split} corpus is empty after filtering: {counts.describe()}; "
                     f"check the files, data.max_length{scores} and data.max_ratio")  # fmt: skip
