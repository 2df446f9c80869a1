# SPDX-License-Identifier: MIT
"""A step asks for no memory and makes no system call."""

import itertools
import os
import re
import sys

import numpy as np
import pytest

import build
import clstm
from build import TESTS_C
from clstm import nn

STEPS = 1_000_000
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="not run: no LD_PRELOAD here"
)


@pytest.fixture(scope="module")
def model():
    """Several layers and a head of every action."""
    rng = np.random.default_rng(3)
    layers = [
        nn.LayerNorm("n"),
        nn.LSTM("a"),
        nn.LSTM("b"),
        nn.Linear("fc"),
        nn.GELU(),
        nn.LogSoftmax(),
    ]

    def of(*shape):
        return rng.uniform(-0.3, 0.3, shape).astype(np.float32)

    weights = {"n.weight": of(9), "n.bias": of(9), "fc.weight": of(5, 7), "fc.bias": of(5)}
    for prefix, k, n_in, hidden, out in (
        ("a", 0, 9, 17, 17),
        ("a", 1, 17, 17, 17),
        ("b", 0, 17, 12, 7),
    ):
        weights |= {
            f"{prefix}.weight_ih_l{k}": of(4 * hidden, n_in),
            f"{prefix}.weight_hh_l{k}": of(4 * hidden, out),
            f"{prefix}.bias_ih_l{k}": of(4 * hidden),
            f"{prefix}.bias_hh_l{k}": of(4 * hidden),
        }
    weights["b.weight_hr_l0"] = of(7, 12)
    return clstm.from_state_dict(weights, layers=layers)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.clstm"
    model.save(path)
    return path


@linux
@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_no_allocation_in_c(kernel, builder, file, tmp_path):
    if "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("not run: the counter is written for glibc")
    counter = tmp_path / "count_alloc.so"
    build.succeed(["cc", "-O2", "-shared", "-fPIC", TESTS_C / "count_alloc.c", "-o", counter])
    program = builder(("alloc_steps.c",))
    env = {**os.environ, "LD_PRELOAD": str(counter), "CLSTM_KERNEL": kernel}
    out = build.succeed([program, file, STEPS if kernel != "scalar" else STEPS // 10], env=env)
    assert re.search(r"\d+ steps: 0 allocations \(and 1 of our own\)", out), out


@linux
@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_no_system_call_in_c(kernel, builder, file):
    done = build.run(
        [builder(("alloc_steps.c",)), file, 100_000, "sealed"],
        env={**os.environ, "CLSTM_KERNEL": kernel},
    )
    if done.returncode == 77:
        pytest.skip("not run: no seccomp here")
    assert (done.returncode, done.stdout) == (0, "sealed\n")


def growth(step, n):
    """Blocks that live after n steps and did not before; the readings themselves leave some."""
    times = itertools.repeat(None, n)
    before = sys.getallocatedblocks()
    for _ in times:
        step()
    return sys.getallocatedblocks() - before


def test_no_allocation_in_python(model):
    s = model.stream()
    x = np.linspace(-1, 1, model.input_size, dtype=np.float32)
    y = np.empty(model.output_size, np.float32)
    for step in (lambda: s.step(x, out=y), s.bind(x, y)):
        growth(step, 1000)
        assert growth(step, STEPS) == growth(step, 0)
    assert s.steps == 2 * (STEPS + 1000)
