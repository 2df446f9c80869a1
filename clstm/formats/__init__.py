# SPDX-License-Identifier: MIT
"""Weight files: bytes in, NumPy arrays out.

Nothing here needs PyTorch or the compiled core, imports what a file names, opens a second file,
or takes memory that the file only claims. `read_file` tells the kind by content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .budget import Budget
from .container import Image, read_image
from .from_gates import from_gates
from .npz import NPY_MAGIC, read_npz
from .safetensors import looks_like_safetensors, read_safetensors
from .source import Source, SourceLike, read_source, shown
from .torch_zip import TORCH_SUFFIXES, read_torch, refuse_torch
from .zip_entries import Entry, read_entries

if TYPE_CHECKING:
    from .. import nn

DEFAULT_MAX_BYTES = 2**30
CLSTM_MAGIC = b"CLSTM\x00"

_READ = ".pt, .pth, .ckpt (torch.save), .safetensors, .npz, .onnx and .clstm"
States = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Weights:
    """The tensors of one file under their names in it, in the file's order."""

    tensors: dict[str, NDArray[Any]]
    metadata: dict[str, str] = field(default_factory=dict)
    kind: str = ""  # "torch", "safetensors", "npz", "onnx" or "clstm"
    name: str = ""  # how messages name the file
    image: Image | None = None  # of a .clstm file, which holds its layers too
    layers: list[nn.Layer] | None = None  # of an ONNX file


def read_file(
    source: SourceLike,
    *,
    key: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    external_data: bool = False,
    states: States | None = None,
) -> Weights:
    """Read the tensors of a weight file: a path, bytes or a binary file object.

    Tensors are C-contiguous, native, read-only arrays, some of them views of the bytes of the
    file; bfloat16 becomes float32, exactly, and other dtypes stay. `key` chooses the state dict
    of a checkpoint. `max_bytes` limits all tensors together, before memory is taken for them.
    `external_data` and `states` are for ONNX.
    """
    budget = Budget(max_bytes)
    file = read_source(source)
    weights = _read_plain(file, key, budget)
    if weights is None and (file.suffix == ".onnx" or _looks_like_onnx(file.data)):
        _refuse_key(file, key)
        return _read_onnx(file, external_data, states, max_bytes)
    if weights is None:
        raise _refuse(file)
    if states is not None:
        raise ValueError(
            f"{file.name}: states= pairs the states of an ONNX file, which this is not"
        )
    return weights


def _read_plain(file: Source, key: str | None, budget: Budget) -> Weights | None:
    """Of the kinds that need nothing but NumPy; None for another."""
    if file.data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        entries = read_entries(file)
        if _is_torch(file, entries):
            return Weights(read_torch(file, entries, key, budget), {}, "torch", file.name)
        _refuse_key(file, key)
        return Weights(read_npz(file, entries, budget), {}, "npz", file.name)
    if file.data.startswith(CLSTM_MAGIC):
        _refuse_key(file, key)
        image = read_image(file.data, file.name, budget)
        tensors = {name: a for r in image.records for name, a in r.tensors.items()}
        return Weights(tensors, {}, "clstm", file.name, image)
    if file.suffix == ".safetensors" or looks_like_safetensors(file.data):
        _refuse_key(file, key)
        return Weights(*read_safetensors(file, budget), "safetensors", file.name)
    return None


def _looks_like_onnx(data: bytes) -> bool:
    """A ModelProto has no magic: field 1, its IR version, comes first in what every writer
    makes, and then one of its other fields."""
    return data[:1] == b"\x08" and data[1:2] < b"\x40" and data[2:3] in _ONNX_TAGS


_ONNX_TAGS = {b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42", b"\x72"}


def _read_onnx(file: Source, external_data: bool, states: States | None, max_bytes: int) -> Weights:
    from .onnx import read_onnx  # lazily: few have the onnx package

    folder = None if file.folder is None else Path(file.folder)
    layers, tensors = read_onnx(
        file.data,
        file.name,
        folder,
        external_data=external_data,
        states=states,
        max_bytes=max_bytes,
    )
    return Weights(tensors, {}, "onnx", file.name, layers=layers)


def _is_torch(file: Source, entries: dict[str, Entry]) -> bool:
    if any(name.endswith(("data.pkl", "/constants.pkl")) for name in entries):
        return True
    return file.suffix in TORCH_SUFFIXES and not any(name.endswith(".npy") for name in entries)


def _refuse_key(file: Source, key: str | None) -> None:
    if key is not None:
        raise file.fault(f"key={shown(key)} chooses in a torch.save checkpoint, which this is not")


def _refuse(file: Source) -> Exception:
    if file.data.startswith(NPY_MAGIC):
        return file.fault(
            'a single array without a name; save it with one: np.savez("w.npz", weight=array)'
        )
    if not file.data:
        return file.fault("the file is empty")
    refuse_torch(file)
    if file.suffix == ".npz":
        return file.fault("expected a zip archive of arrays; the file is cut short or foreign")
    return file.fault(f"unknown kind of file; {_READ} are read")


__all__ = ["DEFAULT_MAX_BYTES", "Weights", "from_gates", "read_file"]
