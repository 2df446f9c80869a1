# SPDX-License-Identifier: MIT
"""The float32 step of clstm against torch, NumPy and ONNX Runtime: one layer of LSTM, GRU or RNN,
one stream, input size = hidden size, in one process on one core. README.md here says how it is
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import itertools
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
from clstm import nn

# ONNX Runtime's time / clstm's for an LSTM; of GRU and RNN 0.9 of it. --check asks for half.
TARGETS = {32: 25, 64: 10, 128: 4, 256: 3}
PART = {"LSTM": 1.0, "GRU": 0.9, "RNN": 0.9}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TOLERANCE = 1e-5
FRAMES = 64
TURN, REWARM = 100, 20  # calls in a row of one contestant; the first of them are not timed
CALLS = 200  # timed, at least
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
ORT = "ONNX Runtime"
Arrays = dict[str, np.ndarray]


@dataclass
class Contestant:
    """step takes one of frames, which are views of the same numbers; read gives h after it."""

    name: str
    frames: Sequence[Any]
    step: Callable[[Any], Any]
    read: Callable[[], np.ndarray]
    times: list[int] = field(default_factory=list)  # nanoseconds


def of_clstm(kind: str, weights: Arrays, x: np.ndarray, kernel: str | None) -> Contestant:
    stream = clstm.from_state_dict(weights, layers=[getattr(nn, kind)()], kernel=kernel).stream()
    y, take = np.empty(x.shape[1], np.float32), stream.step

    def step(frame: np.ndarray) -> None:
        take(frame, out=y)

    return Contestant("clstm", list(x), step, lambda: y)


def of_numpy(kind: str, weights: Arrays, x: np.ndarray) -> Contestant:
    """One product of [x, h] (a GRU's n has two, of x and of h) and one tanh for all gates:
    sigmoid(z) is (1 + tanh(z / 2)) / 2, with z / 2 taken from halved weights. Nothing is
    allocated."""
    step, h = {"LSTM": _numpy_lstm, "GRU": _numpy_gru, "RNN": _numpy_rnn}[kind](weights)
    return Contestant("NumPy", list(x), step, lambda: h)


NumPyStep = tuple[Callable[[np.ndarray], None], np.ndarray]


def _numpy_lstm(weights: Arrays) -> NumPyStep:
    n = weights["weight_hh_l0"].shape[1]
    half = np.repeat(np.array([0.5, 0.5, 0.5, 1], np.float32), n)
    rows = np.arange(4 * n).reshape(4, n)[[0, 1, 3, 2]].reshape(-1)  # to i, f, o, g
    w = np.hstack([weights["weight_ih_l0"], weights["weight_hh_l0"]])[rows]
    w = np.ascontiguousarray((w * half[:, None]).T)
    b = (weights["bias_ih_l0"] + weights["bias_hh_l0"])[rows] * half
    xh, z, c, t = (np.zeros(k, np.float32) for k in (2 * n, 4 * n, n, n))
    h, sigmoids, (i, f, o, g) = xh[n:], z[: 3 * n], z.reshape(4, n)
    dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh

    def step(frame: np.ndarray) -> None:
        xh[:n] = frame
        dot(xh, w, out=z)
        add(z, b, out=z)
        tanh(z, out=z)
        multiply(sigmoids, 0.5, out=sigmoids)
        add(sigmoids, 0.5, out=sigmoids)
        multiply(c, f, out=c)
        multiply(i, g, out=t)
        add(c, t, out=c)
        tanh(c, out=t)
        multiply(o, t, out=h)

    return step, h


def _numpy_gru(weights: Arrays) -> NumPyStep:
    n = weights["weight_hh_l0"].shape[1]
    half = np.repeat(np.array([0.5, 0.5, 1], np.float32), n)[:, None]
    wx, wh = (np.ascontiguousarray((weights[f"weight_{k}_l0"] * half).T) for k in ("ih", "hh"))
    bx, bh = (weights[f"bias_{k}_l0"] * half[:, 0] for k in ("ih", "hh"))
    z, u, h, t = (np.zeros(k, np.float32) for k in (3 * n, 3 * n, n, n))
    rz, (r, update, new), u_rz, u_n = z[: 2 * n], z.reshape(3, n), u[: 2 * n], u[2 * n :]
    dot, add, subtract, multiply, tanh = np.dot, np.add, np.subtract, np.multiply, np.tanh

    def step(frame: np.ndarray) -> None:
        dot(frame, wx, out=z)
        add(z, bx, out=z)
        dot(h, wh, out=u)
        add(u, bh, out=u)
        add(rz, u_rz, out=rz)
        tanh(rz, out=rz)
        multiply(rz, 0.5, out=rz)
        add(rz, 0.5, out=rz)
        multiply(r, u_n, out=t)
        add(new, t, out=new)
        tanh(new, out=new)
        subtract(h, new, out=t)
        multiply(t, update, out=t)
        add(new, t, out=h)

    return step, h


def _numpy_rnn(weights: Arrays) -> NumPyStep:
    n = weights["weight_hh_l0"].shape[1]
    w = np.ascontiguousarray(np.hstack([weights["weight_ih_l0"], weights["weight_hh_l0"]]).T)
    b = weights["bias_ih_l0"] + weights["bias_hh_l0"]
    xh, z = np.zeros(2 * n, np.float32), np.zeros(n, np.float32)
    h, dot, add, tanh = xh[n:], np.dot, np.add, np.tanh

    def step(frame: np.ndarray) -> None:
        xh[:n] = frame
        dot(xh, w, out=z)
        add(z, b, out=z)
        tanh(z, out=h)

    return step, h


def of_torch(kind: str, weights: Arrays, x: np.ndarray, torch: Any, cell: bool) -> Contestant:
    name, end, batch = (f"{kind}Cell", "", (1,)) if cell else (kind, "_l0", (1, 1))
    n = x.shape[1]
    module = getattr(torch.nn, name)(n, n).eval()
    tensors = {key.replace("_l0", end): torch.from_numpy(w) for key, w in weights.items()}
    module.load_state_dict(tensors)
    zeros = torch.zeros(*batch, n)
    state = (zeros, zeros) if kind == "LSTM" else zeros

    def step(frame: Any) -> None:
        nonlocal state
        returned = module(frame, state)
        state = returned if cell else returned[1]

    def read() -> np.ndarray:
        h: np.ndarray = (state[0] if kind == "LSTM" else state).reshape(-1).numpy()
        return h

    return Contestant(
        f"torch nn.{name}", list(torch.from_numpy(x).reshape(-1, *batch, n)), step, read
    )


def of_onnxruntime(kind: str, weights: Arrays, x: np.ndarray, onnx: Any, ort: Any) -> Contestant:
    """A model of one node, whose outputs, h and an LSTM's c, are fed back."""
    n, gates = x.shape[1], GATES[kind]
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[kind]  # to i, o, f, c; z, r, h
    rows = np.arange(gates * n).reshape(gates, n)[order].reshape(-1)
    wx, wh, bx, bh = (weights[key][rows] for key in weights)
    tensors = {"W": wx[None], "R": wh[None], "B": np.concatenate([bx, bh])[None]}
    helper, shape, states = onnx.helper, [1, 1, n], ["h", "c"] if kind == "LSTM" else ["h"]
    outputs = [f"{name}_n" for name in states]
    names = ["x", *states, *outputs]
    values = [helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, shape) for k in names]
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    node = helper.make_node(
        kind, ["x", "W", "R", "B", "", *states], ["", *outputs], hidden_size=n, **options
    )
    initializers = [onnx.numpy_helper.from_array(a, name) for name, a in tensors.items()]
    inputs = 1 + len(states)
    graph = helper.make_graph([node], "step", values[:inputs], values[inputs:], initializers)
    opsets = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    run = ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"]).run
    h = c = np.zeros(shape, np.float32)

    def step_lstm(frame: np.ndarray) -> None:
        nonlocal h, c
        h, c = run(outputs, {"x": frame, "h": h, "c": c})

    def step(frame: np.ndarray) -> None:
        nonlocal h
        (h,) = run(outputs, {"x": frame, "h": h})

    frames = list(x[:, None, None])
    return Contestant(ORT, frames, step_lstm if kind == "LSTM" else step, lambda: h[0, 0])


def compare(contestants: Sequence[Contestant]) -> float:
    """The largest difference of any h from the first contestant's; too large ends the run."""
    difference = float(np.max([np.abs(c.read() - contestants[0].read()) for c in contestants]))
    if not difference < TOLERANCE:
        raise SystemExit(f"the results differ by {difference:.2g}: nothing to report")
    return difference


def race(contestants: Sequence[Contestant], seconds: float) -> float:
    """Turn by turn, until each was timed CALLS times and the slowest for so many seconds.
    The first FRAMES steps only warm up. Returns the largest difference of any results."""
    differences = []
    for at in range(FRAMES):
        for c in contestants:
            c.step(c.frames[at])
        differences.append(compare(contestants))
    for at in itertools.count(0, TURN):
        for c in contestants:
            step, frames = c.step, [c.frames[k % FRAMES] for k in range(at, at + TURN)]
            for frame in frames[:REWARM]:
                step(frame)
            for frame in frames[REWARM:]:
                start = perf_counter_ns()
                step(frame)
                c.times.append(perf_counter_ns() - start)
        differences.append(compare(contestants))
        spent = max(sum(c.times) for c in contestants)
        if len(contestants[0].times) >= CALLS and spent >= seconds * 1e9:
            break
    return max(differences)


def measure(
    kind: str, n: int, kernel: str | None, seconds: float, peers: dict[str, Any]
) -> dict[str, Any]:
    rng, m, edge = np.random.default_rng(n), GATES[kind] * n, n**-0.5  # PyTorch's first weights
    shapes = dict(weight_ih_l0=(m, n), weight_hh_l0=(m, n), bias_ih_l0=(m,), bias_hh_l0=(m,))
    weights = {k: rng.uniform(-edge, edge, s).astype(np.float32) for k, s in shapes.items()}
    x = rng.standard_normal((FRAMES, n), np.float32)
    torch, onnx, ort = (peers[name] for name in ("torch", "onnx", "onnxruntime"))
    contestants = [of_clstm(kind, weights, x, kernel), of_numpy(kind, weights, x)]
    if torch:
        contestants += [of_torch(kind, weights, x, torch, cell) for cell in (False, True)]
    if onnx and ort:
        contestants.append(of_onnxruntime(kind, weights, x, onnx, ort))
    gc.collect()
    gc.disable()
    with torch.inference_mode() if torch else contextlib.nullcontext():
        difference = race(contestants, seconds)
    gc.enable()
    median = {c.name: round(float(np.median(c.times)) / 1e3, 3) for c in contestants}
    p99 = {c.name: round(float(np.percentile(c.times, 99)) / 1e3, 3) for c in contestants}
    ratio = {c.name: median[c.name] / median["clstm"] for c in contestants[1:]}
    return {"cell": kind, "hidden": n, "max_difference": difference,
            "calls": len(contestants[0].times), "median_us": median,
            "p99_us": p99, "ratio": ratio}  # fmt: skip


def cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as lines:
        return next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    return platform.processor() or platform.machine()


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
    part = PART[results[0]["cell"]] / 2
    halves = {n: TARGETS[n] * part for n in known if n in TARGETS}
    if not halves:
        return [f"cannot check without {ORT} and a size of {list(TARGETS)}"]
    text = f"H = {{}}: {ORT} / clstm is {{:.2f}}, expected at least {{:.4g}}"
    return [text.format(n, known[n], halves[n]) for n in halves if known[n] < halves[n]]


def main() -> str | None:
    if any(os.environ.get(name) != "1" for name in THREADS):  # before a library starts its threads
        os.environ.update(dict.fromkeys(THREADS, "1"))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", choices=list(GATES), default="LSTM")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(TARGETS), metavar="H")
    parser.add_argument("--kernel", choices=clstm.available_kernels(), help="default: clstm's own")
    parser.add_argument("--seconds", type=float, default=0.5, help="of the slowest; default 0.5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--markdown", action="store_true", help="the table as README.md has it")
    parser.add_argument("--check", action="store_true", help="exit 1 below half a target")
    args = parser.parse_args()

    core = None  # not every system can pin
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core := max(os.sched_getaffinity(0))})
    peers = dict.fromkeys(("torch", "onnx", "onnxruntime"))  # None: not installed
    for name in peers:
        with contextlib.suppress(ImportError):
            peers[name] = importlib.import_module(name)
    if peers["torch"]:
        peers["torch"].set_num_threads(1)
    versions = {"clstm": clstm.__version__, "numpy": np.__version__}
    versions |= {k: m.__version__ if m else "not installed" for k, m in peers.items()}
    kernel = args.kernel or os.environ.get("CLSTM_KERNEL") or clstm.available_kernels()[0]
    settings = {"cell": args.cell, "cpu": cpu_model(), "kernel": kernel, "threads": 1,
                "pinned to core": core, "system": platform.system(),
                "python": platform.python_version(),
                "seconds": args.seconds, "turn": TURN, "untimed of it": REWARM}  # fmt: skip
    results = [measure(args.cell, n, args.kernel, args.seconds, peers) for n in args.hidden]
    print(table(results, args.markdown), end="\n\n")
    print(*(f"{k}: {v}" for k, v in (settings | versions).items()), sep=", ")
    report = {"settings": settings, "versions": versions, "results": results}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return "\n".join(below_half(results) if args.check else []) or None


if __name__ == "__main__":
    sys.exit(main())
