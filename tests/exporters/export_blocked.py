# SPDX-License-Identifier: MIT
"""Runs files in a process that cannot import torch or onnxruntime: one request a line on standard
input, one answer a line on standard output, both JSON.

A request: {"file": an ONNX file, "runs": an .npz with x, s0, s1 (initial states), y, f0, f1 (final
states) and the tolerance of each run, "how": of each run "m(x)" or "stream", "cell": whether it is
one step}. An answer: {"runs": of each the largest error in units of its tolerance, or the words of
an error}, or {"refused": [class, message]} when the file does not load."""

from __future__ import annotations

import importlib.abc
import json
import sys
import traceback
from typing import Any

BLOCKED = ("torch", "onnxruntime")


class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked here")


def block() -> None:
    """No import of them succeeds from here on."""
    sys.meta_path.insert(0, Block())
    for name in BLOCKED:
        assert name not in sys.modules, name
        try:
            __import__(name)
        except ImportError as error:
            assert "is blocked here" in str(error)
        else:
            raise AssertionError(f"{name} can be imported")


# ---- results and torch's ------------------------------------------------------------------


def joined(state: Any) -> list[Any]:
    """[h] or [h, c] of a state in the form that a model returns: several recurrent layers are a
    list, and lie one above the other in torch's arrays."""
    import numpy as np

    if isinstance(state, list):
        return [np.concatenate(each) for each in zip(*map(joined, state), strict=True)]
    return list(state) if isinstance(state, tuple) else [state]


def divided(arrays: list[Any], template: Any) -> Any:
    """The arrays in the form of `template`: the way back from `joined`."""
    if isinstance(template, list):
        parts, start = [], 0
        for each in template:
            rows = len(joined(each)[0])
            parts.append(divided([a[start : start + rows] for a in arrays], each))
            start += rows
        return parts
    return tuple(arrays) if isinstance(template, tuple) else arrays[0]


def error_of(found: list[Any], expected: list[Any], tolerance: float) -> float:
    """The largest error in units of the tolerance; wrong shapes are errors of their own."""
    import numpy as np

    worst = 0.0
    if len(found) != len(expected):
        raise ValueError(f"{len(found)} arrays, expected {len(expected)}")
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"shape {a.shape}, expected {b.shape}")
        if a.dtype != np.float32:
            raise ValueError(f"dtype {a.dtype}")
        if not np.isfinite(a).all():
            raise ValueError("not finite")
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / tolerance)
    return worst


def called(model: Any, run: dict[str, Any]) -> float:
    """m(x, state) against torch."""
    x, given = run["x"], run["given"]
    if run["cell"]:  # (h, c) or h
        state = tuple(given) if len(given) > 1 else given[0]
        return error_of(joined(model(x, state)), run["final"], run["tolerance"])
    state = divided(given, model(x)[1]) if given else None
    y, final = model(x, state)
    return error_of([y, *joined(final)], [run["y"], *run["final"]], run["tolerance"])


def streamed(model: Any, run: dict[str, Any]) -> float:
    """One frame after the other, and all of them in one run, against torch; an unbatched run."""
    import numpy as np

    x, y = run["x"], run["y"]
    x, y = (x[None], y[None]) if run["cell"] else (x, y)
    state = divided(run["given"], model.stream().state) if run["given"] else None
    a, b = model.stream(state), model.stream(state)
    steps = [a.step(int(frame) if x.ndim == 1 else np.ascontiguousarray(frame)) for frame in x]
    return max(
        error_of([np.stack(steps), *joined(a.state)], [y, *run["final"]], run["tolerance"]),
        error_of([b.run(x), *joined(b.state)], [y, *run["final"]], run["tolerance"]),
    )


def answer(request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    import clstm

    with open(request["file"], "rb") as file:
        data = file.read()
    try:
        model = clstm.load(data)
    except clstm.ClstmError as error:
        return {"refused": [type(error).__name__, str(error)]}
    found: list[Any] = []
    with np.load(request["runs"]) as arrays:
        for i, how in enumerate(request["how"]):
            run: dict[str, Any] = {"cell": request["cell"], "tolerance": float(arrays[f"{i}.tol"])}
            run |= {name: arrays[f"{i}.{name}"] for name in ("x", "y")}
            for name, letter in (("given", "s"), ("final", "f")):
                keys = (f"{i}.{letter}{k}" for k in range(2))
                run[name] = [arrays[key] for key in keys if key in arrays]
            try:
                found.append(streamed(model, run) if how == "stream" else called(model, run))
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
    assert not any(name in sys.modules for name in BLOCKED)
    return {"runs": found}


def main() -> None:
    block()
    import clstm

    print(json.dumps({"ready": clstm.__version__}), flush=True)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception:
            reply = {"failed": traceback.format_exc()}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
