# SPDX-License-Identifier: MIT
"""The float32 step of clstm against torch, NumPy and ONNX Runtime: one layer of LSTM, GRU or RNN,
one stream, input size = hidden size, in one process on one core. README.md here says how it is
measured; suite.py measures more.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
from pathlib import Path
from typing import Any

import clstm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import machine
from harness.case import FRAMES as FRAMES_OF
from harness.case import GATES, Case
from harness.of_clstm import of_clstm
from harness.of_numpy import of_numpy
from harness.of_onnx import ORT, of_onnxruntime
from harness.of_torch import of_torch
from harness.turns import CALLS, REWARM, TURN, Contestant, race

__all__ = ["CALLS", "FRAMES", "ORT", "Contestant", "race"]

# ONNX Runtime's time / clstm's for an LSTM; of GRU and RNN 0.9 of it. --check asks for half.
TARGETS = {32: 25, 64: 10, 128: 4, 256: 3}
PART = {"LSTM": 1.0, "GRU": 0.9, "RNN": 0.9}
FRAMES = FRAMES_OF["step"]


def measure(
    kind: str, n: int, kernel: str | None, seconds: float, peers: dict[str, Any]
) -> dict[str, Any]:
    case = Case("step", kind, n, n)
    given = case, case.weights(), case.inputs()
    torch, onnx, ort = (peers[name] for name in ("torch", "onnx", "onnxruntime"))
    contestants = [of_clstm(*given, kernel), of_numpy(*given)]
    if torch:
        contestants += [of_torch(*given, torch, form) for form in ("module", "cell")]
    if onnx and ort:
        contestants.append(of_onnxruntime(*given, onnx, ort))
    gc.collect()
    gc.disable()
    with torch.inference_mode() if torch else contextlib.nullcontext():
        difference, _ = race(contestants, seconds)
    gc.enable()
    us = {c.name: c.microseconds() for c in contestants}
    median, p99 = ({k: round(v[p], 3) for k, v in us.items()} for p in ("50", "99"))
    ratio = {c.name: median[c.name] / median["clstm"] for c in contestants[1:]}
    return {"cell": kind, "hidden": n, "max_difference": difference,
            "calls": len(contestants[0].times), "median_us": median,
            "p99_us": p99, "ratio": ratio}  # fmt: skip


def table(results: list[dict[str, Any]], markdown: bool) -> str:
    rows = [["hidden size", "clstm, µs", *(f"{name} / clstm" for name in results[0]["ratio"])]]
    for r in results:
        ratios = [f"{ratio:.1f}" for ratio in r["ratio"].values()]
        rows.append([str(r["hidden"]), f"{r['median_us']['clstm']:.2f}", *ratios])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if markdown:
        rows.insert(1, ["-" * (n - 1) + ":" for n in widths])
    lines = [(" | " if markdown else "  ").join(map(str.rjust, row, widths)) for row in rows]
    return "\n".join(f"| {line} |" if markdown else line for line in lines)


def below_half(results: list[dict[str, Any]]) -> list[str]:
    """A line for each ratio against ONNX Runtime that is below half its target."""
    known = {r["hidden"]: r["ratio"][ORT] for r in results if ORT in r["ratio"]}
    part = PART[results[0].get("cell", "LSTM")] / 2
    halves = {n: TARGETS[n] * part for n in known if n in TARGETS}
    if not halves:
        return [f"cannot check without {ORT} and a size of {list(TARGETS)}"]
    text = f"H = {{}}: {ORT} / clstm is {{:.2f}}, expected at least {{:.4g}}"
    return [text.format(n, known[n], halves[n]) for n in halves if known[n] < halves[n]]


def main() -> str | None:
    machine.limit_threads()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", choices=list(GATES), default="LSTM")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(TARGETS), metavar="H")
    parser.add_argument("--kernel", choices=clstm.available_kernels(), help="default: clstm's own")
    parser.add_argument("--seconds", type=float, default=0.5, help="of the slowest; default 0.5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--markdown", action="store_true", help="the table as README.md has it")
    parser.add_argument("--check", action="store_true", help="exit 1 below half a target")
    args = parser.parse_args()

    cores = machine.pin()
    peers = machine.load_peers(("torch", "onnx", "onnxruntime"))
    versions = machine.versions(peers)
    settings = {"cell": args.cell} | machine.settings(args.kernel, 1, cores)
    settings |= {"seconds": args.seconds, "turn": TURN, "untimed of it": REWARM}
    results = [measure(args.cell, n, args.kernel, args.seconds, peers) for n in args.hidden]
    print(table(results, args.markdown), end="\n\n")
    print(*(f"{k}: {v}" for k, v in (settings | versions).items()), sep=", ")
    report = {"settings": settings, "versions": versions, "results": results}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return "\n".join(below_half(results) if args.check else []) or None


if __name__ == "__main__":
    sys.exit(main())
