# SPDX-License-Identifier: MIT
"""ONNX files that would be right only at the sizes of their export, or whose names and orders
contradict their data: refused with the name of the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import clstm
from onnx_files import (
    CELL,
    FLOAT,
    INT64,
    ONE,
    R2,
    STATES,
    W2,
    H,
    N,
    X,
    array,
    equal,
    file,
    ints,
    lstm,
    made,
    node,
    plain,
    read,
    two_layers,
)

Refused = (clstm.UnsupportedError, clstm.ModelFormatError)
END = np.array([2**62])


def static(t: int, b: int) -> dict[str, Any]:
    return {"x": (FLOAT, [t, b, N])}


# ---- the order of states -----------------------------------------------------------------


def test_layers_of_a_state_in_another_order() -> None:
    nodes, inputs, outputs, tensors = two_layers()
    read(file(nodes, inputs, outputs, tensors))
    flipped = [node("Slice", [w, "m1", "low", "zero", "m1"], [f"{w}f"]) for w in ("h0", "c0")]
    tensors |= {"m1": ints(-1), "low": ints(-(2**31))}
    moved, *_ = two_layers()
    for n in moved:
        if n.op_type == "Slice":
            n.input[0] += "f"
    with pytest.raises(clstm.UnsupportedError, match=r"LSTM .*state 'h0' in another order"):
        read(file([*flipped, *moved], inputs, outputs, tensors))
    picked = [node("Gather", [w, "back"], [f"{w}f"], axis=0) for w in ("h0", "c0")]
    with pytest.raises(clstm.UnsupportedError, match="Gather"):
        read(file([*picked, *moved], inputs, outputs, tensors | {"back": ints(1, 0)}))
    joins = []
    for w in ("h0", "c0"):
        joins += [node("Slice", [w, f"n{k}", f"n{k + 1}", "zero"], [f"{w}p{k}"]) for k in (0, 1)]
        joins += [node("Concat", [f"{w}p1", f"{w}p0"], [f"{w}f"], axis=0)]
    with pytest.raises(clstm.UnsupportedError, match="another order"):
        read(file([*joins, *moved], inputs, outputs, tensors))


@pytest.mark.parametrize("given", [True, False])
def test_layers_of_a_final_state_in_another_order(given: bool) -> None:
    nodes, inputs, outputs, tensors = two_layers()
    if not given:
        inputs = X
        nodes = [n for n in nodes if n.op_type != "Slice"]
        for n in nodes:
            if n.op_type == "LSTM":
                del n.input[4:]
    for n in nodes:
        if n.op_type == "Concat":
            n.input[:] = list(n.input)[::-1]
    with pytest.raises(clstm.UnsupportedError, match="output 'hn'"):
        read(file(nodes, inputs, outputs, tensors))


# ---- a size of 1 -------------------------------------------------------------------------

OF_TIME: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "the second step": ([node("Gather", ["Y", "k"], ["out"], axis=0, name="cut")],
                        {"k": np.array(1)}),
    "a part": ([node("Slice", ["Y", "k", "e", "k"], ["out"], name="cut")],
               {"k": ints(0), "e": ints(2)}),
    "every second": ([node("Slice", ["Y", "k", "e", "k", "s"], ["out"], name="cut")],
                     {"k": ints(0), "e": END, "s": ints(2)}),
    "the first step of x beside": ([node("Slice", ["x", "k", "e", "k"], ["z"], name="cut"),
                                    node("Concat", ["Y", "z"], ["out"], axis=2, name="cut")],
                                   {"k": ints(0), "e": ints(1)}),
    "turned around": ([node("Slice", ["x", "k", "e", "z", "k"], ["xr"], name="cut"),
                       node("LSTM", ["xr", "W", "R"], ["o4"], hidden_size=H),
                       node("Squeeze", ["o4", "one"], ["out"])],
                      {"k": ints(-1), "e": ints(-(2**31)), "z": ints(0)}),
}  # fmt: skip


@pytest.mark.parametrize("t", [1, 7])
@pytest.mark.parametrize("what", OF_TIME)
def test_parts_of_a_static_time(what: str, t: int) -> None:
    nodes, tensors = OF_TIME[what]
    with pytest.raises(clstm.UnsupportedError, match="'cut'"):
        read(file([*lstm(), *nodes], static(t, 1), ["out"], {**ONE, **CELL, **tensors}))


FIRST: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "index 0": ([node("Gather", ["Y", "k"], ["out"], axis=0, name="cut")], {"k": np.array(0)}),
    "0 to 1": ([node("Slice", ["Y", "k", "e", "k"], ["out"], name="cut")],
               {"k": ints(0), "e": ints(1)}),
}  # fmt: skip


@pytest.mark.parametrize("what", FIRST)
def test_the_first_step_of_a_static_time(what: str) -> None:
    """Of one step it may as well be the last."""
    nodes, tensors = FIRST[what]
    nodes, tensors = [*lstm(), *nodes], {**ONE, **CELL, **tensors}
    with pytest.raises(clstm.UnsupportedError, match="'cut'"):
        read(file(nodes, static(1, 1), ["out"], tensors))
    x = array(7, 1, N)
    for inputs in (static(7, 1), X):
        y, _ = clstm.load(file(nodes, inputs, ["out"], tensors))(x)
        equal(y, plain(x)[0][0] if what == "index 0" else plain(x)[0][:1])


def test_a_step_picked_before_time_is_known() -> None:
    nodes = [node("Gather", ["x", "k"], ["x0"], axis=0, name="cut"), *lstm(),
             node("Add", ["Y", "x0"], ["out"])]  # fmt: skip
    with pytest.raises(clstm.UnsupportedError, match="'cut'"):
        read(file(nodes, static(1, 1), ["out"], {"k": np.array(0), **ONE, **CELL}))


def test_a_loop_of_one_step_whose_state_was_folded_away() -> None:
    """What the newer exporter makes of a loop over LSTMCell at a length of 1."""
    nodes = [
        node("Gather", ["x", "k"], ["x0"], axis=0, name="cut"),
        node("MatMul", ["x0", "V"], ["z"]),
        node("Unsqueeze", ["z", "axis"], ["out"]),
    ]
    tensors = {"k": np.array(0), "V": array(N, H), "axis": ints(0)}
    with pytest.raises(clstm.UnsupportedError, match=r"Gather 'cut'.*loop over time"):
        read(file(nodes, static(1, 3), ["out"], tensors))


def test_the_last_step_of_a_static_time_of_one() -> None:
    last = [
        (node("Gather", ["Y", "k"], ["out"], axis=0), np.array(-1)),
        (node("Slice", ["Y", "k", "e", "z"], ["l"]), ints(-1)),
    ]
    x = array(4, 1, N)
    for n, k in last:
        nodes = [*lstm(), n]
        if n.op_type == "Slice":
            nodes.append(node("Squeeze", ["l", "z"], ["out"]))
        tensors = {"k": k, "e": END, "z": ints(0), **ONE, **CELL}
        m = clstm.load(file(nodes, static(1, 1), ["out"], tensors))
        equal(m(x)[0], plain(x)[0][-1])


# ---- reshapes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "shape"), [
    ((7, 1), (1, 7, N)), ((7, 1), (1, -1, N)), ((1, 7), (-1, 1, N)), ((1, 7), (7, 1, N)),
    ((1, 7), (1, -1, N)), ((7, 7), (7, 7, N)), ((1, 1), (-1, 1, N)), ((1, 1), (1, -1, N)),
    ((7, 1), (7, N)),
])  # fmt: skip
def test_reshapes_that_only_the_sizes_of_the_export_make_harmless(sizes, shape) -> None:
    nodes = [node("Reshape", ["x", "s"], ["r"], name="moved")]
    if len(shape) == 2:  # merged, and put back as something else
        nodes.append(node("Reshape", ["r", "s2"], ["r3"]))
    nodes += lstm("r3" if len(shape) == 2 else "r")
    tensors = {"s": ints(*shape), "s2": ints(1, 7, N), **ONE, **CELL}
    with pytest.raises(clstm.UnsupportedError, match=r"Reshape 'moved'|LSTM 'lstm_Y'"):
        read(file(nodes, static(*sizes), ["Y"], tensors))


def test_reshapes_that_keep_a_static_batch_of_one() -> None:
    """Rows merged for a linear layer and put back."""
    nodes = [node("Reshape", ["x", "flat"], ["r"]), node("MatMul", ["r", "V"], ["v"]),
             node("Reshape", ["v", "back"], ["z"]), *lstm("z")]  # fmt: skip
    tensors = {"flat": ints(7, N), "V": array(N, N), "back": ints(7, 1, N), **ONE, **CELL}
    m = clstm.load(file(nodes, static(7, 1), ["Y"], tensors))
    x = array(5, 1, N)
    equal(m(x)[0], plain(x @ tensors["V"])[0])


# ---- names -------------------------------------------------------------------------------


def test_one_name_for_two_values() -> None:
    tensors = ONE | CELL
    nodes = lstm()
    cases = {
        "tensor 'W'": ([*nodes], ["Y"]),
        "Tanh 'Y', output 'Y'": ([*nodes, node("Tanh", ["Y"], ["Y"])], ["Y"]),
        "output 'x'": ([*nodes, node("Tanh", ["Y"], ["x"])], ["Y"]),
        "output 'W'": ([*nodes, node("Tanh", ["Y"], ["W"])], ["Y"]),
        "output 'Y'": ([*nodes], ["Y", "Y"]),
    }
    for words, (some, outputs) in cases.items():
        model = made(some, X, outputs, tensors)
        if words == "tensor 'W'":
            model.graph.initializer.append(next(
                t for t in model.graph.initializer if t.name == "W"))  # fmt: skip
        with pytest.raises(clstm.ModelFormatError, match=f"{words}.*second value"):
            read(model.SerializeToString())


def test_what_no_node_makes() -> None:
    with pytest.raises(clstm.ModelFormatError, match="output 'nope': no node makes it"):
        read(file(lstm(), X, ["Y", "nope"], ONE | CELL))
    nodes = [*lstm(), node("Add", ["Y", "b"], ["a"], name="first"), node("Tanh", ["a"], ["b"])]
    with pytest.raises(clstm.ModelFormatError, match=r"Add 'first': reads 'b'.*cycle"):
        read(file(nodes, X, ["b"], ONE | CELL))


def gru_pair(outputs: list[str]) -> bytes:
    """Two LSTMs, whose final h are outputs of these names."""
    first = lstm(y="a", extra=["", "h0", "z"], outs=["a4", outputs[0]])
    second = [node("LSTM", ["a", "W2", "R2", "", "", "h1", "z"], ["b4", outputs[1]],
                   hidden_size=H), node("Squeeze", ["b4", "one"], ["y"])]  # fmt: skip
    for n in (first[0], second[0]):
        n.op_type = "GRU"
        del n.input[6:]
    tensors = {k: array(1, 3 * H, n) for k, n in (("W", N), ("R", H), ("W2", H), ("R2", H))}
    tensors["B"] = array(1, 6 * H)
    inputs = X | {"h0": STATES["h0"], "h1": STATES["h0"]}
    return file([*first, *second], inputs, ["y", *outputs], ONE | tensors)


def test_states_whose_names_cross() -> None:
    read(gru_pair(["h0_out", "h1_out"]))
    read(gru_pair(["p", "q"]))
    with pytest.raises(clstm.UnsupportedError, match=r"input 'h0'.*says 'h1'.*states="):
        read(gru_pair(["h1_out", "h0_out"]))
    read(gru_pair(["h1_out", "h0_out"]), states=[("h0", "h1_out"), ("h1", "h0_out")])
    with pytest.raises(clstm.UnsupportedError, match="not the next state"):
        read(gru_pair(["h1_out", "h0_out"]), states=[("h0", "h0_out"), ("h1", "h1_out")])


# ---- messages ----------------------------------------------------------------------------


def test_messages() -> None:
    def refused(words: str, nodes, inputs=X, tensors=None) -> None:
        with pytest.raises(Refused, match=words):
            read(file(nodes, inputs, ["out"], {**ONE, **CELL, **(tensors or {})}))

    clip = node("Clip", ["Y", "a", "b"], ["out"], name="clip")
    refused("Clip 'clip': a minimum of 1 and a maximum of -1", [*lstm(), clip],
            tensors={"a": np.float32(1), "b": np.float32(-1)})  # fmt: skip
    join = node("Concat", ["Y", "z"], ["out"], axis=2)
    refused("input 'z': is a second input beside 'x'", [*lstm(), join], X | {"z": X["x"]})
    refused("input 'x': integers of 3 axes", [*lstm(y="out")], {"x": (INT64, ["t", "b", N])})
    for to in (10, 16):
        cast = [node("Cast", ["Y"], ["c"], to=to, name="half"), node("Cast", ["c"], ["out"], to=1)]
        refused("Cast 'half'.*float32", [*lstm(), *cast])
    sort = node("TopK", ["n", "one"], ["v", "order"])
    pick = node("Gather", ["x", "order"], ["xs"], axis=1)
    refused(r"input 'n'.*lengths=.*enforce_sorted=True", [sort, pick, *lstm("xs", "out")],
            X | {"n": (INT64, ["b"])})  # fmt: skip
    loop = [node("Gather", ["x", "k"], ["x0"], axis=0), node("Gemm", ["zero", "V"], ["hz"]),
            node("MatMul", ["x0", "V2"], ["xz"]), node("Add", ["hz", "xz"], ["out"])]  # fmt: skip
    refused("Gemm 'hz'.*loop over time.*nn.LSTM", loop, static(4, 1),
            {"k": np.array(0), "zero": np.zeros((1, H), np.float32), "V": array(H, 4 * H),
             "V2": array(N, 4 * H)})  # fmt: skip


def test_a_part_of_an_output_is_no_unrolled_loop() -> None:
    nodes = [*lstm(), node("Gather", ["Y", "k"], ["out"], axis=0)]
    with pytest.raises(clstm.UnsupportedError) as caught:
        read(file(nodes, X, ["out"], {"k": np.array(1), **ONE, **CELL}))
    assert "loop" not in str(caught.value)


def test_a_cell_that_cannot_take_the_input_of_the_file() -> None:
    nodes = [node("Reshape", ["x", "s"], ["r"]), *lstm("r", "y"),
             node("Reshape", ["y", "back"], ["out"])]  # fmt: skip
    tensors = {"s": ints(1, 6, N), "back": ints(6, 1, H), "W2": W2, "R2": R2, **ONE, **CELL}
    with pytest.raises(clstm.UnsupportedError, match="LSTM 'lstm_y'"):
        read(file(nodes, static(6, 1), ["out"], tensors))


def test_a_bare_cell_behind_an_axis_that_was_taken_away() -> None:
    nodes = [node("Squeeze", ["x", "one"], ["r"]), node("Unsqueeze", ["r", "zero"], ["s"]),
             node("LSTM", ["s", "W", "R", "B"], ["y4"], hidden_size=H),
             node("Squeeze", ["y4", "first"], ["y"]),
             node("Unsqueeze", ["y", "one"], ["out"])]  # fmt: skip
    tensors = {"zero": ints(0), "first": ints(0, 1), **ONE, **CELL}
    with pytest.raises(clstm.UnsupportedError, match=r"single step of a cell.*\(6, 1, features\)"):
        read(file(nodes, static(6, 1), ["out"], tensors))
