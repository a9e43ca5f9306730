"""Products, initialisers and normalisation against numpy; the CPU's fast path in the compiled text."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from natjax.layers.linear import FEW_ROWS, dense, initializer, layer_norm, matmul, turned

F32, BF16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)


def _operands(dtype=jnp.float32):
    generator = np.random.default_rng(0)
    return (jnp.asarray(generator.normal(size=(3, 5, 16)), dtype), jnp.asarray(generator.normal(size=(16, 7)), F32))


def test_float32_product_and_gradients():
    x, kernel = _operands()
    np.testing.assert_allclose(matmul(x, kernel, F32), np.asarray(x) @ np.asarray(kernel), rtol=1e-5, atol=1e-5)
    weight = np.random.default_rng(1).normal(size=(3, 5, 7)).astype(np.float32)
    to_x, to_kernel = jax.grad(lambda x, k: (matmul(x, k, F32) * weight).sum(), argnums=(0, 1))(x, kernel)
    np.testing.assert_allclose(to_x, weight @ np.asarray(kernel).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_kernel, np.einsum("bti,bto->io", x, weight), rtol=1e-5, atol=1e-5)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return dense(self, x, "kernel", initializer("bert", 16, 7), 7, F32)


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])
def test_a_turned_kernel_gives_the_same_product(rows):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(rows, 1, 16)), jnp.float32)
    params = Dense().init(jax.random.key(0), x)["params"]
    other = turned(params)
    assert {name: kernel.shape for name, kernel in other.items()} == {"turned_kernel": (7, 16)}
    expected = np.asarray(x) @ np.asarray(params["kernel"])
    for given in (params, other, turned(other)):
        np.testing.assert_allclose(Dense().apply({"params": given}, x), expected, rtol=1e-5, atol=1e-6)


def test_only_float32_kernels_are_turned():
    params = {"layers": ({"up_kernel": jnp.ones((2, 3)), "up_bias": jnp.ones(3)}, {"kernel": jnp.ones((2, 3), BF16)})}
    first, second = turned(params)["layers"]
    assert first["turned_up_kernel"].shape == (3, 2) and first["up_bias"].shape == (3,)
    assert second["kernel"].shape == (2, 3)


def test_bfloat16_rounds_operands_only():
    x, kernel = _operands()
    rounded = [np.asarray(v.astype(BF16).astype(F32), np.float64) for v in (x, kernel)]
    product = matmul(x, kernel, BF16)
    assert product.dtype == F32
    np.testing.assert_allclose(product, rounded[0] @ rounded[1], rtol=2e-6, atol=2e-6)


def test_bfloat16_gradients_have_the_right_dtype_and_value():
    x, kernel = _operands(BF16)
    to_x, to_kernel = jax.grad(lambda x, k: matmul(x, k, BF16).sum(), argnums=(0, 1))(x, kernel)
    assert to_x.dtype == BF16
    assert to_kernel.dtype == F32
    np.testing.assert_allclose(to_kernel, np.asarray(x, np.float32).sum((0, 1))[:, None] @ np.ones((1, 7)), rtol=1e-2)


def _fast_bfloat16_cpu() -> bool:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return jax.default_backend() == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.mark.skipif(not _fast_bfloat16_cpu(), reason="this CPU has no bfloat16 instructions")
def test_bfloat16_products_take_the_fast_path_of_the_cpu():
    x, kernel = jnp.ones((64, 32, 512)), jnp.ones((512, 512))
    text = jax.jit(lambda x, k: matmul(x, k, BF16)).lower(x, kernel).compile().as_text()
    products = [line.strip() for line in text.splitlines() if " dot(" in line]
    assert len(products) == 1
    assert "= f32[2048,512]" in products[0]
    # The operands have not been widened, and the product is a call of the CPU's library.
    assert "fused_computation (param_0: bf16[2048,512], param_1: bf16[512,512])" in text
    assert "ynn_fusion" in text


def test_xavier_fills_its_range_and_bert_its_deviation():
    key = jax.random.key(0)
    xavier = np.asarray(initializer("xavier", 64, 128)(key, (64, 128)))
    limit = np.sqrt(6 / 192)
    assert np.abs(xavier).max() <= limit
    assert xavier.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
    assert np.asarray(initializer("bert", 64, 128)(key, (64, 128))).std() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_layer_norm_against_numpy(dtype):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 32)) * 5 + 3, dtype)
    scale, bias = jnp.linspace(0.5, 2, 32), jnp.linspace(-1, 1, 32)
    y = layer_norm(x, scale, bias)
    wide = np.asarray(x, np.float64)
    normal = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    assert y.dtype == dtype
    tolerance = 2e-2 if dtype == BF16 else 1e-4
    expected = normal * np.asarray(scale) + np.asarray(bias)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=tolerance, atol=tolerance)
