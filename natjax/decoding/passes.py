"""Batches through a compiled function, some under way at a time; and what every way of decoding gives for one."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax.decoding.shapes import Shape
from natjax.typing import EOS, Array, PyTree

AHEAD = 4  # batches under way at a time: enough to hide the host's work, few enough to bound memory


class Hypotheses(NamedTuple):
    """Several translations of each sentence.

    Attributes:
        tokens: i32[B, W, T], packed to the left, padded with 0.
        lengths: i32[B, W].
        sums: f32[B, W], nats, what adds up over the parts of a line: log-probabilities, not divided by any length; of a
            search over CTC's frames, with language model and bonus. −inf where there is no hypothesis.
        ctc_scores: f32[B, W], of a search over CTC's frames, see `ctc.BeamResult`; None of what else there is.
        lm_scores: f32[B, W], the same; None without a language model, too.
    """

    tokens: Array
    lengths: Array
    sums: Array
    ctc_scores: Array | None = None
    lm_scores: Array | None = None


class Decoded(NamedTuple):
    """Translations of one batch.

    Attributes:
        tokens: i32[B, T], collapsed, packed to the left, padded with 0.
        lengths: i32[B], tokens in each row.
        frames: i32[B, T], what each frame emits, 0 beyond the row's frames; of a search, the tokens.
        frame_lengths: i32[B].
        scores: f32[B], nats: Σ over frames of the log-probability of what is emitted; of a search, the log-probability
            that its model gives the tokens.
        n_best: all hypotheses, the best first, of a search or of several tries; None where there is one.
    """

    tokens: Array
    lengths: Array
    frames: Array
    frame_lengths: Array
    scores: Array
    n_best: Hypotheses | None = None


Decode = Callable[..., Decoded]


class Pass(NamedTuple):
    """What came of one batch.

    Attributes:
        indices: its sentences, row by row.
        results: what `finish` has made of what was kept of `Decoded`.
        seconds: the time that it took, that of `finish` included, divided by its sentences.
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
    prefixes: Sequence[list[int]] | None = None,
    keep: Callable[[Decoded], Any] = lambda decoded: decoded,
    finish: Callable[[list[int], Any], Any] = lambda indices, kept: kept,
) -> Iterator[Pass]:
    """Decodes batches, at most `AHEAD` of them under way, so that the device does not wait for the host.

    Args:
        decode: of `make_decode` in `single_pass` or `autoregressive`.
        params: see `decode`.
        plan: static shape and sentences of each batch.
        sources: piece ids of each sentence, eos included.
        golden: target lengths of the sentences, to override predicted ones.
        prefixes: pieces that the sentences' translations begin with, where `decode` takes such.
        keep: picks from `Decoded`; the rest stays on the device.
        finish: what the host, or a teacher, still has to do: given the sentences and what was kept, numpy arrays whose
            rows beyond the sentences mean nothing.

    Yields:
        The batches in the order of the plan.
    """

    def begin(shape: Shape, indices: list[int]) -> tuple[list[int], Any, float]:
        lengths = None if golden is None else [golden[i] for i in indices]
        arguments = arrays(shape, [sources[i] for i in indices], lengths)
        forced = {} if prefixes is None else {"prefixes": [prefixes[i] for i in indices]}
        started = time.perf_counter()
        results = keep(decode(params, *arguments, **forced))
        jax.tree.map(lambda array: array.copy_to_host_async(), results)
        return indices, results, started

    waiting, free = deque(plan), 0.0
    under_way: deque[tuple[list[int], Any, float]] = deque()
    while waiting or under_way:
        while waiting and len(under_way) < AHEAD:
            under_way.append(begin(*waiting.popleft()))
        indices, results, started = under_way.popleft()
        results = finish(indices, jax.device_get(results))
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


def unpadded(ids_BT: np.ndarray, lengths_B: np.ndarray, count: int) -> list[list[int]]:
    """The first `count` rows without their padding."""
    return [ids_BT[row, : lengths_B[row]].tolist() for row in range(count)]


def on_cpu(rows: int) -> int | None:
    """A limit that is for CPU only; None elsewhere."""
    return rows if jax.default_backend() == "cpu" else None
