# SPDX-License-Identifier: MIT
"""Safetensors files: valid ones bit for bit, hostile ones refused before the package sees them."""

import gc
import itertools
import json
import struct
import time
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from filemaker import digest, info, safetensors_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clstm.errors import ClstmError, ModelFormatError, UnsupportedError
from clstm.formats import read_file

DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2",
}  # fmt: skip
SHAPES = [(), (1,), (7,), (0,), (3, 5), (2, 0, 4), (2, 3, 4), (1, 2, 1, 3, 1, 2, 1, 2)]


def random_array(dtype, shape, rng):
    if dtype == "BOOL":
        return rng.integers(0, 2, shape).astype(bool)
    item = np.dtype(DTYPES[dtype])
    raw = rng.integers(0, 256, int(np.prod(shape)) * item.itemsize, dtype=np.uint8)
    return raw.view(item).reshape(shape)


def expected(dtype, array):
    if dtype != "BF16":
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def refused(data, message=None, error=ModelFormatError):
    with pytest.raises(error, match=message) as caught:
        read_file(data)
    text = str(caught.value)
    assert text.startswith("<bytes>: ") and len(text) < 500
    return text


def one(**fields):
    """A file of one F32 tensor of 6, with fields of its entry replaced; None takes one out."""
    entry = info("F32", [6], 0, 24) | fields
    return safetensors_file({"w": {k: v for k, v in entry.items() if v is not None}}, bytes(24))


def test_the_builder_makes_valid_files():
    weights = read_file(one())
    assert weights.tensors["w"].shape == (6,) and weights.kind == "safetensors"


def test_files_of_the_package_itself(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {
        f"{dtype}.{i}": random_array(dtype, shape, rng)
        for dtype in DTYPES
        if dtype != "BF16"
        for i, shape in enumerate(SHAPES)
    }
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"a": "b", "ü": ""})
    weights = read_file(path)
    assert digest(weights.tensors) == digest({name: tensors[name] for name in weights.tensors})
    assert set(weights.tensors) == set(tensors)
    assert weights.metadata == {"a": "b", "ü": ""}
    for array in weights.tensors.values():
        assert array.flags.c_contiguous and array.flags.aligned and not array.flags.writeable


def test_bfloat16_of_torch_and_ml_dtypes():
    bits = np.arange(65536, dtype=np.uint16)
    theirs = bits.view(ml_dtypes.bfloat16)
    data = safetensors_file({"w": info("BF16", [65536], 0, 131072)}, bits.tobytes())
    ours = read_file(data).tensors["w"]
    assert ours.dtype == np.float32
    finite = np.isfinite(ours)
    assert (ours[finite] == theirs.astype(np.float32)[finite]).all()
    assert ours.tobytes() == expected("BF16", bits).tobytes()


def headers(table):
    """The legal ways to write one header."""
    yield json.dumps(table)
    yield json.dumps(table, separators=(",", ":"))
    yield json.dumps(table, indent=2)
    yield json.dumps(table, ensure_ascii=False)
    yield " \t\r\n" + json.dumps(table) + "  \n\r\t"
    yield " " * 4000 + json.dumps(table)
    yield json.dumps(dict(reversed(table.items())))
    yield json.dumps({k: dict(reversed(v.items())) for k, v in table.items()})
    yield json.dumps({"__metadata__": {}} | table)
    yield json.dumps(table | {"__metadata__": {"format": "np", "": "ünï", "k": '"\\\n'}})
    escaped = "".join(f"\\u{ord(c):04x}" for c in "weight")
    yield json.dumps(table).replace("weight", escaped)


def test_two_hundred_files_of_other_writers():
    rng = np.random.default_rng(2)
    n_files = 0
    for dtype, shape in itertools.product(DTYPES, [(), (3, 5), (2, 0), (11,)]):
        first, second = random_array(dtype, shape, rng), random_array("U8", (3,), rng)
        n = first.nbytes
        table = {
            "weight.名": info(dtype, shape, 0, n),
            "empty": info("F64", [0, 2**40], n, n),
            "odd": info("U8", [3], n, n + 3),  # what follows would lie unaligned
            "last": info("F64", [], n + 3, n + 11),
        }
        data = first.tobytes() + second.tobytes() + struct.pack("<d", 0.5)
        for header in headers(table):
            tensors = read_file(safetensors_file(header, data)).tensors
            wanted = {
                "weight.名": expected(dtype, first), "empty": np.empty((0, 2**40)),
                "odd": second, "last": np.array(0.5),
            }  # fmt: skip
            assert digest(tensors) == digest({name: wanted[name] for name in tensors})
            assert len(tensors) == 4
            n_files += 1
    assert n_files >= 200


def test_the_longest_names():
    for name in ("w" * 512, "ü" * 256):
        assert read_file(safetensors_file({name: info("U8", [1], 0, 1)}, b"x")).tensors


def test_an_empty_file():
    assert read_file(safetensors_file({})).tensors == {}
    assert read_file(safetensors_file({"__metadata__": {"a": "b"}})).metadata == {"a": "b"}


def test_memory_beside_the_tensors():
    n = 1 << 22
    for dtype, item in (("F32", 4), ("BF16", 2)):
        data = safetensors_file({"w": info(dtype, [n], 0, n * item)}, bytes(n * item))
        gc.collect()
        tracemalloc.start()
        try:
            made = read_file(data).tensors["w"].nbytes
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak - made < len(data) + (1 << 20)  # and the file itself


# -- what is refused

DUPLICATES = [
    '{"w":%(a)s,"w":%(b)s}',
    '{"w":%(a)s,"\\u0077":%(b)s}',
    '{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24],"shape":[2,3]}}',
    '{"__metadata__":{"a":"b","a":"c"},"w":%(a)s}',
    '{"__metadata__":{},"__metadata__":{},"w":%(a)s}',
]


@pytest.mark.parametrize("text", DUPLICATES)
def test_duplicate_keys(text):
    a, b = json.dumps(info("F32", [6], 0, 24)), json.dumps(info("F32", [2, 3], 0, 24))
    refused(safetensors_file(text % {"a": a, "b": b}, bytes(24)), "a key twice")


@pytest.mark.parametrize(
    "number",
    ["true", "false", "null", "6.0", "6e0", "-6", "-0", '"6"', "[6]", "NaN", "Infinity",
     "-Infinity", "9223372036854775808", "18446744073709551616", "1" * 5000, "0006", "{}"],
)  # fmt: skip
def test_numbers_that_are_no_sizes(number):
    for text in (
        '{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,24]}}',
        '{"w":{"dtype":"F32","shape":[6],"data_offsets":[%s,24]}}',
        '{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,%s]}}',
        '{"w":{"dtype":"F32","shape":%s,"data_offsets":[0,24]}}',
    ):
        if 'shape":%s' in text and number == "[6]":
            continue
        refused(safetensors_file(text % number, bytes(24)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (one(dtype=None), "expected dtype, shape and data_offsets"),
        (one(shape=None), "expected dtype, shape and data_offsets"),
        (one(data_offsets=None), "expected dtype, shape and data_offsets"),
        (one(more=1), "expected dtype, shape and data_offsets"),
        (one(dtype=1), "dtype is no text"),
        (one(dtype="F33"), "unknown dtype 'F33'"),
        (one(dtype="f32"), "unknown dtype 'f32'"),
        (one(dtype="F64"), "does not take bytes 0 to 24"),
        (one(shape=[5]), "does not take bytes"),
        (one(shape=[7]), "does not take bytes"),
        (one(shape=[2**62, 2**62]), "does not take bytes"),
        (one(shape=[2**32, 2**32, 6]), "does not take bytes"),
        (one(shape=[2**63 - 1, 2, 0], data_offsets=[0, 0]), "does not take bytes"),
        (one(shape=[1] * 8 + [6]), "9 dimensions, at most 8"),
        (one(shape="6"), "no list of integers"),
        (one(data_offsets=[0]), "not two integers"),
        (one(data_offsets=[0, 24, 24]), "not two integers"),
        (one(data_offsets={"0": 24}), "not two integers"),
        (one(data_offsets=[24, 0]), "does not take bytes"),
        (one(data_offsets=[1, 25]), "hole"),
        (one() + b"\0", "take 24 bytes, the file has 25"),
        (one()[:-1], "take 24 bytes, the file has 23"),
        (safetensors_file({"w" * 513: info("F32", [6], 0, 24)}, bytes(24)), "more than 512"),
        (safetensors_file({"ü" * 257: info("F32", [6], 0, 24)}, bytes(24)), "more than 512"),
        (safetensors_file({"w": 3}, bytes(24)), "expected dtype"),
        (safetensors_file({"w": []}, bytes(24)), "expected dtype"),
        (safetensors_file({"__metadata__": {"a": 1}}), "no text"),
        (safetensors_file({"__metadata__": {"a": None}}), "no text"),
        (safetensors_file({"__metadata__": {"a": {}}}), "no text"),
        (safetensors_file({"__metadata__": []}), "no JSON object"),
        (safetensors_file({"__metadata__": None}), "no JSON object"),
        (safetensors_file('{"\\ud800": 1}'), "half a character"),
        (safetensors_file('{"__metadata__": {"a": "\\ud800"}}'), "half a character"),
        (safetensors_file(b'{"\xff": 1}'), "not UTF-8"),
        (safetensors_file('{"a": 1'), "no JSON"),
        (safetensors_file("{'a': 1}"), "no JSON"),
        (safetensors_file('{"a": 1,}'), "no JSON"),
        (safetensors_file('{"a\n": 1}'), "no JSON"),
        (safetensors_file("{} {}"), "no JSON"),
        (safetensors_file("{}\0"), "no JSON"),
        (safetensors_file("{" + '"a":{' * 40_000), "(nested too deeply|no JSON)"),
        (safetensors_file('{"a":' + "[" * 40_000), "(nested too deeply|no JSON)"),
        (safetensors_file({}, b"\0"), "take 0 bytes, the file has 1"),
        (safetensors_file("{" + " " * 300_000 + "}"), "a header of 300002 bytes, at most"),
        (one(dtype="BOOL", shape=[24])[:-1] + b"\2", "neither 0 nor 1"),
    ],
)
def test_headers_that_are_refused(data, message):
    refused(data, message)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "", " ", "x"])
def test_headers_that_are_no_object(text, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_file(text, bytes(24)))
    with pytest.raises(ModelFormatError, match=r"w\.safetensors: "):
        read_file(path)


@pytest.mark.parametrize("dtype", ["C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3"])
def test_dtypes_that_are_not_read(dtype):
    refused(one(dtype=dtype), f"tensor 'w' is {dtype}; save it as F32", UnsupportedError)


@pytest.mark.parametrize(
    "ranges",
    [[(0, 8), (4, 12)], [(0, 8), (0, 8)], [(0, 8), (12, 20)], [(4, 12), (12, 20)], [(0, 8)] * 10],
)
def test_overlaps_and_holes(ranges):
    table = {f"w{i}": info("F32", [2], a, b) for i, (a, b) in enumerate(ranges)}
    refused(safetensors_file(table, bytes(max(b for _, b in ranges))), "overlap or hole")


def test_empty_tensors_inside_another():
    table = {"w": info("F32", [2], 0, 8), "e": info("F32", [0], 4, 4)}
    refused(safetensors_file(table, bytes(8)), "overlap or hole")
    for at in (0, 8):
        table["e"] = info("F32", [0], at, at)
        assert len(read_file(safetensors_file(table, bytes(8))).tensors) == 2


def test_lengths_of_the_header(tmp_path):
    path = tmp_path / "w.safetensors"
    for n in (0, 1, 50, 1000, 2**31, 2**63, 2**64 - 1):
        path.write_bytes(safetensors_file({"w": info("F32", [6], 0, 24)}, bytes(24), n_header=n))
        with pytest.raises(ModelFormatError, match="cut short" if n >= 1000 else None):
            read_file(path)


@pytest.mark.parametrize(
    "parsed",
    [
        [],
        [("v", {"dtype": "F32", "shape": [6], "data": bytes(24)})],
        [("w", {"dtype": "F32", "shape": [2, 3], "data": bytes(24)})],
        [("w", {"dtype": "I32", "shape": [6], "data": bytes(24)})],
    ],
)
def test_the_package_must_read_what_we_checked(monkeypatch, parsed):
    monkeypatch.setattr(safetensors, "deserialize", lambda data: parsed)
    refused(one(), "the safetensors package reads")


def test_what_the_package_refuses_is_a_format_error(monkeypatch):
    def refuse(data):
        raise safetensors.SafetensorError("no")

    monkeypatch.setattr(safetensors, "deserialize", refuse)
    refused(one(), "the safetensors package refuses it: no")


def test_a_claim_beyond_the_budget_takes_nothing():
    data = safetensors_file({"w": info("F32", [2**40], 0, 2**42)})
    gc.collect()
    tracemalloc.start()
    try:
        text = refused(data, "takes 4398046511104 bytes.*max_bytes=")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "'w'" in text and peak < 1 << 20
    small = safetensors_file({"w": info("BF16", [6], 0, 12)}, bytes(12))
    assert read_file(small, max_bytes=24).tensors
    with pytest.raises(ModelFormatError, match="takes 24 bytes, 23 are left"):
        read_file(small, max_bytes=23)


@pytest.mark.parametrize(
    "text",
    [
        '{"__metadata__":{' + ",".join(f'"{i:x}":""' for i in range(30_000)) + "}}",
        '{"a":[' + "1," * 130_000 + "1]}",
        '{"a":[' + "{}," * 80_000 + "{}]}",
        "{" + ",".join(f'"{i:x}":[[]]' for i in range(20_000)) + "}",
    ],
)
def test_headers_that_swell(text):
    data = safetensors_file(text)
    start = time.perf_counter()
    gc.collect()
    tracemalloc.start()
    try:
        read_file(data)
    except ModelFormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * len(data) + (8 << 20), peak
    assert time.perf_counter() - start < 5


# -- mutation, with the package as the judge of what we accept


def agrees(data):
    try:
        ours = read_file(data)
    except ClstmError:
        return False
    if ours.kind != "safetensors":
        return False
    theirs = dict(safetensors.deserialize(data))
    assert set(theirs) == set(ours.tensors)
    for name, entry in theirs.items():
        raw = np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        assert digest({"": ours.tensors[name]}) == digest({"": expected(entry["dtype"], raw)})
    return True


def seed():
    table = {"a": info("F32", [2, 3], 0, 24), "b": info("BF16", [4], 24, 32)}
    header = json.dumps({"__metadata__": {"format": "pt"}} | table)
    return safetensors_file(header, bytes(range(32)))


def test_truncation_at_every_length():
    data = seed()
    assert agrees(data)
    for n in range(len(data)):
        with pytest.raises(ModelFormatError):
            read_file(data[:n])


def test_every_byte_of_the_header_with_every_value():
    data = seed()
    n_read = 0
    for at in range(8 + int.from_bytes(data[:8], "little")):
        for value in range(256):
            n_read += agrees(data[:at] + bytes([value]) + data[at + 1 :])
    assert n_read > 256  # names and metadata may change


TOKENS = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"', "0", "24", "-", "true", "null", "NaN", "1e2", " ",
     "\\u0000", '"w"', '"dtype"', '"F32"', '"shape"', '"data_offsets"', '"__metadata__"',
     "9" * 30]
)  # fmt: skip


@settings(
    max_examples=2000, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(TOKENS, max_size=4), st.data())
def test_random_headers(tokens, data):
    raw = seed()
    n = int.from_bytes(raw[:8], "little")
    text, rest = raw[8 : 8 + n].decode(), raw[8 + n :]
    at = data.draw(st.integers(0, n))
    cut = data.draw(st.integers(0, 12))
    agrees(safetensors_file(text[:at] + "".join(tokens) + text[at + cut :], rest))


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_random_entries(data):
    """Tables of plausible entries; the few that tile the data are read, as the package does."""
    table, at = {}, 0
    for i in range(data.draw(st.integers(0, 4))):
        dtype = data.draw(st.sampled_from(["F32", "BF16", "U8", "I64"]))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        n = int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize
        shift = data.draw(st.sampled_from([0] * 20 + [1, -1]))
        table[f"t{i}"] = info(dtype, shape, max(0, at + shift), at + n)
        at += n
    agrees(safetensors_file(table, bytes(at)))
