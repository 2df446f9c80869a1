# SPDX-License-Identifier: MIT
"""Layers of several inputs, and several outputs.

A layer reads what the layer before it gives. These read values by their numbers: 0 is the
model's input, k the output of the k-th layer of the list, counted from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._base import Layer
from ._options import fault, index, plain, put, put_whole


@dataclass(frozen=True, repr=False)
class _Several(Layer):
    inputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = plain(self.inputs)
        found = [index(n) for n in given] if isinstance(given, list | tuple) else [None]
        if None in found:
            raise fault("inputs", self.inputs, "numbers of values, say (1, 2)")
        put(self, "inputs", tuple(found))


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
        put_whole(self, "start")
        put_whole(self, "stop")


@dataclass(frozen=True, repr=False)
class First(Layer):
    """At every time step the features of the sequence's first, as ``x[:1].expand_as(x)``. It
    looks back as far as a sequence goes, so a model with it has no stream."""


@dataclass(frozen=True, repr=False)
class Output(_Several):
    """Last in a model: what it returns, 1 ... 4 values; without inputs, the layer before. ``last``
    says of each whether only its last time step is returned, as after ``y[:, -1]`` (of a ragged
    batch, the last valid one): (B, O) instead of (T, B, O); with ``keep``, as after
    ``y[:, -1:]``, (B, 1, O) or (1, B, O). ``squeeze``: of one feature, as after
    ``y.squeeze(-1)``, without its axis. A stream returns every step's, with its features."""

    last: tuple[bool, ...] = ()
    squeeze: tuple[bool, ...] = ()
    keep: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("last", "squeeze", "keep"):
            given = plain(getattr(self, name))
            flags = [plain(flag) for flag in given] if isinstance(given, list | tuple) else [None]
            if not all(isinstance(flag, bool) for flag in flags):
                raise fault(name, getattr(self, name), "True or False of each output")
            put(self, name, tuple(flags))
