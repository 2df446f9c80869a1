# SPDX-License-Identifier: MIT
"""Every function of every kernel set against the oracle in double (tests/c/check_kernels.c), and
sigmoid and tanh over the floats (tests/c/sweep_activations.c)."""

import re

import pytest

import build
import clstm

SETS = clstm.available_kernels()
STRIDE = 257  # 17 million of the floats; the long form takes all of them


def test_kernels_against_the_oracle(builder):
    out = build.succeed([builder(("check_kernels.c", "oracle.c", "check.c"))])
    assert re.search(r"check_kernels: \d{7,} passed, 0 failed", out), out
    for line in out.splitlines():
        if line.endswith("not run, no such CPU"):
            print(line)
    assert all(f"{kernel}: checked" in out for kernel in SETS)


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
