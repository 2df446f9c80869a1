# SPDX-License-Identifier: MIT
"""clstm against PyTorch, ONNX Runtime, OpenVINO, JAX and NumPy, and against what the machine can
do: steps, batches and sequences of LSTM, GRU and RNN, on one and two threads. Writes a JSON file
a run to results/ and prints its tables. README.md here says how it is measured."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import clstm

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
from harness import c_call, machine, probe, report, targets  # noqa: E402
from harness.case import GATES, Case  # noqa: E402
from harness.of_clstm import load, of_bound, of_clstm  # noqa: E402
from harness.of_jax import of_jax  # noqa: E402
from harness.of_numpy import of_numpy  # noqa: E402
from harness.of_onnx import of_iobinding, of_onnxruntime, of_openvino  # noqa: E402
from harness.of_torch import all_of_torch  # noqa: E402
from harness.turns import Contestant, race  # noqa: E402

PEERS = ("torch", "onnx", "onnxruntime", "openvino", "jax")
STEPS = {"LSTM": (32, 64, 128, 256, 512, 1024), "GRU": (64, 128, 256, 512),
         "RNN": (64, 128, 256, 512)}  # fmt: skip
BATCHES = {"LSTM": ((128, 64), (256, 16), (256, 64), (512, 64)), "GRU": ((256, 64),),
           "RNN": ((256, 64),)}  # fmt: skip
ROWS = (1, 4, 16, 64, 256)  # throughput against batch, LSTM of 256
SEQUENCES = {"LSTM": ((64, 1, 128), (256, 1, 128), (64, 1, 512), (32, 64, 256)),
             "GRU": ((256, 1, 128),), "RNN": ((256, 1, 128),)}  # fmt: skip
PAUSE = 0.1  # seconds: OpenBLAS spins longest, for some 2^28 cycles
TWO = ("step LSTM 512", "step LSTM 1024", "batch LSTM 512", "sequence LSTM 512")  # on two threads


def cases(threads: int, quick: bool) -> Iterator[Case]:
    kinds = ["LSTM"] if quick else list(GATES)
    for kind in kinds:
        if kind == "LSTM" and not quick:
            yield Case("step", kind, 1, 8)
        for n in (32, 128, 256) if quick else STEPS[kind]:
            yield Case("step", kind, n, n, threads=threads)
    for kind in kinds:
        pairs = [(256, rows) for rows in ROWS] if kind == "LSTM" else []
        for n, rows in dict.fromkeys(((256, 64),) if quick else (*BATCHES[kind], *pairs)):
            yield Case("batch", kind, n, n, batch=rows, threads=threads)
    for kind in kinds:
        for steps, rows, n in ((256, 1, 128),) if quick else SEQUENCES[kind]:
            yield Case("sequence", kind, n, n, steps, rows, threads)


def wanted(args: argparse.Namespace) -> list[Case]:
    if args.threads == 1:
        found = list(cases(1, args.quick))
    else:
        found = [c for c in cases(args.threads, False) if f"{c.mode} {c.kind} {c.hidden}" in TWO]
        found = found[:1] if args.quick else found
    return [c for c in found if args.only in c.name]


def makers(
    case: Case, peers: dict[str, Any], kernel: str | None
) -> dict[str, Callable[..., Any] | None]:
    """Who takes part; None: not installed. Each is called with weights and inputs."""
    torch, onnx, ort, ov, jax = (peers[name] for name in PEERS)
    return {
        "clstm": lambda w, x: of_clstm(case, w, x, kernel),
        "clstm bind": (lambda w, x: of_bound(case, w, x, kernel)) if case.mode == "step" else None,
        "clstm blas": lambda w, x: of_clstm(case, w, x, kernel, "blas"),
        "NumPy": lambda w, x: of_numpy(case, w, x),
        "torch": torch and (lambda w, x: all_of_torch(case, w, x, torch)),
        "ONNX Runtime": onnx and ort and (lambda w, x: of_onnxruntime(case, w, x, onnx, ort)),
        "IO binding": onnx and ort and (lambda w, x: of_iobinding(case, w, x, onnx, ort)),
        "OpenVINO": onnx and ov and (lambda w, x: of_openvino(case, w, x, onnx, ov)),
        "JAX": jax and (lambda w, x: of_jax(case, w, x, jax)),
    }


def contestants(
    case: Case, peers: dict[str, Any], kernel: str | None
) -> tuple[list[Contestant], dict[str, str]]:
    """clstm first; and why others are missing."""
    weights, inputs = case.weights(), case.inputs()
    found: list[Contestant] = []  # whose results are compared from the same state on
    missing: dict[str, str] = {}
    for name, make in makers(case, peers, kernel).items():
        if make is None:
            continue
        try:
            made = make(weights, inputs)
            made = [made] if isinstance(made, Contestant) else list(made or [])
            for contestant in made:  # what cannot run says so here; all take the same two
                for frame in contestant.frames[:2]:
                    contestant.step(frame)
        except Exception as error:
            missing[name] = f"not available: {type(error).__name__}: {error}"[:300]
            continue
        found += made
    return found, missing


def limits(case: Case, reader: dict[str, probe.Reader], gflops: float) -> dict[str, float]:
    """In microseconds: how long the weights take to arrive, how long the products take at the
    peak of the multiply-adds; of a sequence the input's products at the peak, and each step the
    longer of both for h. `limit` is what no kernel that reads every weight can pass."""
    x, h = (1e-3 * flops / gflops if gflops else 0.0 for flops in case.flops())
    read = 1e-3 * reader["all"].n_bytes / reader["all"].best()
    found = {"products": x + h, "read": read, "limit": max(x + h, read)}
    if case.mode == "sequence":
        read_h = 1e-3 * reader["h"].n_bytes / reader["h"].best() * case.steps
        found |= {"read": read_h, "limit": x + max(h, read_h)}
    return {k: round(v, 4) for k, v in found.items()}


def measure(
    case: Case,
    args: argparse.Namespace,
    peers: dict[str, Any],
    probing: probe.Probe | None,
    program: c_call.Program | None,
) -> dict[str, Any]:
    sides, missing = contestants(case, peers, args.kernel)
    result: dict[str, Any] = case.as_dict() | {"missing": missing}
    if not sides or sides[0].name != "clstm":
        return result
    n_bytes = load(case, case.weights(), args.kernel).nbytes
    readers = {}
    if probing:
        readers["all"] = probing.reader(n_bytes)
        if case.mode == "sequence":
            readers["h"] = probing.reader(n_bytes * case.hidden // (case.n_in + case.hidden))
    peaks: list[tuple[float, float, float]] = []

    def between() -> None:
        for read in readers.values():
            read()
        if probing:
            peaks.append(probing.peak(tries=2))

    gc.collect()
    gc.disable()
    torch = peers["torch"]
    with torch.inference_mode() if torch else contextlib.nullcontext():
        pause = PAUSE if case.threads > 1 else 0
        result["max_difference"], clock = race(sides, args.seconds, between, pause=pause)
        result["clock_us"] = clock / 1e3  # which is in none of the times
    gc.enable()
    if program and case.mode == "step" and case.threads == 1:
        result["c"] = program.measure(case, load(case, case.weights(), args.kernel).kernel)
        between()
    result |= {"bytes": n_bytes, "calls": len(sides[0].times)}
    result["us"] = {side.name: side.microseconds() for side in sides}
    own = result["us"]["clstm"]["50"]
    result["ratio"] = {k: round(v["50"] / own, 3) for k, v in result["us"].items() if k != "clstm"}
    if probing:
        clock, gflops, part = sorted(peaks, key=lambda p: p[1])[len(peaks) // 2]
        result["probe"] = {"GHz": clock, "GFLOP/s": gflops, "of the peak": part}
        result["probe"] |= {f"GB/s {k}": r.best() for k, r in readers.items()}
        result["limits_us"] = limits(case, readers, gflops)
        flops = sum(case.flops())
        result["share"] = {
            "limit": result["limits_us"]["limit"] / own,
            "C limit": result["limits_us"]["limit"] / result["c"]["median"]
            if "c" in result
            else None,
            "FMA peak": 1e-3 * flops / own / gflops if gflops else None,
        }
    return result


def missed(runs: list[dict[str, Any]]) -> int:
    return int(not all(holds for run in runs for *_, holds in targets.reached(run)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, help="default: first one, then two")
    parser.add_argument("--kernel", choices=clstm.available_kernels(), help="default: clstm's own")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help='cases whose name has it: "H256"'
    )
    parser.add_argument("--quick", action="store_true", help="a few cases of an LSTM")
    parser.add_argument("--seconds", type=float, default=0.5, help="of the slowest; default 0.5")
    parser.add_argument("--without", nargs="*", default=[], choices=PEERS, help="leave out")
    parser.add_argument("--results", type=Path, default=FOLDER / "results", metavar="FOLDER")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="only print these")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="with --report: draw the first"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--page", type=Path, nargs="+", default=[], metavar="FILE",
                        help="with --report: put the tables between the markers there")  # fmt: skip
    args = parser.parse_args()
    if args.report:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in args.report]
        print(*(report.tables(run) for run in runs), sep="\n\n")
        for page in args.page:
            report.insert(runs, page)
        if args.plots:
            report.draw(runs[0], args.plots)
        return missed(runs) if args.check else 0
    if args.threads is None:  # a process each: libraries fix their threads when they begin
        again = [sys.executable, *sys.argv, "--threads"]
        return max(subprocess.run([*again, n]).returncode for n in "12")

    machine.limit_threads(args.threads)
    cores = machine.pin(args.threads)
    warnings.filterwarnings("ignore")  # of the peers
    names = tuple(name for name in PEERS if name not in args.without)
    peers = dict.fromkeys(PEERS) | machine.load_peers(names, args.threads)
    settings = machine.settings(args.kernel, args.threads, cores) | {"seconds": args.seconds}
    probing = probe.build(settings["kernel"], args.threads)
    run: dict[str, Any] = {"settings": settings, "versions": machine.versions(peers)}
    run["versions"] |= dict.fromkeys(args.without, "left out")
    run["date"] = time.strftime("%Y-%m-%dT%H%M%S")
    program = c_call.build() if args.threads == 1 else None
    few = [] if args.only or not program else c_call.CASES
    run["c_call"] = [program.measure(case, settings["kernel"]) for case in few if program]
    run["cases"] = []
    args.results.mkdir(exist_ok=True)
    path = args.results / f"{run['date']}-{settings['kernel']}-{args.threads}.json"
    for case in wanted(args):
        print(case.name, end=" ... ", file=sys.stderr, flush=True)
        start = time.monotonic()
        result = measure(case, args, peers, probing, program)
        run["cases"].append(result)
        ratio = result.get("ratio", {}).get("ONNX Runtime", np.nan)
        share = result.get("share", {}).get("limit", np.nan)
        print(f"ONNX Runtime / clstm {ratio:.2f}, {share:.0%} of the limit,"
              f" {time.monotonic() - start:.0f} s", file=sys.stderr)  # fmt: skip
        text = json.dumps(run, indent=1, ensure_ascii=False)
        text = re.sub(r'\{\s+("0":[^{}]*)\}', lambda m: f"{{{' '.join(m[1].split())}}}", text)
        path.write_text(text + "\n", encoding="utf-8")
    if program:
        program.close()
    print(report.tables(run))
    print(f"\n{path.name} written", file=sys.stderr)
    return missed([run]) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
