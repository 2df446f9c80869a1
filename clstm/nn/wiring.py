# SPDX-License-Identifier: MIT
"""Layers of several inputs, and several outputs.

A layer reads what the layer before it gives. These read values by their numbers: 0 is the
model's input, k the output of the k-th layer of the list, counted from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._base import Layer, whole


@dataclass(frozen=True, repr=False)
class _Several(Layer):
    inputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = self.inputs
        if not isinstance(given, list | tuple) or any(type(n) is not int for n in given):
            raise ValueError(f"inputs={given!r}: expected numbers of values, say (1, 2)")
        object.__setattr__(self, "inputs", tuple(given))


@dataclass(frozen=True, repr=False)
class Add(_Several):
    """``torch.add``: the sum of 2 ... 4 values of one width, from left to right."""


@dataclass(frozen=True, repr=False)
class Mul(_Several):
    """``torch.mul``: the product of 2 ... 4 values of one width, from left to right."""


@dataclass(frozen=True, repr=False)
class Concat(_Several):
    """``torch.cat`` along the features, of 2 ... 4 values."""


@dataclass(frozen=True, repr=False)
class Slice(Layer):
    """Features start ... stop - 1, as ``x[..., start:stop]``."""

    start: int = 0
    stop: int = 0

    def __post_init__(self) -> None:
        whole(self, "start")
        whole(self, "stop")


@dataclass(frozen=True, repr=False)
class Output(_Several):
    """Last in a model: what it returns, 1 ... 4 values; without inputs, the layer before. ``last``
    says of each whether only its last time step is returned, as after ``y[:, -1]`` (of a ragged
    batch, the last valid one): (B, O) instead of (T, B, O). A stream returns every step's."""

    last: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.last, list | tuple):
            raise ValueError(f"last={self.last!r}: expected True or False of each output")
        object.__setattr__(self, "last", tuple(bool(flag) for flag in self.last))
