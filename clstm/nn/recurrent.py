# SPDX-License-Identifier: MIT
"""LSTM, GRU, RNN and their cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ModelFormatError
from ._base import Layer, Tensor
from ._options import (
    fault,
    number,
    plain,
    put,
    put_finite,
    put_flag,
    put_positive,
    single,
)

# A gate's function: its name, alpha and beta; names and defaults are ONNX's
# (https://onnx.ai/onnx/operators/onnx__LSTM.html), and HardTanh between alpha and beta.
# Files number them in this order.
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "Sigmoid": (0.0, 0.0),
    "Tanh": (0.0, 0.0),
    "Relu": (0.0, 0.0),
    "HardSigmoid": (0.2, 0.5),  # max(0, min(1, alpha x + beta))
    "HardTanh": (-1.0, 1.0),
    "Softsign": (0.0, 0.0),  # x / (1 + |x|)
    "Softplus": (0.0, 0.0),  # log(1 + exp(x))
    "Elu": (1.0, 0.0),  # x, or alpha (exp(x) - 1) below 0
    "LeakyRelu": (0.01, 0.0),  # x, or alpha x below 0
    "ThresholdedRelu": (1.0, 0.0),  # x, or 0 up to alpha
    "ScaledTanh": (1.0, 1.0),  # alpha tanh(beta x)
    "Affine": (1.0, 0.0),  # alpha x + beta
}
_ACTIVATION = {name.lower(): name for name in ACTIVATIONS}

Activation = tuple[str, float, float]


def _activations(given: Any, per_direction: int, directions: int) -> tuple[Activation, ...]:
    """Names alone, or (name, alpha, beta), in one spelling with the defaults filled in."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list | tuple):
        raise ModelFormatError(f"activations={given!r}: expected a list of (name, alpha, beta)")
    found = []
    for item in given:
        name, *numbers = item if isinstance(item, list | tuple) and item else [item]
        word = _ACTIVATION.get(str(name).replace("_", "").lower())
        given_numbers = all(n is None or number(n) is not None for n in numbers)
        if word is None or len(numbers) > 2 or not given_numbers:
            raise ModelFormatError(
                f"activations: {item!r}; expected (name, alpha, beta), a name of "
                f"{', '.join(ACTIVATIONS)}"
            )
        numbers += [None] * (2 - len(numbers))
        alpha, beta = (
            default if n is None else float(n)
            for n, default in zip(numbers, ACTIVATIONS[word], strict=True)
        )
        finite = math.isfinite(single(alpha)) and math.isfinite(single(beta))
        if not finite or (word == "HardTanh" and alpha > beta):
            order = " with alpha <= beta" if word == "HardTanh" else ""
            raise ModelFormatError(f"activations: {item!r}: expected finite float32 numbers{order}")
        found.append((word, alpha, beta))
    if len(found) not in {per_direction, directions * per_direction}:
        twice = ", or twice as many for two directions" if directions > 1 else ""
        raise ModelFormatError(f"activations: expected {per_direction}{twice}, found {len(found)}")
    return tuple(found)


def _check(layer: Layer, n_functions: int) -> None:
    """What the options of all kinds have in common."""
    put_flag(layer, *(n for n in ("batch_first", "reverse") if hasattr(layer, n)))
    put_positive(layer, "clip", "cell_clip", "proj_clip")
    given = getattr(layer, "activations", None)
    if given is not None:
        directions = 2 if hasattr(layer, "batch_first") else 1
        object.__setattr__(layer, "activations", _activations(given, n_functions, directions))


def _one_of(layer: Layer, name: str, *words: Any) -> None:
    value = plain(getattr(layer, name))
    if value not in words:
        raise fault(name, value, f"one of {', '.join(repr(word) for word in words)}")


# A class's fields stand in the order of its bases from the last to the first: prefix, what only
# layers over time have, the options of the kind, then sizes.


@dataclass(frozen=True, repr=False)
class _Recurrent(Layer):
    prefix: str = ""


@dataclass(frozen=True, repr=False)
class _Sequence(_Recurrent):
    """What a cell has not."""

    batch_first: bool = False


_SIZES = ("input_size", "hidden_size", "bias")
_MORE = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional")

# ---- LSTM ---------------------------------------------------------------------------------

_LAYER_NORM: dict[str, Any] = {"per_gate": False, "separate": False, "cell": False, "eps": 1e-5}


def _layer_norm(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or not given.keys() <= _LAYER_NORM.keys():
        raise ValueError(f"layer_norm={given!r}: expected a dict of {', '.join(_LAYER_NORM)}")
    options = _LAYER_NORM | given
    options = {name: plain(value) for name, value in options.items()}
    for name in ("per_gate", "separate"):
        if not isinstance(options[name], bool):
            raise ValueError(f"layer_norm: {name}={options[name]!r}: expected True or False")
    if options["cell"] not in (False, True, "stored"):
        raise ValueError(f'layer_norm: cell={options["cell"]!r}: expected True, False or "stored"')
    eps = number(options["eps"])
    if eps is None or not 0 <= single(eps) < math.inf:
        raise ValueError(f"layer_norm: eps={options['eps']!r}: expected a number from 0 on")
    options["eps"] = eps
    return options


@dataclass(frozen=True, repr=False)
class _LSTMOptions(_Recurrent):
    """What LSTM and LSTMCell share."""

    peephole: str | None = None
    output_peephole: str = "old"
    coupled: str | None = None
    clip: float | None = None
    cell_clip: float | None = None
    cell_clip_stored: bool = False
    proj_clip: float | None = None
    forget_bias: float = 0.0
    zoneout: tuple[float, float] | None = None
    activations: tuple[Activation, ...] | None = None
    layer_norm: dict[str, Any] | None = None
    h0: Tensor = None
    c0: Tensor = None
    input_size: int | None = None
    hidden_size: int | None = None
    bias: bool | None = None
    checked: ClassVar[tuple[str, ...]] = _SIZES

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, 3)
        _one_of(self, "peephole", None, "diagonal", "full")
        _one_of(self, "output_peephole", "old", "new")
        _one_of(self, "coupled", None, "f=1-i", "i=1-f")
        put_flag(self, "cell_clip_stored")
        if self.cell_clip_stored and self.cell_clip is None:
            raise ValueError("cell_clip_stored=True: expected a cell_clip, which it is about")
        if self.output_peephole == "new" and self.peephole != "full":
            raise ValueError('output_peephole="new" is for peephole="full"; diagonal always is')
        put_finite(self, "forget_bias")
        if self.coupled == "f=1-i" and self.forget_bias:
            raise ValueError(
                f'forget_bias={self.forget_bias!r}: with coupled="f=1-i" there is no f to add to'
            )
        if self.zoneout is not None:
            pair = plain(self.zoneout)
            items = pair if isinstance(pair, list | tuple) else []
            p = [float(n) for item in items if (n := number(item)) is not None and 0 <= n <= 1]
            if len(p) != 2 or len(items) != 2:
                raise fault("zoneout", self.zoneout, "(p_h, p_c) of 0 ... 1")
            put(self, "zoneout", (p[0], p[1]))
        if self.layer_norm is not None:
            object.__setattr__(self, "layer_norm", _layer_norm(self.layer_norm))


@dataclass(frozen=True, repr=False)
class LSTM(_LSTMOptions, _Sequence):
    """``torch.nn.LSTM`` and its relatives; layers, directions, projection and bias follow from
    the tensors.

    Tensors, as torch names them (k a layer; ``_reverse`` for the second direction):
    ``weight_ih_l{k}`` (4H, I), ``weight_hh_l{k}`` (4H, P or H), ``bias_ih_l{k}`` and
    ``bias_hh_l{k}`` (4H,), ``weight_hr_l{k}`` (P, H), ``bias_hr_l{k}`` (P,); gate rows i, f, g, o.
    Equations: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html

    peephole: "diagonal", ``weight_ch_l{k}`` (3H,), rows i, f, o: i and f see c(t-1), o sees the
    new c(t) (Gers and Schmidhuber 2000; ONNX's P in another order); "full", (4H, H), rows
    i, f, g, o: all see c(t-1) through the matrix, with output_peephole="new" o sees c(t).
    coupled: "f=1-i" or "i=1-f": one gate is derived from the other, and every tensor of gates
    has three gates' rows, i, g, o or f, g, o. clip: pre-activations are held within +-clip.
    cell_clip: the copy of c that goes through tanh is, or with cell_clip_stored the
    stored c itself (TFLite). proj_clip: the projected h is. forget_bias: added to f's
    pre-activation. zoneout (p_h, p_c): h = p_h h(t-1) + (1 - p_h) h', c likewise (Krueger et
    al. 2017). activations: (name, alpha, beta) of the gates f, of g and of h in ONNX's order
    (i, f and o share the first), per direction when twice as many; names as in ONNX, and
    HardTanh. layer_norm: dict(per_gate, separate, cell, eps): over all gates at once or gate by
    gate, of the sum of both products or of each, weights ``ln_ih_l{k}.weight`` (4H,), with
    separate ``ln_hh_l{k}.weight``, with cell ``ln_cell_l{k}.weight`` (H,), each with or without
    ``.bias``; biases are added after it. cell=True normalises the c that goes through tanh,
    cell="stored" the stored one.

    ``h0`` and ``c0`` bring a learned initial state: arrays, or names of tensors in the
    state dict, of shape (L * D, P or H) and (L * D, H), with an axis of 1 for B or without.
    reverse: one direction, against time (ONNX's direction="reverse"); no name has ``_reverse``.
    """

    reverse: bool = False
    num_layers: int | None = None
    bidirectional: bool | None = None
    proj_size: int | None = None
    checked: ClassVar[tuple[str, ...]] = (*_MORE, "proj_size")


@dataclass(frozen=True, repr=False)
class LSTMCell(_LSTMOptions):
    """``torch.nn.LSTMCell``: tensors ``weight_ih`` (4H, I), ``weight_hh`` (4H, H), ``bias_ih``,
    ``bias_hh`` (4H,), and those of :class:`LSTM`'s options without ``_l{k}``. Alone it is one
    step, as in torch; inside a longer model and in a stream it is a one-layer LSTM over time."""


# ---- GRU ----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class _GRUOptions(_Recurrent):
    linear_before_reset: bool = True
    clip: float | None = None
    activations: tuple[Activation, ...] | None = None
    h0: Tensor = None
    input_size: int | None = None
    hidden_size: int | None = None
    bias: bool | None = None
    checked: ClassVar[tuple[str, ...]] = _SIZES

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, 2)
        put_flag(self, "linear_before_reset")


@dataclass(frozen=True, repr=False)
class GRU(_GRUOptions, _Sequence):
    """``torch.nn.GRU``: tensors ``weight_ih_l{k}`` (3H, I), ``weight_hh_l{k}`` (3H, H),
    ``bias_ih_l{k}``, ``bias_hh_l{k}`` (3H,), ``_reverse`` likewise; gate rows r, z, n.

    linear_before_reset: n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), torch's and ONNX's
    linear_before_reset=1; False: n = tanh(W_in x + b_in + W_hn (r * h) + b_hn), ONNX's default
    and Keras's reset_after=False. clip, activations (of r and z, then of n) and h0: see
    :class:`LSTM`.
    Equations: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html and
    https://onnx.ai/onnx/operators/onnx__GRU.html
    """

    reverse: bool = False
    num_layers: int | None = None
    bidirectional: bool | None = None
    checked: ClassVar[tuple[str, ...]] = _MORE


@dataclass(frozen=True, repr=False)
class GRUCell(_GRUOptions):
    """``torch.nn.GRUCell``: :class:`GRU`'s tensors without ``_l{k}``; one step, or a layer over
    time inside a longer model and in a stream."""


# ---- RNN ----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class _RNNFirst(_Recurrent):
    nonlinearity: str = "tanh"


@dataclass(frozen=True, repr=False)
class _RNNSequence(_RNNFirst):
    batch_first: bool = False


@dataclass(frozen=True, repr=False)
class _RNNOptions(_RNNFirst):
    clip: float | None = None
    activations: tuple[Activation, ...] | None = None
    h0: Tensor = None
    input_size: int | None = None
    hidden_size: int | None = None
    bias: bool | None = None
    checked: ClassVar[tuple[str, ...]] = _SIZES

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, 1)
        _one_of(self, "nonlinearity", "tanh", "relu")


@dataclass(frozen=True, repr=False)
class RNN(_RNNOptions, _RNNSequence):
    """``torch.nn.RNN`` (Elman): tensors ``weight_ih_l{k}`` (H, I), ``weight_hh_l{k}`` (H, H),
    ``bias_ih_l{k}``, ``bias_hh_l{k}`` (H,), ``_reverse`` likewise; h = tanh or relu of
    W_ih x + b_ih + W_hh h + b_hh. activations overrides nonlinearity; clip and h0: see
    :class:`LSTM`.
    https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
    """

    reverse: bool = False
    num_layers: int | None = None
    bidirectional: bool | None = None
    checked: ClassVar[tuple[str, ...]] = _MORE


@dataclass(frozen=True, repr=False)
class RNNCell(_RNNOptions):
    """``torch.nn.RNNCell``: :class:`RNN`'s tensors without ``_l{k}``; one step, or a layer over
    time inside a longer model and in a stream."""
