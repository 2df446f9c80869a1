# SPDX-License-Identifier: MIT
"""The calls by which a pickle of torch rebuilds tensors, as records with checked bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from clstm.errors import ModelFormatError

from .arrays import ITEM_BYTES
from .source import shown
from .torch_records import UNTYPED, Dict, Name, Storage, Tensor, Unreadable

Fault: TypeAlias = Callable[[str], ModelFormatError]

_MAX_RANK = 32  # NumPy 1 allows no more
_INT64 = 1 << 63

_MODULE = "torch._utils"
_FROM_TYPE = Name("torch._tensor", "_rebuild_from_type_v2")
_READ = {
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_from_type_v2",
}
_PLAIN_TENSORS = {
    Name("torch", "Tensor"),
    Name("torch._tensor", "Tensor"),
    Name("torch.nn.parameter", "Parameter"),
    Name("torch.nn.parameter", "Buffer"),
}
_DTYPES = {
    Name("torch", name): code
    for name, code in {
        "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "bf16", "int64": "i8",
        "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "b1",
        "uint16": "u2", "uint32": "u4", "uint64": "u8",
    }.items()
}  # fmt: skip


def is_rebuild(function: Name) -> bool:
    """Whether a call of `function` makes a tensor, of whatever kind."""
    return function == _FROM_TYPE or (
        function.module == _MODULE and function.attr.startswith("_rebuild")
    )


def rebuild(function: Name, args: tuple[object, ...], fault: Fault) -> Tensor | Unreadable:
    """The tensor that `function(*args)` would make in torch."""
    match function.attr, args:
        case "_rebuild_parameter", (Tensor() | Unreadable() as tensor, bool(), Dict()):
            return tensor
        case "_rebuild_parameter_with_state", (
            Tensor() | Unreadable() as tensor, bool(), Dict(), _
        ):  # fmt: skip
            return tensor
        case "_rebuild_tensor_v2", (
            Storage() as storage, offset, shape, strides, bool(), Dict(), *more
        ):  # fmt: skip
            if storage.code is None:
                return Unreadable(f"a tensor on a {shown(str(storage.kind))}")
            return _view(storage, storage.code, (offset, shape, strides), more, fault)
        case "_rebuild_tensor_v3", (
            Storage() as storage, offset, shape, strides, bool(), Dict(), Name() as dtype, *more
        ) if storage.kind == UNTYPED:  # fmt: skip
            if dtype not in _DTYPES:
                return Unreadable(f"a tensor of dtype {shown(str(dtype))}")
            return _view(storage, _DTYPES[dtype], (offset, shape, strides), more, fault)
        case "_rebuild_from_type_v2", (Name() as inner, Name() as kind, tuple() as inner_args, _):
            # A tensor with attributes of its own: (function, type, its arguments, attributes).
            if kind not in _PLAIN_TENSORS or not is_rebuild(inner) or inner == _FROM_TYPE:
                return Unreadable(f"a tensor of class {shown(str(kind))}")
            return rebuild(inner, inner_args, fault)
        case (attr, _) if attr in _READ:
            raise fault(f"expected the arguments of {attr}")
    return Unreadable(f"a tensor made by {shown(str(function))}")


def _view(
    storage: Storage, code: str, place: tuple[object, ...], more: list[object], fault: Fault
) -> Tensor | Unreadable:
    if more:
        if len(more) > 1 or not isinstance(more[0], Dict) or not more[0].items:
            raise fault("expected a dict of flags as the last argument of a tensor")
        return Unreadable("a tensor that is conjugated or negated when it is used")
    offset, shape, strides = place
    (first,) = _sizes((offset,), fault)
    sizes, steps = _sizes(shape, fault), _sizes(strides, fault)
    if len(sizes) != len(steps) or len(sizes) > _MAX_RANK:
        raise fault(f"expected as many strides as sizes, at most {_MAX_RANK}")
    n_items = storage.n_items * ITEM_BYTES[storage.code or "u1"] // ITEM_BYTES[code]
    last = first + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    if 0 not in sizes and last >= n_items:
        raise fault(
            f"a tensor reaches element {last} of storage {shown(storage.key)}, which has {n_items}"
        )
    return Tensor(storage, code, first, sizes, steps)


def _sizes(value: object, fault: Fault) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise fault("expected a tuple of integers")
    for n in value:
        if type(n) is not int or not 0 <= n < _INT64:
            raise fault("expected integers from 0 to 2^63 - 1")
    return value
