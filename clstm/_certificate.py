# SPDX-License-Identifier: MIT
"""Certificates: a few inputs and the outputs that every later load must compute again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._stream import as_float32, real
from .errors import ShapeError

if TYPE_CHECKING:
    from .model import Model

CHECK_ROWS = 256  # of a certificate; csrc/src/certificate.c has the same, and the tolerances
_ATOL, _RTOL = 1e-5, 1e-4


def certificate(model: Model, check: Any) -> tuple[np.ndarray, np.ndarray]:
    """x (T, B, I) or (T, B) and y (T, B, all outputs), at most CHECK_ROWS rows, of the caller's
    (x, y) of a call. y is held against what the model gives: ValueError where they differ."""
    if not isinstance(check, tuple | list) or len(check) != 2:
        given = f"{len(check)} values" if isinstance(check, tuple | list) else repr(check)
        raise ValueError(f"check: expected (x, y), an input of m(x) and its output; got {given}")
    x, y = check
    array = model._input(x)
    parts, shapes = _parts(model, y), np.shape(x)
    axes = array.ndim + (model.num_embeddings > 0)
    if model._bare_cell:
        array, parts, axes = array[None], [part[None] for part in parts], axes + 1
    alone = axes == 2
    swapped = model.batch_first and not alone
    if axes not in (2, 3) or (model.n_input and array.shape[-1] != model.n_input):
        raise ShapeError(f"check: x {shapes} does not fit this model")
    array = array[:, None] if alone else array.swapaxes(0, 1) if swapped else array
    if not array.size:
        raise ShapeError("check: x is empty")
    columns, end = list[tuple[Any, np.ndarray]](), 0
    last_alone = False
    for part, width, last, squeeze, keep in zip(parts, *_layout(model, len(parts)), strict=True):
        where: Any
        steps = (*array.shape[:2], width)
        if squeeze and part.ndim == axes - 1 - (last and not keep):
            part = part[..., None]
        if keep and part.ndim == axes and part.shape[int(swapped)] == 1:
            part = part.take(0, axis=int(swapped))
        full = part
        if part.ndim == axes:
            full = part[:, None] if alone else part.swapaxes(0, 1) if swapped else part
        if part.ndim == axes and full.shape == steps:
            where, values = np.s_[:, :, end : end + width], full
        elif last and part.shape == ((width,) if alone else steps[1:]):
            where, values = np.s_[-1, :, end : end + width], part.reshape(steps[1:])
            last_alone = True
        else:
            raise ShapeError(
                f"check: x {shapes} and y {tuple(p.shape for p in parts)} do not fit this model; "
                "y is what m(x) returns before the state"
            )
        columns.append((where, values))
        end += width
    n_rows = array.shape[0] * array.shape[1]
    if n_rows > CHECK_ROWS and last_alone:
        raise ValueError(
            f"check: at most {CHECK_ROWS} rows (T * B) are stored, and y holds a last step alone: "
            f"give fewer than these {n_rows}, a shorter or a smaller batch"
        )
    if array.shape[1] > CHECK_ROWS or (not model.streamable and n_rows > CHECK_ROWS):
        raise ValueError(f"check: at most {CHECK_ROWS} rows (T * B) are stored")
    n_steps = CHECK_ROWS // array.shape[1]
    kept = np.ascontiguousarray(array[:n_steps])
    got = model.every_step(kept)
    expected = got.copy()
    for where, values in columns:
        expected[where] = values if last_alone else values[:n_steps]
    _compare(got, expected)
    return kept, expected


def _parts(model: Model, y: Any) -> list[np.ndarray]:
    """The caller's outputs, or one array of all of them side by side."""
    n = len(model.outputs.widths)
    several = isinstance(y, tuple) or (isinstance(y, list) and any(hasattr(p, "shape") for p in y))
    if not several:
        return [as_float32(real(y, "y"))]
    if n == 1 or len(y) != n or any(isinstance(part, tuple) for part in y):
        expected = f"a tuple of {n} arrays" if n > 1 else "an array"
        raise ShapeError(
            f"check: y is a {type(y).__name__} of {len(y)}; expected {expected}, without the "
            "state: check=(x, m(x)[0])"
        )
    return [as_float32(real(part, "y")) for part in y]


def _layout(model: Model, n_parts: int) -> tuple[tuple[Any, ...], ...]:
    """Widths of the parts, and their forms: see program.Outputs."""
    o = model.outputs
    if n_parts == len(o.widths):
        return o.widths, o.last, o.squeeze, o.keep
    return (sum(o.widths),), (all(o.last),), (False,), (all(o.keep),)


def _compare(got: np.ndarray, expected: np.ndarray) -> None:
    """As csrc/src/certificate.c does: NaN equals NaN, an infinity itself."""
    a, b = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        near = np.isfinite(b) & (np.abs(a - b) <= _ATOL + _RTOL * np.abs(b))
    wrong = ~((a == b) | near | (np.isnan(a) & np.isnan(b)))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"check: y is not what this model gives: at {list(at)} of (T, B, O) it gives "
            f"{got[at]:.9g}, expected {expected[at]:.9g} within {_ATOL:g} + {_RTOL:g} |y|"
        )
