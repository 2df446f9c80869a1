# SPDX-License-Identifier: MIT
"""No kernel takes more instructions than it did: counted, as times are not repeatable. The
baselines stand in instruction_counts.json by compiler; CONTRIBUTING.md says how one is raised."""

import json

import counts
import pytest

import build
import clstm
from build import found, need

TOLERANCE = 0.03
COMPILERS = [pytest.param(build.gcc, id="gcc"), pytest.param(build.clang, id="clang")]
KNOWN = json.loads(counts.BASELINES.read_text()) if counts.BASELINES.exists() else {}


def baseline(cc, part):
    key = counts.version(cc)
    if key not in KNOWN:
        pytest.skip(f"not run: no baseline of {key}; `make baselines` writes one")
    return KNOWN[key][part]


def off(wanted, counted):
    """A line for each that is more than 3 % away; fewer are a new baseline too, or they could
    come back unseen."""
    lines = [
        f"{name}: {wanted[name]} -> {counted[name]} ({counted[name] / wanted[name] - 1:+.1%})"
        for name in wanted.keys() & counted.keys()
        if abs(counted[name] / wanted[name] - 1) > TOLERANCE
    ]
    return sorted(lines) + [f"{name}: in one only" for name in wanted.keys() ^ counted.keys()]


@pytest.mark.skipif(not build.X86, reason="not run: not x86-64")
@pytest.mark.parametrize("kernel", counts.SETS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_instructions_of_ten_cases(compiler, kernel, builder, tmp_path):
    cc, valgrind = need(compiler(), "this compiler"), need(found("valgrind"), "valgrind")
    if kernel not in clstm.available_kernels():
        pytest.skip(f"not run: no {kernel} here")
    wanted = baseline(cc, kernel)
    counted = counts.count(builder(("count_calls.c",), cc), valgrind, kernel, tmp_path)
    assert not off(wanted, counted), "instructions a call; see CONTRIBUTING.md, Speed"


@pytest.mark.skipif(not build.X86, reason="not run: not x86-64")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_instructions_of_avx512_loops(compiler, tmp_path):
    """Valgrind has no AVX-512. A loop is told by its function and its multiply-adds."""
    cc, objdump = need(compiler(), "this compiler"), need(found("objdump"), "objdump")
    wanted = baseline(cc, "avx512 loops")
    counted = counts.loops(cc, objdump, tmp_path)

    def flat(functions):
        return {
            f"{name}: {n} loops of {products} multiply-adds": instructions
            for name, found in functions.items()
            for products, (n, instructions) in found.items()
        }

    assert not off(flat(wanted), flat(counted)), "instructions a loop; see CONTRIBUTING.md, Speed"


def test_more_than_three_percent_is_seen():
    wanted = {"a": 1000, "b": 1000, "c": 10}
    assert off(wanted, {"a": 1029, "b": 971, "c": 10}) == []
    changed = ["a: 1000 -> 1031 (+3.1%)", "b: 1000 -> 969 (-3.1%)", "c: in one only"]
    assert off(wanted, {"a": 1031, "b": 969}) == changed
