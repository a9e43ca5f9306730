"""The interchangeable programs behind one function, and which of them `AUTO` means."""

import enum


class Implementation(enum.Enum):
    """How a CTC function is computed. Every member gives the same values, to rounding.

    Attributes:
        AUTO: the fastest member for the shapes and the device at hand.
        SCAN: `jax.lax.scan` over frames; runs on every back end.
    """

    AUTO = "auto"
    SCAN = "scan"


AUTO = Implementation.AUTO


def resolve(implementation: Implementation) -> Implementation:
    """Replaces `AUTO` by the member it stands for.

    Args:
        implementation: a member of `Implementation`.

    Returns:
        A member other than `AUTO`.

    Raises:
        TypeError: if the argument is not an `Implementation`.
    """
    if not isinstance(implementation, Implementation):
        raise TypeError(f"implementation must be a natjax.ctc.Implementation, got {implementation!r}")
    return Implementation.SCAN if implementation is AUTO else implementation
