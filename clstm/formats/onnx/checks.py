# SPDX-License-Identifier: MIT
"""What is checked of an ONNX model before it is read: its operator set and its names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clstm.errors import ModelFormatError, UnsupportedError

from ..source import shown
from .nodes import MOST_DEPTH

_OLDEST = 7
_OURS = ("", "ai.onnx")


def operator_set(model: Any) -> int:
    """The version of ONNX's own operators."""
    from onnx import defs

    versions = [o.version for o in model.opset_import if o.domain in _OURS]
    if not versions:
        raise ModelFormatError("no version of the operator set")
    if len(versions) > 1:
        raise ModelFormatError(f"several versions of the operator set: {versions[:8]}")
    version, newest = int(versions[0]), int(defs.onnx_opset_version())
    if not 0 < version < 2**31:
        raise ModelFormatError(f"operator set {version}, which cannot be")
    if version < _OLDEST:
        raise UnsupportedError(f"operator set {version}; from {_OLDEST} on are read")
    if version > newest:
        raise UnsupportedError(
            f"operator set {version}, and the onnx package knows them up to {newest}; install a "
            "newer one, or export with an older opset_version"
        )
    return version


def check_model(model: Any) -> None:
    """Raises ModelFormatError where a name is made twice or an output is not made."""
    for function in model.functions:
        _texts(function.node)
    _check(model.graph, (), 0)


def _texts(nodes: Any) -> None:
    """protobuf hands out text that is not UTF-8 as bytes."""
    for node in nodes:
        for text in (node.op_type, node.domain, node.name, *node.input, *node.output):
            if not isinstance(text, str):
                raise ModelFormatError(f"a node with a name that is not UTF-8: {shown(text)}")


def _once(names: Iterable[str], what: str, known: set[str]) -> None:
    for name in names:
        if name in known:
            raise ModelFormatError(f"{what} {shown(name)}: a second value of this name")
        if name:
            known.add(name)


def _check(graph: Any, outer: Sequence[set[str]], depth: int) -> None:
    """outer: the names that are known in each of the graphs around it."""
    if depth > MOST_DEPTH:
        raise UnsupportedError(f"graphs in graphs, more than {MOST_DEPTH} deep")
    if len(graph.sparse_initializer):
        name = graph.sparse_initializer[0].values.name
        raise ModelFormatError(f"tensor {shown(name)}: sparse; store it as a dense tensor")
    _texts(graph.node)
    for value in (*graph.input, *graph.initializer, *graph.output):
        if not isinstance(value.name, str):
            raise ModelFormatError(f"a name that is not UTF-8: {shown(value.name)}")
    own: set[str] = set()
    _once((t.name for t in graph.initializer), "tensor", own)
    inputs = {i.name for i in graph.input}
    known = own | inputs
    for node in graph.node:
        what = f"{shown(node.op_type)[1:-1]} {shown(node.name or ''.join(node.output[:1]))}"
        for name in node.input:
            if name and not any(name in names for names in (known, *outer)):
                raise ModelFormatError(f"{what}: reads {shown(name)}, which no node before it "
                                       "makes: a cycle, or nodes out of order")  # fmt: skip
        _once(node.output, f"{what}, output", known)
        for attr in node.attribute:
            if attr.HasField("g"):
                _check(attr.g, (known, *outer), depth + 1)
    if not all(o.name for o in graph.output):
        raise ModelFormatError("an output without a name")
    declared: set[str] = set()
    _once((o.name for o in graph.output), "output", declared)
    for name in declared.difference(known, *outer):
        raise ModelFormatError(f"output {shown(name)}: no node makes it")
