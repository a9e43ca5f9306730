"""Log-probabilities of given translations: what the model says of them, whatever it would have said itself.

An autoregressive model is given the target, one place to the right (teacher forcing). CTC's loss is exactly the
log-probability of a target, summed over all alignments.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from natjax import ctc
from natjax.config import Config
from natjax.decoding import beam, single_pass
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
        `log_probs(params, source i32[B, S], source_lengths i32[B], target i32[B, N], target_lengths i32[B]) -> f32[B]`,
        compiled. Targets end in eos; one of length 0 scores 0. `params` are the model's, as they are or from
        `single_pass.prepare` or `autoregressive.prepare`.
    """

    def log_probs(params: PyTree, source: Array, source_lengths: Array, target: Array, target_lengths: Array) -> Array:
        variables = {"params": stacked(params)}
        memory_BSD = model.apply(variables, source, source_lengths, method="encode")
        hidden_BND = model.apply(variables, shifted(target), memory_BSD, source_lengths, method="decode")
        return beam.score(model.apply(variables, hidden_BND, method="project"), target, target_lengths).total

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
        frame_lengths_B = objective.frames(source_lengths, target_lengths)
        T = objective.max_frames(source.shape[1], target.shape[1])
        head = model.apply(variables, memory_BSD, source_lengths, frame_lengths_B, T, method="predict")
        return -ctc.linear_ctc_loss(
            head.hidden, head.kernel, frame_lengths_B, target, target_lengths, bias=head.bias, infeasible="inf"
        )

    return jax.jit(log_probs)


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
    targets: Sequence[list[int]],
    batch_frames: int,
    most_rows: int | None = None,
) -> list[Score]:
    """Scores pairs, in batches of few static shapes.

    Args:
        how: of `scorer`.
        params: the model's, as they are or prepared, see `scorer`.
        sources: piece ids of each source, eos included.
        targets: piece ids of each target, with eos where the model's targets end in one.
        batch_frames: see `shapes.batches`.
        most_rows: see `shapes.batches`.

    Raises:
        DataError: a line is too long; nothing has been scored.
    """
    for name, rows, limit in zip(("source", "target"), (sources, targets), how.limits, strict=True):
        _check_lengths(name, rows, limit)
    found: list[Score | None] = [None] * len(sources)
    lengths = [how.length(len(s), len(t)) for s, t in zip(sources, targets, strict=True)]
    for shape, indices in batches(lengths, how.longest, batch_frames, how.width, most_rows):
        source_BS, source_lengths_B, _ = single_pass.arrays(shape, [sources[i] for i in indices])
        N = how.width(shape.S)
        target_BN, lengths_B = np.zeros((shape.rows, N), np.int32), np.zeros(shape.rows, np.int32)
        for row, index in enumerate(indices):
            ids = targets[index][:N]
            target_BN[row, : len(ids)], lengths_B[row] = ids, len(ids)
        arguments = source_BS, source_lengths_B, jnp.asarray(target_BN), jnp.asarray(lengths_B)
        total_B = jax.device_get(how.log_probs(params, *arguments))
        for row, index in enumerate(indices):
            total, tokens = float(total_B[row]), len(targets[index])
            found[index] = Score(total, total / max(tokens, 1), tokens)
    return found


def _check_lengths(name: str, rows: Sequence[list[int]], limit: int | None) -> None:
    long = [place for place, row in enumerate(rows, 1) if limit is not None and len(row) > limit]
    if long:
        others = f" (and {len(long) - 1:,} more lines)" if len(long) > 1 else ""
        raise DataError(
            f"line {long[0]:,}{others}: a {name} of {len(rows[long[0] - 1]):,} pieces, eos included, but the model's "
            f"config allows {limit:,} (decoding.max_source_length); leave it out, or raise that in its config.json"
        )
