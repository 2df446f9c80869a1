# SPDX-License-Identifier: MIT
"""Graphs of random operations around recurrent operators: clstm refuses one, or computes what
ONNX Runtime does, with outputs of the same shapes. A wrong answer is the only failure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_worker import Worker

import clstm
from bounds.tolerances import FAR, FAR_RELATIVE

ort = pytest.importorskip("onnxruntime")
ort.set_default_logger_severity(4)

I, H = 3, 2  # noqa: E741
MOVES = ("Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Gather", "Concat")


class Program:
    """A random graph, made along a run of numbers, which gives the shapes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.sizes = tuple(self.rng.permutation([1, 2, 4, 5])[:2])
        self.static = self.rng.random() < 0.4
        self.nodes: list[Any] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.values: dict[str, tuple[int, ...]] = {"x": (*self.sizes, I)}
        self.order = ["x"]
        self.states: set[str] = set()  # final states, moved about only

    def constant(self, array: Any) -> str:
        name = f"k{len(self.tensors)}"
        self.tensors[name] = np.asarray(array)
        return name

    def floats(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(-0.8, 0.8, shape).astype(np.float32))

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
        self.values[name] = shape
        self.order.append(name)
        if op in MOVES and self.states.intersection(inputs):
            self.states.add(name)
        return name

    def pick(self) -> tuple[str, tuple[int, ...]]:
        # Late values more often, so that chains grow.
        n = len(self.order)
        name = self.order[n - 1 - min(n - 1, int(self.rng.exponential(0.8)))]
        return name, self.values[name]

    def step(self) -> None:
        ops = ["transpose", "reshape", "unsqueeze", "squeeze", "gather", "slice", "unary", "const",
               "binary", "concat", "softmax", "matmul", "lstm", "lstm", "lstm", "norm"]  # fmt: skip
        getattr(self, self.rng.choice(ops))()

    def transpose(self) -> None:
        v, s = self.pick()
        p = [int(i) for i in self.rng.permutation(len(s))]
        self.add("Transpose", [v], tuple(s[i] for i in p), perm=p)

    def reshape(self) -> None:
        v, s = self.pick()
        if len(s) < 2:
            return
        kind, i = self.rng.integers(4), int(self.rng.integers(len(s) - 1))
        if kind == 0:  # two axes become one
            new = (*s[:i], s[i] * s[i + 1], *s[i + 2 :])
        elif kind == 1:  # one becomes two
            divisors = [d for d in range(1, s[i] + 1) if s[i] % d == 0]
            d = int(self.rng.choice(divisors))
            new = (*s[:i], d, s[i] // d, *s[i + 1 :])
        elif kind == 2:  # back to an earlier shape of the same size
            same = [t for t in self.values.values() if np.prod(t) == np.prod(s)]
            new = same[int(self.rng.integers(len(same)))]
        else:
            new = tuple(int(n) for n in self.rng.permutation(s))
        target = list(new)
        if not self.static and self.rng.random() < 0.8:
            for at, n in enumerate(target):
                if at < len(s) and s[at] == n:
                    target[at] = 0
            target[int(self.rng.integers(len(target)))] = -1
        self.add("Reshape", [v, self.constant(np.array(target, np.int64))], new)

    def unsqueeze(self) -> None:
        v, s = self.pick()
        i = int(self.rng.integers(len(s) + 1))
        if len(s) < 5:
            self.add("Unsqueeze", [v, self.constant([i])], (*s[:i], 1, *s[i:]))

    def squeeze(self) -> None:
        v, s = self.pick()
        ones = [i for i, n in enumerate(s) if n == 1]
        if ones and len(s) > 1:
            i = int(self.rng.choice(ones))
            self.add("Squeeze", [v, self.constant([i])], (*s[:i], *s[i + 1 :]))

    def gather(self) -> None:
        v, s = self.pick()
        i = int(self.rng.integers(len(s)))
        at = int(self.rng.choice([-1, -1, 0, s[i] - 1]))
        if len(s) > 1:
            self.add("Gather", [v, self.constant(np.array(at))], (*s[:i], *s[i + 1 :]), axis=i)

    def slice(self) -> None:
        v, s = self.pick()
        i = int(self.rng.integers(len(s)))
        a, b = [(-1, 2**40), (0, 2**40), (0, 1), (1, s[i]), (0, s[i]), (0, -1)][
            int(self.rng.integers(6))
        ]
        n = len(range(s[i])[a:b])
        if n:
            words = [self.constant([k]) for k in (a, b, i)]
            self.add("Slice", [v, *words], (*s[:i], n, *s[i + 1 :]))

    def unary(self) -> None:
        v, s = self.pick()
        self.add(str(self.rng.choice(["Tanh", "Sigmoid", "Neg", "Identity"])), [v], s)

    def const(self) -> None:
        v, s = self.pick()
        k = tuple(n if self.rng.random() < 0.5 else 1 for n in s)[int(self.rng.integers(len(s))) :]
        op, swap = str(self.rng.choice(["Add", "Mul", "Sub"])), self.rng.random() < 0.3
        words = [v, self.floats(*k)]
        self.add(op, words[::-1] if swap else words, s)

    def binary(self) -> None:
        v, s = self.pick()
        others = [w for w, t in self.values.items() if _fits(s, t)]
        w = others[int(self.rng.integers(len(others)))]
        shape = np.broadcast_shapes(s, self.values[w])
        self.add(str(self.rng.choice(["Add", "Mul", "Sub"])), [v, w], shape)

    def concat(self) -> None:
        v, s = self.pick()
        i = int(self.rng.integers(len(s)))
        rest = (len(s), *s[:i], *s[i + 1 :])
        others = [w for w, t in self.values.items() if (len(t), *t[:i], *t[i + 1 :]) == rest]
        w = others[int(self.rng.integers(len(others)))]
        self.add("Concat", [v, w], (*s[:i], s[i] + self.values[w][i], *s[i + 1 :]), axis=i)

    def softmax(self) -> None:
        v, s = self.pick()
        self.add("Softmax", [v], s, axis=int(self.rng.choice([-1, -1, 0])))

    def norm(self) -> None:
        v, s = self.pick()
        if s[-1] > 1:
            words = [v, self.floats(s[-1]), self.floats(s[-1])]
            self.add("LayerNormalization", words, s, axis=-1)

    def matmul(self) -> None:
        v, s = self.pick()
        n = int(self.rng.integers(1, 5))
        if len(s) > 1:
            self.add("MatMul", [v, self.floats(s[-1], n)], (*s[:-1], n))

    def lstm(self) -> None:
        v, s = self.pick()
        if len(s) != 3:
            return
        d = int(self.rng.integers(1, 3))
        if d == 2 and self.rng.random() < 0.5:
            d = 1
        way = {1: str(self.rng.choice(["forward", "forward", "reverse"])), 2: "bidirectional"}[d]
        words = [v, self.floats(d, 4 * H, s[2]), self.floats(d, 4 * H, H), self.floats(d, 8 * H)]
        name = self.add("LSTM", words, (s[0], d, s[1], H), hidden_size=H, direction=way)
        if self.rng.random() < 0.3:
            self.nodes[-1].output.append(f"{name}h")
            self.values[f"{name}h"] = (d, s[1], H)
            self.states.add(f"{name}h")
            self.order.insert(len(self.order) - 1, f"{name}h")
        if self.rng.random() < 0.8:  # as exporters go on
            if d == 1:
                self.add("Squeeze", [name, self.constant([1])], (s[0], s[1], H))
            else:
                t = self.add("Transpose", [name], (s[0], s[1], d, H), perm=[0, 2, 1, 3])
                self.add("Reshape", [t, self.constant([0, 0, -1])], (s[0], s[1], d * H))

    def file(self, outputs: list[str]) -> bytes:
        dims = [*(int(n) for n in self.sizes), I] if self.static else ["p", "q", I]
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.tensors.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def compare(seed: int, worker: Worker) -> str:
    """ "refused", "agrees", or a failure."""
    p = Program(seed)
    for _ in range(int(p.rng.integers(2, 9))):
        p.step()
    # States that come out are the model's state, not its outputs.
    computed = [n for n in p.order if n != "x" and n not in p.states]
    if not computed:
        return "empty"
    outputs = [computed[-1]]
    if len(computed) > 1 and p.rng.random() < 0.3:
        outputs.append(computed[-2])
    data = p.file(outputs)
    x = p.rng.uniform(-1, 1, (*p.sizes, I)).astype(np.float32)
    if p.static:
        runs = [x]
    else:
        runs = [x, p.rng.uniform(-1, 1, (3, 7, I)).astype(np.float32)]
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    result = "refused"
    for given in runs:
        try:
            expected = session.run(None, {"x": given})
        except Exception:  # the file holds for one size only
            continue
        try:
            found = worker.call(data, given)
        except clstm.UnsupportedError:
            return "refused"
        found = found[0] if isinstance(found, tuple) else found
        found = found if isinstance(found, tuple) else (found,)
        assert len(found) == len(expected), seed
        for a, b in zip(found, expected, strict=True):
            if b.ndim == 4 and a.ndim == 3:
                # An operator's own Y, (T, D, B, H) or already (T, B, D, H): as torch gives it.
                forms = [f for f in (b.transpose(0, 2, 1, 3), b) if f.shape[1] == a.shape[1]]
                b = min((f.reshape(a.shape) for f in forms), key=lambda f: np.abs(f - a).max())
            assert a.shape == b.shape, f"seed {seed}: shape {a.shape}, expected {b.shape}"
            np.testing.assert_allclose(a, b, atol=FAR, rtol=FAR_RELATIVE, err_msg=f"seed {seed}")
        result = "agrees"
    return result


def test_random_graphs() -> None:
    worker, counts = Worker(), dict.fromkeys(("agrees", "refused", "empty"), 0)
    try:
        for seed in range(400):
            counts[compare(seed, worker)] += 1
    finally:
        worker.close()
    assert counts["agrees"] > 40, counts
