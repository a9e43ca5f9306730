"""Decoding in one pass: encode, upsample, decode, then argmax and collapse or a search, in one compiled function."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax.ctc import Pruned, linear_prune, linear_top_k, operand_dtype
from natjax.decoding.lattice import Search, Weights, searched
from natjax.decoding.passes import Decode, Decoded, Hypotheses
from natjax.frames import length_limit, multiplied_length
from natjax.layers.length import predict_lengths
from natjax.layers.noise import mix32, sentence_noise
from natjax.layers.stack import apart, stacked
from natjax.models.nat import NAT
from natjax.objectives.base import Objective
from natjax.typing import BLANK, Array, Head, PyTree

# Operands of matrix products and tables of vectors: the model takes them in its compute dtype. Biases and
# normalisations work in float32.
_MATRICES = {"kernel", "up_kernel", "down_kernel", "table"}


class Tries(NamedTuple):
    """The model's output for the tries of a batch, neighbouring rows of one sentence.

    Attributes:
        head: of R = B·C rows.
        frame_lengths: i32[R].
        each: C, tries of a sentence.
    """

    head: Head
    frame_lengths: Array
    each: int


def make_output(
    model: NAT,
    objective: Objective,
    *,
    candidates: int = 1,
    length_multiplier: float = 1.0,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 1,
) -> Callable[..., Tries]:
    """From a source to the model's output, the part that all ways of decoding share; not compiled.

    Args:
        model: see `make_decode`, as all others.
        objective: its loss.
        candidates: lengths tried.
        length_multiplier: of predicted lengths.
        samples: latents tried.
        temperature: of their draws.
        seed: of their draws.

    Returns:
        `output(params, source i32[B, S], source_lengths i32[B], lengths i32[B] | None) -> Tries`.
    """

    def output(params: PyTree, source_BS: Array, source_lengths_B: Array, lengths_B: Array | None) -> Tries:
        params = stacked(params)

        def apply(method: str, *args: object) -> Array:
            return model.apply({"params": params}, *args, method=method)

        S, memory_BSD = source_BS.shape[1], apply("encode", source_BS, source_lengths_B)
        T = objective.max_frames(S, 0)
        lengths_BC = source_lengths_B[:, None]  # what losses without a length ignore
        if objective.needs_length:
            T = objective.max_frames(S, length_limit(S, model.length_span, length_multiplier))
            if lengths_B is None:
                logits = apply("length_logits", memory_BSD, source_lengths_B)
                lengths_BC = predict_lengths(logits, source_lengths_B, candidates)
                lengths_BC = jnp.maximum(multiplied_length(lengths_BC, length_multiplier), 1)
            else:
                lengths_BC = lengths_B[:, None]
            lengths_BC = jnp.minimum(lengths_BC, T)
        # From here on a row is a try, R of them: of a sentence its lengths, of a length its samples.
        each = lengths_BC.shape[1] * samples
        lengths_R = jnp.repeat(lengths_BC.reshape(-1), samples)
        memory_RSD, source_lengths_R = (jnp.repeat(x, each, axis=0) for x in (memory_BSD, source_lengths_B))
        noise, temperature_R11 = None, temperature
        if temperature:
            sample_R = jnp.arange(lengths_R.size, dtype=jnp.uint32) % np.uint32(samples)
            noise = sentence_noise(seed, source_BS)
            noise = noise._replace(rows=jnp.repeat(noise.rows, each) ^ mix32(sample_R))
            if samples > 1:
                temperature_R11 = jnp.where(sample_R == 0, 0.0, temperature).astype(jnp.float32)[:, None, None]
        frame_lengths_R = objective.frames(source_lengths_R, lengths_R)
        head = apply("predict", memory_RSD, source_lengths_R, frame_lengths_R, T, noise, temperature_R11)
        return Tries(head, frame_lengths_R, each)

    return output


def make_decode(
    model: NAT,
    objective: Objective,
    *,
    blank_penalty: float = 0.0,
    search: Search | None = None,
    every_try: bool = False,
    **tries: Any,
) -> Decode:
    """The compiled single pass, one program for each shape of its arguments.

    Lengths and samples together give several tries of a sentence, which lie side by side as rows of one batch. The one
    with the best mean log-probability by frame is returned, the first among equals.

    Args:
        model: the model; its parameters are an argument, so that one program serves all checkpoints.
        objective: tells frame counts and how frames collapse.
        blank_penalty: for losses without a length, nats at least 0 by which the blank must lead the best token to be
            emitted. Alignments that differ by where a token falls share its mass over some frames, and in each of
            them the blank can win; the penalty gives such tokens back. Scores stay those of the model. A search sums
            over alignments and has no need of it.
        search: for losses without a length: a search over the frames' distributions, in place of the argmax.
        every_try: whether `n_best` holds the tries, the best hypothesis of each, for somebody else to choose from.
        **tries: of `make_output`:
            candidates: for losses with a length, how many lengths are tried; 1 unless given.
            length_multiplier: for losses with a length, by which predicted lengths are multiplied; given ones are not.
            samples: for models with latents, how many are tried, 1 unless given; of several, the first is the prior's
                mean.
            temperature: for models with latents, how far z lies from the prior's mean, in draws of its standard
                deviation; 0, the default: at the mean (official release).
            seed: of these draws. A sentence's draws depend on its own tokens, not on the batch it is in.

    Returns:
        `decode(params, source i32[B, S], source_lengths i32[B], lengths i32[B] | None, weights: Weights | None) ->
        Decoded`. `params` are the model's, as they are or from `prepare`. `lengths` overrides the predicted target
        lengths (golden length); losses without a length ignore it. `weights` are the search's, and needed by it.
    """
    output = make_output(model, objective, **tries)

    def decode(
        params: PyTree,
        source_BS: Array,
        source_lengths_B: Array,
        lengths_B: Array | None = None,
        weights: Weights | None = None,
    ) -> Decoded:
        head, frame_lengths_R, each = output(params, source_BS, source_lengths_B, lengths_B)
        if search is None:
            decoded = _argmax(head, objective, frame_lengths_R, blank_penalty)
        else:
            decoded = searched(head, frame_lengths_R, search, weights)
        if each == 1 and not every_try:
            return decoded
        mean_R = decoded.scores / frame_lengths_R.astype(jnp.float32)
        return _best(decoded, mean_R.reshape(-1, each), every_try)

    return jax.jit(decode)


def make_prune(model: NAT, objective: Objective, top_k: int, **tries: Any) -> Callable[..., tuple[Pruned, Array]]:
    """The compiled pass up to the search, for what searches the same frames again and again.

    Args:
        model: as `make_decode`.
        objective: its loss, one without a length.
        top_k: tokens of each frame that are kept, and the blank.
        **tries: of `make_output`: temperature and seed of a single draw.

    Returns:
        `prune(params, source i32[B, S], source_lengths i32[B], None) -> (Pruned, frame_lengths i32[B])`.
    """
    output = make_output(model, objective, **tries)

    @jax.jit
    def prune(
        params: PyTree, source_BS: Array, source_lengths_B: Array, _: Array | None = None
    ) -> tuple[Pruned, Array]:
        head, frame_lengths_B, _each = output(params, source_BS, source_lengths_B, None)
        return linear_prune(head.hidden, head.kernel, top_k=top_k, bias=head.bias), frame_lengths_B

    return prune


def _argmax(head: Head, objective: Objective, frame_lengths_B: Array, blank_penalty: float) -> Decoded:
    """What the frames emit, collapsed."""
    ids_BT, log_prob_BT = _emitted(head, 0.0 if objective.needs_length else blank_penalty)
    real_BT = jnp.arange(ids_BT.shape[1])[None, :] < frame_lengths_B[:, None]
    frames_BT = jnp.where(real_BT, ids_BT, 0)
    tokens_BT, lengths_B = objective.collapse(frames_BT, frame_lengths_B)
    scores_B = jnp.where(real_BT, log_prob_BT, 0.0).sum(axis=1)
    return Decoded(tokens_BT, lengths_B, frames_BT, frame_lengths_B, scores_B)


def _emitted(head: Head, blank_penalty: float) -> tuple[Array, Array]:
    """What each frame emits, i32[B, T], and its log-probability, f32[B, T]."""
    best = linear_top_k(head.hidden, head.kernel, 2 if blank_penalty else 1, bias=head.bias)
    ids_BT, logits_BT = best.ids[..., 0], best.logits[..., 0]
    if blank_penalty:
        second_BT = best.logits[..., 1]
        yields_BT = (ids_BT == BLANK) & (logits_BT - blank_penalty < second_BT)
        ids_BT, logits_BT = jnp.where(yields_BT, best.ids[..., 1], ids_BT), jnp.where(yields_BT, second_BT, logits_BT)
    return ids_BT, logits_BT - best.lse


def _best(tries: Decoded, mean_BC: Array, every_try: bool) -> Decoded:
    """Of the C tries of each sentence, neighbouring rows, the one with the greatest mean, the first among equals."""
    first_B = jnp.arange(mean_BC.shape[0]) * mean_BC.shape[1]
    best = jax.tree.map(lambda array: array[first_B + jnp.argmax(mean_BC, axis=1)], tries._replace(n_best=None))
    if not every_try:
        return best
    order_BC = jnp.argsort(-mean_BC, axis=1, stable=True)
    row_BC = first_B[:, None] + order_BC
    return best._replace(n_best=Hypotheses(*(x[row_BC] for x in (tries.tokens, tries.lengths, tries.scores))))


def prepare(params: PyTree, dtype: jnp.dtype) -> PyTree:
    """Parameters in the form that the compiled pass takes fastest; what it computes stays the same to the bit.

    Matrices get the compute dtype once, instead of in every pass. On CPU, where the scan over layers is unrolled (see
    `layers.stack`), each layer's parameters become arrays of their own: of stacked ones every pass would copy every
    layer's slice, which takes about as long as the products of a single sentence.

    Args:
        params: the model's parameters, float32, or what this function returned.
        dtype: the model's compute dtype.
    """
    dtype = jnp.dtype(dtype)
    return _prepare(params, dtype, operand_dtype(dtype), jax.default_backend() == "cpu")


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _prepare(params: PyTree, dtype: jnp.dtype, table_dtype: jnp.dtype, split: bool) -> PyTree:
    def cast(path: tuple, leaf: Array) -> Array:
        names = [step.key for step in path if isinstance(step, jax.tree_util.DictKey)]
        # The length classifier computes in float32 throughout.
        if names[-1] not in _MATRICES or names[0] == "length_classifier":
            return leaf
        # Tables are the output projection's kernel, too.
        return leaf.astype(table_dtype if names[-1] == "table" else dtype)

    params = jax.tree_util.tree_map_with_path(cast, params)
    return apart(params) if split else params
