# SPDX-License-Identifier: MIT
"""A state of denormals, or one that fades towards them, costs at most 1.2 times another. What a
processor that takes an assist for each of them would make of it is a factor of ten.

Least times of both sides, taken in turn in one process; up to six tries, for machines are shared.
"""

import time

import numpy as np
import pytest

import clstm
from clstm import nn

pytestmark = pytest.mark.timing
H, ROUNDS, TRIES, MOST = 128, 40, 6, 1.2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"1e-40": 1e-40, "half of what is flushed": 2.0**-101, "least denormal": 2.0**-149}


def model_of(kind, kernel):
    rng = np.random.default_rng(0)
    rows = GATES[kind] * H
    shapes = {"weight_ih_l0": (rows, H), "weight_hh_l0": (rows, H)}
    tensors = {name: rng.uniform(-0.1, 0.1, s).astype(np.float32) for name, s in shapes.items()}
    return clstm.from_state_dict(tensors, layers=[getattr(nn, kind)()], kernel=kernel)


def ratio(one, other):
    """Least time of a call of one by that of other; each is given what it prepares untimed."""
    times = {one: [], other: []}
    for _ in range(ROUNDS):
        for side, spent in times.items():
            work = side()
            begin = time.perf_counter()
            work()
            spent.append(time.perf_counter() - begin)
    return min(times[one]) / min(times[other])


def check(one, other, what):
    ratios = []
    for _ in range(TRIES):
        ratios.append(ratio(one, other))
        if ratios[-1] <= MOST:
            print(f"{what}: {ratios[-1]:.2f}")
            return
    pytest.fail(f"{what}: {ratios}, expected {MOST}")


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_a_step_from_denormals_costs_no_more(kernel, kind):
    model = model_of(kind, kernel)
    x, out = np.zeros(H, np.float32), np.empty(H, np.float32)

    def side(value, frame):
        s, part = model.stream(), np.full((1, H), value, np.float32)
        state = (part, part) if kind == "LSTM" else part

        def prepared():
            s.state = state
            return lambda: s.step(frame, out)

        return prepared

    normal = side(0.3, x)
    for name, value in STATES.items():
        check(side(value, x), normal, f"{kernel} {kind}, a state of {name}")
    check(side(0.3, np.full(H, 1e-40, np.float32)), normal, f"{kernel} {kind}, inputs of 1e-40")


@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_a_state_that_fades_costs_no_more(kernel):
    """The forget gate is about 0.5: c halves at every step, and would be denormal from the 126th
    to the 149th; it stays 0 instead."""
    model = model_of("LSTM", kernel)
    frames, out = np.zeros((200, H), np.float32), np.empty((200, H), np.float32)
    rng = np.random.default_rng(1)
    lively = rng.standard_normal((200, H)).astype(np.float32)

    def side(x):
        s, part = model.stream(), np.full((1, H), 1e-6, np.float32)

        def prepared():
            s.state = (part, part)
            return lambda: s.run(x, out)

        return prepared

    s = model.stream(state=(np.full((1, H), 1e-6), np.full((1, H), 1e-6)))
    s.run(frames)
    assert all((part == 0).all() for part in s.state)
    check(side(frames), side(lively), f"{kernel}, a state that fades")
