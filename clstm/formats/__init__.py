# SPDX-License-Identifier: MIT
"""Weight files: bytes in, NumPy arrays out.

Nothing here needs PyTorch or the compiled core, imports what a file names, opens a second file,
or takes memory that the file only claims. `read_file` tells the kind by content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .budget import Budget
from .container import Image, read_image
from .npz import NPY_MAGIC, read_npz
from .safetensors import looks_like_safetensors, read_safetensors
from .source import Source, SourceLike, read_source, shown
from .torch_zip import TORCH_SUFFIXES, read_torch, refuse_torch
from .zip_entries import Entry, read_entries

DEFAULT_MAX_BYTES = 2**30
CLSTM_MAGIC = b"CLSTM\x00"

_READ = ".pt, .pth, .ckpt (torch.save), .safetensors, .npz and .clstm"


@dataclass(slots=True)
class Weights:
    """The tensors of one file under their names in it, in the file's order."""

    tensors: dict[str, NDArray[Any]]
    metadata: dict[str, str] = field(default_factory=dict)
    kind: str = ""  # "torch", "safetensors", "npz" or "clstm"
    name: str = ""  # how messages name the file
    image: Image | None = None  # of a .clstm file, which holds its layers too


def read_file(
    source: SourceLike, *, key: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Weights:
    """Read the tensors of a weight file: a path, bytes or a binary file object.

    Tensors are C-contiguous, native, read-only arrays, some of them views of the bytes of the
    file; bfloat16 becomes float32, exactly, and other dtypes stay. `key` chooses the state dict
    of a checkpoint. `max_bytes` limits all tensors together, before memory is taken for them.
    """
    budget = Budget(max_bytes)
    file = read_source(source)
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
    raise _refuse(file)


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
    if file.suffix == ".onnx":
        return file.unsupported("ONNX files come with a later version of clstm")
    if file.suffix == ".npz":
        return file.fault("expected a zip archive of arrays; the file is cut short or foreign")
    return file.fault(f"unknown kind of file; {_READ} are read")


__all__ = ["DEFAULT_MAX_BYTES", "Weights", "read_file"]
