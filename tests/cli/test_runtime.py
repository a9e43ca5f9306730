"""The process that the command line sets up."""

import platform
import subprocess
import sys

import pytest

# Page faults of a gradient of an output projection, whose temporaries take some 200 MB: the least of ten, since the
# heap still grows at first, by which thread takes what when.
FAULTS = """
import resource
from natjax.cli import runtime
{call}
import jax, jax.numpy as jnp

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

hidden, kernel = jnp.ones((4096, 64)), jnp.ones((64, 4000))
gradient = jax.jit(jax.grad(lambda h, k: jax.nn.logsumexp(h @ k, axis=-1).sum(), argnums=(0, 1)))
counts = []
for _ in range(10):
    before = page_faults()
    jax.block_until_ready(gradient(hidden, kernel))
    counts.append(page_faults() - before)
print(min(counts))
"""


def faults(call: str) -> int:
    program = [sys.executable, "-c", FAULTS.format(call=call)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_freed_memory_is_kept() -> None:
    assert faults("assert runtime.keep_freed_memory()") * 5 < faults("")


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from natjax.cli import runtime

    class Library:
        """musl and macOS have no mallopt."""

    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: Library())
    assert not runtime.keep_freed_memory()
