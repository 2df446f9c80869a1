# SPDX-License-Identifier: MIT
"""ONNX's LSTM, GRU and RNN with all attributes: against a float64 reference written from the
operators' text, and against ONNX Runtime where it has the feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_models as om
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx_worker import Worker

import clstm
from bounds.tolerances import FAR, NEAR

ort = pytest.importorskip("onnxruntime")
ort.set_default_logger_severity(4)

# Together 2,100.
CASES = {"LSTM": 1000, "GRU": 700, "RNN": 400}
SMOOTH = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "HardSigmoid", "Elu", "LeakyRelu",
          "ScaledTanh", "Affine")  # fmt: skip

WORKER: list[Worker] = []


@pytest.fixture(autouse=True, scope="module")
def worker() -> Iterator[None]:
    WORKER.append(Worker())
    yield
    WORKER.pop().close()


@st.composite
def cases(draw, op: str) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Attributes, tensors and which of them are inputs of the file."""
    t, b, i, h = (draw(st.integers(1, n)) for n in (5, 4, 5, 9))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d = 2 if direction == "bidirectional" else 1
    attrs: dict[str, Any] = {}
    if direction != "forward" or draw(st.booleans()):
        attrs["direction"] = direction
    if draw(st.booleans()):
        n = om.FUNCTIONS[op] * d
        # ThresholdedRelu jumps: rounding decides at the jump, so it has its own test.
        attrs["activations"] = draw(st.lists(st.sampled_from(SMOOTH), min_size=n, max_size=n))
        numbers = st.floats(0.125, 1, width=32)
        for place, word in enumerate(("alpha", "beta")):
            takes = sum(om.NUMBERS[a][place] is not None for a in attrs["activations"])
            # Fewer numbers than functions that take one: the rest have their defaults, but for
            # those whose default ONNX Runtime has not.
            least = takes if {"ScaledTanh", "Affine"} & set(attrs["activations"]) else 0
            given_ = draw(st.lists(numbers, min_size=least, max_size=takes))
            if given_:
                attrs[f"activation_{word}"] = given_
    if draw(st.booleans()):
        attrs["clip"] = draw(st.floats(0.125, 2, width=32))
    if draw(st.booleans()):
        attrs["layout"] = 1
    if op == "LSTM" and draw(st.booleans()):
        attrs["input_forget"] = draw(st.integers(0, 1))
    if op == "GRU" and draw(st.booleans()):
        attrs["linear_before_reset"] = draw(st.integers(0, 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def array(*shape: int) -> np.ndarray:
        return rng.uniform(-0.8, 0.8, shape).astype(np.float32)

    rows = om.GATES[op] * h
    tensors: dict[str, Any] = {"X": array(t, b, i), "W": array(d, rows, i), "R": array(d, rows, h)}
    inputs = ["X"]
    if draw(st.booleans()):
        tensors["B"] = array(d, 2 * rows)
    if op == "LSTM" and draw(st.booleans()):
        tensors["P"] = array(d, 3 * h)
    if draw(st.booleans()):
        tensors["sequence_lens"] = rng.integers(1, t + 1, b).astype(np.int32)
        inputs.append("sequence_lens")
    state = draw(st.sampled_from(["none", "input", "constant"]))
    if state != "none":
        for word in ("initial_h", "initial_c")[: 2 if op == "LSTM" else 1]:
            tensors[word] = array(d, b, h)
            if state == "input":
                inputs.append(word)
            else:
                tensors[word][:] = tensors[word][:, :1]
    return attrs, tensors, tuple(inputs)


def turned(tensors: dict[str, Any], layout: int) -> dict[str, Any]:
    """With the batch first in X and the initial states, for layout 1."""
    words = ("X", "initial_h", "initial_c") if layout else ()
    return tensors | {w: tensors[w].swapaxes(0, 1).copy() for w in words if w in tensors}


def run_clstm(op, attrs, tensors, inputs):
    """y [T, B, D H], h and c [D, B, H] of the file, through clstm."""
    layout = attrs.get("layout", 0)
    data = om.model(op, attrs, turned(tensors, layout), inputs=inputs)
    state = tuple(tensors[w] for w in ("initial_h", "initial_c") if w in inputs)
    x = tensors["X"].swapaxes(0, 1) if layout else tensors["X"]
    state = (state if op == "LSTM" else state[0]) if state else None
    y, final = WORKER[0].call(data, x, state, tensors.get("sequence_lens"))
    h, c = final if op == "LSTM" else (final, None)
    return (y.swapaxes(0, 1) if layout else y), h, c


def run_ort(op, attrs, tensors, inputs):
    """The same through ONNX Runtime, which has layout 0 only."""
    attrs = {k: v for k, v in attrs.items() if k != "layout"}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        om.model(op, attrs, tensors, inputs=inputs), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {w: tensors[w] for w in inputs})
    return (*found, None)[:3]


def close(found, expected, what: str, tolerance: float) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, what
    error = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert error.max(initial=0) <= tolerance, f"{what}: {error.max()}"


def agree(op, attrs, tensors, inputs) -> None:
    y, y_h, y_c = om.reference(op, attrs, tensors)
    found = run_clstm(op, attrs, tensors, inputs)
    y = y.swapaxes(1, 2).reshape(*y.shape[:1], y.shape[2], -1)
    other = run_ort(op, attrs, tensors, inputs)
    for i, (word, expected) in enumerate((("y", y), ("h", y_h), ("c", y_c))):
        if found[i] is not None:
            close(found[i], expected, f"{word} and the reference", NEAR)
            close(found[i], other[i], f"{word} and ONNX Runtime", FAR)


@pytest.mark.parametrize("op", CASES)
def test_operator(op: str) -> None:
    @settings(max_examples=CASES[op], deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(cases(op))
    def check(case) -> None:
        attrs, tensors, inputs = case
        # Functions without bounds can grow without bounds, and errors with them.
        assume(max(np.abs(v).max() for v in om.reference(op, attrs, tensors)) < 4)
        agree(op, attrs, tensors, inputs)

    check()


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", om.GATES)
def test_an_operators_own_y_comes_as_torch_has_it(op: str, direction: str, layout: int) -> None:
    """A file of one node, whose Y keeps its axis of directions: the same model as with both
    directions on the last axis."""
    rng = np.random.default_rng(len(op) + layout)
    n, t, b, i, h = 2 if direction == "bidirectional" else 1, 5, 3, 4, 6
    rows = om.GATES[op] * h
    shapes = {"X": (t, b, i), "W": (n, rows, i), "R": (n, rows, h), "B": (n, 2 * rows)}
    tensors = {w: rng.uniform(-0.7, 0.7, s).astype(np.float32) for w, s in shapes.items()}
    attrs = {"direction": direction} | ({"layout": layout} if layout else {})
    y, y_h, _ = om.reference(op, attrs, tensors)
    x = tensors["X"].swapaxes(0, 1) if layout else tensors["X"]
    whole = WORKER[0].call(om.model(op, attrs, tensors, flat=False), x, None, None)
    flat = WORKER[0].call(om.model(op, attrs, tensors), x, None, None)
    alone = WORKER[0].call(om.model(op, attrs, tensors, flat=False, outputs=("Y",)), x, None, None)
    expected = y.transpose(0, 2, 1, 3).reshape(t, b, n * h)
    for found, state in (whole, flat, alone):
        close(found, expected.swapaxes(0, 1) if layout else expected, f"{op} Y", NEAR)
        close(state[0] if op == "LSTM" else state, y_h, f"{op} Y_h", NEAR)


def test_clip_of_the_cell() -> None:
    """ "The input of activations" may mean the c that goes through h(), or not: ONNX Runtime does
    not clip it, nor does a file's LSTM here; nn.LSTM's cell_clip does."""
    rng = np.random.default_rng(5)
    hidden, attrs = 6, {"clip": 0.5}
    tensors = {"X": rng.standard_normal((7, 2, 3)), "W": rng.standard_normal((1, 24, 3)),
               "R": rng.standard_normal((1, 24, hidden))}  # fmt: skip
    tensors = {w: a.astype(np.float32) for w, a in tensors.items()}
    forms = [
        om.reference("LSTM", attrs, tensors, clip_cell)[0][:, 0] for clip_cell in (False, True)
    ]
    assert np.abs(forms[0] - forms[1]).max() > 0.02
    close(run_ort("LSTM", attrs, tensors, ("X",))[0], forms[0], "ONNX Runtime", NEAR)
    close(run_clstm("LSTM", attrs, tensors, ("X",))[0], forms[0], "the file", NEAR)
    weights = {
        f"weight_{w}_l0": np.concatenate([np.split(tensors[k][0], 4)[i] for i in (0, 2, 3, 1)])
        for w, k in (("ih", "W"), ("hh", "R"))
    }
    layer = clstm.nn.LSTM(clip=0.5, cell_clip=0.5)
    y = clstm.from_state_dict(weights, layers=[layer])(tensors["X"])[0]
    close(y, forms[1], "cell_clip", NEAR)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", CASES)
def test_thresholded_relu(op: str, layout: int) -> None:
    """It jumps at alpha: inputs that stay away from there."""
    rng = np.random.default_rng(6)
    n = om.FUNCTIONS[op]
    attrs = {"activations": ["ThresholdedRelu"] * n, "activation_alpha": [0.25] * n,
             "layout": layout}  # fmt: skip
    rows = om.GATES[op] * 3
    tensors = {"X": rng.uniform(-1, 1, (3, 2, 4)), "W": rng.uniform(-1, 1, (1, rows, 4)),
               "R": rng.uniform(-0.5, 0.5, (1, rows, 3))}  # fmt: skip
    agree(op, attrs, {w: a.astype(np.float32) for w, a in tensors.items()}, ("X",))


@pytest.mark.parametrize("name", ["ThresholdedRelu", "ScaledTanh", "Affine"])
def test_numbers_that_runtimes_take_differently(name: str) -> None:
    """The text says that defaults are those of the operator of that name; ONNX Runtime has 0."""
    tensors = {"X": np.ones((1, 1, 1), np.float32), "W": np.full((1, 1, 1), 1.5, np.float32),
               "R": np.zeros((1, 1, 1), np.float32)}  # fmt: skip
    attrs = {"activations": [name]}
    text, runtime = om.reference("RNN", attrs, tensors)[0], run_ort("RNN", attrs, tensors, ("X",))
    if name != "ThresholdedRelu":  # of which 1.5 is above both
        assert abs(text.item() - runtime[0].item()) > 0.5
    with pytest.raises(clstm.UnsupportedError, match=f"{name} without activation_alpha"):
        clstm.load(om.model("RNN", attrs, tensors))


# ---- onnx's own node tests ----------------------------------------------------------------


def _node_cases() -> list[Any]:
    # Importing a module makes its cases; the package's own collector makes those of every operator.
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401

    ops = set(CASES)
    return [c for c in node._NodeTestCases if c.model.graph.node[0].op_type in ops]


def test_node_cases() -> None:
    """All of onnx's tests of the three operators: outputs Y or Y_h as the file has them."""
    names = set()
    for case in _node_cases():
        node = case.model.graph.node[0]
        layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
        names.add(case.name)
        inputs, expected = case.data_sets[0]
        given_ = {n: a for n, a in zip([n for n in node.input if n], inputs, strict=True)}
        weights = [n for n in given_ if n in ("W", "R", "B", "P")]
        # The file takes its weights as inputs; a model has them inside.
        _check_node(case.model, given_, weights, node, layout, expected)
    assert {"test_lstm_with_peepholes", "test_lstm_batchwise", "test_gru_seq_length",
            "test_rnn_seq_length", "test_gru_batchwise", "test_simple_rnn_batchwise",
            "test_lstm_defaults"} <= names  # fmt: skip


def _check_node(proto, given_, weights, node, layout, expected) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    constant = [n for n in given_ if n in weights or n.startswith("initial") or
                (n == "sequence_lens" and len(set(given_[n])) == 1)]  # fmt: skip
    for name in constant:
        graph.initializer.append(numpy_helper.from_array(np.asarray(given_[name]), name))
        graph.input.remove(next(i for i in graph.input if i.name == name))
    names = [o.name for o in graph.output]
    full = {"Y": None, "Y_h": None} | dict(zip(names, expected, strict=True))
    del graph.output[:]
    results = list(node.output) + [""] * 2
    results = [results[0] or "Y", results[1] or "Y_h"]
    del graph.node[0].output[:]
    graph.node[0].output.extend(results)
    flat = "Y" if layout else "Yt"
    if not layout:
        graph.node.append(onnx.helper.make_node("Transpose", ["Y"], ["Yt"], perm=[0, 2, 1, 3]))
    graph.node.append(onnx.helper.make_node("Reshape", [flat, "flat"], ["y"]))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), "flat"))
    for name in ("y", "Y_h"):
        graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    lengths = given_.get("sequence_lens") if "sequence_lens" not in constant else None
    y, state = WORKER[0].call(model.SerializeToString(), given_["X"], None, lengths)
    h = state[0] if isinstance(state, tuple) else state
    if layout:
        h = h.swapaxes(0, 1)
    if full["Y_h"] is not None:
        found = h[-1:] if h.shape[0] == 2 and full["Y_h"].shape[0] == 1 else h
        close(found.reshape(full["Y_h"].shape), full["Y_h"], f"{node.op_type} Y_h", NEAR)
    if full["Y"] is not None:
        split = (*y.shape[:2], -1, full["Y"].shape[-1])
        found = y.reshape(split) if layout else y.reshape(split).swapaxes(1, 2)
        close(found, full["Y"], f"{node.op_type} Y", NEAR)
