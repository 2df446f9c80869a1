# SPDX-License-Identifier: MIT
"""NumPy at its best: one product of [x, h] (a GRU's n has two, of x and of h) and one tanh for all
gates: sigmoid(z) is (1 + tanh(z / 2)) / 2, with z / 2 taken from halved weights. A step allocates
nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .case import Arrays, Case
from .turns import Contestant

NumPyStep = tuple[Callable[[np.ndarray], None], np.ndarray]


def of_numpy(case: Case, weights: Arrays, inputs: np.ndarray) -> Contestant:
    if case.mode == "step":
        step, h = {"LSTM": _numpy_lstm, "GRU": _numpy_gru, "RNN": _numpy_rnn}[case.kind](weights)
        return Contestant("NumPy", list(inputs[:, 0, 0]), step, lambda: h)
    run = _Rows(case, weights)
    return Contestant("NumPy", list(inputs), run.call, lambda: run.y.reshape(-1))


class _Rows:
    """Batches and sequences: the product with all inputs first, then step by step."""

    def __init__(self, case: Case, weights: Arrays):
        n = case.hidden
        halved = {"LSTM": [0.5, 0.5, 1, 0.5], "GRU": [0.5, 0.5, 1], "RNN": [1]}[case.kind]
        half = np.repeat(np.array(halved, np.float32), n)[:, None]
        self.n, self.goes_on = n, case.mode == "batch"
        self.wx, self.wh = (
            np.ascontiguousarray((weights[f"weight_{k}_l0"] * half).T) for k in ("ih", "hh")
        )
        self.bx, self.bh = (weights[f"bias_{k}_l0"] * half[:, 0] for k in ("ih", "hh"))
        if case.kind != "GRU":
            self.bx = self.bx + self.bh
        self.h, self.c = (np.zeros((case.batch, n), np.float32) for _ in "hc")
        self.u = np.empty((case.batch, case.gates * n), np.float32)
        self.t = np.empty((case.batch, n), np.float32)
        self.finish = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[case.kind]
        self.y = np.empty((case.steps, case.batch, n), np.float32)

    def call(self, x: np.ndarray) -> None:
        if not self.goes_on:
            self.h[:] = self.c[:] = 0
        z = x.reshape(-1, x.shape[-1]) @ self.wx
        z += self.bx
        z = z.reshape(*x.shape[:2], -1)
        for t in range(len(x)):
            np.dot(self.h, self.wh, out=self.u)
            self.finish(z[t])
            self.y[t] = self.h

    def _lstm(self, z: np.ndarray) -> None:
        n = self.n
        z += self.u
        np.tanh(z, out=z)
        i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        for gate in (i, f, o):
            gate *= 0.5
            gate += 0.5
        self.c *= f
        i *= g
        self.c += i
        np.tanh(self.c, out=self.t)
        np.multiply(o, self.t, out=self.h)

    def _gru(self, z: np.ndarray) -> None:
        n, u = self.n, self.u
        u += self.bh
        rz = z[:, : 2 * n]
        rz += u[:, : 2 * n]
        np.tanh(rz, out=rz)
        rz *= 0.5
        rz += 0.5
        r, update, new = (z[:, k * n : (k + 1) * n] for k in range(3))
        np.multiply(r, u[:, 2 * n :], out=self.t)
        new += self.t
        np.tanh(new, out=new)
        self.h -= new
        self.h *= update
        self.h += new

    def _rnn(self, z: np.ndarray) -> None:
        z += self.u
        np.tanh(z, out=self.h)


def _numpy_lstm(weights: Arrays) -> NumPyStep:
    n = weights["weight_hh_l0"].shape[1]
    half = np.repeat(np.array([0.5, 0.5, 0.5, 1], np.float32), n)
    rows = np.arange(4 * n).reshape(4, n)[[0, 1, 3, 2]].reshape(-1)  # to i, f, o, g
    w = np.hstack([weights["weight_ih_l0"], weights["weight_hh_l0"]])[rows]
    w = np.ascontiguousarray((w * half[:, None]).T)
    b = (weights["bias_ih_l0"] + weights["bias_hh_l0"])[rows] * half
    n_in = weights["weight_ih_l0"].shape[1]
    xh, z, c, t = (np.zeros(k, np.float32) for k in (n_in + n, 4 * n, n, n))
    h, sigmoids, (i, f, o, g) = xh[n_in:], z[: 3 * n], z.reshape(4, n)
    dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh

    def step(frame: np.ndarray) -> None:
        xh[:n_in] = frame
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
    n_in = weights["weight_ih_l0"].shape[1]
    xh, z = np.zeros(n_in + n, np.float32), np.zeros(n, np.float32)
    h, dot, add, tanh = xh[n_in:], np.dot, np.add, np.tanh

    def step(frame: np.ndarray) -> None:
        xh[:n_in] = frame
        dot(xh, w, out=z)
        add(z, b, out=z)
        tanh(z, out=h)

    return step, h
