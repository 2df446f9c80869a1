# SPDX-License-Identifier: MIT
"""Records of the layers without state."""

from __future__ import annotations

import numpy as np

from .. import nn
from ..errors import ModelFormatError
from ..formats.container import Record
from .kinds import AFFINE, BATCH_NORM, BIAS, EMBEDDING, LAYER_NORM, LINEAR, PRELU, WEIGHT
from .tensors import Tensors, checked, dotted, numbers_of


def bind_linear(layer: nn.Linear, t: Tensors, width: int | None, index: int) -> Record:
    p = dotted(layer.prefix)
    weight = t.shaped(f"{p}weight", None, width)
    tensors, bias = {f"{p}weight": weight}, f"{p}bias" in t.all
    if bias:
        tensors[f"{p}bias"] = t.shaped(f"{p}bias", weight.shape[0])
    checked(layer, in_features=weight.shape[1], out_features=weight.shape[0], bias=bias)
    return Record(LINEAR, layer.prefix, BIAS * bias, (0,), weight.shape[::-1], (), tensors)


def bind_embedding(layer: nn.Embedding, t: Tensors, width: int | None, index: int) -> Record:
    name = f"{dotted(layer.prefix)}weight"
    weight = t.shaped(name, None, None)
    checked(layer, num_embeddings=weight.shape[0], embedding_dim=weight.shape[1])
    return Record(EMBEDDING, layer.prefix, 0, (0,), weight.shape, (), {name: weight})


def bind_layer_norm(layer: nn.LayerNorm, t: Tensors, width: int | None, index: int) -> Record:
    p = dotted(layer.prefix)
    names = (
        [n for n in ("weight", "bias") if f"{p}{n}" in t.all] if layer.prefix or index == 0 else []
    )
    if layer.prefix and not names:
        t.need(f"{p}weight")
    tensors = {f"{p}{n}": t.shaped(f"{p}{n}", width) for n in names}
    n, given = next(iter(tensors.values())).shape[0] if tensors else width, layer.normalized_shape
    if n is None and given is not None:
        n = given[0] if isinstance(given, tuple | list) and len(given) == 1 else given
        if not isinstance(n, int) or not 0 < n < 2**31:
            raise ValueError(f"normalized_shape={given!r}: expected the number of features")
    checked(layer, normalized_shape=n)
    flags = WEIGHT * ("weight" in names) | BIAS * ("bias" in names)
    return Record(LAYER_NORM, layer.prefix, flags, (0,), (n or 0,), (layer.eps,), tensors)


def bind_batch_norm(layer: nn.BatchNorm1d, t: Tensors, width: int | None, index: int) -> Record:
    p = dotted(layer.prefix)
    names = ["running_mean", "running_var"]
    names += [n for n in ("weight", "bias") if f"{p}{n}" in t.all]
    tensors = {f"{p}{n}": t.shaped(f"{p}{n}", width) for n in names}
    t.taken.add(f"{p}num_batches_tracked")
    n = tensors[f"{p}running_mean"].shape[0]
    checked(layer, num_features=n)
    flags = WEIGHT * ("weight" in names) | BIAS * ("bias" in names)
    return Record(BATCH_NORM, layer.prefix, flags, (0,), (n,), (layer.eps,), tensors)


def bind_affine(layer: nn.Affine, t: Tensors, width: int | None, index: int) -> Record:
    prefix = layer.prefix or (
        f"affine{index}" if layer.scale is not None or layer.shift is not None else ""
    )
    p, tensors = dotted(prefix), {}
    for word, other, default in (("scale", "weight", 1.0), ("shift", "bias", 0.0)):
        given = getattr(layer, word)
        if given is None and prefix != layer.prefix:
            given = default
        if given is None:
            name = (
                f"{p}{other}"
                if f"{p}{word}" not in t.all and f"{p}{other}" in t.all
                else f"{p}{word}"
            )
            array = t.need(name)
        else:
            name, array = f"{p}{word}", np.atleast_1d(numbers_of(given, f"{layer!r}: {word}"))
        if array.ndim != 1 or (width is not None and array.size not in (1, width)):
            raise ModelFormatError(
                f"{name}: expected shape ({width},) or (1,), found {array.shape}"
            )
        tensors[name] = array
    n = max(a.size for a in tensors.values())
    return Record(AFFINE, prefix, 0, (0,), (n if n > 1 else width or 0,), (), tensors)


def bind_prelu(layer: nn.PReLU, t: Tensors, width: int | None, index: int) -> Record:
    name = f"{dotted(layer.prefix)}weight"
    weight = t.shaped(name, None)
    if weight.size not in (1, width):
        raise ModelFormatError(f"{name}: expected shape ({width},) or (1,), found {weight.shape}")
    checked(layer, num_parameters=weight.size)
    return Record(PRELU, layer.prefix, 0, (0,), (), (), {name: weight})
