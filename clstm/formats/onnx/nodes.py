# SPDX-License-Identifier: MIT
"""The nodes of an ONNX model: attributes as Python values, functions of the file put in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clstm.errors import ModelFormatError, UnsupportedError

from ..source import shown
from .tensors import TensorReader

MOST_NODES = 5_000  # and one more for every 4 KiB of the file: one may be 30 bytes and take a
# tenth of a millisecond, and functions, which are put in place, may call each other
MOST_DEPTH = 16
_OURS = ("", "ai.onnx")
# AttributeProto.AttributeType
_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 4, 5, 6, 7, 8


@dataclass
class FileNode:
    """A node; "" is an input or output that is not given."""

    op: str
    name: str  # for messages
    inputs: list[str]
    outputs: list[str]
    proto: Any
    references: Mapping[str, Any]  # attributes of the function call that it stands in


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ModelFormatError(f"{what}: text that is not UTF-8") from None


def attributes(node: FileNode, tensors: TensorReader) -> dict[str, Any]:
    """The attributes by name; graphs as they are, tensors as arrays."""
    found: dict[str, Any] = {}
    for attr in node.proto.attribute:
        if attr.ref_attr_name:
            if attr.ref_attr_name not in node.references:
                continue
            name, attr = attr.name, node.references[attr.ref_attr_name]
        else:
            name = attr.name
        found[name] = _attribute(attr, f"{node.name}, {name}", tensors)
    return found


def check_schema(node: FileNode, found: Mapping[str, Any], opset: int) -> None:
    """Refuses a node whose operator does not exist, or not with such inputs and attributes."""
    from onnx import defs

    try:
        schema = defs.get_schema(node.op, max_inclusive_version=opset, domain="")
    except defs.SchemaError:
        raise UnsupportedError(f"{node.name}: no operator of ONNX's operator set {opset}") from None
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        raise ModelFormatError(f"{node.name}: {len(node.inputs)} inputs, expected "
                               f"{schema.min_input} ... {schema.max_input}")  # fmt: skip
    if not schema.min_output <= len(node.outputs) <= schema.max_output:
        raise ModelFormatError(f"{node.name}: {len(node.outputs)} outputs, expected "
                               f"{schema.min_output} ... {schema.max_output}")  # fmt: skip
    for attr in node.proto.attribute:
        known = schema.attributes.get(attr.name)
        # onnx's own annotations do not know that its enumeration is one of integers.
        kind = 0 if known is None else int(known.type)  # type: ignore[call-overload]
        if attr.name in found and kind != attr.type:
            raise ModelFormatError(f"{node.name}: operator set {opset} has no attribute "
                                   f"{shown(attr.name)} of this type for it")  # fmt: skip
    for name, known in schema.attributes.items():
        if known.required and name not in found:
            raise ModelFormatError(f"{node.name}: its attribute {name} is missing")


def _attribute(attr: Any, what: str, tensors: TensorReader) -> Any:
    if attr.type == _FLOAT:
        return attr.f
    if attr.type == _INT:
        return attr.i
    if attr.type == _STRING:
        return _text(attr.s, what)
    if attr.type == _TENSOR:
        return tensors.read(attr.t, what)
    if attr.type == _GRAPH:
        return attr.g
    if attr.type in (_FLOATS, _INTS):
        numbers = attr.floats if attr.type == _FLOATS else attr.ints
        tensors.budget.take(32 * len(numbers), what)  # each an object of Python, and its place
        return list(numbers)
    if attr.type == _STRINGS:
        return [_text(s, what) for s in attr.strings]
    raise UnsupportedError(f"{what}: an attribute of type {attr.type}")


class Flattener:
    """The nodes of a graph with the file's own functions put in place."""

    def __init__(self, model: Any) -> None:
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.count, self.most = 0, MOST_NODES + model.ByteSize() // 2**12

    def nodes(
        self, protos: Any, names: Mapping[str, str] | None = None, prefix: str = "",
        references: Mapping[str, Any] | None = None, depth: int = 0,
    ) -> Iterator[FileNode]:  # fmt: skip
        """names: what a function's parameters are called outside; None: not in a function."""
        if depth > MOST_DEPTH:
            raise UnsupportedError(f"functions that call each other {depth} deep")

        def outer(name: str) -> str:
            return name if names is None or not name else names.get(name, prefix + name)

        for proto in protos:
            self.count += 1
            if self.count > self.most:
                raise UnsupportedError(f"more than {self.most} nodes in a file of this size")
            label = proto.name or (proto.output[0] if proto.output else "")
            what = f"{shown(proto.op_type)[1:-1]} {shown(label)}"
            inputs, outputs = [outer(n) for n in proto.input], [outer(n) for n in proto.output]
            function = self.functions.get((proto.domain, proto.op_type))
            if function is not None:
                yield from self._call(function, proto, inputs, outputs, prefix, references, depth)
                continue
            if proto.domain not in _OURS:
                what = f"{shown(proto.domain)[1:-1]}.{what}"
            # A graph, or the function's own attribute that is one.
            if names is not None and any(
                a.HasField("g") or a.type == _GRAPH for a in proto.attribute
            ):
                raise UnsupportedError(f"{what}: inside a function of the file")
            op = proto.op_type if proto.domain in _OURS else f"{proto.domain}.{proto.op_type}"
            yield FileNode(op, what, inputs, outputs, proto, references or {})

    def _call(
        self, function: Any, proto: Any, inputs: list[str], outputs: list[str], prefix: str,
        references: Mapping[str, Any] | None, depth: int,
    ) -> Iterator[FileNode]:  # fmt: skip
        if len(inputs) > len(function.input) or len(outputs) > len(function.output):
            raise ModelFormatError(
                f"function {shown(function.name)}: called with more inputs or outputs than it has"
            )
        inputs = inputs + [""] * (len(function.input) - len(inputs))
        names = dict(zip(function.input, inputs, strict=True))
        names |= {a: b for a, b in zip(function.output, outputs, strict=False) if b}
        given = {a.name: a for a in function.attribute_proto}
        for a in proto.attribute:
            source = (references or {}).get(a.ref_attr_name) if a.ref_attr_name else a
            if source is not None:
                given[a.name] = source
        inner = f"{prefix}{function.name}.{self.count}/"
        yield from self.nodes(function.node, names, inner, given, depth + 1)
