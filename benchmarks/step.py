# SPDX-License-Identifier: MIT
"""The float32 step of clstm against torch, NumPy and ONNX Runtime: `python benchmarks/step.py`.

One layer, one stream, input size = hidden size, all in one process on one core. README.md
beside this file says how it is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import clstm

TARGETS = {32: 25, 64: 10, 128: 4, 256: 3}  # ONNX Runtime's time / clstm's; --check asks for half
TOLERANCE = 1e-5
FRAMES = 64
TURN, REWARM = 30, 10  # calls in a row of one contestant, and how many of them are not timed
CALLS = 200  # timed, at least
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass
class Contestant:
    """step takes one of frames, all of them views of the same numbers; read gives h after it."""

    name: str
    frames: list[Any]
    step: Callable[[Any], Any]
    read: Callable[[], np.ndarray]
    times: list[int] = field(default_factory=list)

    def median(self) -> float:
        return float(np.median(self.times)) / 1e3

    def p99(self) -> float:
        return float(np.percentile(self.times, 99)) / 1e3


# ---- the contestants ----------------------------------------------------------------------


def of_clstm(weights: dict[str, np.ndarray], x: np.ndarray, kernel: str | None) -> Contestant:
    stream = clstm.from_state_dict(weights, kernel=kernel).stream()
    y = np.empty(x.shape[1], np.float32)
    return Contestant("clstm", list(x), functools.partial(stream.step, out=y), lambda: y)


def of_numpy(weights: dict[str, np.ndarray], x: np.ndarray) -> Contestant:
    """One product of [x, h] for all gates, one tanh for all gates: sigmoid(z) is
    (1 + tanh(z / 2)) / 2, the halves of z are in the weights. Nothing is allocated."""
    n = x.shape[1]
    half = np.repeat(np.float32([0.5, 0.5, 0.5, 1]), n)
    rows = np.concatenate([np.arange(2 * n), np.arange(3 * n, 4 * n), np.arange(2 * n, 3 * n)])
    w = np.hstack([weights["weight_ih_l0"], weights["weight_hh_l0"]])[rows]  # i, f, o, g
    b = (weights["bias_ih_l0"] + weights["bias_hh_l0"])[rows] * half
    w = np.ascontiguousarray((w * half[:, None]).T)
    xh, z, c, t = (np.zeros(k, np.float32) for k in (2 * n, 4 * n, n, n))
    h, gates, (i, f, o, g) = xh[n:], z[: 3 * n], z.reshape(4, n)
    dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh

    def step(frame: np.ndarray) -> None:
        xh[:n] = frame
        dot(xh, w, out=z)
        add(z, b, out=z)
        tanh(z, out=z)
        multiply(gates, 0.5, out=gates)
        add(gates, 0.5, out=gates)
        multiply(c, f, out=c)
        multiply(i, g, out=t)
        add(c, t, out=c)
        tanh(c, out=t)
        multiply(o, t, out=h)

    return Contestant("NumPy", list(x), step, lambda: h)


def of_torch_lstm(weights: dict[str, np.ndarray], x: np.ndarray, torch: Any) -> Contestant:
    n = x.shape[1]
    module = torch.nn.LSTM(n, n).eval()
    module.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    state = (torch.zeros(1, 1, n), torch.zeros(1, 1, n))

    def step(frame: Any) -> None:
        nonlocal state
        _, state = module(frame, state)

    frames = list(torch.from_numpy(x)[:, None, None])
    return Contestant("torch nn.LSTM", frames, step, lambda: state[0][0, 0].numpy())


def of_torch_cell(weights: dict[str, np.ndarray], x: np.ndarray, torch: Any) -> Contestant:
    n = x.shape[1]
    module = torch.nn.LSTMCell(n, n).eval()
    module.load_state_dict({k.removesuffix("_l0"): torch.from_numpy(w) for k, w in weights.items()})
    state = (torch.zeros(1, n), torch.zeros(1, n))

    def step(frame: Any) -> None:
        nonlocal state
        state = module(frame, state)

    frames = list(torch.from_numpy(x)[:, None])
    return Contestant("torch nn.LSTMCell", frames, step, lambda: state[0][0].numpy())


def of_onnxruntime(
    weights: dict[str, np.ndarray], x: np.ndarray, onnx: Any, ort: Any
) -> Contestant:
    """A model of one LSTM node, whose two outputs, h and c, are fed back."""
    n = x.shape[1]
    rows = np.arange(4 * n).reshape(4, n)[[0, 3, 1, 2]].reshape(-1)  # i, f, g, o to i, o, f, g
    tensors = {
        "W": weights["weight_ih_l0"][None, rows],
        "R": weights["weight_hh_l0"][None, rows],
        "B": np.concatenate([weights["bias_ih_l0"][rows], weights["bias_hh_l0"][rows]])[None],
    }
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node(
        "LSTM", ["x", "W", "R", "B", "", "h", "c"], ["", "h_n", "c_n"], hidden_size=n
    )
    inputs, outputs = (
        [helper.make_tensor_value_info(name, float32, [1, 1, n]) for name in names]
        for names in (("x", "h", "c"), ("h_n", "c_n"))
    )
    initializers = [onnx.numpy_helper.from_array(a, name) for name, a in tensors.items()]
    graph = helper.make_graph([node], "step", inputs, outputs, initializers)
    opset = helper.make_opsetid("", 14)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    run = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run
    h = c = np.zeros((1, 1, n), np.float32)
    names = ["h_n", "c_n"]

    def step(frame: np.ndarray) -> None:
        nonlocal h, c
        h, c = run(names, {"x": frame, "h": h, "c": c})

    return Contestant("ONNX Runtime run", list(x[:, None, None]), step, lambda: h[0, 0])


# ---- the race -----------------------------------------------------------------------------


def compare(contestants: Sequence[Contestant]) -> float:
    """The largest difference of any h from clstm's, which is the first."""
    expected = contestants[0].read()
    difference = max((float(np.abs(c.read() - expected).max()) for c in contestants[1:]), default=0)
    if not difference < TOLERANCE:
        raise SystemExit(f"the results differ by {difference:.2g}: nothing to report")
    return difference


def race(contestants: Sequence[Contestant], seconds: float) -> float:
    """Turn by turn, until each was timed CALLS times and the slowest for so many seconds.
    Returns the largest difference of the results, over all frames, then after each round."""
    difference = 0.0
    for at in range(FRAMES):
        for c in contestants:
            c.step(c.frames[at])
        difference = max(difference, compare(contestants))
    at = 0
    while any(len(c.times) < CALLS for c in contestants) or not any(
        sum(c.times) >= seconds * 1e9 for c in contestants
    ):
        for c in contestants:
            step, times = c.step, []
            for k in range(at, at + TURN):
                frame = c.frames[k % FRAMES]
                start = perf_counter_ns()
                step(frame)
                times.append(perf_counter_ns() - start)
            c.times += times[REWARM:]
        difference = max(difference, compare(contestants))
        at += TURN
    return difference


def measure(hidden: int, kernel: str | None, seconds: float, peers: dict[str, Any]) -> dict:
    rng, edge = np.random.default_rng(hidden), hidden**-0.5  # PyTorch's default weights
    shapes = {"weight_ih_l0": (4 * hidden, hidden), "weight_hh_l0": (4 * hidden, hidden),
              "bias_ih_l0": (4 * hidden,), "bias_hh_l0": (4 * hidden,)}  # fmt: skip
    weights = {k: rng.uniform(-edge, edge, shape).astype("f") for k, shape in shapes.items()}
    x = rng.standard_normal((FRAMES, hidden), np.float32)
    torch, onnx, ort = peers["torch"], peers["onnx"], peers["onnxruntime"]
    contestants = [of_clstm(weights, x, kernel), of_numpy(weights, x)]
    if torch:
        contestants += [of_torch_lstm(weights, x, torch), of_torch_cell(weights, x, torch)]
    if onnx and ort:
        contestants.append(of_onnxruntime(weights, x, onnx, ort))
    gc.collect()
    gc.disable()
    with torch.inference_mode() if torch else contextlib.nullcontext():
        difference = race(contestants, seconds)
    gc.enable()
    ours = contestants[0].median()
    return {
        "hidden": hidden, "max_difference": difference, "calls": len(contestants[0].times),
        "median_us": {c.name: c.median() for c in contestants},
        "p99_us": {c.name: c.p99() for c in contestants},
        "ratio": {c.name: c.median() / ours for c in contestants[1:]},
    }  # fmt: skip


# ---- the report ---------------------------------------------------------------------------


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def table(results: list[dict], markdown: bool) -> str:
    names = list(results[0]["ratio"])
    rows = [["H", "clstm", "p99", *names] if not markdown else ["hidden size", "clstm", *names]]
    for r in results:
        ours = [f"{r[key]['clstm']:.2f} µs" for key in ("median_us", "p99_us")]
        ratios = [f"{r['ratio'][name]:.1f}×" for name in names]
        rows.append([str(r["hidden"]), *ours[: 1 if markdown else 2], *ratios])
    if markdown:
        rows.insert(1, ["---:"] * len(rows[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.rjust(n) for word, n in zip(row, widths, strict=True)) for row in rows
    )


def check(results: list[dict]) -> list[str]:
    """What is below half the target against ONNX Runtime, a line each."""
    wanted = [r for r in results if r["hidden"] in TARGETS]
    if not wanted or any("ONNX Runtime run" not in r["ratio"] for r in wanted):
        return ["cannot check: it takes onnx, onnxruntime and a hidden size that has a target"]
    found = [(r["hidden"], r["ratio"]["ONNX Runtime run"]) for r in wanted]
    return [
        f"H = {hidden}: {ratio:.1f} times as fast as ONNX Runtime, expected {TARGETS[hidden] / 2}"
        for hidden, ratio in found
        if ratio < TARGETS[hidden] / 2
    ]


def main() -> int:
    if any(os.environ.get(name) != "1" for name in THREADS):  # before any library starts a pool
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | THREADS)
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--hidden", type=int, nargs="+", default=list(TARGETS), metavar="H")
    parser.add_argument("--kernel", choices=clstm.available_kernels(), help="default: the best")
    parser.add_argument("--seconds", type=float, default=0.5, help="of the slowest; default 0.5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--markdown", action="store_true", help="print the table of README.md")
    parser.add_argument("--check", action="store_true", help="exit 1 below half a target")
    args = parser.parse_args()

    core = None
    if hasattr(os, "sched_setaffinity"):
        core = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
    peers = {name: optional(name) for name in ("torch", "onnx", "onnxruntime")}
    if peers["torch"]:
        peers["torch"].set_num_threads(1)
    versions = {"clstm": clstm.__version__, "numpy": np.__version__}
    versions |= {k: m.__version__ if m else "not installed" for k, m in peers.items()}
    kernel = clstm.from_state_dict(
        {"weight_ih": np.zeros((4, 1), "f"), "weight_hh": np.zeros((4, 1), "f")}, kernel=args.kernel
    ).kernel
    settings = {
        "cpu": cpu_model(), "kernel": kernel, "core": core, "threads": 1, "versions": versions,
        "python": platform.python_version(), "system": platform.system(), "turn": TURN,
        "untimed_calls_per_turn": REWARM, "min_calls": CALLS, "seconds": args.seconds,
    }  # fmt: skip
    where = f"pinned to core {core}" if core is not None else "not pinned"
    note = (f"{settings['cpu']}, one thread, {where}, kernel {kernel}, Python "
            f"{settings['python']}, " + ", ".join(f"{k} {v}" for k, v in versions.items()))  # fmt: skip
    results = [measure(hidden, args.kernel, args.seconds, peers) for hidden in args.hidden]
    print(f"{table(results, args.markdown)}\n\n{note}")
    if not args.markdown:
        worst = max(r["max_difference"] for r in results)
        print(f"ratios are the peer's median / clstm's; results differ by at most {worst:.1g}")
    if args.json:
        args.json.write_text(json.dumps({"settings": settings, "results": results}, indent=2))
    faults = check(results) if args.check else []
    print("".join(f"{fault}\n" for fault in faults), end="", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
