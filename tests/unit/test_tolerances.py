# SPDX-License-Identifier: MIT
"""What the tests allow stands in tests/bounds/tolerances.py, and nowhere else."""

import ast
import math
import re
from pathlib import Path

import pytest

from bounds import tolerances

TESTS = Path(__file__).parents[1]
HOME = TESTS / "bounds" / "tolerances.py"
OTHERS = [path for path in sorted(TESTS.rglob("*.py")) if path != HOME]
WORDS = {"atol", "rtol", "abs", "rel", "tolerance"}  # of arguments
CALLS = {"allclose", "approx", "assert_allclose", "close", "isclose"}
SMALL = 0.01  # what is compared with less is a tolerance
ORDERS = ast.Lt | ast.LtE | ast.Gt | ast.GtE


def value_of(node):
    """Of an expression of plain numbers, else None."""
    try:
        return eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}})
    except Exception:
        return None


def is_small(node):
    """Does some part of it come to a number that is small, but not 0?"""
    values = (value_of(n) for n in ast.walk(node) if isinstance(n, ast.Constant | ast.BinOp))
    return any(isinstance(v, float) and 0 < abs(v) < SMALL for v in values)


def is_number(node):
    value = value_of(node)
    return isinstance(value, int | float) and value != 0


def literals(source):
    """Lines that write a tolerance: compare an order with a small number, give one to a function
    that compares or to a parameter that allows, or give such a number a name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            if any(isinstance(op, ORDERS) for op in node.ops) and is_small(node):
                found.add(node.lineno)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [k.value for k in node.keywords if k.arg in WORDS]
            if any(map(is_number, given)) or (name in CALLS and any(map(is_small, node.args))):
                found.add(node.lineno)
        elif isinstance(node, ast.FunctionDef):
            names = [a.arg for a in node.args.args][-len(node.args.defaults) or None :]
            pairs = [*zip(names, node.args.defaults, strict=False),
                     *zip((a.arg for a in node.args.kwonlyargs), node.args.kw_defaults,
                          strict=True)]  # fmt: skip
            if any(name in WORDS and default and is_number(default) for name, default in pairs):
                found.add(node.lineno)
        elif isinstance(node, ast.Assign):
            value = value_of(node.value)
            if isinstance(value, float) and 0 < abs(value) < SMALL:
                found.add(node.lineno)
    return sorted(found)


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: str(p.relative_to(TESTS)))
def test_no_other_file_writes_a_tolerance(path):
    assert literals(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", [
    "assert a < 1e-6", "assert 2e-5 >= abs(a - b)", "assert a <= 4 * 2.0**-23 * b",
    "assert_allclose(a, b, atol=1e-6)", "np.allclose(a, b, 0.001)", "check(a, rel=0.05)",
    "def f(a, tolerance=2e-6): pass", "def f(*, atol=1): pass", "CLOSE = 2.0**-17",
])  # fmt: skip
def test_that_rule_sees_one(line):
    assert literals(line) == [1]


@pytest.mark.parametrize("line", [
    "assert a < NEAR", "assert_allclose(a, b, atol=NEAR)", "assert_allclose(a, b, atol=0)",
    "def f(a, tolerance=NEAR): pass", "def f(x, eps=1e-5): pass", "assert a == 1e-5",
    "assert ratio < 0.6", "scale = draw([1e-30, 1e-3])", "LIMIT = 0.5",
])  # fmt: skip
def test_that_rule_leaves_the_rest(line):
    assert literals(line) == []


def test_every_tolerance_is_used_and_derived():
    names = [name for name in vars(tolerances) if name.isupper()]
    text = "".join(path.read_text(encoding="utf-8") for path in OTHERS)
    text += (TESTS / "c/tolerances.h").read_text(encoding="utf-8")
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
    lines = HOME.read_text(encoding="utf-8").splitlines()
    for k, line in enumerate(lines):
        if re.match(r"[A-Z]\w* = ", line):
            above = next(one for one in reversed(lines[:k]) if not re.match(r"[A-Z]\w* = ", one))
            assert "  # " in line or above.startswith("# "), line


def test_those_of_the_c_programs_are_the_same():
    source = (TESTS / "c" / "tolerances.h").read_text(encoding="utf-8")
    found = dict(re.findall(r"^#define (\w+) ([^/\n]+?)\s*(?:/\*.*)?$", source, re.M))
    assert len(found) >= 11
    for name, expression in found.items():
        numbers = re.sub(r"0x[\w.]+p-?\d+", lambda m: repr(float.fromhex(m[0])), expression)
        assert math.isclose(value_of(ast.parse(numbers, mode="eval").body),
                            getattr(tolerances, name), rel_tol=0), name  # fmt: skip
    others = [path for path in (TESTS / "c").glob("*.[ch]") if path.name != "tolerances.h"]
    for path in others:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#define \w*(ULP|TOLERANCE|SLACK|REFERENCE)|#define U ", text), path
