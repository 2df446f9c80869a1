# SPDX-License-Identifier: MIT
"""The entries of a zip archive, read so that no other reader could see other ones.

Python's `zipfile` believes the central directory, streaming readers believe the local headers,
and each forgives different damage; an archive on which they differ is how a scanner is shown
one model and a loader another. Here both must agree, and entries, their descriptors and the
directory must cover the file without hole or overlap. That is stricter than the standard, and
what `torch.save`, NumPy, Python, Info-ZIP and streaming writers make passes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .source import Source, shown

STORED, DEFLATED = 0, 8

_MAX_ENTRIES = 10_000  # keeps the records of a hostile directory to 4 MiB and 0.2 s
_MAX_COMMENT = 0xFFFF
_FLAG_DESCRIPTOR, _FLAG_UTF8 = 0x0008, 0x0800
_FOLDER = 0x10  # an attribute; torch then gives the memory that it did not fill
_FLAGS_KNOWN = _FLAG_DESCRIPTOR | _FLAG_UTF8 | 0x0006  # 0x0006: how hard deflate tried

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(slots=True, eq=False)
class Entry:
    """One file of the archive: `n_packed` bytes from `start` that unpack to `n_bytes`."""

    name: str
    flags: int
    method: int
    crc: int
    n_packed: int
    n_bytes: int
    start: int  # that of the local header until this is read


def read_entries(source: Source) -> dict[str, Entry]:
    """All entries by name, directories left out. Contents are not looked at."""
    n_entries, begin, end = _find_directory(source)
    listed = _read_directory(source, n_entries, begin, end)
    listed.sort(key=lambda entry: entry.start)
    if listed and listed[-1].start >= begin:
        raise source.fault("zip: an entry lies behind the directory")
    entries: dict[str, Entry] = {}
    at = 0
    for i, entry in enumerate(listed):
        if entry.start != at:
            raise source.fault(f"zip: entries overlap, or bytes lie between them, at byte {at}")
        at = listed[i + 1].start if i + 1 < len(listed) else begin
        _read_local(source, entry, at)
        if entry.name in entries:
            raise source.fault(f"zip: two entries are named {shown(entry.name)}")
        entries[entry.name] = entry
    if at != begin:
        raise source.fault("zip: bytes lie before the directory")
    for entry in listed:
        if entry.name.endswith("/") and entry.n_bytes == 0:
            del entries[entry.name]
    return entries


def check_crc(source: Source, entry: Entry, crc: int) -> None:
    """Refuse contents whose CRC-32 is not the one written for `entry`."""
    if crc != entry.crc:
        raise source.fault(f"zip: entry {shown(entry.name)} is damaged (CRC-32 differs)")


def crc_of(source: Source, entry: Entry) -> int:
    """The CRC-32 of the bytes of a stored entry."""
    return zlib.crc32(memoryview(source.data)[entry.start : entry.start + entry.n_bytes])


def _find_directory(source: Source) -> tuple[int, int, int]:
    """How many entries, and where their directory begins and ends."""
    data = source.data
    ends = list(_end_records(data))
    if len(ends) != 1:
        why = "it is cut short, or bytes follow it" if not ends else "several places could be"
        raise source.fault(f"zip: no certain end of the archive: {why}")
    end = ends[0]
    _, disk, first_disk, n_here, n_entries, n_bytes, begin, _ = _END.unpack_from(data, end)
    at = end - _LOCATOR64.size
    if at >= 0 and data.startswith(b"PK\x06\x07", at):
        _, locator_disk, end64, n_disks = _LOCATOR64.unpack_from(data, at)
        if end64 + _END64.size != at or locator_disk or n_disks != 1:
            raise source.fault("zip: the zip64 end of the archive is not where it is said to be")
        small = (disk, first_disk, n_here, n_entries, n_bytes, begin)
        magic, size, _, _, *large = _END64.unpack_from(data, end64)
        if magic != b"PK\x06\x06" or size != _END64.size - 12:
            raise source.fault("zip: the zip64 end of the archive is damaged")
        limits = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        for a, b, limit in zip(small, large, limits, strict=True):
            if a not in (b, limit):
                raise source.fault("zip: the two ends of the archive differ")
        disk, first_disk, n_here, n_entries, n_bytes, begin = large
        end = end64
    if disk or first_disk or n_here != n_entries:
        raise source.fault("zip: the archive is split over several files")
    if n_entries > _MAX_ENTRIES:
        raise source.fault(
            f"zip: {n_entries} entries, at most {_MAX_ENTRIES} are read; "
            "save the state dict alone, without the optimizer"
        )
    if begin + n_bytes != end:
        raise source.fault("zip: the directory is not where it is said to be")
    return n_entries, begin, end


def _end_records(data: bytes) -> Iterator[int]:
    """Every place whose comment would reach exactly to the end of the file."""
    at = max(0, len(data) - _END.size - _MAX_COMMENT)
    while (at := data.find(b"PK\x05\x06", at)) >= 0:
        if at + _END.size <= len(data):
            n_comment = _END.unpack_from(data, at)[-1]
            if at + _END.size + n_comment == len(data):
                yield at
        at += 1


def _read_directory(source: Source, n_entries: int, begin: int, end: int) -> list[Entry]:
    data, at = source.data, begin
    entries: list[Entry] = []
    for _ in range(n_entries):
        if at + _CENTRAL.size > end:
            raise source.fault("zip: the directory is cut short")
        fields = _CENTRAL.unpack_from(data, at)
        magic, _, _, flags, method, _, _, crc, n_packed, n_bytes = fields[:10]
        n_name, n_extra, n_comment, disk, _, attributes, start = fields[10:]
        at += _CENTRAL.size
        if magic != b"PK\x01\x02":
            raise source.fault("zip: the directory is damaged")
        name = _decode_name(source, data[at : at + n_name], flags)
        extra = _read_extra(source, name, data[at + n_name : at + n_name + n_extra])
        at += n_name + n_extra + n_comment
        n_bytes, n_packed, start = _widen(source, name, extra, (n_bytes, n_packed, start))
        _check_kind(source, name, flags, method, disk, n_packed, n_bytes)
        if attributes & _FOLDER and n_bytes:
            raise source.fault(f"zip: entry {shown(name)} is a folder with content")
        entries.append(Entry(name, flags, method, crc, n_packed, n_bytes, start))
    if at != end:
        raise source.fault("zip: bytes follow the last entry of the directory")
    return entries


def _check_kind(
    source: Source, name: str, flags: int, method: int, disk: int, n_packed: int, n_bytes: int
) -> None:
    if flags & 0x2041:
        raise source.fault(f"zip: entry {shown(name)} is encrypted")
    if flags & ~_FLAGS_KNOWN or disk:
        raise source.fault(f"zip: entry {shown(name)} has unknown flags ({flags:#06x})")
    if method not in (STORED, DEFLATED):
        raise source.fault(
            f"zip: entry {shown(name)} is packed by method {method}; "
            "only stored and deflated entries are read"
        )
    # Deflate turns one byte into at most 1032.
    if (method == STORED and n_packed != n_bytes) or n_bytes > 1032 * n_packed + 1032:
        raise source.fault(f"zip: entry {shown(name)} claims {n_bytes} bytes out of {n_packed}")


def _decode_name(source: Source, raw: bytes, flags: int) -> str:
    # Without the flag some readers decode as cp437 and others as the locale says.
    try:
        name = raw.decode("utf-8" if flags & _FLAG_UTF8 else "ascii")
    except UnicodeDecodeError:
        raise source.fault("zip: the name of an entry is neither ASCII nor marked UTF-8") from None
    if "\0" in name or not name or len(raw) > 4096:  # NUL: some readers stop there
        raise source.fault(f"zip: no name for an entry: {shown(name)}")
    return name


def _read_extra(source: Source, name: str, extra: bytes) -> bytes | None:
    """The zip64 field of an entry's extra data, if it has one."""
    zip64: bytes | None = None
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if at + size > len(extra):
            raise source.fault(f"zip: entry {shown(name)} has damaged extra data")
        if kind == 0x7075:  # a second name, which only some readers look at
            raise source.fault(f"zip: entry {shown(name)} has a second name")
        if kind == 1:
            if zip64 is not None:
                raise source.fault(f"zip: entry {shown(name)} has two zip64 fields")
            zip64 = extra[at : at + size]
        at += size
    if any(extra[at:]):  # up to three bytes of zeros are some writers' padding
        raise source.fault(f"zip: entry {shown(name)} has damaged extra data")
    return zip64


def _widen(
    source: Source, name: str, zip64: bytes | None, values: tuple[int, ...]
) -> tuple[int, ...]:
    """`values` with those that did not fit 32 bits taken from the zip64 field, in its order."""
    wide, at = [], 0
    for value in values:
        if value == 0xFFFFFFFF and zip64 is not None:
            if at + 8 > len(zip64):
                raise source.fault(f"zip: entry {shown(name)} has a short zip64 field")
            (value,) = struct.unpack_from("<Q", zip64, at)
            at += 8
        wide.append(value)
    return tuple(wide)


def _read_local(source: Source, entry: Entry, end: int) -> None:
    """Compare the local header at `entry.start` with what the directory says, and set `start`
    to the content. Header, content and descriptor must fill the file up to `end`."""
    data, at = source.data, entry.start
    bad = source.fault(f"zip: entry {shown(entry.name)}: local header and directory differ")
    # Within the file, for a directory of 46 bytes or more follows. That the header ends before
    # `end` is seen where its content does.
    magic, _, flags, method, _, _, crc, n_packed, n_bytes, n_name, n_extra = _LOCAL.unpack_from(
        data, at
    )
    at += _LOCAL.size
    start = at + n_name + n_extra
    if magic != b"PK\x03\x04" or (flags, method) != (entry.flags, entry.method):
        raise bad
    if data[at : at + n_name] != entry.name.encode():
        raise bad
    zip64 = _read_extra(source, entry.name, data[at + n_name : start])
    n_bytes, n_packed = _widen(source, entry.name, zip64, (n_bytes, n_packed))
    streamed = bool(flags & _FLAG_DESCRIPTOR)  # then sizes and CRC follow, here may be zeros
    for here, there in ((crc, entry.crc), (n_packed, entry.n_packed), (n_bytes, entry.n_bytes)):
        if here != there and not (streamed and here == 0):
            raise bad
    content_end = start + entry.n_packed
    if content_end > end:
        raise source.fault(f"zip: entry {shown(entry.name)} is cut short")
    if not _ends_well(data[content_end : min(end, content_end + 25)], entry, streamed):
        raise source.fault(f"zip: entry {shown(entry.name)} is followed by foreign bytes")
    entry.start = start


def _ends_well(rest: bytes, entry: Entry, streamed: bool) -> bool:
    """Whether `rest`, up to the next entry, is what may follow the content."""
    if not streamed:
        return not rest
    for form in ("<3L", "<L2Q"):
        if form == "<3L" and max(entry.n_packed, entry.n_bytes) > 0xFFFFFFFF:
            continue
        descriptor = struct.pack(form, entry.crc, entry.n_packed, entry.n_bytes)
        if rest in (descriptor, b"PK\x07\x08" + descriptor):
            return True
    return False
