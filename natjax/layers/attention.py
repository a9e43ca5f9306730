"""Multi-head attention; keys beyond a row's length, or behind a causal mask, weigh exactly zero.

Decoding token by token keeps the keys and values of earlier positions, and never moves them. With W hypotheses a
sentence there are W slots; slot w's position n is written once, at step n, by the hypothesis that is then the w-th.
When a beam is reordered, only a small table changes: `ancestors_BWN` says in which slot each position of a hypothesis
lies. Attention looks at all N·W keys and masks those of others: more products than a gathered cache would need, but
they are small, and no cache is copied.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from natjax.layers.linear import dense, initializer
from natjax.typing import Array


def attend(
    query_BTHK: Array, key_BSHK: Array, value_BSHK: Array, key_lengths_B: Array, *, causal: bool = False
) -> Array:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), softmax in float32.

    Args:
        query_BTHK: [B, T, H, K], float32 or bfloat16.
        key_BSHK: [B, S, H, K].
        value_BSHK: [B, S, H, K].
        key_lengths_B: i32[B], at least 1: keys at and beyond it are not seen.
        causal: whether query t sees the keys up to t only.

    Returns:
        [B, T, H, K] in the query's dtype.
    """
    width = query_BTHK.shape[-1]
    query_BTHK = query_BTHK * np.asarray(width**-0.5, query_BTHK.dtype)
    scores_BHTS = jnp.einsum("bthk,bshk->bhts", query_BTHK, key_BSHK, preferred_element_type=jnp.float32)
    seen_BS = jnp.arange(key_BSHK.shape[1])[None, :] < key_lengths_B[:, None]
    seen_BHTS = seen_BS[:, None, None, :]
    if causal:
        T, S = scores_BHTS.shape[2:]
        seen_BHTS = seen_BHTS & (np.arange(S)[None, :] <= np.arange(T)[:, None])[None, None]
    scores_BHTS = jnp.where(seen_BHTS, scores_BHTS, -jnp.inf)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1).astype(value_BSHK.dtype)
    mixed_BTHK = jnp.einsum("bhts,bshk->bthk", weights_BHTS, value_BSHK, preferred_element_type=jnp.float32)
    return mixed_BTHK.astype(query_BTHK.dtype)


class KeysValues(NamedTuple):
    """What one layer's attention looks at when decoding token by token, in the compute dtype.

    Attributes:
        keys: [B·H, K, N·W], position by position and in each slot by slot, or [B·H, K, S], those of a memory. Flat,
            as a product takes them: behind a reshape XLA would fuse the write with it, and copy the cache at each step.
            The width stands first, else the product would turn all keys round at each step.
        values: [B·H, N·W, K] or [B·H, S, K].
    """

    keys: Array
    values: Array


def visible(ancestors_BWN: Array, position: Array) -> Array:
    """Which cached keys each hypothesis sees, bool[B, W, N·W].

    Args:
        ancestors_BWN: i32[B, W, N], the slot in which each position of a hypothesis lies; its own at `position`.
        position: i32[], the last position that has been written.
    """
    B, W, N = ancestors_BWN.shape
    theirs_BWNW = ancestors_BWN[..., None] == np.arange(W, dtype=np.int32)[None, None, None, :]
    return (theirs_BWNW & (np.arange(N) <= position)[None, None, :, None]).reshape(B, W, N * W)


def attend_cached(query_BWHK: Array, cached: KeysValues, seen_BWM: Array) -> Array:
    """`attend` of one position of each hypothesis over cached keys.

    Args:
        query_BWHK: [B, W, H, K].
        cached: keys [B·H, K, M] and values [B·H, M, K].
        seen_BWM: bool[B, W or 1, M]; each hypothesis sees at least one.

    Returns:
        [B, W, H, K] in the query's dtype.
    """
    B, W, H, K = query_BWHK.shape
    query_XWK = _heads_first(query_BWHK * np.asarray(K**-0.5, query_BWHK.dtype))
    scores_XWM = jnp.einsum("xwk,xkm->xwm", query_XWK, cached.keys, preferred_element_type=jnp.float32)
    scores_BHWM = jnp.where(seen_BWM[:, None], scores_XWM.reshape(B, H, W, -1), -jnp.inf)
    weights_XWM = jax.nn.softmax(scores_BHWM, axis=-1).astype(cached.values.dtype).reshape(scores_XWM.shape)
    mixed_XWK = jnp.einsum("xwm,xmk->xwk", weights_XWM, cached.values, preferred_element_type=jnp.float32)
    return jnp.swapaxes(mixed_XWK.reshape(B, H, W, K), 1, 2).astype(query_BWHK.dtype)


def _heads_first(parts_BSHK: Array) -> Array:
    """[B, S, H, K] -> [B·H, S, K]."""
    B, S, H, K = parts_BSHK.shape
    return jnp.swapaxes(parts_BSHK, 1, 2).reshape(B * H, S, K)


class _Projection(nn.Module):
    """Dense layer [..., D] -> `parts` times [..., D] with one fused kernel."""

    parts: int
    kind: Literal["bert", "xavier"]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        # Each part is initialised as a matrix of its own, so fusing changes no statistics.
        width = x.shape[-1]
        product = dense(self, x, "kernel", initializer(self.kind, width, width), self.parts * width, self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.parts * width,))
        y = (product + bias.reshape((1,) * (x.ndim - 1) + bias.shape)).astype(self.dtype)
        return tuple(jnp.split(y, self.parts, axis=-1))


class Attention(nn.Module):
    """Multi-head attention of x over itself, or over a memory.

    Attributes:
        heads: H.
        initializer: kind of initial values.
        dtype: compute dtype.
        causal: whether a position sees only itself and those before it.
    """

    heads: int
    initializer: Literal["bert", "xavier"]
    dtype: jnp.dtype
    causal: bool = False

    def setup(self) -> None:
        """Declares the projections; only those that are used get parameters."""
        kind, dtype = self.initializer, self.dtype
        self.qkv, self.out = _Projection(3, kind, dtype), _Projection(1, kind, dtype)
        self.q, self.kv = _Projection(1, kind, dtype), _Projection(2, kind, dtype)

    def __call__(self, x_BTD: Array, key_lengths_B: Array, memory_BSD: Array | None = None) -> Array:
        """[B, T, D] -> [B, T, D]; keys and values come from the memory [B, S, D] where one is given."""
        if memory_BSD is None:
            query, key, value = self.qkv(x_BTD)
        else:
            (query,) = self.q(x_BTD)
            key, value = self.kv(memory_BSD)
        query, key, value = map(self._split, (query, key, value))
        return self._merge(attend(query, key, value, key_lengths_B, causal=self.causal))

    def remember(self, memory_BSD: Array) -> KeysValues:
        """The memory's keys [B·H, K, S] and values [B·H, S, K], for `recall`."""
        keys, values = (_heads_first(self._split(part)) for part in self.kv(memory_BSD))
        return KeysValues(jnp.swapaxes(keys, 1, 2), values)

    def recall(self, x_BWD: Array, remembered: KeysValues, seen_BWS: Array) -> Array:
        """[B, W, D] -> [B, W, D]: attention over a memory whose keys and values are known."""
        (query,) = self.q(x_BWD)
        return self._merge(attend_cached(self._split(query), remembered, seen_BWS))

    def step(self, x_BWD: Array, cached: KeysValues, seen_BWM: Array, position: Array) -> tuple[Array, KeysValues]:
        """[B, W, D] -> [B, W, D]: self-attention of one position, whose keys and values are written into the cache."""
        query, key, value = map(self._split, self.qkv(x_BWD))
        new, place = KeysValues(jnp.swapaxes(_heads_first(key), 1, 2), _heads_first(value)), position * x_BWD.shape[1]
        cached = KeysValues(
            jax.lax.dynamic_update_slice_in_dim(cached.keys, new.keys, place, axis=2),
            jax.lax.dynamic_update_slice_in_dim(cached.values, new.values, place, axis=1),
        )
        return self._merge(attend_cached(query, cached, seen_BWM)), cached

    def _split(self, y_BTD: Array) -> Array:
        return y_BTD.reshape(*y_BTD.shape[:2], self.heads, -1)

    def _merge(self, mixed_BTHK: Array) -> Array:
        (out,) = self.out(mixed_BTHK.reshape(*mixed_BTHK.shape[:2], -1))
        return out
