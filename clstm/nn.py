# SPDX-License-Identifier: MIT
"""Layer descriptions under the names of ``torch.nn``.

A description says which tensors of a state dict make a layer (by their prefix) and what
tensors cannot tell. Sizes are read from the tensors; sizes given as keywords are checked
against them, never needed. A list of descriptions, in order, is a model:

    clstm.load("w.pt", layers=[nn.Embedding("emb"), nn.LSTM("lstm"), nn.Linear("fc")])
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

__all__ = [
    "ELU",
    "GELU",
    "LSTM",
    "Affine",
    "BatchNorm1d",
    "Dropout",
    "Embedding",
    "Hardtanh",
    "Identity",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]

Tensor = Any  # a name in the state dict, or the array itself
Number = Any  # a float, or an array of one value a feature


_Plain = int | float | str


def _differs(value: Any, default: Any) -> bool:
    """For arrays too, which have no single truth."""
    return value is not default and not (isinstance(value, _Plain) and value == default)


@dataclass(frozen=True)
class Layer:
    """Base of all descriptions."""

    # What takes part in equality, files and fingerprints; checked sizes do not.
    checked: ClassVar[tuple[str, ...]] = ()

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
            f"{name}={value!r}" if isinstance(value, _Plain) else f"{name}={type(value).__name__}"
            for name, value in options.items()
        ]
        return f"{type(self).__name__}({', '.join(prefix + words)})"


@dataclass(frozen=True, repr=False)
class LSTM(Layer):
    """``torch.nn.LSTM``: layers, directions, projection and bias follow from the tensors.

    Tensors, as torch names them (k a layer; ``_reverse`` for the second direction):
    ``weight_ih_l{k}`` (4H, I), ``weight_hh_l{k}`` (4H, P or H), ``bias_ih_l{k}`` and
    ``bias_hh_l{k}`` (4H,), ``weight_hr_l{k}`` (P, H); gate rows i, f, g, o.

    ``h0`` and ``c0`` bring a learned initial state: arrays, or names of tensors in the
    state dict, of shape (L * D, P or H) and (L * D, H), with an axis of 1 for B or without.
    Equations: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
    """

    prefix: str = ""
    batch_first: bool = False
    h0: Tensor = None
    c0: Tensor = None
    input_size: int | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    bias: bool | None = None
    bidirectional: bool | None = None
    proj_size: int | None = None
    checked: ClassVar[tuple[str, ...]] = (
        "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size",
    )  # fmt: skip


@dataclass(frozen=True, repr=False)
class LSTMCell(Layer):
    """``torch.nn.LSTMCell``: tensors ``weight_ih`` (4H, I), ``weight_hh`` (4H, H), ``bias_ih``,
    ``bias_hh`` (4H,). Alone it is one step, as in torch; inside a longer model and in a
    stream it is a one-layer LSTM over time."""

    prefix: str = ""
    h0: Tensor = None
    c0: Tensor = None
    input_size: int | None = None
    hidden_size: int | None = None
    bias: bool | None = None
    checked: ClassVar[tuple[str, ...]] = ("input_size", "hidden_size", "bias")


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


@dataclass(frozen=True, repr=False)
class BatchNorm1d(Layer):
    """``torch.nn.BatchNorm1d`` in evaluation, over the features: tensors ``running_mean``,
    ``running_var`` (N,) and perhaps ``weight``, ``bias``."""

    prefix: str = ""
    eps: float = 1e-5
    num_features: int | None = None
    checked: ClassVar[tuple[str, ...]] = ("num_features",)


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


@dataclass(frozen=True, repr=False)
class Identity(Layer):
    """``torch.nn.Identity``."""


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


@dataclass(frozen=True, repr=False)
class Tanh(Layer):
    """``torch.nn.Tanh``."""


@dataclass(frozen=True, repr=False)
class Hardtanh(Layer):
    """``torch.nn.Hardtanh``: x between min_val and max_val."""

    min_val: float = -1.0
    max_val: float = 1.0


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
