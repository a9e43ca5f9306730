"""Whole sentences under any `typing.TokenScorer`, by a compiled scan over a few static shapes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from natjax.typing import EOS, PAD, Array, TokenScorer

ROWS = 256
_SHORTEST = 16


def score_sentences(scorer: TokenScorer, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Log-probabilities of sentences, the end of each included.

    Args:
        scorer: the language model; its arrays may be numpy's.
        rows: token ids of each sentence, without bos and eos.

    Returns:
        For each sentence f32[tokens + 1], nats.
    """
    scorer = jax.device_put(scorer)
    made: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        longest = max(len(rows[i]) for i in chosen) + 1
        # Powers of two: few shapes to compile, however long the sentences.
        tokens = np.full((ROWS, max(_SHORTEST, 1 << (longest - 1).bit_length())), PAD, np.int32)
        for row, i in enumerate(chosen):
            tokens[row, : len(rows[i]) + 1] = [*rows[i], EOS]
        scores = np.asarray(_score(scorer, tokens))
        for row, i in enumerate(chosen):
            made[i] = scores[row, : len(rows[i]) + 1]
    return made


@jax.jit
def _score(scorer: TokenScorer, tokens_BN: Array) -> Array:
    """f32[B, N], of each token given those before it."""

    def step(state_B: Array, token_B: Array) -> tuple[Array, Array]:
        log_prob_B, state_B = scorer.score(state_B, token_B)
        return state_B, log_prob_B

    start_B = jnp.broadcast_to(scorer.start(), tokens_BN.shape[:1])
    return jax.lax.scan(step, start_B, tokens_BN.T)[1].T
