# SPDX-License-Identifier: MIT
"""Contestants in turns, each call timed alone, all results compared. Reading the clock twice takes
as long as a small step: what it takes with nothing between is measured each round and taken off."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns, sleep
from typing import Any

import numpy as np

TOLERANCE = 1e-5
TURN, REWARM = 100, 20  # calls in a row of one contestant; the first of them are not timed,
REWARM_US = 100  # nor is what the fastest does in this time: all do as many calls
CALLS = 200  # timed, at least
PERCENTILES = (0, 1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


@dataclass
class Contestant:
    """step takes one of frames, which are views of the same numbers; read gives its result."""

    name: str
    frames: Sequence[Any]
    step: Callable[[Any], Any]
    read: Callable[[], np.ndarray]
    times: list[int] = field(default_factory=list)  # nanoseconds, without the clock's own

    def microseconds(self) -> dict[str, float]:
        values = np.percentile(self.times, PERCENTILES) / 1e3
        return {f"{p:g}": round(float(v), 4) for p, v in zip(PERCENTILES, values, strict=True)}


def clock_time(pairs: int = 200) -> int:
    """Nanoseconds between two readings with nothing between: the median of so many."""
    found = []
    for _ in range(pairs):
        start = perf_counter_ns()
        found.append(perf_counter_ns() - start)
    return sorted(found)[pairs // 2]


def compare(contestants: Sequence[Contestant]) -> float:
    """The largest difference of any result from the first contestant's; too large ends the run."""
    first = contestants[0].read()
    differences = [float(np.max(np.abs(c.read() - first))) for c in contestants]
    difference = float(np.max(differences))
    if not difference < TOLERANCE:
        names = [c.name for c, d in zip(contestants, differences, strict=True) if d != 0]
        raise SystemExit(f"the results differ by {difference:.2g}: nothing to report of {names}")
    return difference


def race(
    contestants: Sequence[Contestant],
    seconds: float,
    between: Callable[[], None] = lambda: None,
    longest: float = 3.0,
    pause: float = 0.0,
) -> tuple[float, int]:
    """Turn by turn, until each was timed CALLS times and the slowest for so many seconds; calls
    so long that this takes the slowest more than `longest` seconds are fewer. The first calls
    only warm up. `between` is called once a round; before each turn there is a pause of so many
    seconds, in which the threads of the last side cease to spin. Returns the largest difference
    of results, and the clock's own time, which is in no call's."""
    differences, clocks, took = [], [], np.full(len(contestants), 1e12)
    for at in range(len(contestants[0].frames)):
        for i, c in enumerate(contestants):
            start = perf_counter_ns()
            c.step(c.frames[at])
            took[i] = min(took[i], perf_counter_ns() - start + 1)
        differences.append(compare(contestants))
    timed = int(np.clip(0.1e9 / took.max(), 4, TURN - REWARM))
    rewarm = max(timed // 4, min(200, int(REWARM_US * 1e3 / took.min())))
    turn = timed + rewarm
    calls = int(np.clip(longest * 1e9 / took.max(), 30, CALLS))
    for at in itertools.count(0, turn):
        between()
        clocks.append(clock_time())
        for c in contestants:
            if pause:
                sleep(pause)
            step, n = c.step, len(c.frames)
            frames = [c.frames[k % n] for k in range(at, at + turn)]
            for frame in frames[:rewarm]:
                step(frame)
            for frame in frames[rewarm:]:
                start = perf_counter_ns()
                step(frame)
                c.times.append(perf_counter_ns() - start - clocks[-1])
        differences.append(compare(contestants))
        spent = max(sum(c.times) for c in contestants)
        if len(contestants[0].times) >= calls and spent >= seconds * 1e9:
            break
    return max(differences), sorted(clocks)[len(clocks) // 2]
