"""The strictest mode that JAX has: promotion between dtypes or ranks is an error, and so is any warning."""

import os
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A first example compiles; on a busy machine others wait. Neither is a failure.
hypothesis.settings.register_profile("natjax", deadline=None)
hypothesis.settings.load_profile("natjax")

# Many tests train the same tiny model: what one has compiled, the others (and programs they start) read from disk.
_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ.setdefault("NATJAX_CACHE", str(_CACHE))
jax.config.update("jax_compilation_cache_dir", os.environ["NATJAX_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# They hold no doctests, and as modules their names clash.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real parallel text; tests that need it skip where NATJAX_DATA is not set."""
    folder = os.environ.get("NATJAX_DATA")
    if not folder:
        pytest.skip("NATJAX_DATA is not set: no real corpora here")
    return Path(folder)
