# SPDX-License-Identifier: MIT
"""ONNX files: axes followed, lengths, tokens; what clstm does not run refused by name."""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import clstm
from bounds.tolerances import FAR
from clstm import nn
from onnx_files import (
    CELL,
    FLOAT,
    INT32,
    INT64,
    ONE,
    R2,
    W2,
    H,
    N,
    R,
    W,
    X,
    array,
    equal,
    file,
    lstm,
    node,
    plain,
    read,
    rng,
)

# ---- axes ------------------------------------------------------------------------------


def test_batch_first_and_last_step() -> None:
    """torch's batch_first, a linear layer over flattened rows, and of the last step another."""
    nodes = [
        node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        *lstm("xt"),
        node("Transpose", ["Y"], ["y"], perm=[1, 0, 2]),
        node("Shape", ["y"], ["s"]),
        node("Slice", ["s", "n0", "n2"], ["rows"]),
        node("Reshape", ["y", "flat"], ["r"]),
        node("Gemm", ["r", "V", "v"], ["g"], transB=1),
        node("Concat", ["rows", "minus"], ["s2"], axis=0),
        node("Reshape", ["g", "s2"], ["out"]),
        node("Gather", ["y", "last"], ["l"], axis=1),
        node("MatMul", ["l", "V2"], ["m"]),
        node("Add", ["m", "v"], ["tail"]),
    ]
    tensors = {"n0": np.array([0]), "n2": np.array([2]), "flat": np.array([-1, H]),
               "V": array(5, H), "v": array(5), "V2": array(H, 5), "minus": np.array([-1]),
               "last": np.array(-1),
               **ONE, **CELL}  # fmt: skip
    m = clstm.load(file(nodes, {"x": (FLOAT, ["b", "t", N])}, ["out", "tail"], tensors))
    assert [type(k) for k in m.layers] == [nn.LSTM, nn.Linear, nn.Identity, nn.Linear, nn.Output]
    assert m.layers[0].batch_first
    x = array(2, 5, N)
    (out, tail), _ = m(x)
    y = plain(x.swapaxes(0, 1).copy())[0].swapaxes(0, 1)
    equal(out, y @ tensors["V"].T + tensors["v"])
    equal(tail, y[:, -1] @ tensors["V2"] + tensors["v"])


def test_two_directions_and_their_sum() -> None:
    """Y [T, 2, B, H] selected by direction is a slice of features, and adds up."""
    w = {"W": array(2, 4 * H, N), "R": array(2, 4 * H, H), "B": array(2, 8 * H)}
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=H, direction="bidirectional"),
        node("Gather", ["Y", "i0"], ["a"], axis=1),
        node("Gather", ["Y", "i1"], ["b"], axis=1),
        node("Add", ["a", "b"], ["s"]),
    ]
    tensors = {"i0": np.array(0), "i1": np.array(1), **w}
    m = clstm.load(file(nodes, X, ["s"], tensors))
    both = clstm.load(file([
        nodes[0], node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "flat"], ["y"])], X, ["y"], tensors | {"flat": np.array([0, 0, -1])}
    ))  # fmt: skip
    x = array(4, 2, N)
    y = both(x)[0]
    equal(m(x)[0], y[..., :H] + y[..., H:])
    nodes[1:] = [node("Transpose", ["Y"], ["t"], perm=[0, 2, 3, 1]),
                 node("Reshape", ["t", "flat"], ["y"])]  # fmt: skip
    with pytest.raises(clstm.UnsupportedError, match=r"Reshape 'y'.*features into another order"):
        read(file(nodes, X, ["y"], tensors | {"flat": np.array([0, 0, -1])}))


REFUSED: dict[str, tuple[list[Any], list[str], dict[str, Any], str]] = {
    "a step that is not the last": (
        [*lstm(), node("Gather", ["Y", "k"], ["out"], axis=0, name="pick")], ["out"],
        {"k": np.array(1)}, "Gather 'pick'.*last only"),
    "a mean over time": (
        [*lstm(), node("ReduceMean", ["Y", "z"], ["out"], name="mean")], ["out"],
        {"z": np.array([0])}, "ReduceMean 'mean'.*over axis 0.*outside of the model"),
    "a sum of all": (
        [*lstm(), node("ReduceSum", ["Y"], ["out"], name="sum")], ["out"], {},
        "ReduceSum 'sum'.*over axis 0"),
    "a row of the batch": (
        [*lstm(), node("Gather", ["Y", "k"], ["out"], axis=1, name="pick")], ["out"],
        {"k": np.array(0)}, "Gather 'pick'"),
    "time turned around": (
        [node("Slice", ["x", "a", "b", "z", "a"], ["r"], name="flip"), *lstm("r")], ["Y"],
        {"a": np.array([-1]), "b": np.array([-(2**31)]), "z": np.array([0])}, "Slice 'flip'"),
    "softmax over time": (
        [*lstm(), node("Softmax", ["Y"], ["out"], axis=0, name="soft")], ["out"], {},
        "Softmax 'soft'.*axis 0"),
    "an output in another order": (
        [*lstm(), node("Transpose", ["Y"], ["out"], perm=[1, 0, 2])], ["out"], {},
        "output 'out'.*order"),
    "a convolution": (
        [*lstm(), node("Conv", ["Y", "k"], ["out"], name="conv")], ["out"],
        {"k": np.zeros((1, 1, 1), np.float32)}, "Conv 'conv'"),
    "the last step with every step": (
        [*lstm(), node("Slice", ["Y", "a", "e", "z"], ["l"]), node("Add", ["Y", "l"], ["out"])],
        ["out"], {"a": np.array([-1]), "e": np.array([2**62]), "z": np.array([0])},
        "Add 'out'.*mixes"),
    "a length that is written in": (
        [*lstm(), node("Reshape", ["Y", "s"], ["out"], name="baked")], ["out"],
        {"s": np.array([7, -1, H])}, "Reshape 'baked'.*dynamic shapes"),
    "an unknown operator of another domain": (
        [*lstm(), node("Fused", ["Y"], ["out"], domain="com.example", name="f")], ["out"], {},
        "com.example.Fused 'f'"),
    "two recurrent layers along different axes": (
        [*lstm(), node("Transpose", ["Y"], ["t"], perm=[1, 0, 2]),
         node("LSTM", ["t", "W2", "R2"], ["z"], hidden_size=H, name="across")], ["z"],
        {"W2": W2, "R2": R2}, "LSTM 'across'.*one axis only"),
    "c as a value": (
        [*lstm(), node("Relu", ["Y_c"], ["out"], name="relu")], ["out"], {},
        "Relu 'relu'.*final states"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what: str) -> None:
    nodes, outputs, tensors, message = REFUSED[what]
    data = file(nodes, X, outputs, {**tensors, **ONE, **CELL}, domains=["com.example"])
    with pytest.raises(clstm.UnsupportedError, match=message) as caught:
        clstm.load(data)
    assert str(caught.value).startswith("<bytes>: ")


def test_loops_are_refused() -> None:
    def flag(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.BOOL, [])

    count = helper.make_tensor_value_info("k", INT64, [])
    body = helper.make_graph([node("Identity", ["c"], ["d"])], "body", [count, flag("c")],
                             [flag("d")])  # fmt: skip
    nodes = [*lstm(), node("Loop", ["n", "", "Y"], ["out"], name="again", body=body)]
    with pytest.raises(clstm.UnsupportedError, match="Loop 'again': a loop"):
        read(file(nodes, X, ["out"], {"n": np.array(3), **ONE, **CELL}))


def test_other_inputs_are_refused_by_name() -> None:
    nodes = [*lstm(), node("Add", ["Y", "noise"], ["out"])]
    inputs = X | {"noise": (FLOAT, ["t", "b", H])}
    with pytest.raises(clstm.UnsupportedError, match="noise"):
        read(file(nodes, inputs, ["out"], ONE | CELL))
    # One that no output depends on changes nothing.
    layers, _ = read(file(lstm(), inputs, ["Y"], ONE | CELL))
    assert layers == [nn.LSTM("lstm1")]


def test_lengths() -> None:
    nodes = [*lstm(extra=["lengths"])]
    inputs = X | {"lengths": (INT32, ["b"])}
    m = clstm.load(file(nodes, inputs, ["Y", "Y_h"], ONE | CELL))
    x, lengths = array(5, 3, N), np.array([2, 5, 3])
    y, (h, _) = m(x, lengths=lengths)
    for k, n in enumerate(lengths):
        alone = plain(x[:n, k : k + 1].copy())
        equal(y[:n, k], alone[0][:, 0])
        assert not y[n:, k].any()
        equal(h[:, k], alone[1][0][:, 0])
    tail = node("Gather", ["Y", "k"], ["out"], axis=0, name="tail")
    with pytest.raises(clstm.UnsupportedError, match=r"Gather 'tail'.*padded"):
        read(file([*nodes, tail], inputs, ["out"], {"k": np.array(-1), **ONE, **CELL}))
    with pytest.raises(clstm.UnsupportedError, match="constant sequence_lens"):
        read(file(nodes, X, ["Y"], {"lengths": np.array([2, 3], np.int32), **ONE, **CELL}))
    some = [*nodes, node("LSTM", ["Y", "W2", "R2"], ["z4"], hidden_size=H),
            node("Squeeze", ["z4", "one"], ["z"])]  # fmt: skip
    with pytest.raises(clstm.UnsupportedError, match="some do not"):
        read(file(some, inputs, ["z"], {"W2": W2, "R2": R2, **ONE, **CELL}))


def test_tokens() -> None:
    table = array(11, N)
    nodes = [node("Cast", ["ids"], ["i"], to=INT64), node("Gather", ["E", "i"], ["x"]), *lstm()]
    m = clstm.load(file(nodes, {"ids": (INT32, ["t", "b"])}, ["Y"], {"E": table, **ONE, **CELL}))
    ids = rng.integers(0, 11, (4, 2))
    equal(m(ids)[0], plain(table[ids])[0])
    nodes[1:1] = [node("Add", ["i", "k"], ["j"], name="shift")]
    nodes[2].input[1] = "j"
    with pytest.raises(clstm.UnsupportedError, match=r"Add 'shift'.*tokens"):
        read(file(nodes, {"ids": (INT32, ["t", "b"])}, ["Y"],
                  {"k": np.array(1), "E": table, **ONE, **CELL}))  # fmt: skip


@pytest.mark.parametrize("opset", [11, 18])
def test_layer_norm_and_gelu_from_their_parts(opset: int) -> None:
    axes = {"axes": [-1]}
    nodes = [
        *lstm(),
        node("ReduceMean", ["Y"], ["m"], **axes), node("Sub", ["Y", "m"], ["d"]),
        node("Pow", ["d", "two"], ["q"]), node("ReduceMean", ["q"], ["v"], **axes),
        node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["r"]),
        node("Div", ["d", "r"], ["n"]),
        node("Mul", ["n", "k"], ["nk"]), node("Add", ["nk", "b"], ["ln"]),
        node("Div", ["ln", "root"], ["g1"]), node("Erf", ["g1"], ["g2"]),
        node("Add", ["g2", "unit"], ["g3"]), node("Mul", ["ln", "g3"], ["g4"]),
        node("Mul", ["g4", "half"], ["out"]),
    ]  # fmt: skip
    tensors = {"two": np.float32(2), "eps": np.float32(1e-5), "k": array(H), "b": array(H),
               "root": np.float32(2**0.5), "unit": np.float32(1), "half": np.float32(0.5),
               **CELL}  # fmt: skip
    if opset == 11:
        nodes[1].ClearField("input")
        nodes[1].input.append("Y4")
        nodes[1].attribute.append(helper.make_attribute("axes", [1]))
    else:
        tensors |= ONE
        for n in nodes:
            if n.op_type == "ReduceMean":
                n.ClearField("attribute")
                n.input.append("minus")
        tensors["minus"] = np.array([-1])
    layers, _ = read(file(nodes, X, ["out"], tensors, opset=opset))
    assert [type(k) for k in layers] == [nn.LSTM, nn.LayerNorm, nn.Affine, nn.GELU]
    assert np.float32(layers[1].eps) == np.float32(1e-5)
    x = array(4, 2, N)
    y = plain(x)[0].astype(np.float64)
    n = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    n = n * tensors["k"] + tensors["b"]
    expected = n / 2 * (1 + np.vectorize(erf)(n / 2**0.5))
    found = clstm.load(file(nodes, X, ["out"], tensors, opset=opset))(x)[0]
    np.testing.assert_allclose(found, expected, atol=FAR)


# ---- outputs of fewer axes, sums over features, both ends of a sequence ------------------------

V = array(H)
OF_Y: dict[str, tuple[list[Any], dict[str, Any], Any]] = {
    "a vector": ([node("MatMul", ["Y", "v"], ["out"])], {"v": V}, lambda y: y @ V),
    "one feature squeezed": (
        [node("MatMul", ["Y", "v"], ["o"]), node("Squeeze", ["o", "last"], ["out"])],
        {"v": V[:, None], "last": np.array([-1])}, lambda y: y @ V),
    "one feature picked": (
        [node("Gather", ["Y", "k"], ["p"], axis=2), node("Sigmoid", ["p"], ["out"])],
        {"k": np.array(1)}, lambda y: 1 / (1 + np.exp(-y[..., 1]))),
    "a mean": ([node("ReduceMean", ["Y", "last"], ["out"])], {"last": np.array([-1])},
               lambda y: y.mean(-1, keepdims=True)),
    "a mean without its axis": (
        [node("ReduceMean", ["Y", "last"], ["out"], keepdims=0)], {"last": np.array([2])},
        lambda y: y.mean(-1)),
    "a sum": ([node("ReduceSum", ["Y", "last"], ["out"])], {"last": np.array([2])},
              lambda y: y.sum(-1, keepdims=True)),
    "less its mean": (
        [node("ReduceMean", ["Y", "last"], ["m"]), node("Sub", ["Y", "m"], ["d"]),
         node("Relu", ["d"], ["out"])], {"last": np.array([-1])},
        lambda y: np.maximum(y - y.mean(-1, keepdims=True), 0)),
    "a gate of one feature": (
        [node("MatMul", ["Y", "v"], ["o"]), node("Mul", ["o", "Y"], ["out"])],
        {"v": V[:, None]}, lambda y: (y @ V)[..., None] * y),
    "the last step with its axis": (
        [node("Slice", ["Y", "a", "e", "z"], ["out"])],
        {"a": np.array([-1]), "e": np.array([2**62]), "z": np.array([0])}, lambda y: y[-1:]),
    "both ends": (
        [node("Gather", ["Y", "k"], ["f"], axis=0), node("Squeeze", ["Y_h", "z"], ["l"]),
         node("Concat", ["f", "l"], ["out"], axis=-1)],
        {"k": np.array(0), "z": np.array([0])}, lambda y: np.concatenate([y[0], y[-1]], -1)),
}  # fmt: skip


@pytest.mark.parametrize("what", OF_Y)
def test_outputs_of_other_axes(what: str) -> None:
    nodes, tensors, expected = OF_Y[what]
    m = clstm.load(file([*lstm(), *nodes], X, ["out"], {**tensors, **ONE, **CELL}))
    for shape in ((5, 2, N), (1, 1, N), (4, 4, N)):
        x = array(*shape)
        equal(m(x)[0], expected(plain(x)[0]))


@pytest.mark.parametrize("ragged", [False, True])
def test_the_final_h_of_both_directions_side_by_side(ragged: bool) -> None:
    """As classifiers read a bidirectional layer; of a ragged batch each sequence's own ends."""
    nodes = [
        node("LSTM", ["x", "W", "R", "", "n" if ragged else ""], ["Y", "Yh", "Yc"],
             hidden_size=H, direction="bidirectional"),
        node("Gather", ["Yh", "k0"], ["a"], axis=0), node("Gather", ["Yh", "k1"], ["b"], axis=0),
        node("Concat", ["a", "b"], ["both"], axis=-1), node("MatMul", ["both", "v"], ["out"]),
    ]  # fmt: skip
    w, r = np.concatenate([W, -W]), np.concatenate([R, 2 * R])
    tensors = {"W": w, "R": r, "k0": np.array(-2), "k1": np.array(-1), "v": array(2 * H, 2)}
    inputs = X | ({"n": (INT32, ["b"])} if ragged else {})
    m, x = clstm.load(file(nodes, inputs, ["out"], tensors)), array(6, 3, N)
    lengths = [2, 6, 3] if ragged else None
    y, (h, _) = m(x, lengths=lengths)
    equal(y, np.concatenate([h[0], h[1]], -1) @ tensors["v"])
    for i in range(3):  # each sequence alone
        n = lengths[i] if lengths else 6
        alone = m(x[:n, i : i + 1], lengths=[n] if ragged else None)[0]
        assert np.array_equal(alone[0], y[i])
    with pytest.raises(clstm.UnsupportedError, match="whole sequence"):
        m.stream()
