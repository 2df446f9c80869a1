# SPDX-License-Identifier: MIT
"""Small files, one for each thing that a graph may say and clstm does not run, or that cannot be:
the typed error, and the words of its sentence that decide.

What is accepted is in tests/parity/test_onnx_accepted.py; the kept corpus has both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clstm
from onnx_files import FLOAT, INT32, INT64, SMALL, array, floats, ints, node, small

FLAT = {"x": (FLOAT, ["b", 2])}
END = np.array([2**62])
Unsupported, Malformed = clstm.UnsupportedError, clstm.ModelFormatError

NS = {"n0": ints(0), "n1": ints(1), "n2": ints(2), "e": END}
T = [node("Shape", ["x"], ["s"]), node("Slice", ["s", "n0", "n1"], ["t"])]


def constant(op: str, inputs: list[str], tensors=None, outputs=("k",), before=(), **attrs: Any):
    """x plus the k that a node makes of constants."""
    nodes = [*before, node(op, inputs, list(outputs), **attrs), node("Add", ["x", "k"], ["y"])]
    return small(nodes, tensors)


def sized(op: str, inputs: list[str], tensors=None, sizes: str = "t", **attrs: Any):
    """The same of z, zeros of the size t of time and then of others."""
    before = [*T, node("Concat", sizes.split(), ["zs"], axis=0),
              node("ConstantOfShape", ["zs"], ["z"])]  # fmt: skip
    return constant(op, inputs, NS | (tensors or {}), before=before, **attrs)


def filled(value: int) -> Any:
    return helper.make_tensor("v", TensorProto.UINT8, [1], [value])


BIG = [node("ConstantOfShape", ["p"], ["a"]), node("ConstantOfShape", ["q"], ["b"])]
CONSTANTS = {
    "a constant that repeats beside a longer one": (
        sized("Add", ["z", "c"], {"c": floats(1, 2)}), Unsupported, "Add 'k': of constants whose"),
    "a negative size": (
        constant("Mul", ["t", "m"], NS | {"m": ints(-1)}, before=T), Unsupported, "Mul 'k': makes"),
    "a product along what repeats": (
        sized("MatMul", ["z", "v"], {"v": array(1, 2)}), Unsupported, "MatMul 'k': of a constant"),
    "a product that takes hours": (
        constant("MatMul", ["a", "b"], {"p": ints(2**12, 2**12), "q": ints(2**12, 2**12)},
                 before=BIG), Malformed, "MatMul 'k' takes 8589934592 bytes"),
    "a shape of many axes": (
        constant("ConstantOfShape", ["many"], {"n": ints(65)},
                 before=[node("ConstantOfShape", ["n"], ["many"], value=filled(1))]),
        Malformed, "ConstantOfShape 'k', shape: a shape of 65 axes"),
    "a slice up to a size": (
        constant("Slice", ["c", "n0", "t"], NS | {"c": floats(1, 2)}, before=T), Unsupported,
        "Slice 'k', ends: depends on a size"),
    "what repeats, made flat": (sized("Flatten", ["z"]), Unsupported, "Flatten 'k': of a constant"),
    "an axis that is not 1 taken away": (
        constant("Squeeze", ["c", "n0"], NS | {"c": floats(1, 2)}), Malformed, "'k': an axis that"),
    "a new axis twice": (
        constant("Unsqueeze", ["c", "two"], {"c": floats(1), "two": ints(0, -3)}), Malformed,
        r"Unsqueeze 'k': the axes \[0, -3\], one of them twice"),
    "no axes of 1 taken away, or all": (
        constant("Squeeze", ["c", "none"], {"c": array(1, 2), "none": ints()}), Unsupported,
        "Squeeze 'k': an empty list of axes, by which runtimes mean all or none"),
    "what repeats, in another shape": (
        sized("Reshape", ["z", "n1"]), Unsupported, "Reshape 'k': of a constant"),
    "a slice of two starts and an end": (
        constant("Slice", ["c", "two", "n1"], NS | {"c": floats(1), "two": ints(0, 0)}), Malformed,
        "Slice 'k': starts and ends"),
    "a part of what repeats": (
        sized("Slice", ["z", "n0", "n1"]), Unsupported, "Slice 'k': .*along the batch or time"),
    "an element of what repeats": (
        sized("Gather", ["z", "n0"]), Unsupported, "Gather 'k': picks along the batch"),
    "joined, of other numbers of axes": (
        constant("Concat", ["c", "d"], {"c": floats(1), "d": array(1, 1)}, axis=0), Malformed,
        r"Concat 'k': joins the shapes \(1,\), \(1, 1\).*proj_size"),
    "joined along what repeats": (
        sized("Concat", ["z", "z"], axis=0), Unsupported, "Concat 'k': of constants whose sizes"),
    "a split in more parts than there are outputs": (
        small([node("Split", ["c"], ["k", "l"], num_outputs=3), node("Add", ["x", "k"], ["y"])],
             {"c": array(4)}), Malformed, "Split 'k': an axis of 4 in 3 parts for 2"),
    "a split in parts that do not add up": (
        small([node("Split", ["c", "p"], ["k", "l"]), node("Add", ["x", "k"], ["y"])],
             {"c": array(4), "p": ints(2, 3)}), Malformed, r"an axis of 4 in parts of \[2, 3\]"),
    "a split of what repeats": (
        sized("Split", ["z"], num_outputs=1), Unsupported, "Split 'k': .*along the batch or time"),
    "two numbers expanded to a size": (
        constant("Expand", ["c", "t"], NS | {"c": floats(1, 2)}, before=T), Unsupported,
        "Expand 'k': to a size known only"),
    "a size expanded to a number": (
        sized("Expand", ["z", "n2"]), Unsupported, "Expand 'k': a fixed size for one known when"),
    "two numbers expanded to three": (
        constant("Expand", ["c", "n"], {"c": floats(1, 2), "n": ints(3)}), Malformed,
        "Expand 'k': an axis of 2 expanded to 3"),
    "two numbers expanded to -1": (
        constant("Expand", ["c", "n"], {"c": floats(1, 2), "n": ints(-1)}), Malformed,
        "Expand 'k': an axis of 2 expanded to -1"),
    "a constant of size -1": (
        constant("ConstantOfShape", ["n"], {"n": ints(-1)}), Malformed, "'k': a negative size"),
    "repeats of other axes": (
        constant("Tile", ["c", "n"], {"c": floats(1, 2), "n": ints(1, 1)}), Malformed,
        r"Tile 'k': repeats of \[1, 1\]"),
    "a range up to a size": (
        constant("Range", ["a", "u", "d"], NS | {"a": np.array(0), "d": np.array(1)},
                 before=[*T, node("Squeeze", ["t"], ["u"])]), Unsupported,
        "Range 'k': up to a size"),
    "a constant rounded to bfloat16": (
        constant("Cast", ["c"], {"c": floats(1)}, to=TensorProto.BFLOAT16), Unsupported,
        "Cast 'k': rounds a constant to bfloat16"),
    "a cast to a type of eight bits": (
        constant("Cast", ["c"], {"c": floats(1)}, to=TensorProto.FLOAT8E5M2), Unsupported,
        "Cast 'k': elements of ONNX's type 19"),
    "a constant under dropout in training": (
        constant("Dropout", ["c", "r", "yes"],
                 {"c": floats(1), "r": np.float32(0.5), "yes": np.array(True)}), Unsupported,
        "Dropout 'k': dropout in training"),
    "a constant that is text": (
        constant("Constant", [], value_string="a"), Unsupported,
        "Constant 'k': a constant of value_string"),
    "numbers that nothing makes": (
        constant("RandomNormal", [], shape=[2]), Unsupported, "RandomNormal 'k': an operator that"),
}  # fmt: skip


# ---- operators on values ------------------------------------------------------------------------


def on_x(
    op: str, more=(), tensors=None, inputs=SMALL, opset=18, first=("x",), outputs=("y",), **attrs
):
    nodes = [node(op, [*first, *more], list(outputs), name="n", **attrs)]
    return small(nodes, tensors, inputs, opset=opset)


IDS = {"x": (INT64, ["t", "b"])}
HALF = {"w": np.float32(0.5**0.5), "one": np.float32(1), "h": np.float32(0.5)}
ERF = [node("Mul", ["x", "w"], ["a"]), node("Erf", ["a"], ["e"]), node("Add", ["e", "one"], ["f"])]
RNN_WEIGHTS = {"W": array(1, 2, 2), "R": array(1, 2, 2)}
LAST = [
    *T, node("RNN", ["x", "W", "R"], ["Y"], hidden_size=2), node("Squeeze", ["Y", "n1"], ["r"]),
    node("Slice", ["r", "m1", "e", "n0"], ["l"]),
    node("Concat", ["t", "n1", "n2"], ["zs"], axis=0),
]  # fmt: skip


def over_time(*nodes: Any, z: float = 0) -> onnx.ModelProto:
    """Of the last step l and of z, a number that repeats along time."""
    value = helper.make_tensor("v", FLOAT, [1], [z])
    nodes = (*LAST, node("ConstantOfShape", ["zs"], ["z"], value=value), *nodes)
    return small(nodes, NS | RNN_WEIGHTS | HALF | {"m1": ints(-1)})


def norm(eps: float, other: str = "d") -> onnx.ModelProto:
    """A layer norm from its parts; other: what it divides."""
    mean = {"axes": [-1]}
    nodes = [
        node("ReduceMean", ["x"], ["m"], **mean), node("Sub", ["x", "m"], ["d"]),
        node("Mul", ["d", "d"], ["q"]), node("ReduceMean", ["q"], ["v"], **mean),
        node("Add", ["v", "eps"], ["w"]), node("Sqrt", ["w"], ["r"]), node("Neg", ["x"], ["x2"]),
        node("ReduceMean", ["x2"], ["m2"], **mean), node("Sub", ["x2", "m2"], ["d2"]),
        node("Div", [other, "r"], ["y"]),
    ]  # fmt: skip
    return small(nodes, {"eps": np.float32(eps)}, opset=13)


def branch(nodes, output: str) -> Any:
    return helper.make_graph(nodes, "g", [], [helper.make_empty_tensor_value_info(output)])


def function(nodes, name: str = "F", attributes=()) -> dict[str, Any]:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    made_ = helper.make_function("f", name, ["a"], ["r"], nodes, opsets, list(attributes))
    return {"functions": [made_], "domains": ["f"]}


def nested(depth: int) -> Any:
    graph = branch([node("Neg", ["x"], ["n"])], "n")
    for _ in range(depth):
        graph = branch(
            [node("If", ["c"], ["n"], then_branch=graph, else_branch=branch([], "x"))], "n"
        )
    return graph


OF_GRAPH = node("If", ["a"], ["r"])
for _word in ("then_branch", "else_branch"):
    OF_GRAPH.attribute.add(name=_word, ref_attr_name="g", type=onnx.AttributeProto.GRAPH)
NEG = branch([node("Neg", ["x"], ["n"])], "n")
CALL = node("F", ["x"], ["y"], domain="f")

OPERATORS = {
    "a weight that is not there": (on_x("PRelu", [""]), Malformed, "PRelu 'n': slope is missing"),
    "a minimum of two numbers": (
        on_x("Clip", ["c"], {"c": floats(1, 2)}), Malformed, "Clip 'n': min is not one number"),
    "dropout in training": (
        on_x("Dropout", ["r", "yes"], {"r": np.float32(0.5), "yes": np.array(True)}), Unsupported,
        "Dropout 'n': dropout in training; export in evaluation"),
    "numbers made whole": (
        small([node("Cast", ["x"], ["i"], to=INT32), node("Cast", ["i"], ["y"], to=FLOAT)]),
        Unsupported, "Cast 'i': turns numbers into others"),
    "a copy of a size that is not there": (
        on_x("Reshape", ["n"], {"n": ints(0, 0, 0, 0)}), Malformed, "Reshape 'n': copies a size"),
    "a slice of axes that do not fit": (
        on_x("Slice", ["n0", "e", "two"], NS | {"two": ints(0, 1)}), Malformed,
        "Slice 'n': axes or steps do not fit"),
    "a step of 0": (
        on_x("Slice", ["n0", "e", "n0", "n0"], NS), Malformed, "Slice 'n': a step of 0"),
    "time in two parts": (
        on_x("Split", outputs=("y", "z"), num_outputs=2), Unsupported,
        "Split 'n': splits axis 0 of the input, whose size"),
    "a table of one axis": (
        on_x("Gather", ["x"], {"c": floats(1, 2)}, IDS, first=["c"]), Unsupported,
        "Gather 'n': looks up in a table of 1 axes"),
    "a quotient of values": (on_x("Div", ["x"]), Unsupported, "Div 'n': divides one value by"),
    "no axes of a value taken away, or all": (
        on_x("Squeeze", ["none"], {"none": ints()}, {"x": (FLOAT, [1, "b", 2])}), Unsupported,
        "Squeeze 'n': an empty list of axes"),
    "a constant by a value": (
        on_x("Div", ["x"], {"c": floats(1)}, first=["c"]), Unsupported, "Div 'n': divides a const"),
    "a product of values": (on_x("MatMul", ["x"]), Unsupported, "MatMul 'n': a product of two"),
    "a transposed product": (
        on_x("Gemm", ["v"], {"v": array(3, 2)}, {"x": (FLOAT, [3, 2])}, transA=1), Unsupported,
        "Gemm 'n': a transposed product"),
    "a weight of three axes": (
        on_x("Gemm", ["v"], {"v": array(1, 2, 2)}, FLAT), Malformed, "Gemm 'n': a weight of 3"),
    "a bias for each row": (
        on_x("Gemm", ["v", "c"], {"v": array(2, 2), "c": array(3, 1)}, FLAT), Unsupported,
        r"Gemm 'n': a bias of shape \(3, 1\)"),
    "a slope that is no number": (
        on_x("Elu", alpha=float("nan")), Malformed,
        "Elu 'n': contradicts itself: ValueError: alpha=nan: expected a number"),
    "swish of another slope": (
        on_x("Swish", opset=24, alpha=2.0), Unsupported, "Swish 'n': an alpha of 2"),
    "softmax over two axes": (
        on_x("Softmax", opset=11), Unsupported, "Softmax 'n': a softmax over several axes"),
    "a norm over two axes": (
        on_x("LayerNormalization", ["c"], {"c": array(3, 2)}, axis=1), Unsupported,
        "LayerNormalization 'n': a layer norm over more"),
    "a norm's scale in a column": (
        on_x("LayerNormalization", ["c"], {"c": array(2, 1)}), Unsupported,
        r"LayerNormalization 'n': a tensor of shape \(2, 1\) for 2 features"),
    "a norm of an endless epsilon": (
        on_x("LayerNormalization", ["c"], {"c": floats(1, 2)}, epsilon=float("inf")), Malformed,
        "LayerNormalization 'n': epsilon=inf"),
    "batch norm in training": (
        on_x("BatchNormalization", ["c", "c", "c", "c"], {"c": floats(1, 2)}, FLAT,
             outputs=("y", "m", "v"), training_mode=1), Unsupported, "batch norm in training"),
    "the last step repeated over time": (
        over_time(node("Add", ["l", "z"], ["y"])), Unsupported, "Add 'y': repeats a value along"),
    "the same by slopes": (
        over_time(node("PRelu", ["l", "z"], ["y"])), Unsupported, "PRelu 'y': of a constant whose"),
    "the same inside of a gelu": (
        over_time(node("Mul", ["l", "w"], ["a"]), node("Erf", ["a"], ["i"]),
                  node("Add", ["i", "z"], ["f"]), node("Mul", ["f", "l"], ["g"]),
                  node("Mul", ["g", "h"], ["y"]), z=1), Unsupported, "erf of its input is not"),
    "a norm from parts, of a negative epsilon": (
        norm(-1), Unsupported, "a variance of its input is not part"),
    "a norm from the parts of two": (
        norm(1e-5, "d2"), Unsupported, "a deviation of its input is not part"),
    "erf of another scale": (
        small(ERF, HALF | {"w": np.float32(0.5)}, outputs="f"), Unsupported, "Erf 'e': an op"),
    "erf times another value": (
        small([*ERF, node("Neg", ["x"], ["z"]), node("Mul", ["z", "f"], ["y"])], HALF), Unsupported,
        "Mul 'y': a product of its input is not part"),
    "an output beside the value": (
        small([node("Dropout", ["x"], ["z", "y"])]), Unsupported,
        "Dropout 'z': an output that clstm does not compute"),
    "an attribute that another operator set has": (
        on_x("ReduceMean", axes=[-1]), Malformed,
        "ReduceMean 'n': operator set 18 has no attribute 'axes' of this type"),
    "a branch that depends on an input": (
        small([node("If", ["c"], ["y"], then_branch=NEG, else_branch=NEG)],
             inputs=SMALL | {"c": (TensorProto.BOOL, [])}), Unsupported, "input 'c'"),
    "a branch that depends on a computed value": (
        small([node("IsNaN", ["x"], ["c"]), node("If", ["x"], ["y"], then_branch=NEG,
                                                 else_branch=NEG)]), Unsupported,
        "If 'y': a branch that depends on an input"),
    "a branch whose output has no name": (
        small([node("If", ["c"], ["y"], then_branch=branch([node("Neg", ["x"], ["n"])], ""),
                   else_branch=NEG)], {"c": np.array(True)}, SMALL), Malformed,
        "an output without a name"),
    "branches in branches": (
        small([node("If", ["c"], ["y"], then_branch=nested(16), else_branch=NEG)],
             {"c": np.array(True)}), Unsupported, "graphs in graphs, more than 16 deep"),
    "a branch in a function": (
        small([CALL], **function([node("If", ["a"], ["r"], then_branch=NEG, else_branch=NEG)])),
        Unsupported, "If 'r': inside a function"),
    "a function's attribute for a branch": (
        small([node("F", ["c"], ["y"], domain="f", g=NEG)], {"c": np.array(True)},
             **function([OF_GRAPH], attributes=["g"])), Unsupported, "If 'r': inside a function"),
    "a function called with too much": (
        small([node("F", ["x", "x"], ["y"], domain="f")], **function([node("Neg", ["a"], ["r"])])),
        Malformed, "function 'F': called with more"),
    "a function that reads what it does not make": (
        small([CALL], **function([node("Add", ["a", "q"], ["r"])])), Malformed,
        r"Add 'r': reads 'F.1/q', which no node"),
    "an old operator set": (on_x("Neg", opset=6), Unsupported, "operator set 6; from 7 on"),
}  # fmt: skip


# ---- recurrent operators, cells and roles -------------------------------------------------------

STATE = (FLOAT, [1, "b", 2])
WEIGHTS = ("x", "W", "R")


def rnn(extra=(), tensors=None, inputs=None, words=WEIGHTS, before=(), after=(), outputs="Y",
        **attrs: Any) -> onnx.ModelProto:  # fmt: skip
    nodes = [*before, node("RNN", [*words, *extra], ["Y", "Yh"], name="n", hidden_size=2, **attrs)]
    return small([*nodes, *after], RNN_WEIGHTS | (tensors or {}), SMALL | (inputs or {}), outputs)


def tensor(**fields: Any) -> onnx.ModelProto:
    """x plus a tensor of one number that is stored in this way."""
    model = small([node("Add", ["x", "c"], ["y"])])
    model.graph.initializer.add(name="c", dims=[1], **fields)
    return model


H = {"h": STATE}
RECURRENT = {
    "text that is not UTF-8": (
        rnn(direction=b"\xff"), Malformed, "RNN 'n', direction: text that is not UTF-8"),
    "no weight": (rnn(words=["x", "", "R"]), Malformed, "RNN 'n': W or R is missing"),
    "a weight that is computed": (
        rnn(words=["x", "x", "R"]), Unsupported, "RNN 'n': its W is not constant"),
    "an initial state of two axes": (
        rnn(["", "", "c"], {"c": array(1, 2)}), Malformed,
        r"initial_h of shape \(1, 2\), expected \(1, batch, 2\)"),
    "an initial state of another number of layers": (
        rnn(["", "", "c"], {"c": array(2, 1, 2)}), Malformed,
        r"initial_h of shape \(2, 1, 2\), expected \(1, batch, 2\)"),
    "an initial state of another width": (
        rnn(["", "", "c"], {"c": array(1, 1, 3)}), Malformed,
        r"initial_h of shape \(1, 1, 3\), expected \(1, batch, 2\); if it is an LSTM with proj"),
    "an initial state that is computed": (
        rnn(["", "", "g"], {"U": array(2, 2)}, H, before=[node("MatMul", ["h", "U"], ["g"])]),
        Unsupported, "RNN 'n': its initial_h is computed from an input"),
    "an initial state that is another value": (
        rnn(["", "", "g"], before=[node("Neg", ["x"], ["g"])]), Unsupported,
        "RNN 'n': its initial_h is computed, not an input"),
    "the lengths as a state": (
        rnn(["", "l", "l"], inputs={"l": (INT32, ["b"])}), Unsupported,
        "input 'l': is computed with, and it may hold the lengths"),
    "an initial state whose layers come last": (
        rnn(["", "", "g"], inputs={"h": (FLOAT, [2, "b", 2])},
            before=[node("Transpose", ["h"], ["g"], perm=[2, 1, 0])]), Unsupported,
        r"RNN 'n': an initial_h of the axes \(features"),
    "a state input of another width": (
        rnn(["", "", "h"], inputs={"h": (FLOAT, [1, "b", 3])}), Malformed,
        "initial_h of 3 features, expected 2"),
    "its own Y in another order": (
        rnn(after=[node("Transpose", ["Y"], ["y"], perm=[2, 3, 1, 0])], outputs="y"), Unsupported,
        "output 'y'"),
    "an operator over a constant": (
        rnn(words=["c", "W", "R"], tensors={"c": array(2, 1, 2)},
            after=[node("Add", ["x", "Y"], ["y"])], outputs="y"), Unsupported,
        "RNN 'n': its input is constant"),
    "lengths that are computed with": (
        rnn(["", "m"], inputs={"l": (INT32, ["b"])}, before=[node("Abs", ["l"], ["m"])]),
        Unsupported, "input 'l'"),
    "lengths that are made shorter on their way": (
        rnn(["", "m"], {"n0": ints(0), "n1": ints(1)}, {"l": (INT32, ["b"])},
            before=[node("Slice", ["l", "n0", "n1"], ["m"])]), Unsupported,
        "Slice 'm': computes with the lengths"),
    "lengths as an output": (
        rnn(["", "m"], inputs={"l": (INT32, ["b"])}, before=[node("Identity", ["l"], ["m"])],
            outputs="Y m"), Unsupported, "output 'm': is the lengths of the sequences"),
    "a constant as an output": (rnn(outputs="Y W"), Unsupported, "output 'W': is constant"),
    "a state that comes out as it went in": (
        rnn(["", "", "h"], inputs=H, after=[node("Identity", ["h"], ["z"])], outputs="Y z"),
        Unsupported, "output 'z': is the state input 'h' as it came in"),
    "a mean of a state": (
        rnn(["", "", "h"], {"m1": ints(-1)}, H, after=[node("ReduceMean", ["h", "m1"], ["z"])],
            outputs="Y z"), Unsupported, "ReduceMean 'z': computes with the state input 'h'"),
    "two inputs of one name": (
        small([node("Neg", ["x"], ["y"])], inputs=SMALL), Malformed, "two inputs of one name"),
    "a tensor in segments": (
        tensor(data_type=FLOAT, segment=TensorProto.Segment(begin=0)), Unsupported,
        "tensor 'c': stored in segments"),
    "a number of 64 bits in 32": (
        tensor(data_type=TensorProto.UINT32, uint64_data=[2**63]), Malformed,
        "tensor 'c': values outside of uint32"),
}  # fmt: skip
_twice = RECURRENT["two inputs of one name"][0].graph
_twice.input.append(_twice.input[0])

ROW = {"x": (FLOAT, ["b", 2]), "h": (FLOAT, ["b", 2])}
TWO_ROWS = {"x": (FLOAT, [2, 2]), "h": (FLOAT, [2, 2])}


def step(nodes, tensors=None, inputs=ROW, outputs="hn", opset=18) -> onnx.ModelProto:
    tensors = {"U": array(2, 2), "V": array(2, 2), "one": np.float32(1)} | (tensors or {})
    return small(nodes, tensors, inputs, outputs, opset=opset)


SUM = [node("MatMul", ["h", "U"], ["p"]), node("MatMul", ["x", "V"], ["q"]),
       node("Add", ["p", "q"], ["z"])]  # fmt: skip
TANH = node("Tanh", ["z"], ["hn"])


def gru(**changed: Any) -> onnx.ModelProto:
    """A step of a GRU whose nodes of these outputs are others."""
    u, v = array(2, 2), array(2, 2)
    nodes = {n.output[0]: n for n in [
        node("Gemm", ["x", "V"], ["p"]), node("Gemm", ["h", "U"], ["q"]),
        node("Add", ["p", "q"], ["a"]), node("Sigmoid", ["a"], ["r"]),
        node("Sigmoid", ["a"], ["z"]), node("Mul", ["r", "q"], ["rq"]),
        node("Add", ["p", "rq"], ["an"]), node("Tanh", ["an"], ["n"]),
        node("Sub", ["one", "z"], ["y"]), node("Mul", ["y", "n"], ["yn"]),
        node("Mul", ["z", "h"], ["zh"]), node("Add", ["yn", "zh"], ["hn"])]}  # fmt: skip
    return step((nodes | changed).values(), {"U": u, "V": v}, ROW | {"g": ROW["h"]})


def lstm_of_two_h() -> onnx.ModelProto:
    """A step of an LSTM whose gates are all alike, and its last product once more."""
    nodes = [
        *SUM, node("Sigmoid", ["z"], ["s"]), node("Tanh", ["z"], ["g"]),
        node("Mul", ["s", "c"], ["fc"]), node("Mul", ["s", "g"], ["ig"]),
        node("Add", ["fc", "ig"], ["cn"]), node("Tanh", ["cn"], ["tc"]),
        node("Mul", ["s", "tc"], ["hn"]), node("Mul", ["tc", "s"], ["h2"]),
    ]  # fmt: skip
    return step(nodes, inputs=ROW | {"c": ROW["h"]}, outputs="hn h2 cn")


CELLS = {
    "a state times the input": (
        step([node("Mul", ["h", "x"], ["m"]), node("Relu", ["m"], ["hn"])]), Unsupported,
        "Mul 'm': a product of the state input 'h' is not part"),
    "a product with a transposed state": (
        step([node("Gemm", ["h", "U"], ["p"], transA=1), SUM[1], *SUM[2:], TANH]), Unsupported,
        "Gemm 'p': a transposed product"),
    "a bias that is computed": (
        step([SUM[1], node("Gemm", ["h", "U", "q"], ["z"]), TANH]), Unsupported,
        "Gemm 'z': its bias is not constant"),
    "a bias for each row of a state": (
        step([node("Gemm", ["h", "U", "c"], ["p"]), *SUM[1:], TANH], {"c": array(2, 1)},
             TWO_ROWS), Unsupported, r"Gemm 'p': a bias of shape \(2, 1\)"),
    "a bias for each row of a sum": (
        step([*SUM, node("Add", ["z", "c"], ["w"]), node("Tanh", ["w"], ["hn"])],
             {"c": array(2, 1)}, TWO_ROWS), Unsupported, "a product of the state"),
    "a bias of more axes": (
        step([*SUM, node("Add", ["z", "c"], ["w"]), node("Tanh", ["w"], ["hn"])],
             {"c": array(1, 1, 2)}), Unsupported, "a product of the state"),
    "gates that are scaled": (
        step([*SUM[:2], node("Mul", ["q", "c"], ["w"]), node("Add", ["p", "w"], ["z"]), TANH],
             {"c": floats(2, 3)}), Unsupported, "a product of the state"),
    "gates cut in a way that is none": (
        step([*SUM, node("Slice", ["z", "k", "e"], ["w"]), node("Tanh", ["w"], ["hn"])],
             {"k": ints(0), "e": ints(1)}), Unsupported, "a product of the state"),
    "a step made whole": (step([*SUM, TANH, node("Cast", ["hn"], ["i"], to=INT32),
              node("Cast", ["i"], ["y"], to=FLOAT)], outputs="y"), Unsupported,
        "Cast 'i': turns numbers into others"),
    "a step minus another": (
        step([*SUM, TANH, node("Sub", ["h", "x"], ["y"])], outputs="y"), Unsupported,
        "Sub 'y': computes with the state input 'h'"),
    "an LSTM whose h is made twice": (
        lstm_of_two_h(), Unsupported, "a tanh of the state input 'h' is not part"),
    "a state of another width": (
        step([*SUM, TANH], {"U": array(3, 2)}, ROW | {"h": (FLOAT, ["b", 3])}), Unsupported,
        "gates that do not read one input and one state"),
    "steps side by side": (
        step([*SUM, TANH], inputs={"x": (FLOAT, ["t", "b", 2]), "h": ROW["h"]}), Unsupported,
        "a cell over several time steps at once"),
    "a batch of a step and a layer": (
        step([*SUM, TANH, node("MatMul", ["hn", "V"], ["y"])], outputs="y hn"), Unsupported,
        "a single step of a batch through a cell"),
    "a mean of a cell's state": (
        step([node("ReduceMean", ["h"], ["m"], axes=[-1]), node("Add", ["x", "m"], ["hn"])],
             opset=13), Unsupported, "computes with the state input 'h'"),
}  # fmt: skip

GRUS = {
    "a GRU of another complement": gru(y=node("Sub", ["one", "r"], ["y"])),
    "a GRU whose n is none": gru(n=node("Sigmoid", ["an"], ["n"])),
    "a GRU that resets x": gru(rq=node("Mul", ["r", "p"], ["rq"])),
    "a GRU that sums what is none": gru(hn=node("Add", ["yn", "yn"], ["hn"])),
    "a GRU that keeps another state": gru(zh=node("Mul", ["z", "g"], ["zh"])),
    "a GRU whose difference is another": gru(
        yn=node("Sub", ["h", "n"], ["yn"]), zh=node("Mul", ["yn", "z"], ["zh"]),
        y=node("Tanh", ["q"], ["y"]), hn=node("Add", ["zh", "y"], ["hn"])),
}  # fmt: skip
CELLS |= {what: (model, Unsupported, "is not part of a cell") for what, model in GRUS.items()}

REFUSED = CONSTANTS | OPERATORS | RECURRENT | CELLS


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_the_reason(what: str) -> None:
    model, error, words = REFUSED[what]
    with pytest.raises(error, match=words) as caught:
        clstm.load(model.SerializeToString())
    assert str(caught.value).startswith("<bytes>: ") and type(caught.value) is error
