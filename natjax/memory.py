"""What a device says when its memory runs out, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from natjax.errors import UserError


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Raises UserError with this message where a program needs more memory than there is."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(message) from error
