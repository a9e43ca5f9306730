"""Scores of a corpus: BLEU under a named tokenization, chrF2++, lengths and repetitions. sacreBLEU counts.

BLEU alone moves by points with the tokenization, so every score carries its label and its signature:

    tokenize   tokens of BLEU                              smoothing   comparable with
    13a        sacreBLEU's default, on plain text          exp         published sacreBLEU
    none       the text's own, split at white space        none        multi-bleu.perl on the same tokens
    moses      Moses tokenizer for the language            none        multi-bleu.perl on Moses tokens
    others     sacreBLEU's tokenizer of that name          exp         sacreBLEU with the same option

`compound_split` then breaks words at inner hyphens (`split_compounds`), hypotheses and references alike. It raises
BLEU, and part of the literature on WMT14 English-German reports it; compare such scores with each other only.
chrF2++ has words of its own: it always sees the text as given. No text is normalised before scoring.
"""

import math
import re
import runpy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise, zip_longest
from numbers import Real
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from natjax.errors import DataError, UserError, one_line

TOKENIZERS = ("13a", "none", "moses", "intl", "zh", "ja-mecab", "ko-mecab", "char")
"""Choices of `tokenize`. sacreBLEU's others download a model when first used, so they are left out."""

MetricPlugin = Callable[[Sequence[str], Sequence[str], Sequence[Sequence[str]]], dict[str, float]]


@dataclass(frozen=True)
class Scores:
    """Scores of one corpus; BLEU and chrF lie in [0, 100].

    Attributes:
        sentences: number of sentences.
        bleu: corpus BLEU (Papineni et al., 2002), n-grams up to 4.
        bleu_signature: sacreBLEU's signature; its `tok` is the tokenization in full.
        chrf: chrF2++ (Popović, 2017): characters up to 6, words up to 2, β = 2.
        chrf_signature: sacreBLEU's signature.
        bp: brevity penalty of BLEU, in [0, 1].
        length_ratio: hypothesis tokens ÷ reference tokens (of the closest reference), as BLEU counts them.
        repetition_rate: percentage of hypothesis words that equal their predecessor.
        tokenize: label of the tokenization, `13a` or `none+compound-split` for example.
    """

    sentences: int
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    bp: float
    length_ratio: float
    repetition_rate: float
    tokenize: str

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def score(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    compound_split: bool = False,
    language: str = "de",
) -> Scores:
    """Scores a corpus.

    Args:
        hypotheses: one translation a sentence.
        references: `references[i]` lists the references of sentence i, at least one; their number may differ.
        tokenize: one of `TOKENIZERS`; see the table above.
        compound_split: break words at inner hyphens, on both sides.
        language: code of the target language, for `moses`.

    Raises:
        DataError: nothing to score, unequal numbers of sentences, or a sentence without reference.
        UserError: an unknown tokenization, or one whose package is not installed.
    """
    streams = reference_streams(hypotheses, references)
    bleu = bleu_metric(tokenize, compound_split=compound_split, language=language)
    chrf = chrf_metric()
    bleu_score = bleu.corpus_score(hypotheses, streams)
    chrf_score = chrf.corpus_score(hypotheses, streams)
    return Scores(
        sentences=len(hypotheses),
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
        bp=bleu_score.bp,
        length_ratio=float(bleu_score.ratio),
        repetition_rate=repetition_rate(hypotheses),
        tokenize=tokenize + "+compound-split" * compound_split,
    )


def bleu_metric(tokenize: str = "13a", *, compound_split: bool = False, language: str = "de") -> BLEU:
    """sacreBLEU's BLEU with one of the tokenizations above built in, its signature included.

    Raises:
        UserError: an unknown tokenization, or one whose package is not installed.
    """
    if tokenize not in TOKENIZERS:
        raise UserError(f"unknown tokenization {tokenize!r}; choose one of {', '.join(TOKENIZERS)}")
    if tokenize in ("none", "moses"):
        metric = BLEU(tokenize="none", smooth_method="none", force=True)
    else:
        try:
            metric = BLEU(tokenize=tokenize)
        except RuntimeError:  # how sacreBLEU reports that MeCab is missing
            raise UserError(f"tokenization {tokenize} needs MeCab; install sacrebleu[{tokenize[:2]}]") from None
    if tokenize == "moses":
        metric.tokenizer = _moses_tokenizer(language)
        metric.tokenizer_signature = f"moses-{language}-{version('sacremoses')}"
    if compound_split:
        words = metric.tokenizer
        metric.tokenizer = lambda line: split_compounds(words(line))
        metric.tokenizer_signature += "+compound-split"
    return metric


def chrf_metric() -> CHRF:
    """sacreBLEU's chrF2++."""
    return CHRF(word_order=2)


def reference_streams(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[tuple[str | None, ...]]:
    """Turns references by sentence into sacreBLEU's streams; None where a sentence has fewer than the most.

    Raises:
        DataError: nothing to score, unequal numbers of sentences, or a sentence without reference.
    """
    if not hypotheses:
        raise DataError("no sentences to score; give at least one translation and its reference")
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} translations but references of {len(references)} sentences; align them")
    for number, some in enumerate(references, 1):
        if isinstance(some, str):
            raise TypeError("references[i] is the list of references of sentence i, not a string")
        if not some:
            raise DataError(f"sentence {number} has no reference; give one or leave the sentence out")
    return list(zip_longest(*references))


def split_compounds(line: str) -> str:
    """Makes three tokens of a word with an inner hyphen, the convention of much WMT14 English-German literature.

    >>> split_compounds("die Vier-Sterne-Hotels - alle")
    'die Vier ##AT##-##AT## Sterne ##AT##-##AT## Hotels - alle'
    """
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", line)


def repetition_rate(hypotheses: Sequence[str]) -> float:
    """Percentage of white-space words that equal the word before them in their sentence; 0 where there are no words.

    >>> repetition_rate(["der der Hund", "bellt"])
    25.0
    """
    sentences = [hypothesis.split() for hypothesis in hypotheses]
    repeated = sum(word == before for words in sentences for before, word in pairwise(words))
    return 100.0 * repeated / max(1, sum(map(len, sentences)))


def load_metric_plugin(path: str | Path) -> MetricPlugin:
    """Loads a metric of the user's, such as COMET on a local checkpoint.

    Args:
        path: a Python file with `score(sources, hypotheses, references) -> dict[str, float]`, where `references[i]`
            lists the references of sentence i. It runs with all rights of the caller.

    Returns:
        That function; it checks the result, and raises UserError when the plugin fails or returns anything else.

    Raises:
        UserError: no such file, the file fails, or it has no function `score`.
    """
    if not Path(path).is_file():
        raise UserError(
            f"{path}: no such metric plugin; give a Python file with score(sources, hypotheses, references)"
        )
    try:
        function = runpy.run_path(str(path)).get("score")
    except (Exception, SystemExit) as error:  # a plugin is the user's program: whatever ends it is theirs to mend
        raise UserError(f"{path}: failed with {_describe(error)}") from error
    if not callable(function):
        raise UserError(f"{path}: has no function score(sources, hypotheses, references); define it")

    def checked(
        sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        try:
            result = function(sources, hypotheses, references)
        except (Exception, SystemExit) as error:
            raise UserError(f"{path}: score() failed with {_describe(error)}") from error
        if not isinstance(result, dict) or not all(
            isinstance(name, str) and isinstance(value, Real) and math.isfinite(value) for name, value in result.items()
        ):
            raise UserError(
                f"{path}: score() must return a dict of names and finite numbers, not {one_line(repr(result))[:200]}"
            )
        return {name: float(value) for name, value in result.items()}

    return checked


def _moses_tokenizer(language: str) -> Callable[[str], str]:
    try:
        from sacremoses import MosesTokenizer
        from sacremoses.corpus import NonbreakingPrefixes
    except ImportError:
        raise UserError("tokenization moses needs sacremoses; install natjax[data]") from None
    known = sorted(set(NonbreakingPrefixes().available_langs.values()))
    if language not in known:  # sacremoses would take the rules of English
        raise UserError(f"--language {language}: Moses has no rules for it; choose {', '.join(known)}")
    tokenizer = MosesTokenizer(lang=language)
    return lambda line: tokenizer.tokenize(line, aggressive_dash_splits=False, escape=False, return_str=True)


def _describe(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:200]
