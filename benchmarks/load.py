# SPDX-License-Identifier: MIT
"""clstm on a busy machine, and on two threads. Beside a NumPy loop of the same cell, in turns in
one process: a step on one thread while every core has other work; a batch on two threads, idle and
busy, against the same on one. With --check a missed target is the exit status."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import clstm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import machine
from harness.case import Case
from harness.of_clstm import of_clstm
from harness.of_numpy import of_numpy

STEP, BATCH = Case("step", "LSTM", 128, 128), Case("batch", "LSTM", 512, 512, batch=64)
P99, BUSY_TEAM, SPEEDUP, BALANCE = 2.0, 2.0, 1.6, 0.7
IDLE_PAIR = 1.8  # what two processes must get done of twice the work of one: two idle cores
SPIN = "while True: pass"
COUNT = """import time
end, n = time.perf_counter() + 0.3, 0
while time.perf_counter() < end: n += 1
print(n)"""


@contextlib.contextmanager
def load(cores: int) -> Iterator[None]:
    """As many processes as cores, each never done."""
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(cores)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def idle_cores() -> int:
    """2 where two processes at once do twice the work of one, else 1."""

    def work(n: int) -> int:
        some = [subprocess.Popen([sys.executable, "-c", COUNT], stdout=subprocess.PIPE, text=True)
                for _ in range(n)]  # fmt: skip
        return sum(int(process.communicate()[0]) for process in some)

    return 2 if (os.cpu_count() or 1) > 1 and work(2) > IDLE_PAIR * work(1) else 1


def in_turns(sides: dict[str, Callable[[], Any]], seconds: float) -> dict[str, np.ndarray]:
    """Microseconds of each call, a hundred of each side in turn, for so long."""
    times: dict[str, list[int]] = {name: [] for name in sides}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, side in sides.items():
            for _ in range(100):
                begin = time.perf_counter_ns()
                side()
                times[name].append(time.perf_counter_ns() - begin)
                if times[name][-1] > 1e6:  # a call of a millisecond needs no hundred
                    break
    return {name: np.array(some) / 1e3 for name, some in times.items()}


def of_step(cores: int, seconds: float) -> dict[str, float]:
    """p50 and p99 of a step, idle and busy, of clstm and NumPy."""
    given = STEP, STEP.weights(), STEP.inputs()
    sides = {}
    for contestant in (of_clstm(*given, None), of_numpy(*given)):
        frame, step = contestant.frames[0], contestant.step
        sides[contestant.name] = lambda step=step, frame=frame: step(frame)
    found = {}
    for name, many in (("idle", 0), ("busy", cores)):
        with load(many):
            for side, took in in_turns(sides, seconds).items():
                found[f"{side} {name} p50"], found[f"{side} {name} p99"] = np.percentile(
                    took, (50, 99)
                )
    return {k: float(v) for k, v in found.items()}


def of_threads(cores: int, seconds: float) -> dict[str, float]:
    """The mean time of a batch on one and two threads, idle and busy; their bits are compared."""
    weights, x = BATCH.weights(), BATCH.inputs()
    models = {n: clstm.from_state_dict(weights, threads=n) for n in (1, 2)}
    want, (h, c) = models[1](x[0])
    sides = {f"{n} threads": lambda m=m: m(x[0]) for n, m in models.items()}
    found = {}
    for name, many in (("idle", 0), ("busy", cores)):
        with load(many):
            for side, took in in_turns(sides, seconds).items():
                average = np.median(took) if name == "idle" else np.mean(took)
                found[f"{side} {name}"] = float(average)
            got, (h2, c2) = models[2](x[0])
            if not (np.array_equal(want, got) and np.array_equal(h, h2) and np.array_equal(c, c2)):
                raise SystemExit("two threads gave other bits")
    return found


def thread_times() -> dict[str, int]:
    """Nanoseconds that each thread of this process has run."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[task.name] = int((task / "schedstat").read_text().split()[0])
    return found


def balance(seconds: float) -> float:
    """The lesser of both threads' CPU time / the larger, over so many seconds of batches."""
    model, x = clstm.from_state_dict(BATCH.weights(), threads=2), BATCH.inputs()
    before, end = thread_times(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        model(x[0])
    spent = sorted(ns - before.get(task, ns) for task, ns in thread_times().items())
    return spent[-2] / spent[-1]


def missed(
    step: dict[str, float], threads: dict[str, float], share: float, cores: int
) -> list[str]:
    """A line for each target that was not reached; with one idle core alone, two threads are not
    judged by their speed and shares."""
    lines = []
    if cores > 1 and share < BALANCE:
        lines.append(f"two threads: CPU times {share:.2f} apart, expected at least {BALANCE}")
    p99 = step["clstm busy p99"] / step["NumPy busy p99"]
    if p99 > P99:
        lines.append(f"busy: p99 of a step is {p99:.2f} of NumPy's, expected at most {P99}")
    team = threads["2 threads busy"] / threads["1 threads busy"]
    if team > BUSY_TEAM:
        lines.append(f"busy: two threads take {team:.2f} of one, expected at most {BUSY_TEAM}")
    speedup = threads["1 threads idle"] / threads["2 threads idle"]
    if cores > 1 and speedup < SPEEDUP:
        lines.append(f"idle: two threads are {speedup:.2f} x as fast, expected {SPEEDUP}")
    return lines


def main() -> str | None:
    machine.limit_threads()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="each of the four measurements")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    idle = idle_cores()
    step, threads = of_step(cores, args.seconds), of_threads(cores, args.seconds)
    share = balance(args.seconds)
    for name, value in (step | threads).items():
        print(f"{name:24} {value:10.1f} us")
    print(f"two idle cores: {'yes' if idle > 1 else 'no: the speed of two threads is not judged'}")
    print(f"busy: p99 of a step / NumPy's {step['clstm busy p99'] / step['NumPy busy p99']:.2f}")
    print(f"busy: two threads / one {threads['2 threads busy'] / threads['1 threads busy']:.2f}")
    print(f"two threads: the lesser CPU time / the larger {share:.2f}")
    print(f"idle: one thread / two {threads['1 threads idle'] / threads['2 threads idle']:.2f}")
    return "\n".join(missed(step, threads, share, idle) if args.check else []) or None


if __name__ == "__main__":
    sys.exit(main())
