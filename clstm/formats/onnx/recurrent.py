# SPDX-License-Identifier: MIT
"""ONNX's LSTM, GRU and RNN operators as recurrent layers.

https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html. What is theirs:
gate rows in another order (i o f c, z r h), one tensor for both directions, functions with alpha
and beta per direction, clipping, layouts, and a GRU that resets before the product by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clstm import nn
from clstm.axes import (
    FEATURE,
    LAYER,
    ONE,
    ROW,
    Axis,
    Size,
    Value,
    factors,
    permute,
    refuse,
    restored,
    split_features,
)
from clstm.errors import ModelFormatError
from clstm.graph import Graph

from .const import MALFORMED, Const

Array = NDArray[Any]

# Gates of an operator, and in torch's order their places in it.
_GATES = {"LSTM": (4, [0, 2, 3, 1]), "GRU": (3, [1, 0, 2]), "RNN": (1, [0])}
_FUNCTIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_KINDS: dict[str, type[nn.Layer]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_ALPHA = ("LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Affine")
_BETA = ("ScaledTanh", "HardSigmoid", "Affine")
# Without numbers of their own the operators' text and ONNX Runtime (which takes 0) differ.
_NO_DEFAULT = ("ThresholdedRelu", "ScaledTanh", "Affine")
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def activations(op: str, node: str, attrs: Mapping[str, Any], directions: int) -> Any:
    """Functions with alpha and beta, or None for the default ones. The lists of alphas and betas
    are consumed by those functions that take one, in their order."""
    names = attrs.get("activations")
    default = _FUNCTIONS[op]
    if names is None:
        names = list(default) * directions
    if len(names) != len(default) * directions:
        raise ModelFormatError(f"{node}: {len(names)} activations, "
                               f"expected {len(default) * directions}")  # fmt: skip
    known = {name.lower(): name for name in nn.ACTIVATIONS if name != "HardTanh"}
    numbers = {w: list(attrs.get(f"activation_{w}", ())) for w in ("alpha", "beta")}
    found = []
    for given in names:
        name = known.get(given.lower())
        if name is None:
            raise ModelFormatError(f"{node}: an activation {given!r}; "
                                   f"there are {', '.join(known.values())}")  # fmt: skip
        alpha, beta = nn.ACTIVATIONS[name]
        short = (name in _ALPHA and not numbers["alpha"]) or (name in _BETA and not numbers["beta"])
        if short and name in _NO_DEFAULT:
            raise refuse(node, f"{name} without activation_alpha or activation_beta",
                         "runtimes differ in what they then take: give both")  # fmt: skip
        if name in _ALPHA and numbers["alpha"]:
            alpha = numbers["alpha"].pop(0)
        if name in _BETA and numbers["beta"]:
            beta = numbers["beta"].pop(0)
        found.append((name, float(alpha), float(beta)))
    if any(numbers.values()):
        raise ModelFormatError(f"{node}: more alphas or betas than its activations take")
    if directions == 2 and found[: len(default)] == found[len(default) :]:
        found = found[: len(default)]
    return None if [f[0] for f in found] == list(default) else tuple(found)


def _rows(array: Array, op: str, axis: int) -> Array:
    """Gate rows in torch's order."""
    gates, order = _GATES[op]
    parts = np.split(array, gates, axis=axis)
    return np.concatenate([parts[i] for i in order], axis=axis)


class Operator:
    """One LSTM, GRU or RNN node."""

    def __init__(
        self, op: str, node: str, inputs: Sequence[Any], attrs: Mapping[str, Any], opset: int
    ) -> None:
        self.op, self.node, self.attrs = op, node, attrs
        self.inputs = [*inputs, *[None] * (8 - len(inputs))]
        self.gates = _GATES[op][0]
        direction = attrs.get("direction", "forward")
        if direction not in _DIRECTIONS:
            raise ModelFormatError(f"{node}: direction {direction!r}")
        self.directions, self.reverse = _DIRECTIONS[direction], direction == "reverse"
        self.layout = int(attrs.get("layout", 0))
        if self.layout not in (0, 1):
            raise ModelFormatError(f"{node}: layout {self.layout}")
        w, r = (self._weight(i, word) for i, word in ((1, "W"), (2, "R")))
        if w is None or r is None:
            raise ModelFormatError(f"{node}: W or R is missing")
        rows = w.shape[1] if w.ndim == 3 else 0
        self.hidden = rows // self.gates
        given = attrs.get("hidden_size", self.hidden)
        if not self.hidden or rows % self.gates or given != self.hidden:
            raise ModelFormatError(
                f"{node}: W of shape {w.shape} for a hidden_size of {given}; expected "
                f"({self.directions}, {self.gates} * hidden_size, features)"
            )
        d, h = self.directions, self.hidden
        self._shaped("W", w, (d, rows, w.shape[2]))
        if r.ndim == 3 and r.shape[:2] == (d, rows) and r.shape[2] != h:
            raise ModelFormatError(
                f"{node}: R of shape {r.shape}, expected {(d, rows, h)}; {MALFORMED}"
            )
        self._shaped("R", r, (d, rows, h))
        b = self._weight(3, "B")
        if b is not None:
            self._shaped("B", b, (d, 2 * rows))
        p = self._weight(7, "P") if op == "LSTM" else None
        if p is not None:
            self._shaped("P", p, (d, 3 * h))
        self.cells = [self._cell(w[i], r[i], b if b is None else b[i], p if p is None else p[i])
                      for i in range(d)]  # fmt: skip

    def _weight(self, i: int, word: str) -> Array | None:
        given = self.inputs[i]
        if given is None:
            return None
        if not isinstance(given, Const):
            raise refuse(self.node, f"its {word} is not constant, but computed from an input")
        return given.floats(f"{self.node}, {word}")

    def _shaped(self, word: str, array: Array, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise ModelFormatError(f"{self.node}: {word} of shape {array.shape}, expected {shape}")

    def _cell(self, w: Array, r: Array, b: Array | None, p: Array | None) -> dict[str, Array]:
        cell = {"weight_ih": _rows(w, self.op, 0), "weight_hh": _rows(r, self.op, 0)}
        if b is not None:
            for word, part in zip(("bias_ih", "bias_hh"), np.split(b, 2), strict=True):
                cell[word] = _rows(part, self.op, 0)
        if p is not None:
            i, o, f = np.split(p, 3)
            cell["weight_ch"] = np.concatenate([i, f, o])
        if self.op == "LSTM" and self.attrs.get("input_forget"):
            keep = np.r_[0 : self.hidden, 2 * self.hidden : 4 * self.hidden]  # without f
            cell = {word: a if word == "weight_ch" else a[keep] for word, a in cell.items()}
        return cell

    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "clip" in self.attrs:
            found["clip"] = clip = float(self.attrs["clip"])
            if not 0 < clip < math.inf:
                raise ModelFormatError(f"{self.node}: a clip of {clip:g}, expected a finite number "
                                       "above 0; without clipping leave it away")  # fmt: skip
        functions = activations(self.op, self.node, self.attrs, self.directions)
        if functions == (("Relu", 0.0, 0.0),) and self.op == "RNN":
            found["nonlinearity"] = "relu"
        elif functions:
            found["activations"] = functions
        if self.op == "GRU":
            found["linear_before_reset"] = bool(self.attrs.get("linear_before_reset", 0))
        if self.op == "LSTM":
            # The text clips "the input of activations", which may mean the c that goes through
            # h(), too. ONNX Runtime does not clip it, and its answers are what a file's owner
            # has seen; the other reading is nn.LSTM's cell_clip.
            if self.inputs[7] is not None:
                found["peephole"] = "diagonal"
            if self.attrs.get("input_forget"):
                found["coupled"] = "f=1-i"
        return found

    def initial(self, graph: Graph) -> dict[str, Value | Array | None]:
        words = {"h0": 5, "c0": 6} if self.op == "LSTM" else {"h0": 5}
        return {word: self._initial(graph, word, self.inputs[i]) for word, i in words.items()}

    def _initial(self, graph: Graph, word: str, given: Any) -> Value | Array | None:
        """A state with its layers first, or an array of (D, H)."""
        if given is None:
            return None
        if isinstance(given, Const):
            # Repeated along the batch, as zeros of its size are.
            array = Const(given.array).floats(f"{self.node}, initial_{word[0]}")
            graph.budget.take(array.size, self.node)
            if self.layout and array.ndim == 3:
                array = array.transpose(1, 0, 2)
            if array.ndim != 3 or array.shape[::2] != (self.directions, self.hidden):
                raise ModelFormatError(
                    f"{self.node}: initial_{word[0]} of shape {array.shape}, expected "
                    f"({self.directions}, batch, {self.hidden}); {MALFORMED}"
                )
            if array.shape[1] < 1 or np.any(array != array[:, :1]):
                raise refuse(self.node, "an initial state that differs along the batch")
            return array[:, 0] if np.any(array) else None
        if not isinstance(given, Value):
            raise refuse(self.node, f"its initial_{word[0]} is computed from an input")
        if given.states is None or given.ndim != 3:
            raise refuse(self.node, f"its initial_{word[0]} is computed, not an input")
        state = permute(self.node, given, (1, 0, 2)) if self.layout else given
        kinds = [a.kind for a in state.axes]
        if kinds[0] not in (LAYER, ONE) or kinds[1] not in (ROW, ONE) or kinds[2] != FEATURE:
            raise refuse(self.node, f"an initial_{word[0]} of the axes {state.kinds()}")
        if state.axes[2].size not in (None, self.hidden):
            raise ModelFormatError(
                f"{self.node}: initial_{word[0]} of {state.axes[2].size} features, expected "
                f"{self.hidden}; {MALFORMED}"
            )
        return state

    def lengths(self, graph: Graph, time: Any) -> bool:
        """Whether each sequence has a length of its own; time: x's axis of time."""
        given = self.inputs[4]
        if isinstance(given, Const):
            wanted = Size(time.rows) if time.size is None else time.size
            graph.budget.take(given.array.size, self.node)
            like = given.array.dtype == object or not isinstance(wanted, Size)
            if like and given.array.size and np.all(given.array == wanted):
                return False
            raise refuse(self.node, "constant sequence_lens", "make the lengths an input")
        return given is not None

    def build(self, graph: Graph, x: Value) -> tuple[Value, Value, Value | None, bool]:
        """Y, Y_h, Y_c and whether it reads lengths."""
        if x.ndim != 3:
            raise ModelFormatError(f"{self.node}: X has {x.ndim} axes, expected 3")
        time, batch = (1, 0) if self.layout else (0, 1)
        ragged = self.lengths(graph, x.axes[time])
        x = restored(x)
        n = x.axes[-1].size
        if x.axes[-1].kind == FEATURE and n != self.cells[0]["weight_ih"].shape[1]:
            raise ModelFormatError(
                f"{self.node}: X has {x.axes[-1].size} features, W is for "
                f"{self.cells[0]['weight_ih'].shape[1]}"
            )
        options = self.options()
        if self.reverse and x.axes[time].kind != ONE:
            options["reverse"] = True
        made = graph.recurrent(
            self.node, _KINDS[self.op], x, self.cells, time=time, batch=batch,
            hidden=self.hidden, out=self.hidden, directions=self.directions,
            initial=self.initial(graph), options=options,
        )  # fmt: skip
        y, h, c = made.y, made.h, made.c
        y = split_features(y, (self.directions, self.hidden))
        if self.layout:
            h, c = (v if v is None else permute(self.node, v, (1, 0, 2)) for v in (h, c))  # type: ignore[assignment]
        else:
            y = permute(self.node, y, (0, 2, 1, 3))
        return y, h, c, ragged


def joined(node: str, value: Value) -> Value:
    """An operator's own Y as an output of a file, [time, D, batch, H] or with layout 1 [batch,
    time, D, H], as a model returns it: both directions' features on the last axis."""
    made = value.node
    if made is None or not made.cells or value.states or value.ndim != 4:
        return value
    for order in ((0, 2, 1, 3), (0, 1, 2, 3)):
        moved = permute(node, value, order)
        rows, rest = moved.axes[:2], [a.kind for a in moved.axes[2:]]
        found = factors(moved, FEATURE)
        if all(a.kind == ROW for a in rows) and (rest, found) in (
            ([ONE, FEATURE], [3]), ([FEATURE, FEATURE], [2, 3])
        ):  # fmt: skip
            return replace(moved, axes=(*rows, Axis(FEATURE, made.width, order=(0,))))
    return value
