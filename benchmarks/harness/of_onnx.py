# SPDX-License-Identifier: MIT
"""ONNX Runtime (run and IO binding) and OpenVINO, on one model of one node whose states are fed
back by the caller. Nothing is computed that is not read."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .case import Arrays, Case
from .turns import Contestant

ORT = "ONNX Runtime"


def one_node(case: Case, weights: Arrays, onnx: Any) -> bytes:
    """x and, but for a sequence, h (and c) in; y of a sequence, otherwise h_n (and c_n) out."""
    n, gates = case.hidden, case.gates
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[case.kind]  # iofc; zrh
    rows = np.arange(gates * n).reshape(gates, n)[order].reshape(-1)
    wx, wh, bx, bh = (weights[key][rows] for key in weights)
    tensors = {"W": wx[None], "R": wh[None], "B": np.concatenate([bx, bh])[None]}
    helper, make = onnx.helper, onnx.helper.make_tensor_value_info
    real = onnx.TensorProto.FLOAT
    inputs = [make("x", real, [case.steps, case.batch, case.n_in])]
    if case.mode == "sequence":
        states: list[str] = []
        outputs = [make("y", real, [case.steps, 1, case.batch, n])]
        results = ["y"]
    else:
        states = ["h", "c"][: case.states]
        shape = [1, case.batch, n]
        inputs += [make(name, real, shape) for name in states]
        outputs = [make(f"{name}_n", real, shape) for name in states]
        results = ["", *(f"{name}_n" for name in states)]
    options = {"linear_before_reset": 1} if case.kind == "GRU" else {}
    words = ["x", "W", "R", "B", *(["", *states] if states else [])]
    node = helper.make_node(case.kind, words, results, hidden_size=n, **options)
    initializers = [onnx.numpy_helper.from_array(a, name) for name, a in tensors.items()]
    graph = helper.make_graph([node], "one", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 14)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model


def session(case: Case, model: bytes, ort: Any) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = case.threads
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def of_onnxruntime(
    case: Case, weights: Arrays, inputs: np.ndarray, onnx: Any, ort: Any
) -> Contestant:
    run = session(case, one_node(case, weights, onnx), ort).run
    if case.mode == "sequence":
        y: Any = None

        def whole(frame: np.ndarray) -> None:
            nonlocal y
            (y,) = run(["y"], {"x": frame})

        return Contestant(ORT, list(inputs), whole, lambda: y.reshape(-1))

    outputs = ["h_n", "c_n"][: case.states]
    h = c = np.zeros((1, case.batch, case.hidden), np.float32)

    def step_lstm(frame: np.ndarray) -> None:
        nonlocal h, c
        h, c = run(outputs, {"x": frame, "h": h, "c": c})

    def step(frame: np.ndarray) -> None:
        nonlocal h
        (h,) = run(outputs, {"x": frame, "h": h})

    call = step_lstm if case.kind == "LSTM" else step
    return Contestant(ORT, list(inputs), call, lambda: h.reshape(-1))


def of_iobinding(
    case: Case, weights: Arrays, inputs: np.ndarray, onnx: Any, ort: Any
) -> Contestant:
    """Every buffer is bound beforehand: two bindings in turn, each writes what the other reads,
    and one for each frame."""
    own = session(case, one_node(case, weights, onnx), ort)
    states = [] if case.mode == "sequence" else ["h", "c"][: case.states]
    value = ort.OrtValue.ortvalue_from_numpy
    xs = [value(frame) for frame in inputs]
    shape = (1, case.batch, case.hidden)
    sides = [{k: value(np.zeros(shape, np.float32)) for k in states} for _ in range(2)]
    y = value(np.zeros((case.steps, *shape), np.float32))
    bindings = []
    for at, x in enumerate(xs):
        binding = own.io_binding()
        binding.bind_ortvalue_input("x", x)
        for k in states:
            binding.bind_ortvalue_input(k, sides[at % 2][k])
            binding.bind_ortvalue_output(f"{k}_n", sides[1 - at % 2][k])
        if not states:
            binding.bind_ortvalue_output("y", y)
        bindings.append((binding, at))
    run, result = own.run_with_iobinding, y
    last = 1

    def step(bound: tuple[Any, int]) -> None:
        nonlocal result, last
        binding, at = bound
        run(binding)
        last = 1 - at % 2

    def read() -> np.ndarray:
        value = sides[last]["h"] if states else result
        h: np.ndarray = value.numpy().reshape(-1)
        return h

    return Contestant(f"{ORT} IO binding", bindings, step, read)


def of_openvino(case: Case, weights: Arrays, inputs: np.ndarray, onnx: Any, ov: Any) -> Contestant:
    """float32; two requests in turn, each writes what the other reads, x shared with the frame."""
    core = ov.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    settings |= {"INFERENCE_NUM_THREADS": str(case.threads), "ENABLE_CPU_PINNING": "NO"}
    compiled = core.compile_model(
        core.read_model(one_node(case, weights, onnx), b""), "CPU", settings
    )
    states = [] if case.mode == "sequence" else ["h", "c"][: case.states]
    shape = (1, case.batch, case.hidden)
    sides = [{k: np.zeros(shape, np.float32) for k in states} for _ in range(2)]
    y = np.zeros((case.steps, *shape), np.float32)
    requests = []
    for at in range(2):
        request = compiled.create_infer_request()
        for k in states:
            request.set_tensor(k, ov.Tensor(sides[at][k], shared_memory=True))
            request.set_tensor(f"{k}_n", ov.Tensor(sides[1 - at][k], shared_memory=True))
        if not states:
            request.set_tensor("y", ov.Tensor(y, shared_memory=True))
        requests.append(request)
    turn, last = itertools.cycle([0, 1]), 1
    frames = [ov.Tensor(np.ascontiguousarray(frame), shared_memory=True) for frame in inputs]
    kept = inputs  # the tensors share its memory

    def step(frame: Any) -> None:
        nonlocal last
        at = next(turn)
        request = requests[at]
        request.set_tensor("x", frame)
        request.infer(share_outputs=True)
        last = 1 - at

    def read() -> np.ndarray:
        assert kept is inputs
        return (sides[last]["h"] if states else y).reshape(-1)

    return Contestant("OpenVINO", frames, step, read)
