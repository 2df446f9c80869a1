# SPDX-License-Identifier: MIT
"""What a process holds does not grow with what it does: soak.py, in short and in full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import clstm

SOAK = Path(__file__).with_name("soak.py")
SHORT = ["steps=200000", "models=400", "sequences=1000", "streams=20000"]
pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="not run: no /proc/self/statm"
)


@pytest.mark.parametrize("words", [SHORT, pytest.param([], marks=pytest.mark.long)])
def test_memory_does_not_grow(words):
    done = subprocess.run(
        [sys.executable, SOAK, *words], capture_output=True, text=True, check=False, timeout=3600
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_leak_is_seen(monkeypatch):
    """One kept byte string of a hundred bytes a step."""
    monkeypatch.syspath_prepend(SOAK.parent)
    import soak

    kept = []
    leak = soak.soak(lambda n: kept.extend(bytearray(100) for _ in range(n)), 200_000)
    assert leak > soak.LIMIT
    assert isinstance(soak.MODEL, clstm.Model)
