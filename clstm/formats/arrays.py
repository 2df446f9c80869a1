# SPDX-License-Identifier: MIT
"""The last step of every reader: raw elements become a C-contiguous native array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source import Source, shown

BFLOAT16 = "bf16"  # has no NumPy dtype: read as u2, widened to float32

# Element types by NumPy's code, and the bytes of one element in the file.
ITEM_BYTES = {
    "b1": 1, "u1": 1, "i1": 1, "u2": 2, "i2": 2, "u4": 4, "i4": 4, "u8": 8, "i8": 8,
    "f2": 2, "f4": 4, "f8": 8, BFLOAT16: 2,
}  # fmt: skip


def made_bytes(code: str) -> int:
    """Bytes of one element of the array that `finish` makes."""
    return 4 if code == BFLOAT16 else ITEM_BYTES[code]


def raw_dtype(code: str, byte_order: str) -> np.dtype[Any]:
    """The dtype to look at the file's bytes with; `byte_order` is "<" or ">"."""
    return np.dtype(byte_order + ("u2" if code == BFLOAT16 else code))


def finish(raw: NDArray[Any], code: str, source: Source, name: str) -> NDArray[Any]:
    """A C-contiguous, aligned, native array of `raw`, which is of `raw_dtype(code, ...)`.

    Where `raw` already is one, it is returned itself. It may lie in the bytes of the file, so
    every array is read-only: whether one can be written must not hang on its alignment there.
    """
    if code == BFLOAT16:
        # Exact for every bit pattern, NaNs too: bfloat16 is the high half of a float32.
        wide = raw.astype(np.uint32, order="C")
        wide <<= 16
        array: NDArray[Any] = wide.view(np.float32)
    elif raw.dtype.isnative and raw.flags.c_contiguous and raw.flags.aligned:
        array = raw
    else:
        array = raw.astype(raw.dtype.newbyteorder("="), order="C")
    if code == "b1" and array.size and array.view(np.uint8).max() > 1:
        # NumPy would carry such a byte along and give 2 for True + False.
        raise source.fault(f"tensor {shown(name)}: a bool is neither 0 nor 1")
    array.flags.writeable = False
    return array
