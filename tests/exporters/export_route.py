# SPDX-License-Identifier: MIT
"""A case through one route, from torch's module to what clstm makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import export_blocked
import numpy as np
from export_cases import Case
from export_torch import (
    Run,
    arguments,
    exported,
    inputs_of,
    module_of,
    other_sizes,
    run_of,
    sizes_of,
)
from torch import nn

import clstm

HERE = Path(__file__).parent


class Blocked:
    """`export_blocked.py`, running."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __enter__(self) -> Blocked:
        # -I: neither this folder nor the environment leads to other modules.
        command = [sys.executable, "-I", str(HERE / "export_blocked.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == {"ready": clstm.__version__}
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # the end of its input is the end of its loop
        assert self.process.returncode == 0

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, data: bytes, runs: list[tuple[str, Run]], cell: bool) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.count += 1
        file = self.folder / f"{self.count}.onnx"
        file.write_bytes(data)
        saved = file.with_suffix(".npz")
        np.savez(saved, **_arrays([run for _, run in runs]))
        request = {"file": str(file), "runs": str(saved), "cell": cell}
        request["how"] = [name if name == "stream" else "m(x)" for name, _ in runs]
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self._read()
        for path in (file, saved):
            path.unlink()
        assert "failed" not in reply, reply["failed"]
        return reply


def _arrays(runs: list[Run]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, run in enumerate(runs):
        found |= {f"{i}.x": run.x, f"{i}.y": run.y, f"{i}.tol": run.tolerance}
        found |= {f"{i}.s{k}": s for k, s in enumerate(run.state)}
        found |= {f"{i}.f{k}": s for k, s in enumerate(run.final)}
    return found


def runs_of(case: Case, module: nn.Module) -> list[tuple[str, Run]]:
    """As exported, at another length and batch, without a batch, as a stream."""
    length, batch, _, _ = sizes_of(case)
    lone = run_of(case, module, length + 2, None, seed=2)
    whole = None if case.layout == "unbatched" else batch
    runs = [("as exported", run_of(case, module, length, whole))]
    runs.append(("other sizes", run_of(case, module, *other_sizes(case), seed=1)))
    if case.layout != "unbatched":
        runs.append(("unbatched", lone))
    if case.directions == 1:
        runs.append(("stream", lone))
    return runs


class Outcome(NamedTuple):
    refused: tuple[str, str] | None  # class and message
    errors: dict[str, float | str]  # of each run, in tolerances; or an error's words

    def wrong(self, case: Case) -> dict[str, float | str]:
        """The runs that do not agree with torch. Of a file that fixes length and batch no other
        may be asked for: a ShapeError is right there, a wrong number never."""
        return {
            name: error
            for name, error in self.errors.items()
            if not (isinstance(error, float) and error <= 1.0)
            and not (case.axes == "static" and name != "as exported" and _says(error, "ShapeError"))
        }


def _says(error: float | str, kind: str) -> bool:
    return isinstance(error, str) and error.startswith(kind)


def through_onnx(case: Case, blocked: Blocked) -> Outcome:
    module = module_of(case)
    runs = runs_of(case, module)
    reply = blocked.ask(exported(case, module), runs, case.is_cell)
    if "refused" in reply:
        return Outcome(tuple(reply["refused"]), {})
    return Outcome(None, dict(zip((name for name, _ in runs), reply["runs"], strict=True)))


def as_dict(case: Case, run: Run) -> dict[str, Any]:
    """A run as the functions of `export_blocked` take it."""
    return {
        "cell": case.is_cell, "tolerance": run.tolerance, "x": run.x, "y": run.y,
        "given": list(run.state), "final": list(run.final),
    }  # fmt: skip


def example_of(case: Case) -> tuple:
    length, batch, _, _ = sizes_of(case)
    x, state = inputs_of(case, length, None if case.layout == "unbatched" else batch)
    return arguments(case, x, state)


def model_of(case: Case, module: nn.Module, traced: bool) -> clstm.Model:
    if traced:
        return clstm.from_torch(module, example_of(case))
    if case.bare:
        return clstm.from_torch(module)
    parts = [getattr(module, name, None) for name in ("emb", "rnn", "head")]
    return clstm.from_torch([part for part in parts if part is not None])


def through_from_torch(case: Case, traced: bool) -> Outcome:
    """In this process: torch is here, and the live module with it."""
    return _here(case, lambda module: model_of(case, module, traced))


def through_state_dict(case: Case) -> Outcome:
    return _here(
        case, lambda module: clstm.from_state_dict(module.state_dict(), layers=layers_of(case))
    )


def layers_of(case: Case) -> list[clstm.nn.Layer] | None:
    """What `layers=` says; nothing where the tensors alone tell the module."""
    if case.bare and case.layout == "time first" and case.cell != "RNN relu":
        return None
    options: dict[str, Any] = {"batch_first": True} if case.layout == "batch first" else {}
    if case.cell == "RNN relu":
        options["nonlinearity"] = "relu"
    if case.state == "learned":
        options |= {"h0": "h0"} | ({"c0": "c0"} if case.cell == "LSTM" else {})
    described = getattr(clstm.nn, case.cell.split()[0])
    if case.bare:
        return [described(**options)]
    layers: list[clstm.nn.Layer] = [clstm.nn.Embedding("emb")] if case.embedding else []
    layers.append(described("rnn", **options))
    return layers + {
        "none": [],
        "linear": [clstm.nn.Linear("head")],
        "deep": [
            clstm.nn.Linear("head.0"), clstm.nn.ReLU(),
            clstm.nn.Linear("head.2"), clstm.nn.Softmax(),
        ],
        "norm": [clstm.nn.LayerNorm("head.0"), clstm.nn.Linear("head.1")],
    }[case.head]  # fmt: skip


def _here(case: Case, make: Callable[[nn.Module], clstm.Model]) -> Outcome:
    module = module_of(case)
    runs = runs_of(case, module)
    try:
        model = make(module)
    except clstm.ClstmError as error:
        return Outcome((type(error).__name__, str(error)), {})
    found: dict[str, float | str] = {}
    for name, run in runs:
        how = export_blocked.streamed if name == "stream" else export_blocked.called
        try:
            found[name] = how(model, as_dict(case, run))
        except (clstm.ClstmError, ValueError, TypeError, AttributeError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return Outcome(None, found)
