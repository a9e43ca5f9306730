"""An n-gram model on the host, in numpy: one sorted array of keys an order, each naming its context and its token.

The n-grams of order 1 are the token ids themselves. One of order k is found by the number of its first k-1 tokens
among those of order k-1, times V, plus its last token. Ids packed into 64 bits would not serve any order and V.
"""

from typing import NamedTuple

import numpy as np

from natjax.typing import BOS, EOS, PAD, UNK


class Level(NamedTuple):
    """The n-grams of one order, 2 or more, ascending by key.

    Attributes:
        keys: i64[n], the context's number in the order below, times V, plus the token.
        log_probs: f32[n], natural logarithms.
        backoffs: f32[n], natural logarithms of the back-off weights; 0 for the highest order.
    """

    keys: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray


class NgramModel(NamedTuple):
    """A back-off model over token ids.

    Attributes:
        listed: bool[V], the tokens that the model knows, UNK, EOS and BOS among them; others are scored as UNK.
        log_probs: f32[V] of unigrams, 0 where not listed. BOS, which is never predicted, has 0.
        backoffs: f32[V] of unigrams, 0 where not listed.
        levels: orders 2, 3, ...
    """

    listed: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    levels: tuple[Level, ...]

    @property
    def order(self) -> int:
        """N, the length of the longest n-grams."""
        return 1 + len(self.levels)

    @property
    def vocabulary_size(self) -> int:
        """V of the token ids, unlisted ones included."""
        return len(self.listed)

    @property
    def counts(self) -> list[int]:
        """N-grams of each order."""
        return [int(self.listed.sum()), *(len(level.keys) for level in self.levels)]

    @property
    def aliases(self) -> np.ndarray:
        """i32[V], as which token each id is scored: itself or UNK. PAD and BOS are nothing that can be predicted."""
        ids = np.where(self.listed, np.arange(self.vocabulary_size), UNK).astype(np.int32)
        ids[[PAD, BOS]] = UNK
        return ids

    def find(self, order: int, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Numbers of n-grams among those of their order.

        Args:
            order: 2 or more.
            contexts: i64[n], numbers in the order below; -1: there is none such.
            tokens: i64[n].

        Returns:
            i64[n], -1 where the model has no such n-gram.
        """
        keys = self.levels[order - 2].keys
        if not len(keys):
            return np.full(contexts.shape, -1, np.int64)
        wanted = contexts.astype(np.int64) * self.vocabulary_size + tokens
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((contexts >= 0) & (keys[places] == wanted), places, -1)

    def score(self, stream: np.ndarray) -> np.ndarray:
        """Log-probability of every token given those before it in its sentence.

        Args:
            stream: i32[n], sentences one after another, each from BOS to EOS (`counting.stream`).

        Returns:
            f64[n], nats; 0 at BOS, which is given.
        """
        tokens = np.where(stream == BOS, BOS, self.aliases[stream]).astype(np.int64)
        given = stream == BOS
        log_probs = np.where(given, 0.0, self.log_probs[tokens].astype(np.float64))
        # found: the n-gram of the current order that ends at each place; context: the one that ends before it.
        found, weights = tokens, self.backoffs
        for order, level in enumerate(self.levels, 2):
            context = np.concatenate([[-1], found[:-1]])
            # A known context pays its weight, unless the longer n-gram is there, whose probability holds it already.
            weight = np.where((context >= 0) & ~given, weights[context], 0.0)
            found = np.where(given, -1, self.find(order, np.where(given, -1, context), tokens))
            log_probs = np.where(found >= 0, level.log_probs[found] if len(level.keys) else 0.0, log_probs + weight)
            weights = level.backoffs if len(level.keys) else np.zeros(1, np.float32)
        return log_probs


class Perplexity(NamedTuple):
    """How well a model predicts a text.

    Attributes:
        sentences: how many.
        tokens: pieces and one end a sentence.
        unknown: those that the model does not know.
        log_prob: sum over all tokens, nats.
        log_prob_known: sum over known ones.
    """

    sentences: int
    tokens: int
    unknown: int
    log_prob: float
    log_prob_known: float

    @property
    def perplexity(self) -> float:
        """Over all tokens; 1 of a text without sentences."""
        return float(np.exp(-self.log_prob / max(self.tokens, 1)))

    @property
    def perplexity_known(self) -> float:
        """Over the tokens that the model knows."""
        return float(np.exp(-self.log_prob_known / max(self.tokens - self.unknown, 1)))

    def describe(self) -> str:
        """One line for people."""
        return (
            f"perplexity {self.perplexity:,.2f} over {self.tokens:,} tokens in {self.sentences:,} sentences, "
            f"{self.perplexity_known:,.2f} without the {self.unknown:,} unknown ones"
        )

    def __add__(self, other: "Perplexity") -> "Perplexity":
        return Perplexity(*(a + b for a, b in zip(self, other, strict=True)))


def perplexity(model: NgramModel, stream: np.ndarray) -> Perplexity:
    """Perplexity of a text (`counting.stream`), the ends of its sentences included."""
    log_probs, given = model.score(stream), stream == BOS
    unknown = (model.aliases[stream] == UNK) & ~given
    known = ~unknown & ~given
    assert (stream == EOS).sum() == given.sum()
    return Perplexity(
        sentences=int(given.sum()),
        tokens=int((~given).sum()),
        unknown=int(unknown.sum()),
        log_prob=float(log_probs.sum()),
        log_prob_known=float(log_probs[known].sum()),
    )
