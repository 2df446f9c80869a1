# SPDX-License-Identifier: MIT
"""The `.pt`, `.pth` and `.ckpt` files of `torch.save` (PyTorch 1.6 and later), without torch.

Such a file is a zip with stored entries under one folder: `data.pkl`, which is read by
`torch_pickle`, and `data/<key>`, the bytes of each storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import ITEM_BYTES, finish, made_bytes, raw_dtype
from .budget import Budget, tensor_bytes
from .source import Source, shown
from .torch_pickle import Pickle, read_pickle
from .torch_records import Dict, Opaque, Storage, Tensor, Unreadable
from .zip_entries import STORED, Entry, check_crc, crc_of

# Where checkpoints keep their state dict, if it is not the root.
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "ema")

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".pt2")

_EXPORT = 'export its state dict instead: torch.save(model.state_dict(), "weights.pt")'
_RESAVE = (
    "save it again with PyTorch 1.6 or later: "
    'torch.save(torch.load(path, map_location="cpu", weights_only=True), "weights.pt")'
)
_MAX_LISTED = 12


def read_torch(
    source: Source, entries: dict[str, Entry], key: str | None, budget: Budget
) -> dict[str, NDArray[Any]]:
    """The tensors of the state dict in a `torch.save` archive; see `pick_state_dict`."""
    archive = _Archive(source, entries)
    pickle = archive.read_pickle()
    state = pick_state_dict(source, pickle.root, key)
    return archive.make_tensors(state, budget)


def refuse_torch(source: Source) -> None:
    """Raise what helps the owner of a file of torch that is no zip; else return."""
    data = source.data
    if data[257:262] == b"ustar":
        raise source.fault(f"a tar file of PyTorch before 0.2, or another tar; {_RESAVE}")
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        if data[2:14] == b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19":
            raise source.fault(f"the legacy stream of PyTorch before 1.6; {_RESAVE}")
        raise source.fault(f"a bare pickle, not a file of torch.save; {_EXPORT}")
    if source.suffix in TORCH_SUFFIXES:
        raise source.fault("expected a zip archive of torch.save; the file is cut short or foreign")


class _Archive:
    def __init__(self, source: Source, entries: dict[str, Entry]) -> None:
        self.source = source
        self.entries = entries
        names = [name.partition("/")[2] for name in entries]
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise source.fault(f"a TorchScript archive holds code; {_EXPORT}")
        pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise source.fault(
                f"expected one data.pkl in the archive, found {len(pickles)}; {_EXPORT}"
            )
        self.folder = pickles[0].removesuffix("data.pkl")
        folded: set[str] = set()
        for name, entry in entries.items():
            if not name.startswith(self.folder) or not self.folder:
                raise source.fault(f"entry {shown(name)} lies outside the archive's one folder")
            if entry.method != STORED:
                raise source.fault(
                    f"entry {shown(name)} is deflated; torch.save stores. Zip again with -0"
                )
            folded.add(name.lower())
        if len(folded) != len(entries):  # torch's own reader takes either of the two
            raise source.fault("two entries differ in upper and lower case only")
        # torch.serialization.set_crc32_options(False) writes 0 for every entry.
        self.has_crcs = any(entry.crc for entry in entries.values())
        self.byte_order = self.read_byte_order()

    def read_pickle(self) -> Pickle:
        entry = self.checked("data.pkl")
        pickle = read_pickle(self.source, entry.start, entry.start + entry.n_bytes)
        for key, storage in pickle.storages.items():
            self.check_storage(key, storage)
        return pickle

    def checked(self, name: str) -> Entry:
        entry = self.entries[self.folder + name]
        if self.has_crcs:
            check_crc(self.source, entry, crc_of(self.source, entry))
        return entry

    def read_byte_order(self) -> str:
        if self.folder + "byteorder" not in self.entries:
            return "<"  # before 2.1, and no big-endian machine is known to have written one
        entry = self.checked("byteorder")
        word = self.source.data[entry.start : entry.start + entry.n_bytes]
        if word not in (b"little", b"big"):
            raise self.source.fault(f"byteorder is {word[:20]!r}, expected little or big")
        return "<" if word == b"little" else ">"

    def check_storage(self, key: str, storage: Storage) -> None:
        entry = self.entries.get(f"{self.folder}data/{key}")
        if entry is None:
            raise self.source.fault(f"storage {shown(key)} is missing from the archive")
        if storage.code is None:
            return  # nothing is made of it
        n_bytes = storage.n_items * ITEM_BYTES[storage.code]
        if entry.n_bytes != n_bytes:
            raise self.source.fault(
                f"storage {shown(key)} has {entry.n_bytes} bytes, {n_bytes} are declared"
            )

    def make_tensors(self, state: Dict, budget: Budget) -> dict[str, NDArray[Any]]:
        wanted: dict[str, Tensor] = {}
        for name, value in state.items.items():
            if isinstance(value, Unreadable):
                raise self.source.unsupported(f"tensor {shown(name)} is {value.what}")
            if isinstance(value, Tensor):
                n_bytes = tensor_bytes(value.shape, made_bytes(value.code))
                what = f"{self.source.name}: tensor {shown(name)}"
                if n_bytes is None:
                    raise self.source.fault(f"tensor {shown(name)} is larger than memory can be")
                budget.take(n_bytes, what)
                wanted[name] = value
        for key in {tensor.storage.key for tensor in wanted.values()}:
            self.checked(f"data/{key}")
        return {name: self.make_tensor(name, tensor) for name, tensor in wanted.items()}

    def make_tensor(self, name: str, tensor: Tensor) -> NDArray[Any]:
        dtype = raw_dtype(tensor.code, self.byte_order)
        if 0 in tensor.shape:
            return finish(np.empty(tensor.shape, dtype), tensor.code, self.source, name)
        entry = self.entries[f"{self.folder}data/{tensor.storage.key}"]
        # The bounds were checked in elements; np.ndarray checks them again in bytes of the file.
        raw: NDArray[Any] = np.ndarray(
            tensor.shape,
            dtype,
            buffer=self.source.data,
            offset=entry.start + tensor.offset * dtype.itemsize,
            strides=[
                step * dtype.itemsize if n > 1 else 0
                for n, step in zip(tensor.shape, tensor.strides, strict=True)
            ],
        )
        return finish(raw, tensor.code, self.source, name)


# -- which dict of a checkpoint is the state dict


def pick_state_dict(source: Source, root: object, key: str | None) -> Dict:
    """The dict of tensors in a checkpoint.

    Without `key` it is the root or under one of `STATE_DICT_KEYS`, and must be the only one.
    `key` names another, with dots for nested dicts; "" is the root.
    """
    if isinstance(root, Opaque):
        raise source.fault(
            f"a pickled object of class {shown(str(root.made_by))}, which needs its code; {_EXPORT}"
        )
    if not isinstance(root, Dict):
        what = "a single tensor" if isinstance(root, Tensor | Unreadable) else "no dict"
        raise source.fault(f"expected a dict of tensors, the file holds {what}; {_EXPORT}")
    if key is not None:
        return _look_up(source, root, key)
    candidates = {"": root} | {
        name: value
        for name in STATE_DICT_KEYS
        if isinstance(value := root.items.get(name), Dict) and value is not root
    }
    found = {name: value for name, value in candidates.items() if _has_tensors(value)}
    if len(found) > 1:
        raise source.fault(
            "several state dicts; choose one: " + " or ".join(f"key={name!r}" for name in found)
        )
    if not found:
        for name in STATE_DICT_KEYS:
            if isinstance(value := root.items.get(name), Opaque):
                raise source.fault(
                    f"under {name!r} lies a pickled object of class "
                    f"{shown(str(value.made_by))}, which needs its code; {_EXPORT}"
                )
        raise source.fault(f"no dict of tensors in it or under {STATE_DICT_KEYS}{_hint(root)}")
    return _with_names(source, *found.popitem())


def _look_up(source: Source, root: Dict, key: str) -> Dict:
    value: object = root.items.get(key) if key else root
    if value is None:
        value = root
        for part in key.split("."):
            value = value.items.get(part) if isinstance(value, Dict) else None
    if not isinstance(value, Dict) or not _has_tensors(value):
        raise source.fault(f"no dict of tensors under key={key!r}{_hint(root)}")
    return _with_names(source, key, value)


def _has_tensors(value: Dict) -> bool:
    return value.has_other_tensors or any(
        isinstance(item, Tensor | Unreadable) for item in value.items.values()
    )


def _with_names(source: Source, key: str, value: Dict) -> Dict:
    if value.has_other_tensors:
        raise source.fault(f"the dict under key={key!r} has tensors under keys that are no text")
    return value


def _hint(root: Dict) -> str:
    keys = [f"key={shown(path)}" for path, value in _walk(root) if _has_tensors(value)]
    if not keys:
        return ""
    more = " ..." if len(keys) > _MAX_LISTED else ""
    return "; there are " + ", ".join(keys[:_MAX_LISTED]) + more


def _walk(root: Dict) -> Iterator[tuple[str, Dict]]:
    """The dicts of a checkpoint, four levels deep; each once, for a pickle may hold cycles."""
    seen = {id(root)}
    level: list[tuple[str, Dict]] = [("", root)]
    for _ in range(4):
        yield from level
        below: list[tuple[str, Dict]] = []
        for path, value in level:
            for name, item in value.items.items():
                if isinstance(item, Dict) and id(item) not in seen:
                    seen.add(id(item))
                    below.append((f"{path}.{name}" if path else name, item))
        level = below
