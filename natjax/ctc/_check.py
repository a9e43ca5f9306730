"""What can be wrong with the arguments: what shapes tell (at trace time) and what only values tell (on the host)."""

import jax.numpy as jnp
import numpy as np

from natjax.typing import Array, Head


def validate_frames(frames: Array, frame_lengths: Array) -> None:
    """Raises a ValueError or TypeError unless frames are integers [B, T] and frame_lengths integers [B]."""
    _expect("frames", frames, "[B, T]", jnp.integer)
    _expect("frame_lengths", frame_lengths, "[B]", jnp.integer)
    _expect_same_batch(frames=frames, frame_lengths=frame_lengths)


def validate_labels(labels: Array, label_lengths: Array, logit_lengths: Array) -> None:
    """Raises a ValueError or TypeError unless labels are integers [B, N] and both lengths integers [B]."""
    _expect("labels", labels, "[B, N]", jnp.integer)
    _expect("label_lengths", label_lengths, "[B]", jnp.integer)
    _expect("logit_lengths", logit_lengths, "[B]", jnp.integer)
    _expect_same_batch(labels=labels, label_lengths=label_lengths, logit_lengths=logit_lengths)


def validate_logits(logits: Array, labels: Array, blank_id: int) -> None:
    """Raises a ValueError or TypeError unless logits are floating [B, T, V] and blank_id lies in 0..V-1."""
    validate_frame_logits(logits, blank_id)
    _expect_same_batch(logits=logits, labels=labels)


def validate_frame_logits(logits: Array, blank_id: int) -> None:
    """As `validate_logits`, where there are no labels."""
    _expect("logits", logits, "[B, T, V]", jnp.floating)
    validate_blank(blank_id, logits.shape[2], "logits have")


def validate_pruned(tokens: Array, log_probs: Array, blank: Array) -> None:
    """Raises a ValueError or TypeError unless these are integers [B, T, K], floats [B, T, K] and floats [B, T]."""
    _expect("tokens", tokens, "[B, T, K]", jnp.integer)
    _expect("log_probs", log_probs, "[B, T, K]", jnp.floating)
    _expect("blank", blank, "[B, T]", jnp.floating)
    if not tokens.shape == log_probs.shape == (*blank.shape, tokens.shape[2]):
        raise ValueError(f"the shapes differ: tokens {tokens.shape}, log_probs {log_probs.shape}, blank {blank.shape}")


def validate_logit_lengths(logit_lengths: Array, logits: Array) -> None:
    """Raises a ValueError or TypeError unless logit_lengths are integers [B]."""
    _expect("logit_lengths", logit_lengths, "[B]", jnp.integer)
    _expect_same_batch(logits=logits, logit_lengths=logit_lengths)


def validate_head(hidden: Array, kernel: Array, bias: Array | None) -> None:
    """Raises a ValueError or TypeError unless hidden is floating [B, T, D], kernel [D, V], bias [V] or None."""
    _expect("hidden", hidden, "[B, T, D]", jnp.floating)
    _expect("kernel", kernel, "[D, V]", jnp.floating)
    if hidden.shape[2] != kernel.shape[0]:
        raise ValueError(f"the widths D differ: hidden {hidden.shape[2]}, kernel {kernel.shape[0]}")
    if bias is not None:
        _expect("bias", bias, "[V]", jnp.floating)
        if bias.shape[0] != kernel.shape[1]:
            raise ValueError(f"the vocabularies V differ: kernel {kernel.shape[1]}, bias {bias.shape[0]}")


def validate_head_and_labels(head: Head, labels: Array, blank_id: int) -> None:
    """As `validate_head`; also for different batches, and for a blank_id outside 0..V-1."""
    validate_head(*head)
    _expect_same_batch(hidden=head.hidden, labels=labels)
    validate_blank(blank_id, head.kernel.shape[1], "kernel has")


def validate_weights(weights: Array, labels: Array) -> None:
    """Raises a ValueError or TypeError unless weights are floating [B]."""
    _expect("weights", weights, "[B]", jnp.floating)
    _expect_same_batch(weights=weights, labels=labels)


def validate_paddings(logits: Array, logit_paddings: Array, labels: Array, label_paddings: Array) -> None:
    """Raises a ValueError or TypeError unless paddings are arrays [B, T] and [B, N], as what they pad."""
    _expect("logits", logits, "[B, T, V]", jnp.floating)
    _expect("labels", labels, "[B, N]", jnp.integer)
    for name, paddings, shape, dimensions in (
        ("logit_paddings", logit_paddings, logits.shape[:2], "[B, T]"),
        ("label_paddings", label_paddings, labels.shape, "[B, N]"),
    ):
        _expect(name, paddings, dimensions, jnp.generic)
        if paddings.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {paddings.shape}")


def check(logits: Array, logit_lengths: Array, labels: Array, label_lengths: Array, *, blank_id: int = 0) -> None:
    """Checks on the host the values that `ctc_loss` takes on trust, and names the first row that is wrong.

    Call it once on a data set, or while hunting a NaN; it reads the arrays back from the device (not the logits,
    of which only the shape matters) and cannot run under `jax.jit`.

    Args:
        logits: float[B, T, V].
        logit_lengths: i32[B], to lie in 0..T.
        labels: i32[B, N]; within its length each id is to lie in 0..V-1 and to differ from blank_id.
        label_lengths: i32[B], to lie in 0..N.
        blank_id: the id of the blank.

    Raises:
        TypeError: an array has the wrong kind of dtype.
        ValueError: shapes do not fit, or a value is out of its range; the message names the row.

    Example:
        >>> import jax.numpy as jnp
        >>> from natjax import ctc
        >>> ctc.check(jnp.zeros((1, 4, 5)), jnp.array([4]), jnp.array([[3, 0]]), jnp.array([2]))
        Traceback (most recent call last):
            ...
        ValueError: row 0: labels[0, 1] is the blank (0); a label within its length must not be the blank
    """
    validate_labels(labels, label_lengths, logit_lengths)
    validate_logits(logits, labels, blank_id)
    _, frames, vocabulary = logits.shape
    labels_BN, label_lengths_B = np.asarray(labels), np.asarray(label_lengths)
    _check_lengths("logit_lengths", np.asarray(logit_lengths), frames, "T")
    _check_lengths("label_lengths", label_lengths_B, labels_BN.shape[1], "N")
    inside_BN = np.arange(labels_BN.shape[1]) < label_lengths_B[:, None]
    outside = np.argwhere(inside_BN & ((labels_BN < 0) | (labels_BN >= vocabulary)))
    if outside.size:
        row, place = outside[0]
        raise ValueError(
            f"row {row}: labels[{row}, {place}] is {labels_BN[row, place]}, outside the vocabulary 0..{vocabulary - 1}"
        )
    blanks = np.argwhere(inside_BN & (labels_BN == blank_id))
    if blanks.size:
        row, place = blanks[0]
        raise ValueError(
            f"row {row}: labels[{row}, {place}] is the blank ({blank_id}); "
            "a label within its length must not be the blank"
        )


def _check_lengths(name: str, lengths_B: np.ndarray, limit: int, dimension: str) -> None:
    wrong = np.flatnonzero((lengths_B < 0) | (lengths_B > limit))
    if wrong.size:
        row = wrong[0]
        raise ValueError(f"row {row}: {name}[{row}] is {lengths_B[row]}, outside 0..{limit} ({dimension} = {limit})")


def _expect(name: str, array: Array, dimensions: str, kind: type) -> None:
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise TypeError(f"{name} must be an array {dimensions}, got {type(array).__name__}")
    if len(array.shape) != dimensions.count(",") + 1:
        raise ValueError(f"{name} must have the dimensions {dimensions}, got the shape {tuple(array.shape)}")
    if not jnp.issubdtype(array.dtype, kind):
        article = "an" if kind.__name__[0] in "aeiou" else "a"
        raise TypeError(f"{name} must have {article} {kind.__name__} dtype, got {array.dtype}")


def validate_blank(blank_id: int, vocabulary: int, who: str) -> None:
    """Raises a ValueError unless blank_id lies in 0..V-1; `who` has the vocabulary."""
    if not 0 <= blank_id < vocabulary:
        raise ValueError(f"blank_id must lie in 0..{vocabulary - 1} ({who} V = {vocabulary}), got {blank_id}")


def _expect_same_batch(**arrays: Array) -> None:
    sizes = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"the batch dimensions differ: {listed}")
