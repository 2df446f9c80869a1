# SPDX-License-Identifier: MIT
"""Memory promised to the tensors of one file, counted before any of it is taken.

A file may claim far more than it holds: a view of stride 0 makes 4 TiB out of 1.5 KB, and
ten thousand views of one storage are ten thousand tensors. So every reader adds up what it is
about to make, all of it, and only then makes the first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from clstm.errors import ModelFormatError

# NumPy counts bytes in an intp and multiplies the non-zero sizes even of an empty array.
_MAX_BYTES = sys.maxsize


def tensor_bytes(shape: Sequence[int], item_bytes: int) -> int | None:
    """Bytes of an array of this shape, or None where NumPy could not even count them."""
    if math.prod(size or 1 for size in shape) * item_bytes > _MAX_BYTES:
        return None
    return math.prod(shape) * item_bytes


class Budget:
    """At most `max_bytes` for all tensors of one file together."""

    __slots__ = ("_left", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise ValueError(f"expected max_bytes as an integer >= 0, got {max_bytes!r}")
        self.max_bytes = max_bytes
        self._left = max_bytes

    def take(self, n_bytes: int, what: str) -> None:
        """Count `n_bytes` for `what`, which a message names; refuse what goes beyond the limit."""
        if n_bytes > self._left:
            raise ModelFormatError(
                f"{what} takes {n_bytes} bytes, {self._left} are left of the limit of "
                f"{self.max_bytes}; if the file is trusted, pass max_bytes= with a larger number"
            )
        self._left -= n_bytes
