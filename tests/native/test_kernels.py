# SPDX-License-Identifier: MIT
"""Every function of every kernel set against the oracle in double (tests/c/check_kernels.c), whole
models of every cell and option too (tests/c/check_models.c), and sigmoid and tanh over the floats
(tests/c/sweep_activations.c)."""

import re
from itertools import pairwise

import pytest
from sweep import FLOATS, ranges, sweep

import build
import clstm
from bounds.tolerances import SIGMOID_ULPS, TANH_ULPS

SETS = clstm.available_kernels()
STRIDE = 17  # a quarter of a thousand million; the long form takes all of them


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


def check_sweep(builder, kernel, stride, **options):
    program = builder(("sweep_activations.c",))
    functions, seconds, failed = sweep([program], kernel, stride, **options)
    assert failed == []
    for name, limit in (("tanh", TANH_ULPS), ("sigmoid", SIGMOID_ULPS)):
        floats, ulp, at = functions[name]
        print(f"{kernel} {name}: {floats} floats, {ulp} ulp at {at}; {seconds:.1f} s of CPU")
        assert floats == -(-FLOATS // stride) and 1 < ulp <= limit


@pytest.mark.parametrize("kernel", SETS)
def test_sigmoid_and_tanh(kernel, builder):
    check_sweep(builder, kernel, STRIDE if kernel != "scalar" else 16 * STRIDE + 1, parts=3)


@pytest.mark.long
@pytest.mark.parametrize("kernel", SETS)
def test_sigmoid_and_tanh_of_all_floats(kernel, builder):
    check_sweep(builder, kernel, 1, threads=2)


@pytest.mark.parametrize("stride, parts", [(1, 64), (17, 3), (4096, 7)])
def test_the_parts_of_a_sweep_are_all_of_it(stride, parts):
    pieces = ranges(stride, parts)
    assert len(pieces) == parts and pieces[0][0] == 0
    for (first, count), (following, _) in pairwise(pieces):
        assert first % stride == 0 and first + count == following
    assert sum(pieces[-1]) == FLOATS


def test_a_sweep_goes_on_where_it_was(builder, tmp_path):
    """And only with the program that began it."""
    program, path = builder(("sweep_activations.c",)), tmp_path / "file"
    whole = sweep([program], SETS[0], 4096, parts=4, resume=path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])
    assert sweep([program], SETS[0], 4096, parts=4, resume=path)[0] == whole[0]
    other = program.with_name("other")
    other.write_bytes(program.read_bytes() + b" ")
    with pytest.raises(SystemExit, match="another run"):
        sweep([other], SETS[0], 4096, parts=4, resume=path)
