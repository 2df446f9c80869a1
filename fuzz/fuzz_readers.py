# SPDX-License-Identifier: MIT
"""What is fuzzed: each Python reader of weight files, and what must hold for any bytes.

A reader gives tensors or one of two errors. What it gives, another implementation that accepts
the same bytes must give too, bit for bit: torch, NumPy, safetensors, onnx, clstm's own C reader.
That one direction is the promise: ours is the stricter reader everywhere.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit")]  # filemaker, hostile

import fuzz_mutators as mutators  # noqa: E402

from clstm.errors import ModelFormatError, UnsupportedError  # noqa: E402
from clstm.formats import Weights, read_file  # noqa: E402
from clstm.formats.onnx import read_onnx  # noqa: E402
from clstm.loading import build, image_of, naming  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"
BESIDE = CORPUS / "beside"  # files that ONNX models of the corpus keep tensors in
REFUSED = (ModelFormatError, UnsupportedError)
MAX_BYTES = 1 << 26

Tensors = dict[str, np.ndarray]


class Named(io.BytesIO):
    """A file object whose name has a suffix, which decides where the content does not."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


@dataclass(frozen=True)
class Reader:
    name: str
    sources: tuple[str, ...]  # whose branches the corpus must cover, below clstm/
    ways: tuple[tuple[str, dict[str, Any]], ...]  # file names and options to read with
    mutate: Callable[[bytes, random.Random], bytes]
    compare: Callable[[bytes, Weights], None]


def outcomes(reader: Reader, data: bytes) -> list[str]:
    """What each way of reading comes to, in a line; whatever breaks the promise is raised."""
    lines = []
    for name, options in reader.ways:
        try:
            found = _read(data, name, options)
        except REFUSED as error:
            lines.append(_sentence(error))
            continue
        lines.append(f"read {digest(found.tensors)}")
        READERS[found.kind].compare(data, found)  # a file may be of another kind than meant
        lines.append(_model(found))
    return lines


def _read(data: bytes, name: str, options: dict[str, Any]) -> Weights:
    if not options.get("external_data"):
        return read_file(Named(data, name), max_bytes=MAX_BYTES, **options)
    layers, tensors = read_onnx(data, name, BESIDE, states=None, max_bytes=MAX_BYTES, **options)
    return Weights(tensors, {}, "onnx", name, layers=layers)


def _model(found: Weights) -> str:
    """What `clstm.load` makes of tensors that were read: layers of a file, or a guess."""
    try:
        with naming(found.name):
            model = build(image_of(found, None, True), kernel="scalar")
    except REFUSED as error:
        return _sentence(error)
    return f"model {model.fingerprint[:16]}"


def _sentence(error: Exception) -> str:
    text = str(error)
    assert text and "\n" not in text and len(text) < 4000, text[:200]
    return f"{type(error).__name__}: {text}"


def digest(tensors: Tensors) -> str:
    """Names, dtypes, shapes and bits."""
    crc = 0
    for name, a in tensors.items():
        head = f"{name} {a.dtype.str} {a.shape}".encode("utf-8", "surrogatepass")
        crc = zlib.crc32(np.ascontiguousarray(a).tobytes(), zlib.crc32(head, crc))
    return f"{len(tensors)} {crc:08x}"


def same(ours: Tensors, theirs: Tensors) -> None:
    assert set(ours) == set(theirs), (set(ours) ^ set(theirs), "names differ")
    for name, b in theirs.items():
        a = ours[name]
        assert a.dtype == b.dtype.newbyteorder("="), (name, a.dtype, b.dtype)
        assert a.shape == b.shape and a.tobytes() == b.astype(a.dtype).tobytes(), name


# -- torch


def _compare_torch(data: bytes, found: Weights) -> None:
    import torch

    try:
        root = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # torch refuses some files that hold unknown classes, in many ways
        assert "out of bounds" not in str(error), error  # but not what would read elsewhere
        return
    states = [root] if isinstance(root, dict) else []
    for _ in range(4):
        inner = [v for s in states for v in s.values() if isinstance(v, dict)]
        states += [v for v in inner if all(v is not s for s in states)]
    ours = found.tensors
    for state in states:
        tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
        if set(tensors) == set(ours):
            theirs = {k: _numpy(v) for k, v in tensors.items()}
            if any(v.dtype.kind == "u" and v.itemsize > 1 for v in ours.values()):
                # Of a big-endian file torch leaves these types as they lie there.
                theirs = {k: v.byteswap() if b"big" in data else v for k, v in theirs.items()}
            if all(ours[k].tobytes() == theirs[k].tobytes() for k in ours):
                return same(ours, theirs)
    raise AssertionError("torch reads no such state dict")


def _numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.resolve_conj().resolve_neg().numpy())


# -- npz


def _compare_npz(data: bytes, found: Weights) -> None:
    try:
        archive = np.load(io.BytesIO(data))
        theirs = {name: archive[name] for name in archive.files}
    except Exception:  # NumPy's reader raises whatever its parts do
        return
    # Of what is no array, a folder say, NumPy gives the bytes.
    same(found.tensors, {k: v for k, v in theirs.items() if isinstance(v, np.ndarray)})


# -- safetensors


def _compare_safetensors(data: bytes, found: Weights) -> None:
    import safetensors

    theirs = {}
    codes = {"BOOL": "?", "BF16": "u2"} | {
        f"{kind}{n * 8}": f"<{code}{n}"
        for kind, code in (("U", "u"), ("I", "i"), ("F", "f"))
        for n in (1, 2, 4, 8)
    }
    for name, part in safetensors.deserialize(data):  # it accepted them: ours asks it
        a = np.frombuffer(part["data"], codes[part["dtype"]]).reshape(part["shape"])
        if part["dtype"] == "BF16":
            a = (a.astype("<u4") << 16).view("<f4")
        theirs[name] = a
    same(found.tensors, theirs)
    header = json.loads(data[8 : 8 + struct.unpack_from("<Q", data)[0]])
    assert found.metadata == header.get("__metadata__", {})


# -- .clstm


def _compare_clstm(data: bytes, found: Weights) -> None:
    """The C reader takes the same bytes for whole, and finds the same tensors: it may only miss
    a program in them."""
    from clstm import _core
    from clstm.formats.container import write_image

    assert found.image is not None
    try:
        _core.Model(data, kernel="scalar")
    except REFUSED as error:
        whole = not any(word in str(error) for word in _DAMAGE)
        assert whole, f"Python reads what C finds damaged: {error}"
    again = write_image(found.image)
    same(read_file(again).tensors, found.tensors)


_DAMAGE = (
    "not a .clstm", "format version", "truncated", "bad header", "larger than the file", "damaged",
    "bad padding", "inconsistent", "belong to no layer", "does not lie", "its rank", "its name is",
    "unknown type or rank", "bytes after",
)  # fmt: skip


# -- ONNX


def _compare_onnx(data: bytes, found: Weights) -> None:
    """onnx reads every initializer of the file that clstm reads, to the same bits; and its own
    rules of a graph hold."""
    import onnx
    from onnx import numpy_helper

    from clstm.formats.budget import Budget
    from clstm.formats.onnx.tensors import TensorReader

    model = onnx.ModelProto.FromString(data)
    reader = TensorReader(Budget(MAX_BYTES), BESIDE, True)
    for proto in model.graph.initializer:
        try:
            ours = reader.read(proto, "tensor")
        except REFUSED:
            continue  # nothing of the model reads it
        try:
            theirs = numpy_helper.to_array(proto, str(BESIDE))
        except Exception:  # what onnx refuses it does in many ways
            continue
        if theirs.dtype.name == "bfloat16":
            theirs = (theirs.view("<u2").astype("<u4") << 16).view("<f4")
        same({"": ours}, {"": np.asarray(theirs)})


ZIP = ("zip_entries.py", "arrays.py")  # source.py is not moved by bytes: test_source.py tries it
READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "torch",
            ("torch_zip.py", "torch_pickle.py", "torch_rebuild.py", "torch_records.py", *ZIP[:1]),
            (("m.bin", {}), ("m.pt", {"key": "model"}), ("m.pt", {"key": "a.b"})),
            mutators.torch,
            _compare_torch,
        ),
        Reader(
            "npz",
            ("npz.py", *ZIP),
            (("m.bin", {}), ("m.npz", {"key": "x"})),
            mutators.npz,
            _compare_npz,
        ),
        Reader(
            "safetensors",
            ("safetensors.py",),
            (("m.bin", {}), ("m.safetensors", {})),
            mutators.safetensors,
            _compare_safetensors,
        ),
        Reader("clstm", ("container.py",), (("m.clstm", {}),), mutators.clstm, _compare_clstm),
        Reader(
            "onnx",
            tuple(f"onnx/{p.name}" for p in sorted((ROOT / "clstm/formats/onnx").glob("*.py"))),
            (("m.onnx", {}), ("m.onnx", {"external_data": True})),
            mutators.onnx,
            _compare_onnx,
        ),
    )
}
