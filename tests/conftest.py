"""The strictest mode that JAX has: promotion between dtypes or ranks is an error, and so is any warning."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real parallel text; tests that need it skip where NATJAX_DATA is not set."""
    folder = os.environ.get("NATJAX_DATA")
    if not folder:
        pytest.skip("NATJAX_DATA is not set: no real corpora here")
    return Path(folder)
