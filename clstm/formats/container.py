# SPDX-License-Identifier: MIT
"""The ``.clstm`` file: records and tensors as csrc/src/file.c reads them.

The layout stands in docs/format.md. Writing and reading are here; the C core has a reader
of its own, and both check everything, so that each is a test of the other.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from .budget import Budget

MAGIC = b"CLSTM\0\r\n"
VERSION = 1
ALIGN = 64
MOST_INPUTS = 4  # of a record

HEADER = np.dtype(
    [("magic", "V8"), ("version", "<u4"), ("header_bytes", "<u4"), ("file_bytes", "<u8"),
     ("n_ops", "<u4"), ("n_tensors", "<u4"), ("text_bytes", "<u4"), ("input_size", "<u4"),
     ("n_check", "<u4"), ("reserved", "<u4", 4), ("crc", "<u4")]
)  # fmt: skip
OP = np.dtype(
    [("kind", "<u4"), ("flags", "<u4"), ("n_inputs", "<u4"), ("inputs", "<u4", MOST_INPUTS),
     ("reserved", "<u4"), ("first_tensor", "<u4"), ("n_tensors", "<u4"), ("name_at", "<u4"),
     ("name_bytes", "<u4"), ("dims", "<u4", 8), ("params", "<f8", 6)]
)  # fmt: skip
TENSOR = np.dtype(
    [("at", "<u8"), ("bytes", "<u8"), ("dtype", "<u4"), ("rank", "<u4"), ("dims", "<u4", 4),
     ("name_at", "<u4"), ("name_bytes", "<u4"), ("reserved", "<u4", 4)]
)  # fmt: skip
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<i8")}


@dataclass
class Record:
    """One layer as the file has it: a kind, its numbers, its tensors in order."""

    kind: int
    name: str = ""
    flags: int = 0
    inputs: tuple[int, ...] = (0,)  # slots: 0 the model's input, i + 1 the output of record i
    dims: tuple[int, ...] = ()
    params: tuple[float, ...] = ()
    tensors: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Image:
    """What a file holds. ``check`` is a certificate: x (T, B, I) or (T, B), y (T, B, O)."""

    records: list[Record]
    input_size: int
    check: tuple[np.ndarray, np.ndarray] | None = None


def write_image(image: Image) -> bytes:
    """The bytes of the file; equal images give equal bytes."""
    tensors = [item for record in image.records for item in record.tensors.items()]
    tensors += [("check.x", image.check[0]), ("check.y", image.check[1])] if image.check else []
    ops, table = np.zeros(len(image.records), OP), np.zeros(len(tensors), TENSOR)
    text, first = bytearray(), 0
    for row, record in zip(ops, image.records, strict=True):
        row["kind"], row["flags"] = record.kind, record.flags
        row["n_inputs"] = len(record.inputs)
        row["inputs"][: len(record.inputs)] = record.inputs
        row["first_tensor"], row["n_tensors"] = first, len(record.tensors)
        row["dims"][: len(record.dims)] = record.dims
        row["params"][: len(record.params)] = record.params
        _append_name(row, record.name, text)
        first += len(record.tensors)
    for row, (name, _) in zip(table, tensors, strict=True):
        _append_name(row, name, text)
    at = _aligned(HEADER.itemsize + ops.nbytes + table.nbytes + len(text))
    for row, (_, array) in zip(table, tensors, strict=True):
        row["at"], row["bytes"] = at, array.nbytes
        row["dtype"] = 2 if array.dtype.kind == "i" else 1
        row["rank"] = array.ndim
        row["dims"][: array.ndim] = array.shape
        at = _aligned(at + array.nbytes)
    header = np.zeros(1, HEADER)
    header["magic"] = np.void(MAGIC)
    header["version"], header["header_bytes"], header["file_bytes"] = VERSION, 64, at
    header["n_ops"], header["n_tensors"] = len(ops), len(table)
    header["text_bytes"], header["input_size"] = len(text), image.input_size
    header["n_check"] = 2 if image.check else 0
    out = bytearray(at)
    front = header.tobytes() + ops.tobytes() + table.tobytes() + bytes(text)
    out[: len(front)] = front
    for row, (_, array) in zip(table, tensors, strict=True):
        np.frombuffer(out, array.dtype, array.size, int(row["at"]))[:] = array.reshape(-1)
    out[60:64] = zlib.crc32(out).to_bytes(4, "little")
    return bytes(out)


def _append_name(row: np.void, name: str, text: bytearray) -> None:
    word = name.encode()
    row["name_at"], row["name_bytes"] = len(text), len(word)
    text += word


def read_image(data: bytes, name: str, budget: Budget) -> Image:
    """The image in ``data``, or ModelFormatError. Tensors are views of ``data``."""
    try:
        return _read_image(data, budget)
    except _Fault as fault:
        raise ModelFormatError(f"{name}: {fault}") from None


class _Fault(Exception):
    """What is wrong with the file; read_image adds its name."""


def _read_image(data: bytes, budget: Budget) -> Image:
    if len(data) < HEADER.itemsize or data[:8] != MAGIC:
        raise _Fault("not a .clstm file")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["version"] != VERSION:
        raise _Fault(f"format version {header['version']}; this clstm reads version {VERSION}")
    if header["file_bytes"] != len(data):
        raise _Fault(f"{len(data)} bytes, its header says {header['file_bytes']}: truncated?")
    n_ops, n_tensors = int(header["n_ops"]), int(header["n_tensors"])
    n_text, n_check = int(header["text_bytes"]), int(header["n_check"])
    tensors_at = HEADER.itemsize + n_ops * OP.itemsize
    text_at = tensors_at + n_tensors * TENSOR.itemsize
    end = _aligned(text_at + n_text)
    odd = n_check not in (0, 2) or n_check > n_tensors or header["reserved"].any()
    if odd or header["header_bytes"] != 64 or end > len(data):
        raise _Fault("bad header")
    crc = zlib.crc32(memoryview(data)[64:], zlib.crc32(data[:60] + bytes(4)))
    if crc != header["crc"]:
        raise _Fault(f"damaged: checksum {crc:08x}, expected {header['crc']:08x}")
    text = data[text_at : text_at + n_text]
    if any(data[text_at + n_text : end]):
        raise _Fault("bad padding after the names")
    table = np.frombuffer(data, TENSOR, n_tensors, tensors_at)
    arrays = _read_tensors(data, table, end, text, budget)
    ops = np.frombuffer(data, OP, n_ops, HEADER.itemsize)
    records = _read_records(ops, arrays[: n_tensors - n_check], text)
    check = (arrays[-2][1], arrays[-1][1]) if n_check else None
    return Image(records, int(header["input_size"]), check)


def _name(row: np.void, text: bytes) -> str:
    at, size = int(row["name_at"]), int(row["name_bytes"])
    if at + size > len(text):
        raise _Fault("a name outside the names")
    try:
        return text[at : at + size].decode()
    except UnicodeDecodeError:
        raise _Fault("a name that is no UTF-8") from None


def _read_tensors(
    data: bytes, table: np.ndarray, at: int, text: bytes, budget: Budget
) -> list[tuple[str, np.ndarray]]:
    """Each right behind the one before it, padded with zeros."""
    arrays = []
    for row in table:
        rank, dims = int(row["rank"]), tuple(int(d) for d in row["dims"])
        if int(row["dtype"]) not in DTYPES or rank > 4 or any(dims[rank:]) or row["reserved"].any():
            raise _Fault("a tensor of unknown type or rank")
        dtype, count = DTYPES[int(row["dtype"])], math.prod(dims[:rank])
        end = at + count * dtype.itemsize
        if row["bytes"] != end - at or row["at"] != at or _aligned(end) > len(data):
            raise _Fault("a tensor that does not lie where it should")
        if any(data[end : _aligned(end)]):
            raise _Fault("bad padding")
        name = _name(row, text)
        budget.take(end - at, name)
        arrays.append((name, np.frombuffer(data, dtype, count, at).reshape(dims[:rank])))
        at = _aligned(end)
    if at != len(data):
        raise _Fault("bytes after the last tensor")
    return arrays


def _read_records(
    ops: np.ndarray, arrays: list[tuple[str, np.ndarray]], text: bytes
) -> list[Record]:
    """Every tensor belongs to one layer, in order."""
    records, first = [], 0
    for row in ops:
        last, n_inputs = first + int(row["n_tensors"]), int(row["n_inputs"])
        inputs = tuple(int(slot) for slot in row["inputs"])
        wired = 1 <= n_inputs <= MOST_INPUTS and not any(inputs[n_inputs:])
        odd = row["first_tensor"] != first or row["reserved"]
        if odd or last > len(arrays) or not wired:
            raise _Fault("a layer whose record is inconsistent")
        tensors = dict(arrays[first:last])
        if len(tensors) != last - first:
            raise _Fault("two tensors of one name")
        records.append(
            Record(
                kind=int(row["kind"]),
                name=_name(row, text),
                flags=int(row["flags"]),
                inputs=inputs[:n_inputs],
                dims=tuple(int(d) for d in row["dims"]),
                params=tuple(float(p) for p in row["params"]),
                tensors=tensors,
            )
        )
        first = last
    if first != len(arrays):
        raise _Fault("tensors that belong to no layer")
    return records


def _aligned(n: int) -> int:
    return (n + ALIGN - 1) // ALIGN * ALIGN
