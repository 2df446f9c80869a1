# SPDX-License-Identifier: MIT
"""The polynomials of csrc/src/kernels/math.inc.h err by what the comment behind each says, and
tools/fit_activations.py finds them. Evaluated in float64, whose own rounding is 2^-26 of the
errors; what float32 makes of them is measured over all inputs by tests/native/sweep.py."""

import math
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from bounds.tolerances import U

ROOT = Path(__file__).parents[2]
SOURCE = (ROOT / "csrc/src/kernels/math.inc.h").read_text(encoding="utf-8")
TABLE = re.compile(r"\[\] = \{([^}]*)\};\s*/\* ([A-Z]+): ([\d.]+) u \*/")
TABLES = {name: (body, float(u)) for body, name, u in TABLE.findall(SOURCE)}


def grid(low, high):
    return np.linspace(low, high, 100_002)  # even: never 0 itself


def of(function, x):
    return np.array([function(v) for v in x])


def phi_below(t):
    """Phi(-t) exp(t^2/2)"""
    return math.erfc(t / math.sqrt(2)) / 2 * math.exp(t * t / 2)


def error(name, p):
    """The largest error of the function that the polynomial p serves, where it serves it; as
    math.inc.h puts them together, relative, but of Phi itself absolute."""
    if name == "EXP":
        r = grid(-math.log(2) / 2, math.log(2) / 2)
        return np.abs((1 + r + r * r * p(r)) / np.exp(r) - 1).max()
    if name == "TANH":
        a = grid(2.0**-30, 0.65)
        return np.abs((a + a**3 * p(a * a)) / np.tanh(a) - 1).max()
    if name == "LOG":
        f = grid(math.sqrt(0.5) - 1, math.sqrt(2) - 1)
        return np.abs((f + f * f * p(f)) / np.log1p(f) - 1).max()
    if name == "PHI":
        x = grid(0.0, 1.0)
        return np.abs(x * p(x * x) - of(lambda v: math.erf(v / math.sqrt(2)) / 2, x)).max()
    t = grid(1.0, 14.4)
    return np.abs(p(1 / (1 + t / 2)) / of(phi_below, t) - 1).max()


def test_every_table_states_its_error():
    assert set(TABLES) == {"EXP", "TANH", "LOG", "PHI", "TAIL"}
    assert len(re.findall(r"static const float \w+\[\]", SOURCE)) == len(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_errs_by_what_its_comment_says(name):
    body, stated = TABLES[name]
    coefficients = [np.float64(np.float32(word.strip().rstrip("f"))) for word in body.split(",")]
    found = error(name, lambda x: np.polyval(coefficients[::-1], x)) / U
    print(f"{name}: {found:.4f} u")
    assert round(found, 3) == stated
    moved = [*coefficients[:-1], coefficients[-1] * 1.01]
    assert round(error(name, lambda x: np.polyval(moved[::-1], x)) / U, 3) != stated


def test_the_script_finds_them(capsys):
    """To the last bit of float32 but for TAIL's: its powers are nearly parallel, and the BLAS
    behind NumPy decides the last digits."""
    pytest.importorskip("mpmath")
    runpy.run_path(str(ROOT / "tools/fit_activations.py"), run_name="__main__")
    printed = re.split(r"^([A-Z]+): .*$", capsys.readouterr().out, flags=re.M)[1:]
    found = dict(zip(printed[::2], printed[1::2], strict=True))
    assert set(found) == set(TABLES)
    for name, (body, _) in TABLES.items():
        stated = [np.float32(word.strip().rstrip("f")) for word in body.split(",")]
        lines = found[name].strip().splitlines()
        again = [np.float32(float.fromhex(line.split()[0])) for line in lines]
        if name == "TAIL":
            assert len(again) == len(stated)
        else:
            assert again == stated, name
