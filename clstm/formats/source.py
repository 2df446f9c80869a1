# SPDX-License-Identifier: MIT
"""Bytes from a path, a bytes-like object or a binary file, read once into our own memory."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from clstm.errors import ModelFormatError, UnsupportedError

SourceLike: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader works on: all bytes of one file, and how to name it in a message."""

    data: bytes
    name: str
    suffix: str  # lower case with its dot, or "" for unnamed bytes
    folder: str | None = None  # of a path; a file object's name need not be one

    def fault(self, message: str) -> ModelFormatError:
        """The error of a damaged or foreign file, to be raised by the reader that found it."""
        return ModelFormatError(f"{self.name}: {message}")

    def unsupported(self, message: str) -> UnsupportedError:
        """The error of a valid file that holds what clstm does not read."""
        return UnsupportedError(f"{self.name}: {message}")


def shown(text: str, limit: int = 80) -> str:
    """`text` from a file, quoted for a message: on one line, printable, of bounded length."""
    return repr(text) if len(text) <= limit else repr(text[:limit]) + "..."


def read_source(source: SourceLike) -> Source:
    """Read a path, a bytes-like object or a binary file object.

    Errors of the operating system pass through as they are. A file object is read from
    where it stands to its end.
    """
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not isinstance(path, str):
            raise TypeError(f"expected a path of type str, got {type(path).__name__}")
        return Source(_read_path(path), path, _suffix(path), os.path.dirname(path) or ".")
    if isinstance(source, bytes):
        return Source(source, "<bytes>", "")
    if isinstance(source, io.TextIOBase):
        raise TypeError('expected a binary file object, got one in text mode: open it with "rb"')
    read = getattr(source, "read", None)
    if callable(read):
        return _read_object(source, read)
    try:
        view = memoryview(source)  # type: ignore[arg-type]  # whatever has the buffer protocol
    except TypeError:
        raise TypeError(
            f"expected a path, bytes or a binary file object, got {type(source).__name__}"
        ) from None
    return Source(view.tobytes(), "<bytes>", "")


def _read_object(source: object, read: Callable[[], Any]) -> Source:
    data = read()
    if isinstance(data, bytearray | memoryview):
        data = bytes(data)
    if not isinstance(data, bytes):
        raise TypeError(
            f"expected a file object whose read() gives bytes, got {type(data).__name__}"
        )
    name = getattr(source, "name", None)  # an int for a bare descriptor
    if not isinstance(name, str) or not name:
        return Source(data, "<file object>", "")
    return Source(data, name, _suffix(name))


def _read_path(path: str) -> bytes:
    # O_NONBLOCK: opening a FIFO would otherwise wait for a writer before fstat could refuse it.
    flags = os.O_RDONLY
    for optional in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK"):
        flags |= getattr(os, optional, 0)
    descriptor = os.open(path, flags)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ModelFormatError(f"{path}: expected a regular file")
        # Own memory, no mmap: a file that is cut short later would kill the process by SIGBUS.
        # One byte is asked for beyond the size, to see a file that grew. No buffer: its lock
        # would be a RuntimeError where there is no memory.
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            data = file.read(before.st_size + 1)
            while len(data) < before.st_size and (more := file.read(before.st_size - len(data))):
                data += more  # one call of the system gives at most 2 GiB
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    stamps = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (before, after)]
    if len(data) != before.st_size or stamps[0] != stamps[1]:
        raise ModelFormatError(f"{path}: the file changed while it was read; try again")
    return data


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
