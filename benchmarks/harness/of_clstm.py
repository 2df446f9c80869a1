# SPDX-License-Identifier: MIT
"""clstm as a user calls it."""

from __future__ import annotations

import numpy as np

import clstm
from clstm import nn

from .case import Arrays, Case
from .turns import Contestant


def load(
    case: Case, weights: Arrays, kernel: str | None = None, gemm: str = "packed"
) -> clstm.Model:
    layers = [getattr(nn, case.kind)()]
    return clstm.from_state_dict(
        weights, layers=layers, kernel=kernel, gemm=gemm, threads=case.threads
    )


def of_clstm(
    case: Case, weights: Arrays, inputs: np.ndarray, kernel: str | None, gemm: str = "packed"
) -> Contestant:
    """UnsupportedError where this clstm or machine has no such gemm or no threads."""
    model = load(case, weights, kernel, gemm)
    name = "clstm" if gemm == "packed" else f"clstm {gemm}"
    if case.mode == "step":
        stream = model.stream()
        y, take = np.empty(case.hidden, np.float32), stream.step

        def step(frame: np.ndarray) -> None:
            take(frame, out=y)

        return Contestant(name, list(inputs[:, 0, 0]), step, lambda: y)

    result: np.ndarray = np.empty(0)
    state = None
    go_on = case.mode == "batch"

    def call(frame: np.ndarray) -> None:
        nonlocal result, state
        result, end = model(frame, state)
        if go_on:
            state = end

    return Contestant(name, list(inputs), call, lambda: result.reshape(-1))


def of_bound(
    case: Case, weights: Arrays, inputs: np.ndarray, kernel: str | None
) -> Contestant | None:
    """stream.bind(x, y): one bound call a frame. None where this clstm has none."""
    stream = load(case, weights, kernel).stream()
    if case.mode != "step" or not hasattr(stream, "bind"):
        return None
    y = np.empty(case.hidden, np.float32)
    bound = [stream.bind(frame, y) for frame in inputs[:, 0, 0]]
    return Contestant("clstm bind", bound, lambda call: call(), lambda: y)
