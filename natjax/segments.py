"""Lines as the parts that are translated in one piece, and their translations as those of lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from natjax.data.corpus import normalise
from natjax.data.vocab import Vocabulary
from natjax.typing import EOS

OnCut = Callable[[int, int], None]


@dataclass(frozen=True)
class Translation:
    """One translated line.

    Attributes:
        text: the translation.
        tokens: its pieces.
        frames: the piece of each decoder frame, "" for blank; several segments follow one another. Only the argmax of a
            single pass has frames, else these are the pieces.
        score: log-probability of the translation, nats, added up over segments: of an argmax, that of the frames' best
            tokens; in noisy parallel decoding, the teacher's.
        seconds: time of the line's batch divided by the batch's sentences; compiling a new shape counts, too, see
            `Translator.warm_up`.
        segments: 1, or into how many parts an over-long line was cut.
        n_best: the texts of all hypotheses, best first; greedy decoding gives its one. Of several segments, the
            first alternatives are joined, then the second ones, and so on.
        n_best_scores: what they are ranked by: of an autoregressive model, greedy or beam, the log-probability divided
            by length^length_penalty, eos counted; of a search over CTC's frames, the sum with language model and bonus;
            of an argmax, the mean by frame; in noisy parallel decoding, the teacher's mean by token. Of several
            segments, sums and lengths are added up before they are divided, so that a line that was cut has a score
            like any other; only there a later alternative may have a better one.
        n_best_ctc_scores: for CTC's beam, the log-probabilities that the model gives them; else empty. As the next one
            in nats, and added up over segments.
        n_best_lm_scores: those that the language model gives them; empty without one.
    """

    text: str
    tokens: list[str]
    frames: list[str]
    score: float
    seconds: float
    segments: int
    n_best: list[str]
    n_best_scores: list[float]
    n_best_ctc_scores: list[float]
    n_best_lm_scores: list[float]


class Hypothesis(NamedTuple):
    """One translation of a segment, ranked by sum / length^length_penalty.

    All but tokens add up over the segments of a line.

    Attributes:
        tokens: its pieces.
        sum: its log-probability, nats; of a search over CTC's frames, with language model and bonus.
        length: of what that is a sum: tokens, eos included, or for an argmax frames.
        ctc_score: of a search over CTC's frames, what the model alone gives; else None.
        lm_score: what a language model gives; None without one.
    """

    tokens: list[int]
    sum: float
    length: int
    ctc_score: float | None = None
    lm_score: float | None = None


class Segment(NamedTuple):
    """What came of a segment; the attributes are those of `Translation`, pieces as ids; hypotheses best first."""

    tokens: list[int]
    frames: list[int]
    score: float
    seconds: float
    hypotheses: list[Hypothesis]


class Segments(NamedTuple):
    """Lines as what is translated in one piece: source ids with eos, the text, and the line that each belongs to."""

    sources: list[list[int]]
    texts: list[str]
    owners: list[int]
    lines: int

    def by_line(self, results: list[Any]) -> list[list[Any]]:
        """What came of each segment, as lists by line."""
        found: list[list[Any]] = [[] for _ in range(self.lines)]
        for line, result in zip(self.owners, results, strict=True):
            found[line].append(result)
        return found


def segments(lines: Sequence[str], vocabulary: Vocabulary, limit: int, on_cut: OnCut | None = None) -> Segments:
    """Cuts lines of more than `limit` pieces, eos included.

    Args:
        lines: raw text; an empty one has no segment.
        vocabulary: of the source.
        limit: pieces of a segment.
        on_cut: told the place of each line that is cut, and its number of segments.

    Raises:
        TypeError: `lines` is a single string.
    """
    if isinstance(lines, str | bytes):
        raise TypeError("lines is a single string, which would be translated letter by letter; give a list: [line]")
    whole = [normalise(line) for line in lines]
    sources, texts, owners = [], [], []
    for line, ids in enumerate(vocabulary.encode(whole)):
        room = limit - 1  # and eos
        parts = cut(ids, vocabulary.pieces(ids), room) if len(ids) > room else [ids] if ids else []
        sources += [[*part, EOS] for part in parts]
        texts += [whole[line]] if len(parts) == 1 else _texts(whole[line], parts, vocabulary)
        owners += [line] * len(parts)
        if on_cut and len(parts) > 1:
            on_cut(line, len(parts))
    return Segments(sources, texts, owners, len(whole))


def _texts(line: str, parts: list[list[int]], vocabulary: Vocabulary) -> list[str]:
    """The text of each part of a line, with the characters that the vocabulary does not know."""
    rest = iter(vocabulary.surfaces(line))
    return ["".join(islice(rest, len(part))).strip() for part in parts]


def cut(ids: list[int], pieces: list[str], limit: int) -> list[list[int]]:
    """Parts of at most `limit` pieces: after a sentence's end if one lies in the second half, else between words."""
    parts = []
    while len(ids) > limit:
        words = [i for i in range(1, limit + 1) if pieces[i].startswith("▁")]
        ends = [i for i in words if i > limit // 2 and pieces[i - 1].endswith((".", "!", "?", "。"))]
        at = ends[-1] if ends else words[-1] if words else limit
        parts.append(ids[:at])
        ids, pieces = ids[at:], pieces[at:]
    return [*parts, ids]


def translation(parts: list[Segment], vocabulary: Vocabulary, length_penalty: float) -> Translation:
    """The translation of a line from those of its segments; see `Hypothesis` about `length_penalty`."""
    # One entry for each rank that all segments have; a line without any has its one empty text.
    ranks = list(zip(*(p.hypotheses for p in parts), strict=False)) or [()]
    return Translation(
        text=joined(vocabulary.decode([p.tokens for p in parts])),
        tokens=[piece for p in parts for piece in vocabulary.pieces(p.tokens)],
        frames=[piece if f else "" for p in parts for f, piece in zip(p.frames, vocabulary.pieces(p.frames))],
        score=sum(p.score for p in parts),
        seconds=sum(p.seconds for p in parts),
        segments=len(parts),
        n_best=[joined(vocabulary.decode([h.tokens for h in rank])) for rank in ranks],
        n_best_scores=[_score(rank, length_penalty) for rank in ranks],
        n_best_ctc_scores=_summed([[h.ctc_score for h in rank] for rank in ranks]),
        n_best_lm_scores=_summed([[h.lm_score for h in rank] for rank in ranks]),
    )


def _score(rank: Sequence[Hypothesis], length_penalty: float) -> float:
    return sum(h.sum for h in rank) / max(1, sum(h.length for h in rank)) ** length_penalty


def _summed(ranks: list[list[float | None]]) -> list[float]:
    """The sum of each, or nothing where some have none."""
    return [sum(rank) for rank in ranks if rank and None not in rank]


def joined(texts: list[str]) -> str:
    """The texts of segments as that of their line."""
    return " ".join(filter(None, texts))
