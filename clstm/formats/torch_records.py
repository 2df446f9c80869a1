# SPDX-License-Identifier: MIT
"""What the symbolic pickle reader makes: inert records, and the names that it knows."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the file names. Never looked up."""

    module: str
    attr: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attr}"


@dataclass(frozen=True, slots=True)
class Opaque:
    """An object of a class, or the result of a function, that a state dict does not need."""

    made_by: Name


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tensor of a kind that is not read: sparse, quantized, a subclass, float8, ..."""

    what: str


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes of one entry `data/<key>`. `code` is None for element types not read."""

    key: str
    kind: Name
    code: str | None
    n_items: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided view of a storage, in elements of type `code`; within its bounds."""

    storage: Storage
    code: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Dict:
    """A dict or OrderedDict: its items under texts. Items under other keys are dropped."""

    items: dict[str, object] = field(default_factory=dict)
    has_other_tensors: bool = False


class Inert:
    """A value of which only the presence is kept."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


VALUE = Inert("value")
LIST = Inert("list")
SET = Inert("set")

UNTYPED = Name("torch.storage", "UntypedStorage")
STORAGES: dict[Name, str | None] = {
    Name("torch", f"{name}Storage"): code
    for name, code in {
        "Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bf16", "Long": "i8",
        "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "b1",
        "ComplexDouble": None, "ComplexFloat": None, "QUInt8": None, "QInt8": None,
        "QInt32": None, "QUInt4x2": None, "QUInt2x4": None,
    }.items()
} | {UNTYPED: "u1"}  # fmt: skip

ORDERED_DICT = Name("collections", "OrderedDict")
