# SPDX-License-Identifier: MIT
"""The documents tell the truth: every block of docs/from-torch.md and README.md runs, torch and
clstm agree where a pair of blocks sets the same names, prints print what stands behind them;
docs/dependencies.md names what pyproject.toml asks for, and no more."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bounds.tolerances import FAR

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python *(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^ *print\(.*\) +# (.*)$", re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """The side ("torch", "clstm" or ""), the code and its first line of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in BLOCK.finditer(text)]


def execute(page: Path, code: str, line: int, names: dict[str, Any]) -> str:
    """What it prints. Tracebacks show the page's own lines."""
    printed = io.StringIO()
    tree = ast.parse(code, str(page))
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.increment_lineno(tree, line - 1), str(page), "exec"), names)
    return printed.getvalue()


def assigned(code: str) -> set[str]:
    """Names that the block sets at its top level, or in a loop there."""
    nodes = [n for n in ast.parse(code).body if not isinstance(n, ast.ClassDef | ast.FunctionDef)]
    found = (n for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in found if isinstance(n.ctx, ast.Store)} - {"_"}


def is_result(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "detach")


def as_numpy(value: Any) -> np.ndarray:
    return value.detach().numpy() if hasattr(value, "detach") else value


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # torch.compile imports
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_from_torch_page(workplace):
    pytest.importorskip("torch").manual_seed(0)
    page = ROOT / "docs" / "from-torch.md"
    code_blocks = blocks(page)
    sides = [side for side, _, _ in code_blocks]
    assert sides[0] == "" and set(sides[1:]) == {"torch", "clstm"}
    assert all(b == "clstm" for a, b in pairwise(sides) if a == "torch"), "torch without clstm"
    names: dict[str, Any] = {"__name__": "from_torch"}
    expected: dict[str, np.ndarray] = {}
    compared = 0
    for side, code, line in code_blocks:
        printed = execute(page, code, line, names)
        assert printed.split() == " ".join(PRINTS.findall(code)).split(), f"line {line}"
        results = {k: as_numpy(names[k]).copy() for k in assigned(code) if is_result(names[k])}
        if side == "torch":
            expected = results
            continue
        common = expected.keys() & results.keys()
        assert common or not expected, f"line {line}: nothing to compare with torch"
        for name in common:
            assert results[name].shape == expected[name].shape, f"line {line}: {name}"
            assert results[name].dtype == expected[name].dtype, f"line {line}: {name}"
            np.testing.assert_allclose(
                results[name], expected[name], rtol=0, atol=FAR, err_msg=f"line {line}: {name}"
            )
        compared += len(common)
        expected = {}
    assert compared >= 40


@pytest.mark.filterwarnings("ignore")  # of torch's exporters
def test_readme_blocks(workplace):
    """After the line that exports the model, in order, in one namespace, in a directory that
    holds a copy of examples/."""
    torch = pytest.importorskip("torch")
    page = ROOT / "README.md"
    parts = {"lstm": torch.nn.LSTM(8, 32), "head": torch.nn.Linear(32, 2)}
    exporting = re.search(r"`(torch\.save\(.*?\))`", page.read_text(encoding="utf-8"))
    assert exporting, "the README says how to export"
    exec(exporting[1], {"torch": torch, "model": torch.nn.ModuleDict(parts)})
    names: dict[str, Any] = {"__name__": "readme"}
    names["module"], names["tx"] = parts["lstm"], torch.zeros(20, 3, 8)
    names["packed"] = torch.nn.utils.rnn.pack_padded_sequence(names["tx"], [20, 7, 1])
    torch.onnx.export(parts["lstm"], (names["tx"],), "model.onnx", dynamo=False)
    for _, code, line in blocks(page):
        execute(page, code, line, names)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_dependencies_page():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(r for rs in project["project"]["optional-dependencies"].values() for r in rs),
    ]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w.-]+)", page, re.MULTILINE)
    assert set(named) == {re.split(r"[^\w.-]", r)[0] for r in wanted}  # some have two reasons
    for pinned in (r for r in wanted if "==" in r.partition(";")[0]):
        assert f"| `{pinned}` |" in page
