"""The logits of a few tokens a row, from hidden states and an output kernel, without those of the others."""

import jax.numpy as jnp

from natjax.ctc import _head, _problem
from natjax.ctc._check import validate_head_and_labels
from natjax.typing import Array, Head


def linear_label_logits(hidden: Array, kernel: Array, labels: Array, *, bias: Array | None = None) -> Array:
    """The logits hidden · kernel + bias of some tokens, the same ones at every frame of a row.

    D products each, of gathered columns of the kernel. With `linear_top_k`'s log Σ exp they are log-probabilities.

    Args:
        hidden: [B, T, D], as `linear_top_k`.
        kernel: [D, V], of any floating dtype.
        labels: i32[B, U]; ids outside the vocabulary read NaN.
        bias: [V], or None.

    Returns:
        f32[B, T, U] (f64).

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> ctc.linear_label_logits(jnp.array([[[1.0, 2.0, 3.0]]]), jnp.eye(3), jnp.array([[2, 0]])).tolist()
        [[[3.0, 1.0]]]
    """
    validate_head_and_labels(Head(hidden, kernel, bias), labels, 0)
    hidden, kernel, labels, bias = _problem.alike((hidden, kernel, labels, bias))
    dtype = _head.operand_dtype(hidden.dtype)
    labels = jnp.where(labels < 0, kernel.shape[1], labels)  # a negative id would count from the end
    columns_BUD = jnp.take(kernel.T, labels, axis=0, mode="fill", fill_value=jnp.nan).astype(dtype)
    logits_BTU = jnp.einsum(
        "btd,bud->btu", hidden.astype(dtype), columns_BUD, preferred_element_type=_head.accumulator(hidden)
    )
    if bias is None:
        return logits_BTU
    bias_BU = jnp.take(bias, labels, mode="fill", fill_value=jnp.nan)
    return logits_BTU + bias_BU.astype(logits_BTU.dtype)[:, None, :]
