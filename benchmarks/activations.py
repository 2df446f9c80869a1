# SPDX-License-Identifier: MIT
"""Cycles of the core an element of tanh and sigmoid, 1024 floats in L1, on every kernel set:

    python benchmarks/activations.py

A cycle is what one of many additions takes that wait for each other, probed just before and just
after, so that the figure is a ratio and a clock that moves counts for both.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
from harness.c_call import compile_with_core  # noqa: E402

import clstm  # noqa: E402


def cycles(library: ctypes.CDLL, kernel: str, is_tanh: bool, tries: int = 5) -> float:
    """The least of some tries, each by the faster of the clocks around it."""
    found = []
    for _ in range(tries):
        before = library.probe_clock_ghz()
        ns = library.activation_ns(kernel.encode(), is_tanh)
        found.append(ns * max(before, library.probe_clock_ghz()))
    return min(found)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "activations.so"
        files = [FOLDER / "c_activations.c", FOLDER / "probe.c"]
        try:
            compile_with_core(files, out, "-shared", "-fPIC")
        except (OSError, subprocess.SubprocessError) as error:
            print(f"not run: no C compiler ({error})")
            return 77
        library = ctypes.CDLL(str(out))
        library.probe_clock_ghz.restype = library.activation_ns.restype = ctypes.c_double
        print("kernel  tanh  sigmoid   cycles an element")
        for kernel in clstm.available_kernels():
            pair = (cycles(library, kernel, is_tanh) for is_tanh in (True, False))
            print(f"{kernel:7} {next(pair):.2f}  {next(pair):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
