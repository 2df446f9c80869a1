# SPDX-License-Identifier: MIT
"""A state dict, as layers take tensors out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import nn
from ..errors import ModelFormatError
from ..formats.source import shown

_WRAPPERS = ("module.", "model.", "net.")

Arrays = dict[str, np.ndarray]


class Tensors:
    """A state dict that remembers what was taken from it."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.all = tensors
        self.taken: set[str] = set()

    def find(self, name: str) -> np.ndarray | None:
        """The tensor as float32, or None if there is none of that name."""
        array = self.all.get(name)
        if array is None:
            return None
        self.taken.add(name)
        if array.dtype.kind != "f":
            raise ModelFormatError(f"{name}: expected floating point, found {array.dtype}")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, dtype="<f4").reshape(array.shape)

    def need(self, name: str) -> np.ndarray:
        array = self.find(name)
        if array is None:
            prefix, dot, leaf = name.rpartition(".")
            refuse_parametrised(self.all, f"{prefix}{dot}parametrizations.{leaf}.")
            leaves = {leaf, leaf.removesuffix("_l0"), f"{leaf}_l0"}  # a cell's have no number
            near = [n for n in self.all if n.rpartition(".")[2] in leaves]
            hint = f"; there is {', '.join(near[:4])}" if near else ""
            raise ModelFormatError(f"{name} is missing{hint}")
        return array

    def shaped(self, name: str, *shape: int | None) -> np.ndarray:
        """The tensor, of this shape; None stands for any size from 1 on."""
        array = self.need(name)
        fits = len(array.shape) == len(shape) and all(
            n == m if m is not None else n > 0 for n, m in zip(array.shape, shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if m is None else str(m) for m in shape)
            expected += "," * (len(shape) == 1)
            raise ModelFormatError(f"{name}: expected shape ({expected}), found {array.shape}")
        return array


def refuse_parametrised(names: Iterable[str], start: str = "") -> None:
    """A weight that is computed, as under weight normalisation, is stored in parts."""
    for name in names:
        if name.startswith(start):
            raise ModelFormatError(
                f"{name}: a parametrised weight; before saving, write "
                "torch.nn.utils.parametrize.remove_parametrizations(module, name)"
            )


def dotted(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith(".") else prefix + "."


def checked(layer: nn.Layer, **found: Any) -> None:
    """Sizes that the caller gave against those of the tensors."""
    for name, value in found.items():
        given = getattr(layer, name)
        if isinstance(given, tuple | list) and len(given) == 1:
            given = given[0]
        if given is not None and given != value:
            raise ModelFormatError(f"{layer!r}: {name}={given!r}, but the tensors say {value}")


def unwrapped(
    layers: Sequence[nn.Layer], tensors: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """Without wrapper prefixes that all keys share, if no layer's prefix matches as it is; and
    without `_orig_mod.`, which stands before whatever was compiled, if any layer's does not."""
    prefixes = [dotted(p) for layer in layers if (p := getattr(layer, "prefix", ""))] or [""]
    names = {name: name for name in tensors}  # new name to old
    while True:
        starts = {n[: n.rfind(".") + 1] for n in names}
        missing = [p for p in prefixes if p not in starts]
        compiled = any("_orig_mod." in n for n in names)
        word = next((w for w in _WRAPPERS if all(n.startswith(w) for n in names)), None)
        if missing and compiled:
            stripped = {n.replace("_orig_mod.", ""): old for n, old in names.items()}
        elif missing == prefixes and names and word is not None:
            stripped = {n[len(word) :]: old for n, old in names.items()}
        else:
            break
        if len(stripped) != len(names):
            return tensors
        names = stripped
    return {new: tensors[old] for new, old in names.items()}


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first few of them, for a message; quoted where that would otherwise break or grow."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    plain = (n if n.isprintable() and 0 < len(n) <= 80 else shown(n) for n in names[:most])
    return ", ".join(plain) + rest


def as_array(value: Any) -> np.ndarray:
    """A NumPy array of an array, a torch tensor (bfloat16 too) or anything with __array__."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # exact; NumPy has no bfloat16
        return np.asarray(value.numpy())
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(f"expected an array, found {type(value).__name__}")
    return array


def numbers_of(value: Any, name: str) -> np.ndarray:
    """An option's array as float32; name: the layer and the option."""
    try:
        array = as_array(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelFormatError(f"{name}: expected an array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ModelFormatError(f"{name}: expected real numbers, found {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype("<f4")
