"""The output projection: hidden states and a kernel [D, V], kept apart until somebody needs scores."""

from natjax.layers.linear import matmul
from natjax.typing import Array, Head


def logits(head: Head) -> Array:
    """hidden · kernel + bias, f32[B, T, V]."""
    scores = matmul(head.hidden, head.kernel, head.hidden.dtype)
    return scores if head.bias is None else scores + head.bias[None, None, :]
