# SPDX-License-Identifier: MIT
"""What the commands share: from arguments to models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping

import numpy as np

from .. import nn
from ..formats import Weights, read_file
from ..formats.container import Image
from ..loading import build, image_of, naming
from ..model import Model
from .layers import parse_layers
from .text import warn


def read_weights(args: argparse.Namespace) -> tuple[Weights, list[nn.Layer] | None]:
    """The file and the layers of the arguments."""
    layers = None if args.layers is None else parse_layers(args.layers)
    return read_file(args.file, key=args.key), layers


def read_image(args: argparse.Namespace) -> Image:
    """What the core is to make a model of."""
    weights, layers = read_weights(args)
    with naming(weights.name):
        return image_of(weights, layers, not args.no_strict)


def build_model(args: argparse.Namespace, image: Image) -> Model:
    """The model; a certificate that the image holds is checked, as by every load."""
    kernel, gemm = getattr(args, "kernel", None), getattr(args, "gemm", None)
    with naming(args.file):
        return build(image, kernel=kernel, gemm=gemm)


def warn_non_finite(tensors: Mapping[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        count = non_finite(array)
        if count:
            warn(f"{name} holds {count} numbers that are not finite")


def non_finite(array: np.ndarray) -> int:
    if array.dtype.kind not in "fc":
        return 0
    return int(array.size - np.count_nonzero(np.isfinite(array)))


def refuse_same(target: str, others: Iterable[str]) -> None:
    """Never write over what is read."""
    for other in others:
        if os.path.exists(target) and os.path.exists(other) and os.path.samefile(target, other):
            raise ValueError(f"{target}: the output would overwrite the input {other}")
