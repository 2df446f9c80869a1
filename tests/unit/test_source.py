# SPDX-License-Identifier: MIT
"""read_source, Budget, and how read_file tells the kinds apart."""

import io
import os
import threading
import tracemalloc

import numpy as np
import pytest
from filemaker import Item, info, make_zip, npy_of, plain_torch_file, safetensors_file

from clstm.errors import ModelFormatError
from clstm.formats import read_file, source
from clstm.formats.budget import Budget, tensor_bytes
from clstm.formats.container import Image, write_image
from clstm.formats.source import read_source, shown


def test_path_str_and_pathlike(tmp_path):
    path = tmp_path / "Weights.PT"
    path.write_bytes(b"content")
    for given in (path, str(path)):
        got = read_source(given)
        assert (got.data, got.name, got.suffix) == (b"content", str(path), ".pt")


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_like_is_copied_unless_immutable(wrap):
    given = wrap(b"content")
    got = read_source(given)
    assert type(got.data) is bytes and got.data == b"content" and got.suffix == ""
    assert "bytes" in got.name


def test_strided_memoryview_and_mutation_after_reading():
    raw = bytearray(b"a-b-c-")
    got = read_source(memoryview(raw)[::2])
    raw[0] = 0
    assert got.data == b"abc"


def test_file_objects(tmp_path):
    path = tmp_path / "w.npz"
    path.write_bytes(b"0123")
    with open(path, "rb") as file:
        file.seek(1)
        got = read_source(file)
    assert (got.data, got.name, got.suffix) == (b"123", str(path), ".npz")
    got = read_source(io.BytesIO(b"x"))
    assert (got.data, got.suffix) == (b"x", "")
    with open(os.open(path, os.O_RDONLY), "rb") as file:  # its name is an int
        assert read_source(file).suffix == ""


def test_text_mode_is_a_type_error(tmp_path):
    path = tmp_path / "w.pt"
    path.write_text("x")
    with open(path) as file, pytest.raises(TypeError, match='"rb"'):
        read_source(file)
    with pytest.raises(TypeError, match="binary"):
        read_source(io.StringIO("x"))

    class Text:
        def read(self):
            return "x"

    with pytest.raises(TypeError, match="gives bytes"):
        read_source(Text())


@pytest.mark.parametrize("wrong", [None, 3, 2.5, object(), ["w.pt"]])
def test_other_types_are_type_errors(wrong):
    with pytest.raises(TypeError, match="expected a path"):
        read_source(wrong)


def test_bytes_path_is_a_type_error():
    class Odd(os.PathLike):
        def __fspath__(self):
            return b"w.pt"

    with pytest.raises(TypeError, match="of type str"):
        read_source(Odd())


def test_errors_of_the_system_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "none.pt")
    with pytest.raises(ModelFormatError, match="regular file"):
        read_source(tmp_path)
    with pytest.raises(ValueError, match="null"):
        read_source("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_fifo_and_device_are_refused_without_waiting(tmp_path):
    path = tmp_path / "w.pt"
    os.mkfifo(path)
    done = []

    def read():
        with pytest.raises(ModelFormatError, match="regular file"):
            read_source(path)
        done.append(True)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert done
    with pytest.raises(ModelFormatError, match="regular file"):
        read_source("/dev/zero")


@pytest.mark.parametrize("change", ["grow", "cut", "rewrite"])
def test_a_file_changed_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "w.pt"
    path.write_bytes(b"0123456789")
    real_open = open

    def changing_open(*args, **kwargs):
        if change == "cut":
            os.truncate(path, 4)
        elif change == "grow":
            with real_open(path, "ab") as file:
                file.write(b"more")
        else:
            with real_open(path, "r+b") as file:
                file.write(b"X")
            os.utime(path, (1, 1))
        return real_open(*args, **kwargs)

    monkeypatch.setattr(source, "open", changing_open, raising=False)
    with pytest.raises(ModelFormatError, match=r"w\.pt: the file changed"):
        read_source(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc here")
def test_a_file_of_no_size_that_has_content_is_refused():
    with pytest.raises(ModelFormatError, match="the file changed"):
        read_source("/proc/self/status")


def test_reading_takes_the_size_of_the_file(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(bytes(8 << 20))
    tracemalloc.start()
    try:
        read_source(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (8 << 20) + (1 << 20)


def test_shown_is_one_bounded_printable_line():
    assert shown("a\nb\x1b") == "'a\\nb\\x1b'"
    assert len(shown("x" * 10_000)) < 100


def test_budget_counts_and_says_what_to_do():
    budget = Budget(100)
    budget.take(60, "a")
    budget.take(40, "b")
    budget.take(0, "empty")
    with pytest.raises(ModelFormatError, match=r"^c takes 1 bytes.*limit of 100.*max_bytes="):
        budget.take(1, "c")


@pytest.mark.parametrize("wrong", [-1, True, 1.5, None, "1"])
def test_budget_wants_an_integer(wrong):
    with pytest.raises(ValueError, match="max_bytes"):
        Budget(wrong)


def test_tensor_bytes():
    assert tensor_bytes((), 4) == 4
    assert tensor_bytes((2, 0, 3), 4) == 0
    assert tensor_bytes((2**61,), 2) == 2**62
    assert tensor_bytes((2**61, 4), 1) is None
    assert tensor_bytes((2**61, 4, 0), 1) is None  # NumPy multiplies the others all the same


# -- the kind of a file


def npz_bytes():
    return make_zip([Item("a.npy", npy_of(np.arange(3.0)))])


def safetensors_bytes():
    return safetensors_file({"a": info("U8", [2], 0, 2)}, b"\x01\x02")


@pytest.mark.parametrize("suffix", ["", ".pt", ".npz", ".safetensors", ".onnx", ".bin"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("torch", plain_torch_file()),
        ("npz", npz_bytes()),
        ("safetensors", safetensors_bytes()),
    ],
)
def test_content_goes_before_suffix(tmp_path, kind, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    weights = read_file(path)
    assert (weights.kind, weights.name) == (kind, str(path))
    assert weights.tensors


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".bin", b"hello world, this is no file of weights", "unknown kind.*safetensors"),
        (".bin", b"", "empty"),
        (".npz", b"hello", "zip archive"),
        (".pt", b"hello", "expected a zip archive of torch.save"),
        (".bin", b"\x80\x09 no pickle", "unknown kind"),
        (".bin", b"X\x02 no pickle", "unknown kind"),
        (".safetensors", b"hello", "cut short"),
        (".npy", npy_of(np.arange(3.0)), "np.savez"),
        (".npz", npy_of(np.arange(3.0)), "np.savez"),
        (".clstm", b"CLSTM\x00 and so on", "w.clstm"),
    ],
)
def test_foreign_content_is_told(tmp_path, suffix, content, message):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=message) as caught:
        read_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["w.onnx", "w", "w.pt"])
def test_onnx_is_told_by_content_and_by_suffix(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(ModelFormatError, match=rf"{name}: no ONNX model"):
        read_file(path)
    with pytest.raises(ModelFormatError, match="key='x' chooses"):
        read_file(path, key="x")
    path.write_bytes(b"text")
    with pytest.raises(ModelFormatError) as caught:
        read_file(path)
    assert ("no ONNX model" in str(caught.value)) == (name == "w.onnx")


def test_states_are_for_onnx():
    for content in (npz_bytes(), safetensors_bytes()):
        with pytest.raises(ValueError, match="states="):
            read_file(content, states=[("h0", "hn")])


@pytest.mark.parametrize(
    "content",
    [npz_bytes(), safetensors_bytes(), write_image(Image([], 1))],
    ids=["npz", "safetensors", "clstm"],
)
def test_key_is_for_checkpoints(content):
    with pytest.raises(ModelFormatError, match="key='model'"):
        read_file(content, key="model")


def test_max_bytes_is_kept_by_every_reader():
    for content, n in ((plain_torch_file(), 32), (npz_bytes(), 24), (safetensors_bytes(), 2)):
        assert read_file(content, max_bytes=n).tensors
        with pytest.raises(ModelFormatError, match=f"limit of {n - 1}; .*max_bytes="):
            read_file(content, max_bytes=n - 1)
