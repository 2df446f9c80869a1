# SPDX-License-Identifier: MIT
"""Constants of an ONNX graph and operations on them, run once when a file is read.

Sizes known only when the model runs stay symbols (`Size`): in the elements of what Shape gives,
and in the axes along which a constant is only repeated, as zeros expanded to the batch are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clstm.axes import AnySize, Size
from clstm.errors import ModelFormatError, UnsupportedError

from ..budget import Budget
from .arithmetic import ARITHMETIC
from .const import MALFORMED, Array, Call, Const, check_dropout, shape_const, squeezed
from .tensors import BFLOAT16, dtype_of


class Folder:
    """Runs operations whose inputs are all constant."""

    def __init__(self, budget: Budget, opset: int) -> None:
        self.budget, self.opset = budget, opset

    def can(self, op: str) -> bool:
        return op in _RUN

    def run(
        self, op: str, what: str, inputs: Sequence[Const | None], attrs: Mapping[str, Any],
        n_outputs: int,
    ) -> list[Const]:  # fmt: skip
        call = Call(self.budget, op, what, inputs, attrs, n_outputs)
        try:
            result = _RUN[op](call)
        except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
            if isinstance(error, ModelFormatError):
                raise
            raise ModelFormatError(f"{what}: cannot be computed: {error}") from None
        return result if isinstance(result, list) else [result]


def _pass(c: Call) -> Const:
    return c.get(0)


def _dropout(c: Call) -> Const:
    check_dropout(c.what, c.maybe(2))
    return c.get(0)


def _cast(c: Call) -> Const:
    const, to = c.get(0), int(c.attrs.get("to", 0))
    dtype = dtype_of(to, c.what).newbyteorder("=")
    if to == BFLOAT16:  # which float32 stands for
        raise UnsupportedError(f"{c.what}: rounds a constant to bfloat16")
    if const.array.dtype == object:
        if dtype.kind not in "iu":
            raise UnsupportedError(f"{c.what}: computes with a size known only when the model runs")
        return const
    c.take(const.array.size, dtype)
    with np.errstate(all="ignore"):
        return Const(const.array.astype(dtype), const.repeated)


def _moved(const: Const, array: Array, places: Mapping[int, int]) -> Const:
    """`array` with the repeated axes where they went."""
    return Const(array, {places[i]: n for i, n in const.repeated.items()})


def _transpose(c: Call) -> Const:
    const = c.get(0)
    order = list(c.attrs.get("perm", range(const.array.ndim)[::-1]))
    order = [c.axis(i, const.array.ndim) for i in order]
    return _moved(const, const.array.transpose(order), {old: new for new, old in enumerate(order)})


def _unsqueeze(c: Call) -> Const:
    const = c.get(0)
    axes = c.ints(1, "axes") or []
    n = const.array.ndim + len(axes)
    new = {c.axis(i, n) for i in axes}
    if len(new) < len(axes):
        raise ModelFormatError(f"{c.what}: the axes {axes[:8]}, one of them twice")
    array = np.expand_dims(const.array, tuple(sorted(new)))
    places = dict(enumerate(i for i in range(n) if i not in new))
    return _moved(const, array, places)


def _squeeze(c: Call) -> Const:
    const = c.get(0)
    given = squeezed(c.what, c.ints(1, "axes"))
    axes = (
        range(const.array.ndim) if given is None else [c.axis(i, const.array.ndim) for i in given]
    )
    gone = {i for i in axes if const.array.shape[i] == 1 and i not in const.repeated}
    if given is not None and gone != set(axes):
        raise ModelFormatError(f"{c.what}: an axis that is not 1")
    left = [i for i in range(const.array.ndim) if i not in gone]
    array = const.array.reshape([const.array.shape[i] for i in left])
    return _moved(const, array, {old: new for new, old in enumerate(left)})


def _reshape(c: Call) -> Const:
    array, const = c.get(0).array, c.get(0)
    shape_in = c.maybe(1)
    shape: list[AnySize] = (
        shape_in.sizes(f"{c.what}, shape")
        if shape_in
        else [int(n) for n in c.attrs.get("shape", [])]
    )
    if not c.attrs.get("allowzero"):
        old = const.shape
        shape = [old[i] if n == 0 else n for i, n in enumerate(shape)]
    if const.repeated or any(isinstance(n, Size) for n in shape):
        if tuple(shape) == const.shape:
            return const
        raise UnsupportedError(f"{c.what}: of a constant whose size depends on the input")
    return _in_shape(c, array, [int(n) for n in shape if isinstance(n, int)])


def _in_shape(c: Call, array: Array, shape: Sequence[int]) -> Const:
    if not array.flags.c_contiguous:
        c.take(array.size, array.dtype)
    return Const(array.reshape(shape))


def _flatten(c: Call) -> Const:
    array = c.plain()
    axis = int(c.attrs.get("axis", 1))
    axis = axis if axis == array.ndim else c.axis(axis, array.ndim)
    return _in_shape(c, array, (math.prod(array.shape[:axis]), -1))


def _slice(c: Call) -> Const:
    const = c.get(0)
    starts, ends = c.ints(1, "starts"), c.ints(2, "ends")
    if starts is None or ends is None or len(starts) != len(ends):
        raise ModelFormatError(f"{c.what}: starts and ends do not fit")
    axes = c.ints(3, "axes") or list(range(len(starts)))
    steps = c.ints(4, "steps") or [1] * len(starts)
    array = const.array
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = c.axis(axis, array.ndim)
        if axis in const.repeated:
            if start == 0 and end >= 2**31 - 1 and step == 1:
                continue
            raise UnsupportedError(f"{c.what}: of a constant along the batch or time")
        n = array.shape[axis]
        stop: int | None = end
        if step < 0:  # NumPy takes what lies before the first element otherwise
            start, stop = max(start, -n), end if end >= -n else None
        index: list[Any] = [slice(None)] * array.ndim
        index[axis] = slice(start, stop, step)
        array = array[tuple(index)]
    return Const(array, const.repeated)


def _gather(c: Call) -> Const:
    const, index = c.get(0), c.plain(1)
    axis = c.axis(int(c.attrs.get("axis", 0)), const.array.ndim)
    if axis in const.repeated or index.dtype.kind not in "iu":
        raise UnsupportedError(f"{c.what}: picks along the batch or time")
    rest = const.array.size // max(1, const.array.shape[axis])
    c.take(rest * index.size, const.array.dtype)
    shift = index.ndim - 1
    places = {i: i if i < axis else i + shift for i in const.repeated}
    # With an index array: an object's element stays in an array.
    array = np.take(const.array, index.reshape(-1), axis=axis)
    shape = (*const.array.shape[:axis], *index.shape, *const.array.shape[axis + 1 :])
    return _moved(const, array.reshape(shape), places)


def _concat(c: Call) -> Const:
    consts = [c.get(i) for i in range(len(c.inputs))]
    axis = c.axis(int(c.attrs["axis"]), consts[0].array.ndim)
    if len({k.array.ndim for k in consts}) > 1:
        shapes = ", ".join(str(k.array.shape) for k in consts[:8])
        raise ModelFormatError(f"{c.what}: joins the shapes {shapes}; {MALFORMED}")
    first = consts[0].repeated
    if any(k.repeated != first for k in consts) or axis in first:
        raise UnsupportedError(f"{c.what}: of constants whose sizes depend on the input")
    dtype = np.result_type(*[k.array for k in consts])
    c.take(sum(k.array.size for k in consts), dtype)
    return Const(np.concatenate([k.array for k in consts], axis=axis), first)


def split_sizes(
    what: str, n: int, sizes: Sequence[int] | None, attrs: Mapping[str, Any], n_outputs: int
) -> list[int]:
    """The sizes of the parts of an axis of n; without `sizes` equal, but for the last."""
    if sizes is None:
        parts = int(attrs.get("num_outputs", n_outputs))
        if parts != n_outputs or not 0 < parts <= max(n, 1):
            raise ModelFormatError(
                f"{what}: an axis of {n} in {parts} parts for {n_outputs} outputs"
            )
        each = -(-n // parts)
        sizes = [each] * (parts - 1) + [n - each * (parts - 1)]
    if len(sizes) < n_outputs or sum(sizes) != n or min(sizes, default=0) < 0:
        raise ModelFormatError(f"{what}: an axis of {n} in parts of {list(sizes)[:8]}")
    return list(sizes)


def _split(c: Call) -> list[Const]:
    const = c.get(0)
    axis = c.axis(int(c.attrs.get("axis", 0)), const.array.ndim)
    if axis in const.repeated:
        raise UnsupportedError(f"{c.what}: of a constant along the batch or time")
    sizes = split_sizes(c.what, const.array.shape[axis], c.ints(1, "split"), c.attrs, c.n_outputs)
    parts = np.split(const.array, np.cumsum(sizes)[:-1], axis=axis)
    return [Const(p, const.repeated) for p in parts]


def _shape(c: Call) -> Const:
    return shape_const(shape_part(c.get(0).shape, c.attrs))


def shape_part(shape: Sequence[AnySize], attrs: Mapping[str, Any]) -> list[AnySize]:
    end = attrs.get("end")
    return list(shape)[slice(attrs.get("start", 0), end)]


def _size(c: Call) -> Const:
    return Const(np.array(math.prod(c.plain().shape), np.int64))


def _filled(c: Call, const: Const, shape: Sequence[AnySize]) -> Const:
    """`const` broadcast to a shape that may have symbols."""
    n = max(len(shape), const.array.ndim)
    old = Const(
        const.array.reshape((1,) * (n - const.array.ndim) + const.array.shape),
        {i + n - const.array.ndim: s for i, s in const.repeated.items()},
    )
    want = [*[1] * (n - len(shape)), *shape]
    sizes, repeated = list(old.array.shape), dict(old.repeated)
    for i, size in enumerate(want):
        if isinstance(size, Size):
            if sizes[i] != 1 or repeated.get(i, size) != size:
                raise UnsupportedError(f"{c.what}: to a size known only when the model runs")
            repeated[i] = size
        elif i in repeated:
            if size != 1:
                raise UnsupportedError(f"{c.what}: a fixed size for one known when the model runs")
        elif sizes[i] == 1:
            sizes[i] = size
        elif size not in (1, sizes[i]):
            raise ModelFormatError(f"{c.what}: an axis of {sizes[i]} expanded to {size}")
    if min(sizes, default=0) < 0:
        raise ModelFormatError(f"{c.what}: a negative size")
    c.take(math.prod(sizes), old.array.dtype)
    return Const(np.broadcast_to(old.array, sizes), repeated)


def _expand(c: Call) -> Const:
    return _filled(c, c.get(0), c.get(1).sizes(f"{c.what}, shape"))


def _constant_of_shape(c: Call) -> Const:
    value = c.attrs.get("value")
    array = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return _filled(c, Const(array.reshape(())), c.get(0).sizes(f"{c.what}, shape"))


def _tile(c: Call) -> Const:
    array, times = c.plain(), c.get(1).sizes(f"{c.what}, repeats")
    known = [n if isinstance(n, int) else 1 for n in times]
    if min(known, default=1) < 0 or len(times) != array.ndim:
        raise ModelFormatError(f"{c.what}: repeats of {times}")
    c.take(math.prod(known) * array.size, array.dtype)
    return _filled(
        c, Const(np.tile(array, known)), [n if isinstance(n, Size) else 1 for n in times]
    )


def _range(c: Call) -> Const:
    numbers = [c.plain(i) for i in range(3)]
    if any(a.dtype == object or a.size != 1 for a in numbers):
        raise UnsupportedError(f"{c.what}: up to a size known only when the model runs")
    start, limit, delta = (a.reshape(()).item() for a in numbers)
    count, dtype = max(0, math.ceil((limit - start) / delta)), numbers[0].dtype
    wide = np.dtype(np.float64 if any(a.dtype.kind == "f" for a in numbers) else np.int64)
    c.take(count, wide, dtype)
    found = np.arange(count, dtype=wide)
    found *= delta
    found += start
    return Const(found.astype(dtype, copy=False))


_RUN: dict[str, Callable[[Call], Const | list[Const]]] = {
    "Identity": _pass, "Dropout": _dropout, "Cast": _cast, "Transpose": _transpose,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape, "Flatten": _flatten,
    "Slice": _slice, "Gather": _gather, "Concat": _concat, "Split": _split, "Shape": _shape,
    "Size": _size, "Expand": _expand, "ConstantOfShape": _constant_of_shape, "Tile": _tile,
    "Range": _range, **ARITHMETIC,
}  # fmt: skip
