# SPDX-License-Identifier: MIT
"""``torch.nn.utils.rnn.PackedSequence`` in and out, told by its attributes: torch itself is
never imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ShapeError
from .program import as_array

_ATTRIBUTES = ("data", "batch_sizes", "sorted_indices", "unsorted_indices")


def is_packed(x: Any) -> bool:
    return not isinstance(x, np.ndarray) and all(hasattr(x, name) for name in _ATTRIBUTES)


@dataclass(frozen=True)
class Packed:
    """Where the rows of a packed sequence lie: row n is step ``steps[n]`` of sequence
    ``sequences[n]``, in the caller's order of the sequences."""

    source: Any
    steps: np.ndarray
    sequences: np.ndarray
    lengths: np.ndarray

    def padded(self, rows: np.ndarray) -> np.ndarray:
        """(T, B, ...) of the packed rows."""
        x = np.zeros((int(self.lengths.max(initial=0)), len(self.lengths), *rows.shape[1:]),
                     rows.dtype)  # fmt: skip
        x[self.steps, self.sequences] = rows
        return x

    def pack(self, y: np.ndarray) -> Any:
        """The same type again, of y (T, B, O)."""
        p, rows = self.source, np.ascontiguousarray(y[self.steps, self.sequences])
        # of the data's library and device; a new tensor has its type, and tokens are no floats
        data = p.data[:0].float().new_tensor(rows) if hasattr(p.data, "new_tensor") else rows
        return type(p)(data, p.batch_sizes, p.sorted_indices, p.unsorted_indices)


def unpack(x: Any) -> Packed:
    """All checked: ShapeError for what no packing makes."""
    sizes = as_array(x.batch_sizes)
    plain = sizes.ndim == 1 and sizes.dtype.kind in "iu" and sizes.size > 0
    if not plain or (np.diff(sizes) > 0).any() or sizes[-1] < 1 or len(x.data) != sizes.sum():
        raise ShapeError("x: batch_sizes of a PackedSequence fall from B on, and sum to its rows")
    n_batch = int(sizes[0])
    order = np.arange(n_batch)  # the caller's number of the n-th longest
    if x.sorted_indices is not None:
        order = as_array(x.sorted_indices)
        if not np.array_equal(np.sort(order), np.arange(n_batch)):
            raise ShapeError(f"x: sorted_indices is no order of {n_batch} sequences")
    steps, ranks = np.nonzero(np.arange(n_batch) < sizes[:, None])
    lengths = np.empty(n_batch, np.int64)
    lengths[order] = (sizes[:, None] > np.arange(n_batch)).sum(axis=0)
    return Packed(x, steps, order[ranks], lengths)
