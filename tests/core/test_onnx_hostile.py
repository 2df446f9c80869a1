# SPDX-License-Identifier: MIT
"""ONNX files that are malformed, hostile, or have their tensors in other files."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import clstm
from onnx_files import (
    CELL,
    FLOAT,
    INT64,
    ONE,
    H,
    N,
    R,
    W,
    X,
    array,
    equal,
    file,
    lstm,
    made,
    node,
    plain,
    read,
    torch_rows,
    two_layers,
)

# ---- malformed -------------------------------------------------------------------------


def test_projection_of_the_new_exporter() -> None:
    """R of fewer columns than hidden_size, as PyTorch's exporter writes proj_size."""
    tensors = {**ONE, **CELL, "R": array(1, 4 * H, 2)}
    with pytest.raises(clstm.ModelFormatError, match=r"LSTM 'lstm_Y'.*proj_size.*state dict"):
        read(file(lstm(), X, ["Y"], tensors))


@pytest.mark.parametrize("word, shape", [("W", (1, 4 * H + 1, N)), ("W", (2, 4 * H, N)),
                                         ("R", (1, 3 * H, H)), ("B", (1, 4 * H)), ("W", (4 * H, N)),
                                         ("P", (1, 2 * H)), ("W", (1, 4 * H, N + 1))])  # fmt: skip
def test_tensors_of_wrong_sizes(word: str, shape: tuple[int, ...]) -> None:
    tensors = {**ONE, **CELL, "P": array(1, 3 * H), word: np.zeros(shape, np.float32)}
    nodes = lstm(extra=["", "", "", "P"])
    with pytest.raises(clstm.ModelFormatError, match="lstm_Y"):
        read(file(nodes, X, ["Y"], tensors))


@pytest.mark.parametrize("attrs", [{"direction": "sideways"}, {"activations": ["Sigmoid"]},
                                   {"activations": ["Sigmoid", "Tanh", "Swish"]}, {"layout": 2},
                                   {"activation_alpha": [1.0]}])  # fmt: skip
def test_wrong_attributes(attrs: dict[str, Any]) -> None:
    with pytest.raises(clstm.ModelFormatError, match="lstm_Y"):
        read(file(lstm(**attrs), X, ["Y"], ONE | CELL))


def test_element_types() -> None:
    """Weights have X's type; bfloat16 is read exactly; integers are no weights."""
    for dtype in (np.float16, np.float64):
        tensors = ONE | CELL | {"R": R.astype(dtype)}
        with pytest.raises(
            clstm.ModelFormatError, match=f"lstm_Y', R: a constant of {np.dtype(dtype)}"
        ):
            read(file(lstm(), X, ["Y"], tensors))
    for kind, word in ((TensorProto.DOUBLE, "float64"), (TensorProto.FLOAT16, "float16")):
        with pytest.raises(clstm.UnsupportedError, match=f"input 'x'.*{word}.*float32"):
            read(file(lstm(), {"x": (kind, ["t", "b", N])}, ["Y"], ONE | CELL))
    with pytest.raises(clstm.UnsupportedError, match="int32"):
        read(file(lstm(), X, ["Y"], ONE | CELL | {"W": W.astype(np.int32)}))
    model = made(lstm(), X, ["Y"], ONE | CELL)
    w = next(t for t in model.graph.initializer if t.name == "W")
    bits = W.view(np.uint32) >> 16
    w.CopyFrom(helper.make_tensor("W", TensorProto.BFLOAT16, W.shape,
                                  bits.astype("<u2").tobytes(), raw=True))  # fmt: skip
    _, found = read(model.SerializeToString())
    np.testing.assert_array_equal(
        found["lstm1.weight_ih_l0"], torch_rows((bits << 16).view(np.float32)[0])
    )


# ---- external data ---------------------------------------------------------------------


def external(folder: Any, location: str = "m.bin", **fields: Any) -> str:
    """A model whose W is in another file."""
    model = made(lstm(), X, ["Y"], ONE | CELL)
    w = next(t for t in model.graph.initializer if t.name == "W")
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 8, **fields}.items():
        entry = w.external_data.add()
        entry.key, entry.value = key, str(value)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_external_data(tmp_path) -> None:
    (tmp_path / "m.bin").write_bytes(b"12345678" + W.tobytes() + b"rest")
    path = external(tmp_path)
    with pytest.raises(clstm.UnsupportedError, match="external_data=True"):
        clstm.load(path)
    x = array(3, 2, N)
    equal(clstm.load(path, external_data=True)(x)[0], plain(x)[0])
    with open(path, "rb") as f:
        data = f.read()
    with pytest.raises(clstm.UnsupportedError, match="no folder"):
        clstm.load(data, external_data=True)
    with pytest.raises(clstm.ModelFormatError, match="max_bytes"):
        clstm.load(path, external_data=True, max_bytes=W.nbytes + R.nbytes)


@pytest.mark.parametrize("location", ["../m.bin", "/etc/hostname", "sub/m.bin", "..", ".", "",
                                      "a\\m.bin", "c:m.bin", "m\0.bin", "missing.bin", "folder",
                                      "link.bin", "hard.bin", "pipe"])  # fmt: skip
def test_external_data_elsewhere(tmp_path, location: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "real.bin").write_bytes(b"12345678" + W.tobytes())
    (tmp_path / "link.bin").symlink_to(tmp_path / "real.bin")
    os.link(tmp_path / "real.bin", tmp_path / "hard.bin")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(clstm.ModelFormatError, match="external data"):
        clstm.load(external(tmp_path, location), external_data=True)


@pytest.mark.parametrize("fields", [{"offset": 10**6}, {"offset": -8}, {"offset": "x"},
                                    {"length": 10**12}, {"length": 4}, {"offset": 16}])  # fmt: skip
def test_external_data_out_of_range(tmp_path, fields: dict[str, Any]) -> None:
    (tmp_path / "m.bin").write_bytes(b"12345678" + W.tobytes())
    with pytest.raises(clstm.ModelFormatError, match="'W'"):
        clstm.load(external(tmp_path, **fields), external_data=True)


def test_external_data_that_shrinks_while_it_is_read(tmp_path, monkeypatch) -> None:
    file_, content, fstat = tmp_path / "m.bin", b"12345678" + W.tobytes(), os.fstat
    file_.write_bytes(content)

    def shrinking(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if found.st_size == len(content):
            os.truncate(file_, 20)
        return found

    path = external(tmp_path)
    monkeypatch.setattr(os, "fstat", shrinking)
    with pytest.raises(clstm.ModelFormatError, match=r"'m\.bin' changed while it was read"):
        clstm.load(path, external_data=True)


# ---- hostile bytes ---------------------------------------------------------------------


def _cell_file() -> bytes:
    nodes, inputs, outputs, tensors = two_layers()
    return file([*nodes, node("Softmax", ["y"], ["p"])], inputs, ["p", *outputs[1:]], tensors)


@settings(max_examples=400, deadline=None, database=None, derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.data())
def test_mutated_bytes(data) -> None:
    """Any bytes load or are refused with an error of clstm; nothing else happens."""
    raw = bytearray(_cell_file())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "grow", "zero"]))
        if how == "flip":
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del raw[at : at + data.draw(st.integers(1, 60))]
        elif how == "grow":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            raw[at : at + 8] = bytes(len(raw[at : at + 8]))
        if not raw:
            return
    try:
        read(bytes(raw), max_bytes=2**20)
    except (clstm.ModelFormatError, clstm.UnsupportedError):
        pass


@settings(max_examples=300, deadline=None, database=None, derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.data())
def test_mutated_fields(data) -> None:
    """Well-formed files whose numbers and names are wrong."""
    model = onnx.ModelProto.FromString(_cell_file())
    graph = model.graph
    number = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 2**31, 2**40, 2**63 - 1])
    for _ in range(data.draw(st.integers(1, 3))):
        what = data.draw(st.sampled_from(["dims", "attr", "input", "op", "shape", "ints", "type"]))
        n = graph.node[data.draw(st.integers(0, len(graph.node) - 1))]
        t = graph.initializer[data.draw(st.integers(0, len(graph.initializer) - 1))]
        if what == "dims" and t.dims:
            t.dims[data.draw(st.integers(0, len(t.dims) - 1))] = data.draw(number)
        elif what == "attr" and n.attribute:
            n.attribute[0].i = data.draw(number)
        elif what == "input" and n.input:
            n.input[data.draw(st.integers(0, len(n.input) - 1))] = data.draw(
                st.sampled_from(["", "x", "W", "h0", "nowhere", "y", "one"])
            )
        elif what == "op":
            ops = ["GRU", "RNN", "Concat", "Reshape", "Expand", "Gather", "Slice", "Tile", "Add"]
            n.op_type = data.draw(st.sampled_from(ops))
        elif what == "shape":
            info = graph.input[data.draw(st.integers(0, len(graph.input) - 1))]
            d = info.type.tensor_type.shape.dim
            if d:
                d[data.draw(st.integers(0, len(d) - 1))].dim_value = data.draw(number)
        elif what == "ints" and t.data_type == INT64:
            t.raw_data = np.array(data.draw(st.lists(number, max_size=3)), "<i8").tobytes()
            t.dims[:] = [len(t.raw_data) // 8]
        elif what == "type":
            t.data_type = data.draw(st.integers(0, 30))
    try:
        read(model.SerializeToString(), max_bytes=2**20)
    except (clstm.ModelFormatError, clstm.UnsupportedError):
        pass


def test_nonsense() -> None:
    for data in (b"", b"\x08", b"\x08\x09", b"\x08\x09\x3a\x00", b"garbage" * 9, bytes(64)):
        with pytest.raises(clstm.ModelFormatError):
            read(data)


def test_without_torch_and_onnxruntime() -> None:
    """Neither is imported by reading and running a file, nor needed."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnxruntime'] = None\n"
        "import clstm, numpy as np\n"
        "m = clstm.load(sys.stdin.buffer.read())\n"
        "print(m(np.zeros((2, 1, 4)))[0].shape)\n"
    )
    data = file(lstm(), X, ["Y"], ONE | CELL)
    found = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert found.stdout.strip() == b"(2, 1, 3)", found.stderr.decode()


def test_without_onnx(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(clstm.UnsupportedError, match=r"pip install clstm\[onnx\]"):
        read(file(lstm(), X, ["Y"], ONE | CELL))


# ---- operator sets, fields and names -------------------------------------------------------


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clip_that_cannot_be(op: str, clip: float) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    nodes = [node(op, ["x", "W", "R"], ["y4"], name="rec", hidden_size=H, clip=clip),
             node("Squeeze", ["y4", "one"], ["y"])]  # fmt: skip
    tensors = {"W": array(1, gates * H, N), "R": array(1, gates * H, H), **ONE}
    with pytest.raises(clstm.ModelFormatError, match=f"{op} 'rec': a clip of"):
        read(file(nodes, X, ["y"], tensors))


def test_operator_sets() -> None:
    def opset(*versions: int) -> bytes:
        model = made(lstm(), X, ["Y"], ONE | CELL)
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid("", v) for v in versions])
        return model.SerializeToString()

    for versions in ((), (2**60,), (-1,), (18, 17)):
        with pytest.raises(clstm.ModelFormatError, match="operator set"):
            read(opset(*versions))
    with pytest.raises(clstm.UnsupportedError, match=r"operator set 9999.*newer"):
        read(opset(9999))


def test_text_that_is_not_utf8() -> None:
    data = file([*lstm(), node("Tanh", ["Y"], ["o"])], X, ["o"], ONE | CELL)
    for old, new in ((b"Tanh", b"T\xffnh"), (b"lstm_Y", b"lst\xff_Y")):
        assert old in data
        with pytest.raises(clstm.ModelFormatError, match="UTF-8"):
            read(data.replace(old, new))


def test_text_of_a_function_that_is_not_utf8() -> None:
    """Of one that nothing calls, too."""
    inner = [node("Tanh", ["a"], ["inside"]), node("Neg", ["inside"], ["b"])]
    function = helper.make_function("f", "F", ["a"], ["b"], inner, [helper.make_opsetid("", 18)])
    data = file(lstm(), X, ["Y"], ONE | CELL, functions=[function])
    read(data)
    assert data.count(b"inside") == 2
    with pytest.raises(clstm.ModelFormatError, match="a node with a name that is not UTF-8"):
        read(data.replace(b"inside", b"ins\xffde"))


def test_text_that_is_not_utf8_to_protobuf_without_its_c_part() -> None:
    code = (
        "import sys, clstm\n"
        "try: clstm.load(sys.stdin.buffer.read())\n"
        "except clstm.ModelFormatError as error: print(error)\n"
    )
    data = file(lstm(), X, ["Y"], ONE | CELL).replace(b"lstm_Y", b"lst\xff_Y")
    env = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    found = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, env=env)
    assert found.stdout.startswith(b"<bytes>: names that are not UTF-8"), found.stderr.decode()


def test_fields_that_contradict_each_other(tmp_path) -> None:
    model = made(lstm(), X, ["Y"], ONE | CELL)
    model.graph.initializer[1].float_data.append(3)
    with pytest.raises(clstm.ModelFormatError, match="raw_data and in another field"):
        read(model.SerializeToString())
    model = made(lstm(), X, ["Y"], ONE | CELL)
    model.graph.sparse_initializer.add().values.name = "thin"
    with pytest.raises(clstm.ModelFormatError, match="'thin': sparse"):
        read(model.SerializeToString())
    flag = helper.make_graph([node("Tanh", ["Y"], ["a"])], "g", [],
                             [helper.make_tensor_value_info("zz", 1, None)])  # fmt: skip
    branch = node("If", ["c"], ["o"], then_branch=flag, else_branch=flag)
    tensors = {"c": np.bool_(True), **ONE, **CELL}
    with pytest.raises(clstm.ModelFormatError, match="'zz': no node makes it"):
        read(file([*lstm(), branch], X, ["o"], tensors))
    (tmp_path / "m.bin").write_bytes(b"12345678" + W.tobytes())
    for number in ("+8", " 8", "8_0", "\u0668", "0x8"):
        path = external(tmp_path, offset=number)
        with pytest.raises(clstm.ModelFormatError, match="no numbers"):
            clstm.load(path, external_data=True)
    path = external(tmp_path, location="m.onnx", offset=0)
    with pytest.raises(clstm.ModelFormatError, match="own file"):
        clstm.load(path, external_data=True)


def test_lengths_of_int64() -> None:
    read(file(lstm(extra=["n"]), X | {"n": (INT64, ["b"])}, ["Y"], ONE | CELL))


@pytest.mark.parametrize("raw", [True, False])
def test_a_bool_is_0_or_1(raw: bool) -> None:
    """onnx and NumPy make different things of others."""
    flag = TensorProto(name="c", data_type=TensorProto.BOOL, dims=[1])
    for value in (1, 2):
        if raw:
            flag.raw_data = bytes([value])
        else:
            flag.int32_data[:] = [value]
        model = made([node("Where", ["c", "Z", "Z"], ["W"]), *lstm()], X, ["Y"],
                     ONE | {"R": CELL["R"], "B": CELL["B"], "Z": W})  # fmt: skip
        model.graph.initializer.append(flag)
        if value == 1:
            read(model.SerializeToString())
        else:
            with pytest.raises(
                clstm.ModelFormatError, match=r"'c'.*(neither 0 nor 1|outside of bool)"
            ):
                read(model.SerializeToString())


def test_functions_that_make_much_of_little() -> None:
    """2 KB of functions that call each other would be a million nodes."""
    functions = []
    for k in range(6):
        inner, domain = ("Identity", "") if k == 0 else (f"F{k - 1}", "f")
        names = ["a", *[f"t{i}" for i in range(9)], "b"]
        nodes = [node(inner, [x], [y], domain=domain) for x, y in itertools.pairwise(names)]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
        functions.append(helper.make_function("f", f"F{k}", ["a"], ["b"], nodes, opsets))
    call = [*lstm(), node("F5", ["Y"], ["o"], domain="f")]
    data = file(call, X, ["o"], ONE | CELL, functions=functions, domains=["f"])
    begin = time.process_time()
    with pytest.raises(
        clstm.UnsupportedError, match=r"more than 5\d\d\d nodes in a file of this size"
    ):
        read(data)
    assert time.process_time() - begin < 1


# ---- what the fuzzer found ---------------------------------------------------------------------


def test_a_width_that_no_tensor_backs_is_counted() -> None:
    """407 bytes of it took 32 GiB: a scale of one number, of an input of 2^31 - 1 features."""
    data = file(
        [node("Mul", ["x", "s"], ["out"])], {"x": (FLOAT, ["t", "b", 2**31 - 1])}, ["out"],
        {"s": np.float32(2).reshape(1)},
    )  # fmt: skip
    with pytest.raises(clstm.ModelFormatError, match="2147483647 features takes"):
        clstm.load(data)


def test_a_norm_of_features_that_no_tensor_backs_is_counted() -> None:
    data = file(
        [node("LayerNormalization", ["x", "s"], ["out"])], {"x": (FLOAT, ["t", "b", 2**31 - 1])},
        ["out"], {"s": np.ones(1, np.float32)},
    )  # fmt: skip
    with pytest.raises(clstm.ModelFormatError, match="2147483647 features takes"):
        clstm.load(data)


@pytest.mark.parametrize("name", ["inp", "out", "ten"])
def test_names_that_are_not_utf8(name: str) -> None:
    """Of inputs, outputs and tensors, as those of nodes."""
    data = file(
        [node("Mul", ["inp", "ten"], ["out"])], {"inp": (FLOAT, ["t", "b", 3])}, ["out"],
        {"ten": np.ones(1, np.float32)},
    )  # fmt: skip
    assert data.count(name.encode()) == 2
    at = data.rfind(name.encode())
    assert at > 0
    with pytest.raises(clstm.ModelFormatError, match="UTF-8"):
        clstm.load(data[:at] + b"\xff\xfe!" + data[at + 3 :])


@pytest.mark.parametrize("start", [1, 5_000_000])
def test_rows_that_no_tensor_backs_are_not_counted_one_by_one(start: int) -> None:
    """997 bytes of a slice of 2^31 - 1 rows took all memory there was."""
    numbers = {"s": start, "e": 9_999_999, "a": 1}
    data = file(
        [node("Slice", ["x", *numbers], ["r"]), node("Mul", ["r", "two"], ["out"])],
        {"x": (FLOAT, ["t", 10_000_000, 3])}, ["out"],
        {k: np.array([n]) for k, n in numbers.items()} | {"two": np.ones(1, np.float32)},
    )  # fmt: skip
    tracemalloc.start()
    with pytest.raises(clstm.UnsupportedError):
        clstm.load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_an_epsilon_below_0(epsilon: float) -> None:
    data = file(
        [node("LayerNormalization", ["x", "s"], ["out"], epsilon=epsilon)],
        {"x": (FLOAT, ["t", "b", 3])}, ["out"],
        {"s": np.ones(3, np.float32)},
    )  # fmt: skip
    with pytest.raises(clstm.ModelFormatError, match="expected a number from 0 on"):
        clstm.load(data)


def test_a_location_that_is_no_text(tmp_path: Path) -> None:
    given = {"x": (FLOAT, ["t", "b", 3])}
    model = made([node("Mul", ["x", "s"], ["out"])], given, ["out"], {"s": np.ones(1, "f")})
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="zz")
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="length", value="4")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"zz", b"\xff\xfe"))
    with pytest.raises(clstm.ModelFormatError):
        clstm.load(path, external_data=True)
