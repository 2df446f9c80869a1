# SPDX-License-Identifier: MIT
"""ONNX's operators on values of the model, one function for each: axes followed, layers made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clstm import nn
from clstm.axes import FEATURE, LOOP, ONE, ROW, AnySize, Size, Value, axis_number, refuse
from clstm.errors import ModelFormatError
from clstm.graph import Graph

from .const import Const, check_dropout, shape_const, squeezed
from .constants import shape_part, split_sizes
from .partial import fuse
from .tensors import FLOATS


@dataclass
class Op:
    """One node of the file with its inputs: values, constants, partial results or None."""

    graph: Graph
    op: str
    name: str  # for messages
    inputs: Sequence[Any]
    attrs: Mapping[str, Any]
    n_outputs: int
    opset: int
    declared: Sequence[AnySize | None] = ()  # sizes of the result of a Reshape

    def value(self, i: int = 0) -> Value:
        found = self.inputs[i] if i < len(self.inputs) else None
        if not isinstance(found, Value):
            raise refuse(self.name, f"input {i} is a constant, expected one that is computed")
        return found

    def const(self, i: int, word: str) -> Const:
        found = self.maybe(i, word)
        if found is None:
            raise ModelFormatError(f"{self.name}: {word} is missing")
        return found

    def maybe(self, i: int, word: str) -> Const | None:
        found = self.inputs[i] if i < len(self.inputs) else None
        if found is not None and not isinstance(found, Const):
            raise refuse(self.name, f"its {word} is not constant, but computed from an input")
        return found

    def ints(self, i: int, attr: str) -> list[int] | None:
        const = self.maybe(i, attr)
        if const is not None:
            return const.ints(f"{self.name}, {attr}")
        return [int(n) for n in self.attrs[attr]] if attr in self.attrs else None

    def scalar(self, i: int, attr: str, default: float) -> float:
        const = self.maybe(i, attr)
        if const is None:
            return float(self.attrs.get(attr, default))
        if const.array.size != 1:
            raise ModelFormatError(f"{self.name}: {attr} is not one number")
        return float(const.array.reshape(()).item())

    def sizes(self, value: Value, i: int, attr: str) -> list[AnySize]:
        const = self.maybe(i, attr)
        given: list[AnySize] = (
            list(self.attrs.get(attr, ())) if const is None else const.sizes(f"{self.name}, {attr}")
        )
        return given


# ---- axes ---------------------------------------------------------------------------------


def _identity(o: Op) -> Any:
    if o.op == "Dropout":
        check_dropout(o.name, o.maybe(2, "training_mode"))
    return o.inputs[0]


def _cast(o: Op) -> Any:
    value, to = o.inputs[0], int(o.attrs.get("to", 1))
    tokens = (
        isinstance(value, Value)
        and value.node is not None
        and (value.node is o.graph.source and not o.graph.source.width)
    )
    if to in (10, 16):
        raise refuse(o.name, "rounds to a shorter floating point type, and clstm computes in "
                     "float32", "export the model as float32")  # fmt: skip
    if to not in ((6, 7) if tokens else FLOATS):
        raise refuse(o.name, "turns numbers into others by a cast")
    return value


def _transpose(o: Op) -> Value:
    value = o.value()
    return o.graph.permute(o.name, value, list(o.attrs.get("perm", range(value.ndim)[::-1])))


def _reshape(o: Op) -> Value:
    value = o.value()
    shape = o.sizes(value, 1, "shape")
    if not o.attrs.get("allowzero"):
        if any(n == 0 and i >= value.ndim for i, n in enumerate(shape)):
            raise ModelFormatError(f"{o.name}: copies a size that is not there")
        shape = [value.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return o.graph.reshape(o.name, value, _without_the_length(o, value, shape))


def _without_the_length(o: Op, value: Value, shape: Sequence[AnySize]) -> Sequence[AnySize]:
    """Of an operator's (time, batch, directions, H), torch's newer exporter makes [n, -1, D * H],
    where n is the length at the export even if the length is dynamic. At that length it merges
    the last two axes; at others it would mix the rows, which torch never does. A user's own
    reshape may look the same, but then its -1 is declared to be another size than the batch."""
    rows, rest = value.axes[:2], value.axes[2:]
    if (
        len(rest) == 2
        and all(a.kind == ROW and a.size is None and len(a.rows) == 1 for a in rows)
        and all(a.kind in (FEATURE, ONE) for a in rest)
        and len(shape) == 3
        and isinstance(shape[0], int)
        and shape[1:] == [-1, math.prod(a.size or 0 for a in rest)]
        and o.declared == [shape[0], value.shape[1], shape[2]]
    ):
        return [*value.shape[:2], shape[2]]
    return shape


def _flatten(o: Op) -> Value:
    value, axis = o.value(), int(o.attrs.get("axis", 1))
    axis = axis if axis == value.ndim else axis_number(o.name, value, axis)
    parts = value.shape[:axis], value.shape[axis:]
    known = [[n for n in p if isinstance(n, int)] for p in parts]
    rows = [tuple(r for n in p if isinstance(n, Size) for r in n.rows) for p in parts]
    shape = [Size(r, math.prod(k)) if r else math.prod(k) for r, k in zip(rows, known, strict=True)]
    return o.graph.reshape(o.name, value, shape)


def _squeeze(o: Op) -> Value:
    return o.graph.squeeze(o.name, o.value(), squeezed(o.name, o.ints(1, "axes")))


def _unsqueeze(o: Op) -> Value:
    return o.graph.unsqueeze(o.name, o.value(), o.ints(1, "axes") or [])


def _expand(o: Op) -> Value:
    value = o.value()
    return o.graph.expand(o.name, value, o.sizes(value, 1, "shape"))


def _slice(o: Op) -> Any:
    starts, ends = o.ints(1, "starts"), o.ints(2, "ends")
    if starts is None or ends is None or len(starts) != len(ends):
        raise ModelFormatError(f"{o.name}: starts and ends do not fit")
    axes = o.ints(3, "axes") or list(range(len(starts)))
    steps = o.ints(4, "steps") or [1] * len(starts)
    if len(axes) != len(starts) or len(steps) != len(starts):
        raise ModelFormatError(f"{o.name}: axes or steps do not fit")
    value = o.value()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise ModelFormatError(f"{o.name}: a step of 0")
        stop = None if end >= 2**31 - 1 or (step < 0 and end < -(2**31)) else end
        value = o.graph.slice(o.name, value, axis, start, stop, step)
    return value


def _split(o: Op) -> list[Value]:
    value = o.value()
    axis = axis_number(o.name, value, int(o.attrs.get("axis", 0)))
    size = value.axes[axis].size
    if size is None:
        if o.n_outputs == 1:
            return [value]
        raise refuse(o.name, f"splits {value.axes[axis]}, whose size is known only when run")
    sizes = split_sizes(o.name, size, o.ints(1, "split"), o.attrs, o.n_outputs)
    ends = np.cumsum(sizes).tolist()
    return [o.graph.slice(o.name, value, axis, end - n, end)
            for n, end in zip(sizes, ends, strict=True)]  # fmt: skip


def _gather(o: Op) -> Value:
    axis = int(o.attrs.get("axis", 0))
    if isinstance(o.inputs[0], Const):
        table = o.inputs[0].floats(o.name)
        if axis not in (0, -table.ndim) or table.ndim != 2:
            raise refuse(o.name, f"looks up in a table of {table.ndim} axes along axis {axis}")
        return o.graph.embedding(o.name, o.value(1), table)
    value, index = o.value(), o.const(1, "index")
    picked = index.ints(f"{o.name}, index")
    if index.array.ndim == 0:
        return o.graph.select(o.name, value, axis, picked[0])
    if not picked or picked != list(range(picked[0], picked[0] + len(picked))):
        raise refuse(o.name, f"picks the elements {picked[:8]}", "use a Linear layer")
    stop = picked[-1] + 1 or None
    return o.graph.slice(o.name, value, axis, picked[0], stop)


def _concat(o: Op) -> Any:
    found = [i for i, v in enumerate(o.inputs) if isinstance(v, Const) and not v.array.size]
    values = [o.value(i) for i in range(len(o.inputs)) if i not in found]
    if len(values) == 1:
        return values[0]
    return o.graph.concat(o.name, values, int(o.attrs["axis"]))


def _shape(o: Op) -> Const:
    return shape_const(shape_part(o.value().shape, o.attrs))


# ---- arithmetic -------------------------------------------------------------------------------


def _arithmetic(o: Op) -> Any:
    a, b = o.inputs[:2]
    if isinstance(a, Const):
        return _against(o, o.value(1), a, left=True)
    if isinstance(b, Const):
        return _against(o, o.value(0), b, left=False)
    if o.op == "Div":
        raise refuse(o.name, "divides one value by another")
    call = {"Add": o.graph.add, "Sub": o.graph.sub, "Mul": o.graph.mul}[o.op]
    return call(o.name, o.value(0), o.value(1))


def _against(o: Op, value: Value, const: Const, left: bool) -> Value:
    o.graph.budget.take(8 * const.array.size, o.name)
    number = const.array.astype(np.float64)
    grown = const.array.ndim - value.ndim
    if grown > 0:
        value = o.graph.unsqueeze(o.name, value, range(grown))
    for i, size in const.repeated.items():
        if value.shape[i - const.array.ndim] != size:
            raise refuse(o.name, "repeats a value along time or the batch")
    scale: Any = None
    shift: Any = None
    if o.op == "Add":
        shift = number
    elif o.op == "Sub":
        scale, shift = (np.full(1, -1.0), number) if left else (None, -number)
    elif o.op == "Mul":
        scale = number
    elif left:
        raise refuse(o.name, "divides a constant by a value")
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = 1 / number
    return o.graph.affine(o.name, value, scale, shift)


def _neg(o: Op) -> Value:
    return o.graph.affine(o.name, o.value(), np.full(1, -1.0), None)


def _matmul(o: Op) -> Value:
    if not isinstance(o.inputs[1], Const):
        raise refuse(o.name, "a product of two values, or with a constant on its left")
    weight = o.inputs[1].floats(o.name)
    value = o.value()
    while weight.ndim > 2 and weight.shape[0] == 1 and weight.ndim <= value.ndim:
        weight = weight[0]
    if weight.ndim == 1:
        return o.graph.squeeze(o.name, o.graph.linear(o.name, value, weight[None]), [-1])
    return o.graph.linear(o.name, value, weight.T)


def _total(o: Op) -> Value:
    value, axes, mean = o.value(), o.ints(1, "axes"), o.op == "ReduceMean"
    if not axes and o.attrs.get("noop_with_empty_axes"):
        return value
    keep = bool(o.attrs.get("keepdims", 1))
    return o.graph.total(o.name, value, axes or range(value.ndim), mean=mean, keep=keep)


def _gemm(o: Op) -> Value:
    if isinstance(o.inputs[0], Const):
        raise refuse(o.name, "a product of constants, as the first step of a cell in a loop makes "
                     "it", f"it may be {LOOP}")  # fmt: skip
    alpha, beta = float(o.attrs.get("alpha", 1.0)), float(o.attrs.get("beta", 1.0))
    if o.attrs.get("transA"):
        raise refuse(o.name, "a transposed product, which mixes rows")
    weight = o.const(1, "weight").floats(o.name)
    if weight.ndim != 2:
        raise ModelFormatError(f"{o.name}: a weight of {weight.ndim} axes")
    weight = weight if o.attrs.get("transB") else weight.T
    bias = o.maybe(2, "bias")
    shift = None if bias is None else bias.floats(o.name)
    if shift is not None:
        if shift.ndim > 2 or (shift.ndim == 2 and shift.shape[0] != 1):
            raise refuse(o.name, f"a bias of shape {shift.shape}, expected a number for each "
                         "feature")  # fmt: skip
        shift = np.float32(beta) * np.broadcast_to(shift.reshape(-1), weight.shape[0])
    if alpha != 1:
        o.graph.budget.take(weight.nbytes, o.name)
        weight = np.float32(alpha) * weight
    return o.graph.linear(o.name, o.value(), weight, shift)


# ---- activations and norms ----------------------------------------------------------------------


def _layer(o: Op) -> nn.Layer:
    get = o.attrs.get
    if o.op == "LeakyRelu":
        return nn.LeakyReLU(float(get("alpha", 0.01)))
    if o.op == "Elu":
        return nn.ELU(float(get("alpha", 1.0)))
    if o.op == "Gelu":
        return nn.GELU(get("approximate", "none"))
    if o.op == "Clip":
        low, high = o.scalar(1, "min", -math.inf), o.scalar(2, "max", math.inf)
        if not low <= high:
            raise refuse(o.name, f"a minimum of {low:g} and a maximum of {high:g}",
                         "give a minimum that is not above the maximum")  # fmt: skip
        return nn.ReLU() if (low, high) == (0, math.inf) else nn.Hardtanh(low, high)
    return {"Relu": nn.ReLU, "Tanh": nn.Tanh, "Sigmoid": nn.Sigmoid, "Softplus": nn.Softplus}[
        o.op
    ]()


def _activation(o: Op) -> Value:
    return o.graph.activation(o.name, _layer(o), o.value())


def _hard_sigmoid(o: Op) -> Value:
    alpha, beta = float(o.attrs.get("alpha", 0.2)), float(o.attrs.get("beta", 0.5))
    line = o.graph.affine(o.name, o.value(), np.full(1, alpha), np.full(1, beta))
    return o.graph.activation(o.name, nn.Hardtanh(0.0, 1.0), line)


def _hard_swish(o: Op) -> Value:
    line = o.graph.affine(o.name, o.value(), np.full(1, 1 / 6), np.full(1, 0.5))
    return o.graph.mul(o.name, o.value(), o.graph.activation(o.name, nn.Hardtanh(0.0, 1.0), line))


def _selu(o: Op) -> Value:
    alpha = float(o.attrs.get("alpha", 1.6732632423543772))
    gamma = float(o.attrs.get("gamma", 1.0507009873554805))
    return o.graph.affine(
        o.name, o.graph.activation(o.name, nn.ELU(alpha), o.value()), np.full(1, gamma), None
    )


def _swish(o: Op) -> Value:
    if float(o.attrs.get("alpha", 1.0)) != 1:
        raise refuse(o.name, f"an alpha of {o.attrs['alpha']:g}, and SiLU has 1")
    return o.graph.activation(o.name, nn.SiLU(), o.value())


def _prelu(o: Op) -> Value:
    return o.graph.prelu(o.name, o.value(), o.const(1, "slope").floats(o.name))


def _softmax(o: Op) -> Value:
    value = o.value()
    axis = int(o.attrs.get("axis", -1 if o.opset >= 13 else 1))
    if o.opset < 13 and axis_number(o.name, value, axis) != value.ndim - 1:
        raise refuse(o.name, "a softmax over several axes together",
                     "export with an operator set from 13 on")  # fmt: skip
    return o.graph.softmax(o.name, value, axis, log=o.op == "LogSoftmax")


def _epsilon(o: Op) -> float:
    value = float(o.attrs.get("epsilon", 1e-5))
    if not 0 <= value < math.inf:
        raise ModelFormatError(f"{o.name}: epsilon={value}, expected a number from 0 on")
    return value


def _layer_norm(o: Op) -> Value:
    value = o.value()
    if axis_number(o.name, value, int(o.attrs.get("axis", -1))) != value.ndim - 1:
        raise refuse(o.name, "a layer norm over more than the features")
    words = [o.maybe(i, w) for i, w in ((1, "scale"), (2, "bias"))]
    weight, bias = (None if k is None else k.floats(o.name) for k in words)
    return o.graph.layer_norm(o.name, value, weight, bias, _epsilon(o))


def _batch_norm(o: Op) -> Value:
    if o.attrs.get("training_mode"):
        raise refuse(o.name, "batch norm in training", "export in evaluation: model.eval()")
    words = ("scale", "bias", "mean", "var")
    weight, bias, mean, var = (o.const(i + 1, w).floats(o.name) for i, w in enumerate(words))
    value = o.value()
    return o.graph.batch_norm(o.name, value, min(1, value.ndim - 1), mean, var, weight, bias,
                              _epsilon(o))  # fmt: skip


OPERATORS: dict[str, Callable[[Op], Any]] = {
    "Identity": _identity, "Dropout": _identity, "Cast": _cast, "Transpose": _transpose,
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Expand": _expand, "Slice": _slice, "Split": _split, "Gather": _gather, "Concat": _concat,
    "Shape": _shape, "Add": _arithmetic, "Sub": _arithmetic, "Mul": _arithmetic,
    "Div": _arithmetic, "Neg": _neg, "MatMul": _matmul, "Gemm": _gemm, "Relu": _activation,
    "LeakyRelu": _activation, "Elu": _activation, "Tanh": _activation, "Sigmoid": _activation,
    "Softplus": _activation, "Gelu": _activation, "Clip": _activation, "Selu": _selu,
    "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "Swish": _swish, "PRelu": _prelu,
    "Softmax": _softmax, "LogSoftmax": _softmax, "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "ReduceMean": _total, "ReduceSum": _total,
}  # fmt: skip


def apply(o: Op) -> list[Any]:
    """What a node gives."""
    found = fuse(o)
    if found is None:
        if o.op not in OPERATORS:
            way = f"if this is time, it may be {LOOP}" if o.op == "SplitToSequence" else ""
            raise refuse(o.name, "an operator that clstm does not run on values", way)
        found = OPERATORS[o.op](o)
    return found if isinstance(found, list) else [found]
