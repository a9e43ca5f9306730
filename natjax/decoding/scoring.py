"""Log-probabilities of given translations: what the model says of them, whatever it would have said itself.

An autoregressive model is given the target, one place to the right (teacher forcing). CTC's loss is exactly the
log-probability of a target, summed over all alignments.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax import ctc
from natjax.config import Config
from natjax.decoding import beam
from natjax.decoding.passes import arrays
from natjax.decoding.shapes import batches
from natjax.errors import DataError, UserError
from natjax.frames import target_limit
from natjax.layers.stack import stacked
from natjax.models import NAT, Model, Transformer
from natjax.objectives.base import Objective
from natjax.objectives.training import shifted
from natjax.typing import Array, PyTree

LogProbs = Callable[..., Array]


class Score(NamedTuple):
    """How probable one target is.

    Attributes:
        sum: its log-probability, nats; -inf where the model cannot say it at all.
        mean: the sum divided by the tokens; of a target without any, the sum.
        tokens: its pieces, and eos where the model's targets end in one.
    """

    sum: float
    mean: float
    tokens: int


def make_teacher_forced(model: Transformer) -> LogProbs:
    """log p(target | source) of an autoregressive model.

    Args:
        model: the model; its parameters are an argument.

    Returns:
        `log_probs(params, source i32[B, S], source_lengths i32[B], target i32[R, N], target_lengths i32[R]) -> f32[R]`,
        compiled; R is a multiple of B, and R/B neighbouring targets are of one source, which is encoded once. Targets
        end in eos; one of length 0 scores 0. `params` are the model's, as they are or from `single_pass.prepare` or
        `autoregressive.prepare`.
    """

    def log_probs(params: PyTree, source: Array, source_lengths: Array, target: Array, target_lengths: Array) -> Array:
        variables = {"params": stacked(params)}
        memory_BSD = model.apply(variables, source, source_lengths, method="encode")
        memory_RSD, source_lengths_R = _for_each(target.shape[0], memory_BSD, source_lengths)
        hidden_RND = model.apply(variables, shifted(target), memory_RSD, source_lengths_R, method="decode")
        return beam.score(model.apply(variables, hidden_RND, method="project"), target, target_lengths).total

    return jax.jit(log_probs)


def make_all_alignments(model: NAT, objective: Objective) -> LogProbs:
    """log p(target | source) of a model trained with CTC.

    Args:
        model: the model; its parameters are an argument.
        objective: tells frame counts.

    Returns:
        As `make_teacher_forced`; -inf for a target that needs more frames than its source gives.
    """

    def log_probs(params: PyTree, source: Array, source_lengths: Array, target: Array, target_lengths: Array) -> Array:
        variables = {"params": stacked(params)}
        memory_BSD = model.apply(variables, source, source_lengths, method="encode")
        frame_lengths_B = objective.frames(source_lengths, source_lengths)
        T = objective.max_frames(source.shape[1], target.shape[1])
        head = model.apply(variables, memory_BSD, source_lengths, frame_lengths_B, T, method="predict")
        hidden_RTD, frame_lengths_R = _for_each(target.shape[0], head.hidden, frame_lengths_B)
        return -ctc.linear_ctc_loss(
            hidden_RTD, head.kernel, frame_lengths_R, target, target_lengths, bias=head.bias, infeasible="inf"
        )

    return jax.jit(log_probs)


def _for_each(rows: int, *arrays: Array) -> list[Array]:
    """Each row so many times that there are `rows` of them, neighbours alike."""
    return [jnp.repeat(array, rows // array.shape[0], axis=0) for array in arrays]


class Scorer(NamedTuple):
    """How the pairs of a model are scored: the compiled function, and the static shapes that it is given.

    Attributes:
        log_probs: of a function above.
        limits: most pieces of a source and of a target, eos included; None: any.
        length: padded length that a pair asks for, from the lengths of its sides.
        longest: the largest of these.
        width: padded target length that goes with it. Longer targets are cut: for CTC, where they have probability 0.
    """

    log_probs: LogProbs
    limits: tuple[int, int | None]
    length: Callable[[int, int], int]
    longest: int
    width: Callable[[int], int]


def scorer(model: Model, objective: Objective, config: Config) -> Scorer:
    """How a model's pairs are scored.

    Args:
        model: the model.
        objective: its loss.
        config: its run.

    Raises:
        UserError: a model that predicts lengths on its own; what it says has no probability to be told.
    """
    most = config.decoding.max_source_length
    if isinstance(model, Transformer):
        limits = most, target_limit(most, config.decoding.max_length_ratio)
        # One length for both sides: as few programs as translating needs, and sides differ little.
        return Scorer(make_teacher_forced(model), limits, max, max(limits), lambda S: S)
    if objective.needs_length:
        raise UserError(
            f"a non-autoregressive model trained with {config.objective.loss} gives translations no probability, only "
            "their length and each position on its own; score with an autoregressive model or one trained with ctc"
        )

    def width(S: int) -> int:
        return objective.max_frames(S, 0) + 1  # one more than there are frames: enough to tell what is too long

    return Scorer(make_all_alignments(model, objective), (most, None), lambda source, _: source, most, width)


def scores(
    how: Scorer,
    params: PyTree,
    sources: Sequence[list[int]],
    targets: Sequence[Sequence[list[int]]],
    batch_frames: int,
    most_rows: int | None = None,
    room: int | None = None,
) -> list[list[Score]]:
    """Scores pairs, in batches of few static shapes.

    Args:
        how: of `scorer`.
        params: the model's, as they are or prepared, see `scorer`.
        sources: piece ids of each source, eos included.
        targets: piece ids of each source's targets, with eos where the model's targets end in one.
        batch_frames: see `shapes.batches`.
        most_rows: see `shapes.batches`.
        room: of how many targets a source a batch has room for; None: the most that one has here.

    Returns:
        The scores of each source's targets.

    Raises:
        DataError: a line is too long; nothing has been scored.
    """
    _check_lengths("source", enumerate(sources, 1), how.limits[0])
    _check_lengths("target", ((line, ids) for line, some in enumerate(targets, 1) for ids in some), how.limits[1])
    most = room or max(map(len, targets), default=0)
    found: list[list[Score]] = [[] for _ in sources]
    if most == 0:
        return found
    lengths = [how.length(len(s), max(map(len, some), default=0)) for s, some in zip(sources, targets, strict=True)]
    plan = batches(lengths, how.longest, batch_frames, lambda S: most * how.width(S), most_rows)
    for shape, indices in plan:
        N = how.width(shape.S)
        target_BCN = np.zeros((shape.rows, most, N), np.int32)
        lengths_BC = np.zeros((shape.rows, most), np.int32)
        for row, index in enumerate(indices):
            for place, ids in enumerate(targets[index]):
                target_BCN[row, place, : len(ids[:N])], lengths_BC[row, place] = ids[:N], len(ids[:N])
        source_BS, source_lengths_B, _ = arrays(shape, [sources[i] for i in indices])
        targets_RN, lengths_R = jnp.asarray(target_BCN.reshape(-1, N)), jnp.asarray(lengths_BC.reshape(-1))
        total_R = jax.device_get(how.log_probs(params, source_BS, source_lengths_B, targets_RN, lengths_R))
        for total_C, index in zip(total_R.reshape(shape.rows, most), indices, strict=False):
            for total, ids in zip(total_C.tolist(), targets[index], strict=False):
                found[index].append(Score(total, total / max(len(ids), 1), len(ids)))
    return found


def _check_lengths(name: str, rows: Iterable[tuple[int, list[int]]], limit: int | None) -> None:
    long = [(line, len(ids)) for line, ids in rows if limit is not None and len(ids) > limit]
    if long:
        others = f" (and {len(long) - 1:,} more lines)" if len(long) > 1 else ""
        raise DataError(
            f"line {long[0][0]:,}{others}: a {name} of {long[0][1]:,} pieces, eos included, but the model's config "
            f"allows {limit:,} (decoding.max_source_length); leave it out, or raise that in its config.json"
        )
