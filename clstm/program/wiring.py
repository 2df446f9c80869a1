# SPDX-License-Identifier: MIT
"""Which value a layer reads, and how wide it is."""

from __future__ import annotations

from collections.abc import Sequence

from .. import nn
from ..errors import ModelFormatError
from ..formats.container import MOST_INPUTS, Record
from .kinds import ADD, CONCAT, EMBEDDING, IDENTITY, MUL, OUTPUT, SEVERAL, SLICE

FORMS = ("last", "squeeze", "keep")  # of an output, in the order of its record
WIRING = (nn.Identity, nn.Add, nn.Mul, nn.Concat, nn.Slice, nn.Output)


class Values:
    """Widths of the values, as far as they are known: an activation, say, passes on the width of
    a value that only a later reader tells. Values of one width share a number."""

    def __init__(self) -> None:
        self._same, self._known = [0], dict[int, int]()
        self.of_input = {0}  # values that are the model's input itself

    def width(self, value: int) -> int | None:
        return self._known.get(self._same[value])

    def tell(self, value: int, width: int | None) -> None:
        if width is not None:
            self._known.setdefault(self._same[value], width)

    def join(self, a: int, b: int) -> None:
        """Two values that must have one width."""
        keep, drop = self._same[a], self._same[b]
        if keep != drop:
            width = self._known.pop(drop, None)
            self._same = [keep if n == drop else n for n in self._same]
            self.tell(a, width)

    def add(self, width: int | None, like: int) -> None:
        """The next value: of this width, or of that of value ``like``."""
        self._same.append(len(self._same) if width is not None else self._same[like])
        self.tell(len(self._same) - 1, width)


def inputs_of(layer: nn.Layer, index: int) -> tuple[int, ...]:
    """The numbers of the values that a layer reads, checked."""
    inputs: tuple[int, ...] = (index,)
    least = 1
    if isinstance(layer, nn.Identity) and layer.input is not None:
        inputs = (layer.input,)
    elif isinstance(layer, nn.Add | nn.Mul | nn.Concat):
        inputs, least = layer.inputs, 2
    elif isinstance(layer, nn.Output) and layer.inputs:
        inputs = layer.inputs
    if not least <= len(inputs) <= MOST_INPUTS:
        raise ValueError(f"{layer!r}: expected {least} ... {MOST_INPUTS} inputs")
    for value in inputs:
        if not 0 <= value <= index:
            raise ValueError(
                f"{layer!r}: layer {index + 1} reads values before it, 0 ... {index}, not {value}"
            )
    return inputs


def bind_wiring(layer: nn.Layer, inputs: tuple[int, ...], values: Values) -> Record:
    if isinstance(layer, nn.Identity):
        return Record(IDENTITY)
    if isinstance(layer, nn.Slice):
        return _slice(layer, values.width(inputs[0]))
    if isinstance(layer, nn.Output):
        return _output(layer, inputs, values)
    kind = next(kind for kind, cls in SEVERAL.items() if type(layer) is cls)
    if kind == CONCAT:
        _all_known(layer, inputs, values)
        return Record(kind)
    widths = {width for n in inputs if (width := values.width(n)) is not None}
    if len(widths) > 1:
        found = ", ".join(f"value {n} has {values.width(n)} features" for n in inputs)
        raise ModelFormatError(f"{layer!r}: expected values of one width; {found}")
    for value in inputs[1:]:
        values.join(inputs[0], value)
    return Record(kind)


def _slice(layer: nn.Slice, width: int | None) -> Record:
    if width is None:
        raise ModelFormatError(f"{layer!r}: the width of its input is not known")
    if not 0 <= layer.start < layer.stop <= width:
        raise ModelFormatError(
            f"{layer!r}: expected 0 <= start < stop <= {width}, the width of its input"
        )
    return Record(SLICE, dims=(layer.start, layer.stop))


def _output(layer: nn.Output, inputs: tuple[int, ...], values: Values) -> Record:
    for name in FORMS:
        if getattr(layer, name) and len(getattr(layer, name)) != len(inputs):
            raise ValueError(f"{layer!r}: {name} says of each of the {len(inputs)} outputs")
    widths = _all_known(layer, inputs, values)
    last, squeeze, keep = ((*getattr(layer, name), *[False] * len(inputs)) for name in FORMS)
    for i, width in enumerate(widths):
        if squeeze[i] and width != 1:
            raise ModelFormatError(f"{layer!r}: squeeze of an output of {width} features; "
                                   "expected 1")  # fmt: skip
        if keep[i] and not last[i]:
            raise ValueError(f"{layer!r}: keep is for an output of the last step alone")
    widths += [0] * (MOST_INPUTS - len(widths))
    bits = (sum(1 << i for i, flag in enumerate(flags) if flag) for flags in (last, squeeze, keep))
    return Record(OUTPUT, dims=(*widths, *bits))


def _all_known(layer: nn.Layer, inputs: Sequence[int], values: Values) -> list[int]:
    found = []
    for value in inputs:
        width = values.width(value)
        if width is None:
            raise ModelFormatError(f"{layer!r}: the width of value {value} is not known")
        found.append(width)
    return found


def width_of(record: Record, values: Values) -> int | None:
    """Features of what a wiring record gives; None for those of its first input."""
    if record.kind == SLICE:
        return record.dims[1] - record.dims[0]
    if record.kind in (CONCAT, OUTPUT):
        return sum(values.width(n) or 0 for n in record.inputs)
    return None


def check_tokens(layer: nn.Layer, inputs: Sequence[int], values: Values) -> None:
    """Tokens are for embeddings alone."""
    tokens = values.of_input.intersection(inputs)
    if tokens and not isinstance(layer, nn.Embedding | nn.Identity):
        raise ModelFormatError(
            f"{layer!r} reads the model's input, which is tokens: an embedding takes it"
        )


# ---- records back to layers ---------------------------------------------------------------


def wiring_of(r: Record, index: int) -> nn.Layer:
    if r.kind == IDENTITY:
        return nn.Identity(None if r.inputs == (index,) else r.inputs[0])
    if r.kind == SLICE:
        return nn.Slice(r.dims[0], r.dims[1])
    if r.kind == OUTPUT:
        forms = [flags if any(flags) else () for flags in forms_of(r)]
        return nn.Output(() if r.inputs == (index,) else r.inputs, *forms)
    return SEVERAL[r.kind](r.inputs)


def forms_of(r: Record) -> list[tuple[bool, ...]]:
    """last, squeeze and keep of each output."""
    return [tuple(bool(bits >> i & 1) for i in range(len(r.inputs))) for bits in r.dims[4:7]]


def told(records: Sequence[Record]) -> list[bool]:
    """Of each record, whether its description says which values it reads. Files made otherwise
    may hold a layer that reads back without an Identity before it."""
    of_input, found = {0}, []
    for index, r in enumerate(records):
        if r.kind == IDENTITY and r.inputs[0] in of_input:
            of_input.add(index + 1)
        plain = r.inputs == (index,) or (r.kind == EMBEDDING and index in of_input)
        found.append(plain or r.kind in (IDENTITY, ADD, MUL, CONCAT, OUTPUT))
    return found
