"""Two other ways to the same hypotheses: all alignments one by one, and a dictionary of prefixes; and small models."""

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

EOS = 2


class TableScorer(NamedTuple):
    """A language model as an automaton: f32[states, V] and i32[states, V]."""

    log_probs: jnp.ndarray
    following: jnp.ndarray

    def start(self):
        return jnp.int32(0)

    def score(self, state, token):
        return self.log_probs[state, token], self.following[state, token]


class ModularScorer(NamedTuple):
    """A bigram model of any vocabulary, whose log-probabilities, down to −scale, come from a congruence."""

    scale: jnp.ndarray

    def start(self):
        return jnp.int32(1)

    def score(self, state, token):
        return -self.scale * ((state * 7919 + token * 6007) % 1009).astype(jnp.float32) / 1009, token


def random_table(random, vocabulary, states=7):
    """A TableScorer with normalised rows."""
    logits = random.normal(size=(states, vocabulary), scale=1.5)
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    following = random.integers(0, states, (states, vocabulary))
    return TableScorer(jnp.asarray(log_probs, jnp.float32), jnp.asarray(following, jnp.int32))


class Plain:
    """What a scorer says, in Python, about whole sequences."""

    def __init__(self, scorer, score_eos=False):
        self.scorer, self.score_eos = scorer, score_eos
        if isinstance(scorer, TableScorer):
            table, following = np.asarray(scorer.log_probs, np.float64), np.asarray(scorer.following)
            self.step = lambda state, token: (table[state, token], following[state, token])
            self.first = 0
        elif scorer is not None:
            scale = float(scorer.scale)
            self.step = lambda state, token: (-scale * ((state * 7919 + token * 6007) % 1009) / 1009, token)
            self.first = 1
        self.known = {}

    def __call__(self, tokens):
        """(log-probability, state) of the tokens, without the end."""
        if self.scorer is None:
            return 0.0, 0
        if not tokens:
            return 0.0, self.first
        if tokens not in self.known:
            before, state = self(tokens[:-1])
            more, state = self.step(state, tokens[-1])
            self.known[tokens] = before + more, state
        return self.known[tokens]

    def final(self, tokens):
        """Log-probability with the end, if that is scored."""
        log_prob, state = self(tokens)
        return log_prob + (self.step(state, EOS)[0] if self.score_eos else 0.0)


def bonus(length, beta, form):
    return beta * (length if form == "linear" else math.log(max(length, 1)))


def collapsed(path, blank):
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def by_enumeration(log_probs, plain, alpha, beta, form, blank=0):
    """{tokens: (score, CTC score, LM score)} of every output, from all V^T alignments of log_probs [T, V]."""
    frames, vocabulary = log_probs.shape
    masses = defaultdict(float)
    for path in itertools.product(range(vocabulary), repeat=frames):
        masses[collapsed(path, blank)] += math.exp(sum(log_probs[t, v] for t, v in enumerate(path)))
    outputs = {}
    for tokens, mass in masses.items():
        ctc, lm = math.log(mass), plain.final(tokens)
        outputs[tokens] = ctc + alpha * lm + bonus(len(tokens), beta, form), ctc, lm
    return outputs


def by_enumeration_to_the_end(log_probs, plain, alpha, beta, form, end=EOS):
    """[(tokens, score, CTC score, LM score)] of every output up to its first `end`; those that lack it count apart."""
    frames, vocabulary = log_probs.shape
    masses = defaultdict(float)
    for path in itertools.product(range(vocabulary), repeat=frames):
        tokens = collapsed(path, 0)
        ended = end in tokens
        tokens = tokens[: tokens.index(end)] if ended else tokens
        masses[tokens, ended] += math.exp(sum(log_probs[t, v] for t, v in enumerate(path)))
    found = []
    for (tokens, ended), mass in masses.items():
        ctc = math.log(mass)
        lm = plain((*tokens, end))[0] if ended else plain.final(tokens)
        found.append((tokens, ctc + alpha * lm + bonus(len(tokens), beta, form), ctc, lm))
    return found


def by_dictionary(log_probs, plain, alpha, beta, form, beam_size, top_k, blank=0):
    """[(tokens, score, CTC score, LM score)], best first: prefix search over log_probs [T, V] in double precision."""
    beam = {(): (0.0, -math.inf)}
    for frame in log_probs:
        order = np.argsort(-frame, kind="stable")[: top_k + 1].tolist()
        likely = [token for token in order if token != blank][:top_k]
        grown = defaultdict(lambda: [-math.inf, -math.inf])
        for tokens, (ends_in_blank, ends_in_token) in beam.items():
            both = np.logaddexp(ends_in_blank, ends_in_token)
            grown[tokens][0] = np.logaddexp(grown[tokens][0], both + frame[blank])
            for token in likely:
                if tokens and token == tokens[-1]:
                    grown[tokens][1] = np.logaddexp(grown[tokens][1], ends_in_token + frame[token])
                    entered = ends_in_blank
                else:
                    entered = both
                longer = (*tokens, token)
                grown[longer][1] = np.logaddexp(grown[longer][1], entered + frame[token])

        def rank(item):
            tokens, masses = item
            return np.logaddexp(*masses) + alpha * plain(tokens)[0] + bonus(len(tokens), beta, form)

        beam = dict(sorted(grown.items(), key=rank, reverse=True)[:beam_size])
    found = []
    for tokens, masses in beam.items():
        ctc, lm = np.logaddexp(*masses), plain.final(tokens)
        found.append((tokens, ctc + alpha * lm + bonus(len(tokens), beta, form), ctc, lm))
    return sorted(found, key=lambda entry: -entry[1])


def normalised(logits):
    """Log-probabilities in double precision."""
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def peaky(seed, batch, frames, vocabulary, tokens=30, doubt=6.0):
    """Logits as a trained model's: most frames are blank, tokens take one frame or two, some have rivals."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(batch, frames, vocabulary)).astype(np.float32)
    logits[:, :, 0] += 16
    for row in logits:
        for t in np.sort(random.choice(frames - 1, tokens, replace=False)):
            token = random.integers(4, vocabulary)
            row[t, token] += random.uniform(14, 20)
            row[t + 1, token] += random.uniform(16 - doubt, 16)
            row[t, random.integers(4, vocabulary, 3)] += random.uniform(14 - doubt, 15, 3)
            row[t, 0] -= random.uniform(0, doubt)
    return logits


def hypotheses(result, row):
    """[(tokens, score, CTC score, LM score)] of a row of a BeamResult, dead slots left out."""
    tokens, lengths, *scores = (np.asarray(array)[row] for array in result)
    assert all((tokens[w, n:] == 0).all() for w, n in enumerate(lengths))
    return [
        (tuple(tokens[w, : lengths[w]].tolist()), *(float(kind[w]) for kind in scores))
        for w in range(len(lengths))
        if scores[0][w] > -np.inf
    ]
