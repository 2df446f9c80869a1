# SPDX-License-Identifier: MIT
"""Damaged and hostile zip archives of torch end in a ModelFormatError."""

import struct
import zlib

import pytest
from filemaker import (
    FLOATS,
    Item,
    digest,
    make_zip,
    plain_torch_file,
    torch_items,
    whole,
)
from hostile import W, peak_of, real_file, refused

from clstm.errors import ClstmError, ModelFormatError
from clstm.formats import read_file

# -- the archive


def items():
    return torch_items(whole({"w": W}), {"0": FLOATS})


def changed(index, **fields):
    out = items()
    for name, value in fields.items():
        setattr(out[index], name, value)
    return make_zip(out)


FIELDS = ["flags", "method", "crc", "packed", "size"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("header", ["local", "central"])
@pytest.mark.parametrize("streamed", [False, True])
def test_headers_that_differ(field, header, streamed):
    for index in range(3):
        for value in (1, 9, 23, 0xFFFF):
            refused(changed(index, streamed=streamed, **{header: {field: value}}), "zip: ")


@pytest.mark.parametrize("header", ["local", "central"])
def test_names_that_differ(header):
    refused(changed(2, **{header: {"name": b"archive/data/1"}}), "header and directory differ")
    refused(changed(2, **{header: {"name": b"archive/data/00"}}), "header and directory differ")


def test_offsets_that_lie():
    good = make_zip(items())
    assert read_file(good).tensors
    for offset in (0, 1, len(good), 0xFFFFFFFF):
        refused(changed(2, central={"offset": offset}), "zip: ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0x1, "encrypted"), (0x41, "encrypted"), (0x2000, "encrypted"), (0x20, "unknown flags"),
        (0x10, "unknown flags"), (0x1000, "unknown flags"),
    ],
)  # fmt: skip
def test_flags(value, message):
    both = {"flags": value}
    refused(changed(2, streamed=False, local=both, central=both), message)


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99])
def test_methods(method):
    both = {"method": method}
    refused(changed(2, local=both, central=both), f"by method {method}; only stored and deflated")


def test_duplicates():
    twice = [*items(), Item("archive/data/0", FLOATS)]
    refused(make_zip(twice), "zip: two entries are named 'archive/data/0'")
    twice = [*items(), Item("archive/data.pkl", whole({"w": W}))]
    refused(make_zip(twice), "two entries")
    twice = [*items(), Item("archive/DATA/0", FLOATS)]
    refused(make_zip(twice), "upper and lower case")
    same = items()
    again = make_zip([*same[:3], Item("archive/data/0", before=b"")])
    refused(again, "two entries")


def test_one_folder_and_one_pickle():
    refused(make_zip([*items(), Item("b/data.pkl", whole({"w": W}))]), "one data.pkl.*found 2")
    refused(make_zip([*items(), Item("archive/x/data.pkl", b"")]), "one data.pkl.*found 2")
    refused(make_zip([*items(), Item("b/x", b"")]), "outside the archive's one folder")
    refused(make_zip([*items(), Item("x", b"")]), "outside the archive's one folder")
    bare = items()
    for item in bare:
        item.name = item.name.removeprefix("archive/")
    refused(make_zip(bare), "outside the archive's one folder")


def test_torchscript_and_export_archives():
    for name in ("constants.pkl", "code/__torch__.py"):
        refused(make_zip([*items(), Item(f"archive/{name}", b"x")]), "TorchScript.*state_dict")
    no_pickle = [Item("archive/constants.pkl", b"x"), Item("archive/version", b"3")]
    refused(make_zip(no_pickle), "TorchScript")


def test_deflated_entries_are_refused():
    for index in range(4):
        refused(changed(index, method=8), "is deflated; torch.save stores")


@pytest.mark.parametrize("name", [b"", b"a\0b", b"\xff\xfe", b"x" * 5000])
def test_names_of_entries(name):
    out = [*items(), Item(name, b"")]
    if name == b"\xff\xfe":
        both = {"flags": 0}
        refused(make_zip([*items(), Item(name, b"", local=both, central=both)]), "ASCII")
    refused(make_zip(out), "zip: ")


def test_damaged_contents():
    for index in (0, 1, 2):
        good = items()
        raw = bytearray(make_zip(good))
        at = raw.index(good[index].content)
        raw[at + len(good[index].content) - 1] ^= 1
        refused(bytes(raw), r"CRC-32 differs")


def test_bytes_between_before_and_behind():
    good = make_zip(items())
    refused(b"PK\x03\x04" + good, "zip: ")
    refused(good + b"\0", "no certain end.*cut short")
    refused(changed(2, before=b"hidden"), "followed by foreign bytes")
    refused(make_zip(items(), before_end=b"hidden"), "directory is not where")
    refused(make_zip([*items(), Item("archive/x", b"", descriptor=b"hidden")]), "foreign bytes")
    refused(changed(0, before=b"PK\x03\x04"), "zip: ")


def test_bytes_hidden_by_the_directory():
    good = make_zip(items())
    begin = good.index(b"PK\x01\x02")
    size = len(good) - 22 - begin
    refused(
        make_zip(items(), before_end=b"hidden", end={"size": size + 6}),
        "bytes follow the last entry",
    )
    hidden = b"PK\x03\x04 hidden"
    refused(hidden + make_zip([], end={"offset": len(hidden)}), "bytes lie before the directory")


def test_sizes_of_a_stored_entry():
    both = {"size": 23}
    refused(changed(2, streamed=False, local=both, central=both), "claims 23 bytes out of 24")
    both = {"size": 25}
    refused(changed(2, streamed=False, local=both, central=both), "claims 25 bytes out of 24")


def test_contents_that_reach_into_what_follows():
    for more in (1, 30, 60):
        both = {"size": 24 + more, "packed": 24 + more}
        text = refused(changed(2, streamed=False, local=both, central=both))
        assert "cut short" in text
    both = {"size": 3, "packed": 3}
    refused(changed(3, streamed=False, local=both, central=both), "cut short")


def test_entries_behind_the_directory():
    first = {"size": 2**31, "packed": 2**31}
    far = 2**31 + 30 + 1
    lying = [
        Item("a", local=first, central=first),
        Item("b", central={"offset": far}),
        Item("c", central={"offset": far + 31}),
    ]
    refused(make_zip(lying), "behind the directory")
    refused(make_zip([Item("a", central={"offset": 31})]), "behind the directory")


def test_a_directory_of_fewer_entries_than_said():
    n = len(items())
    for claimed in (n - 1, n + 1, n + 2, 9999):
        both = {"here": claimed, "total": claimed}
        refused(make_zip(items(), end=both), "zip: ")
        refused(make_zip(items(), zip64=True, end=both, end64=both), "zip: ")


@pytest.mark.parametrize(
    "field",
    [{"magic": b"PK\x06\x08"}, {"bytes": 43}, {"bytes": 45}, {"at": 0}, {"at": 2**63},
     {"locator_disk": 1}, {"disks": 0}, {"disks": 2}],
)  # fmt: skip
def test_zip64_ends_that_lie(field):
    refused(make_zip(items(), zip64=True, end64=field), "zip64 end of the archive")


def test_entries_on_another_disk():
    refused(changed(2, central={"disk": 1}), "unknown flags")


def test_descriptors():
    good = struct.pack("<3L", zlib.crc32(FLOATS), 24, 24)
    wide = struct.pack("<L2Q", zlib.crc32(FLOATS), 24, 24)
    for descriptor in (good, wide, b"PK\x07\x08" + good, b"PK\x07\x08" + wide):
        assert read_file(changed(2, descriptor=descriptor)).tensors
        for i in range(len(descriptor)):
            bad = bytearray(descriptor)
            bad[i] ^= 1
            refused(changed(2, descriptor=bytes(bad)), "foreign bytes")
        refused(changed(2, descriptor=descriptor + b"\0"), "foreign bytes")
        refused(changed(2, descriptor=descriptor[:-1]), "foreign bytes")
        refused(changed(2, streamed=False, descriptor=descriptor), "foreign bytes")
    refused(changed(2, descriptor=b""), "foreign bytes")


def test_ends_of_the_archive():
    assert read_file(make_zip(items(), zip64=True)).tensors
    fields = ["disk", "first", "here", "total", "size", "offset"]
    for name in fields:
        for value in (1, 2, 5, 100, 0xFFFF):
            refused(make_zip(items(), end={name: value}), "zip: ")
            refused(make_zip(items(), zip64=True, end64={name: value}), "zip: ")
            if value != 0xFFFF or name in ("size", "offset"):
                refused(make_zip(items(), zip64=True, end={name: value}), "zip: ")
    maximal = dict.fromkeys(fields[:4], 0xFFFF) | dict.fromkeys(fields[4:], 0xFFFFFFFF)
    assert read_file(make_zip(items(), zip64=True, end=maximal)).tensors
    refused(make_zip(items(), end=maximal), "zip: ")
    refused(make_zip(items(), zip64=True, before_end=b"x"), "zip: ")
    # Two ends: a reader that looks for the first sees another archive than one that looks for
    # the last.
    inner = make_zip([])
    refused(make_zip(items(), comment=inner), "several places")
    assert read_file(make_zip(items(), comment=b"a comment")).tensors


def test_zip64_fields():
    for index in range(3):
        assert read_file(changed(index, zip64=True)).tensors
        refused(changed(index, zip64=True, extra=b"\1\0\0\0"), "two zip64 fields")
    refused(changed(2, extra=b"\x75\x70\x01\x00x"), "second name")
    refused(changed(2, extra=b"\x46\x42\xff\x00x"), "damaged extra")
    refused(changed(2, extra=b"\x46\x42\x00"), "damaged extra")
    assert read_file(changed(2, extra=b"\0\0\0")).tensors
    huge = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF}
    refused(changed(2, central=huge, local=huge, extra=b"\1\0\x08\0" + bytes(8)), "short zip64")


def test_many_entries():
    many = [Item(f"archive/data/{i}") for i in range(10_001)]
    data = make_zip([*items(), *many[1:]])
    refused(data, "at most 10000 are read")
    _, peak = peak_of(lambda: read_file(make_zip([*items(), *many[5:]])))
    assert read_file(make_zip([*items(), *many[5:]])).tensors
    assert peak < 4 * len(data) + (8 << 20)


def test_byte_order():
    for word in (b"", b"middle", b"little\n", b"BIG"):
        refused(changed(1, content=word), "byteorder is")
    without = [item for item in items() if item.name != "archive/byteorder"]
    assert read_file(make_zip(without)).tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


# -- truncation and mutation


def test_truncation_at_every_length(tmp_path):
    path = tmp_path / "short.pt"
    for data in (plain_torch_file(), real_file()):
        for n in range(len(data)):
            refused_or_unknown(data[:n])
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelFormatError, match=r"short\.pt"):
            read_file(path)


def refused_or_unknown(data):
    with pytest.raises(ModelFormatError):
        read_file(data)


def unseen_bytes(data):
    """Places that no reader looks at: versions, times and attributes of the headers."""
    fields = {b"PK\x03\x04": [4, 5, *range(10, 14)], b"PK\x06\x06": range(12, 16),
              b"PK\x01\x02": [*range(4, 8), *range(12, 16), *range(36, 42)]}  # fmt: skip
    for magic, offsets in fields.items():
        at = -1
        while (at := data.find(magic, at + 1)) >= 0:
            yield from (at + offset for offset in offsets)


def test_every_byte_of_the_archive_flipped():
    data = plain_torch_file()
    good = digest(read_file(data).tensors)
    read = set()
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            bad = bytearray(data)
            bad[at] ^= flip
            try:
                got = read_file(bytes(bad))
            except ClstmError:
                continue
            assert digest(got.tensors) == good
            read.add(at)
    # Beside the unseen bytes: the name of the entry `version`, and its content.
    version = {
        i for at in (data.find(b"/version"), data.rfind(b"/version")) for i in range(at, at + 20)
    }
    assert read <= set(unseen_bytes(data)) | version


def test_a_folder_with_content_is_refused():
    """By its attributes a folder, by its sizes a file: torch gives memory that it never filled."""
    data = bytearray(plain_torch_file())
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[at + 38] |= 0x10
    refused(bytes(data), "is a folder with content")
