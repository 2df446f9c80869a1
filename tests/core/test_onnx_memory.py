# SPDX-License-Identifier: MIT
"""Small ONNX files that claim much, or make much of little: whatever a node would make is counted
against max_bytes before it is made, and what it works through, too, so that the limit bounds the
time. Beside what is counted a load takes next to nothing.
"""

from __future__ import annotations

import contextlib
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clstm
from clstm.formats.budget import Budget
from clstm.formats.onnx.const import Const
from clstm.formats.onnx.constants import Folder
from onnx_files import (
    FLOAT,
    INT64,
    SMALL,
    H,
    array,
    file,
    floats,
    ints,
    made,
    node,
    read,
    small,
)

BOOL, DOUBLE, INT8, INT32 = (
    TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT32,
)  # fmt: skip
MANY = 2**18  # elements of what a node makes
STEP = MANY  # of max_bytes
SLACK = 2**17  # half of the smallest result; Python's own objects for a graph of a few nodes

NUMBERS = {
    "n": ints(MANY), "half": ints(MANY // 2), "row": ints(1, MANY), "column": ints(MANY, 1),
    "square": ints(512, 512), "high": ints(512, 1), "wide": ints(1, 512), "n0": ints(0),
    "n1": ints(1), "none": ints(256, 0), "of none": ints(0, 1024), "s0": np.array(0),
    "sn": np.array(MANY), "s1": np.array(1), "b0": np.int8(0), "b99": np.int8(99),
    "fraction": np.float64(99 / MANY), "f0": floats(0), "fn": floats(MANY), "f1": floats(1),
}  # fmt: skip


def fill(name: str, sizes: str, kind: int = FLOAT, value: int = 1) -> Any:
    """A constant that takes no memory: one number, repeated."""
    return node(
        "ConstantOfShape", [sizes], [name], value=helper.make_tensor("v", kind, [1], [value])
    )


def one(op: str, kind: int = FLOAT, sizes: str = "n", more=(), **attrs: Any) -> list[Any]:
    return [fill("a", sizes, kind), node(op, ["a", *more], ["k"], **attrs)]


def two(op: str, kind: int = FLOAT, other: int | None = None) -> list[Any]:
    """Of a column and a row: the result has what neither has."""
    return [fill("a", "high", kind), fill("b", "wide", other or kind), node(op, ["a", "b"], ["k"])]


END = [node("ReduceMax", ["k"], ["m"], keepdims=0), node("Cast", ["m"], ["f"], to=FLOAT),
       node("Add", ["x", "f"], ["y"])]  # fmt: skip
MAKING = {
    "a cast": one("Cast", to=DOUBLE),
    "a cast to less": one("Cast", DOUBLE, to=INT8),
    "a reshape of what repeats": one("Reshape", more=["square"]),
    "a flatten of what repeats": one("Flatten", sizes="square", axis=0),
    "a gather": [fill("a", "n1"), fill("i", "n", INT64, 0), node("Gather", ["a", "i"], ["k"])],
    "a concatenation": [fill("a", "half"), node("Concat", ["a", "a"], ["k"], axis=0)],
    "an expansion": [fill("a", "n1"), node("Expand", ["a", "n"], ["k"])],
    "what is filled": [fill("k", "n")],
    "a tile": [fill("a", "n1"), node("Tile", ["a", "n"], ["k"])],
    "a range": [node("Range", ["s0", "sn", "s1"], ["k"])],
    "a range of float32": [node("Range", ["f0", "fn", "f1"], ["k"])],
    "a range of int8": [node("Range", ["b0", "b99", "fraction"], ["k"])],
    "a choice": [fill("c", "high", BOOL), fill("a", "wide"), node("Where", ["c", "a", "a"], ["k"])],
    "a product": two("MatMul"),
    "a product of vectors": [fill("a", "row"), fill("b", "column"),
                             node("MatMul", ["a", "b"], ["k"])],
    "a product of nothing": [fill("a", "none"), fill("b", "of none"),
                             node("MatMul", ["a", "b"], ["k"])],
    **{op: one(op) for op in ("Neg", "Sqrt", "Reciprocal")},
    "a root of int8": one("Sqrt", INT8),
    "Not": one("Not", BOOL),
    **{op: two(op) for op in ("Add", "Div", "Pow", "Less")},
    **{f"a quotient of type {t}": two("Div", t) for t in (INT8, INT32, INT64)},
    "a power of a wider type": two("Pow", INT8, DOUBLE),
    "a sum of two types": two("Add", INT64, FLOAT),
    **{op: one(op, sizes="row", more=["n0"]) for op in ("ReduceProd", "ReduceSum", "ReduceMin")},
    "a sum of int8": one("ReduceSum", INT8, "row", ["n0"]),
}  # fmt: skip


def peak(data: bytes, max_bytes: int, **options: Any) -> tuple[int, str]:
    """Bytes that reading takes, and the error."""
    tracemalloc.start()
    try:
        read(data, max_bytes=max_bytes, **options)
        return tracemalloc.get_traced_memory()[1], ""
    except (clstm.ModelFormatError, clstm.UnsupportedError) as error:
        return tracemalloc.get_traced_memory()[1], str(error)
    finally:
        tracemalloc.stop()


def used(nodes: list[Any], tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: a for name, a in tensors.items() if any(name in n.input for n in nodes)}


@pytest.mark.parametrize("what", MAKING)
def test_constants_are_counted_before_they_are_made(what: str) -> None:
    """Whatever the limit, the memory is within it, and the node is refused by name where it is
    the one that goes beyond."""
    nodes = [*MAKING[what], *END]
    data = small(nodes, used(nodes, NUMBERS)).SerializeToString()
    peak(data, 2**30)  # what is imported at first use
    refused = []
    for limit in range(STEP, 40 * STEP, STEP):
        taken, error = peak(data, limit)
        assert taken <= limit + SLACK
        if not error:
            break
        refused.append(error)
    op = MAKING[what][-1].op_type
    assert not error and any(f"{op} 'k' takes" in e for e in refused)


# ---- layers, and tensors that the file does not hold ------------------------------------------


def chain(n: int, *layer: Any, of: int = 512, tensors: dict[str, Any]) -> onnx.ModelProto:
    """x, of five steps, through n times the same nodes, which share their tensors."""
    nodes = []
    for i in range(n):
        names = {"x": f"y{i}", "y": f"y{i + 1}", "q": f"q{i}"}
        for model in layer:
            copy = onnx.NodeProto.FromString(model.SerializeToString())
            copy.input[:] = [names.get(name, name) for name in model.input]
            copy.output[:] = [names.get(name, name) for name in model.output]
            nodes.append(copy)
    return made(nodes, {"y0": (FLOAT, [5, "b", of])}, [f"y{n}"], tensors)


def claimed(*nodes: Any, of: int = MANY, **tensors: Any) -> onnx.ModelProto:
    """Of an input that the file declares to be that wide."""
    return made(nodes, {"x": (FLOAT, ["t", "b", of])}, ["y"], tensors)


def of_pairs(op: str) -> onnx.ModelProto:
    """Features as pairs, and a constant of two numbers for all of them."""
    return claimed(
        node("Reshape", ["x", "s"], ["r"]), node(op, ["r", "c"], ["q"]),
        node("Reshape", ["q", "b"], ["y"]), s=ints(0, 0, MANY // 2, 2), b=ints(0, 0, MANY),
        c=floats(1, 2),
    )  # fmt: skip


SQUARE = {"W": array(512, 512)}
GATES = {"W": array(1, 2048, 512), "R": array(1, 2048, 512), "one": ints(1)}
LAYER = [
    node("LSTM", ["x", "W", "R"], ["q"], hidden_size=512),
    node("Squeeze", ["q", "one"], ["y"]),
]
STARTS = node("LSTM", ["x", "A", "A", "", "", "h", "h"], ["q"], hidden_size=H)
ENDS = node("LSTM", ["x", "A", "A", "", "l"], ["q"], hidden_size=H)
SAME = {"A": array(1, 4 * H, H), "one": ints(1)}
CELL = [node("MatMul", ["h", "U"], ["a0"]),
        *[node("Add", [f"a{i}", "one"], [f"a{i + 1}"]) for i in range(8)]]  # fmt: skip

# The model, the limit and the sentence.
LAYERS = {
    "a weight that many products share": (
        chain(9, node("MatMul", ["x", "W"], ["y"]), tensors=SQUARE), 2**22,
        r"MatMul 'y5': weight of \(512, 512\) takes"),
    "a product that is scaled": (
        chain(9, node("Gemm", ["x", "W"], ["y"], alpha=2.0), tensors=SQUARE), 2**22,
        "Gemm 'y5' takes"),
    "weights that many operators share": (
        chain(9, *LAYER, tensors=GATES), 40 * 2**20, "LSTM 'q5' takes"),
    "sums in many groups": (
        claimed(node("Reshape", ["x", "s"], ["r"]),
                node("ReduceSum", ["r", "last"], ["y"], keepdims=0), of=1024,
                s=ints(0, 0, 512, 2), last=ints(-1)), 2**20, "512 sums of 1024 features takes"),
    "one feature beside many": (
        claimed(node("Slice", ["x", "n0", "n1", "last"], ["r"]), node("Add", ["x", "r"], ["y"]),
                n0=ints(0), n1=ints(1), last=ints(-1)), 2**18, "features takes"),
    "a scale for pairs": (of_pairs("Mul"), 2**18, "Mul 'q': 262144 features takes"),
    "a shift for pairs": (of_pairs("Add"), 2**18, "Add 'q': 262144 features takes"),
    "a slope for pairs": (of_pairs("PRelu"), 2**18, "PRelu 'q': 262144 features takes"),
    "a constant against a value": (
        small([fill("k", "n"), node("Add", ["x", "k"], ["y"])], {"n": ints(MANY)}), 2**20 + 2**10,
        "Add 'y' takes 2097152"),
    "initial states of a large batch": (
        chain(7, STARTS, LAYER[1], of=H,
              tensors=SAME | {"h": np.zeros((1, MANY, H), np.float32)}), 3 * 2**20 + 2**12,
        "LSTM 'q2' takes 786432"),
    "lengths of a large batch": (
        chain(9, ENDS, LAYER[1], of=H, tensors=SAME | {"l": np.full(MANY, 5, np.int32)}),
        2**20 + 2**12, "LSTM 'q4' takes 262144"),
    "biases of a cell, summed": (
        made([*CELL, node("Add", ["a8", "x"], ["y"])],
             {"x": (FLOAT, ["b", MANY]), "h": (FLOAT, ["b", 1])}, ["y"],
             {"U": array(1, MANY), "one": floats(1)}), 4 * 2**20 + 2**12, "Add 'a5' takes"),
}  # fmt: skip


@pytest.mark.parametrize("what", LAYERS)
def test_tensors_of_layers_are_counted_before_they_are_made(what: str) -> None:
    model, limit, words = LAYERS[what]
    data = model.SerializeToString()
    peak(data, 2**30)  # what is imported at first use
    taken, error = peak(data, limit)
    assert re.search(words, error) and taken <= limit + 2 * len(data) + SLACK, (taken, error)


# ---- numbers of the file ------------------------------------------------------------------------


FIELDS = [
    (FLOAT, "float_data", 4), (TensorProto.UINT8, "int32_data", 5), (BOOL, "int32_data", 5),
    (INT64, "int64_data", 8), (DOUBLE, "double_data", 8), (TensorProto.UINT32, "uint64_data", 12),
    (TensorProto.FLOAT16, "int32_data", 8), (TensorProto.BFLOAT16, "int32_data", 8),
]  # fmt: skip


@pytest.mark.parametrize("kind, field, each", FIELDS)
def test_numbers_in_fields_are_counted_before_they_are_made(
    kind: int, field: str, each: int
) -> None:
    """One byte of a file is a number of up to eight."""
    model = small(END)
    tensor = TensorProto(name="k", data_type=kind, dims=[MANY])
    getattr(tensor, field).extend([1] * MANY)
    model.graph.initializer.append(tensor)
    data = model.SerializeToString()
    limit = max(each * MANY, len(data)) - 1
    taken, error = peak(data, limit)
    assert re.search(f"tensor 'k' takes {each * MANY} bytes|m.onnx takes {len(data)}", error)
    assert taken < len(data) + SLACK
    taken, error = peak(data, 2**30)
    assert not error and taken <= each * MANY + 2 * len(data) + SLACK


@pytest.mark.parametrize("word", ["value_floats", "value_ints"])
def test_numbers_in_attributes_are_counted_before_they_are_made(word: str) -> None:
    """Each is an object of Python for a while."""
    data = small([node("Constant", [], ["k"], **{word: [1] * MANY}), *END]).SerializeToString()
    taken, error = peak(data, 32 * MANY - 1)
    assert f"Constant 'k', {word} takes {32 * MANY} bytes" in error
    assert taken < len(data) + SLACK


def test_data_in_another_file_is_counted_before_it_is_read(tmp_path: Path) -> None:
    model = small([node("Add", ["x", "k"], ["y"])])
    tensor = model.graph.initializer.add(
        name="k", data_type=FLOAT, dims=[MANY], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="k.bin")
    (tmp_path / "k.bin").write_bytes(bytes(4 * MANY))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    for _ in range(2):  # the first time some modules are imported
        tracemalloc.start()
        with pytest.raises(clstm.ModelFormatError, match=f"tensor 'k' takes {4 * MANY} bytes"):
            clstm.load(tmp_path / "m.onnx", external_data=True, max_bytes=4 * MANY - 1)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert taken < SLACK


def test_the_file_is_counted_itself() -> None:
    """It is held once more, whatever is in it."""
    model = small([node("Relu", ["x"], ["y"])])
    model.doc_string = "a" * MANY
    with pytest.raises(clstm.ModelFormatError, match=r"m\.onnx takes \d+ bytes"):
        read(model.SerializeToString(), max_bytes=MANY)


# ---- sizes known only when the model runs -----------------------------------------------------


def sized(*nodes: Any, **tensors: Any) -> bytes:
    """t0: the size of time; x is multiplied by 0 in the end."""
    nodes = (
        node("Shape", ["x"], ["s"]), node("Slice", ["s", "n0", "n1"], ["t0"]), *nodes,
        node("Slice", ["k", "n0", "n1"], ["one"]), node("Mul", ["one", "n0"], ["zero"]),
        node("Cast", ["zero"], ["f"], to=FLOAT), node("Mul", ["x", "f"], ["y"]),
    )  # fmt: skip
    return small(nodes, {"n0": ints(0), "n1": ints(1)} | tensors).SerializeToString()


def test_sizes_stay_small() -> None:
    """Squares of squares: 2 KB of them took all memory there was."""
    for first in (node("Identity", ["t0"], ["a0"]), node("Mul", ["t0", "large"], ["a0"])):
        squares = [node("Mul", [f"a{i}", f"a{i}"], [f"a{i + 1}" if i < 19 else "k"])
                   for i in range(20)]  # fmt: skip
        with pytest.raises(clstm.UnsupportedError, match=r"Mul 'a\d': makes a size that no"):
            read(sized(first, *squares, large=np.array([2**62])))
    read(sized(node("Mul", ["t0", "t0"], ["k"])))
    read(sized(node("Mul", ["t0", "large"], ["k"]), large=np.array([2**62])))


@pytest.mark.parametrize("op", ["Add", "Equal", "Where", "Expand", "Tile", "Gather"])
def test_sizes_are_few(op: str) -> None:
    """They are computed one by one: 400 bytes took hours."""
    inputs = {"Add": ["t0", "a"], "Equal": ["t0", "a"], "Where": ["c", "t0", "t0"],
              "Expand": ["t0", "n"], "Tile": ["t0", "n"], "Gather": ["t0", "a"]}[op]  # fmt: skip
    sources = {"a": fill("a", "n", INT64, 0), "c": fill("c", "n", BOOL)}
    for n, enough in ((64, True), (65, False)):
        data = sized(
            *[sources[i] for i in inputs if i in sources], node(op, inputs, ["k"]), n=ints(n)
        )
        if enough:
            read(data)
        else:
            with pytest.raises(clstm.UnsupportedError, match=f"{op} 'k': 65 sizes known only"):
                read(data)


# ---- many of one thing --------------------------------------------------------------------------


def many_inputs(n: int) -> bytes:
    """All moved together, one move after the other."""
    names = [f"h{i}" for i in range(n)]
    moves = [node("Identity", [f"y{i}"], [f"y{i + 1}"]) for i in range(n)]
    nodes = [node("Concat", ["x", *names], ["y0"], axis=-1), *moves]
    return file(nodes, {name: SMALL["x"] for name in ["x", *names]}, [f"y{n}"])


def many_layers(n: int) -> bytes:
    """Of one number, which become one of many layers."""
    layer = [node("RNN", ["x", "A", "A"], ["q"], hidden_size=1), LAYER[1]]
    tensors = {"A": array(1, 1, 1), "one": ints(1)}
    return chain(n, *layer, of=1, tensors=tensors).SerializeToString()


def many_names(n: int) -> bytes:
    """A product and its sums, each of which is a layer."""
    sums = [node("Add", [f"y{i}", "b"], [f"y{i + 1}"]) for i in range(n)]
    nodes = [node("MatMul", ["x", "w"], ["y0"]), *sums]
    return file(nodes, SMALL, [f"y{n}"], {"w": array(2, 2), "b": array(2)})


def many_branches(n: int) -> bytes:
    inner = helper.make_graph([], "g", [], [helper.make_tensor_value_info("x", FLOAT, None)])
    some = node("If", ["c"], ["k"], then_branch=inner, else_branch=inner)
    nodes = [onnx.NodeProto.FromString(some.SerializeToString()) for _ in range(n)]
    for i, one in enumerate(nodes):
        one.output[:] = [f"k{i}"]
    return file([*nodes, node("Relu", ["x"], ["y"])], SMALL, ["y"], {"c": np.bool_(True)})


def seconds(data: bytes) -> float:
    """The least of two times that reading takes of the CPU."""
    found = []
    for _ in range(2):
        begin = time.process_time()
        with contextlib.suppress(clstm.UnsupportedError):
            read(data)
        found.append(time.process_time() - begin)
    return min(found)


def many_states(n: int) -> bytes:
    layer = [node("RNN", ["x", "A", "A", "", "", "h"], ["q", "hn"], hidden_size=1), LAYER[1]]
    model = chain(n, *layer, of=1, tensors={"A": array(1, 1, 1), "one": ints(1)})
    for i, one in enumerate(model.graph.node[::2]):
        one.input[5], one.output[1] = f"h{i}", f"hn{i}"
        given = helper.make_tensor_value_info(f"h{i}", FLOAT, [1, "b", 1])
        model.graph.input.append(given)
        model.graph.output.append(helper.make_tensor_value_info(f"hn{i}", FLOAT, None))
    return model.SerializeToString()


@pytest.mark.timing
@pytest.mark.parametrize("many, n", [(many_inputs, 2400), (many_layers, 2400),
                                     (many_names, 4800), (many_branches, 16_000),
                                     (many_states, 2400)])  # fmt: skip
def test_the_time_grows_with_the_file(many: Any, n: int) -> None:
    """Four times as many took more than ten times as long, and seconds."""
    assert seconds(many(n)) < 9 * seconds(many(n // 4))


def test_axes_are_few() -> None:
    data = chain(65, node("Unsqueeze", ["x", "n0"], ["y"]), of=1, tensors={"n0": ints(0)})
    with pytest.raises(clstm.UnsupportedError, match="makes 65 axes; an array has 64 at most"):
        read(data.SerializeToString())


# ---- what a count must not change ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "i8", "u8"])
def test_integers_are_divided_towards_0(dtype: str) -> None:
    low, high = (int(n) for n in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    numbers = sorted({low, low + 1, low // 2, 0, 1, 2, 3, 7, high // 3, high - 1, high})
    pairs = [(a, b) for a in numbers for b in numbers if b]
    a, b = (Const(np.array(n, dtype)) for n in zip(*pairs, strict=True))
    (found,) = Folder(Budget(2**20), 18).run("Div", "Div", [a, b], {}, 1)
    wanted = [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs]
    assert found.array.dtype == dtype and found.array.tolist() == wanted


def test_weights_have_the_type_of_the_input() -> None:
    """Another would be converted for each layer that reads it; ONNX Runtime refuses it too."""
    for op in ("MatMul", "Gemm"):
        with pytest.raises(clstm.ModelFormatError, match=f"{op} 'y': a constant of float64 beside"):
            read(small([node(op, ["x", "w"], ["y"])], {"w": np.eye(2)}).SerializeToString())
