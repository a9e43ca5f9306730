"""ARPA files, read and written. Logarithms are natural here and to base 10 in the file.

Fields are parted by tabs and words by single spaces, and at nothing else: pieces may hold U+00A0 or U+3000.
"""

import gzip
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from natjax.atomic import new_file
from natjax.errors import LanguageModelError
from natjax.lm.arpa_file import Lines
from natjax.lm.model import Level, NgramModel
from natjax.typing import BOS, EOS, PAD, UNK

SPECIAL = {"<s>": BOS, "</s>": EOS, "<unk>": UNK}
LN10 = math.log(10)
MISSING_UNKNOWN = -100.0
"""Log10 probability of unknown pieces where the file has no <unk>, as KenLM's."""
_BLOCK = 50_000  # lines


def write_arpa(path: str | Path, model: NgramModel, pieces: Sequence[str]) -> None:
    """Writes a model, whole or not at all; a name that ends in .gz is compressed.

    Nine digits are kept, so that reading it gives the same float32 numbers.

    Args:
        path: the file.
        model: what to write.
        pieces: the text of each id below V; the special ones are written as <s>, </s>, <unk>.

    Raises:
        LanguageModelError: the file cannot be written, or a piece cannot stand in an ARPA file.
    """
    words = list(pieces)
    for word, token in SPECIAL.items():
        words[token] = word
    for token in np.flatnonzero(model.listed):
        word = words[token]
        if not word or set(word) & set(" \t\r\n") or (word in SPECIAL and SPECIAL[word] != token):
            raise LanguageModelError(f"{path}: the piece {word!r} cannot stand in an ARPA file")
    with new_file(path, LanguageModelError) as temporary:
        opener = gzip.open if Path(path).suffix == ".gz" else open
        with opener(temporary, "wt", encoding="utf-8", newline="\n") as file:
            counts = "".join(f"ngram {n}={count}\n" for n, count in enumerate(model.counts, 1))
            file.write(f"\\data\\\n{counts}")
            _write_sections(file, model, words)
            file.write("\n\\end\\\n")


def _write_sections(file: TextIO, model: NgramModel, words: list[str]) -> None:
    """The n-grams of all orders, of which the texts of a block exist at a time."""
    sections = [(model.log_probs, model.backoffs), *(level[1:] for level in model.levels)]
    for n, (log_probs, backoffs) in enumerate(sections, 1):
        file.write(f"\n\\{n}-grams:\n")
        numbers = np.flatnonzero(model.listed) if n == 1 else np.arange(len(log_probs))
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK]
            texts = [" ".join(map(words.__getitem__, row)) for row in _tokens(model, n, block).tolist()]
            probs, weights = ((x[block].astype(np.float64) / LN10).tolist() for x in (log_probs, backoffs))
            if n == len(sections):
                file.writelines(f"{p:.9g}\t{text}\n" for p, text in zip(probs, texts, strict=True))
            else:
                lines = zip(probs, texts, weights, strict=True)
                file.writelines(f"{p:.9g}\t{text}\t{b:.9g}\n" for p, text, b in lines)


def _tokens(model: NgramModel, order: int, numbers: np.ndarray) -> np.ndarray:
    """i64[rows, order], the tokens of n-grams, given by their numbers among those of their order."""
    columns = []
    for level in reversed(model.levels[: order - 1]):
        numbers, token = np.divmod(level.keys[numbers], model.vocabulary_size)
        columns.append(token)
    return np.stack([numbers, *reversed(columns)], axis=1)


def read_arpa(
    path: str | Path, pieces: Sequence[str], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> NgramModel:
    """Reads a model over the pieces of a vocabulary; gzip too.

    Args:
        path: the file.
        pieces: the text of each id below V.
        progress: called with (n-grams read, n-grams in all) after each order.

    Raises:
        LanguageModelError: with the line's number: malformed, truncated, a positive log-probability, a word that is
            no piece, counts that do not agree, an n-gram twice or without its context; or a KenLM binary, or a file
            that cannot be read.
    """
    ids = {"<UNK>": UNK} | {piece: token for token, piece in enumerate(pieces) if token > UNK} | SPECIAL
    with Lines(path) as lines:
        counts = _read_counts(lines)
        model = NgramModel(np.zeros(len(pieces), bool), *np.zeros((2, len(pieces)), np.float32), ())
        for n, expected in enumerate(counts, 1):
            section = _read_section(lines, n, len(counts), expected, ids)
            progress(sum(counts[:n]), sum(counts))
            model = _unigrams(lines, model, *section) if n == 1 else _longer(lines, model, *section)
        lines.expect("\\end\\")
    return model


def _read_counts(lines: Lines) -> list[int]:
    r"""The \data\ section."""
    lines.expect("\\data\\", first=True)
    counts: list[int] = []
    while (line := lines.next()).startswith("ngram "):
        order, equals, count = line.removeprefix("ngram ").partition("=")
        if not (equals and order.strip().isdecimal() and count.strip().isdecimal()):
            raise lines.error(f"{line[:40]!r} is not a count; expected `ngram {len(counts) + 1}=NUMBER`")
        if int(order) != len(counts) + 1:
            raise lines.error(f"the count of order {int(order)} where that of {len(counts) + 1} belongs")
        counts.append(int(count))
    lines.back()
    if not counts:
        raise lines.error(f"{line[:40]!r} where `ngram 1=NUMBER` belongs")
    return counts


def _read_section(
    lines: Lines, n: int, order: int, expected: int, ids: dict[str, int]
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(number of the first line, tokens i64[count, n], log-probabilities and back-offs f32[count])."""
    lines.expect(f"\\{n}-grams:")
    first, parts, done = lines.number + 1, [], 0
    while done < expected:
        block = lines.block(min(_BLOCK, expected - done))
        start, done = first + done, done + len(block)
        parts.append(_parse(lines, start, block, n, n == order, ids))
    following = lines.next()
    lines.back()
    if not following.startswith("\\"):
        raise lines.error(f"more {n}-grams than the {expected:,} of `ngram {n}={expected}` in its \\data\\ section")
    if not parts:
        return first, np.zeros((0, n), np.int64), *np.zeros((2, 0), np.float32)
    return first, *(np.concatenate(column) for column in zip(*parts, strict=True))


def _parse(
    lines: Lines, start: int, block: list[str], n: int, highest: bool, ids: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n-grams of a block of lines. Whatever goes wrong is looked for line by line, to tell where."""
    rows = [line.replace("\t", " ").split(" ") for line in block]
    try:
        if any(len(row) - 1 - n not in (0, 1 - highest) for row in rows):
            raise ValueError
        tokens = np.fromiter(map(ids.__getitem__, chain.from_iterable(row[1 : n + 1] for row in rows)), np.int64)
        log_probs = np.array([float(row[0]) for row in rows])
        backoffs = np.array([float(row[n + 1]) if len(row) > n + 1 else 0.0 for row in rows])
        if not (log_probs <= 0).all() or not np.isfinite(backoffs).all() or np.isinf(log_probs).any():
            raise ValueError
    except (KeyError, ValueError):
        for number, (line, row) in enumerate(zip(block, rows, strict=True), start):
            if fault := _fault(line, row, n, highest, ids):
                raise lines.error(fault, number) from None
        raise
    scale = np.float64(LN10)
    return tokens.reshape(-1, n), (log_probs * scale).astype(np.float32), (backoffs * scale).astype(np.float32)


def _fault(line: str, row: list[str], n: int, highest: bool, ids: dict[str, int]) -> str | None:
    """What is wrong with a line of an n-gram section, if anything."""
    if not line or line.startswith("\\"):
        return f"the {n}-grams end here, but \\data\\ has announced more; the file is damaged, write it again"
    if len(row) - 1 - n not in (0, 1 - highest):
        weight = "" if highest else ", perhaps a back-off weight"
        return f"{line[:60]!r} is no {n}-gram; expected a log-probability, {n} piece{'s'[: n > 1]}{weight}"
    try:
        log_prob, backoff = float(row[0]), float(row[n + 1]) if len(row) > n + 1 else 0.0
    except ValueError:
        return f"{line[:60]!r} holds no number where one belongs"
    if not math.isfinite(log_prob) or not math.isfinite(backoff):
        return f"{line[:60]!r} holds a number that is not finite"
    if log_prob > 0:
        return f"the log-probability {row[0]} is positive; these are logarithms to base 10, at most 0"
    for word in row[1 : n + 1]:
        if word not in ids:
            return (
                f"{word!r} is no piece of the model's vocabulary; estimate on text in the model's own pieces, "
                "as `natjax lm train` does"
            )
    return None


def _unigrams(
    lines: Lines, model: NgramModel, first: int, tokens: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray
) -> NgramModel:
    tokens = tokens[:, 0]
    _, places = np.unique(tokens, return_index=True)
    if len(places) < len(tokens):
        twice = np.setdiff1d(np.arange(len(tokens)), places)[0]
        raise lines.error("this piece stands in the file twice", first + int(twice))
    model.listed[tokens], model.log_probs[tokens], model.backoffs[tokens] = True, log_probs, backoffs
    for word in ("<s>", "</s>"):
        if not model.listed[SPECIAL[word]]:
            last = first + len(tokens) - 1
            raise lines.error(f"no {word} among the 1-grams; estimate on sentences with their ends", last)
    model.log_probs[BOS] = 0.0  # never predicted: some programs write -99
    if not model.listed[UNK]:
        model.listed[UNK], model.log_probs[UNK] = True, MISSING_UNKNOWN * LN10
    assert not model.listed[PAD]
    return model


def _longer(
    lines: Lines, model: NgramModel, first: int, tokens: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray
) -> NgramModel:
    """The model with one more level."""
    n = tokens.shape[1]
    context = np.where(model.listed[tokens[:, 0]], tokens[:, 0], -1)
    for order in range(2, n):
        context = model.find(order, context, tokens[:, order - 1])
    if (lost := np.flatnonzero((context < 0) | ~model.listed[tokens[:, -1]])).size:
        message = "its context (all but the last piece), or its last piece, is no n-gram of the file; write it again"
        raise lines.error(message, first + int(lost[0]))
    keys = context * model.vocabulary_size + tokens[:, -1]
    places = np.argsort(keys, kind="stable")
    keys = keys[places]
    if (same := np.flatnonzero(keys[1:] == keys[:-1])).size:
        raise lines.error(f"this {n}-gram stands in the file twice", first + int(places[same + 1].min()))
    level = Level(keys, log_probs[places], backoffs[places])
    return model._replace(levels=(*model.levels, level))
