# SPDX-License-Identifier: MIT
"""From layer descriptions and a state dict to the records of a model, and back.

Every check of a tensor against its layer is made here, where the message can name it; the
C core checks the records once more and trusts nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from .. import nn
from ..errors import ModelFormatError, UnsupportedError
from ..formats.container import Record
from .kinds import (
    ADD,
    AFFINE,
    BATCH_FIRST,
    BATCH_NORM,
    BIAS,
    CELL,
    CONCAT,
    EMBEDDING,
    GELU,
    GELU_TANH,
    IDENTITY,
    LAYER_NORM,
    LINEAR,
    LSTM,
    MUL,
    NUMBERED,
    OUTPUT,
    PLAIN,
    PRELU,
    RECURRENT,
    SLICE,
    directions,
)
from .recurrent import OPTION_OF, Layer, bind_recurrent, derived, layer_of
from .stateless import (
    bind_affine,
    bind_batch_norm,
    bind_embedding,
    bind_layer_norm,
    bind_linear,
    bind_prelu,
)
from .tensors import Arrays, Tensors, as_array, listed, refuse_parametrised, unwrapped
from .wiring import (
    WIRING,
    Values,
    bind_wiring,
    check_tokens,
    forms_of,
    inputs_of,
    told,
    width_of,
    wiring_of,
)

__all__ = [
    "AFFINE",
    "BIAS",
    "LINEAR",
    "OUTPUT",
    "Outputs",
    "Recurrent",
    "as_array",
    "bind",
    "fingerprint",
    "layers_from_json",
    "layers_of",
    "layers_to_json",
    "listed",
    "outputs_of",
    "recurrent_of",
    "refuse_parametrised",
    "tells_all",
    "unwrapped",
    "weights_of",
]

_BINDERS: dict[type[nn.Layer], Callable[..., Record]] = {
    nn.Linear: bind_linear, nn.Embedding: bind_embedding, nn.LayerNorm: bind_layer_norm,
    nn.BatchNorm1d: bind_batch_norm, nn.Affine: bind_affine, nn.PReLU: bind_prelu,
}  # fmt: skip


def _bind_one(
    layer: nn.Layer, t: Tensors, index: int, inputs: tuple[int, ...], values: Values
) -> Record:
    if isinstance(layer, WIRING):
        return bind_wiring(layer, inputs, values)
    width = values.width(inputs[0])
    if isinstance(layer, Layer):
        return bind_recurrent(layer, t, width, index)
    binder = _BINDERS.get(type(layer))
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
    t, records, values = Tensors(unwrapped(layers, tensors)), list[Record](), Values()
    for index, layer in enumerate(layers):
        inputs = inputs_of(layer, index)
        if values.width(0) == 0:
            check_tokens(layer, inputs, values)
        record = _bind_one(layer, t, index, inputs, values)
        record.inputs = inputs
        _follow(layer, record, values, index)
        records.append(record)
        if record.kind == OUTPUT and index + 1 < len(layers):
            raise ValueError(f"{layer!r}: an Output is the last layer")
    surplus = [name for name in t.all if name not in t.taken]
    if surplus and strict:
        raise ModelFormatError(
            f"tensors that no layer takes: {listed(surplus)}; {_taker(surplus)}, or strict=False"
        )
    input_size = values.width(0)
    if any(r.kind == EMBEDDING for r in records):
        input_size = 0
        for layer, record in zip(layers, records, strict=True):
            check_tokens(layer, record.inputs, values)
        if len(records) in values.of_input:
            raise ModelFormatError("the output would be the tokens themselves")
    if input_size is None:
        raise ModelFormatError("no layer tells the input size: give a LayerNorm normalized_shape=")
    firsts = {
        bool(r.flags & BATCH_FIRST) for r in records if r.kind in RECURRENT and not r.flags & CELL
    }
    if len(firsts) > 1:
        raise ValueError("batch_first differs between the recurrent layers")
    return records, input_size


def _taker(surplus: Sequence[str]) -> str:
    """What takes such a tensor."""
    for name in surplus:
        for pattern, takes in OPTION_OF:
            if re.search(rf"(^|\.){pattern}$", name):
                return f"{name} belongs to {takes}"
    return "name their layers"


def _follow(layer: nn.Layer, record: Record, values: Values, index: int) -> None:
    """Adds what the record gives to the values, and what it tells of its input."""
    source = record.inputs[0]
    if record.kind == EMBEDDING:
        if source not in values.of_input:
            raise ModelFormatError(
                f"{layer!r}: an embedding reads the model's input: it is the first layer, or "
                "stands behind Identity(input=0)"
            )
        record.inputs = (source := 0,)
    before, after = _widths(record)
    values.tell(source, before)
    if record.kind in (SLICE, CONCAT, OUTPUT):
        after = width_of(record, values)
    values.add(after, source)
    if record.kind == IDENTITY and source in values.of_input:
        values.of_input.add(index + 1)


def _widths(record: Record) -> tuple[int | None, int | None]:
    """Features in and out; None where the record cannot tell, and gives what it takes."""
    d = record.dims
    if record.kind in RECURRENT:
        return d[0], (d[2] or d[1]) * directions(record)
    if record.kind == LINEAR:
        return d[0], d[1]
    if record.kind == EMBEDDING:
        return 0, d[1]
    if record.kind in (LAYER_NORM, BATCH_NORM, AFFINE) and d and d[0]:
        return d[0], d[0]
    return None, None


# ---- records back to layers --------------------------------------------------------------


def layers_of(records: Sequence[Record]) -> list[nn.Layer]:
    """The descriptions that the records came from, sizes filled in where they are checked."""
    found = []
    for index, record in enumerate(records):
        try:
            found.append(_layer_of(record, index))
        except ValueError as error:
            raise ModelFormatError(f"layer {index + 1}: {error}") from None
    return found


def _layer_of(r: Record, index: int) -> nn.Layer:
    d = r.dims
    if r.kind in RECURRENT:
        return layer_of(r)
    if r.kind in (IDENTITY, ADD, MUL, CONCAT, SLICE, OUTPUT):
        return wiring_of(r, index)
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


@dataclass(frozen=True)
class Recurrent:
    """One recurrent layer's state: h (n_cells, n_out), of an LSTM also c (n_cells, n_hidden)."""

    n_cells: int
    n_out: int
    n_hidden: int  # 0 where there is no c
    cell: bool

    @property
    def parts(self) -> tuple[tuple[str, int, int], ...]:
        """Name, cells and width of each, in order."""
        h, c = ("h", self.n_cells, self.n_out), ("c", self.n_cells, self.n_hidden)
        return (h, c) if self.n_hidden else (h,)


def recurrent_of(records: Sequence[Record]) -> list[Recurrent]:
    """Sizes of the states, in order."""
    return [
        Recurrent(
            r.dims[3] * directions(r),
            r.dims[2] or r.dims[1],
            r.dims[1] if r.kind == LSTM else 0,
            bool(r.flags & CELL),
        )
        for r in records
        if r.kind in RECURRENT
    ]


@dataclass(frozen=True)
class Outputs:
    """What a model returns: the widths of its outputs, side by side in a row of the core's; which
    of them are of the last time step alone, which have no axis of features, and which of the
    last step keep that of time."""

    widths: tuple[int, ...]
    last: tuple[bool, ...]
    squeeze: tuple[bool, ...]
    keep: tuple[bool, ...]

    @property
    def apart(self) -> bool:
        """Whether they cannot stand side by side in one array."""
        unlike = len(set(zip(self.last, self.keep, strict=True))) > 1
        return len(self.widths) > 1 and (unlike or any(self.squeeze))


def outputs_of(records: Sequence[Record], n_output: int) -> Outputs:
    r = records[-1]
    if r.kind != OUTPUT:
        return Outputs((n_output,), *[(False,)] * 3)
    return Outputs(r.dims[: len(r.inputs)], *forms_of(r))


def weights_of(record: Record) -> Arrays:
    """Its tensors without those that its options make."""
    skip = derived(record) if record.kind in RECURRENT else set()
    return {name: array for name, array in record.tensors.items() if name not in skip}


def layers_to_json(layers: Sequence[nn.Layer]) -> str:
    """Canonical text: keys sorted, defaults left out, so that later options change nothing."""
    items = [{"type": type(layer).__name__} | layer.options() for layer in layers]
    return json.dumps(items, sort_keys=True, separators=(",", ":"))


def layers_from_json(text: str, name: str) -> list[nn.Layer]:
    try:
        items = json.loads(text)
        layers = [getattr(nn, item["type"])(**{k: v for k, v in item.items() if k != "type"})
                  for item in items if item["type"] in nn.__all__]  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
        raise ModelFormatError(f"{name}: layers in its metadata that are none: {e}") from None
    if len(layers) != len(items) or not layers:
        raise ModelFormatError(f"{name}: layers in its metadata that this version does not know")
    return layers


def tells_all(records: Sequence[Record]) -> bool:
    """Whether the descriptions say all; they do of what ``bind`` made."""
    return all(told(records))


def fingerprint(records: Sequence[Record]) -> bytes:
    """SHA-256 of layers and logical weights, whatever file they came from."""
    digest = hashlib.sha256(layers_to_json(layers_of(records)).encode())
    if not tells_all(records):
        digest.update(f"\0{[r.inputs for r in records]}".encode())
    for record in records:
        for name, array in record.tensors.items():
            digest.update(f"\0{name}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array, "<f4").data)
    return digest.digest()
