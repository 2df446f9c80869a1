# SPDX-License-Identifier: MIT
"""benchmarks/suite.py writes what it measured, and shows it again from the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bounds.tolerances import FAR

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "suite.py"


def run(*words: str) -> str:
    command = [sys.executable, str(SCRIPT), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs(tmp_path):
    few = ["--without", "torch", "jax", "openvino", "--kernel", "scalar", "--seconds", "0"]
    printed = run("--threads", "1", "--only", "RNN I64 H64", "--results", str(tmp_path), *few)
    (path,) = tmp_path.iterdir()
    written = json.loads(path.read_text(encoding="utf-8"))
    (case,) = written["cases"]
    assert (case["mode"], case["kind"], case["hidden"]) == ("step", "RNN", 64)
    assert {"clstm", "NumPy"} <= case["us"].keys() and case["calls"] >= 200
    assert case["max_difference"] < FAR
    assert case["us"]["clstm"]["0"] <= case["us"]["clstm"]["50"] <= case["us"]["clstm"]["100"]
    assert case["bytes"] >= 4 * 128 * 64
    assert written["settings"]["kernel"] == "scalar"
    assert run("--report", str(path)) == printed
    assert "RNN H64" in printed
