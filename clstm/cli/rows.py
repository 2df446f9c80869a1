# SPDX-License-Identifier: MIT
"""Rows of numbers, or tokens, from CSV or .npy, as they come."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import DTypeError, ShapeError, TokenError
from ..model import Model

_NPY = b"\x93NUMPY"
_FILE_CHUNK = 256  # rows at once where none is waited for


@dataclass
class Rows:
    """Chunks of rows, float32 (n, I) or int64 (n,), and how far they have come."""

    chunks: Iterator[np.ndarray]
    total: int | None  # bytes or rows; None where nobody knows
    done: Callable[[], int]


@contextmanager
def open_rows(path: str, model: Model, chunk: int | None, header: bool | None) -> Iterator[Rows]:
    """Rows of a file, or of standard input for "-"."""
    if path == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        yield _csv(sys.stdin.buffer, "standard input", model, chunk, header)
        return
    with open(path, "rb") as file:
        if file.peek(len(_NPY)).startswith(_NPY):
            yield _npy(path, model, chunk or _FILE_CHUNK)
        else:
            yield _csv(file, path, model, chunk, header)


# ---- .npy ---------------------------------------------------------------------------------


def _npy(path: str, model: Model, chunk: int) -> Rows:
    """Mapped, so that no more than a chunk is in memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: no array that can be read: {error}") from None
    expected, kinds = (
        ("(T,)", "iu") if model.num_embeddings else (f"(T, {model.input_size})", "fiub")
    )
    if array.shape[1:] != (() if model.num_embeddings else (model.input_size,)) or not array.ndim:
        raise ShapeError(f"{path}: expected shape {expected}, found {array.shape}")
    if array.dtype.kind not in kinds:
        wanted = "tokens (integers)" if model.num_embeddings else "real numbers"
        raise DTypeError(f"{path}: expected {wanted}, found {array.dtype}")
    at = 0

    def chunks() -> Iterator[np.ndarray]:
        nonlocal at
        for start in range(0, len(array), chunk):
            rows = np.asarray(array[start : start + chunk])
            if model.num_embeddings:
                _check_tokens(rows, model.num_embeddings, path, start)
            at = start + len(rows)
            yield rows

    return Rows(chunks(), len(array), lambda: at)


def _check_tokens(rows: np.ndarray, count: int, path: str, start: int) -> None:
    wrong = np.flatnonzero((rows < 0) | (rows >= count))
    if wrong.size:
        row = start + int(wrong[0]) + 1
        raise TokenError(f"{path}: row {row}: token {rows[wrong[0]]} is outside 0 ... {count - 1}")


# ---- CSV ----------------------------------------------------------------------------------


def _csv(file: BinaryIO, name: str, model: Model, chunk: int | None, header: bool | None) -> Rows:
    size = _file_size(file)
    at = 0

    def lines() -> Iterator[tuple[int, str]]:
        nonlocal at
        for number, raw in enumerate(file, 1):
            at += len(raw)
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
            if number == 1 and raw.startswith(_NPY):
                raise ValueError(f"{name}: a .npy is read from a file: give its path")
            if text:
                yield number, text

    def rows() -> Iterator[int | list[float]]:
        parse = _token if model.num_embeddings else _frame
        width = model.num_embeddings or model.input_size or 0
        first = True
        for number, text in lines():
            skip = first and (header or (header is None and _is_header(text)))
            first = False
            if not skip:
                try:
                    yield parse(text, width)
                except (ValueError, TokenError) as error:
                    raise type(error)(f"{name}: line {number}: {error}") from None

    dtype = np.dtype(np.int64 if model.num_embeddings else np.float32)
    size_of_chunk = chunk or (1 if size is None else _FILE_CHUNK)
    return Rows(_chunks(rows(), size_of_chunk, dtype), size, lambda: at)


def _chunks(
    rows: Iterator[int | list[float]], size: int, dtype: np.dtype[np.generic]
) -> Iterator[np.ndarray]:
    """Rows side by side; those before a bad one are given before its error is raised."""
    held: list[int | list[float]] = []
    failure = None
    while failure is None:
        try:
            while len(held) < size:
                held.append(next(rows))
        except (StopIteration, ValueError, TokenError, OSError) as error:
            failure = error
        if held:
            with np.errstate(over="ignore"):
                yield np.array(held, dtype)
        held = []
    if not isinstance(failure, StopIteration):
        raise failure


def _file_size(file: BinaryIO) -> int | None:
    """Of a regular file, which has all its rows already; None for a pipe or a terminal."""
    try:
        about = os.fstat(file.fileno())
    except (OSError, io.UnsupportedOperation):
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def _fields(text: str) -> list[str]:
    """Between commas, else semicolons, else tabs, else blanks; quotes around them taken off."""
    mark = next((mark for mark in (",", ";", "\t") if mark in text), None)
    return [field.strip().strip('"') for field in text.split(mark)]


def _is_header(text: str) -> bool:
    """A comment, or names in every column. All else is a row, lest a damaged one be lost."""
    return text.startswith("#") or all(
        (f[:1].isalpha() or f[:1] == "_") and not _is_number(f) for f in _fields(text)
    )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # which Python would read


def _frame(text: str, width: int) -> list[float]:
    fields = _fields(text)
    if len(fields) != width:
        raise ValueError(f"expected {width} numbers, found {len(fields)}: {_cut(text)}")
    bad = next((field for field in fields if not _is_number(field)), None)
    if bad is not None:
        raise ValueError(f"{_cut(bad.strip())} is no number")
    return [float(field) for field in fields]


def _token(text: str, count: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise ValueError(f"expected a token (an integer), found {_cut(text)}")
    token = int(text)
    if not 0 <= token < count:
        raise TokenError(f"token {token} is outside 0 ... {count - 1}")
    return token


def _cut(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
