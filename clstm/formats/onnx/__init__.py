# SPDX-License-Identifier: MIT
"""ONNX files, read with the `onnx` package (extra [onnx]) and nothing else of its kind.

The graph is followed from its inputs to its outputs and becomes layers of `clstm.nn`; what does
not is refused with the name of its node.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clstm.errors import ModelFormatError, UnsupportedError
from clstm.nn import Layer
from clstm.node import Tensors

from ..budget import Budget


def read_onnx(
    data: bytes, name: str, folder: Path | None, *, external_data: bool,
    states: Sequence[tuple[str, str]] | None, max_bytes: int,
) -> tuple[list[Layer], Tensors]:  # fmt: skip
    """Layers and tensors of an ONNX model. name: how messages call the file. states: pairs of an
    input and the output that it goes on as, where names and use do not tell.
    Raises ModelFormatError, UnsupportedError or ValueError."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        raise UnsupportedError(
            f"{name}: ONNX files need the onnx package: pip install clstm[onnx]"
        ) from None
    pairs = _checked(states)
    Budget(max_bytes).take(len(data), name)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError):
        raise ModelFormatError(f"{name}: no ONNX model, or cut short") from None
    except UnicodeDecodeError:  # of protobuf without its C part, which hands out bytes instead
        raise ModelFormatError(f"{name}: names that are not UTF-8") from None
    try:
        return _read(model, folder, external_data, pairs, max_bytes, Path(name).name)
    except (ModelFormatError, UnsupportedError) as error:
        raise type(error)(f"{name}: {error}") from None


def _checked(states: Sequence[tuple[str, str]] | None) -> list[tuple[str, str]]:
    pairs = list(states) if isinstance(states, list | tuple) else []
    if not isinstance(states, list | tuple | None) or any(
        not isinstance(p, tuple | list) or len(p) != 2 or not all(isinstance(n, str) for n in p)
        for p in pairs
    ):
        raise ValueError(f"states={states!r}: expected [(input name, output name), ...]")
    return [(a, b) for a, b in pairs]


def _read(
    model: Any, folder: Path | None, external: bool, pairs: list[tuple[str, str]],
    max_bytes: int, own: str,
) -> tuple[list[Layer], Tensors]:  # fmt: skip
    from .checks import check_model, operator_set
    from .reader import Reader
    from .roles import Analysis, inputs_of, roles_of
    from .tensors import TensorReader

    if not model.HasField("graph"):
        raise ModelFormatError("no ONNX model: it has no graph")
    opset = operator_set(model)
    check_model(model)
    inputs, analysis = inputs_of(model.graph), Analysis(model)
    attempts = roles_of(model, inputs, analysis, pairs)
    first: UnsupportedError | None = None
    for roles in attempts:
        tensors = TensorReader(Budget(max_bytes), folder, external, own)
        try:
            return Reader(model, tensors, opset, inputs, roles).read()
        except UnsupportedError as error:
            first = first or error
    assert first is not None
    raise first


__all__ = ["read_onnx"]
