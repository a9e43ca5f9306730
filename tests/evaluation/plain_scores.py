"""BLEU and chrF2++ written down from the papers' formulas, slow and plain: the oracle of the tests beside it."""

import math
from collections import Counter


def ngrams(sequence, order):
    return Counter(tuple(sequence[i : i + order]) for i in range(len(sequence) - order + 1))


def corpus_bleu(hypotheses, references):
    """Papineni et al. (2002) on white-space tokens, unsmoothed: (BLEU in percent, brevity penalty, length ratio)."""
    matched, proposed = Counter(), Counter()
    hypothesis_length = reference_length = 0
    for hypothesis, some in zip(hypotheses, references, strict=True):
        words, lists = hypothesis.split(), [reference.split() for reference in some]
        hypothesis_length += len(words)
        reference_length += min((abs(len(r) - len(words)), len(r)) for r in lists)[1]
        for order in (1, 2, 3, 4):
            counts = ngrams(words, order)
            proposed[order] += sum(counts.values())
            for ngram, count in counts.items():
                matched[order] += min(count, max(ngrams(r, order)[ngram] for r in lists))
    if hypothesis_length >= reference_length:
        penalty = 1.0
    else:
        penalty = math.exp(1 - reference_length / hypothesis_length) if hypothesis_length else 0.0
    ratio = hypothesis_length / reference_length if reference_length else 0.0
    if any(matched[order] == 0 for order in (1, 2, 3, 4)):
        return 0.0, penalty, ratio
    return 100 * penalty * math.prod(matched[n] / proposed[n] for n in (1, 2, 3, 4)) ** 0.25, penalty, ratio


def corpus_chrf(hypotheses, references):
    """chrF2++ (Popović, 2017) of text without punctuation: F2 of mean precision and mean recall over the orders."""
    totals = [[0, 0, 0] for _ in range(8)]
    for hypothesis, some in zip(hypotheses, references, strict=True):
        candidates = [_counts(hypothesis, reference) for reference in some]
        for total, best in zip(totals, max(candidates, key=_f2), strict=True):
            for place in range(3):
                total[place] += best[place]
    return 100 * _f2(totals)


def _counts(hypothesis, reference):
    """Per order: n-grams of the hypothesis, of the reference, and common to both."""
    rows = []
    for view, orders in ((lambda text: "".join(text.split()), range(1, 7)), (str.split, range(1, 3))):
        for order in orders:
            ours, theirs = ngrams(view(hypothesis), order), ngrams(view(reference), order)
            rows.append((ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()))
    return rows


def _f2(rows):
    used = [(ours, theirs, common) for ours, theirs, common in rows if ours and theirs]
    if not used:
        return 0.0
    precision = sum(common / ours for ours, _, common in used) / len(used)
    recall = sum(common / theirs for _, theirs, common in used) / len(used)
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0
