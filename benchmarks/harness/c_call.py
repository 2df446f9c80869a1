# SPDX-License-Identifier: MIT
"""The step from C: builds ../c_step.c with the core, as csrc/README.md says, and runs it on
models that are written here."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import clstm
from clstm import nn

from .case import Case

ROOT = Path(__file__).resolve().parents[2]
# Beside the steps of the suite: with those, the shapes for which figures of RTNeural's
# compile-time templates are known.
CASES = [Case("step", "LSTM", 1, 16)]


def compile_with_core(files: list[Path], out: Path, *flags: str, cc: str = "cc") -> None:
    core = [*glob.glob(f"{ROOT}/csrc/src/*.c"), *glob.glob(f"{ROOT}/csrc/src/kernels/*.c")]
    words = [f"-I{ROOT}/csrc/include", *core, *map(str, files), "-o", str(out)]
    command = [cc, "-O2", *flags, *words, "-lm", "-ldl", "-pthread"]
    subprocess.run(command, check=True, timeout=300)


class Program:
    """c_step, built in a folder of its own that goes when it is closed."""

    def __init__(self, cc: str = "cc"):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "c_step"
        compile_with_core([ROOT / "benchmarks" / "c_step.c"], self.path, cc=cc)

    def close(self) -> None:
        self.folder.cleanup()

    def measure(self, case: Case, kernel: str) -> dict[str, Any]:
        """What c_step prints of this case."""
        return self.measure_all([case], kernel)[0]

    def measure_all(self, cases: list[Case], kernel: str) -> list[dict[str, Any]]:
        """Of each of these, one behind the other in one process."""
        paths = []
        for case in cases:
            model = clstm.from_state_dict(case.weights(), layers=[getattr(nn, case.kind)()])
            paths.append(Path(self.folder.name) / f"{case.kind} I{case.n_in} H{case.hidden}.clstm")
            model.save(paths[-1])
        done = subprocess.run(
            [str(self.path), *map(str, paths)],
            env=os.environ | {"CLSTM_KERNEL": kernel},
            check=True, capture_output=True, text=True, timeout=120 + len(cases),
        )  # fmt: skip
        for path in paths:
            path.unlink()
        return [json.loads(line) for line in done.stdout.splitlines()]


def build() -> Program | None:
    """None where there is no compiler."""
    try:
        return Program()
    except (OSError, subprocess.SubprocessError):
        return None
