# SPDX-License-Identifier: MIT
"""Outputs against expected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..model import Model


@dataclass(frozen=True)
class Comparison:
    """How far outputs are from the expected ones, and where the farthest is, of the wrong ones
    if there are any."""

    count: int
    wrong: int
    error: float  # largest |got - expected|; infinity where one alone is NaN or infinite
    index: tuple[int, ...]
    got: float
    expected: float

    def __str__(self) -> str:
        if not self.wrong:
            return f"{self.count:,} outputs agree, largest error {self.error:.3g}"
        return (
            f"{self.wrong:,} of {self.count:,} outputs differ, largest error {self.error:.3g}: "
            f"output {list(self.index)} is {self.got:.9g}, expected {self.expected:.9g}"
        )


def compare(got: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> Comparison:
    """|got - expected| <= atol + rtol * |expected|; NaN equals NaN, an infinity itself."""
    if got.shape != expected.shape:
        raise ShapeError(f"y: expected outputs of shape {got.shape}, got {expected.shape}")
    if not got.size:
        raise ShapeError("y: there are no outputs to compare")
    a, b = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(a - b)
        within = error <= atol + rtol * np.abs(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    error = np.where(same, 0.0, np.where(finite, error, np.inf))
    wrong = ~same & ~(finite & within)
    at = np.unravel_index(np.argmax(np.where(wrong, error, -1) if wrong.any() else error), a.shape)
    index = tuple(int(i) for i in at)
    n_wrong = int(np.count_nonzero(wrong))
    return Comparison(a.size, n_wrong, float(error.max()), index, float(a[at]), float(b[at]))


def run_certificate(model: Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Outputs (T, B, O) for a certificate's x, (T, B, I) or (T, B); y is for its shape alone."""
    rank = 2 if model.num_embeddings else 3
    if x.ndim != rank or y.shape != (*x.shape[:2], sum(model.outputs.widths)):
        raise ShapeError(f"the certificate, x {x.shape} and y {y.shape}, does not fit the model")
    if model.streamable:
        columns = [side_by_side(model.stream().run(x[:, b])) for b in range(x.shape[1])]
        return np.stack(columns, axis=1) if columns else np.empty(y.shape, np.float32)
    return model.every_step(np.ascontiguousarray(x))


def side_by_side(y: Any) -> np.ndarray:
    """Several outputs as the columns of one array."""
    return np.concatenate(y, axis=-1) if isinstance(y, tuple) else y
