# SPDX-License-Identifier: MIT
"""The tensors of an ONNX file as arrays: sizes checked before memory is taken."""

from __future__ import annotations

import math
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clstm.errors import ModelFormatError, UnsupportedError

from ..budget import Budget, tensor_bytes
from ..source import shown

Array = NDArray[Any]

BFLOAT16 = 16
# TensorProto.DataType: https://onnx.ai/onnx/repo-docs/IR.html; the field that holds the values
# of a type when there is no raw_data.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"), 2: ("u1", "int32_data"), 3: ("i1", "int32_data"),
    4: ("<u2", "int32_data"), 5: ("<i2", "int32_data"), 6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"), 9: ("?", "int32_data"), 10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"), 12: ("<u4", "uint64_data"), 13: ("<u8", "uint64_data"),
    BFLOAT16: ("<u2", "int32_data"),
}  # fmt: skip
FLOATS = (1, 10, 11, BFLOAT16)
INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)
_FIELDS = {"float_data": "<f4", "int32_data": "<i4", "int64_data": "<i8", "double_data": "<f8",
           "uint64_data": "<u8"}  # fmt: skip
_BITS = (10, BFLOAT16)  # int32_data holds their bits


def dtype_of(data_type: int, what: str) -> np.dtype[Any]:
    """NumPy's type; of bfloat16 float32, which holds it exactly."""
    if data_type not in _TYPES:
        raise UnsupportedError(f"{what}: elements of ONNX's type {data_type}")
    return np.dtype("<f4" if data_type == BFLOAT16 else _TYPES[data_type][0])


class TensorReader:
    """Reads the tensors of one file, from it or from the files beside it."""

    def __init__(self, budget: Budget, folder: Path | None, external: bool, own: str = "") -> None:
        """own: the name of the model's file."""
        self.budget, self.folder, self.external, self.own = budget, folder, external, own

    def read(self, proto: Any, what: str) -> Array:
        """The array of a TensorProto."""
        what = f"{what} {shown(proto.name)}" if proto.name else what
        shape = tuple(proto.dims)
        if any(n < 0 for n in shape) or len(shape) > 32:
            raise ModelFormatError(f"{what}: a shape of {shape[:8]}")
        if proto.data_type not in _TYPES:
            raise UnsupportedError(f"{what}: elements of ONNX's type {proto.data_type}")
        if proto.HasField("segment"):
            raise UnsupportedError(f"{what}: stored in segments")
        word, field = _TYPES[proto.data_type]
        dtype = np.dtype(word)
        n_bytes = tensor_bytes(shape, max(dtype.itemsize, 4 if proto.data_type in _BITS else 1))
        if n_bytes is None:
            raise ModelFormatError(f"{what}: a shape of {shape}")
        count = math.prod(shape)
        if proto.data_location == proto.EXTERNAL:
            flat = self._external(proto, what, dtype, count)
        elif proto.HasField("raw_data"):
            if any(len(getattr(proto, f)) for f in _FIELDS):
                raise ModelFormatError(f"{what}: values in raw_data and in another field")
            if len(proto.raw_data) != count * dtype.itemsize:
                raise ModelFormatError(
                    f"{what}: shape {shape} needs {count * dtype.itemsize} bytes, "
                    f"found {len(proto.raw_data)}"
                )
            self.budget.take(n_bytes, what)
            flat = np.frombuffer(proto.raw_data, dtype)
        else:
            values = getattr(proto, field)
            if len(values) != count:
                raise ModelFormatError(f"{what}: shape {shape}, but {len(values)} values")
            held = np.dtype(_FIELDS[field])
            self.budget.take(n_bytes + (0 if held == dtype else count * held.itemsize), what)
            flat = _from_field(proto, np.array(values, held), dtype, what)
        if dtype.kind == "b" and flat.size and flat.view(np.uint8).max() > 1:
            raise ModelFormatError(f"{what}: a bool is neither 0 nor 1")
        if proto.data_type == BFLOAT16:
            flat = (flat.astype("<u4") << 16).view("<f4")
        array = flat.reshape(shape).astype(flat.dtype.newbyteorder("="), copy=False)
        return array

    def _external(self, proto: Any, what: str, dtype: np.dtype[Any], count: int) -> Array:
        entries = {e.key: e.value for e in proto.external_data}
        name = entries.get("location", "")
        if not self.external:
            raise UnsupportedError(
                f"{what}: its data is in another file, {shown(name)}; pass external_data=True "
                "if the files beside the model are trusted"
            )
        if self.folder is None:
            raise UnsupportedError(
                f"{what}: its data is in {shown(name)}, and bytes have no folder; give a path"
            )
        if not isinstance(name, str) or name in ("", ".", "..") or not _plain(name):
            raise ModelFormatError(
                f"{what}: external data in {shown(name)}; only a plain file name in the model's "
                "folder is opened"
            )
        if name == self.own:
            raise ModelFormatError(f"{what}: external data in the model's own file")
        numbers = (entries.get("offset", "0"), entries.get("length", str(count * dtype.itemsize)))
        if not all(re.fullmatch("[0-9]{1,19}", n) for n in numbers):
            raise ModelFormatError(f"{what}: offset or length that are no numbers")
        offset, length = map(int, numbers)
        if length != count * dtype.itemsize:
            raise ModelFormatError(
                f"{what}: {count * dtype.itemsize} bytes expected, the file says {length} "
                f"from {offset} on"
            )
        data = _read_part(self.folder / name, offset, length, what, self.budget)
        return np.frombuffer(data, dtype)


def _plain(name: str) -> bool:
    return not any(c in "/\\:" or ord(c) < 32 for c in name) and len(name) < 256


def _read_part(path: Path, offset: int, length: int, what: str, budget: Budget) -> bytes:
    """Part of a regular file, which is neither a symbolic nor a second hard link."""
    flags = os.O_RDONLY
    for optional in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW"):
        flags |= getattr(os, optional, 0)
    try:
        before = os.lstat(path)
        if stat.S_ISLNK(before.st_mode):
            raise ModelFormatError(f"{what}: external data in a link, {shown(path.name)}")
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise ModelFormatError(
            f"{what}: external data file {shown(path.name)} is missing"
        ) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise ModelFormatError(
                f"{what}: external data in {shown(path.name)}, a link or no regular file"
            )
        if offset + length > found.st_size:
            raise ModelFormatError(
                f"{what}: needs {length} bytes from {offset} on of {shown(path.name)}, "
                f"which has {found.st_size}"
            )
        budget.take(length, what)
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(offset)
            data = file.read(length)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise ModelFormatError(f"{what}: {shown(path.name)} changed while it was read; try again")
    return data


def _from_field(proto: Any, array: Array, dtype: np.dtype[Any], what: str) -> Array:
    if proto.data_type in _BITS:
        return array.astype("<u2").view(dtype)
    if dtype.kind in "biu" and array.size and array.dtype != dtype:
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if array.min() < low or array.max() > high:
            raise ModelFormatError(f"{what}: values outside of {dtype}")
    return array.astype(dtype, copy=False)


assert sys.byteorder in ("little", "big")
