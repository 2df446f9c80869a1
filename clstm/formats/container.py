# SPDX-License-Identifier: MIT
"""The ``.clstm`` file: records and tensors as csrc/src/file.c reads them.

The layout stands in docs/format.md. Writing and reading are here; the C core has a reader
of its own, and both check everything, so that each is a test of the other.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from ..errors import ModelFormatError
from .budget import Budget

MAGIC = b"CLSTM\0\r\n"
VERSION = 1
ALIGN = 64

HEADER = np.dtype(
    [("magic", "V8"), ("version", "<u4"), ("header_bytes", "<u4"), ("file_bytes", "<u8"),
     ("n_ops", "<u4"), ("n_tensors", "<u4"), ("text_bytes", "<u4"), ("input_size", "<u4"),
     ("n_check", "<u4"), ("reserved", "<u4", 4), ("crc", "<u4")]
)  # fmt: skip
OP = np.dtype(
    [("kind", "<u4"), ("flags", "<u4"), ("n_inputs", "<u4"), ("inputs", "<u4", 4),
     ("reserved", "<u4"), ("first_tensor", "<u4"), ("n_tensors", "<u4"), ("name_at", "<u4"),
     ("name_bytes", "<u4"), ("dims", "<u4", 8), ("params", "<f8", 6)]
)  # fmt: skip
TENSOR = np.dtype(
    [("at", "<u8"), ("bytes", "<u8"), ("dtype", "<u4"), ("rank", "<u4"), ("dims", "<u4", 4),
     ("name_at", "<u4"), ("name_bytes", "<u4"), ("reserved", "<u4", 4)]
)  # fmt: skip
DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<i8")}


@dataclass
class Record:
    """One layer as the file has it: a kind, its numbers, its tensors in order."""

    kind: int
    name: str = ""
    flags: int = 0
    input: int = 0
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
    ops = np.zeros(len(image.records), OP)
    table = np.zeros(len(tensors), TENSOR)
    text, first = bytearray(), 0
    for row, record in zip(ops, image.records, strict=True):
        name = record.name.encode()
        row["kind"], row["flags"], row["n_inputs"] = record.kind, record.flags, 1
        row["inputs"][0] = record.input
        row["first_tensor"], row["n_tensors"] = first, len(record.tensors)
        row["name_at"], row["name_bytes"] = len(text), len(name)
        row["dims"][: len(record.dims)] = record.dims
        row["params"][: len(record.params)] = record.params
        text += name
        first += len(record.tensors)
    names_at = len(text)
    text += b"".join(name.encode() for name, _ in tensors)
    at = _aligned(HEADER.itemsize + ops.nbytes + table.nbytes + len(text))
    for row, (name, array) in zip(table, tensors, strict=True):
        row["at"], row["bytes"] = at, array.nbytes
        row["dtype"] = 2 if array.dtype.kind == "i" else 1
        row["rank"] = array.ndim
        row["dims"][: array.ndim] = array.shape
        row["name_at"], row["name_bytes"] = names_at, len(name.encode())
        names_at += len(name.encode())
        at = _aligned(at + array.nbytes)
    header = np.zeros((), HEADER)
    header["magic"] = np.void(MAGIC)
    header["version"], header["header_bytes"], header["file_bytes"] = VERSION, 64, at
    header["n_ops"], header["n_tensors"] = len(ops), len(table)
    header["text_bytes"], header["input_size"] = len(text), image.input_size
    header["n_check"] = 2 if image.check else 0
    out = bytearray(at)
    front = header.tobytes() + ops.tobytes() + table.tobytes() + bytes(text)
    out[: len(front)] = front
    for row, (_, array) in zip(table, tensors, strict=True):
        begin = int(row["at"])
        np.frombuffer(out, array.dtype, array.size, begin)[:] = array.reshape(-1)
    out[60:64] = zlib.crc32(out).to_bytes(4, "little")
    return bytes(out)


def read_image(data: bytes, name: str, budget: Budget) -> Image:
    """The image in ``data``, or ModelFormatError. Tensors are views of ``data``."""

    def bad(what: str) -> ModelFormatError:
        return ModelFormatError(f"{name}: {what}")

    if len(data) < HEADER.itemsize or data[:8] != MAGIC:
        raise bad("not a .clstm file")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["version"] != VERSION:
        raise bad(f"format version {header['version']}; this clstm reads version {VERSION}")
    if header["file_bytes"] != len(data):
        raise bad(f"{len(data)} bytes, its header says {header['file_bytes']}: truncated?")
    n_ops, n_tensors = int(header["n_ops"]), int(header["n_tensors"])
    n_text, n_check = int(header["text_bytes"]), int(header["n_check"])
    tensors_at = HEADER.itemsize + n_ops * OP.itemsize
    text_at = tensors_at + n_tensors * TENSOR.itemsize
    end = _aligned(text_at + n_text)
    bare = n_check not in (0, 2) or n_check > n_tensors or header["reserved"].any()
    if bare or header["header_bytes"] != 64 or end > len(data):
        raise bad("bad header")
    crc = zlib.crc32(memoryview(data)[64:], zlib.crc32(data[:60] + bytes(4)))
    if crc != header["crc"]:
        raise bad(f"damaged: checksum {crc:08x}, expected {header['crc']:08x}")
    text = data[text_at : text_at + n_text]

    def word(row: np.void) -> str:
        at, size = int(row["name_at"]), int(row["name_bytes"])
        try:
            if at + size <= n_text:
                return text[at : at + size].decode()
        except UnicodeDecodeError:
            pass
        raise bad("a name that is none")

    arrays: list[tuple[str, np.ndarray]] = []
    for row in np.frombuffer(data, TENSOR, n_tensors, tensors_at):
        rank, dims = int(row["rank"]), [int(d) for d in row["dims"]]
        dtype = DTYPES.get(int(row["dtype"]))
        if dtype is None or rank > 4 or any(dims[rank:]) or row["reserved"].any():
            raise bad("a tensor of unknown type or rank")
        count = 1
        for size in dims[:rank]:
            count *= size
        if count * dtype.itemsize != row["bytes"] or row["at"] != end or end + count * dtype.itemsize > len(data):
            raise bad("a tensor that does not lie where it should")
        budget.take(count * dtype.itemsize, word(row))
        arrays.append((word(row), np.frombuffer(data, dtype, count, end).reshape(dims[:rank])))
        end = _aligned(end + count * dtype.itemsize)
    if end != len(data):
        raise bad("bytes after the last tensor")
    records, next_tensor = [], 0
    for row in np.frombuffer(data, OP, n_ops, HEADER.itemsize):
        last = next_tensor + int(row["n_tensors"])
        if row["first_tensor"] != next_tensor or last > n_tensors - n_check:
            raise bad("a layer whose record is inconsistent")
        tensors = dict(arrays[next_tensor:last])
        if len(tensors) != last - next_tensor:
            raise bad("two tensors of one name")
        dims = tuple(int(d) for d in row["dims"])
        params = tuple(float(p) for p in row["params"])
        records.append(
            Record(int(row["kind"]), word(row), int(row["flags"]), int(row["inputs"][0]), dims, params, tensors)
        )  # fmt: skip
        next_tensor = last
    if next_tensor != n_tensors - n_check:
        raise bad("tensors that belong to no layer")
    check = (arrays[-2][1], arrays[-1][1]) if n_check else None
    return Image(records, int(header["input_size"]), check)


def _aligned(n: int) -> int:
    return (n + ALIGN - 1) // ALIGN * ALIGN
