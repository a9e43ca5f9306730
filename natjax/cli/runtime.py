"""How the command line sets jax up."""

import os
from pathlib import Path


def set_up_jax() -> None:
    """Keeps compiled programs on disk between runs.

    In `$NATJAX_CACHE`, or the user's cache folder; an empty `NATJAX_CACHE` turns it off. Only for the command line:
    a program that imports natjax decides on its own.
    """
    import jax

    folder = os.environ.get("NATJAX_CACHE", str(Path("~/.cache/natjax/compiled").expanduser()))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
