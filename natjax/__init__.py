"""natjax: fully non-autoregressive translation in JAX.

Importing this module is cheap on purpose: nothing here imports jax. The public names are loaded on first use.
"""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> module that defines it; resolved by __getattr__ so that `import natjax` stays below 0.3 s.
_LAZY = {
    "Translator": "natjax.translator",
    "Translation": "natjax.translator",
    "load_config": "natjax.config",
}

__all__ = ["Translation", "Translator", "__version__", "load_config"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'natjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
