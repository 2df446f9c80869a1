# SPDX-License-Identifier: MIT
"""A constant of an ONNX graph, and a call of an operation on constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clstm.axes import AnySize, Size
from clstm.errors import ModelFormatError, UnsupportedError

from ..budget import Budget

Array = NDArray[Any]

# What stands behind most tensors of an operator that do not fit each other.
MALFORMED = (
    "if it is an LSTM with proj_size, which ONNX has not, PyTorch's exporter has written it "
    "wrongly; load its state dict, or use clstm.from_torch"
)


MOST_SIZES = 64  # axes of a shape, and sizes known only when the model runs that a constant has


@dataclass(frozen=True, eq=False)
class Const:
    """An array, of objects if a Size is among its elements; `repeated`: axes that it has with
    size 1 and stands for with that Size."""

    array: Array
    repeated: dict[int, Size] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[AnySize, ...]:
        return tuple(self.repeated.get(i, n) for i, n in enumerate(self.array.shape))

    def sizes(self, what: str) -> list[AnySize]:
        """As the sizes of a shape."""
        if self.repeated or self.array.ndim > 1 or self.array.dtype.kind not in "iuO":
            raise ModelFormatError(f"{what}: expected a list of integers")
        if self.array.size > MOST_SIZES:
            raise ModelFormatError(f"{what}: a shape of {self.array.size} axes")
        return [n if isinstance(n, Size) else int(n) for n in self.array.reshape(-1)]

    def ints(self, what: str) -> list[int]:
        found = self.sizes(what)
        for n in found:
            if isinstance(n, Size):
                raise UnsupportedError(f"{what}: depends on a size known only when the model runs")
        return [n for n in found if isinstance(n, int)]

    def floats(self, what: str) -> Array:
        """As weights: float32."""
        if self.repeated:
            raise UnsupportedError(f"{what}: of a constant whose size depends on the input")
        if self.array.dtype.kind != "f":
            raise UnsupportedError(f"{what}: expected floating point, found {self.array.dtype}")
        if self.array.dtype != np.float32:  # all operands have the input's type
            raise ModelFormatError(f"{what}: a constant of {self.array.dtype} beside an input of "
                                   "float32; export the model as float32")  # fmt: skip
        return self.array


def check_dropout(what: str, training: Const | None) -> None:
    """Refuses dropout that is told to train."""
    if training is not None and (training.array.size != 1 or training.array.reshape(()).item()):
        raise UnsupportedError(f"{what}: dropout in training; export in evaluation: model.eval()")


def squeezed(what: str, axes: list[int] | None) -> list[int] | None:
    """The axes that a Squeeze takes away; None: it names none, so all of size 1."""
    if axes == []:
        raise UnsupportedError(
            f"{what}: an empty list of axes, by which runtimes mean all or none; name the axes"
        )
    return axes


def shape_const(shape: Sequence[AnySize]) -> Const:
    if all(isinstance(n, int) for n in shape):
        return Const(np.array(list(shape), np.int64))
    array = np.empty(len(shape), object)
    array[:] = list(shape)
    return Const(array)


@dataclass
class Call:
    budget: Budget
    op: str
    what: str
    inputs: Sequence[Const | None]
    attrs: Mapping[str, Any]
    n_outputs: int

    def get(self, i: int) -> Const:
        found = self.maybe(i)
        if found is None:
            raise ModelFormatError(f"{self.what}: input {i} is missing")
        return found

    def maybe(self, i: int) -> Const | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def ints(self, i: int, attr: str) -> list[int] | None:
        """A list that is an input, or in older operator sets an attribute."""
        const = self.maybe(i)
        if const is not None:
            return const.ints(f"{self.what}, {attr}")
        given = self.attrs.get(attr)
        return None if given is None else [int(n) for n in given]

    def plain(self, i: int = 0) -> Array:
        """The array where no axis may be repeated."""
        const = self.get(i)
        if const.repeated:
            raise UnsupportedError(f"{self.what}: of a constant whose size depends on the input")
        return const.array

    def take(self, n_elements: int, *dtypes: np.dtype[Any]) -> None:
        """Counts what is about to be made, in each of these types once, or worked through: the
        limit of memory bounds the time, too. Sizes are computed one by one."""
        if object in dtypes and n_elements > MOST_SIZES:
            raise UnsupportedError(
                f"{self.what}: {n_elements} sizes known only when the model runs, at most "
                f"{MOST_SIZES} are followed"
            )
        self.budget.take(n_elements * sum(d.itemsize for d in set(dtypes)), self.what)

    def axis(self, axis: int, ndim: int) -> int:
        if not -ndim <= axis < ndim:
            raise ModelFormatError(f"{self.what}: axis {axis} of {ndim}")
        return axis % ndim
