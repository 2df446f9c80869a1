# SPDX-License-Identifier: MIT
"""What every description has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

Tensor = Any  # a name in the state dict, or the array itself
Number = Any  # a float, or an array of one value a feature

_Plain = int | float | str
_SHOWN = (int, float, str, tuple, dict)


def _differs(value: Any, default: Any) -> bool:
    """For arrays too, which have no single truth."""
    return value is not default and not (isinstance(value, _Plain) and value == default)


@dataclass(frozen=True)
class Layer:
    """Base of all descriptions."""

    # What takes part in equality, files and fingerprints; checked sizes do not.
    checked: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        prefix = getattr(self, "prefix", "")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix={prefix!r}: expected text, the start of its tensors' names")

    def options(self) -> dict[str, Any]:
        """Every option that differs from its default, by name; sizes that only check left out."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in self.checked and _differs(getattr(self, f.name), f.default)
        }

    def __repr__(self) -> str:
        options = self.options()
        prefix = [repr(options.pop("prefix"))] if options.get("prefix") else []
        words = [
            f"{name}={value!r}" if isinstance(value, _SHOWN) else f"{name}={type(value).__name__}"
            for name, value in options.items()
        ]
        return f"{type(self).__name__}({', '.join(prefix + words)})"
