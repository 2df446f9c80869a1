# SPDX-License-Identifier: MIT
"""benchmarks/activations.py prints the cycles of every kernel set."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import clstm

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "activations.py"


@pytest.mark.timing
def test_it_runs():
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = re.findall(r"^(\w+) +([\d.]+)  ([\d.]+)$", done.stdout, re.M)
    assert tuple(kernel for kernel, *_ in found) == clstm.available_kernels()
    for function in (1, 2):  # best first
        took = [float(row[function]) for row in found]
        assert 0 < took[0] and took == sorted(took)
