# SPDX-License-Identifier: MIT
"""Models with several outputs. The core writes them side by side in one row; here they become
a tuple, each an array of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import Stream
from .errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from .model import Model


def split(widths: Sequence[int], y: np.ndarray) -> tuple[np.ndarray, ...]:
    """A row of the core's, outputs side by side, as an array of each."""
    ends = np.cumsum(widths)
    return tuple(
        np.ascontiguousarray(y[..., end - n : end]) for n, end in zip(widths, ends, strict=True)
    )


class Buffers:
    """The caller's ``out=`` of several outputs, checked, and one array of the core's to fill
    them from: the core writes all outputs side by side."""

    def __init__(self, model: Model, out: Any, rows: tuple[int, ...]) -> None:
        self.widths = model.outputs.widths
        n = len(self.widths)
        if not isinstance(out, tuple | list) or len(out) != n:
            raise ShapeError(f"out: expected a tuple of {n} arrays, one for each output")
        for i, (array, width) in enumerate(zip(out, self.widths, strict=True)):
            _check_buffer(f"out[{i}]", array, (*rows, width))
        if any(np.may_share_memory(a, b) for i, a in enumerate(out) for b in out[:i]):
            raise ShapeError("out: its arrays overlap")
        self.out = tuple(out)
        self.row = np.empty((*rows, sum(self.widths)), np.float32)

    def refuse_overlap(self, x: Any, name: str) -> None:
        if isinstance(x, np.ndarray) and any(np.may_share_memory(x, a) for a in self.out):
            raise ShapeError(f"out overlaps {name}")

    def fill(self) -> tuple[np.ndarray, ...]:
        end = 0
        for array, n in zip(self.out, self.widths, strict=True):
            array[...] = self.row[..., end : end + n]
            end += n
        return self.out


def _check_buffer(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"{name}: expected a float32 array, got {type(array).__name__}")
    if array.dtype != np.float32 or not array.dtype.isnative:
        raise DTypeError(f"{name}: expected native float32, got {array.dtype}")
    if array.shape != shape:
        raise ShapeError(f"{name}: expected shape {shape}, got {array.shape}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ShapeError(f"{name}: expected a writable C-contiguous array")


def finish(
    model: Model, y: np.ndarray, lengths: np.ndarray | None, time: int, *, batched: bool = True
) -> np.ndarray | tuple[np.ndarray, ...]:
    """What a call returns, of the core's (T, B, O) or (B, T, O): outputs apart, each in the form
    that is declared of it. batched: else the batch, of one sequence, goes away."""
    o, parts = model.outputs, list[np.ndarray]()
    several = split(o.widths, y) if len(o.widths) > 1 else (y,)
    for part, last, squeeze, keep in zip(several, o.last, o.squeeze, o.keep, strict=True):
        part = _last_step(part, lengths, time) if last else part
        part = np.expand_dims(part, time) if keep else part
        part = part if batched else part[..., 0, :]
        parts.append(part[..., 0] if squeeze else part)
    return tuple(parts) if len(parts) > 1 else parts[0]


def _last_step(y: np.ndarray, lengths: np.ndarray | None, time: int) -> np.ndarray:
    """(B, O); zeros of a sequence of no steps."""
    steps = y if time == 0 else y.swapaxes(0, 1)
    if not len(steps):
        return np.zeros(steps.shape[1:], np.float32)
    if lengths is None:
        last: np.ndarray = steps[-1].copy()
        return last
    found = steps[lengths.astype(np.intp) - 1, np.arange(steps.shape[1])]
    found[lengths == 0] = 0
    return found


class SeveralStream(Stream):
    """A stream whose steps return a tuple. ``out`` is a tuple of buffers too; it is filled from
    a row of the core's, so this is not free of allocation."""

    def step(self, x: Any, out: Any = None) -> Any:
        if out is None:
            return split(self.model.outputs.widths, super().step(x))
        buffers = Buffers(self.model, out, ())
        buffers.refuse_overlap(x, "x")
        super().step(x, buffers.row)
        return buffers.fill()

    def run(self, X: Any, out: Any = None) -> Any:
        if out is None:
            return split(self.model.outputs.widths, super().run(X))
        rows = np.shape(X)[:1] if not isinstance(X, int | float) else ()
        buffers = Buffers(self.model, out, rows)
        buffers.refuse_overlap(X, "X")
        super().run(X, buffers.row)
        return buffers.fill()

    def bind(self, x: Any, y: Any) -> Any:
        buffers = Buffers(self.model, y, ())
        buffers.refuse_overlap(x, "x")
        step = super().bind(x, buffers.row)
        return _Bound(self, step, buffers)


class _Bound:
    """A step of one stream from one buffer to several."""

    def __init__(self, stream: Stream, step: Callable[[], None], buffers: Buffers) -> None:
        self.stream, self._step, self._buffers = stream, step, buffers

    def __call__(self) -> None:
        self._step()
        self._buffers.fill()
