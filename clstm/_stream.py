# SPDX-License-Identifier: MIT
"""What a stream does beside stepping: chunks, states in torch's shapes, snapshots."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from .errors import DTypeError, ShapeError, SnapshotError, TokenError
from .program import Recurrent, as_array

if TYPE_CHECKING:
    from .model import Model

_FLOAT32 = np.dtype(np.float32)  # one object, but for what was unpickled: that is copied
_MAGIC = b"CLSNAP\r\n"
_VERSION = 1
# magic, version, floats, steps, fingerprint of the weights; then the floats, then a CRC-32
_HEAD = struct.Struct("<8sIIQ32s")


def real(x: Any, name: str) -> np.ndarray:
    """As a NumPy array of real numbers, or DTypeError."""
    try:
        array = x if type(x) is np.ndarray else as_array(x)
    except (TypeError, ValueError) as error:
        why = str(error)
        why = why if why.startswith("expected") else f"expected an array of numbers: {why}"
        raise DTypeError(f"{name}: {why}") from None
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def as_float32(array: np.ndarray) -> np.ndarray:
    """Native C-contiguous float32; the same array where it is that already."""
    if array.dtype is _FLOAT32 and array.flags.c_contiguous:
        return array
    with _core.DefaultMode(), np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32).reshape(array.shape)


def tokens(model: Model, x: Any) -> np.ndarray:
    """int64 tokens, all checked."""
    array = real(x, "x") if not isinstance(x, np.ndarray) else x
    if array.dtype.kind not in "iu" and array.size:
        raise DTypeError(f"x: expected tokens (integers), got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= model.num_embeddings):
        worst = array.min() if array.min() < 0 else array.max()
        raise TokenError(f"token {worst} is outside 0 ... {model.num_embeddings - 1}")
    return array.astype(np.int64, order="C")  # a copy: native and aligned


def chunk(model: Model, x: Any) -> np.ndarray:
    """What ``Stream.run`` takes: (T, I), or (T,) tokens."""
    array = tokens(model, x) if model.num_embeddings else real(x, "X")
    expected = "(T,)" if model.num_embeddings else f"(T, {model.input_size})"
    if model.num_embeddings:
        fits = array.ndim == 1
    else:
        fits = array.ndim == 2 and array.shape[1] == model.input_size
    if not fits:
        raise ShapeError(f"X: expected shape {expected}, got {array.shape}")
    return array if model.num_embeddings else as_float32(array)


# ---- states -------------------------------------------------------------------------------

# A state in C is flat: of each recurrent layer h (cells, n_out), then of an LSTM c (cells,
# n_hidden). Its parts are these arrays, in that order.


def shapes_of(model: Model, n_batch: int | None) -> list[tuple[int, ...]]:
    """Torch's shapes of the parts; None: unbatched."""
    if n_batch is None:
        return [(n,) if cell else (k, n) for _, k, n, cell in model.parts]
    return [(n_batch, n) if cell else (k, n_batch, n) for _, k, n, cell in model.parts]


def checked(
    model: Model, value: Any, shapes: list[tuple[int, ...]], also: list[tuple[int, ...]]
) -> list[np.ndarray]:
    """The parts of what ``wrapped`` gives, float32 and contiguous, each of its shape or of the
    other that is taken too."""
    found = []
    given = parts_of(model, value)
    for (word, *_), part, shape, other in zip(model.parts, given, shapes, also, strict=True):
        array = as_float32(real(part, word))
        if array.shape != shape and array.shape != other:
            raise ShapeError(f"{word}: expected shape {shape}, got {array.shape}")
        found.append(array)
    return found


def unflatten(model: Model, flat: np.ndarray) -> Any:
    """Torch's unbatched shapes."""
    parts, at = [], 0
    for shape in shapes_of(model, None):
        end = at + math.prod(shape)
        parts.append(flat[at:end].copy().reshape(shape))
        at = end
    return wrapped(model, parts)


def flatten(model: Model, value: Any) -> np.ndarray:
    """Back, all checked; an axis of 1 for B is taken too."""
    parts = checked(model, value, shapes_of(model, None), shapes_of(model, 1))
    return np.concatenate([*(part.reshape(-1) for part in parts), _NOTHING])


_NOTHING = np.empty(0, np.float32)  # a model may have no state at all


def wrapped(model: Model, parts: list[np.ndarray]) -> Any:
    """One recurrent layer: its state bare; several: a list; none: None. An LSTM's is (h, c)."""
    if len(model.recurrent) == 1:
        return tuple(parts) if len(parts) > 1 else parts[0]
    rest = iter(parts)
    items = [(next(rest), next(rest)) if r.n_hidden else next(rest) for r in model.recurrent]
    return items or None


def parts_of(model: Model, value: Any) -> list[Any]:
    """What ``wrapped`` made of them, in order."""
    layers: list[Recurrent] = model.recurrent
    if not layers:
        if value is not None:
            raise ShapeError("state: this model has none; expected None")
        return []
    items = [value] if len(layers) == 1 else value
    if not isinstance(items, list | tuple) or len(items) != len(layers):
        raise ShapeError(f"state: expected a list of {len(layers)} states")
    found: list[Any] = []
    for r, item in zip(layers, items, strict=True):
        several = isinstance(item, list | tuple)
        if not r.n_hidden and several and any(hasattr(part, "shape") for part in item):
            raise ShapeError("state: expected h alone; a GRU or an RNN has no c")
        if r.n_hidden and (not several or len(item) != 2):
            raise ShapeError("state: expected (h, c)")
        found += item if r.n_hidden else [item]
    return found


# ---- snapshots ----------------------------------------------------------------------------


def pack(model: Model, flat: np.ndarray, steps: int) -> bytes:
    head = _HEAD.pack(_MAGIC, _VERSION, flat.size, steps, model.weights_fingerprint)
    body = head + flat.astype("<f4").tobytes()
    return body + zlib.crc32(body).to_bytes(4, "little")


def unpack(model: Model, blob: Any) -> tuple[np.ndarray, int]:
    """The flat state and the step count, or SnapshotError."""
    try:
        data = bytes(memoryview(blob))
    except TypeError:
        raise SnapshotError(f"expected bytes, got {type(blob).__name__}") from None
    if len(data) < _HEAD.size + 4 or data[:8] != _MAGIC:
        raise SnapshotError("not a snapshot of a clstm stream, or cut short")
    _, version, count, steps, fingerprint = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise SnapshotError(f"snapshot version {version}; this clstm reads version {_VERSION}")
    if zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise SnapshotError("the snapshot is damaged: its checksum differs")
    if fingerprint != model.weights_fingerprint:
        raise SnapshotError("the snapshot is of a model with other layers or weights")
    if count != model.n_state or len(data) != _HEAD.size + 4 * count + 4:
        raise SnapshotError(f"expected a state of {model.n_state} numbers, found {count}")
    return np.frombuffer(data, "<f4", count, _HEAD.size).astype(np.float32), int(steps)
