# SPDX-License-Identifier: MIT
"""Changes to files that keep most of their structure, so that what lies behind the outer checks is
reached: archives are packed again around a changed entry, lengths and checksums follow.

Each takes the bytes of a file and a generator of random numbers, and gives other bytes. One in
four changes is made to the bytes as they are.
"""

from __future__ import annotations

import io
import itertools
import json
import pickletools
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from filemaker import Item, make_zip
from hostile import ACCEPTED, HOOKS, WRONG, W, opcode_of

NUMBERS = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 31, 32, 33, 63, 64, 127, 128, 255, 256, 511, 512, 1024, 4096,
    9999, 10_001, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62,
    2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip


def number(rng: random.Random, near: int = 0) -> int:
    """One that sizes and offsets go wrong with, or one near `near`."""
    how = rng.randrange(4)
    if how == 0:
        return near + rng.choice([-8, -4, -2, -1, 1, 2, 4, 8])
    if how == 1:
        return near ^ (1 << rng.randrange(16))
    return rng.choice(NUMBERS) * rng.choice([1, 1, 1, 1, -1])


def raw(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, copied or inserted, whatever they mean."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, n = rng.randrange(len(out) + 1), rng.choice([1, 1, 2, 4, 8, 16, 64])
        how = rng.randrange(6)
        if how == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif how == 2:
            del out[at : at + n]
        elif how == 3:
            out[at:at] = rng.randbytes(n)
        elif how == 4:
            to = rng.randrange(len(out) + 1)
            out[to:to] = out[at : at + n]
        else:
            size = rng.choice([2, 4, 8])
            word = (number(rng) % (1 << 8 * size)).to_bytes(size, rng.choice(["little", "big"]))
            out[at : at + size] = word
    return bytes(out)


def _or_raw(change: Callable[[bytes, random.Random], bytes]) -> Any:
    """`change`, and sometimes, and where the structure is lost already, plain bytes."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.randrange(4) == 0:
            return raw(data, rng)
        try:
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                data = change(data, rng)
            return data
        except Exception:  # of the libraries that take the file apart
            return raw(data, rng)

    return mutate


# -- zip

_HEADS = ("flags", "method", "crc", "packed", "size", "name", "offset", "disk")
_ENDS = ("disk", "first", "here", "total", "size", "offset")


def _items(data: bytes) -> list[Item]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [
            Item(i.filename, archive.read(i), i.compress_type, bool(i.flag_bits & 8), extra=b"")
            for i in archive.infolist()
        ]


def _zip(inner: Callable[[str, bytes, random.Random], bytes], data: bytes, rng: Any) -> bytes:
    """One entry's content, name, order or header is another one; or the end of the archive is."""
    items = _items(data)
    options: dict[str, Any] = {"zip64": data.rfind(b"PK\x06\x06") >= 0}
    how = rng.randrange(12)
    if not items:
        return raw(data, rng)
    item = rng.choice(items)
    if how < 6:
        item.content = inner(item.name, item.content, rng)
    elif how == 6:
        item.method = 8 - item.method
    elif how == 7:
        other = rng.choice(items)
        item.name, other.name = other.name, item.name
    elif how == 8:
        items.remove(item) if rng.randrange(2) else items.append(rng.choice(items))
        rng.shuffle(items)
    elif how == 9:
        item.streamed, item.zip64 = rng.random() < 0.5, rng.random() < 0.5
        item.extra = rng.choice([b"", b"\0\0\0", struct.pack("<2H", 1, 0), b"up\1\0x", b"\1"])
    elif how == 10:
        field = rng.choice(_HEADS)
        limit = 0xFFFF if field in ("flags", "method", "disk") else 0xFFFFFFFF
        value: Any = rng.randbytes(3) + b"/" if field == "name" else number(rng, 8) & limit
        for head in rng.choice([(item.local,), (item.central,), (item.local, item.central)]):
            head[field] = value
    else:
        field = rng.choice(_ENDS)
        options["end"] = {field: number(rng, len(items)) & 0xFFFF}
        options["zip64"] = rng.random() < 0.5
        if rng.randrange(2):
            options["end64"] = {field: number(rng, len(items)) & 0xFFFFFFFF}
        options["comment"] = rng.choice([b"", b"PK\x05\x06", b"x" * 30])
    return make_zip(items, **options)


# -- pickle

_PIECES = [opcode_of(name) for name in sorted(ACCEPTED)] + [
    *map(bytes, WRONG.values()), bytes(HOOKS), bytes(W), b"\x8c\5model", b"\x8c\1w", b"\x8c\1a",
]  # fmt: skip


_WIDTHS = {b"K": 1, b"M": 2, b"J": 4}  # of the operands of BININT1, BININT2 and BININT


def pickle(data: bytes, rng: random.Random) -> bytes:
    """An opcode more, less, twice, elsewhere, or with another operand."""
    ops = [at for _, _, at in pickletools.genops(data)] + [len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(ops)]
    i, how = rng.randrange(len(parts)), rng.randrange(7)
    numbers = [j for j, part in enumerate(parts) if part[:1] in _WIDTHS]
    if how == 0:
        del parts[i]
    elif how == 1:
        parts.insert(i, rng.choice(_PIECES))
    elif how == 2:
        parts[i] = rng.choice(_PIECES)
    elif how == 3:
        a, b = sorted((i, rng.randrange(len(parts))))
        parts[i:i] = parts[a : min(b, a + 12)]
    elif how == 4 and len(parts[i]) > 1:
        parts[i] = parts[i][:1] + raw(parts[i][1:], rng)
    elif how == 5 and numbers:  # a size or an offset, one more or less
        i = rng.choice(numbers)
        width = _WIDTHS[parts[i][:1]]
        near = int.from_bytes(parts[i][1:], "little") + rng.choice([-1, 1])
        parts[i] = parts[i][:1] + (near % (1 << 8 * width)).to_bytes(width, "little")
    else:
        parts[i] = _integer(parts[i], rng)
    return b"".join(parts)


def _integer(part: bytes, rng: random.Random) -> bytes:
    """An integer opcode instead, of any width."""
    value = number(rng, part[1] if len(part) > 1 else 0)
    n = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n]) + value.to_bytes(n, "little", signed=True)


def _torch_entry(name: str, content: bytes, rng: random.Random) -> bytes:
    if name.endswith("data.pkl"):
        return pickle(content, rng)
    return rng.choice([raw(content, rng), content[:-1], content + b"\0", b"big", b""])


torch = _or_raw(lambda data, rng: _zip(_torch_entry, data, rng))

# -- npy

_DESCRS = "<f4 >f4 <f8 <f2 <i8 |b1 |u1 >i2 <U4 |O8 |V2 =f4 <f16 |S1 <c8".split()


def npy(data: bytes, rng: random.Random) -> bytes:
    """A header whose words or numbers are others, with its length made right; or other data."""
    version = data[6]
    start = 10 if version == 1 else 12
    n = int.from_bytes(data[8:start], "little")
    head, rest = data[start : start + n].decode("latin-1"), data[start + n :]
    how = rng.randrange(8)
    if how == 0:
        head = re.sub(r"'[<>|=]\w+'", repr(rng.choice(_DESCRS)), head)
    elif how == 1:
        head = re.sub(r"True|False", rng.choice(["True", "False", "0", "None"]), head)
    elif how == 2:
        found = list(re.finditer(r"\d+", head[head.find("(") :]))
        if found:
            m, at = rng.choice(found), head.find("(")
            head = f"{head[: at + m.start()]}{number(rng, int(m[0]))}{head[at + m.end() :]}"
    elif how == 3:
        head = raw(head.encode("latin-1"), rng).decode("latin-1")
    elif how == 4:
        rest = raw(rest, rng)
    elif how == 5:
        head = re.sub(r"\([^)]*\)", f"({', '.join(['1'] * rng.randrange(40))},)", head)
    elif how == 6:
        version, head = rng.choice([0, 1, 2, 3, 4]), head + " " * rng.choice([0, 1, 54, 9990])
    else:
        head = re.sub(r"'\w+':", lambda m: rng.choice([m[0], "'shape':", "u'x':", ""]), head)
    size = (2 if version == 1 else 4, "little")
    text = head.encode("latin-1")
    return data[:6] + bytes([version, 0]) + len(text).to_bytes(*size) + text + rest


npz = _or_raw(lambda data, rng: _zip(lambda name, content, r: npy(content, r), data, rng))

# -- JSON: safetensors

_WORDS = [
    "F32", "F16", "BF16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "C64", "X", "", "\ud800",
    "é" * 300,
    True, None, 1.5, -1, [], {}, [0, 4], [[]], {"dtype": "F32"},
]  # fmt: skip


def _json(value: Any, rng: random.Random) -> Any:
    """The tree with one node changed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key, how = rng.choice(list(value)), rng.randrange(10)
        if how == 0:
            return {k: v for k, v in value.items() if k != key}
        if how == 1:
            return value | {rng.choice(["a", "__metadata__", "clstm.layers"]): value[key]}
        return value | {key: _json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i, how = rng.randrange(len(value)), rng.randrange(10)
        if how == 0:
            return value[:i] + value[i + 1 :]
        if how == 1:
            return [*value[:i], value[i], *value[i:]]
        return [*value[:i], _json(value[i], rng), *value[i + 1 :]]
    if isinstance(value, str) and value[:2] in ("[{", '{"') and rng.random() < 0.9:
        return json.dumps(_json(json.loads(value), rng))  # layers, as text in the metadata
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.8:
        return number(rng, value)
    return rng.choice(_WORDS)


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    n = int.from_bytes(data[:8], "little")
    head, rest = data[8 : 8 + n], data[8 + n :]
    how = rng.randrange(8)
    if how == 0:
        head = raw(head, rng)
    elif how == 1:
        rest = raw(rest, rng)
    elif how == 2:  # a key twice, a number in another notation: what a tree cannot say
        text = head.decode()
        text = rng.choice(
            [text.replace("{", '{"a":1,', 1), re.sub(r"\d+", "1e1", text, count=1), text + " ",
             text.replace(",", ", ", 1), "[" * 2000, re.sub(r"\d+", "NaN", text, count=1)]
        )  # fmt: skip
        head = text.encode()
    else:
        head = json.dumps(_json(json.loads(head), rng)).encode()
    return struct.pack("<Q", len(head)) + head + rest


safetensors = _or_raw(_safetensors)

# -- .clstm

_HEADER, _OP, _TENSOR = 64, 128, 64


def seal(data: bytes) -> bytes:
    """With the length and the checksum that its header should have."""
    out = bytearray(data)
    if len(out) >= _HEADER:
        out[16:24] = len(out).to_bytes(8, "little")
        out[60:64] = bytes(4)
        out[60:64] = zlib.crc32(out).to_bytes(4, "little")
    return bytes(out)


def _clstm(data: bytes, rng: random.Random) -> bytes:
    """A word of the tables is another; or a flag, a size everywhere, a record twice."""
    out = bytearray(data)
    n_ops, n_tensors = struct.unpack_from("<2I", out, 24)
    tables = min(_HEADER + n_ops * _OP + n_tensors * _TENSOR, len(out))
    at = rng.randrange(tables // 4) * 4
    (word,) = struct.unpack_from("<I", out, at)
    how = rng.randrange(8)
    if how < 3:
        struct.pack_into("<I", out, at, number(rng, word) & 0xFFFFFFFF)
    elif how == 3:
        struct.pack_into("<I", out, at, word ^ 1 << rng.randrange(24))
    elif how == 4:
        new = number(rng, word) & 0xFFFFFFFF
        for i in range(24, tables - 3, 4):
            if struct.unpack_from("<I", out, i)[0] == word:
                struct.pack_into("<I", out, i, new)
    elif how == 5 and n_ops:
        op = _HEADER + rng.randrange(n_ops) * _OP
        struct.pack_into("<I", out, op + rng.choice([0, 4]), rng.choice([1, 2, 3, *range(16, 48)]))
        params = [0, -1, 0.5, float("nan"), float("inf")]
        struct.pack_into("<d", out, op + 80 + 8 * rng.randrange(6), rng.choice(params))
    elif how == 6 and n_ops:
        op = _HEADER + rng.randrange(n_ops) * _OP
        out[op:op] = out[op : op + _OP]
        struct.pack_into("<I", out, 24, n_ops + 1)
    else:
        out = bytearray(raw(bytes(out), rng))
    return seal(bytes(out))


clstm = _or_raw(_clstm)

# -- protobuf: ONNX

_OPS = (
    "LSTM GRU RNN Concat Reshape Expand Gather Slice Tile Add Mul Sub Div MatMul Gemm Transpose "
    "Squeeze Unsqueeze Identity Cast Split Shape Range ConstantOfShape Constant If Flatten Softmax "
    "LogSoftmax BatchNormalization LayerNormalization Relu Clip Where Dropout Loop Sqrt Size"
).split()


def _messages(message: Any, out: list[Any]) -> list[Any]:
    """The message and all in it that have fields set."""
    out.append(message)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for one in value if field.is_repeated else [value]:
            _messages(one, out)
    return out


def _protobuf(data: bytes, rng: random.Random) -> bytes:
    """One field of one message anywhere in the model: gone, twice, moved, or another value."""
    from onnx import ModelProto

    model = ModelProto.FromString(data)
    everything = _messages(model, [])
    message = rng.choice(everything)
    fields = message.ListFields()
    if not fields:
        return raw(data, rng)
    field, value = rng.choice(fields)
    how = rng.randrange(8)
    if field.is_repeated:
        values = list(value)
        i = rng.randrange(len(values))
        if how == 0:
            del value[i]
        elif how == 1:
            value.append(values[rng.randrange(len(values))])
        elif how == 2:
            rng.shuffle(values)
            del value[:]
            value.extend(values)
        elif field.message_type is None:
            value[i] = _scalar(field, values[i], everything, rng)
        elif how == 3:
            alike = [m for m in everything if m.DESCRIPTOR is field.message_type]
            copy = type(values[i])()  # one that stands in the other is lost before it is copied
            copy.CopyFrom(rng.choice(alike))
            values[i].CopyFrom(copy)
        else:
            return _protobuf(data, rng)
    elif field.message_type is not None or how == 0:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, value, everything, rng))
    return model.SerializeToString()


def _scalar(field: Any, value: Any, everything: list[Any], rng: random.Random) -> Any:
    if isinstance(value, str):
        if field.name == "op_type":
            return rng.choice(_OPS)
        names = [m.name for m in everything if hasattr(m, "name") and isinstance(m.name, str)]
        return rng.choice([*names, *names, "", "é", "x" * 200])
    if isinstance(value, bytes):
        return raw(value, rng)
    if isinstance(value, float):
        return rng.choice([0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 3e38])
    if isinstance(value, bool):
        return not value
    wide = number(rng, int(value))
    bits = 31 if "INT32" in _type_name(field) or field.enum_type is not None else 63
    return max(-(1 << bits), min(wide, (1 << bits) - 1)) if "UINT" not in _type_name(field) else (
        abs(wide) % (1 << 32)
    )  # fmt: skip


def _type_name(field: Any) -> str:
    names = {3: "INT64", 4: "UINT64", 5: "INT32", 13: "UINT32", 14: "ENUM"}
    return names.get(field.type, "")


onnx = _or_raw(_protobuf)
