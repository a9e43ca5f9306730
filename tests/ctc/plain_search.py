"""Prefix search written down from its definition, with dictionaries; and the sum over all alignments."""

import itertools
import math

import numpy as np


def log_add(*values):
    most = max(values)
    return most if most == -math.inf else most + math.log(sum(math.exp(v - most) for v in values))


def bonus(length, beta, form):
    return beta * (math.log(max(length, 1)) if form == "log" else length)


def every_alignment(log_probs, blank=0):
    """{tokens: log-probability} of all sequences, summed over all V^T paths; log_probs f64[T, V]."""
    T, V = log_probs.shape
    masses = {}
    for path in itertools.product(range(V), repeat=T):
        tokens = tuple(token for i, token in enumerate(path) if token != blank and (i == 0 or path[i - 1] != token))
        masses.setdefault(tokens, []).append(sum(log_probs[t, token] for t, token in enumerate(path)))
    return {tokens: log_add(*values) for tokens, values in masses.items()}


def lm_score(table, tokens, eos=None):
    """Σ log p(token | token before), a bigram table f64[V, V], 1 before the first."""
    before = [1, *tokens]
    after = [*tokens, *([eos] if eos is not None else [])]
    return sum(table[a, b] for a, b in zip(before, after, strict=False))


def ranked(masses, *, alpha=0.0, beta=0.0, form="linear", table=None, eos=None):
    """[(score, tokens, ctc, lm)], best first."""
    found = []
    for tokens, mass in masses.items():
        lm = 0.0 if table is None else lm_score(table, tokens, eos)
        found.append((mass + alpha * lm + bonus(len(tokens), beta, form), tokens, mass, lm))
    return sorted(found, key=lambda one: -one[0])


def prefix_search(tokens_TK, log_probs_TK, blank_T, *, beam, alpha=0.0, beta=0.0, form="linear", table=None, eos=None):
    """As `ranked`, of the prefixes that a beam of so many keeps. Masses: (ends in blank, ends in its last token)."""
    prefixes = {(): (0.0, -math.inf)}
    for tokens, log_probs, blank in zip(tokens_TK.tolist(), log_probs_TK.tolist(), blank_T.tolist(), strict=True):
        following = {}

        def give(prefix, place, mass, following=following):
            pair = following.setdefault(prefix, [-math.inf, -math.inf])
            pair[place] = log_add(pair[place], mass)

        for prefix, (ends_blank, ends_token) in prefixes.items():
            both = log_add(ends_blank, ends_token)
            give(prefix, 0, both + blank)
            for token, log_prob in zip(tokens, log_probs, strict=True):
                if prefix and prefix[-1] == token:
                    give(prefix, 1, ends_token + log_prob)
                    give((*prefix, token), 1, ends_blank + log_prob)
                else:
                    give((*prefix, token), 1, both + log_prob)
        masses = {prefix: log_add(*pair) for prefix, pair in following.items()}
        best = ranked(
            {p: m for p, m in masses.items() if m > -math.inf}, alpha=alpha, beta=beta, form=form, table=table
        )
        prefixes = {prefix: tuple(following[prefix]) for _, prefix, _, _ in best[:beam]}
    masses = {prefix: log_add(*pair) for prefix, pair in prefixes.items()}
    return ranked(masses, alpha=alpha, beta=beta, form=form, table=table, eos=eos)


def random_log_probs(generator, T, V, scale):
    logits = generator.normal(0, scale, (T, V))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def translation_like(generator, T, V):
    """Logits f32[T, V] as of a trained model: many blanks, tokens that return in the next frame, most frames sure."""
    logits = generator.normal(0, 1.0, (T, V)).astype(np.float32)
    for t in range(T):
        logits[t, generator.integers(4, V, 3)] += generator.uniform(8, 14, 3).astype(np.float32)
        if t and generator.random() < 0.5:
            logits[t, np.argsort(-logits[t - 1])[: 2 + t % 2]] += 10
        logits[t, 0] += generator.uniform(8, 16)
        if generator.random() < 0.8:
            logits[t, logits[t].argmax()] += 5
    return logits
