# SPDX-License-Identifier: MIT
"""What each operation of torch.export is in clstm's layers.

The signatures are those of aten (torch/native_functions.yaml), the arguments as `Translation.get`
takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..axes import ONE, ROW, Size, Value, axis_number, refuse, reshape
from ..errors import UnsupportedError
from .export import Differs, Node
from .nodes import LOOP
from .translate import Parts, Translation

_END = 2**63 - 1  # torch's stop for "to the end"
Operation = Callable[..., Any]
Named = TypeVar("Named", bound=Operation)
OPERATIONS: dict[str, Operation] = {}
_APART = "; keep time, batch and features on axes of their own, with sizes as x.shape[...] or -1"


def operation(*names: str) -> Callable[[Named], Named]:
    """The function stands for the operations of these names, with or without an overload."""

    def add(function: Named) -> Named:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return add


# ---- nothing is computed ------------------------------------------------------------------


@operation("to", "_to_copy", "type_as")
def _cast(t: Translation, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    before, after = (n.meta["val"].dtype for n in (node.pair[0].args[0], node.pair[0]))
    kinds = [(d.is_floating_point, str(d) == "torch.bool") for d in (before, after)]
    narrow = {"torch.bfloat16", "torch.float16"} & {str(after)}
    if before != after and (kinds[0] != kinds[1] or kinds[0][1] or narrow):
        raise refuse(node.where, f"casts {before} to {after}", "clstm computes in float32")
    return t.value(node, x)


@operation("getitem")
def _getitem(t: Translation, node: Node, x: Any, index: Any) -> Any:
    parts = t.get(node, x)
    if isinstance(parts, Parts):
        if isinstance(index, Size | Differs):
            if any(n.args[1] != len(n.args[0].meta["val"]) - 1 for n in node.pair):
                raise refuse(node.where, "takes another part at another length")
            index = -1
        if parts.count is not None and index == parts.count - 1:
            index = -1
        return parts.pick(index)
    found = parts[index]
    if found is None:
        raise refuse(node.where, f"reads part {index} of an operation, which clstm has not")
    return found


# ---- axes ---------------------------------------------------------------------------------


@operation("transpose", "swapaxes", "swapdims")
def _transpose(t: Translation, node: Node, x: Any, a: int, b: int) -> Value:
    v = t.value(node, x)
    order = list(range(v.ndim))
    i, j = axis_number(node.where, v, a), axis_number(node.where, v, b)
    order[i], order[j] = order[j], order[i]
    return t.graph.permute(node.where, v, order)


@operation("t", "mT", "numpy_T")
def _reversed_axes(t: Translation, node: Node, x: Any) -> Value:
    v = t.value(node, x)
    order = list(range(v.ndim))
    order = order[::-1] if node.target.startswith("numpy_T") else [*order[:-2], *order[-2:][::-1]]
    return t.graph.permute(node.where, v, order)


@operation("permute")
def _permute(t: Translation, node: Node, x: Any, order: Sequence[int]) -> Value:
    v = t.value(node, x)
    return t.graph.permute(node.where, v, [axis_number(node.where, v, i) for i in order])


@operation("movedim")
def _movedim(t: Translation, node: Node, x: Any, source: Any, target: Any) -> Value:
    v = t.value(node, x)
    pairs = [(s, d) if isinstance(s, tuple) else ((s,), (d,)) for s, d in [(source, target)]]
    old = [axis_number(node.where, v, i) for i in pairs[0][0]]
    new = [axis_number(node.where, v, i) for i in pairs[0][1]]
    left = iter([i for i in range(v.ndim) if i not in old])
    places = dict(zip(new, old, strict=True))
    order = [places[i] if i in places else next(left) for i in range(v.ndim)]
    return t.graph.permute(node.where, v, order)


@operation("unsqueeze")
def _unsqueeze(t: Translation, node: Node, x: Any, axis: int) -> Value:
    return t.graph.unsqueeze(node.where, t.value(node, x), [axis])


@operation("squeeze")
def _squeeze(t: Translation, node: Node, x: Any, axes: Any = None) -> Value:
    v = t.value(node, x)
    every = range(v.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    places = [axis_number(node.where, v, i) for i in every]
    for i in places:
        if v.axes[i].size is None:
            raise refuse(node.where, f"takes {v.axes[i]} away where that is 1, and only there",
                         "write squeeze(dim) of an axis that is always 1")  # fmt: skip
    # torch leaves an axis that is not 1
    return t.graph.squeeze(node.where, v, [i for i in places if v.axes[i].size == 1])


@operation("view")
def _reshape(t: Translation, node: Node, x: Any, shape: Any, *_: Any) -> Value:
    v = t.value(node, x)
    if any(isinstance(n, Differs) for n in shape):
        raise refuse(node.where, "a shape depends on the length, not as an axis of the input does")
    try:
        return reshape(node.where, v, shape)
    except UnsupportedError as error:
        raise UnsupportedError(str(error).partition(";")[0] + _APART) from None


@operation("flatten")
def _flatten(t: Translation, node: Node, x: Any, start: int = 0, end: int = -1) -> Value:
    v = t.value(node, x)
    i, j = axis_number(node.where, v, start), axis_number(node.where, v, end)
    middle: list[Any] = [-1] if j > i else list(v.shape[i : i + 1])
    return reshape(node.where, v, [*v.shape[:i], *middle, *v.shape[j + 1 :]])


@operation("unflatten")
def _unflatten(t: Translation, node: Node, x: Any, axis: int, sizes: Any) -> Value:
    v = t.value(node, x)
    i = axis_number(node.where, v, axis)
    shape: list[Any] = [*v.shape[:i], *sizes, *v.shape[i + 1 :]]
    return reshape(node.where, v, shape)


@operation("expand")
def _expand(t: Translation, node: Node, x: Any, shape: Any, **_: Any) -> Value:
    if any(isinstance(n, Differs) for n in shape):
        raise refuse(node.where, "repeats its input by the length")
    return t.graph.expand(node.where, t.value(node, x), shape)


# ---- parts --------------------------------------------------------------------------------


@operation("select")
def _select(t: Translation, node: Node, x: Any, axis: int, index: Any) -> Value:
    v = t.value(node, x)
    axis = axis_number(node.where, v, axis)
    if isinstance(index, Size | Differs):
        made = [n.args[2] - n.args[0].meta["val"].shape[axis] for n in node.pair]
        if made[0] != made[1]:
            raise refuse(node.where, "an index depends on the length")
        index = made[0]
    return _one_of(t, node, v, axis, index)


def _one_of(t: Translation, node: Node, v: Value, axis: int, index: int) -> Value:
    a = v.axes[axis]
    first = index == 0 and a.rows == (t.graph.time,)
    if a.kind == ROW and a.size is None and index != -1 and not first:
        raise refuse(node.where, f"takes element {index} of {a}; of time, clstm takes the last, "
                     f"[-1], or behind a recurrent layer the first. It may be {LOOP}")  # fmt: skip
    if a.kind in (ROW, ONE) and a.size == 1 and v.states is None and a.rows != (t.graph.time,):
        return t.graph.squeeze(node.where, v, [axis])
    return t.graph.select(node.where, v, axis, index)


@operation("slice")
def _slice(
    t: Translation, node: Node, x: Any, axis: int = 0, start: Any = None, stop: Any = None,
    step: int = 1,
) -> Value:  # fmt: skip
    v = t.value(node, x)
    axis = axis_number(node.where, v, axis)
    ends: list[int | None] = []
    for i, given in ((2, start), (3, stop)):
        if isinstance(given, Size | Differs):
            made = [n.args[i] - n.args[0].meta["val"].shape[axis] for n in node.pair]
            if made[0] != made[1] or made[0] > 0:
                raise refuse(node.where, "a slice depends on the length, and not from its end")
            given = made[0] or (None if i == 3 else _END)
        ends.append(None if i == 3 and given is not None and given >= _END else given)
    first, last = ends[0] or 0, ends[1]
    plain = step == 1 and (first, last) in ((0, None), (-1, None), (0, 1))
    if v.axes[axis].size is None and not plain:
        raise refuse(node.where, f"takes a part of {v.axes[axis]}; of time, clstm takes the last "
                     "step only, or behind a recurrent layer the first")  # fmt: skip
    return t.graph.slice(node.where, v, axis, first, last, step)


@operation("narrow")
def _narrow(t: Translation, node: Node, x: Any, axis: int, start: int, length: Any) -> Value:
    if isinstance(length, Size | Differs):
        raise refuse(node.where, "a slice depends on the length")
    return t.graph.slice(node.where, t.value(node, x), axis, start, start + length)


@operation("split", "split_with_sizes", "chunk")
def _split(t: Translation, node: Node, x: Any, sizes: Any, axis: int = 0) -> Parts:
    v = t.value(node, x)
    axis = axis_number(node.where, v, axis)
    n = v.axes[axis].size
    if n is None or isinstance(sizes, Size | Differs):
        raise refuse(node.where, f"splits {v.axes[axis]}", "clstm splits features")
    if node.target.startswith("chunk"):
        sizes = -(-n // sizes)
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    ends = np.cumsum([0, *sizes])

    def pick(i: int) -> Value:
        i %= len(sizes)
        return t.graph.slice(node.where, v, axis, int(ends[i]), int(ends[i + 1]))

    return Parts(pick, len(sizes))


@operation("unbind")
def _unbind(t: Translation, node: Node, x: Any, axis: int = 0) -> Parts:
    v = t.value(node, x)
    axis = axis_number(node.where, v, axis)
    return Parts(lambda i: _one_of(t, node, v, axis, i), v.axes[axis].size)


@operation("cat")
def _cat(t: Translation, node: Node, parts: Any, axis: int = 0) -> Value:
    return t.graph.concat(node.where, [t.value(node, p) for p in parts], axis)


@operation("stack")
def _stack(t: Translation, node: Node, parts: Any, axis: int = 0) -> Value:
    values = [t.value(node, p) for p in parts]
    axis = axis_number(node.where, values[0], axis, 1)
    return t.graph.concat(
        node.where, [t.graph.unsqueeze(node.where, v, [axis]) for v in values], axis
    )


# ---- arithmetic ---------------------------------------------------------------------------


def _is_value(t: Translation, node: Node, x: Any) -> bool:
    return isinstance(t.get(node, x), Value)


def scaled(t: Translation, node: Node, x: Any, scale: Any, shift: Any = None) -> Value:
    return t.graph.affine(node.where, t.value(node, x), scale, shift)


@operation("add", "sub")
def _add(t: Translation, node: Node, a: Any, b: Any, alpha: Any = 1) -> Value:
    sign = t.number(node, alpha) * (-1 if node.target.startswith("sub") else 1)
    if not _is_value(t, node, a):
        return scaled(t, node, b, sign, t.array(node, a))
    if not _is_value(t, node, b):
        return scaled(t, node, a, None, sign * t.array(node, b))
    second = t.value(node, b)
    if sign != 1:
        second = t.graph.affine(node.where, second, sign, None)
    return t.graph.add(node.where, t.value(node, a), second)


@operation("rsub")
def _rsub(t: Translation, node: Node, a: Any, b: Any, alpha: Any = 1) -> Value:
    return scaled(t, node, a, -t.number(node, alpha), t.array(node, b))


@operation("mul")
def _mul(t: Translation, node: Node, a: Any, b: Any) -> Value:
    if not _is_value(t, node, a):
        a, b = b, a
    if not _is_value(t, node, b):
        return scaled(t, node, a, t.array(node, b))
    return t.graph.mul(node.where, t.value(node, a), t.value(node, b))


@operation("div")
def _div(t: Translation, node: Node, a: Any, b: Any, rounding_mode: Any = None) -> Value:
    if _is_value(t, node, b) or rounding_mode is not None:
        raise refuse(node.where, "divides by a value, or rounds", "clstm divides by constants")
    with np.errstate(divide="ignore"):
        return scaled(t, node, a, 1 / t.array(node, b).astype(np.float64))


@operation("neg")
def _neg(t: Translation, node: Node, x: Any) -> Value:
    return scaled(t, node, x, -1)


@operation("square", "pow")
def _square(t: Translation, node: Node, x: Any, exponent: Any = 2) -> Value:
    v = t.value(node, x)
    if t.number(node, exponent) != 2:
        raise refuse(node.where, f"the power {exponent}", "clstm has x * x only")
    return t.graph.mul(node.where, v, v)


@operation("linear")
def _linear(t: Translation, node: Node, x: Any, weight: Any, bias: Any = None) -> Value:
    prefix = t.prefix({"weight": weight, "bias": bias})
    return t.graph.linear(node.where, t.value(node, x), t.array(node, weight),
                          t.optional(node, bias), prefix)  # fmt: skip


@operation("matmul", "mm")
def _matmul(t: Translation, node: Node, x: Any, weight: Any) -> Value:
    if _is_value(t, node, weight):
        raise refuse(node.where, "a product of two values",
                     "clstm multiplies by constant matrices")  # fmt: skip
    return _product(t, node, x, weight)


def _product(t: Translation, node: Node, x: Any, weight: Any, bias: Any = None) -> Value:
    array = t.array(node, weight)
    if array.ndim == 1 and bias is None:
        made = t.graph.linear(node.where, t.value(node, x), array[None])
        return t.graph.squeeze(node.where, made, [-1])
    if array.ndim != 2:
        raise refuse(node.where, f"a product with a constant of shape {array.shape}")
    return t.graph.linear(node.where, t.value(node, x), array.T, t.optional(node, bias))


@operation("mean", "sum")
def _total(
    t: Translation, node: Node, x: Any, axes: Any = None, keep: bool = False, **_: Any
) -> Value:
    v, mean = t.value(node, x), node.target.startswith("mean")
    places = range(v.ndim) if axes in (None, ()) else [axes] if isinstance(axes, int) else axes
    return t.graph.total(node.where, v, places, mean=mean, keep=keep)


@operation("max", "min", "amax", "amin", "argmax", "argmin", "topk", "cumsum")
def _outside(t: Translation, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    t.value(node, x)
    word = node.target.partition(".")[0]
    raise refuse(node.where, "is no operation that clstm has",
                 f"return what it reads, and take the {word} outside of the model")  # fmt: skip


@operation("addmm")
def _addmm(
    t: Translation, node: Node, bias: Any, x: Any, weight: Any, *, beta: Any = 1, alpha: Any = 1
) -> Value:
    if beta != 1 or alpha != 1 or _is_value(t, node, bias):
        raise refuse(node.where, "beta or alpha other than 1, or a sum with a value")
    return _product(t, node, x, weight, bias)


__all__ = ["OPERATIONS", "operation", "scaled"]
