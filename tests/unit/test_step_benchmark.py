# SPDX-License-Identifier: MIT
"""benchmarks/step.py measures equal work or refuses, and does without the peers it lacks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bounds.tolerances import FAR

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step.py"


@pytest.fixture
def step(monkeypatch):
    spec = importlib.util.spec_from_file_location("step_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("wrong", [2e-5, np.nan])
def test_it_refuses_results_that_differ(step, wrong):
    def contestant(name, value):
        h = np.full(3, value, np.float32)
        return step.Contestant(name, [None] * step.FRAMES, lambda frame: None, lambda: h)

    same = [contestant("a", 0.5), contestant("b", 0.5 + 1e-6)]
    difference, clock = step.race(same, seconds=0)
    assert 0 < difference < FAR and clock > 0
    assert all(len(c.times) >= step.CALLS for c in same)
    with pytest.raises(SystemExit, match="the results differ"):
        step.race([*same, contestant("c", 0.5 + wrong)], seconds=0)


def test_the_clocks_own_time_is_in_no_calls(step, monkeypatch):
    """Each reading takes 50 of its units, each call 7."""
    now = 0

    def later(by):
        nonlocal now
        now += by
        return now

    turns = sys.modules[step.race.__module__]
    monkeypatch.setattr(turns, "perf_counter_ns", lambda: later(50))
    h = np.zeros(3, np.float32)
    one = step.Contestant("a", [None] * step.FRAMES, lambda frame: later(7), lambda: h)
    assert step.race([one], seconds=0) == (0, 50)
    assert set(one.times) == {7}


def test_the_check_asks_for_half_the_target(step):
    results = [{"hidden": 32, "ratio": {step.ORT: 12.6}}, {"hidden": 64, "ratio": {step.ORT: 5}}]
    assert step.below_half(results) == []
    results[1]["ratio"][step.ORT] = 4.9
    assert [line.split(":")[0] for line in step.below_half(results)] == ["H = 64"]
    assert step.below_half([{"hidden": 32, "ratio": {"NumPy": 7}}])


ALL = ["NumPy", "torch nn.LSTM", "torch nn.LSTMCell", "ONNX Runtime"]


@pytest.mark.parametrize("missing, compared", [((), ALL), (("torch", "onnxruntime"), ALL[:1])])
def test_it_runs(tmp_path, missing, compared):
    """sys.modules[name] = None makes an import fail, as if it were not installed."""
    report = tmp_path / "report.json"
    start = "import runpy, sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(','))); "
    start += "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    args = ["--hidden", "5", "--seconds", "0", "--kernel", "scalar", "--json", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", start, ",".join(missing) or "none", str(SCRIPT), *args],
        env={k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads(report.read_text(encoding="utf-8"))
    assert {name for name, v in written["versions"].items() if v == "not installed"} == {*missing}
    (result,) = written["results"]
    assert list(result["ratio"]) == compared
    assert result["calls"] >= 200 and result["max_difference"] < FAR
    assert written["settings"]["kernel"] == "scalar"
