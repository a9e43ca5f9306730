"""Greedy decoding in one pass: encode, upsample, decode, argmax, collapse, in one compiled function."""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax.ctc import linear_top_k, operand_dtype
from natjax.decoding.beam import BeamResult
from natjax.decoding.shapes import Shape
from natjax.frames import length_limit, multiplied_length
from natjax.layers.length import predict_lengths
from natjax.layers.noise import Noise, sentence_noise
from natjax.layers.stack import apart, stacked
from natjax.models.nat import NAT
from natjax.objectives.base import Objective
from natjax.typing import BLANK, EOS, Array, Head, PyTree

AHEAD = 4  # batches under way at a time: enough to hide the host's work, few enough to bound memory

# Operands of matrix products and tables of vectors: the model takes them in its compute dtype. Biases and
# normalisations work in float32.
_MATRICES = {"kernel", "up_kernel", "down_kernel", "table"}


class Decoded(NamedTuple):
    """Translations of one batch.

    Attributes:
        tokens: i32[B, T], collapsed, packed to the left, padded with 0.
        lengths: i32[B], tokens in each row.
        frames: i32[B, T], what each frame emits, 0 beyond the row's frames.
        frame_lengths: i32[B].
        scores: f32[B], Σ over frames of the log-probability of what is emitted, nats.
        n_best: all hypotheses of a search; None where there is none.
    """

    tokens: Array
    lengths: Array
    frames: Array
    frame_lengths: Array
    scores: Array
    n_best: BeamResult | None = None


Decode = Callable[..., Decoded]


def make_decode(
    model: NAT,
    objective: Objective,
    *,
    candidates: int = 1,
    length_multiplier: float = 1.0,
    blank_penalty: float = 0.0,
    temperature: float = 0.0,
    seed: int = 1,
) -> Decode:
    """The compiled single pass, one program for each shape of its arguments.

    Args:
        model: the model; its parameters are an argument, so that one program serves all checkpoints.
        objective: tells frame counts and how frames collapse.
        candidates: for losses with a length, how many lengths are decoded side by side; the one with the best mean
            log-probability is returned.
        length_multiplier: for losses with a length, by which predicted lengths are multiplied; given ones are not.
        blank_penalty: for losses without a length, nats at least 0 by which the blank must lead the best token to be
            emitted. Alignments that differ by where a token falls share its mass over some frames, and in each of
            them the blank can win; the penalty gives such tokens back. Scores stay those of the model.
        temperature: for models with latents, how far z lies from the prior's mean, in draws of its standard deviation;
            0: at the mean (paper, section 3.2).
        seed: of these draws. A sentence's draw depends on its own tokens, not on the batch it is in.

    Returns:
        `decode(params, source i32[B, S], source_lengths i32[B], lengths i32[B] | None) -> Decoded`. `params` are the
        model's, as they are or from `prepare`. `lengths` overrides the predicted target lengths (golden length);
        losses without a length ignore it.
    """

    def decode(params: PyTree, source_BS: Array, source_lengths_B: Array, lengths_B: Array | None = None) -> Decoded:
        params = stacked(params)

        def apply(method: str, *args: object) -> Array:
            return model.apply({"params": params}, *args, method=method)

        def of_lengths(memory_BSD: Array, source_lengths_B: Array, noise: Noise | None, lengths_B: Array) -> Decoded:
            frame_lengths_B = objective.frames(source_lengths_B, lengths_B)
            head = apply("predict", memory_BSD, source_lengths_B, frame_lengths_B, T, noise, temperature)
            return _decoded(head, objective, frame_lengths_B, blank_penalty)

        rows = apply("encode", source_BS, source_lengths_B), source_lengths_B, None
        if temperature:
            rows = *rows[:2], sentence_noise(seed, source_BS)
        S = source_BS.shape[1]
        if not objective.needs_length:
            T = objective.max_frames(S, 0)
            return of_lengths(*rows, source_lengths_B)
        T = objective.max_frames(S, length_limit(S, model.length_span, length_multiplier))
        if lengths_B is not None:
            return of_lengths(*rows, jnp.minimum(lengths_B, T))
        logits = apply("length_logits", *rows[:2])
        choices_BC = multiplied_length(predict_lengths(logits, source_lengths_B, candidates), length_multiplier)
        # Candidates lie side by side as rows of one batch.
        rows = jax.tree.map(lambda array: jnp.repeat(array, candidates, axis=0) if array.ndim else array, rows)
        return _best(of_lengths(*rows, jnp.clip(choices_BC, 1, T).reshape(-1)), candidates)

    return jax.jit(decode)


def _decoded(head: Head, objective: Objective, frame_lengths_B: Array, blank_penalty: float) -> Decoded:
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


def _best(tries: Decoded, candidates: int) -> Decoded:
    """Of so many neighbouring rows each the one with the best mean log-probability, the first among equals."""
    mean_BC = (tries.scores / tries.frame_lengths.astype(jnp.float32)).reshape(-1, candidates)
    row_B = jnp.arange(mean_BC.shape[0]) * candidates + jnp.argmax(mean_BC, axis=1)
    return jax.tree.map(lambda array: array[row_B], tries)


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


class Pass(NamedTuple):
    """What came of one batch.

    Attributes:
        indices: its sentences, row by row.
        results: what was kept of `Decoded`, numpy arrays; rows beyond the sentences mean nothing.
        seconds: the time that it took, divided by its sentences.
    """

    indices: list[int]
    results: Any
    seconds: float


def passes(
    decode: Decode,
    params: PyTree,
    plan: Iterable[tuple[Shape, list[int]]],
    sources: Sequence[list[int]],
    golden: Sequence[int] | None = None,
    keep: Callable[[Decoded], Any] = lambda decoded: decoded,
) -> Iterator[Pass]:
    """Decodes batches, at most `AHEAD` of them under way, so that the device does not wait for the host.

    Args:
        decode: of `make_decode`.
        params: see `decode`.
        plan: static shape and sentences of each batch.
        sources: piece ids of each sentence, eos included.
        golden: target lengths of the sentences, to override predicted ones.
        keep: picks from `Decoded`; the rest stays on the device.

    Yields:
        The batches in the order of the plan.
    """

    def begin(shape: Shape, indices: list[int]) -> tuple[list[int], Any, float]:
        lengths = None if golden is None else [golden[i] for i in indices]
        arguments = arrays(shape, [sources[i] for i in indices], lengths)
        started = time.perf_counter()
        results = keep(decode(params, *arguments))
        jax.tree.map(lambda array: array.copy_to_host_async(), results)
        return indices, results, started

    waiting, free = deque(plan), 0.0
    under_way: deque[tuple[list[int], Any, float]] = deque()
    while waiting or under_way:
        while waiting and len(under_way) < AHEAD:
            under_way.append(begin(*waiting.popleft()))
        indices, results, started = under_way.popleft()
        results = jax.device_get(results)
        # The device takes batches one after another: this one's time began when the one before it was done.
        began, free = max(started, free), time.perf_counter()
        yield Pass(indices, results, (free - began) / len(indices))


def arrays(
    shape: Shape, sources: list[list[int]], golden: list[int] | None = None
) -> tuple[Array, Array, Array | None]:
    """The batch of a shape: source i32[B, S], its lengths i32[B], golden lengths i32[B] | None.

    Rows beyond the sentences hold an empty one: eos alone, length 1.
    """
    source_BS = np.zeros((shape.rows, shape.S), np.int32)
    source_BS[:, 0] = EOS
    lengths_B = np.ones(shape.rows, np.int32)
    for row, ids in enumerate(sources):
        source_BS[row, : len(ids)] = ids
        lengths_B[row] = len(ids)
    if golden is None:
        return jnp.asarray(source_BS), jnp.asarray(lengths_B), None
    golden_B = np.ones(shape.rows, np.int32)
    golden_B[: len(golden)] = golden
    return jnp.asarray(source_BS), jnp.asarray(lengths_B), jnp.asarray(golden_B)
