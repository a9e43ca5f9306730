"""Matrix products in the compute dtype with float32 accumulation, initialisers, layer normalisation.

On CPU XLA runs bfloat16 operands fast only when the product's element type is float32, and weight gradients, which
contract over rows, gain nothing from bfloat16. `matmul` writes both products of the backward pass down accordingly.

A step of decoding has few rows. There XLA on CPU spends much of a product on packing its right operand, which is the
kernel; as the left operand, with the outputs as rows, it is read as it lies. `turned` prepares parameters for that.
"""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from natjax.typing import Array, PyTree

FEW_ROWS = 32
"""Up to so many rows a turned kernel is the left operand; with more, XLA's packing of the right one pays."""

_TURNED = "turned_"
Initializer = Callable[..., Array]


def matmul(x: Array, kernel: Array, dtype: jnp.dtype) -> Array:
    """x · kernel, operands in `dtype`, accumulated in float32.

    Args:
        x: [..., D], float32 or bfloat16.
        kernel: f32[D, E].
        dtype: float32 or bfloat16.

    Returns:
        f32[..., E]. The gradient of x has x's dtype, the gradient of the kernel is float32.
    """
    # Two dimensions: contracting over a batch of rows in two axes leaves XLA's fast path on CPU.
    flat = x.reshape(-1, x.shape[-1])
    product = _contract(flat.astype(jnp.float32), kernel, 1, 0) if dtype == jnp.float32 else _matmul_bf16(flat, kernel)
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


def dense(module: nn.Module, x: Array, name: str, values: Initializer, outputs: int, dtype: jnp.dtype) -> Array:
    """`matmul` with a kernel [D, outputs] of the module's parameters, which may be `turned`.

    Args:
        module: whose parameter it is.
        x: [..., D].
        name: of the kernel.
        values: initial ones.
        outputs: E.
        dtype: see `matmul`.
    """
    if module.has_variable("params", _TURNED + name):
        return _matmul_turned(x, module.get_variable("params", _TURNED + name))
    return matmul(x, module.param(name, values, (x.shape[-1], outputs)), dtype)


def turned(params: PyTree) -> PyTree:
    """Nested parameters with the float32 kernels that `dense` takes turned, [..., D, E] -> [..., E, D], and renamed."""
    if not isinstance(params, dict):
        return tuple(map(turned, params)) if isinstance(params, tuple) else params
    return {
        **{name: turned(part) for name, part in params.items() if not _can_turn(name, part)},
        **{_TURNED + name: jnp.swapaxes(part, -1, -2) for name, part in params.items() if _can_turn(name, part)},
    }


def _can_turn(name: str, part: PyTree) -> bool:
    return name in ("kernel", "up_kernel", "down_kernel") and part.dtype == jnp.float32


def _matmul_turned(x: Array, kernel_ED: Array) -> Array:
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    few = flat.shape[0] <= FEW_ROWS
    product = _contract(kernel_ED, flat, 1, 1).T if few else _contract(flat, kernel_ED, 1, 1)
    return product.reshape(*x.shape[:-1], kernel_ED.shape[0])


def _contract(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _matmul_bf16(x: Array, kernel: Array) -> Array:
    return _contract(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), 1, 0)


def _matmul_bf16_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _matmul_bf16(x, kernel), (x, kernel)


def _matmul_bf16_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    to_x = _contract(gradient.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), 1, 1)
    # Contraction over rows: float32 operands on CPU, where bfloat16 is no faster; accelerators want bfloat16.
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    to_kernel = _contract(x.astype(dtype), gradient.astype(dtype), 0, 0)
    return to_x.astype(x.dtype), to_kernel


_matmul_bf16.defvjp(_matmul_bf16_forward, _matmul_bf16_backward)


def initializer(kind: Literal["bert", "xavier"], fan_in: int, fan_out: int) -> Initializer:
    """bert: normal(0, 0.02), as the official release; xavier: uniform(±√(6 / (fan_in + fan_out)))."""
    if kind == "bert":
        return jax.nn.initializers.normal(0.02)
    return functools.partial(_uniform, limit=float(np.sqrt(6 / (fan_in + fan_out))))


def fan_in(width: int) -> Initializer:
    """uniform(±1/√width), with `width` inputs: what PyTorch's Linear begins with."""
    return functools.partial(_uniform, limit=float(width**-0.5))


def _uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32, *, limit: float) -> Array:
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def layer_norm(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    """Layer normalisation over the last axis, computed in float32.

    Args:
        x: [..., D], float32 or bfloat16.
        scale: f32[D].
        bias: f32[D].
        epsilon: added to the variance.

    Returns:
        [..., D] in x's dtype.
    """
    x32 = x.astype(jnp.float32)
    mean = x32.mean(axis=-1, keepdims=True)
    centred = x32 - mean
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    shape = (1,) * (x.ndim - 1) + scale.shape
    normal = centred * lax.rsqrt(variance + np.float32(epsilon)) * scale.reshape(shape) + bias.reshape(shape)
    return normal.astype(x.dtype)
