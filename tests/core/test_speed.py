# SPDX-License-Identifier: MIT
"""The same bits are not had by looping: whole sequences and batches are faster than steps.

Ratios of least times, both sides interleaved in one process; up to six tries, for machines are
shared. Absolute times are the business of benchmarks/.
"""

import time

import numpy as np
import pytest

import clstm
import samples

H, T, B, ROUNDS, TRIES = 128, 64, 16, 200, 6


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


def check_ratio(slow, fast, least, what):
    ratios = []
    for _ in range(TRIES):
        a, b = quickest(slow, fast)
        ratios.append(a / b)
        print(f"{what}: {a * 1e6:.1f} us / {b * 1e6:.1f} us = {a / b:.2f}")
        if ratios[-1] >= least:
            return
    pytest.fail(f"{what}: {ratios}, expected {least}")


def test_a_sequence_is_faster_than_its_steps(model):
    x, out, s = samples.floats(samples.rng_of(1), T, H), np.empty(H, np.float32), model.stream()
    frames, batched = list(x), x[:, None]

    def steps():
        for frame in frames:
            s.step(frame, out=out)

    check_ratio(steps, lambda: model(batched), 1.25, "64 steps / one sequence of 64")


def test_a_batch_of_sequences_is_faster_than_its_rows(model):
    x = samples.floats(samples.rng_of(1), T, B, H)
    rows = [(model.stream(), row) for row in x[0]]

    def steps():
        for _ in range(T):
            for s, row in rows:
                s.step(row)

    check_ratio(steps, lambda: model(x), 2.0, "64 x 16 steps / one call of (64, 16)")
