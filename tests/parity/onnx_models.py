# SPDX-License-Identifier: MIT
"""ONNX's three recurrent operators: models of one of them, and what they compute, in float64.

The reference is written from the operators' text (https://onnx.ai/onnx/operators/), gate by gate
and step by step, with its gate order and names, and knows nothing of clstm's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
DEFAULT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# alpha and beta where the attribute lists give none; None: the function takes none.
NUMBERS: dict[str, tuple[float | None, float | None]] = {
    "Sigmoid": (None, None), "Tanh": (None, None), "Relu": (None, None),
    "Softsign": (None, None), "Softplus": (None, None), "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None), "LeakyRelu": (0.01, None), "ThresholdedRelu": (1.0, None),
    "ScaledTanh": (1.0, 1.0), "Affine": (1.0, 0.0),
}  # fmt: skip


def function(name: str, alpha: float | None, beta: float | None):
    a, b = alpha, beta
    return {
        "Sigmoid": lambda x: 0.5 * (1 + np.tanh(x / 2)),
        "Tanh": np.tanh,
        "Relu": lambda x: np.maximum(x, 0),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.logaddexp(x, 0),
        "HardSigmoid": lambda x: np.clip(a * x + b, 0, 1),
        "Elu": lambda x: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
        "LeakyRelu": lambda x: np.where(x >= 0, x, a * x),
        "ThresholdedRelu": lambda x: np.where(x >= a, x, 0),
        "ScaledTanh": lambda x: a * np.tanh(b * x),
        "Affine": lambda x: a * x + b,
    }[name]


def functions(op: str, attrs: dict[str, Any], directions: int):
    """Those of each direction; lists of alpha and beta are consumed in the functions' order."""
    names = attrs.get("activations", DEFAULT[op] * directions)
    alphas = list(attrs.get("activation_alpha", []))
    betas = list(attrs.get("activation_beta", []))
    made = []
    for name in names:
        alpha, beta = NUMBERS[name]
        if alpha is not None and alphas:
            alpha = np.float32(alphas.pop(0)).item()
        if beta is not None and betas:
            beta = np.float32(betas.pop(0)).item()
        made.append(function(name, alpha, beta))
    n = FUNCTIONS[op]
    return [made[i * n : (i + 1) * n] for i in range(directions)]


def reference(op: str, attrs: dict[str, Any], tensors: dict[str, Any], clip_cell: bool = False):
    """Y [T, D, B, H], Y_h and Y_c [D, B, H] of X [T, B, I], all float64, layout 0. clip_cell:
    clip holds the c that goes through h(), too: one reading of "the input of activations"."""
    attrs = attrs | {"clip_cell": clip_cell}
    x = np.asarray(tensors["X"], np.float64)
    directions = 2 if attrs.get("direction") == "bidirectional" else 1
    t_max, batch, _ = x.shape
    hidden = tensors["R"].shape[2]
    clip = np.float32(attrs.get("clip", 0)).item() or np.inf
    lengths = tensors.get("sequence_lens")
    lengths = np.full(batch, t_max) if lengths is None else lengths
    y = np.zeros((t_max, directions, batch, hidden))
    y_h, y_c = (np.zeros((directions, batch, hidden)) for _ in range(2))
    f64 = {k: np.asarray(v, np.float64) for k, v in tensors.items() if v is not None}
    for d, acts in enumerate(functions(op, attrs, directions)):
        w, r = f64["W"][d], f64["R"][d]
        n = len(w)
        both = f64["B"][d] if "B" in f64 else np.zeros(2 * n)
        p = f64["P"][d] if "P" in f64 else np.zeros(3 * hidden)
        weights = {"w": w, "r": r, "wb": both[:n], "rb": both[n:], "p": p}
        backwards = attrs.get("direction") == "reverse" or d == 1
        h, c = (f64.get(w, np.zeros((directions, batch, hidden)))[d]
                for w in ("initial_h", "initial_c"))  # fmt: skip
        for t in reversed(range(t_max)) if backwards else range(t_max):
            valid = (t < lengths)[:, None]  # of a reverse direction the valid part is reversed
            new = STEPS[op](x[t], h, c, weights, acts, clip, attrs)
            h, c = (np.where(valid, a, b) for a, b in zip(new, (h, c), strict=True))
            y[t, d] = np.where(valid, h, 0)
        y_h[d], y_c[d] = h, c
    return y, y_h, y_c


def _parts(array: np.ndarray, n: int):
    return np.split(array, n)


def lstm(x, h, c, k, acts, clip, attrs):
    f_, g_, h_ = acts
    (wi, wo, wf, wc), (ri, ro, rf, rc) = _parts(k["w"], 4), _parts(k["r"], 4)
    bi, bo, bf, bc = _parts(k["wb"] + k["rb"], 4)
    pi, po, pf = _parts(k["p"], 3)

    def hold(z):
        return np.clip(z, -clip, clip)

    i = f_(hold(x @ wi.T + h @ ri.T + pi * c + bi))
    f = f_(hold(x @ wf.T + h @ rf.T + pf * c + bf))
    if attrs.get("input_forget"):
        f = 1 - i
    new = f * c + i * g_(hold(x @ wc.T + h @ rc.T + bc))
    o = f_(hold(x @ wo.T + h @ ro.T + po * new + bo))
    return o * h_(hold(new) if attrs["clip_cell"] else new), new


def gru(x, h, c, k, acts, clip, attrs):
    f_, g_ = acts
    (wz, wr, wh), (rz, rr, rh) = _parts(k["w"], 3), _parts(k["r"], 3)
    (wbz, wbr, wbh), (rbz, rbr, rbh) = _parts(k["wb"], 3), _parts(k["rb"], 3)

    def hold(v):
        return np.clip(v, -clip, clip)

    z = f_(hold(x @ wz.T + h @ rz.T + wbz + rbz))
    r = f_(hold(x @ wr.T + h @ rr.T + wbr + rbr))
    if attrs.get("linear_before_reset"):
        new = g_(hold(x @ wh.T + r * (h @ rh.T + rbh) + wbh))
    else:
        new = g_(hold(x @ wh.T + (r * h) @ rh.T + rbh + wbh))
    return (1 - z) * new + z * h, c


def rnn(x, h, c, k, acts, clip, attrs):
    return acts[0](np.clip(x @ k["w"].T + h @ k["r"].T + k["wb"] + k["rb"], -clip, clip)), c


STEPS = {"LSTM": lstm, "GRU": gru, "RNN": rnn}


def model(
    op: str, attrs: dict[str, Any], tensors: dict[str, Any], *, inputs: tuple[str, ...] = ("X",),
    flat: bool = True, opset: int = 21, extra: tuple = (), outputs: tuple[str, ...] | None = None,
) -> bytes:  # fmt: skip
    """A file of one operator. inputs: which tensors are inputs of the file; the others are
    initializers. flat: Y with both directions in its last axis, as torch has it."""
    layout = attrs.get("layout", 0)
    x = tensors["X"]
    words = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    words += ["initial_c", "P"] if op == "LSTM" else []
    given = [w if tensors.get(w) is not None else "" for w in words]
    while not given[-1]:
        given.pop()
    results = ["Y", "Y_h", "Y_c"] if op == "LSTM" else ["Y", "Y_h"]
    hidden = tensors["R"].shape[2]
    nodes = [helper.make_node(op, given, results, name="cell", hidden_size=hidden, **attrs)]
    y = "Y"
    if flat:
        if not layout:
            nodes.append(helper.make_node("Transpose", ["Y"], ["Yt"], perm=[0, 2, 1, 3]))
            y = "Yt"
        nodes.append(helper.make_node("Reshape", [y, "flat"], ["y"]))
        y = "y"
    consts = [numpy_helper.from_array(np.array([0, 0, -1]), "flat")]
    consts += [
        numpy_helper.from_array(np.asarray(tensors[w]), w)
        for w in words
        if tensors.get(w) is not None and w not in inputs
    ]
    declared = []
    for w in inputs:
        kind = TensorProto.INT32 if w == "sequence_lens" else TensorProto.FLOAT
        shape: list[Any] = list(np.shape(tensors[w]))
        if w == "X":
            shape[:2] = ["b", "t"] if layout else ["t", "b"]
        elif w == "sequence_lens":
            shape = ["b"]
        else:
            shape[0 if layout else 1] = "b"
        declared.append(helper.make_tensor_value_info(w, kind, shape))
    names = outputs or (y, *results[1:])
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names]
    graph = helper.make_graph([*nodes, *extra], "g", declared, outs, consts)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    assert x is not None
    return made.SerializeToString()


def to_bytes(nodes, inputs, outputs, tensors=(), opset=21) -> bytes:
    """A file of these nodes. inputs: name to (type, shape); tensors: name to array."""
    ins = [helper.make_tensor_value_info(n, *i) for n, i in inputs.items()]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    consts = [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(tensors).items()]
    graph = helper.make_graph(nodes, "g", ins, outs, consts)
    opsets = [helper.make_opsetid("", opset)]
    return onnx.ModelProto.SerializeToString(
        helper.make_model(graph, opset_imports=opsets, ir_version=10)
    )
