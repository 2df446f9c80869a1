# SPDX-License-Identifier: MIT
"""Memory over long runs: does what a process holds grow with what it does?

    python tests/guest/soak.py [steps=10000000] [models=10000] [sequences=10000] [streams=100000]

Takes so many steps of one stream, loads and frees so many models (one in eight with a thread of
its own, one in eight damaged), runs sequences of random lengths and batches, makes and frees
streams. Resident memory is read ten times on the way of each; what it grew by after the first
reading is printed. One that grows by more than LIMIT has a leak, and the exit code is 1: the least
that one of those would leave behind is a few bytes each time.
"""

import ctypes
import gc
import os
import sys
import tempfile
import time

import numpy as np

import clstm
from clstm import nn

LIMIT = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
LIBC = ctypes.CDLL(None)
RNG = np.random.default_rng(5)


def resident():
    """Bytes, without what the C library keeps of freed memory: that depends on what went last."""
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def tensors(n_in, n):
    shapes = {"l.weight_ih_l0": (4 * n, n_in), "l.weight_hh_l0": (4 * n, n), "fc.weight": (3, n)}
    return {name: RNG.uniform(-0.1, 0.1, s).astype(np.float32) for name, s in shapes.items()}


LAYERS = [nn.LSTM("l"), nn.Linear("fc")]
MODEL = clstm.from_state_dict(tensors(8, 20), layers=LAYERS)


def steps(n):
    s, x = MODEL.stream(), RNG.standard_normal((1000, 8)).astype(np.float32)
    out = np.empty(3, np.float32)
    for i in range(n):
        s.step(x[i % 1000], out if i % 2 else None)


def models(n):
    large = clstm.from_state_dict(tensors(272, 272), layers=LAYERS)
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("a.clstm", "b.safetensors", "c.clstm")]
        for model, path in zip((MODEL, MODEL, large), paths, strict=True):
            model.save(path)
        with open(paths[0], "rb") as file:
            damaged = bytearray(file.read())
        damaged[-5] ^= 1
        for i in range(n):
            if i % 8 == 1:
                try:
                    clstm.load(bytes(damaged))
                except clstm.ModelFormatError:
                    continue
                raise AssertionError("took a damaged file")
            m = clstm.load(paths[2 if i % 8 == 2 else i % 2], threads=2 if i % 8 == 2 else 1)
            m.stream().step(np.zeros(m.input_size, np.float32))


def sequences(n):
    for i in range(n):
        n_steps, n_batch = RNG.integers(0, 400), RNG.integers(1, 6)
        x = np.ones((n_steps, n_batch, 8), np.float32)
        MODEL(x, lengths=RNG.integers(0, n_steps + 1, n_batch) if i % 2 else None)


def streams(n):
    blob = MODEL.stream().snapshot()
    for i in range(n):
        s = MODEL.stream(snapshot=blob if i % 2 else None)
        s.copy().state = s.state
        s.bind(np.zeros(8, np.float32), np.zeros(3, np.float32))()


def soak(work, n):
    """By how much memory grew after the first tenth."""
    for part in range(10):
        work(n // 10)
        gc.collect()
        if part == 0:
            first = resident()
    return resident() - first


def main(words):
    counts = {"steps": 10_000_000, "models": 10_000, "sequences": 10_000, "streams": 100_000}
    counts |= {name: int(n) for name, n in (word.split("=") for word in words)}
    grown = False
    for work in (steps, models, sequences, streams):
        n, begin = counts[work.__name__], time.time()
        growth = soak(work, n)
        grown |= growth > LIMIT
        print(f"{n} {work.__name__}: {growth / 1024:+.0f} KiB of {resident() >> 20} MiB, "
              f"{time.time() - begin:.0f} s", flush=True)  # fmt: skip
    return int(grown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
