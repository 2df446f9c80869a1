# SPDX-License-Identifier: MIT
"""Arithmetic on constants, element by element, where an element may be a symbol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clstm.axes import AnySize, Size
from clstm.errors import ModelFormatError, UnsupportedError

from .const import MOST_SIZES, Array, Call, Const


def _times(what: str, a: Any, b: Any) -> AnySize:
    if isinstance(a, Size) and isinstance(b, Size):
        return _size(what, (*a.rows, *b.rows), a.times * b.times)
    if isinstance(a, Size):
        a, b = b, a
    if isinstance(b, Size):
        if a == 0:
            return 0
        if a < 0:  # what compares sizes takes them to be from 1 on
            raise UnsupportedError(f"{what}: makes a size known only when the model runs negative")
        return _size(what, b.rows, int(a) * b.times)
    return int(a) * int(b)


def _size(what: str, rows: tuple[int, ...], times: int) -> Size:
    """No larger than a size can be: squares of squares would take all memory there is."""
    if len(rows) > MOST_SIZES or times >= 2**63:
        raise UnsupportedError(f"{what}: makes a size that no array has")
    return Size(tuple(sorted(rows)), times)


def _symbolic(what: str, op: str, a: Any, b: Any) -> Any:
    """One element, of which a or b may be a Size."""
    if not isinstance(a, Size) and not isinstance(b, Size):
        return _PLAIN[op](np.int64(a), np.int64(b)).item()
    if op == "Mul":
        return _times(what, a, b)
    if op == "Div":
        if a == b:
            return 1
        if isinstance(a, Size) and not isinstance(b, Size) and b > 0 and a.times % b == 0:
            return Size(a.rows, a.times // int(b))
    if op in ("Add", "Sub") and not isinstance(b, Size) and b == 0:
        return a
    if op == "Add" and a == 0:
        return b
    if op == "Sub" and a == b:
        return 0
    if op == "Equal":  # a size is from 1 on; two symbols may be equal by chance
        if a == b:
            return True
        other = b if isinstance(a, Size) else a
        if not isinstance(other, Size) and other < 1:
            return False
    if op == "Max" and min((n for n in (a, b) if not isinstance(n, Size)), default=2) <= 1:
        return a if isinstance(a, Size) else b
    raise UnsupportedError(f"{what}: computes with a size known only when the model runs")


def _divide(a: Array, b: Array) -> Array:
    """Of integers towards 0, in the memory of one result."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if not np.all(b):
        raise ZeroDivisionError("division by 0")
    found = np.asarray(np.fmod(a, b))
    np.subtract(a, found, out=found)
    np.floor_divide(found, b, out=found)
    return found


_PLAIN: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": np.power,
    "Equal": np.equal, "Greater": np.greater, "Less": np.less, "And": np.logical_and,
    "GreaterOrEqual": np.greater_equal, "LessOrEqual": np.less_equal,
    "Or": np.logical_or, "Max": np.maximum, "Min": np.minimum,
}  # fmt: skip
_SINGLE: dict[str, Callable[..., Any]] = {
    "Neg": np.negative, "Abs": np.abs, "Sqrt": np.sqrt, "Not": np.logical_not, "Exp": np.exp,
    "Floor": np.floor, "Ceil": np.ceil, "Reciprocal": np.reciprocal,
}  # fmt: skip


_REDUCE: dict[str, Any] = {
    "ReduceProd": np.multiply, "ReduceSum": np.add, "ReduceMax": np.maximum,
    "ReduceMin": np.minimum,
}  # fmt: skip


def _joint(c: Call, consts: Sequence[Const]) -> tuple[int, dict[int, Size]]:
    """Elements of the broadcast result and its repeated axes."""
    shape = np.broadcast_shapes(*[k.array.shape for k in consts])
    repeated: dict[int, Size] = {}
    for k in consts:
        for i, size in k.repeated.items():
            place = i + len(shape) - k.array.ndim
            if shape[place] != 1 or repeated.get(place, size) != size:
                raise UnsupportedError(f"{c.what}: of constants whose sizes depend on the input")
            repeated[place] = size
    return math.prod(shape), repeated


def _binary(c: Call) -> Const:
    found = c.get(0)
    for i in range(1, len(c.inputs)):
        found = _pairwise(c, found, c.get(i))
    return found


def _pairwise(c: Call, a: Const, b: Const) -> Const:
    n, repeated = _joint(c, [a, b])
    if object in (a.array.dtype, b.array.dtype):
        c.take(n, np.dtype(object))
        x, y = np.broadcast_arrays(a.array, b.array)
        out = np.empty(x.shape, object)
        for i in np.ndindex(x.shape):
            out[i] = _symbolic(c.what, c.op, x[i], y[i])
        if c.op == "Equal":
            return Const(out.astype(bool), repeated)
        plain = not any(isinstance(v, Size) for v in out.reshape(-1))
        return Const(out.astype(np.int64) if plain else out, repeated)
    c.take(n, np.result_type(a.array, b.array), a.array.dtype)
    with np.errstate(all="ignore"):
        found = np.asarray(_PLAIN[c.op](a.array, b.array))
    if found.dtype != bool:
        found = found.astype(a.array.dtype, copy=False)
    return Const(found, repeated)


def _unary(c: Call) -> Const:
    const = c.get(0)
    if const.array.dtype == object:
        raise UnsupportedError(f"{c.what}: computes with a size known only when the model runs")
    dtype = const.array.dtype
    c.take(const.array.size, dtype, dtype if dtype.kind == "f" else np.dtype(np.float64))
    with np.errstate(all="ignore"):
        found = np.asarray(_SINGLE[c.op](const.array))
        return Const(found.astype(dtype, copy=False), const.repeated)


def _where(c: Call) -> Const:
    consts = [c.get(i) for i in range(3)]
    if consts[0].array.dtype != bool:
        raise ModelFormatError(f"{c.what}: a condition of {consts[0].array.dtype}")
    n, repeated = _joint(c, consts)
    c.take(n, np.result_type(consts[1].array, consts[2].array))
    out = np.where(*[k.array for k in consts])
    if out.dtype == object and not any(isinstance(v, Size) for v in out.reshape(-1)):
        out = out.astype(np.int64)
    return Const(out, repeated)


def _reduce(c: Call) -> Const:
    array, axes = c.plain(), c.ints(1, "axes")
    keep = bool(c.attrs.get("keepdims", 1))
    if not axes and c.attrs.get("noop_with_empty_axes"):
        return Const(array)
    if array.dtype == object:
        if axes not in (None, [0], [-1]) or array.ndim != 1 or c.op != "ReduceProd":
            raise UnsupportedError(f"{c.what}: of a size known only when the model runs")
        found: AnySize = 1
        for n in array:
            found = _times(c.what, found, n)
        out = np.empty((1,) if keep else (), object)
        out[...] = found
        return Const(out)
    axis = tuple(axes) if axes else None  # of an empty list, too, all
    c.take(array.size, array.dtype)
    found = _REDUCE[c.op].reduce(array, axis=axis, dtype=array.dtype, keepdims=keep)
    return Const(np.asarray(found))


def _matmul(c: Call) -> Const:
    """Rows of a constant may be repeated, as those of an initial state of zeros are."""
    rows, b = c.get(0), c.plain(1)
    a = rows.array
    if a.ndim not in (1, 2, 3) or b.ndim != 2 or a.dtype.kind != "f" or b.dtype.kind != "f":
        raise UnsupportedError(f"{c.what}: a product of constants of {a.ndim} and {b.ndim} axes")
    if a.ndim - 1 in rows.repeated:
        raise UnsupportedError(f"{c.what}: of a constant whose size depends on the input")
    n = math.prod(a.shape[:-1]) * b.shape[1]
    # A number for 64 multiply-adds, too: 1 GiB of factors could take hours.
    c.take(max(a.size + b.size + n, n * b.shape[0] // 64), np.dtype(np.float64))
    c.take(n, a.dtype)
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) @ b.astype(np.float64)
    return Const(product.astype(a.dtype, copy=False), rows.repeated)


ARITHMETIC: dict[str, Callable[[Call], Const]] = {
    "Where": _where, "MatMul": _matmul,
    **dict.fromkeys(_PLAIN, _binary), **dict.fromkeys(_SINGLE, _unary),
    **dict.fromkeys(_REDUCE, _reduce),
}  # fmt: skip
