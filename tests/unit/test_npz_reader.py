# SPDX-License-Identifier: MIT
"""Archives of NumPy: valid ones bit for bit, bombs and lies refused before memory is taken."""

import gc
import io
import itertools
import struct
import sys
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from filemaker import Item, digest, make_zip, npy, npy_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clstm.errors import ClstmError, ModelFormatError, UnsupportedError
from clstm.formats import read_file

CODES = ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
SHAPES = [(), (1,), (0,), (7,), (3, 5), (2, 0, 4), (4, 3, 2), (1,) * 12]


def random_array(dtype, shape, rng):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    raw = rng.integers(0, 256, int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return raw.view(dtype).reshape(shape)


def native(array):
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False)


def same(tensors, arrays):
    wanted = {name: native(a).reshape(np.shape(a)) for name, a in arrays.items()}
    assert digest(tensors) == digest(wanted)
    for array in tensors.values():
        assert array.flags.c_contiguous and array.flags.aligned and not array.flags.writeable
        assert array.dtype.isnative


def saved(function=np.savez, **arrays):
    out = io.BytesIO()
    function(out, **arrays)
    return out.getvalue()


def refused(data, message=None, error=ModelFormatError):
    with pytest.raises(error, match=message) as caught:
        read_file(data)
    text = str(caught.value)
    assert text.startswith("<bytes>: ") and len(text) < 500
    return text


def one(content, **options):
    return make_zip([Item("w.npy", content, **options)])


def peak_of(function):
    gc.collect()
    tracemalloc.start()
    try:
        result = function()
    except ClstmError as error:
        result = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return result, peak


@pytest.mark.parametrize("function", [np.savez, np.savez_compressed])
def test_files_of_numpy_itself(function, tmp_path):
    rng = np.random.default_rng(1)
    arrays = {}
    for code, order, (i, shape) in itertools.product(CODES, "<>", enumerate(SHAPES)):
        array = random_array(order + code, shape, rng)
        arrays[f"{code}{order}{i}"] = array
        arrays[f"{code}{order}{i}F"] = np.asfortranarray(array).reshape(shape, order="A")
    assert len(arrays) > 300
    path = tmp_path / "w.npz"
    function(path, **arrays)
    weights = read_file(path)
    assert weights.kind == "npz"
    same(weights.tensors, arrays)
    for name, array in arrays.items():  # one file each, too
        same(read_file(saved(function, **{name: array})).tensors, {name: array})


def npy_headers(array):
    """The legal ways to write one header."""
    d, f, s = (
        array.dtype.str,
        array.flags.f_contiguous and not array.flags.c_contiguous,
        array.shape,
    )
    yield f"{{'descr': '{d}', 'fortran_order': {f}, 'shape': {s}, }}"
    yield f"{{'descr':'{d}','fortran_order':{f},'shape':{s}}}"
    yield f'{{"shape": {s}, "descr": "{d}", "fortran_order": {f},}}   \n'
    yield f"  {{ 'fortran_order' : {f} , 'shape' : {s} , 'descr' : '{d}' }}\n"
    sizes = "".join(f"{n}L, " for n in s)
    yield f"{{'descr': '{d}', 'fortran_order': {f}, 'shape': ({sizes}), }}\n"  # Python 2
    yield f"{{'descr': '{d}', 'fortran_order': {f}, 'shape': {s}, }}" + " " * 9000 + "\n"


class Unseekable(io.RawIOBase):
    """Makes Python's zipfile stream: sizes go behind the contents."""

    def __init__(self, out):
        self.out = out

    def writable(self):
        return True

    def write(self, data):
        return self.out.write(data)


def by_zipfile(content, *, streamed, force, method, comment, name):
    out = io.BytesIO()
    with zipfile.ZipFile(Unseekable(out) if streamed else out, "w", method) as archive:
        archive.comment = comment
        with archive.open(name, "w", force_zip64=force) as file:
            file.write(content)
    return out.getvalue()


def test_two_hundred_files_of_other_writers():
    rng = np.random.default_rng(2)
    n_files = 0
    for code, shape in itertools.product(["<f4", ">f8", "|u1", "<f2", ">i4"], [(), (3, 4), (5,)]):
        array = np.asfortranarray(random_array(code, shape, rng)).reshape(shape, order="A")
        for version, (i, header) in itertools.product((1, 2, 3), enumerate(npy_headers(array))):
            content = npy_of(array, version=version, header=header)
            name = ["w.npy", "w", "dir/w.npy", "名.npy"][i % 4]
            data = make_zip(
                [Item(name, content, method=8 * (i % 2), streamed=i % 3 == 0, zip64=i % 5 == 0)],
                comment=b"PK comment" * (i % 2),
                zip64=i % 4 == 0,
            )
            same(read_file(data).tensors, {name.removesuffix(".npy"): array})
            n_files += 1
    content = npy_of(np.arange(5.0))
    for streamed, force, method, comment, name in itertools.product(
        (False, True), (False, True), (0, 8), (b"", b"x" * 300), ("w.npy", "w")
    ):
        options = {"streamed": streamed, "force": force, "method": method}
        data = by_zipfile(content, **options, comment=comment, name=name)
        same(read_file(data).tensors, {"w": np.arange(5.0)})
        n_files += 1
    assert n_files >= 200


def test_directories_in_the_archive_are_passed_over():
    data = make_zip([Item("lstm/"), Item("lstm/w.npy", npy_of(np.arange(3)))])
    same(read_file(data).tensors, {"lstm/w": np.arange(3)})


def test_an_archive_of_nothing():
    assert read_file(make_zip([])).tensors == {}


def test_upper_and_lower_case_are_two_names():
    data = saved(W=np.arange(2), w=np.arange(3))
    same(read_file(data).tensors, {"W": np.arange(2), "w": np.arange(3)})


def test_fortran_order_is_undone():
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4).transpose(2, 1, 0)
    for function in (np.savez, np.savez_compressed):
        same(read_file(saved(function, w=array)).tensors, {"w": array})


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "|u1"])
@pytest.mark.parametrize("function", [np.savez, np.savez_compressed])
def test_memory_beside_the_tensors(function, dtype, order):
    """A deflated array of zeros is far larger than its file, so there is no room for a copy."""
    array = np.zeros((1 << 10, 5 << 11), dtype, order=order)
    data = saved(function, w=array)
    weights, peak = peak_of(lambda: read_file(data))
    same(weights.tensors, {"w": array})
    assert peak - array.nbytes < len(data) + (3 << 20)


# -- claims beyond what is there

HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"


def test_a_small_file_cannot_claim_terabytes():
    content = npy(HEADER % "2199023255552,")
    for method in (0, 8):
        data = one(content, method=method)
        assert len(data) < 300
        error, peak = peak_of(lambda data=data: read_file(data))
        assert "does not take" in str(error) and peak < 1 << 20
        lie = {"size": 0xFFFFFFFF}
        refused(one(content, method=method, central=lie, local=lie))


def test_a_bomb_stops_at_its_declared_size():
    n = 1 << 28
    packed_zeros = zip_of_zeros(n)
    error, peak = peak_of(lambda: read_file(packed_zeros, max_bytes=n - 1))
    assert "max_bytes=" in str(error) and peak < 2 << 20
    lying = zip_of_zeros(n, claimed=1 << 16)
    start = time.perf_counter()
    error, peak = peak_of(lambda: read_file(lying))
    assert "does not inflate to" in str(error) and peak < 2 << 20
    assert time.perf_counter() - start < 1
    short = zip_of_zeros(1 << 16, claimed=(1 << 16) + 4)
    assert "does not inflate to" in str(peak_of(lambda: read_file(short))[0])
    wide = zip_of_zeros(1 << 16, claimed=1 << 29)
    error, peak = peak_of(lambda: read_file(wide))
    assert "claims" in str(error) and peak < 1 << 20


def zip_of_zeros(n, claimed=None):
    """A deflated npy of `n` bytes that says it has `claimed`."""
    import zlib

    claimed = n if claimed is None else claimed
    header = npy(HEADER % f"{claimed // 4},")
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed, crc = packer.compress(header), zlib.crc32(header)
    for at in range(0, n, 1 << 20):
        zeros = bytes(min(1 << 20, n - at))
        packed, crc = packed + packer.compress(zeros), zlib.crc32(zeros, crc)
    packed += packer.flush()
    both = {"method": 8, "crc": crc, "packed": len(packed), "size": len(header) + claimed}
    return make_zip([Item("w.npy", packed, local=both, central=both)])


def test_the_budget_counts_all_arrays_before_the_first():
    data = saved(np.savez_compressed, a=np.zeros(1 << 20), b=np.zeros(1 << 20))
    error, peak = peak_of(lambda: read_file(data, max_bytes=(1 << 24) - 1))
    assert "array 'b' takes 8388608 bytes, 8388607 are left" in str(error) and peak < 2 << 20
    assert read_file(data, max_bytes=1 << 24).tensors


def test_many_small_entries_that_inflate():
    zeros = npy(HEADER % f"{1 << 18},", bytes(1 << 20))
    once = Item("0.npy", zeros, method=8)
    data = make_zip([Item(f"{i}.npy", zeros, method=8) for i in range(8)] + [once][:0])
    start = time.perf_counter()
    with pytest.raises(ModelFormatError, match="max_bytes="):
        read_file(data, max_bytes=1 << 22)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("n", [10_001, 65535, 2**31, 2**32 - 1])
def test_long_headers(method, n):
    version = 1 if n < 65536 else 2
    refused(one(npy(HEADER % "3,", bytes(12), n_header=n, version=version), method=method),
            f"a header of {n} bytes, at most 10000")  # fmt: skip
    longest = (HEADER % "3,").ljust(10_000)
    assert read_file(one(npy(longest, bytes(12)), method=method)).tensors
    refused(one(npy(longest + " ", bytes(12)), method=method), "at most 10000")
    text = HEADER % "3," + " " * 9000
    refused(one(npy(text + " " * 5000, bytes(12)), method=method), "at most 10000")
    assert read_file(one(npy(text, bytes(12)), method=method)).tensors


@pytest.mark.parametrize(
    "header",
    [
        "", "{}", "[]", "(", "{" * 9000, "(" * 9000, "-" * 9000 + "1", "1" * 9000, "None",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [3]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': [}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x",
        "x {'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4',, 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': None, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': 'False', 'shape': (3,)}",
        "{'descr': True, 'fortran_order': False, 'shape': (3,)}",
        "{'descr': (3,), 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (+3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3.0,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0x3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (03,)}",
        "{'descr':\v'<f4', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (L,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3," + "1," * 32 + ")}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2**2,)}",
        "{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (3,)}",
        "{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (3,)}",
        "{u'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
        "{descr: '<f4', fortran_order: False, shape: (3,)}",
    ],
)  # fmt: skip
def test_headers_that_are_no_plain_dict(header):
    refused(one(npy(header, bytes(12))), "the header is no dict of descr, fortran_order and shape")


def test_headers_that_are_not_ascii():
    raw = (HEADER % "3,").replace("<f4", "<é4").encode("latin-1")
    refused(one(npy(raw, bytes(12))), "no plain array")


@pytest.mark.parametrize("shape", ["2", "4", "0", "4611686018427387904", "9223372036854775807"])
def test_shapes_that_do_not_fit_the_data(shape):
    for method in (0, 8):
        refused(one(npy(HEADER % f"{shape},", bytes(12)), method=method), "does not take")
    refused(one(npy(HEADER % "9223372036854775807, 9223372036854775807, 0", b"")), "does not take")


@pytest.mark.parametrize("descr", ["'|O'", "'|O8'", "'<O'", "[('a', '<f4')]", "[]", "[['x"])
def test_objects_and_records(descr):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}"
    refused(one(npy(header, bytes(12))), "Python objects or records")


@pytest.mark.parametrize(
    "descr", ["<c8", "<f16", "|S4", "<U1", "<M8[s]", "<m8", "|V2", "<f3", "<b4", "f4", "<i16", ""]
)
def test_dtypes_that_are_not_read(descr):
    refused(one(npy((HEADER % "3,").replace("<f4", descr), bytes(12))),
            "save it as float32", UnsupportedError)  # fmt: skip


def test_what_numpy_writes_for_others():
    refused(saved(w=np.array([{}], object)), "Python objects or records")
    refused(saved(w=np.zeros(2, [("a", "f4")])), "Python objects or records")
    refused(saved(w=np.zeros(2, complex)), "c16", UnsupportedError)
    refused(saved(w=np.zeros(2, ml_dtypes.bfloat16)), "V2", UnsupportedError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no .npy content"),
        (b"hello", "no .npy content"),
        (b"\x93NUMPY", "unknown version"),
        (b"\x93NUMPY\1\0", "unknown version"),
        (b"\x93NUMPY\4\0" + bytes(100), "unknown version"),
        (b"\x93NUMPY\1\1" + bytes(100), "unknown version"),
        (b"\x93NUMPY\0\0" + bytes(100), "unknown version"),
        (npy(HEADER % "3,", n_header=200), "cut short"),
        (npy(HEADER % "3,", bytes(11)), "does not take"),
        (npy(HEADER % "3,", bytes(13)), "does not take"),
        (npy((HEADER % "12,").replace("<f4", "|b1"), b"\1" * 11 + b"\2"), "neither 0 nor 1"),
    ],
)
def test_contents(content, message):
    for method in (0, 8):
        refused(one(content, method=method), message)


def test_names():
    good = npy_of(np.arange(3.0))
    refused(make_zip([Item("w.npy", good), Item("w", good)]), "two arrays are named 'w'")
    refused(make_zip([Item("w.npy", good), Item("w.npy", good)]), "two entries are named 'w.npy'")


def test_damaged_contents():
    for method in (0, 8):
        data = bytearray(one(npy_of(np.arange(100.0)), method=method))
        at = 240
        data[at] ^= 1
        refused(bytes(data), "damaged")


def test_deflated_entries_that_do_not_end():
    content = npy_of(np.arange(100.0))
    from filemaker import deflate

    packed = deflate(content)
    import zlib

    both = {"method": 8, "crc": zlib.crc32(content), "size": len(content)}
    for body in (
        packed + b"\0",
        packed[:-1],
        packed[:20],
        b"",
        packed + packed,
        b"\xff" * 50,
        packed + bytes(1 << 19),
    ):
        fields = both | {"packed": len(body)}
        refused(make_zip([Item("w.npy", body, local=fields, central=fields)]))
    fields = both | {"packed": len(packed)}
    assert read_file(make_zip([Item("w.npy", packed, local=fields, central=fields)])).tensors


@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 95])
def test_other_methods(method):
    both = {"method": method}
    refused(one(npy_of(np.arange(3.0)), local=both, central=both), "only stored and deflated")


def test_bzip2_and_lzma_of_python():
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("w.npy", npy_of(np.arange(3.0)))
        refused(out.getvalue(), "by method")


# -- mutation, with NumPy as the judge of what we accept


def agrees(data):
    try:
        ours = read_file(data)
    except ClstmError:
        return False
    with np.load(io.BytesIO(data)) as archive:
        theirs = {name: archive[name] for name in archive.files}
    assert digest(ours.tensors) == digest(
        {name: native(a).reshape(np.shape(a)) for name, a in theirs.items()}
    )
    return True


def seeds():
    arrays = {"a": np.arange(6, dtype=">f4").reshape(2, 3), "b": np.arange(4, dtype="<i2")}
    yield saved(**arrays)
    yield saved(np.savez_compressed, **arrays)
    yield make_zip([Item(f"{n}.npy", npy_of(a), streamed=True) for n, a in arrays.items()])


def test_truncation_at_every_length():
    for data in seeds():
        assert agrees(data)
        for n in range(len(data)):
            with pytest.raises(ModelFormatError):
                read_file(data[:n])


def test_every_byte_flipped():
    for data in seeds():
        good = digest(read_file(data).tensors)
        for at in range(len(data)):
            for flip in (0x01, 0x80, 0xFF):
                bad = bytearray(data)
                bad[at] ^= flip
                try:
                    assert digest(read_file(bytes(bad)).tensors) == good
                except ClstmError:
                    pass


def test_every_byte_of_a_header_with_every_value():
    content = npy_of(np.arange(6, dtype="<f4").reshape(2, 3))
    n_read = sum(
        agrees(one(content[:at] + bytes([value]) + content[at + 1 :]))
        for at in range(len(content) - 24)
        for value in range(0 if at < 10 else 9, 256 if at < 10 else 127)
    )
    assert n_read > 1


TOKENS = st.sampled_from(
    ["{", "}", "(", ")", ",", ":", "'", '"', " ", "\n", "3", "0", "L", "-", "True", "False",
     "'shape'", "'descr'", "'<f4'", "'>f4'", "'|u1'", "'fortran_order'", "9" * 25, "[", "]", "\\"]
)  # fmt: skip


@settings(
    max_examples=2000, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(TOKENS, max_size=4), st.data())
def test_random_headers(tokens, data):
    text = HEADER % "2, 3"
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 12))
    text = text[:at] + "".join(tokens) + text[at + cut :]
    agrees(one(npy(text, bytes(data.draw(st.sampled_from([24, 0, 12, 6]))))))


def test_the_test_machine_is_little_endian():
    # Where this fails, the expectations of `native` above have not been tried.
    assert sys.byteorder == "little" and struct.pack("=H", 1) == b"\1\0"
