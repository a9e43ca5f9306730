"""Autoregressive translation: encode, then beam search or greedy decoding, in one compiled function."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from natjax.decoding import single_pass
from natjax.decoding.beam import BeamResult, beam_search
from natjax.decoding.passes import Decode, Decoded, Hypotheses
from natjax.frames import target_limit
from natjax.layers.linear import turned
from natjax.layers.stack import apart, stacked
from natjax.models import Transformer
from natjax.typing import Array, Head, PyTree


class Search:
    """A Transformer as `beam.Decoder` sees it: parameters with the layers apart."""

    def __init__(self, model: Transformer):
        """Wraps a model."""
        self.start, self.grow, self.step, self._model = model.start, model.grow, model.step, model

    def project(self, params: PyTree, hidden_BWD: Array) -> Head:
        """The output projection of hidden states."""
        outer = {name: part for name, part in params.items() if name not in ("encoder", "decoder")}
        return self._model.apply({"params": outer}, hidden_BWD, method="project")


def prepare(params: PyTree, dtype: jnp.dtype) -> PyTree:
    """`single_pass.prepare`, on CPU with the decoder's kernels turned (see `layers.linear`), which rounds otherwise.

    Args:
        params: the model's parameters, float32, or what this function returned.
        dtype: the model's compute dtype.
    """
    params = single_pass.prepare(params, dtype)
    return {**params, "decoder": turned(params["decoder"])} if jax.default_backend() == "cpu" else params


def make_decode(model: Transformer, *, beam_size: int, length_penalty: float, max_length_ratio: float) -> Decode:
    """The compiled search, one program for each shape of its arguments.

    Args:
        model: the model; its parameters are an argument, so that one program serves all checkpoints.
        beam_size: W; 1 is greedy.
        length_penalty: see `beam.beam_search`; another one needs no other program.
        max_length_ratio: see `frames.target_limit`.

    Returns:
        As `single_pass.make_decode`. Frames are the tokens of the best hypothesis, its score is not normalised, and
        `n_best` holds all hypotheses in the order of their normalised scores. Lengths that are given are not looked at.
        `prefixes` are the pieces that the translation of each sentence begins with; with and without them takes a
        program each.
    """

    @jax.jit
    def search(
        params: PyTree,
        source_BS: Array,
        source_lengths_B: Array,
        length_penalty: Array,
        prefix: tuple[Array, Array] | None,
    ) -> Decoded:
        memory_BSD = model.apply({"params": stacked(params)}, source_BS, source_lengths_B, method="encode")
        found: BeamResult = beam_search(
            Search(model),
            apart(params),
            memory_BSD,
            source_lengths_B,
            target_limit(source_lengths_B, max_length_ratio),
            beam_size=beam_size,
            max_steps=target_limit(source_BS.shape[1], max_length_ratio),
            length_penalty=length_penalty,
            prefix=prefix,
        )
        tokens_BN, lengths_B = found.tokens[:, 0], found.lengths[:, 0]
        n_best = Hypotheses(found.tokens, found.lengths, found.log_probs)
        return Decoded(tokens_BN, lengths_B, tokens_BN, lengths_B, found.log_probs[:, 0], n_best)

    def decode(
        params: PyTree,
        source_BS: Array,
        source_lengths_B: Array,
        _: Array | None = None,
        *,
        prefixes: Sequence[list[int]] | None = None,
    ) -> Decoded:
        B, S = source_BS.shape
        prefix = None if prefixes is None else _padded(prefixes, B, target_limit(S, max_length_ratio))
        return search(params, source_BS, source_lengths_B, jnp.float32(length_penalty), prefix)

    return decode


def _padded(prefixes: Sequence[list[int]], B: int, N: int) -> tuple[Array, Array]:
    """Prefixes as i32[B, N] and their lengths i32[B]; rows beyond them are empty."""
    tokens_BN, lengths_B = np.zeros((B, N), np.int32), np.zeros(B, np.int32)
    for row, ids in enumerate(prefixes):
        tokens_BN[row, : len(ids)], lengths_B[row] = ids, len(ids)
    return jnp.asarray(tokens_BN), jnp.asarray(lengths_B)
