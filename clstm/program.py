# SPDX-License-Identifier: MIT
"""From layer descriptions and a state dict to the records of a model, and back.

Every check of a tensor against its layer is made here, where the message can name it; the
C core checks the records once more and trusts nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from . import nn
from .errors import ModelFormatError, UnsupportedError
from .formats.container import Record

# Numbers of the file; csrc/src/weights.h has the same.
LSTM, LINEAR, EMBEDDING, LAYER_NORM, BATCH_NORM, AFFINE, DROPOUT, PRELU = (
    1,
    16,
    17,
    18,
    19,
    20,
    33,
    37,
)
GELU, GELU_TANH = 42, 43
PLAIN: dict[int, type[nn.Layer]] = {
    32: nn.Identity, 34: nn.ReLU, 35: nn.ReLU6, 39: nn.Tanh, 41: nn.Sigmoid, 44: nn.SiLU,
    46: nn.Softmax, 47: nn.LogSoftmax,
}  # fmt: skip
NUMBERED: dict[int, type[nn.Layer]] = {  # whose options are numbers, in order
    DROPOUT: nn.Dropout, 36: nn.LeakyReLU, 38: nn.ELU, 40: nn.Hardtanh, 45: nn.Softplus,
}  # fmt: skip
BATCH_FIRST, BIDIRECTIONAL, CELL, BIAS, WEIGHT, H0, C0 = 1, 2, 4, 8, 16, 32, 64

_WRAPPERS = ("module.", "model.", "net.")


@dataclass(frozen=True)
class Recurrent:
    """Sizes of one recurrent layer, for its state: h (n_cells, n_out), c (n_cells, n_hidden)."""

    n_cells: int
    n_out: int
    n_hidden: int
    cell: bool


Arrays = dict[str, np.ndarray]


class Tensors:
    """A state dict that remembers what was taken from it."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.all = tensors
        self.taken: set[str] = set()

    def find(self, name: str) -> np.ndarray | None:
        """The tensor as float32, or None if there is none of that name."""
        array = self.all.get(name)
        if array is None:
            return None
        self.taken.add(name)
        if array.dtype.kind != "f":
            raise ModelFormatError(f"{name}: expected floating point, found {array.dtype}")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, dtype="<f4").reshape(array.shape)

    def need(self, name: str) -> np.ndarray:
        array = self.find(name)
        if array is None:
            prefix, dot, leaf = name.rpartition(".")
            refuse_parametrised(self.all, f"{prefix}{dot}parametrizations.{leaf}.")
            near = [n for n in self.all if n.rpartition(".")[2] == leaf]
            hint = f"; there is {', '.join(near[:4])}" if near else ""
            raise ModelFormatError(f"{name} is missing{hint}")
        return array

    def shaped(self, name: str, *shape: int | None) -> np.ndarray:
        """The tensor, of this shape; None stands for any size from 1 on."""
        array = self.need(name)
        fits = len(array.shape) == len(shape) and all(
            n == m if m is not None else n > 0 for n, m in zip(array.shape, shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if m is None else str(m) for m in shape)
            raise ModelFormatError(f"{name}: expected shape ({expected}), found {array.shape}")
        return array


def refuse_parametrised(names: Iterable[str], start: str = "") -> None:
    """A weight that is computed, as under weight normalisation, is stored in parts."""
    for name in names:
        if name.startswith(start):
            raise ModelFormatError(
                f"{name}: a parametrised weight; before saving, write "
                "torch.nn.utils.parametrize.remove_parametrizations(module, name)"
            )


def _dotted(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith(".") else prefix + "."


def _checked(layer: nn.Layer, **found: Any) -> None:
    """Sizes that the caller gave against those of the tensors."""
    for name, value in found.items():
        given = getattr(layer, name)
        if isinstance(given, tuple | list) and len(given) == 1:
            given = given[0]
        if given is not None and given != value:
            raise ModelFormatError(f"{layer!r}: {name}={given}, but the tensors say {value}")


def _lstm(layer: nn.LSTM, t: Tensors, width: int | None, index: int) -> Record:
    p = _dotted(layer.prefix)
    pattern = re.compile(re.escape(p) + r"((?:weight|bias)_(?:ih|hh|hr))_l(\d+)(_reverse)?")
    found = [m for name in t.all if (m := pattern.fullmatch(name))]
    numbers, words = {int(m[2]) for m in found}, {m[1] for m in found}
    n_layers = len(numbers)
    if numbers and numbers != set(range(n_layers)):
        missing = min(set(range(max(numbers))) - numbers)
        raise ModelFormatError(
            f"{p}weight_ih_l{missing} is missing between the layers {sorted(numbers)}"
        )
    w = t.shaped(f"{p}weight_ih_l0", None, width)
    # One tensor of a kind tells that all of the kind must be there.
    names = ["", "_reverse"] if any(m[3] for m in found) else [""]
    bias, projected = not words.isdisjoint(("bias_ih", "bias_hh")), "weight_hr" in words
    hidden = w.shape[0] // 4
    proj = t.shaped(f"{p}weight_hr_l0", None, hidden).shape[0] if projected else 0
    out = proj or hidden
    tensors: dict[str, np.ndarray] = {}
    if projected and proj >= hidden:
        raise ModelFormatError(
            f"{p}weight_hr_l0: proj_size {proj} must be below hidden_size {hidden}"
        )
    for k in range(n_layers):
        for end in names:
            n_in = out * len(names) if k else width
            tensors |= _gates(t, p, f"_l{k}{end}", hidden, n_in, out, bias)
            if proj:
                name = f"{p}weight_hr_l{k}{end}"
                tensors[name] = t.shaped(name, proj, hidden)
    flags = BATCH_FIRST * layer.batch_first | BIDIRECTIONAL * (len(names) == 2) | BIAS * bias
    _checked(layer, input_size=w.shape[1], hidden_size=hidden, num_layers=n_layers, bias=bias,
             bidirectional=len(names) == 2, proj_size=proj)  # fmt: skip
    n_cells = n_layers * len(names)
    flags |= _initial(t, layer, p or f"lstm{index}.", n_cells, out, hidden, tensors)
    return Record(LSTM, layer.prefix, flags, 0, (w.shape[1], hidden, proj, n_layers), (), tensors)


def _lstm_cell(layer: nn.LSTMCell, t: Tensors, width: int | None, index: int) -> Record:
    p = _dotted(layer.prefix)
    w = t.shaped(f"{p}weight_ih", None, width)
    hidden, bias = w.shape[0] // 4, any(f"{p}bias_{word}" in t.all for word in ("ih", "hh"))
    tensors = _gates(t, p, "", hidden, width, hidden, bias)
    _checked(layer, input_size=w.shape[1], hidden_size=hidden, bias=bias)
    flags = CELL | BIAS * bias
    flags |= _initial(t, layer, p or f"lstm{index}.", 1, hidden, hidden, tensors)
    return Record(LSTM, layer.prefix, flags, 0, (w.shape[1], hidden, 0, 1), (), tensors)


def _gates(
    t: Tensors, p: str, end: str, hidden: int, n_in: int | None, n_out: int, bias: bool
) -> dict[str, np.ndarray]:
    """The tensors of one layer and direction; each says what was expected of it."""
    name = f"{p}weight_ih{end}"
    rows = t.need(name).shape[:1]
    if rows != (4 * hidden,) or not hidden:
        raise ModelFormatError(f"{name}: an LSTM has 4 * hidden_size rows, found {rows}")
    found = {name: t.shaped(name, 4 * hidden, n_in)}
    found[f"{p}weight_hh{end}"] = t.shaped(f"{p}weight_hh{end}", 4 * hidden, n_out)
    if bias:
        for word in ("bias_ih", "bias_hh"):
            found[f"{p}{word}{end}"] = t.shaped(f"{p}{word}{end}", 4 * hidden)
    return found


def _initial(
    t: Tensors, layer: Any, p: str, n_cells: int, n_out: int, n_hidden: int, into: Arrays
) -> int:
    """The learned initial state goes into the tensors; returns its flags."""
    flags = 0
    for word, flag, size in (("h0", H0, n_out), ("c0", C0, n_hidden)):
        given = getattr(layer, word)
        if given is None:
            continue
        if isinstance(given, str):
            name = given if given in t.all else f"{p}{given}"
            array = t.need(name)
        else:
            name, array = f"{p}{word}", as_array(given).astype("<f4")
        if array.size != n_cells * size or size not in array.shape[-1:]:
            raise ModelFormatError(
                f"{name}: expected shape ({n_cells}, {size}), found {array.shape}"
            )
        into[name] = np.ascontiguousarray(array.reshape(n_cells, size))
        flags |= flag
    return flags


def _linear(layer: nn.Linear, t: Tensors, width: int | None, index: int) -> Record:
    p = _dotted(layer.prefix)
    weight = t.shaped(f"{p}weight", None, width)
    tensors, bias = {f"{p}weight": weight}, f"{p}bias" in t.all
    if bias:
        tensors[f"{p}bias"] = t.shaped(f"{p}bias", weight.shape[0])
    _checked(layer, in_features=weight.shape[1], out_features=weight.shape[0], bias=bias)
    return Record(LINEAR, layer.prefix, BIAS * bias, 0, weight.shape[::-1], (), tensors)


def _embedding(layer: nn.Embedding, t: Tensors, width: int | None, index: int) -> Record:
    if index:
        raise ModelFormatError(f"{layer!r}: an embedding is the first layer or none")
    name = f"{_dotted(layer.prefix)}weight"
    weight = t.shaped(name, None, None)
    _checked(layer, num_embeddings=weight.shape[0], embedding_dim=weight.shape[1])
    return Record(EMBEDDING, layer.prefix, 0, 0, weight.shape, (), {name: weight})


def _layer_norm(layer: nn.LayerNorm, t: Tensors, width: int | None, index: int) -> Record:
    p = _dotted(layer.prefix)
    names = (
        [n for n in ("weight", "bias") if f"{p}{n}" in t.all] if layer.prefix or index == 0 else []
    )
    if layer.prefix and not names:
        t.need(f"{p}weight")
    tensors = {f"{p}{n}": t.shaped(f"{p}{n}", width) for n in names}
    n, given = next(iter(tensors.values())).shape[0] if tensors else width, layer.normalized_shape
    if n is None and given is not None:
        n = given[0] if isinstance(given, tuple | list) and len(given) == 1 else given
        if not isinstance(n, int) or not 0 < n < 2**31:
            raise ValueError(f"normalized_shape={given!r}: expected the number of features")
    _checked(layer, normalized_shape=n)
    flags = WEIGHT * ("weight" in names) | BIAS * ("bias" in names)
    return Record(LAYER_NORM, layer.prefix, flags, 0, (n or 0,), (layer.eps,), tensors)


def _batch_norm(layer: nn.BatchNorm1d, t: Tensors, width: int | None, index: int) -> Record:
    p = _dotted(layer.prefix)
    names = ["running_mean", "running_var"]
    names += [n for n in ("weight", "bias") if f"{p}{n}" in t.all]
    tensors = {f"{p}{n}": t.shaped(f"{p}{n}", width) for n in names}
    t.taken.add(f"{p}num_batches_tracked")
    n = tensors[f"{p}running_mean"].shape[0]
    _checked(layer, num_features=n)
    flags = WEIGHT * ("weight" in names) | BIAS * ("bias" in names)
    return Record(BATCH_NORM, layer.prefix, flags, 0, (n,), (layer.eps,), tensors)


def _affine(layer: nn.Affine, t: Tensors, width: int | None, index: int) -> Record:
    prefix = layer.prefix or (
        f"affine{index}" if layer.scale is not None or layer.shift is not None else ""
    )
    p, tensors = _dotted(prefix), {}
    for word, other, default in (("scale", "weight", 1.0), ("shift", "bias", 0.0)):
        given = getattr(layer, word)
        if given is None and prefix != layer.prefix:
            given = default
        if given is None:
            name = (
                f"{p}{other}"
                if f"{p}{word}" not in t.all and f"{p}{other}" in t.all
                else f"{p}{word}"
            )
            array = t.need(name)
        else:
            name, array = f"{p}{word}", np.atleast_1d(as_array(given)).astype("<f4")
        if array.ndim != 1 or (width is not None and array.size not in (1, width)):
            raise ModelFormatError(
                f"{name}: expected shape ({width},) or (1,), found {array.shape}"
            )
        tensors[name] = array
    n = max(a.size for a in tensors.values())
    return Record(AFFINE, prefix, 0, 0, (n if n > 1 or width is None else width,), (), tensors)


def _prelu(layer: nn.PReLU, t: Tensors, width: int | None, index: int) -> Record:
    name = f"{_dotted(layer.prefix)}weight"
    weight = t.shaped(name, None)
    if weight.size not in (1, width):
        raise ModelFormatError(f"{name}: expected shape ({width},) or (1,), found {weight.shape}")
    _checked(layer, num_parameters=weight.size)
    return Record(PRELU, layer.prefix, 0, 0, (), (), {name: weight})


BINDERS: dict[type[nn.Layer], Callable[..., Record]] = {
    nn.LSTM: _lstm, nn.LSTMCell: _lstm_cell, nn.Linear: _linear, nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm, nn.BatchNorm1d: _batch_norm, nn.Affine: _affine, nn.PReLU: _prelu,
}  # fmt: skip


def _bind_one(layer: nn.Layer, t: Tensors, width: int | None, index: int) -> Record:
    binder = BINDERS.get(type(layer))
    if binder:
        return binder(layer, t, width, index)
    if isinstance(layer, nn.GELU):
        return Record(GELU_TANH if layer.approximate == "tanh" else GELU)
    for kind, cls in (PLAIN | NUMBERED).items():
        if type(layer) is cls:
            numbers = (
                [float(getattr(layer, f.name)) for f in fields(layer)] if kind in NUMBERED else []
            )
            return Record(kind, params=tuple(numbers))
    raise TypeError(f"layers: expected descriptions of clstm.nn, found {layer!r}")


def bind(
    layers: Sequence[nn.Layer], tensors: Mapping[str, np.ndarray], strict: bool
) -> tuple[list[Record], int]:
    """The records of a model and its input size (0 for tokens)."""
    if not layers:
        raise ValueError("layers is empty")
    t, records, width, input_size = Tensors(unwrapped(layers, tensors)), [], None, None
    for index, layer in enumerate(layers):
        record = _bind_one(layer, t, width, index)
        record.input = index
        before, width = _widths(record, width)
        if input_size is None and before is not None:
            input_size = before
        records.append(record)
    surplus = [name for name in t.all if name not in t.taken]
    if surplus and strict:
        raise ModelFormatError(
            f"tensors that no layer takes: {listed(surplus)}; name their layers, or strict=False"
        )
    if input_size is None:
        raise ModelFormatError("no layer tells the input size: give a LayerNorm normalized_shape=")
    firsts = {bool(r.flags & BATCH_FIRST) for r in records if r.kind == LSTM and not r.flags & CELL}
    if len(firsts) > 1:
        raise ValueError("batch_first differs between the recurrent layers")
    return records, input_size


def _widths(record: Record, width: int | None) -> tuple[int | None, int | None]:
    """Features in and out; None where the record cannot tell."""
    d = record.dims
    if record.kind == LSTM:
        return d[0], (d[2] or d[1]) * (2 if record.flags & BIDIRECTIONAL else 1)
    if record.kind == LINEAR:
        return d[0], d[1]
    if record.kind == EMBEDDING:
        return 0, d[1]
    if record.kind in (LAYER_NORM, BATCH_NORM, AFFINE) and d and d[0]:
        return d[0], d[0]
    return width, width


def unwrapped(
    layers: Sequence[nn.Layer], tensors: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """Without wrapper prefixes that all keys share, if no layer's prefix matches as it is; and
    without `_orig_mod.`, which stands before whatever was compiled, if any layer's does not."""
    prefixes = [_dotted(p) for layer in layers if (p := getattr(layer, "prefix", ""))] or [""]
    names = {name: name for name in tensors}  # new name to old
    while True:
        starts = {n[: n.rfind(".") + 1] for n in names}
        missing = [p for p in prefixes if p not in starts]
        compiled = any("_orig_mod." in n for n in names)
        word = next((w for w in _WRAPPERS if all(n.startswith(w) for n in names)), None)
        if missing and compiled:
            stripped = {n.replace("_orig_mod.", ""): old for n, old in names.items()}
        elif missing == prefixes and names and word is not None:
            stripped = {n[len(word) :]: old for n, old in names.items()}
        else:
            break
        if len(stripped) != len(names):
            return tensors
        names = stripped
    return {new: tensors[old] for new, old in names.items()}


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few of them, for a message."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


# ---- records back to layers --------------------------------------------------------------


def layers_of(records: Sequence[Record]) -> list[nn.Layer]:
    """The descriptions that the records came from, sizes filled in where they are checked."""
    return [_layer_of(record) for record in records]


def _layer_of(r: Record) -> nn.Layer:
    d, names = r.dims, list(r.tensors)
    if r.kind == LSTM:
        c0 = names.pop() if r.flags & C0 else None
        h0 = names.pop() if r.flags & H0 else None
        if r.flags & CELL:
            return nn.LSTMCell(r.name, h0, c0, d[0], d[1], bool(r.flags & BIAS))
        return nn.LSTM(r.name, bool(r.flags & BATCH_FIRST), h0, c0, d[0], d[1], d[3],
                       bool(r.flags & BIAS), bool(r.flags & BIDIRECTIONAL), d[2])  # fmt: skip
    if r.kind == LINEAR:
        return nn.Linear(r.name, d[0], d[1], bool(r.flags & BIAS))
    if r.kind == EMBEDDING:
        return nn.Embedding(r.name, d[0], d[1])
    if r.kind == LAYER_NORM:
        return nn.LayerNorm(r.name, r.params[0], d[0] or None)
    if r.kind == BATCH_NORM:
        return nn.BatchNorm1d(r.name, r.params[0], d[0])
    if r.kind in (AFFINE, PRELU):
        return nn.Affine(r.name) if r.kind == AFFINE else nn.PReLU(r.name)
    if r.kind in (GELU, GELU_TANH):
        return nn.GELU("tanh" if r.kind == GELU_TANH else "none")
    cls = (PLAIN | NUMBERED).get(r.kind)
    if cls is None:
        raise UnsupportedError(f"a layer of kind {r.kind}, which this version does not know")
    return cls(*r.params[: len(fields(cls))]) if r.kind in NUMBERED else cls()


def recurrent_of(records: Sequence[Record]) -> list[Recurrent]:
    """Sizes of the states, in order."""
    return [
        Recurrent(
            r.dims[3] * (2 if r.flags & BIDIRECTIONAL else 1),
            r.dims[2] or r.dims[1],
            r.dims[1],
            bool(r.flags & CELL),
        )
        for r in records
        if r.kind == LSTM
    ]


def layers_to_json(layers: Sequence[nn.Layer]) -> str:
    """Canonical text: keys sorted, defaults left out, so that later options change nothing."""
    items = [{"type": type(layer).__name__} | layer.options() for layer in layers]
    return json.dumps(items, sort_keys=True, separators=(",", ":"))


def layers_from_json(text: str, name: str) -> list[nn.Layer]:
    try:
        items = json.loads(text)
        layers = [getattr(nn, item["type"])(**{k: v for k, v in item.items() if k != "type"})
                  for item in items if item["type"] in nn.__all__]  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"{name}: layers in its metadata that are none: {error}") from None
    if len(layers) != len(items) or not layers:
        raise ModelFormatError(f"{name}: layers in its metadata that this version does not know")
    return layers


def fingerprint(records: Sequence[Record]) -> bytes:
    """SHA-256 of layers and logical weights, whatever file they came from."""
    digest = hashlib.sha256(layers_to_json(layers_of(records)).encode())
    for record in records:
        for name, array in record.tensors.items():
            digest.update(f"\0{name}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array, "<f4").data)
    return digest.digest()


def as_array(value: Any) -> np.ndarray:
    """A NumPy array of an array, a torch tensor (bfloat16 too) or anything with __array__."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # exact; NumPy has no bfloat16
        return np.asarray(value.numpy())
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(f"expected an array, found {type(value).__name__}")
    return array
