# SPDX-License-Identifier: MIT
"""Every function of every kernel set against the oracle in double (tests/c/check_kernels.c), whole
models of every cell and option too (tests/c/check_models.c), and sigmoid and tanh over the floats
(tests/c/sweep_activations.c)."""

import re

import pytest

import build
import clstm

SETS = clstm.available_kernels()
STRIDE = 257  # 17 million of the floats; the long form takes all of them


def test_kernels_against_the_oracle(builder):
    out = build.succeed([builder(build.CHECK_KERNELS)])
    assert re.search(r"check_kernels: \d{7,} passed, 0 failed", out), out
    for line in out.splitlines():
        if line.endswith("not run, no such CPU"):
            print(line)
    assert all(f"{kernel}: checked" in out for kernel in SETS)


@pytest.mark.parametrize("which", ["pack", "cell_pack"])
def test_models_against_the_oracle(which, request, builder):
    program = builder(build.CHECK_MODELS)
    out = build.succeed([program, request.getfixturevalue(which), SETS[0]])
    assert re.search(r"check_models: \d{6,} passed, 0 failed", out), out


def sweep(builder, kernel, stride):
    out = build.succeed([builder(("sweep_activations.c",)), kernel, stride], timeout=3000)
    tanh, sigmoid = (float(ulp) for ulp in re.findall(r": ([\d.]+) ulp", out))
    assert tanh <= 1.5 and sigmoid <= 2.0


@pytest.mark.parametrize("kernel", SETS)
def test_sigmoid_and_tanh(kernel, builder):
    sweep(builder, kernel, STRIDE if kernel != "scalar" else 16 * STRIDE + 1)


@pytest.mark.long
@pytest.mark.parametrize("kernel", SETS)
def test_sigmoid_and_tanh_of_all_floats(kernel, builder):
    sweep(builder, kernel, 1)
