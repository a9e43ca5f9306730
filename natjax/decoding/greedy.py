"""Greedy autoregressive decoding: the most probable token, step after step, in one compiled loop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from natjax.ctc import linear_top_k
from natjax.decoding.single_pass import Decode, Decoded
from natjax.frames import target_limit
from natjax.layers.stack import apart, stacked
from natjax.models import Transformer
from natjax.objectives.base import until_eos
from natjax.typing import BOS, EOS, Array, PyTree


class _Loop(NamedTuple):
    position: Array
    cache: PyTree
    last: Array
    tokens: Array
    scores: Array
    lengths: Array
    done: Array


def make_decode(model: Transformer, *, max_length_ratio: float) -> Decode:
    """The compiled loop, one program for each shape of its arguments.

    Args:
        model: the model; its parameters are an argument, so that one program serves all checkpoints.
        max_length_ratio: see `frames.target_limit`.

    Returns:
        As `single_pass.make_decode`. Frames are the tokens that were emitted, eos included; lengths that are given are
        not looked at.
    """

    def decode(params: PyTree, source_BS: Array, source_lengths_B: Array, _: Array | None = None) -> Decoded:
        whole, params = {"params": stacked(params)}, apart(params)
        memory_BSD = model.apply(whole, source_BS, source_lengths_B, method="encode")
        (B, S), zeros_B = source_BS.shape, jnp.zeros_like(source_lengths_B)
        N, limits_B = target_limit(S, max_length_ratio), target_limit(source_lengths_B, max_length_ratio)
        ancestors_BWN = jnp.zeros((B, 1, N), jnp.int32)

        def step(at: _Loop) -> _Loop:
            hidden_BWD, cache = model.step(params, at.cache, at.last[:, None], at.position, ancestors_BWN)
            head = model.apply(whole, hidden_BWD, method="project")
            best = linear_top_k(head.hidden, head.kernel, 1, bias=head.bias)
            token_B = jnp.where(at.done, 0, best.ids[:, 0, 0])
            log_prob_B = jnp.where(at.done, 0.0, best.logits[:, 0, 0] - best.lse[:, 0])
            lengths_B = jnp.where(at.done, at.lengths, at.position + 1)
            done_B = at.done | (token_B == EOS) | (lengths_B >= limits_B)
            tokens_BN = jax.lax.dynamic_update_slice_in_dim(at.tokens, token_B[:, None], at.position, axis=1)
            return _Loop(at.position + 1, cache, token_B, tokens_BN, at.scores + log_prob_B, lengths_B, done_B)

        start = _Loop(
            position=jnp.zeros((), jnp.int32),
            cache=model.start(params, memory_BSD, source_lengths_B, 1, N),
            last=jnp.full_like(zeros_B, BOS),
            tokens=jnp.zeros((B, N), jnp.int32),
            scores=jnp.zeros((B,)),
            lengths=zeros_B,
            done=zeros_B > 0,
        )
        end = jax.lax.while_loop(lambda at: ~at.done.all(), step, start)
        tokens_BN, lengths_B = until_eos(end.tokens, end.lengths)
        return Decoded(tokens_BN, lengths_B, end.tokens, end.lengths, end.scores)

    return jax.jit(decode)
