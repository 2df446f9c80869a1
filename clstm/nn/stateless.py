# SPDX-License-Identifier: MIT
"""Layers without state, under the names of ``torch.nn``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._base import Layer, Number
from ._options import fault, number, put_eps, put_number, put_whole


@dataclass(frozen=True, repr=False)
class Linear(Layer):
    """``torch.nn.Linear``: tensors ``weight`` (O, I) and perhaps ``bias`` (O,)."""

    prefix: str = ""
    in_features: int | None = None
    out_features: int | None = None
    bias: bool | None = None
    checked: ClassVar[tuple[str, ...]] = ("in_features", "out_features", "bias")


@dataclass(frozen=True, repr=False)
class Embedding(Layer):
    """``torch.nn.Embedding``: tensor ``weight`` (V, E). First in a model, which then takes
    integers 0 ... V - 1."""

    prefix: str = ""
    num_embeddings: int | None = None
    embedding_dim: int | None = None
    checked: ClassVar[tuple[str, ...]] = ("num_embeddings", "embedding_dim")


@dataclass(frozen=True, repr=False)
class LayerNorm(Layer):
    """``torch.nn.LayerNorm`` over the features: tensors ``weight`` and ``bias`` (N,), or none."""

    prefix: str = ""
    eps: float = 1e-5
    normalized_shape: int | tuple[int] | None = None
    checked: ClassVar[tuple[str, ...]] = ("normalized_shape",)

    def __post_init__(self) -> None:
        super().__post_init__()
        put_eps(self)


@dataclass(frozen=True, repr=False)
class BatchNorm1d(Layer):
    """``torch.nn.BatchNorm1d`` in evaluation, over the features: tensors ``running_mean``,
    ``running_var`` (N,) and perhaps ``weight``, ``bias``."""

    prefix: str = ""
    eps: float = 1e-5
    num_features: int | None = None
    checked: ClassVar[tuple[str, ...]] = ("num_features",)

    def __post_init__(self) -> None:
        super().__post_init__()
        put_eps(self)


@dataclass(frozen=True, repr=False)
class Affine(Layer):
    """A scale and a shift of the features, x * scale + shift: tensors ``scale`` and ``shift``
    (or ``weight`` and ``bias``) of shape (N,) or (1,), or numbers given here. Right behind a
    ``Linear`` it is folded into its weights."""

    prefix: str = ""
    scale: Number = None
    shift: Number = None


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """``torch.nn.Dropout``: nothing in evaluation."""

    p: float = 0.5

    def __post_init__(self) -> None:
        p = number(self.p)
        if p is None or not 0 <= p <= 1:
            raise fault("p", self.p, "a number of 0 ... 1")
        put_number(self, "p")


@dataclass(frozen=True, repr=False)
class Identity(Layer):
    """``torch.nn.Identity``, or a step back: ``input`` is the number of the value that it passes
    on, 0 for the model's input, k for the output of the k-th layer of the list (from 1 on); None
    for the layer before. So the layer behind it reads that value."""

    input: int | None = None

    def __post_init__(self) -> None:
        if self.input is not None:
            put_whole(self, "input")


@dataclass(frozen=True, repr=False)
class ReLU(Layer):
    """``torch.nn.ReLU``: max(x, 0)."""


@dataclass(frozen=True, repr=False)
class ReLU6(Layer):
    """``torch.nn.ReLU6``: min(max(x, 0), 6)."""


@dataclass(frozen=True, repr=False)
class LeakyReLU(Layer):
    """``torch.nn.LeakyReLU``: x, or negative_slope * x below 0."""

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        put_number(self, "negative_slope")


@dataclass(frozen=True, repr=False)
class PReLU(Layer):
    """``torch.nn.PReLU``: x, or weight * x below 0; tensor ``weight`` (1,) or (N,)."""

    prefix: str = ""
    num_parameters: int | None = None
    checked: ClassVar[tuple[str, ...]] = ("num_parameters",)


@dataclass(frozen=True, repr=False)
class ELU(Layer):
    """``torch.nn.ELU``: x, or alpha * (exp(x) - 1) below 0."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        put_number(self, "alpha")


@dataclass(frozen=True, repr=False)
class Tanh(Layer):
    """``torch.nn.Tanh``."""


@dataclass(frozen=True, repr=False)
class Hardtanh(Layer):
    """``torch.nn.Hardtanh``: x between min_val and max_val."""

    min_val: float = -1.0
    max_val: float = 1.0

    def __post_init__(self) -> None:
        put_number(self, "min_val", "max_val")


@dataclass(frozen=True, repr=False)
class Sigmoid(Layer):
    """``torch.nn.Sigmoid``."""


@dataclass(frozen=True, repr=False)
class GELU(Layer):
    """``torch.nn.GELU``: x * Phi(x), approximate="tanh" for its tanh form."""

    approximate: str = "none"

    def __post_init__(self) -> None:
        if self.approximate not in ("none", "tanh"):
            raise ValueError(f'approximate={self.approximate!r}: expected "none" or "tanh"')


@dataclass(frozen=True, repr=False)
class SiLU(Layer):
    """``torch.nn.SiLU``: x * sigmoid(x)."""


@dataclass(frozen=True, repr=False)
class Softplus(Layer):
    """``torch.nn.Softplus``: log(1 + exp(beta * x)) / beta, x where beta * x > threshold."""

    beta: float = 1.0
    threshold: float = 20.0

    def __post_init__(self) -> None:
        put_number(self, "beta", "threshold")


@dataclass(frozen=True, repr=False)
class Softmax(Layer):
    """``torch.nn.Softmax`` over the features (dim=-1)."""

    dim: int = -1

    def __post_init__(self) -> None:
        _last_axis(self.dim)


@dataclass(frozen=True, repr=False)
class LogSoftmax(Layer):
    """``torch.nn.LogSoftmax`` over the features (dim=-1)."""

    dim: int = -1

    def __post_init__(self) -> None:
        _last_axis(self.dim)


def _last_axis(dim: int) -> None:
    if dim != -1:
        raise ValueError(f"dim={dim}: only the features, dim=-1")
