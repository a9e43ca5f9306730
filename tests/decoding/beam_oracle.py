"""Beam search as plain Python over lists, one sentence at a time, and enumeration of all translations.

Written from the rules, not from the code: a model is a function from a prefix (a tuple of ids) to V logits.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

PAD, BOS, EOS = 0, 1, 2


class Found(NamedTuple):
    tokens: list
    score: float
    log_prob: float


class Closeness:
    """The smallest difference between two values that were compared, equal ones apart that come from equal terms."""

    def __init__(self):
        self.smallest = math.inf

    def sort(self, items, value, terms):
        """Best first, stable."""
        ordered = sorted(items, key=lambda item: -round(value(item), 9))
        for one, two in itertools.pairwise(ordered):
            if value(one) - value(two) > 1e-9 or terms(one) != terms(two):
                self.smallest = min(self.smallest, abs(value(one) - value(two)))
        return ordered


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    peak = logits.max()
    return logits - peak - math.log(np.exp(logits - peak).sum())


def normalised(log_prob, tokens, ended, penalty):
    return log_prob / (len(tokens) + ended) ** penalty


def search(
    model,
    W,
    limit,
    *,
    penalty=1.0,
    prefix=(),
    forced_eos=True,
    keep_best=False,
    closeness=None,
):
    """Up to W hypotheses, best first, and the number of steps.

    At the limit hypotheses end with an eos, probable or not, or else as they are (forced_eos). Of more than W finished
    ones the best are kept, or else the first (keep_best).
    """
    closeness = closeness or Closeness()
    active = [((), 0.0, ())]  # tokens, log-probability, its terms
    finished = []
    for step in range(limit):
        last = step == limit - 1
        continuations = []
        for tokens, log_prob, terms in active:
            each = log_softmax(model(tokens))
            allowed = [v for v in range(len(each)) if v not in (PAD, BOS) and (v != EOS or step > 0)]
            if step < len(prefix):
                allowed = [prefix[step]]
            if last and forced_eos:
                allowed = [EOS]
            # Terms are the same only if they come from the same logits: others may be equal but for their rounding.
            logits = tuple(np.asarray(model(tokens)))
            here = [(tokens, v, log_prob + each[v], (*terms, (logits, logits[v]))) for v in allowed]
            continuations += closeness.sort(here, lambda c: c[2], lambda c: c[3])
        best = closeness.sort(continuations, lambda c: c[2], lambda c: c[3])[: 2 * W]
        for tokens, token, log_prob, terms in best[:W]:
            ended = token == EOS
            if ended or last:
                text = list(tokens) if ended else [*tokens, token]
                found = Found(text, normalised(log_prob, text, ended, penalty), log_prob)
                finished.append((found, terms))
        if keep_best:
            finished = closeness.sort(finished, lambda f: f[0].score, lambda f: f[1])
        finished = finished[:W]
        active = [((*tokens, token), lp, terms) for tokens, token, lp, terms in best if token != EOS][:W]
        if len(finished) == W or not active:
            break
    ordered = closeness.sort(finished, lambda f: f[0].score, lambda f: f[1])
    return [found for found, _ in ordered], step + 1


def greedy(model, limit):
    """The best token, again and again: (tokens, log-probability)."""
    tokens, total = (), 0.0
    for step in range(limit):
        each = log_softmax(model(tokens))
        allowed = [v for v in range(len(each)) if v not in (PAD, BOS) and (v != EOS or step > 0)]
        token = EOS if step == limit - 1 else max(allowed, key=lambda v: (round(each[v], 9), -v))
        total += each[token]
        if token == EOS:
            break
        tokens = (*tokens, token)
    return list(tokens), total


def everything(model, limit, *, penalty=1.0):
    """All translations of at most `limit` steps, best first."""
    found = []

    def grow(tokens, log_prob):
        each = log_softmax(model(tokens))
        if tokens or limit == 1:
            total = log_prob + each[EOS]
            found.append(Found(list(tokens), total / (len(tokens) + 1) ** penalty, total))
        if len(tokens) < limit - 1:
            for token in range(EOS + 1, len(each)):
                grow((*tokens, token), log_prob + each[token])

    grow((), 0.0)
    return sorted(found, key=lambda f: -f.score)
