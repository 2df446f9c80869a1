# SPDX-License-Identifier: MIT
"""What Python costs a step: stream.step(x, out=y) and a call of stream.bind(x, y) of a tiny model,
over clstm_step of the same from C. Least times of many rounds, C before and behind them. With
--check more than 0.25 and 0.1 us is the exit status."""

from __future__ import annotations

import argparse
import sys
import timeit
from pathlib import Path

import numpy as np

import clstm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import c_call, machine
from harness.case import Case

CASE = Case("step", "LSTM", 1, 8)
LIMITS = {"step": 0.25, "bind": 0.1}  # microseconds
ROUNDS, CALLS = 30, 20_000


def overheads(program: c_call.Program) -> dict[str, float]:
    """Microseconds a call over the call from C."""
    stream = clstm.from_state_dict(CASE.weights()).stream()
    x, y = np.zeros(CASE.n_in, np.float32), np.zeros(CASE.hidden, np.float32)
    names = {"take": stream.step, "bound": stream.bind(x, y), "x": x, "y": y}
    calls = {"step": "take(x, out=y)", "bind": "bound()", "nothing": "pass"}
    kernel = stream.model.kernel
    in_c = program.measure(CASE, kernel)["best"]
    took = {
        name: 1e6 / CALLS * min(timeit.repeat(call, globals=names, number=CALLS, repeat=ROUNDS))
        for name, call in calls.items()
    }
    in_c = min(in_c, program.measure(CASE, kernel)["best"])
    return {name: took[name] - took["nothing"] - in_c for name in LIMITS} | {"C": in_c}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 above a limit")
    args = parser.parse_args()
    machine.pin()
    program = c_call.build()
    if program is None:
        print("not run: no C compiler")
        return 2
    found = overheads(program)
    program.close()
    print(f"clstm_step from C: {found['C']:.3f} us")
    for name, limit in LIMITS.items():
        print(f"{name}: {found[name]:.3f} us over it, at most {limit}")
    return int(args.check and any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
