"""An output projection, hidden · kernel + bias: its products, its gradients, and how its axes are cut into pieces.

R stands for rows, frames of all sentences one after the other; X for some of the V columns.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from natjax.typing import Array, Head


def accumulator(array: Array) -> jnp.dtype:
    """In which dtype sums over this array are carried."""
    return jnp.dtype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


@functools.cache
def bfloat16_is_fast() -> bool:
    """Whether products of bfloat16 outrun those of float32 here.

    Accelerators and CPUs with matrix tiles (AMX) do so, and AMD's with AVX512-BF16; on others XLA takes longer over
    them (benchmarks/results/ctc/products.json).
    """
    if jax.default_backend() != "cpu":
        return True
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in facts or ("AuthenticAMD" in facts and "avx512_bf16" in facts)


def operand_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """In which dtype the functions of hidden states take the operands of their products here.

    A kernel that is kept in this dtype need not be converted in every call.

    Args:
        dtype: that of the hidden states.

    Returns:
        The same; but float32, which is as exact and faster, for bfloat16 on CPUs that take longer over it.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> ctc.operand_dtype(jnp.float32)
        dtype('float32')
    """
    return jnp.dtype(jnp.float32 if dtype == jnp.bfloat16 and not bfloat16_is_fast() else dtype)


def logits(hidden_RD: Array, kernel_DX: Array, bias_X: Array | None) -> Array:
    logits_RX = product(hidden_RD, kernel_DX, 1, 0)
    return logits_RX if bias_X is None else logits_RX + bias_X.astype(logits_RX.dtype)[None, :]


def mean_logit(head: Head) -> Array:
    """mean_v of the logits, [R], without the logits."""
    (B, T, D), dtype = head.hidden.shape, accumulator(head.hidden)
    hidden_RD = head.hidden.reshape(B * T, D).astype(dtype)
    mean_R = product(hidden_RD, jnp.mean(head.kernel.astype(dtype), axis=1)[:, None], 1, 0)[:, 0]
    return mean_R if head.bias is None else mean_R + jnp.mean(head.bias.astype(dtype))


def to_hidden(slope_RX: Array, kernel_DX: Array) -> Array:
    """The gradient of the hidden states, [R, D], from that of the logits."""
    return product(slope_RX.astype(kernel_DX.dtype), kernel_DX, 1, 1)


def to_kernel(slope_RX: Array, hidden_RD: Array) -> Array:
    """The gradient of the kernel, [D, X], from that of the logits.

    What stands in a row of the hidden states without gradient must be finite: 0 times NaN is not 0.
    """
    dtype = hidden_RD.dtype
    # Over rows XLA on CPU contracts bfloat16 no faster than float32, which is more exact.
    if jax.default_backend() == "cpu" and dtype == jnp.bfloat16:
        dtype = jnp.float32
    return product(hidden_RD.astype(dtype), slope_RX.astype(dtype), 0, 0)


def to_bias(slope_RX: Array, bias_X: Array | None) -> Array | None:
    """The gradient of the bias, [X], from that of the logits; None where there is no bias."""
    return None if bias_X is None else jnp.sum(slope_RX, axis=0)


def product(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=accumulator(left))


def pieces(size: int, bytes_of_one: int, budget: int) -> int:
    """Into how many pieces an axis is cut so that none holds more bytes than the budget, if it can."""
    most = max(1, budget // max(1, bytes_of_one))
    return max(1, -(-size // most))


def even_pieces(size: int, bytes_of_one: int, budget: int) -> int:
    """As `pieces`, but up to twice as many if that makes them equal."""
    fewest = pieces(size, bytes_of_one, budget)
    return next((n for n in range(fewest, 2 * fewest + 1) if size % n == 0), fewest)


def runs(array: Array, number: int) -> Array:
    """Cuts the first axis into runs of neighbours [number, size, ...], padded with 0 at the end."""
    size = -(-array.shape[0] // number)
    padding = [(0, number * size - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(number, size, *array.shape[1:])


def whole(parts: Array, size: int) -> Array:
    """Undoes `runs`."""
    return parts.reshape(parts.shape[0] * parts.shape[1], *parts.shape[2:])[:size]


def strided(array: Array, number: int, axis: int, fill: float = 0.0) -> Array:
    """Cuts an axis: piece i has the places i, i + number, i + 2·number, …; the pieces come first, padded at the end."""
    size = -(-array.shape[axis] // number)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, number * size - array.shape[axis])
    array = jnp.pad(array, padding, constant_values=fill if jnp.issubdtype(array.dtype, jnp.floating) else 0)
    shape = (*array.shape[:axis], size, number, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis + 1, 0)


def joined(parts: Array, size: int, axis: int) -> Array:
    """Undoes `strided`."""
    array = jnp.moveaxis(parts, 0, axis + 1)
    shape = (*array.shape[:axis], array.shape[axis] * array.shape[axis + 1], *array.shape[axis + 2 :])
    return lax.slice_in_dim(array.reshape(shape), 0, size, axis=axis)
