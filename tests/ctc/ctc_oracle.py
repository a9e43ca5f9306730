"""What CTC ought to give, by slow and obvious means in float64: nothing here shares a formula with natjax.ctc."""

import itertools
from collections import defaultdict

import numpy as np


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    peak = logits.max(-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True))


def collapse(path, blank=0):
    return tuple(int(token) for token, _ in itertools.groupby(path) if token != blank)


def all_targets(logits, blank=0):
    """Every target that has a path in logits [T, V], by enumeration: {target: (loss, gradient [T, V])}."""
    frames, vocabulary = logits.shape
    log_prob = log_softmax(logits)
    found = defaultdict(lambda: [0.0, np.zeros((frames, vocabulary))])
    for path in itertools.product(range(vocabulary), repeat=frames):
        probability = np.exp(sum(log_prob[frame, token] for frame, token in enumerate(path)))
        entry = found[collapse(path, blank)]
        entry[0] += probability
        for frame, token in enumerate(path):
            entry[1][frame, token] += probability
    return {
        target: (-np.log(mass), np.exp(log_prob) - visits / mass)
        for target, (mass, visits) in found.items()
        if mass > 0
    }


def log_mass(log_prob, target, blank=0):
    """log p(target) [...] of log-probabilities [..., T, V], by prefixes, one frame at a time.

    The state is a pair (labels emitted, whether the last frame was a blank), not a position in a 2N+1 lattice.
    """
    *lead, frames, _ = log_prob.shape
    impossible = np.full(lead, -np.inf)
    after_blank = [np.zeros(lead)] + [impossible] * len(target)
    after_label = [impossible] * (len(target) + 1)
    with np.errstate(all="ignore"):
        for frame in range(frames):
            score = log_prob[..., frame, :]
            new_blank = [np.logaddexp(*pair) + score[..., blank] for pair in zip(after_blank, after_label)]
            new_label = [impossible]
            for count, token in enumerate(target, 1):
                ways = [after_label[count], after_blank[count - 1]]
                if count > 1 and target[count - 2] != token:
                    ways.append(after_label[count - 1])
                new_label.append(np.logaddexp.reduce(ways) + score[..., token])
            after_blank, after_label = new_blank, new_label
        return np.logaddexp(after_blank[-1], after_label[-1])


def loss_and_gradient(logits, target, blank=0):
    """Loss and gradient [T, V] of one row; the chance of token v at frame t is found by forbidding all others there."""
    log_prob = log_softmax(logits)
    frames, vocabulary = log_prob.shape
    total = log_mass(log_prob, target, blank)
    if total == -np.inf:
        return np.inf, np.zeros((frames, vocabulary))
    forced = np.broadcast_to(log_prob, (frames, vocabulary, frames, vocabulary)).copy()
    for frame in range(frames):
        for token in range(vocabulary):
            forced[frame, token, frame, np.arange(vocabulary) != token] = -np.inf
    return -total, np.exp(log_prob) - np.exp(log_mass(forced, target, blank) - total)
