# SPDX-License-Identifier: MIT
"""Layers with weights, activations and recurrent layers: see `clstm.trace.ops`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import nn
from ..axes import Value, axis_number, refuse
from .export import Node
from .nodes import LOOP
from .ops import OPERATIONS, Operation, operation, scaled
from .translate import Const, Translation

# ---- layers -------------------------------------------------------------------------------


@operation("embedding")
def _embedding(t: Translation, node: Node, weight: Any, x: Any, *_: Any, **__: Any) -> Value:
    v = t.value(node, x)
    return t.graph.embedding(node.where, v, t.array(node, weight), t.prefix({"weight": weight}))


@operation("layer_norm")
def _layer_norm(
    t: Translation, node: Node, x: Any, shape: Any, weight: Any = None, bias: Any = None,
    eps: Any = 1e-5, *_: Any,
) -> Value:  # fmt: skip
    if len(shape) != 1:
        raise refuse(node.where, f"normalises over {len(shape)} axes; clstm over the features only")
    return t.graph.layer_norm(node.where, t.value(node, x), t.optional(node, weight),
                              t.optional(node, bias), t.number(node, eps),
                              t.prefix({"weight": weight, "bias": bias}))  # fmt: skip


@operation("_native_batch_norm_legit_no_training")
def _native_batch_norm(
    t: Translation, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any,
    momentum: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return _batch_norm(t, node, x, weight, bias, mean, var, False, momentum, eps), None, None


@operation("batch_norm")
def _batch_norm(
    t: Translation, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any,
    training: bool, momentum: Any, eps: Any, *_: Any,
) -> Value:  # fmt: skip
    if training or mean is None:
        raise refuse(node.where, "normalises by statistics of the batch",
                     "clstm has those of training: track_running_stats=True")  # fmt: skip
    names = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}
    mean, var = t.array(node, mean), t.array(node, var)
    weight, bias = t.optional(node, weight), t.optional(node, bias)
    return t.graph.batch_norm(node.where, t.value(node, x), 1, mean, var, weight, bias,
                              t.number(node, eps), t.prefix(names))  # fmt: skip


def _activation(name: str, kind: type[nn.Layer], *defaults: float) -> None:
    """An operation of x and numbers, in the order of the layer's options."""

    def run(t: Translation, node: Node, x: Any, *given: Any) -> Value:
        numbers = [t.number(node, g) for g in (*given, *defaults[len(given) :])]
        return t.graph.activation(node.where, kind(*numbers), t.value(node, x))

    OPERATIONS[name] = run


_activation("relu", nn.ReLU)
_activation("relu6", nn.ReLU6)
_activation("tanh", nn.Tanh)
_activation("sigmoid", nn.Sigmoid)
_activation("silu", nn.SiLU)
_activation("leaky_relu", nn.LeakyReLU, 0.01)
_activation("hardtanh", nn.Hardtanh, -1.0, 1.0)
_activation("softplus", nn.Softplus, 1.0, 20.0)


@operation("gelu")
def _gelu(t: Translation, node: Node, x: Any, approximate: str = "none") -> Value:
    return t.graph.activation(node.where, nn.GELU(approximate), t.value(node, x))


@operation("elu")
def _elu(
    t: Translation, node: Node, x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1
) -> Value:
    if t.number(node, input_scale) != 1:
        raise refuse(node.where, "input_scale other than 1")
    made = t.graph.activation(node.where, nn.ELU(t.number(node, alpha)), t.value(node, x))
    n = t.number(node, scale)
    return made if n == 1 else t.graph.affine(node.where, made, n, None)


@operation("selu")
def _selu(t: Translation, node: Node, x: Any) -> Value:
    return _elu(t, node, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@operation("clamp", "clamp_min", "clamp_max")
def _clamp(
    t: Translation, node: Node, x: Any, low: Any = None, high: Any = None, **k: Any
) -> Value:
    low, high = k.get("min", low), k.get("max", high)
    if node.target.startswith("clamp_max"):
        low, high = None, low
    v = t.value(node, x)
    if high is None and low is not None and t.number(node, low) == 0:
        return t.graph.activation(node.where, nn.ReLU(), v)
    least = -np.inf if low is None else t.number(node, low)
    most = np.inf if high is None else t.number(node, high)
    return t.graph.activation(node.where, nn.Hardtanh(least, most), v)


@operation("prelu", "_prelu_kernel")
def _prelu(t: Translation, node: Node, x: Any, weight: Any) -> Value:
    array = t.array(node, weight)
    v = t.value(node, x)
    if node.target.startswith("prelu") and array.size > 1:  # torch: the channels are axis 1
        array = array.reshape(-1, *[1] * (v.ndim - 2))
    return t.graph.prelu(node.where, v, array)


@operation("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(t: Translation, node: Node, x: Any, axis: int, *_: Any, **__: Any) -> Value:
    return t.graph.softmax(node.where, t.value(node, x), axis, log="log" in node.target)


@operation("log_sigmoid")
def _log_sigmoid(t: Translation, node: Node, x: Any) -> Value:
    flipped = t.graph.activation(node.where, nn.Softplus(), scaled(t, node, x, -1))
    return t.graph.affine(node.where, flipped, -1, None)


@operation("hardsigmoid", "hardswish")
def _hardsigmoid(t: Translation, node: Node, x: Any) -> Value:
    gate = t.graph.activation(node.where, nn.Hardtanh(0.0, 1.0), scaled(t, node, x, 1 / 6, 0.5))
    if node.target.startswith("hardsigmoid"):
        return gate
    return t.graph.mul(node.where, t.value(node, x), gate)


@operation("mish")
def _mish(t: Translation, node: Node, x: Any) -> Value:
    v = t.value(node, x)
    gate = t.graph.activation(node.where, nn.Softplus(), v)
    return t.graph.mul(node.where, v, t.graph.activation(node.where, nn.Tanh(), gate))


@operation("glu")
def _glu(t: Translation, node: Node, x: Any, axis: int = -1) -> Value:
    v = t.value(node, x)
    axis = axis_number(node.where, v, axis)
    n = v.axes[axis].size
    if n is None:
        raise refuse(node.where, f"works along {v.axes[axis]}; clstm along the features only")
    gate = t.graph.slice(node.where, v, axis, n // 2, n)
    gate = t.graph.activation(node.where, nn.Sigmoid(), gate)
    return t.graph.mul(node.where, t.graph.slice(node.where, v, axis, 0, n // 2), gate)


# ---- recurrent layers ---------------------------------------------------------------------

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _initial(t: Translation, node: Node, words: Sequence[str], given: Sequence[Any]) -> Any:
    """States of the caller, or constants that are the same for the whole batch."""
    found: dict[str, Any] = {}
    for word, argument in zip(words, given, strict=True):
        state = t.get(node, argument)
        if isinstance(state, Const):
            # (L * D, B, H), (L * D, H), (B, H) or (H,): the batch is the last but one, if any
            array = t.array(node, argument)
            batched = len(node.pair[0].args[0].meta["val"].shape) == (2 if _is_cell(node) else 3)
            if batched:
                array = _without_batch(node, array)
            found[word] = array.reshape(-1, array.shape[-1])
        elif isinstance(state, Value):
            if state.states is None or not isinstance(state.states[0].owner, str):
                raise refuse(node.where, "starts from what another recurrent layer gives; it may "
                             f"be {LOOP}")  # fmt: skip
            found[word] = state
        else:
            raise refuse(node.where, f"starts from {state!r}")
    return found


def _without_batch(node: Node, array: np.ndarray) -> np.ndarray:
    one = array[..., :1, :]
    if not np.array_equal(np.broadcast_to(one, array.shape), array):
        raise refuse(node.where, "starts from constants that differ along the batch")
    return one


def _is_cell(node: Node) -> bool:
    return "_cell." in node.target


def _sequence(kind: type[nn.Layer], words: Sequence[str], **options: Any) -> Operation:
    def run(
        t: Translation, node: Node, x: Any, state: Any, weights: Any, has_biases: bool,
        num_layers: int, dropout: float, train: bool, bidirectional: bool, batch_first: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        if train and dropout:
            raise refuse(node.where, "drops out in evaluation too")
        v = t.value(node, x)
        names = list(_NAMES) if has_biases else list(_NAMES[:2])
        directions = 1 + bidirectional
        per_cell = len(weights) // (num_layers * directions)
        if per_cell > len(names):
            names.append("weight_hr")
        arrays = [t.array(node, w) for w in weights]
        cells = [dict(zip(names, arrays[i : i + per_cell], strict=True))
                 for i in range(0, len(arrays), per_cell)]  # fmt: skip
        known = {f"{w}_l0": r for w, r in zip(names, weights[:per_cell], strict=True)}
        batch, time = (None, 0) if v.ndim == 2 else (1 - batch_first, int(batch_first))
        batch = None if batch is None else int(not batch_first)
        gates = cells[0]["weight_ih"].shape[0]
        hidden = gates // {nn.LSTM: 4, nn.GRU: 3}.get(kind, 1)
        given = state if len(words) == 2 else [state]
        made = t.graph.recurrent(
            node.where, kind, v, cells, time=time, batch=batch, hidden=hidden,
            out=cells[0]["weight_hh"].shape[1], directions=directions,
            initial=_initial(t, node, words, given), options=options, prefix=t.prefix(known),
        )  # fmt: skip
        t.last = made.y
        return (made.y, made.h, made.c)[: 1 + len(words)]

    return run


def _cell(kind: type[nn.Layer], words: Sequence[str], **options: Any) -> Operation:
    def run(t: Translation, node: Node, x: Any, state: Any, *weights: Any) -> Any:
        v = t.value(node, x)
        names = dict(zip(_NAMES, weights, strict=False))
        cell = {w: t.array(node, r) for w, r in names.items() if r is not None}
        hidden = cell["weight_hh"].shape[1]
        given = state if len(words) == 2 else [state]
        made = t.graph.recurrent(
            node.where, kind, v, [cell], time=None, batch=0 if v.ndim == 2 else None,
            hidden=hidden, out=hidden, initial=_initial(t, node, words, given),
            options=options, prefix=t.prefix(names),
        )  # fmt: skip
        t.last = made.y
        if made.c is None:
            return made.y
        return made.y, replace(made.c, axes=made.c.axes[1:])  # a cell's c has no axis of layers

    return run


OPERATIONS |= {
    "lstm.input": _sequence(nn.LSTM, ("h0", "c0")),
    "gru.input": _sequence(nn.GRU, ("h0",)),
    "rnn_tanh.input": _sequence(nn.RNN, ("h0",)),
    "rnn_relu.input": _sequence(nn.RNN, ("h0",), nonlinearity="relu"),
    "lstm_cell": _cell(nn.LSTM, ("h0", "c0")),
    "gru_cell": _cell(nn.GRU, ("h0",)),
    "rnn_tanh_cell": _cell(nn.RNN, ("h0",)),
    "rnn_relu_cell": _cell(nn.RNN, ("h0",), nonlinearity="relu"),
}

__all__ = ["OPERATIONS"]
