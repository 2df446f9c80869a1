# SPDX-License-Identifier: MIT
"""The limits of this machine, by probe.c, built here with the system's compiler."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "probe.c"
WIDTHS = {"avx512": 512, "avx2": 256}


class Probe:
    """None of it where there is no compiler: `build` gives None then."""

    def __init__(self, library: ctypes.CDLL, kernel: str, threads: int):
        self.c, self.threads = library, threads
        self.width = WIDTHS.get(kernel, 0)
        for name in ("probe_clock_ghz", "probe_gflops", "probe_read_gbs"):
            getattr(library, name).restype = ctypes.c_double
        library.probe_buffer.restype = ctypes.c_void_p
        library.probe_buffer.argtypes = [ctypes.c_size_t]
        library.probe_read_gbs.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
        ]
        self.pool, self.others = ThreadPoolExecutor(threads), range(threads - 1)

    def peak(self, tries: int = 3) -> tuple[float, float, float]:
        """GHz, GFLOP/s of all threads at once, and that as a part of threads x 2 units x lanes x
        2 x the clock. Clock and rate are taken beside each other; the best of so many pairs."""
        found = []
        for _ in range(tries):
            clock = self.c.probe_clock_ghz()
            others = [self.pool.submit(self.c.probe_gflops, self.width) for _ in self.others]
            rate = self.c.probe_gflops(self.width) + sum(call.result() for call in others)
            clock = max(clock, self.c.probe_clock_ghz())
            whole = self.threads * 2 * self.width / 32 * 2 * clock
            found.append((clock, rate, rate / whole if whole else 0))
        return max(found, key=lambda f: f[1])

    def reader(self, n_bytes: int) -> Reader:
        return Reader(self, n_bytes)


class Reader:
    """Reads a buffer of so many bytes, each thread its share. gbs collects a figure a call: of
    each form the sum over the threads; `best` is the fastest form's median."""

    def __init__(self, probe: Probe, n_bytes: int):
        self.probe, self.n_bytes = probe, n_bytes
        self.share = max(2048, n_bytes // probe.threads)
        self.buffers = [probe.c.probe_buffer(self.share) for _ in range(probe.threads)]
        self.gbs: list[list[float]] = [[] for _ in range(probe.c.probe_forms())]

    def __call__(self) -> None:
        c, width = self.probe.c, self.probe.width
        for form, found in enumerate(self.gbs):
            calls = [
                self.probe.pool.submit(c.probe_read_gbs, buffer, self.share, width, form)
                for buffer in self.buffers[1:]
            ]
            own = c.probe_read_gbs(self.buffers[0], self.share, width, form)
            found.append(own + sum(call.result() for call in calls))

    def best(self) -> float:
        return max(sorted(found)[len(found) // 2] for found in self.gbs)


def build(kernel: str, threads: int, cc: str = "cc") -> Probe | None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "probe.so"
        command = [cc, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(out)]
        try:
            subprocess.run(command, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        return Probe(ctypes.CDLL(str(out)), kernel, threads)
