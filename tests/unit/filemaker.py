# SPDX-License-Identifier: MIT
"""Weight files built byte by byte, valid and not, for the tests of `clstm.formats`."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

# -- zip


@dataclass
class Item:
    """One zip entry. `local` and `central` override fields of its two headers."""

    name: str | bytes
    content: bytes = b""
    method: int = 0
    streamed: bool = False  # sizes follow the content
    descriptor: bytes | None = None
    zip64: bool = False
    extra: bytes = b""
    before: bytes = b""
    local: dict[str, int | bytes] = field(default_factory=dict)
    central: dict[str, int | bytes] = field(default_factory=dict)


def deflate(content: bytes, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def make_zip(
    items: Iterable[Item],
    *,
    comment: bytes = b"",
    zip64: bool = False,
    end: dict[str, int] | None = None,
    end64: dict[str, Any] | None = None,
    before_end: bytes = b"",
) -> bytes:
    out, directory, n_items = b"", b"", 0
    for item in items:
        n_items += 1
        raw_name = item.name.encode() if isinstance(item.name, str) else item.name
        packed = deflate(item.content) if item.method == 8 else item.content
        flags = (0x0008 if item.streamed else 0) | (0 if raw_name.isascii() else 0x0800)
        crc = zlib.crc32(item.content)
        both = {"flags": flags, "method": item.method, "name": raw_name}
        local = both | {"crc": crc, "packed": len(packed), "size": len(item.content)}
        central: dict[str, Any] = dict(local)
        local_extra = central_extra = item.extra
        if item.streamed:
            local |= {"crc": 0, "packed": 0, "size": 0}
        if item.zip64:
            sizes = struct.pack("<2Q", len(item.content), len(packed))
            central_extra = struct.pack("<2H", 1, 16) + sizes + item.extra
            local_extra = (
                struct.pack("<2H", 1, 16) + (bytes(16) if item.streamed else sizes) + item.extra
            )
            local |= {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
            central |= {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
        local |= item.local
        central |= {"offset": len(out) + len(item.before)} | item.central
        name = local["name"]
        out += item.before + struct.pack(
            "<4s5H3L2H", b"PK\x03\x04", 20, local["flags"], local["method"], 0, 0,
            local["crc"], local["packed"], local["size"], len(name), len(local_extra),
        ) + name + local_extra + packed  # fmt: skip
        if item.descriptor is not None:
            out += item.descriptor
        elif item.streamed:
            form = "<4sL2Q" if item.zip64 else "<4s3L"
            out += struct.pack(form, b"PK\x07\x08", crc, len(packed), len(item.content))
        name = central["name"]
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, central["flags"], central["method"], 0, 0,
            central["crc"], central["packed"], central["size"], len(name), len(central_extra),
            0, central.get("disk", 0), 0, 0, central["offset"],
        ) + name + central_extra  # fmt: skip
    begin = len(out)
    out += directory
    last = {"disk": 0, "first": 0, "here": n_items, "total": n_items}
    last |= {"size": len(directory), "offset": begin}
    if zip64:
        wide = last | {"magic": b"PK\x06\x06", "bytes": 44, "at": len(out)}
        wide |= {"locator_disk": 0, "disks": 1} | (end64 or {})
        out += struct.pack(
            "<4sQ2H2L4Q", wide["magic"], wide["bytes"], 45, 45, wide["disk"], wide["first"],
            wide["here"], wide["total"], wide["size"], wide["offset"],
        )  # fmt: skip
        out += struct.pack("<4sLQL", b"PK\x06\x07", wide["locator_disk"], wide["at"], wide["disks"])
    last |= end or {}
    out += before_end
    return out + struct.pack(
        "<4s4H2LH", b"PK\x05\x06", last["disk"], last["first"], last["here"], last["total"],
        last["size"], last["offset"], len(comment),
    ) + comment  # fmt: skip


# -- pickle and torch archives


class Raw(bytes):
    """A piece of pickle, to be put where a value is expected."""


def pickled(value: Any) -> bytes:
    """The opcodes (protocol 2, no memo) that push `value`."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<L", len(raw)) + raw
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(pickled, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(pickled(k) + pickled(v) for k, v in value.items()) + b"u"
    raise TypeError(type(value))


def named(module: str, attr: str) -> Raw:
    return Raw(f"c{module}\n{attr}\n".encode())


def called(module: str, attr: str, args: Any) -> Raw:
    return Raw(named(module, attr) + pickled(args) + b"R")


def storage(key: str, n_items: Any, kind: str = "FloatStorage", module: str = "torch") -> Raw:
    return Raw(pickled(("storage", named(module, kind), key, "cpu", n_items)) + b"Q")


def tensor(
    key: str, n_items: int, shape: Any, strides: Any, offset: Any = 0, kind: str = "FloatStorage"
) -> Raw:
    hooks = called("collections", "OrderedDict", ())
    args = (storage(key, n_items, kind), offset, shape, strides, False, hooks)
    return called("torch._utils", "_rebuild_tensor_v2", args)


def whole(value: Any, protocol: int = 2) -> bytes:
    """A complete pickle of `value`."""
    return bytes([0x80, protocol]) + pickled(value) + b"."


def torch_items(pickle: bytes, storages: dict[str, bytes], folder: str = "archive") -> list[Item]:
    return [
        Item(f"{folder}/data.pkl", pickle, streamed=True),
        Item(f"{folder}/byteorder", b"little", streamed=True),
        *(Item(f"{folder}/data/{key}", raw, streamed=True) for key, raw in storages.items()),
        Item(f"{folder}/version", b"3\n", streamed=True),
    ]


def torch_file(pickle: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    return make_zip(torch_items(pickle, storages or {}), zip64=True)


FLOATS = np.arange(6, dtype="<f4").tobytes()


def plain_torch_file() -> bytes:
    """Two tensors of one storage, written as torch writes them."""
    state = {"w": tensor("0", 6, (2, 3), (3, 1)), "b": tensor("0", 6, (2,), (1,), 4)}
    return torch_file(whole(state), {"0": FLOATS})


# -- safetensors


def safetensors_file(header: Any, data: bytes = b"", *, n_header: int | None = None) -> bytes:
    """`header` is JSON text, bytes, or what `json` turns into it."""
    if not isinstance(header, bytes):
        header = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(header) if n_header is None else n_header) + header + data


def info(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


# -- npy


def npy(
    header: str | bytes, data: bytes = b"", *, version: int = 1, n_header: int | None = None
) -> bytes:
    raw = header if isinstance(header, bytes) else header.encode("latin-1")
    n = len(raw) if n_header is None else n_header
    form = "<H" if version == 1 else "<L"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, n) + raw + data


def npy_of(array: np.ndarray, *, version: int = 1, header: str | None = None) -> bytes:
    """An array as other writers might write it: no padding, order as it lies in memory."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    if header is None:
        header = repr({"descr": array.dtype.str, "fortran_order": fortran, "shape": array.shape})
    return npy(header, array.tobytes("F" if fortran else "C"), version=version)


# -- what both sides of a comparison look like


def digest(tensors: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """Names, dtypes, shapes and bits, in a form that JSON carries."""
    return {
        name: [array.dtype.str, list(array.shape), zlib.crc32(array.tobytes()), array.nbytes]
        for name, array in tensors.items()
    }
