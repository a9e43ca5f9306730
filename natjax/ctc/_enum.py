"""The interchangeable programs behind one function, and which of them `AUTO` means."""

import enum


class Implementation(enum.Enum):
    """How a CTC function is computed. Every member that a function knows gives the same values, to rounding.

    Attributes:
        AUTO: the fastest member for the shapes and the device at hand.
        SCAN: the whole batch at once, `jax.lax.scan` over frames. For functions of logits.
        SENTENCES: some sentences at a time, from logits to gradient. For functions of hidden states: best on CPU,
            where one chunk more costs little.
        BLOCKS: some of the vocabulary at a time, and one recursion over the whole batch. For functions of hidden
            states: best on accelerators, where each step of a recursion costs the same whatever the batch.
    """

    AUTO = "auto"
    SCAN = "scan"
    SENTENCES = "sentences"
    BLOCKS = "blocks"


AUTO = Implementation.AUTO


def resolve(implementation: Implementation, known: tuple[Implementation, ...], auto: Implementation) -> Implementation:
    """Replaces `AUTO` by the member it stands for.

    Args:
        implementation: a member of `Implementation`.
        known: the members that the calling function has.
        auto: the one that `AUTO` stands for.

    Returns:
        One of `known`.

    Raises:
        TypeError: if the argument is not an `Implementation`.
        ValueError: if the function does not know the member.
    """
    if not isinstance(implementation, Implementation):
        raise TypeError(f"implementation must be a natjax.ctc.Implementation, got {implementation!r}")
    if implementation is AUTO:
        return auto
    if implementation not in known:
        names = ", ".join(member.name for member in known)
        raise ValueError(f"implementation must be one of AUTO, {names} here, got {implementation.name}")
    return implementation
