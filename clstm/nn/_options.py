# SPDX-License-Identifier: MIT
"""Checks of options: each names the option, shows what was given, says what was expected, and
leaves plain Python values behind."""

from __future__ import annotations

import math
import numbers
import operator
import struct
from typing import Any


def plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def fault(name: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{name}={value!r}: expected {expected}")


def number(value: Any) -> int | float | None:
    """A real number as Python has it; None for anything else, for NaN and beyond a float."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        double = float(value)
    except OverflowError:
        return None
    return None if double != double else value if isinstance(value, int) else double


def single(value: float) -> float:
    """Rounded to float32, infinite where that is too small for it."""
    try:
        found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return found


def put(layer: Any, name: str, value: Any) -> None:
    object.__setattr__(layer, name, value)


def put_number(layer: Any, *names: str) -> None:
    """Any real number but NaN."""
    for name in names:
        value = number(getattr(layer, name))
        if value is None:
            raise fault(name, getattr(layer, name), "a number")
        put(layer, name, value)


def put_finite(layer: Any, name: str) -> None:
    """A number that is finite as float32."""
    value = number(getattr(layer, name))
    if value is None or not math.isfinite(single(value)):
        raise fault(name, getattr(layer, name), "a finite number, float32")
    put(layer, name, value)


def put_eps(layer: Any) -> None:
    value = number(layer.eps)
    if value is None or not 0 <= single(value) < math.inf:
        raise fault("eps", layer.eps, "a number from 0 on")
    put(layer, "eps", value)


def put_positive(layer: Any, *names: str) -> None:
    """None, or a number that is positive and finite as float32; no such field is as None."""
    for name in names:
        given = getattr(layer, name, None)
        if given is None:
            continue
        value = number(given)
        if value is None or not 0 < single(value) < math.inf:
            raise fault(name, given, "a positive number, finite as float32, or None")
        put(layer, name, value)


def put_flag(layer: Any, *names: str) -> None:
    for name in names:
        value = plain(getattr(layer, name))
        if not isinstance(value, int) or value not in (0, 1):
            raise fault(name, value, "one of False, True")
        put(layer, name, bool(value))


def index(value: Any) -> int | None:
    """A whole number; None for anything else."""
    if isinstance(plain(value), bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def put_whole(layer: Any, name: str) -> None:
    """A whole number from 0 on."""
    value = index(getattr(layer, name))
    if value is None or value < 0:
        raise fault(name, getattr(layer, name), "a whole number from 0 on")
    put(layer, name, value)
