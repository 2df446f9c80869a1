# SPDX-License-Identifier: MIT
"""PyTorch in inference mode: the module, the cell, and the cell through torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .case import Arrays, Case
from .turns import Contestant


def of_torch(
    case: Case, weights: Arrays, inputs: np.ndarray, torch: Any, form: str = "module"
) -> Contestant:
    """form: "module", "cell" or "compile" (of the cell: nn.LSTM itself is left as it is)."""
    cell = form != "module"
    name, end = (f"{case.kind}Cell", "") if cell else (case.kind, "_l0")
    n, batch = case.hidden, (case.batch,) if cell else (1, case.batch)
    module = getattr(torch.nn, name)(case.n_in, n).eval()
    tensors = {key.replace("_l0", end): torch.from_numpy(w) for key, w in weights.items()}
    module.load_state_dict(tensors)
    zeros = torch.zeros(*batch, n)
    state = (zeros, zeros) if case.kind == "LSTM" else zeros
    call = module
    if form == "compile":
        torch._dynamo.reset()
        call = torch.compile(module, dynamic=False, fullgraph=True)
    label = f"torch {'compile ' if form == 'compile' else 'nn.'}{name}"
    frames = torch.from_numpy(inputs)

    if case.mode == "sequence":
        result: Any = None

        def whole(frame: Any) -> None:
            nonlocal result
            result = module(frame)[0]

        return Contestant(label, list(frames), whole, lambda: result.reshape(-1).numpy())

    def step(frame: Any) -> None:
        nonlocal state
        returned = call(frame, state)
        state = returned if cell else returned[1]

    def read() -> np.ndarray:
        h: np.ndarray = (state[0] if case.kind == "LSTM" else state).reshape(-1).numpy()
        return h

    return Contestant(label, list(frames.reshape(-1, *batch, case.n_in)), step, read)


def all_of_torch(
    case: Case, weights: Arrays, inputs: np.ndarray, torch: Any
) -> Iterator[Contestant]:
    forms = ["module"] if case.mode == "sequence" else ["module", "cell"]
    if case.mode == "step" or (case.mode, case.batch) == ("batch", 64):  # compiling takes long
        forms.append("compile")
    for form in forms:
        yield of_torch(case, weights, inputs, torch, form)
