"""Runs a program in a process of its own, where JAX has two CPU devices."""

import os
import subprocess
import sys


def run_on_two(program: str) -> None:
    """Fails unless the program ends well after it has said that the results are the same."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the same on two devices" in done.stdout
