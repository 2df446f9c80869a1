# SPDX-License-Identifier: MIT
"""The same bits are not had by looping: whole sequences and batches are faster than steps.

Ratios of least times, both sides interleaved in one process; up to six tries, for machines are
shared. Absolute times are the business of benchmarks/.

What a sequence can gain is the machine's: where its probes, in the same minute, leave less room
than the promise between the steps' weights and the sequence's weights and products, nine tenths of
that room are asked for. (An EPYC of 2024 reads 512 KiB from L2 a third faster than 256 KiB, so that
half the bytes a step save it little.)
"""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

import clstm
import samples

H, T, B, ROUNDS, TRIES = 128, 64, 16, 200, 6
PART = 0.9


@pytest.fixture(scope="module")
def model():
    model = clstm.from_state_dict(samples.lstm_tensors(samples.rng_of(0), H, H))
    if model.kernel != clstm.available_kernels()[0]:
        pytest.skip(f"not run: speed is a promise of the best kernel set, this is {model.kernel}")
    return model


pytestmark = pytest.mark.timing


def quickest(*sides, rounds=ROUNDS):
    """Least seconds of each, one call of each in turn: what load adds is not ours."""
    times = [[] for _ in sides]
    for _ in range(rounds):
        for side, spent in zip(sides, times, strict=True):
            begin = time.perf_counter()
            side()
            spent.append(time.perf_counter() - begin)
    return [min(spent) for spent in times]


def room(model, n_batch):
    """Time of T * n_batch steps / of one call of them, as far as reading the weights and the rate
    of multiply-adds decide; infinite where no compiler builds the probes."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        from harness import probe
    finally:
        sys.path.pop(0)
    probing = probe.build(model.kernel, 1)
    if probing is None:
        return np.inf
    whole, recurrent = probing.reader(model.nbytes), probing.reader(model.nbytes // 2)
    for _ in range(3):
        whole(), recurrent()
    multiply = 2 * 4 * H * H / (probing.peak()[1] * 1e9)  # seconds of one matrix and one row
    step = max(model.nbytes / (whole.best() * 1e9), 2 * multiply)
    read = model.nbytes / 2 / (recurrent.best() * 1e9)
    return n_batch * step / (n_batch * multiply + max(read, n_batch * multiply))


def check_ratio(slow, fast, least, what, model, n_batch=1):
    ratios, wanted = [], least
    for _ in range(TRIES):
        a, b = quickest(slow, fast)
        ratios.append(a / b)
        print(f"{what}: {a * 1e6:.1f} us / {b * 1e6:.1f} us = {a / b:.2f}")
        if ratios[-1] >= wanted:
            return
        wanted = min(least, PART * room(model, n_batch))
    pytest.fail(f"{what}: {ratios}, expected {wanted}")


def test_a_sequence_is_faster_than_its_steps(model):
    x, out, s = samples.floats(samples.rng_of(1), T, H), np.empty(H, np.float32), model.stream()
    frames, batched = list(x), x[:, None]

    def steps():
        for frame in frames:
            s.step(frame, out=out)

    check_ratio(steps, lambda: model(batched), 1.25, "64 steps / one sequence", model)


def test_a_batch_of_sequences_is_faster_than_its_rows(model):
    x = samples.floats(samples.rng_of(1), T, B, H)
    rows = [(model.stream(), row) for row in x[0]]

    def steps():
        for _ in range(T):
            for s, row in rows:
                s.step(row)

    check_ratio(steps, lambda: model(x), 2.0, "64 x 16 steps / one call", model, B)
