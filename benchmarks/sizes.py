# SPDX-License-Identifier: MIT
"""No size is a cliff: a step from C at every combination of a coarse grid of input and hidden
sizes and its neighbours, against the step at the next larger multiples of 16. Prints the worst
ratios; with --check more than 1.3 is the exit status."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import clstm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import c_call, machine
from harness.case import GATES, Case

GRID = (1, 8, 16, 32, 48, 64, 96, 128, 160, 200, 256, 299)
LIMIT, TRIES = 1.3, 6
CHUNK = 100  # models a process


def next_multiple(n: int) -> int:
    return (n // 16 + 1) * 16


def sizes(grid: tuple[int, ...]) -> list[int]:
    """The grid and its neighbours."""
    return sorted({n + d for n in grid for d in (-1, 0, 1)} - {0})


def times(program: c_call.Program, cases: list[Case], kernel: str) -> dict[Case, float]:
    """Least microseconds a step of each."""
    found: dict[Case, float] = {}
    for at in range(0, len(cases), CHUNK):
        chunk = cases[at : at + CHUNK]
        measured = program.measure_all(chunk, kernel)
        found |= {case: m["best"] for case, m in zip(chunk, measured, strict=True)}
    return found


def ratios(
    program: c_call.Program, kind: str, grid: tuple[int, ...], kernel: str
) -> dict[tuple[int, int], float]:
    """Time / time at the next larger multiples of 16, by (input, hidden). A ratio above the limit
    is measured again, both sides anew, and its least counts: what load adds is not the kernel's."""
    pairs = {
        (i, h): (Case("step", kind, i, h), Case("step", kind, next_multiple(i), next_multiple(h)))
        for i in sizes(grid)
        for h in sizes(grid)
    }
    found: dict[tuple[int, int], float] = {}
    left = list(pairs)
    for _ in range(TRIES):
        took = times(program, list(dict.fromkeys(c for k in left for c in pairs[k])), kernel)
        for key in left:
            small, large = pairs[key]
            found[key] = min(found.get(key, 1e9), took[small] / took[large])
        left = [key for key in left if found[key] > LIMIT]
        if not left:
            break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", choices=list(GATES), nargs="+", default=list(GATES))
    parser.add_argument("--grid", type=int, nargs="+", default=list(GRID), metavar="N")
    parser.add_argument("--kernel", choices=clstm.available_kernels(), help="default: clstm's own")
    parser.add_argument("--check", action="store_true", help=f"exit 1 above {LIMIT}")
    args = parser.parse_args()
    cores = machine.pin()
    kernel = args.kernel or clstm.available_kernels()[0]
    program = c_call.build()
    if program is None:
        print("not run: no C compiler")
        return 2
    worst = 0.0
    for kind in args.cell:
        found = ratios(program, kind, tuple(args.grid), kernel)
        top = sorted(found, key=found.__getitem__, reverse=True)[:5]
        shown = ", ".join(f"I{i} H{h} {found[i, h]:.2f}" for i, h in top)
        print(f"{kind}: {len(found)} sizes, the worst against the next multiple of 16: {shown}")
        worst = max(worst, found[top[0]])
    program.close()
    print(f"kernel {kernel}, core {cores}, clstm {clstm.__version__}")
    return int(args.check and worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
