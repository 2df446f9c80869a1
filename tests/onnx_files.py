# SPDX-License-Identifier: MIT
"""ONNX files for tests, built with onnx.helper around one LSTM, and what they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import clstm
from bounds.tolerances import NEAR
from clstm.formats.onnx import read_onnx

node = helper.make_node
FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
N, H = 4, 3  # features of x and of h
rng = np.random.default_rng(3)


def array(*shape: int) -> np.ndarray:
    return rng.uniform(-0.7, 0.7, shape).astype(np.float32)


W, R, B = array(1, 4 * H, N), array(1, 4 * H, H), array(1, 8 * H)
W2, R2 = array(1, 4 * H, H), array(1, 4 * H, H)
CELL = {"W": W, "R": R, "B": B}
X = {"x": (FLOAT, ["t", "b", N])}


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def made(nodes, inputs, outputs, tensors=None, opset=18, functions=(), domains=()) -> Any:
    """A model of these nodes; inputs: (element type, shape)."""
    ins = [helper.make_tensor_value_info(n, *i) for n, i in inputs.items()]
    outs = [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs]
    consts = [numpy_helper.from_array(np.asarray(a), n) for n, a in (tensors or {}).items()]
    graph = helper.make_graph(nodes, "g", ins, outs, consts)
    opsets = [helper.make_opsetid("", opset), *[helper.make_opsetid(d, 1) for d in domains]]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


SMALL = {"x": (FLOAT, ["t", "b", 2])}


def small(nodes, tensors=None, inputs=SMALL, outputs: str = "y", **options: Any) -> Any:
    """A model of two features: the tables of what is accepted and of what is refused."""
    return made(nodes, inputs, outputs.split(), tensors, **options)


def file(*args: Any, **options: Any) -> bytes:
    return made(*args, **options).SerializeToString()


def read(data: bytes, **options: Any):
    words: dict[str, Any] = {"external_data": False, "states": None, "max_bytes": 2**30}
    return read_onnx(data, "m.onnx", None, **(words | options))


def torch_rows(a: np.ndarray) -> np.ndarray:
    return np.concatenate([np.split(a, 4)[k] for k in (0, 2, 3, 1)])


def lstm(x="x", y="Y", extra=(), outs=None, **attrs):
    """An LSTM over x [T, B, N] whose y has torch's axes."""
    return [
        node("LSTM", [x, "W", "R", "B", *extra], outs or [f"{y}4", f"{y}_h", f"{y}_c"],
             name=f"lstm_{y}", hidden_size=H, **attrs),
        node("Squeeze", [f"{y}4", "one"], [y]),
    ]  # fmt: skip


STATES = {"h0": (FLOAT, [1, "b", H]), "c0": (FLOAT, [1, "b", H])}
ONE = {"one": np.array([1])}


def plain(lstm_x: np.ndarray, state=None):
    """The same LSTM from a state dict."""
    weights = {"weight_ih_l0": torch_rows(W[0]), "weight_hh_l0": torch_rows(R[0]),
               "bias_ih_l0": torch_rows(B[0, : 4 * H]),
               "bias_hh_l0": torch_rows(B[0, 4 * H :])}  # fmt: skip
    return clstm.from_state_dict(weights)(lstm_x, state)


def equal(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=NEAR, atol=NEAR)


def two_layers(dropout=False):
    """As torch exports nn.LSTM(num_layers=2): states sliced and put together."""
    nodes = []
    for word in ("h", "c"):
        nodes += [node("Slice", [f"{word}0", f"n{k}", f"n{k + 1}", "zero"], [f"{word}0_{k}"])
                  for k in range(2)]  # fmt: skip
    nodes += lstm(y="y0", extra=["", "h0_0", "c0_0"])
    x = "y0"
    if dropout:
        nodes.append(node("Dropout", ["y0"], ["d0"]))
        x = "d0"
    nodes += [
        node("LSTM", [x, "W2", "R2", "", "", "h0_1", "c0_1"], ["y14", "y1_h", "y1_c"],
             hidden_size=H, name="second"),
        node("Squeeze", ["y14", "one"], ["y"]),
        node("Concat", ["y0_h", "y1_h"], ["hn"], axis=0),
        node("Concat", ["y0_c", "y1_c"], ["cn"], axis=0),
    ]  # fmt: skip
    tensors = {"zero": np.array([0]), **{f"n{k}": np.array([k]) for k in range(3)},
               "W2": W2, "R2": R2, **ONE, **CELL}  # fmt: skip
    inputs = X | {w: (FLOAT, [2, "b", H]) for w in ("h0", "c0")}
    return nodes, inputs, ["y", "hn", "cn"], tensors
