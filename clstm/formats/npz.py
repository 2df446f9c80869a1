# SPDX-License-Identifier: MIT
"""`.npz` archives of NumPy, without pickle.

The `.npy` headers are read here and not by `numpy.lib.format`, which hands them to Python's own
parser (an audit event, and slow or worse on hostile text) and takes the memory they ask for
before it knows whether the file has that much.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ITEM_BYTES, finish, raw_dtype
from .budget import Budget, tensor_bytes
from .source import Source, shown
from .zip_entries import STORED, Entry, check_crc, crc_of

NPY_MAGIC = b"\x93NUMPY"

_MAX_HEADER = 10_000
_MAX_RANK = 32
_CHUNK = 256 << 10

# One dict literal with the keys descr, fortran_order and shape. No escapes in texts; an L behind
# an integer is Python 2's. The white space is that of Python's source, narrower than \s.
_PAIR = re.compile(
    r"""[ \t\n]* (?P<q>['"])(?P<key>\w+)(?P=q) [ \t\n]* : [ \t\n]*
    (?: (?P<r>['"])(?P<text>[^'"\\]*)(?P=r) | (?P<bool>True|False)
      | \((?P<ints>[\d \t\n,L]*)\) | (?P<other>\[) )
    [ \t\n]* (?P<comma>,?)""",
    re.VERBOSE | re.ASCII,
)
_INT = r"(?:0|[1-9]\d{0,18})L?[ \t\n]*"
_INTS = re.compile(rf"[ \t\n]*(?:{_INT},[ \t\n]*)*(?:{_INT})?", re.ASCII)
_DESCR = re.compile(r"([<>|=])([biuf])([1248])", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Array:
    entry: Entry
    code: str
    byte_order: str
    fortran: bool
    shape: tuple[int, ...]
    n_header: int  # bytes of the entry before its elements
    n_bytes: int


def read_npz(source: Source, entries: dict[str, Entry], budget: Budget) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` archive under their names without `.npy`."""
    arrays: dict[str, _Array] = {}
    for entry in entries.values():
        name = entry.name.removesuffix(".npy")
        if name in arrays:
            raise source.fault(f"two arrays are named {shown(name)}")
        arrays[name] = array = _read_header(source, entry)
        budget.take(array.n_bytes, f"{source.name}: array {shown(name)}")
    return {name: _make_array(source, name, array) for name, array in arrays.items()}


def _read_header(source: Source, entry: Entry) -> _Array:
    what = f"array {shown(entry.name)}"
    head = _first_bytes(source, entry, 12 + _MAX_HEADER)
    if head[:6] != NPY_MAGIC:
        raise source.fault(f"{what}: no .npy content")
    if len(head) < 12 or tuple(head[6:8]) not in ((1, 0), (2, 0), (3, 0)):
        raise source.fault(f"{what}: unknown version of .npy")
    n_prefix = 10 if head[6] == 1 else 12
    n_text = int.from_bytes(head[8:n_prefix], "little")
    if n_text > _MAX_HEADER:
        raise source.fault(f"{what}: a header of {n_text} bytes, at most {_MAX_HEADER} are read")
    if n_prefix + n_text > len(head):
        raise source.fault(f"{what}: the header is cut short")
    try:
        text = head[n_prefix : n_prefix + n_text].decode("ascii")
    except UnicodeDecodeError:  # names of fields, which only records have
        raise source.fault(f"{what}: the header is no plain array's") from None
    descr, fortran, shape = _parse_header(source, what, text)
    match = _DESCR.fullmatch(descr)
    if match is None or (code := match[2] + match[3]) not in ITEM_BYTES:
        raise _refuse_dtype(source, what, descr)
    n_bytes = tensor_bytes(shape, ITEM_BYTES[code])
    n_header = n_prefix + n_text
    if n_bytes is None or entry.n_bytes != n_header + n_bytes:
        raise source.fault(f"{what}: {descr} {shape} does not take {entry.n_bytes} bytes")
    byte_order = ">" if match[1] == ">" else "<"  # no writer is known to write "="
    return _Array(entry, code, byte_order, fortran, shape, n_header, n_bytes)


def _refuse_dtype(source: Source, what: str, descr: str) -> Exception:
    if descr[1:2] in ("O", "["):
        return source.fault(f"{what} holds Python objects or records, which are not read")
    return source.unsupported(f"{what} has dtype {shown(descr)}; save it as float32")


def _parse_header(source: Source, what: str, text: str) -> tuple[str, bool, tuple[int, ...]]:
    bad = source.fault(f"{what}: the header is no dict of descr, fortran_order and shape")
    body = text.lstrip(" \t").rstrip(" \t\n")
    if body[:1] != "{" or body[-1:] != "}":
        raise bad
    found: dict[str, Any] = {}
    at, end, more = 1, len(body) - 1, True
    while more and (match := _PAIR.match(body, at, end)):
        key, at, more = match["key"], match.end(), bool(match["comma"])
        if key in found:
            raise bad
        if match["other"] and key == "descr":
            raise _refuse_dtype(source, what, "|[")
        if match["bool"]:
            found[key] = match["bool"] == "True"
        elif match["text"] is not None:
            found[key] = match["text"]
        elif match["ints"] is not None:
            found[key] = _parse_shape(match["ints"])
        else:
            raise bad
    match found:
        case {"descr": str() as descr, "fortran_order": bool() as fortran, "shape": tuple() as s}:
            if len(found) == 3 and not body[at:end].strip(" \t\n") and None not in s:
                return descr, fortran, s
    raise bad


def _parse_shape(ints: str) -> tuple[int | None, ...]:
    """The sizes, or (None,) where the text between the brackets is no tuple of them."""
    if not _INTS.fullmatch(ints):
        return (None,)
    parts = [part.strip().rstrip("L") for part in ints.split(",")]
    if len(parts) == 1 and parts[0]:  # "(3)" is no tuple
        return (None,)
    sizes = tuple(int(part) for part in parts if part)
    return sizes if len(sizes) <= _MAX_RANK else (None,)


def _first_bytes(source: Source, entry: Entry, n: int) -> bytes:
    """The first `n` bytes of an entry's content, or fewer where it is shorter."""
    content = memoryview(source.data)[entry.start : entry.start + entry.n_packed]
    if entry.method == STORED:
        return bytes(content[:n])
    out = b""
    for piece in _inflate(source, entry, n):
        out += piece
        if len(out) >= n:
            break
    return out[:n]


def _inflate(source: Source, entry: Entry, n_piece: int = _CHUNK) -> Iterator[bytes]:
    """The content of a deflated entry in pieces of at most `n_piece` bytes; a bomb ends at the
    size that it declares."""
    content = memoryview(source.data)[entry.start : entry.start + entry.n_packed]
    bad = f"entry {shown(entry.name)} is damaged: it does not inflate to {entry.n_bytes} bytes"
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    n_made = at = 0
    while not inflater.eof:
        # Windows of the input, for the inflater copies what it leaves over.
        fed = inflater.unconsumed_tail or content[at : at + _CHUNK]
        if not inflater.unconsumed_tail:
            at += len(fed)
        try:
            piece = inflater.decompress(fed, n_piece)
        except zlib.error:
            raise source.fault(bad) from None
        n_made += len(piece)
        stalled = not piece and not inflater.eof and at >= len(content)
        if n_made > entry.n_bytes or (stalled and not inflater.unconsumed_tail):
            raise source.fault(bad)
        yield piece
    if n_made != entry.n_bytes or at < len(content) or inflater.unused_data:
        raise source.fault(bad)


def _make_array(source: Source, name: str, array: _Array) -> NDArray[Any]:
    dtype = raw_dtype(array.code, array.byte_order)
    if array.entry.method == STORED:
        check_crc(source, array.entry, crc_of(source, array.entry))
        raw: NDArray[Any] = np.ndarray(
            array.shape,
            dtype,
            buffer=source.data,
            offset=array.entry.start + array.n_header,
            order="F" if array.fortran else "C",
        )
        return finish(raw, array.code, source, name)
    made = np.empty(array.shape, dtype.newbyteorder("="))
    # Fortran order is C order of the transpose; filled element by element, without a second copy.
    flat = made.T.flat if array.fortran else made.reshape(-1)
    at = crc = 0
    skip, rest = array.n_header, b""
    for piece in _inflate(source, array.entry):
        crc = zlib.crc32(piece, crc)
        rest += piece[skip:]
        skip = max(0, skip - len(piece))
        n_whole = len(rest) // dtype.itemsize
        if n_whole:
            flat[at : at + n_whole] = np.frombuffer(rest, dtype, n_whole)
        at += n_whole
        rest = rest[n_whole * dtype.itemsize :]
    check_crc(source, array.entry, crc)
    return finish(made, array.code, source, name)
