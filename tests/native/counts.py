# SPDX-License-Identifier: MIT
"""Counts instructions: of ten fixed cases by callgrind (which knows AVX2 and less), of the product
loops of the AVX-512 set from the disassembly. `make baselines` runs this file: it measures with
the compilers that are there and writes instruction_counts.json, which
test_instruction_counts.py compares with.
"""

import functools
import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from test_disassembly import functions, innermost_loops, setup_flags

import build
import clstm
from build import ROOT, succeed
from clstm import nn

BASELINES = Path(__file__).with_name("instruction_counts.json")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SETS = ("avx2", "scalar")
FMA = re.compile(r"vfn?madd\d+ps.*%zmm")
CASES = {  # what is called, cell, input size, hidden size, steps, rows, calls
    "step LSTM I1 H8": ("step", "LSTM", 1, 8, 1, 1, 20),
    "step LSTM I32 H32": ("step", "LSTM", 32, 32, 1, 1, 20),
    "step LSTM I64 H64": ("step", "LSTM", 64, 64, 1, 1, 20),
    "step LSTM I100 H129": ("step", "LSTM", 100, 129, 1, 1, 10),
    "step GRU I32 H32": ("step", "GRU", 32, 32, 1, 1, 20),
    "step GRU I128 H128": ("step", "GRU", 128, 128, 1, 1, 10),
    "step RNN I64 H64": ("step", "RNN", 64, 64, 1, 1, 20),
    "batch LSTM I64 H64 B16": ("sequence", "LSTM", 64, 64, 1, 16, 2),
    "batch GRU I64 H64 B16": ("sequence", "GRU", 64, 64, 1, 16, 2),
    "sequence LSTM I64 H64 T64": ("sequence", "LSTM", 64, 64, 64, 1, 1),
}


@functools.cache
def version(cc):
    """gcc-12.2.0 or clang-19.1.7, or None where it says something else."""
    text = build.run([cc, "--version"]).stdout
    name = "clang" if "clang" in text else "gcc" if "Free Software Foundation" in text else None
    number = re.search(r"(\d+\.\d+\.\d+)", text.splitlines()[0]) if name else None
    return f"{name}-{number[1]}" if number else None


def write_model(path, kind, n_in, n):
    rng, rows = np.random.default_rng(n), GATES[kind] * n
    shapes = dict(weight_ih_l0=(rows, n_in), weight_hh_l0=(rows, n), bias_ih_l0=rows)
    shapes["bias_hh_l0"] = rows
    tensors = {k: rng.uniform(-0.1, 0.1, s).astype(np.float32) for k, s in shapes.items()}
    clstm.from_state_dict(tensors, layers=[getattr(nn, kind)()]).save(path)


def count(program, valgrind, kernel, folder):
    """{case: instructions} of the calls alone."""
    found = {}
    for name, (what, kind, n_in, n, steps, rows, calls) in CASES.items():
        path = folder / f"{kind}-{n_in}-{n}.clstm"
        if not path.exists():
            write_model(path, kind, n_in, n)
        tool = ["--tool=callgrind", f"--toggle-collect=clstm_{what}"]
        done = build.run(
            [valgrind, *tool, "--callgrind-out-file=/dev/null", program, path, what, calls, steps,
             rows],
            env=os.environ | {"CLSTM_KERNEL": kernel},
        )  # fmt: skip
        collected = re.search(r"Collected : (\d+)", done.stderr)
        assert done.returncode == 0 and collected, done.stderr[-2000:]
        assert done.stdout == f"{kernel}\n"
        found[name] = int(collected[1]) // calls
    return found


def loops(cc, objdump, folder):
    """{function: {multiply-adds in a loop: [such inner loops, instructions of them all]}}"""
    out = folder / "isa_avx512.o"
    source = ROOT / "csrc/src/kernels/isa_avx512.c"
    succeed([cc, *setup_flags(), f"-I{ROOT}/csrc/include", "-c", source, "-o", out])
    found = {}
    for name, lines in sorted(functions(objdump, out).items()):
        for loop in innermost_loops(lines):
            if products := sum(bool(FMA.search(text)) for text in loop):
                one = found.setdefault(name, {}).setdefault(str(products), [0, 0])
                one[0] += 1
                one[1] += len(loop)
    return found


def main():
    known = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
    valgrind, objdump = build.found("valgrind"), build.found("objdump")
    if not (valgrind and objdump):
        raise SystemExit("valgrind and objdump are needed")
    with tempfile.TemporaryDirectory() as name:
        builder = build.Builder(name)
        for cc in filter(None, (build.gcc(), build.clang())):
            key = version(cc)
            program = builder(("count_calls.c",), cc)
            entry = {kernel: count(program, valgrind, kernel, Path(name)) for kernel in SETS}
            known[key] = entry | {"avx512 loops": loops(cc, objdump, Path(name))}
            print(f"{key}: written")
        builder.close()
    text = json.dumps(known, indent=1, sort_keys=True)
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)
    BASELINES.write_text(text + "\n")


if __name__ == "__main__":
    main()
