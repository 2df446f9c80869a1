# SPDX-License-Identifier: MIT
"""Small files, one for each thing that a graph may say in more ways than one: a model comes out,
and computes what ONNX Runtime does, or onnx's own reference where that lacks the operator.

Half of the kept corpus (`fuzz/corpus/onnx`) is made of these; the other half is refused,
tests/core/test_onnx_refused.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clstm
from bounds.tolerances import FAR, FAR_RELATIVE
from onnx_files import FLOAT, INT32, INT64, SMALL, array, floats, ints, node, small

SIZES = {"t": 5, "b": 3, "l": 1}  # of the comparison, of axes that a file leaves open
END = np.array([2**62])


# ---- constants and sizes: all come to x + k, or to another shape of it -------------------------


def constant(nodes, tensors=None, **options: Any) -> onnx.ModelProto:
    """x plus the k that these nodes make."""
    return small([*nodes, node("Add", ["x", "k"], ["y"])], tensors, **options)


def sized(nodes, tensors=None, **options: Any) -> onnx.ModelProto:
    """The same, of a k that depends on the sizes s of x."""
    return constant([node("Shape", ["x"], ["s"]), *nodes], tensors, **options)


def zeros(*sizes: str, value: float = 0.5) -> list[Any]:
    """z of those sizes: of "t", "b" or names of tensors."""
    cut = {"t": ("n0", "n1"), "b": ("n1", "n2")}
    nodes = [node("Slice", ["s", *cut[w]], [w]) for w in sizes if w in cut]
    filled = helper.make_tensor("v", TensorProto.FLOAT, [1], [value])
    shape = node("Concat", sizes, ["zs"], axis=0)
    return [*nodes, shape, node("ConstantOfShape", ["zs"], ["z"], value=filled)]


NS = {"n0": ints(0), "n1": ints(1), "n2": ints(2)}
K = {"c": floats(0.5, -2)}

CONSTANTS = {
    "a product of sizes, plain ones first": small(
        [node("Unsqueeze", ["x", "n0"], ["u"]), node("Shape", ["u"], ["s"]),
         node("Slice", ["s", "n0", "n3"], ["tb"]), node("ReduceProd", ["tb"], ["n"]),
         node("Concat", ["n", "n2"], ["to"], axis=0), node("Reshape", ["x", "to"], ["r"]),
         node("Shape", ["x"], ["back"]), node("Reshape", ["r", "back"], ["y"])],
        NS | {"n3": ints(3)}),
    "sizes beside plain numbers, element by element": small(
        [node("Shape", ["x"], ["s"]), node("Mul", ["s", "m"], ["p"]),
         node("Div", ["p", "m"], ["q"]), node("Reshape", ["x", "q"], ["y"])],
        {"m": ints(2, 1, 3)}),
    "a constant that repeats, and one beside it": sized(
        [*zeros("t", "b", "n2"), node("Add", ["z", "c"], ["k"])], NS | K),
    "a choice that leaves no size open": small(
        [node("Shape", ["x"], ["s"]), node("Where", ["no", "s", "to"], ["q"]),
         node("Reshape", ["x", "q"], ["y"])],
        {"no": np.zeros(3, bool), "to": ints(0, 0, -1)}),
    "an axis of 1 taken away": constant(
        [node("Squeeze", ["c1", "n0"], ["k"])], {"c1": floats(1, 2)[None], **NS}),
    "a shape that may have a 0": constant(
        [node("Reshape", ["c", "to"], ["k"], allowzero=1)], K | {"to": ints(1, 2)}),
    "a reshape that changes nothing": sized(
        [*zeros("t", "n1", "n2"), node("Reshape", ["z", "zs"], ["k"])], NS),
    "a reshape of what was transposed": constant(
        [node("Transpose", ["c"], ["d"]), node("Reshape", ["d", "to"], ["e"]),
         node("MatMul", ["f", "e"], ["k"])],
        {"c": array(2, 2), "to": ints(2, -1), "f": floats(1, 2)}),
    "all of an axis that repeats": sized(
        [*zeros("t", "n1", "n2"), node("Slice", ["z", "n0", "e", "n0"], ["k"])],
        NS | {"e": END}),
    "turned around": constant(
        [node("Slice", ["c", "e", "low", "n0", "e"], ["k"])],
        NS | {"c": floats(1, 2), "e": ints(-1), "low": ints(-(2**31))}),
    "turned around from before the first": constant(
        [node("Slice", ["c", "from", "low", "n0", "e"], ["k"])],
        NS | {"c": floats(1, 2), "from": ints(-9), "e": ints(-1), "low": ints(-(2**31))}),
    "sizes over no axes": small(
        [node("Shape", ["x"], ["s"]), node("ReduceProd", ["s"], ["p"], noop_with_empty_axes=1),
         node("Reshape", ["x", "p"], ["y"])]),
    "expanded where it repeats already": sized(
        [*zeros("t", "n1", "n1"), node("Expand", ["z", "to"], ["k"])],
        NS | {"to": ints(1, 1, 2)}),
    "a range": constant(
        [node("Range", ["a", "e", "d"], ["r"]), node("Cast", ["r"], ["k"], to=FLOAT)],
        {"a": np.array(1), "e": np.array(7), "d": np.array(3)}),
    "a constant given as a number": constant(
        [node("Constant", [], ["k"], value_float=1.5)]),
    "a sum over no axes": constant(
        [node("ReduceSum", ["c2"], ["k"], noop_with_empty_axes=1)], {"c2": floats(1, 2)[None]}),
    "a sum over an empty list of axes": constant(
        [node("ReduceSum", ["c", "none"], ["k"])], K | {"none": np.zeros(0, np.int64)}),
    "an initializer that is an input too": small(
        [node("Add", ["x", "c"], ["y"])], K, SMALL | {"c": (FLOAT, [2])}),
}  # fmt: skip


# ---- operators on values ------------------------------------------------------------------------

FLAT = {"x": (FLOAT, ["b", 2])}


def reference_of(op: str, name: str, **attrs: Any) -> Any:
    """A node whose attribute is that of the function around it."""
    made_ = node(op, ["a"], ["r"], **attrs)
    made_.attribute.add(name=name, ref_attr_name="outer", type=onnx.AttributeProto.FLOAT)
    return made_


def own(name: str, nodes, attributes=("outer",)) -> Any:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["r"], nodes, opsets, list(attributes))


INNER = node("In", ["a"], ["r"], domain="f")
INNER.attribute.add(name="outer", ref_attr_name="outer", type=onnx.AttributeProto.FLOAT)

HALF = {"w": np.float32(0.5**0.5), "one": np.float32(1), "h": np.float32(0.5)}
ERF = [node("Mul", ["x", "w"], ["a"]), node("Erf", ["a"], ["e"])]

OPERATORS = {
    "a function's attribute that is not given": small(
        [node("F", ["x"], ["y"], domain="f")], functions=[own("F", [reference_of("Elu", "alpha")])],
        domains=["f"]),
    "one of a function in a function": small(
        [node("F", ["x"], ["y"], domain="f")],
        functions=[own("In", [reference_of("Elu", "alpha")]), own("F", [INNER])], domains=["f"]),
    "dropout that is told not to train": small(
        [node("Dropout", ["x", "r", "no"], ["y"])], {"r": np.float32(0.5), "no": np.array(False)}),
    "a reshape to its own sizes": small(
        [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"], allowzero=1)]),
    "time split in one part": small([node("Split", ["x"], ["y"], axis=0, num_outputs=1)]),
    "joined with nothing": small(
        [node("Concat", ["x", "k"], ["y"], axis=0)], {"k": np.zeros((0, 3, 2), np.float32)}),
    "a constant of more axes": small(
        [node("Add", ["x", "k"], ["a"]), node("Squeeze", ["a", "n0"], ["y"])],
        NS | {"k": floats(1, 2)[None, None]}, FLAT),
    "a matrix of three axes": small(
        [node("MatMul", ["x", "v"], ["y"])], {"v": array(1, 2, 2)}),
    "a value summed over no axes": small([node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)]),
    "a product times alpha, its bias times beta": small(
        [node("Gemm", ["x", "v", "c"], ["y"], alpha=2.0, beta=0.5)], K | {"v": array(2, 2)}, FLAT),
    "swish": small([node("Swish", ["x"], ["y"])], opset=24),
    "batch norm": small(
        [node("BatchNormalization", ["x", "s", "c", "m", "v"], ["y"])],
        K | {"s": floats(2, 3), "m": floats(0.5, -1), "v": floats(0.25, 2)}, FLAT),
    "gelu, halved first": small(
        [*ERF, node("Add", ["one", "e"], ["f"]),
         node("Mul", ["x", "h"], ["g"]), node("Mul", ["g", "f"], ["y"])],
        HALF),
    "gelu, halved inside": small(
        [*ERF, node("Add", ["e", "one"], ["f"]),
         node("Mul", ["f", "h"], ["g"]), node("Mul", ["g", "x"], ["y"])],
        HALF),
}  # fmt: skip


# ---- recurrent operators ------------------------------------------------------------------------


def rnn(op: str = "RNN", extra=(), tensors=None, inputs=None, outs: str = "Y Yh", hidden: int = 2,
        take: str = "Y", **attrs: Any) -> onnx.ModelProto:  # fmt: skip
    """A file of one operator."""
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    d = 2 if attrs.get("direction") == "bidirectional" else 1
    cell = {"W": array(d, rows, 2), "R": array(d, rows, hidden)}
    nodes = [node(op, ["x", "W", "R", *extra], outs.split(), hidden_size=hidden, **attrs)]
    return small(nodes, cell | (tensors or {}), SMALL | (inputs or {}), take, opset=22)


STATE = (FLOAT, [1, "b", 2])
RECURRENT = {
    "functions with numbers of their own": rnn(
        activations=["ScaledTanh"], activation_alpha=[0.5], activation_beta=[0.75]),
    "relu": rnn(activations=["Relu"]),
    "an LSTM with all that it may have": rnn(
        "LSTM", ["", "", "", "", "P"], {"P": array(1, 6)}, input_forget=1, clip=0.25,
        direction="reverse"),
    "the batch first": rnn(
        "GRU", ["", "", "h"], {"h": np.repeat(array(1, 1, 2), 3, axis=0)}, layout=1,
        inputs={"x": (FLOAT, ["b", "t", 2])}, take="Y Yh"),
    "a state with the batch first": rnn(
        extra=["", "", "h"], layout=1, take="Y Yh",
        inputs={"x": (FLOAT, ["b", "t", 2]), "h": (FLOAT, ["b", 1, 2])}),
    "lengths that are the length": rnn(
        extra=["", "n"], tensors={"n": np.full(3, 5, np.int32)},
        inputs={"x": (FLOAT, [5, "b", 2])}),
    "both directions in an axis of their own": rnn("LSTM", direction="bidirectional"),
    "lengths renamed on their way": small(
        [node("Cast", ["n"], ["m"], to=INT32),
         node("RNN", ["x", "W", "R", "", "m"], ["Y"], hidden_size=2)],
        {"W": array(1, 2, 2), "R": array(1, 2, 2)}, SMALL | {"n": (INT64, ["b"])}, "Y"),
    "an input that is what a norm's mean is": small(
        [node("ReduceMean", ["x"], ["m"], axes=[-1]),
         node("RNN", ["m", "W", "R"], ["Y"], hidden_size=2)],
        {"W": array(1, 2, 1), "R": array(1, 2, 2)}, outputs="Y", opset=13),
    "the length of the export in a reshape": small(
        [node("RNN", ["x", "W", "R"], ["Y"], direction="bidirectional", hidden_size=2),
         node("Transpose", ["Y"], ["yt"], perm=[0, 2, 1, 3]), node("Reshape", ["yt", "to"], ["y"])],
        {"W": array(2, 2, 2), "R": array(2, 2, 2), "to": ints(5, -1, 4)}),
}  # fmt: skip
RECURRENT["the length of the export in a reshape"].graph.output[0].CopyFrom(
    helper.make_tensor_value_info("y", FLOAT, [5, "b", 4])
)

# ---- cells, as sums and products of single operations -------------------------------------------

I, H = 2, 3  # noqa: E741
CELL = {"x": (FLOAT, ["b", I]), "h": (FLOAT, ["b", H])}


def gates(n: int, product: str = "gemm", bias: str = "gemm", cut: str = "split") -> tuple:
    """z_0 ... z_{n-1}, n H rows of V x + U h + b: nodes and tensors."""
    v, u, b = array(I, n * H), array(H, n * H), array(n * H)
    parts = [f"z{i}" for i in range(n)]
    nodes: list[Any] = []
    tensors = {"V": v, "U": u, "b": b}
    if product == "joined":
        tensors["V"] = np.concatenate([v, u])
        nodes += [node("Concat", ["x", "h"], ["xh"], axis=1), node("MatMul", ["xh", "V"], ["z"])]
        del tensors["U"]
    elif product == "joined, h first":
        tensors["V"] = np.concatenate([u, v])
        nodes += [node("Concat", ["h", "x"], ["xh"], axis=-1),
                  node("Gemm", ["xh", "V", "b"], ["z"])]  # fmt: skip
        del tensors["U"]
    elif cut == "before":
        nodes += [node("MatMul", ["x", "V"], ["p"]), node("MatMul", ["h", "U"], ["q"])]
        nodes += [node("Split", [w], [f"{w}{i}" for i in range(n)], axis=1, num_outputs=n)
                  for w in "pq"]  # fmt: skip
        for i in range(n):
            nodes += [node("Add", [f"p{i}", "b"], [f"r{i}"]),
                      node("Add", [f"r{i}", f"q{i}"], [f"z{i}"])]  # fmt: skip
        tensors["b"] = array(H)
        return nodes, tensors
    else:
        more = ["b"] if bias == "gemm" else []
        nodes += [node("Gemm", ["x", "V", *more], ["p"]), node("Gemm", ["h", "U"], ["q"]),
                  node("Add", ["p", "q"], ["z"])]  # fmt: skip
    last = "z"
    if bias == "after":
        nodes.append(node("Add", ["b", "z"], ["zb"]))
        last = "zb"
    if cut == "split" and n > 1:
        nodes.append(node("Split", [last], parts, axis=1, num_outputs=n))
    elif cut == "slice":
        tensors |= {f"n{i}": ints(i * H) for i in range(n + 1)} | {"ax": ints(1)}
        nodes += [node("Slice", [last, f"n{i}", f"n{i + 1}", "ax"], [f"z{i}"]) for i in range(n)]
    else:
        nodes[-1].output[:] = ["z0"]
    return nodes, tensors


def lstm_cell(order: int = 0, **how: str) -> onnx.ModelProto:
    """order: bits that turn the factors and terms around."""
    nodes, tensors = gates(4, **how)

    def two(bit: int, *words: str) -> list[str]:
        return list(words[::-1] if order >> bit & 1 else words)

    nodes += [node(op, [f"z{i}"], [w]) for i, (w, op) in enumerate(
        (("i", "Sigmoid"), ("f", "Sigmoid"), ("g", "Tanh"), ("o", "Sigmoid")))]  # fmt: skip
    nodes += [
        node("Mul", two(0, "f", "c"), ["fc"]), node("Mul", two(1, "i", "g"), ["ig"]),
        node("Add", two(2, "fc", "ig"), ["cn"]), node("Tanh", ["cn"], ["tc"]),
        node("Mul", two(3, "o", "tc"), ["hn"]),
    ]  # fmt: skip
    return small(nodes, tensors, CELL | {"c": CELL["h"]}, "hn cn")


def gru_cell(form: str, order: int = 0) -> onnx.ModelProto:
    """Gates r, z and n, h' as (1 - z) n + z h or as (h - n) z + n."""
    v, u, b = array(I, 3 * H), array(H, 3 * H), array(3 * H)

    def two(bit: int, *words: str) -> list[str]:
        return list(words[::-1] if order >> bit & 1 else words)

    nodes = [
        node("Gemm", ["x", "V", "b"], ["p"]), node("Gemm", ["h", "U", "b"], ["q"]),
        node("Split", ["p"], ["pr", "pz", "pn"], axis=1, num_outputs=3),
        node("Split", ["q"], ["qr", "qz", "qn"], axis=1, num_outputs=3),
        node("Add", ["pr", "qr"], ["ar"]), node("Add", ["qz", "pz"], ["az"]),
        node("Sigmoid", ["ar"], ["r"]), node("Sigmoid", ["az"], ["z"]),
        node("Mul", two(0, "r", "qn"), ["rq"]), node("Add", two(1, "pn", "rq"), ["an"]),
        node("Tanh", ["an"], ["n"]),
    ]  # fmt: skip
    if form == "1 - z":
        nodes += [node("Sub", ["one", "z"], ["y"]), node("Mul", two(2, "y", "n"), ["yn"]),
                  node("Mul", two(3, "z", "h"), ["zh"]),
                  node("Add", two(4, "yn", "zh"), ["hn"])]  # fmt: skip
    else:
        nodes += [node("Sub", ["h", "n"], ["d"]), node("Mul", two(2, "d", "z"), ["dz"]),
                  node("Add", two(3, "dz", "n"), ["hn"])]  # fmt: skip
    tensors = {"V": v, "U": u, "b": b, "one": np.float32(1)}
    return small(nodes, tensors, CELL, "hn")


def rnn_cell(op: str = "Tanh", more=(), outputs: str = "hn", inputs=CELL, tensors=None, **how: str):
    nodes, cell = gates(1, cut="whole", **how)
    return small([*nodes, node(op, ["z0"], ["hn"]), *more], cell | (tensors or {}), inputs, outputs)


ONE_ROW = {"x": (FLOAT, [1, I]), "h": (FLOAT, [1, H])}
CELLS = {
    "gates cut by slices": lstm_cell(cut="slice"),
    "a bias behind the sum": lstm_cell(bias="after"),
    "gates cut before the sum, each with its bias": lstm_cell(cut="before"),
    "x and h joined": lstm_cell(product="joined", bias="none"),
    "h and x joined": lstm_cell(product="joined, h first"),
    **{f"an LSTM's factors in order {n:04b}": lstm_cell(n) for n in range(16)},
    **{f"a GRU of 1 - z in order {n:05b}": gru_cell("1 - z", n) for n in range(32)},
    **{f"a GRU of h - n in order {n:04b}": gru_cell("h - n", n) for n in range(16)},
    "a step of relu": rnn_cell("Relu"),
    "a step that is read twice": rnn_cell(
        more=[node("MatMul", ["hn", "w"], ["y"])], outputs="y hn", inputs=ONE_ROW,
        tensors={"w": array(H, 2)}),
    "a sequence without a batch, whose states get their axis by an initializer": small(
        [node("Unsqueeze", ["x", "n1"], ["u"]), node("Unsqueeze", ["h0", "n1"], ["h"]),
         node("RNN", ["u", "W", "R", "", "", "h"], ["Y4", "hn"], hidden_size=2),
         node("Squeeze", ["Y4", "n12"], ["Y"]), node("Squeeze", ["hn", "n1"], ["h1"])],
        {"W": array(1, 2, 2), "R": array(1, 2, 2), "n1": ints(1), "n12": ints(1, 2)},
        {"x": (FLOAT, ["t", 2]), "h0": (FLOAT, [1, 2])}, "Y h1"),
    "a state of open layers": small(
        [node("RNN", ["x", "W", "R", "", "", "h"], ["Y", "hn"], hidden_size=2)],
        {"W": array(1, 2, 2), "R": array(1, 2, 2)}, SMALL | {"h": (FLOAT, ["l", "b", 2])}, "Y hn"),
    "a state without its axis of layers": small(
        [node("Unsqueeze", ["h0", "n0"], ["h"]),
         node("RNN", ["x", "W", "R", "", "", "h"], ["Y", "hn"], hidden_size=2),
         node("Squeeze", ["hn", "n0"], ["h1"])],
        {"W": array(1, 2, 2), "R": array(1, 2, 2), "n0": ints(0)},
        SMALL | {"h0": (FLOAT, ["b", 2])}, "Y h1"),
    "the same by a node": small(
        [node("Constant", [], ["n1"], value=helper.make_tensor("v", INT64, [1], [1])),
         node("Unsqueeze", ["x", "n1"], ["u"]), node("Unsqueeze", ["h0", "n1"], ["h"]),
         node("RNN", ["u", "W", "R", "", "", "h"], ["Y4", "hn"], hidden_size=2),
         node("Squeeze", ["Y4", "n12"], ["Y"]), node("Squeeze", ["hn", "n1"], ["h1"])],
        {"W": array(1, 2, 2), "R": array(1, 2, 2), "n12": ints(1, 2)},
        {"x": (FLOAT, ["t", 2]), "h0": (FLOAT, [1, 2])}, "Y h1"),
}  # fmt: skip

ACCEPTED = CONSTANTS | OPERATORS | RECURRENT | CELLS


# ---- the comparison -----------------------------------------------------------------------------


def given(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Numbers for the inputs."""
    rng, filled = np.random.default_rng(1), {t.name for t in model.graph.initializer}
    found = {}
    for i in model.graph.input:
        if i.name not in filled:
            kind = i.type.tensor_type
            shape = [SIZES[d.dim_param] if d.dim_param else d.dim_value for d in kind.shape.dim]
            if kind.elem_type == FLOAT:
                found[i.name] = rng.uniform(-1, 1, shape).astype(np.float32)
            else:  # lengths
                dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
                found[i.name] = rng.integers(1, SIZES["t"] + 1, shape, dtype)
    return found


def expected(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    ort.set_default_logger_severity(4)
    attributes = {a.name: a.i for n in model.graph.node for a in n.attribute}
    if attributes.get("layout") or model.opset_import[0].version > 22:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(model).run(None, inputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # no threads for a hundred sessions
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    return session.run(None, inputs)


def arrays(found: Any) -> list[np.ndarray]:
    """The arrays of nested tuples, in their order."""
    if isinstance(found, tuple):
        return list(itertools.chain.from_iterable(map(arrays, found)))
    return [] if found is None else [found]


@pytest.mark.parametrize("what", ACCEPTED)
def test_it_computes_what_others_do(what: str) -> None:
    model = ACCEPTED[what]
    inputs = given(model)
    outputs = expected(model, inputs)
    x, *rest = inputs.values()
    lengths = next((a for a in rest if a.dtype.kind == "i"), None)
    states = [a for a in rest if a.dtype.kind == "f"]
    if x.ndim == 3:  # clstm's have an axis of layers, whatever the file's
        states = [a if a.ndim == 3 else a[None] for a in states]
    layout = any(a.name == "layout" and a.i for n in model.graph.node for a in n.attribute)
    if layout:
        states = [a.swapaxes(0, 1) for a in states]
    state = None if not states else states[0] if len(states) == 1 else tuple(states)
    m = clstm.load(model.SerializeToString())
    found = arrays(m(x, state) if lengths is None else m(x, state, lengths=lengths))
    assert len(found) >= len(outputs)
    for a, b in zip(found, outputs, strict=False):
        if b.ndim == 4:  # an operator's own Y, (T, D, B, H) or (B, T, D, H): as torch gives it
            b = (b if layout else b.swapaxes(1, 2)).reshape(a.shape)
        elif layout:
            b = b.swapaxes(0, 1)
        elif a.ndim < b.ndim and len(b) == 1:  # a step of one sequence
            b = b[0]
        elif a.ndim > b.ndim:
            b = b[None]
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=FAR_RELATIVE, atol=FAR)
