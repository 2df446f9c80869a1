# SPDX-License-Identifier: MIT
"""benchmarks/load.py and sizes.py in their short forms: a busy machine, two threads, no cliffs."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECONDS, TRIES = 1.5, 4
pytestmark = pytest.mark.timing


def script(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    return module


def test_a_busy_machine_and_two_threads(monkeypatch):
    load, cores = script("load", monkeypatch), os.cpu_count() or 1
    for _ in range(TRIES):
        idle = load.idle_cores()
        step, threads = load.of_step(cores, SECONDS), load.of_threads(cores, SECONDS)
        share = load.balance(SECONDS)
        lines = load.missed(step, threads, share, idle)
        print(step, threads, share, idle, lines)
        if not lines:
            break
    assert not lines
    if idle < 2:
        pytest.skip("not run: the speed of two threads, for no two cores are idle")


def test_the_targets_are_judged(monkeypatch):
    load = script("load", monkeypatch)
    step = {"clstm busy p99": 10.0, "NumPy busy p99": 10.0}
    threads = {"1 threads busy": 10.0, "2 threads busy": 10.0}
    threads |= {"1 threads idle": 17.0, "2 threads idle": 10.0}
    assert load.missed(step, threads, 0.9, 2) == []
    assert len(load.missed(step | {"clstm busy p99": 21.0}, threads, 0.9, 2)) == 1
    assert len(load.missed(step, threads | {"2 threads busy": 21.0}, 0.9, 2)) == 1
    slow = threads | {"2 threads idle": 11.0}
    assert len(load.missed(step, slow, 0.6, 2)) == 2 and not load.missed(step, slow, 0.6, 1)


def test_no_size_is_a_cliff(monkeypatch):
    sizes = script("sizes", monkeypatch)
    program = sizes.c_call.build()
    if program is None:
        pytest.skip("not run: no C compiler")
    kernel = sizes.clstm.available_kernels()[0]
    for kind in sizes.GATES:
        found = sizes.ratios(program, kind, (1, 16, 64, 112, 130), kernel)
        worst = max(found, key=found.__getitem__)
        assert len(found) >= 150 and found[worst] <= sizes.LIMIT, (kind, worst, found[worst])
    program.close()


def test_what_python_costs_a_step(monkeypatch):
    call = script("call", monkeypatch)
    program = call.c_call.build()
    if program is None:
        pytest.skip("not run: no C compiler")
    for _ in range(TRIES):
        found = call.overheads(program)
        if all(found[name] <= limit for name, limit in call.LIMITS.items()):
            break
    program.close()
    assert all(found[name] <= limit for name, limit in call.LIMITS.items()), found
