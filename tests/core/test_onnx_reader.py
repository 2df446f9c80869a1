# SPDX-License-Identifier: MIT
"""ONNX files: constants folded, states paired, cells of single operations recognised."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clstm
from clstm import nn
from onnx_files import (
    CELL,
    FLOAT,
    ONE,
    R2,
    STATES,
    B,
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
    torch_rows,
    two_layers,
)

# ---- folding ---------------------------------------------------------------------------


def test_weights_put_together_by_operators() -> None:
    """Slice, Concat, Unsqueeze, Split, Transpose, Cast and arithmetic make W, R and B, as in
    files that were converted from torch's gate order."""
    parts = dict(zip("ifgo", np.split(torch_rows(W[0]), 4), strict=True))
    nodes = [
        node("Slice", ["wt", "s0", "s1"], ["wi"]),
        node("Slice", ["wt", "s1", "s2"], ["wf"]),
        node("Slice", ["wt", "s2", "s3"], ["wg"]),
        node("Slice", ["wt", "s3", "s4"], ["wo"]),
        node("Concat", ["wi", "wo", "wf", "wg"], ["w2"], axis=0),
        node("Unsqueeze", ["w2", "zero"], ["W"]),
        node("Transpose", ["rt"], ["r1"], perm=[1, 0]),
        node("Cast", ["r1"], ["r2"], to=FLOAT),
        node("Unsqueeze", ["r2", "zero"], ["r3"]),
        node("Mul", ["r3", "half"], ["r4"]),
        node("Add", ["r4", "r4"], ["R"]),
        node("Split", ["b1"], ["ba", "bb"], axis=0, num_outputs=2),
        node("Concat", ["ba", "bb"], ["b2"], axis=-1),
        node("Reshape", ["b2", "row"], ["B"]),
        *lstm(),
    ]
    tensors = {
        "wt": np.concatenate([parts[g] for g in "ifgo"]), "rt": R[0].T.astype(np.float64),
        "b1": B[0].reshape(-1), "half": np.float32(0.5), "zero": np.array([0]),
        "row": np.array([1, -1]), **{f"s{k}": np.array([k * H]) for k in range(5)}, **ONE,
    }  # fmt: skip
    m = clstm.load(file(nodes, X, ["Y"], tensors))
    x = array(5, 2, N)
    y, (h, c) = m(x)
    expected = plain(x)
    equal(y, expected[0])
    equal(h, expected[1][0])
    equal(c, expected[1][1])


def test_zeros_of_the_batch() -> None:
    """Shape, Gather, Concat and ConstantOfShape make the initial state: none at all."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "index"], ["b"], axis=0),
        node("Unsqueeze", ["b", "zero"], ["b1"]),
        node("Concat", ["first", "b1", "size"], ["s"], axis=0),
        node("ConstantOfShape", ["s"], ["h0"]),
        node("Expand", ["flat", "s"], ["c0"]),
        *lstm(extra=["", "h0", "c0"]),
    ]
    tensors = {"index": np.array(1), "zero": np.array([0]), "first": np.array([1]),
               "size": np.array([H]), "flat": np.zeros((1, 1, 1), np.float32),
               **ONE, **CELL}  # fmt: skip
    layers, found = read(file(nodes, X, ["Y"], tensors))
    assert layers == [nn.LSTM("lstm1")]
    assert not any("h0" in name for name in found)
    learned = tensors | {"flat": array(1, 1, H)}
    layers, found = read(file(nodes, X, ["Y"], learned))
    assert layers[0].c0 == "lstm1.c0"
    np.testing.assert_array_equal(found["lstm1.c0"], learned["flat"][0])


def test_folding_counts_its_memory() -> None:
    nodes = [node("ConstantOfShape", ["s"], ["big"]), node("ReduceSum", ["big"], ["W"]), *lstm()]
    tensors = {"s": np.array([2**20, 2**20]), "R": R, "B": B, **ONE}
    with pytest.raises(clstm.ModelFormatError, match="max_bytes"):
        read(file(nodes, X, ["Y"], tensors), max_bytes=2**22)
    for op, shape in (("Tile", [2**20, 2**20]), ("Expand", [2**31, 2**31])):
        nodes[:2] = [node(op, ["one", "s"], ["big"]), node("Identity", ["big"], ["W"])]
        tensors |= {"s": np.array(shape[: 1 if op == "Tile" else 2]) * 2**11}
        with pytest.raises(clstm.ModelFormatError, match="max_bytes"):
            read(file(nodes, X, ["Y"], tensors), max_bytes=2**22)
    # A chain that doubles ends at the limit, not at the end of memory.
    chain = [node("Concat", [f"d{k}", f"d{k}"], [f"d{k + 1}"], axis=0) for k in range(60)]
    tensors |= {"d0": np.zeros(2**10, np.float32)}
    with pytest.raises(clstm.ModelFormatError, match="max_bytes"):
        data = file([*chain, node("Identity", ["d60"], ["W"]), *lstm()], X, ["Y"], tensors)
        read(data, max_bytes=2**22)


def test_branch_of_a_constant() -> None:
    """An If whose condition is constant is its branch; another one is refused by name."""
    then = helper.make_graph([node("Identity", ["Y"], ["a"])], "then",
                             [], [helper.make_tensor_value_info("a", FLOAT, None)])  # fmt: skip
    other = helper.make_graph([node("Erf", ["Y"], ["b"])], "else",
                              [], [helper.make_tensor_value_info("b", FLOAT, None)])  # fmt: skip
    branch = node("If", ["cond"], ["out"], name="which", then_branch=then, else_branch=other)
    tensors = {"cond": np.array(True), **ONE, **CELL}
    layers, _ = read(file([*lstm(), branch], X, ["out"], tensors))
    assert layers == [nn.LSTM("lstm1")]
    tensors["cond"] = np.array(False)
    with pytest.raises(clstm.UnsupportedError, match="Erf 'b'"):
        read(file([*lstm(), branch], X, ["out"], tensors))
    del tensors["cond"]
    inputs = X | {"cond": (TensorProto.BOOL, [])}
    with pytest.raises(clstm.UnsupportedError, match="cond"):
        read(file([*lstm(), branch], inputs, ["out"], tensors))


def test_functions_of_the_file() -> None:
    """Functions that a file brings are put in place, in one another, with their attributes."""
    inner = helper.make_function(
        "own", "scale", ["v", "k"], ["w"], [node("Mul", ["v", "k"], ["t"]),
                                            node("Identity", ["t"], ["w"])],
        [helper.make_opsetid("", 18)])  # fmt: skip
    leaky = node("LeakyRelu", ["t"], ["w"])
    attr = leaky.attribute.add()
    attr.name, attr.ref_attr_name, attr.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    outer = helper.make_function(
        "own", "head", ["v", "k"], ["w"],
        [node("scale", ["v", "k"], ["t"], domain="own"), leaky],
        [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)], ["slope"])  # fmt: skip
    nodes = [*lstm(), node("head", ["Y", "k"], ["out"], domain="own", slope=0.25)]
    tensors = {"k": array(H), **ONE, **CELL}
    data = file(nodes, X, ["out"], tensors, functions=[inner, outer], domains=["own"])
    x = array(4, 2, N)
    v = plain(x)[0] * tensors["k"]
    equal(clstm.load(data)(x)[0], np.where(v > 0, v, np.float32(0.25) * v))
    loop = helper.make_function("own", "head", ["v", "k"], ["w"],
                                [node("head", ["v", "k"], ["w"], domain="own")],
                                [helper.make_opsetid("", 18)])  # fmt: skip
    with pytest.raises(clstm.UnsupportedError, match="functions that call each other"):
        read(file(nodes, X, ["out"], tensors, functions=[loop], domains=["own"]))


# ---- states ----------------------------------------------------------------------------


def test_states_become_the_stream() -> None:
    nodes = lstm(extra=["", "h0", "c0"])
    m = clstm.load(file(nodes, X | STATES, ["Y", "Y_h", "Y_c"], ONE | CELL))
    assert repr(m.layers) == "[LSTM('lstm1')]"
    x, state = array(6, 2, N), (array(1, 2, H), array(1, 2, H))
    y, (h, c) = m(x, state)
    expected = plain(x, state)
    equal(y, expected[0])
    equal(h, expected[1][0])
    equal(c, expected[1][1])
    one = (state[0][:, :1], state[1][:, :1])
    stream = m.stream(one)
    equal(np.stack([stream.step(frame) for frame in x[:, 0].copy()]), y[:, 0])
    equal(stream.state[0], h[:, 0])


@pytest.mark.parametrize("dropout", [False, True])
def test_layers_are_one_again(dropout: bool) -> None:
    nodes, inputs, outputs, tensors = two_layers(dropout)
    tensors["B2"] = array(1, 8 * H)
    nodes[-4].input[3] = "B2"
    layers, found = read(file(nodes, inputs, outputs, tensors))
    assert layers == [nn.LSTM("lstm1")]
    assert {n for n in found if "l1" in n} == {
        "lstm1.weight_ih_l1", "lstm1.weight_hh_l1", "lstm1.bias_ih_l1", "lstm1.bias_hh_l1"
    }  # fmt: skip
    # With a bias in the first layer only they are no nn.LSTM of torch: two layers, two states.
    nodes, inputs, outputs, tensors = two_layers(dropout)
    layers, _ = read(file(nodes, inputs, outputs, tensors))
    assert layers == [nn.LSTM("lstm1"), nn.LSTM("lstm2")]


def test_layers_whose_output_is_read_stay_apart() -> None:
    nodes, inputs, _, tensors = two_layers()
    nodes.append(node("Add", ["y", "y0"], ["sum"]))
    layers, _ = read(file(nodes, inputs, ["sum", "hn", "cn"], tensors))
    assert layers == [nn.LSTM("lstm1"), nn.LSTM("lstm2"), nn.Add(inputs=(2, 1))]


def test_states_in_another_order_are_refused() -> None:
    nodes, inputs, outputs, tensors = two_layers()
    nodes[-2].input[:] = ["y1_h", "y0_h"]
    with pytest.raises(clstm.UnsupportedError, match=r"output 'hn'.*not the next state.*'h0'"):
        read(file(nodes, inputs, outputs, tensors))
    nodes, inputs, outputs, tensors = two_layers()
    with pytest.raises(clstm.UnsupportedError, match=r"output 'cn'.*not the next state of.*'h0'"):
        read(file(nodes, inputs, outputs, tensors), states=[("h0", "cn"), ("c0", "hn")])
    assert read(file(nodes, inputs, outputs, tensors), states=[("h0", "hn"), ("c0", "cn")])
    with pytest.raises(clstm.UnsupportedError, match="input 'idle': is not the initial state"):
        data = file(nodes, inputs | {"idle": inputs["h0"]}, outputs, tensors)
        read(data, states=[("idle", "y")])
    with pytest.raises(ValueError, match="no input 'h'"):
        read(file(nodes, inputs, outputs, tensors), states=[("h", "hn")])
    with pytest.raises(ValueError, match="expected"):
        read(file(nodes, inputs, outputs, tensors), states=["h0"])


def test_a_state_of_h_and_c_together() -> None:
    """One state [2, B, H] of h and c, as voice activity detectors have it."""
    nodes = [
        node("Split", ["state", "sizes"], ["h", "c"], axis=0),
        *lstm(extra=["", "h", "c"]),
        node("Concat", ["Y_h", "Y_c"], ["stateN"], axis=0),
    ]
    inputs = X | {"state": (FLOAT, [2, "b", H])}
    tensors = {"sizes": np.array([1, 1]), **ONE, **CELL}
    layers, _ = read(file(nodes, inputs, ["Y", "stateN"], tensors))
    assert layers == [nn.LSTM("lstm1")]
    nodes[-1].input[:] = ["Y_c", "Y_h"]
    with pytest.raises(clstm.UnsupportedError, match="stateN"):
        read(file(nodes, inputs, ["Y", "stateN"], tensors))


@pytest.mark.parametrize("names", [("x", "h", "c"), ("h", "c", "x"), ("a", "b", "d")])
def test_single_step_of_a_cell(names) -> None:
    """Gemm, Split, Sigmoid and Tanh, as both exporters write nn.LSTMCell; states told by name, or
    else by position: the input first."""
    x, h, c = names if names[0] != "h" else (names[2], names[0], names[1])
    nodes = [
        node("Gemm", [h, "U", "bh"], ["p"], transB=1),
        node("Gemm", [x, "V", "bx"], ["q"], transB=1),
        node("Add", ["p", "q"], ["z"]),
        node("Split", ["z"], ["zi", "zf", "zg", "zo"], axis=1, num_outputs=4),
        *[node(op, [f"z{g}"], [g]) for g, op in zip("ifgo", ["Sigmoid"] * 2 + ["Tanh", "Sigmoid"],
                                                   strict=True)],
        node("Mul", ["f", c], ["fc"]), node("Mul", ["i", "g"], ["ig"]),
        node("Add", ["fc", "ig"], ["c1"]), node("Tanh", ["c1"], ["tc"]),
        node("Mul", ["o", "tc"], ["h1"]),
    ]  # fmt: skip
    shapes = {x: (FLOAT, ["n", H]), h: (FLOAT, ["n", H]), c: (FLOAT, ["n", H])}
    tensors = {"U": torch_rows(R[0]), "V": torch_rows(R2[0]), "bh": array(4 * H),
               "bx": array(4 * H)}  # fmt: skip
    # The gate names f and c of the nodes must not meet the names of the inputs.
    renamed = {"f": "gate_f", "i": "gate_i", "g": "gate_g", "o": "gate_o"}
    for n in nodes:
        n.output[:] = [renamed.get(v, v) for v in n.output]
        n.input[:] = [renamed.get(v, v) for v in n.input]
    data = file(nodes, {n: shapes[n] for n in names}, ["h1", "c1"], tensors)
    m = clstm.load(data)
    assert repr(m.layers) == "[LSTMCell('lstmcell1')]"
    weights = {"weight_ih": tensors["V"], "weight_hh": tensors["U"], "bias_ih": tensors["bx"],
               "bias_hh": tensors["bh"]}  # fmt: skip
    state = (array(2, H), array(2, H))
    v = array(2, H)
    for a, b in zip(m(v, state), clstm.from_state_dict(weights)(v, state), strict=True):
        equal(a, b)


def test_a_cell_that_is_none() -> None:
    """A state that is computed with in another way is refused by name."""
    nodes = [node("Gemm", ["h", "U"], ["p"], transB=1), node("Add", ["p", "x"], ["s"]),
             node("Sigmoid", ["s"], ["h1"])]  # fmt: skip
    inputs = {"x": (FLOAT, ["n", H]), "h": (FLOAT, ["n", H])}
    with pytest.raises(clstm.UnsupportedError, match="state input 'h'"):
        read(file(nodes, inputs, ["h1"], {"U": R[0, :H]}))


def test_a_state_whose_number_of_layers_is_left_open() -> None:
    """As torch's newer exporter declares it, where that axis was given as dynamic too."""
    nodes, inputs, outputs, tensors = two_layers()
    open_ = inputs | {w: (FLOAT, ["l", "b", H]) for w in ("h0", "c0")}
    fixed, free = (clstm.load(file(nodes, i, outputs, tensors)) for i in (inputs, open_))
    assert free.fingerprint == fixed.fingerprint
    x, state = array(5, 3, N), [(array(1, 3, H), array(1, 3, H)) for _ in range(2)]
    assert np.array_equal(free(x, state)[0], fixed(x, state)[0])
