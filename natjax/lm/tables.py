"""An n-gram model as arrays that a compiled program reads: back-off states and one hash table of all orders."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax.lm import hashing
from natjax.lm.hashing import WIDTH
from natjax.typing import BOS, Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["keys", "log_probs", "following", "seed", "aliases", "unigrams", "first", "backoffs", "shorter"],
    meta_fields=["order"],
)
@dataclass(frozen=True)
class NgramTables:
    """A `typing.TokenScorer`. Give it to compiled functions as an argument: a constant would be copied into them.

    States are the contexts that the model knows: 0 the empty one, a token's id after that token alone, larger ones
    after more. Of the pieces that came before, a state is the longest end that can matter.

    Attributes:
        order: N.
        keys: i32[buckets, 2 * WIDTH], the states of a bucket's slots, then their tokens; -1: empty.
        log_probs: f32[buckets, WIDTH], natural logarithms.
        following: i32[buckets, WIDTH], the state after.
        seed: u32[], of the hash.
        aliases: i32[V], the token that each id is scored as: itself, or UNK where the model does not know it. PAD and
            BOS, which are never predicted, are scored as UNK.
        unigrams: f32[V], log-probabilities without context.
        first: i32[V], the state after a token without context.
        backoffs: f32[states], logarithms of the back-off weights.
        shorter: i32[states], the state to back off to.
    """

    order: int
    keys: Array
    log_probs: Array
    following: Array
    seed: Array
    aliases: Array
    unigrams: Array
    first: Array
    backoffs: Array
    shorter: Array

    def start(self) -> Array:
        """i32[], the state after <s>."""
        return jnp.asarray(self.first)[BOS]

    def score(self, state: Array, token: Array) -> tuple[Array, Array]:
        """Log-probability of tokens in the states given, and the states after them.

        Args:
            state: i32 of any shape, from `start` or this function.
            token: i32 of the same shape, below V. EOS is the end of the sentence.

        Returns:
            f32 of that shape, nats; and i32 of that shape.
        """
        token = jnp.take(self.aliases, token, mode="clip")
        # Every level of the chain is looked up, whether a longer one is there or not: independent gathers.
        chain = [state]
        for _ in range(self.order - 2):
            chain.append(jnp.take(self.shorter, chain[-1], mode="clip"))
        log_prob, following = jnp.take(self.unigrams, token, mode="clip"), jnp.take(self.first, token, mode="clip")
        if self.order == 1:
            return log_prob, following
        states = jnp.stack(chain, axis=-1)
        found, there, after = self._look_up(states, jnp.broadcast_to(token[..., None], states.shape))
        weights = jnp.take(self.backoffs, states, mode="clip")
        for level in reversed(range(self.order - 1)):
            log_prob = jnp.where(found[..., level], there[..., level], weights[..., level] + log_prob)
            following = jnp.where(found[..., level], after[..., level], following)
        return log_prob, following

    def _look_up(self, state: Array, token: Array) -> tuple[Array, Array, Array]:
        """(whether there is such an n-gram, its log-probability, the state after it); the last two 0 where not."""
        places = jnp.stack(hashing.buckets(jnp, state, token, self.seed, len(self.keys)), axis=-1)
        keys = jnp.take(self.keys, places, axis=0, mode="clip")
        same = (keys[..., :WIDTH] == state[..., None, None]) & (keys[..., WIDTH:] == token[..., None, None])
        # A key lies in one slot of one bucket; both buckets may be the same one, so the maximum and not the sum.
        columns = jax.lax.broadcasted_iota(jnp.int32, same.shape, same.ndim - 1)
        slot = jnp.where(same, places[..., None] * WIDTH + columns, -1).max((-1, -2))
        bucket, column = jnp.divmod(jnp.maximum(slot, 0), WIDTH)
        found = slot >= 0
        log_prob = jnp.where(found, self.log_probs[bucket, column], 0.0)
        return found, log_prob, jnp.where(found, self.following[bucket, column], 0)


class TableSizes(NamedTuple):
    """What tables take.

    Attributes:
        ngrams: of all orders, from 2 on in the hash table.
        states: contexts.
        nbytes: of all arrays.
        load: share of the hash table's slots that are filled.
    """

    ngrams: int
    states: int
    nbytes: int
    load: float


def sizes(tables: NgramTables) -> TableSizes:
    """The sizes of tables."""
    hashed = int((np.asarray(tables.keys)[:, :WIDTH] != hashing.EMPTY).sum())
    listed = int((np.asarray(tables.aliases) == np.arange(len(tables.aliases))).sum()) + 1  # <s>
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(tables))
    return TableSizes(hashed + listed, len(tables.shorter), nbytes, hashed / tables.log_probs.size)
