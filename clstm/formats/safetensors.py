# SPDX-License-Identifier: MIT
"""`.safetensors` files: parsed by the `safetensors` package behind checks of our own.

The package takes duplicate keys, the last of which wins, so that two readers may see two
different tensors; what it lets pass beyond the format's text is refused here first.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import numpy as np
import safetensors
from numpy.typing import NDArray

from .arrays import ITEM_BYTES, finish, made_bytes, raw_dtype
from .budget import Budget, tensor_bytes
from .source import Source, shown

_MAX_RANK = 8
_MAX_NAME = 512
_INT64 = 1 << 63

_CODES = {
    "BOOL": "b1", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4",
    "U64": "u8", "I64": "i8", "F16": "f2", "BF16": "bf16", "F32": "f4", "F64": "f8",
}  # fmt: skip
_UNREAD = {
    "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
    "F6_E2M3", "F6_E3M2", "F4",
}  # fmt: skip


def looks_like_safetensors(data: bytes) -> bool:
    """Whether a JSON object of the length in the first eight bytes follows them."""
    n_header = int.from_bytes(data[:8], "little")
    return 2 <= n_header <= len(data) - 8 and data[8:4104].lstrip(b" \t\r\n")[:1] == b"{"


def read_safetensors(
    source: Source, budget: Budget
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    header, n_data = _read_header(source)
    metadata = _check_metadata(source, header.pop("__metadata__", {}))
    codes: dict[str, str] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, info in header.items():
        codes[name], n_made, begin, end = _check_tensor(source, name, info)
        budget.take(n_made, f"{source.name}: tensor {shown(name)}")
        ranges.append((begin, end, name))
    _check_tiling(source, ranges, n_data)
    try:
        parsed = safetensors.deserialize(source.data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise source.fault(f"the safetensors package refuses it: {error}") from error
    return _make_tensors(source, header, codes, parsed), metadata


def _make_tensors(
    source: Source, header: dict[str, Any], codes: dict[str, str], parsed: list[Any]
) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    while parsed:  # popped one by one: each copy of the package's goes as its array is made
        name, info = parsed.pop()
        ours = header.get(name)
        if ours is None or (info["dtype"], list(info["shape"])) != (ours["dtype"], ours["shape"]):
            raise source.fault(f"tensor {shown(name)}: the safetensors package reads another one")
        raw = np.frombuffer(info.pop("data"), raw_dtype(codes[name], "<"))
        tensors[name] = finish(raw.reshape(ours["shape"]), codes[name], source, name)
    if len(tensors) != len(header):
        raise source.fault("the safetensors package reads fewer tensors")
    return {name: tensors[name] for name in header}


def _read_header(source: Source) -> tuple[dict[str, Any], int]:
    """The header as checked JSON, and the number of bytes behind it."""
    data = source.data
    n_header = int.from_bytes(data[:8], "little")
    if n_header > len(data) - 8:
        raise source.fault("the file is cut short: its header does not fit")
    # As Python objects a hostile header takes 25 times its size; this keeps that near the file's.
    limit = (256 << 10) + len(data) // 32
    if n_header > limit:
        raise source.fault(f"a header of {n_header} bytes, at most {limit} are read")
    try:
        text = data[8 : 8 + n_header].decode("utf-8")
        header = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(source, pairs),
            parse_int=lambda digits: _parse_int(source, digits),
            parse_float=lambda digits: _refuse_number(source, digits),
            parse_constant=lambda word: _refuse_number(source, word),
        )
    except UnicodeDecodeError:
        raise source.fault("the header is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise source.fault(f"the header is no JSON: {error}") from None
    except RecursionError:
        raise source.fault("the header is nested too deeply") from None
    if not isinstance(header, dict):
        raise source.fault("the header is no JSON object")
    return header, len(data) - 8 - n_header


def _unique(source: Source, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise source.fault("the header has a key twice")
    for key in table:
        _check_text(source, key)
    return table


def _check_text(source: Source, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise source.fault(f"the header has half a character: {shown(text)}") from None


def _parse_int(source: Source, digits: str) -> int:
    if len(digits) > 19 or not digits.isdecimal() or (value := int(digits)) >= _INT64:
        _refuse_number(source, digits)
    return value


def _refuse_number(source: Source, text: str) -> NoReturn:
    raise source.fault(f"the header has {shown(text)}, expected an integer from 0 to 2^63 - 1")


def _check_metadata(source: Source, metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        raise source.fault("__metadata__ is no JSON object")
    for value in metadata.values():
        if not isinstance(value, str):
            raise source.fault("__metadata__ has a value that is no text")
        _check_text(source, value)
    return metadata


def _check_tensor(source: Source, name: str, info: object) -> tuple[str, int, int, int]:
    """The code of the dtype, the bytes to be made, and where the bytes lie."""
    what = f"tensor {shown(name)}"
    if len(name.encode()) > _MAX_NAME:
        raise source.fault(f"{what}: a name of more than {_MAX_NAME} bytes")
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise source.fault(f"{what}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    # `type(...) is int`: JSON's true would pass as the integer 1.
    if not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise source.fault(f"{what}: shape is no list of integers")
    if len(shape) > _MAX_RANK:
        raise source.fault(f"{what}: {len(shape)} dimensions, at most {_MAX_RANK} are read")
    if not (
        isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)
    ):
        raise source.fault(f"{what}: data_offsets are not two integers")
    if not isinstance(dtype, str):
        raise source.fault(f"{what}: dtype is no text")
    if dtype in _UNREAD:
        raise source.unsupported(f"{what} is {dtype}; save it as F32, F16 or BF16")
    if dtype not in _CODES:
        raise source.fault(f"{what}: unknown dtype {shown(dtype)}")
    code = _CODES[dtype]
    begin, end = offsets
    n_made = tensor_bytes(shape, made_bytes(code))
    if n_made is None or end - begin != n_made // made_bytes(code) * ITEM_BYTES[code]:
        raise source.fault(f"{what}: {dtype} {shape} does not take bytes {begin} to {end}")
    return code, n_made, begin, end


def _check_tiling(source: Source, ranges: list[tuple[int, int, str]], n_data: int) -> None:
    """The tensors must cover the data without hole or overlap; empty ones may stand anywhere."""
    at = 0
    for begin, end, name in sorted(ranges):
        if begin != at:
            raise source.fault(f"tensor {shown(name)}: overlap or hole at byte {min(begin, at)}")
        at = end
    if at != n_data:
        raise source.fault(f"the tensors take {at} bytes, the file has {n_data} for them")
