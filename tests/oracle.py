# SPDX-License-Identifier: MIT
"""What a model must compute, in float64 and plain NumPy: the reference of every test.

It is written from the equations in PyTorch's documentation
(https://docs.pytorch.org/docs/2.13/generated/torch.nn.LSTM.html and its neighbours; each function
names its page) and shares no code, no layout and no formula with the kernels. Speed is no concern.

Tensors are a mapping from torch's names to arrays. Layers are objects known by their class name,
`.prefix` and options, so the list of `clstm.nn` layers that makes a model drives the oracle too:

    forward(layers, tensors, x, state=None, lengths=None)   the axis orders and results of `m(x)`
    layers_core(...), lstm(...)                             the same, time-major: (T, B, features)

How far float32 may stray from these numbers is the business of `bounds.py`.
"""

import math
from typing import NamedTuple

import numpy as np

RECURRENT = ("LSTM", "LSTMCell")


class Direction(NamedTuple):
    """The weights of one layer and direction, as stored; absent biases and projection are None."""

    w_ih: np.ndarray  # (4H, I), rows in the order i, f, g, o
    w_hh: np.ndarray  # (4H, P), P = H without a projection
    b_ih: np.ndarray | None  # (4H,)
    b_hh: np.ndarray | None  # (4H,)
    w_hr: np.ndarray | None  # (P, H)

    @property
    def hidden_size(self):
        return self.w_ih.shape[0] // 4

    @property
    def output_size(self):
        return self.w_hh.shape[1]


def f64(a):
    return np.asarray(a, dtype=np.float64)


# ---- elementwise functions ---------------------------------------------------------------------
# Written so that no exp overflows: float64 must be right over the whole range of float32, and a
# test run turns a RuntimeWarning into an error.


def sigmoid(x):
    """torch.nn.Sigmoid: 1 / (1 + exp(-x))."""
    x = f64(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def softplus(x, beta=1.0, threshold=20.0):
    """torch.nn.Softplus: log(1 + exp(beta x)) / beta, but x itself where beta x > threshold."""
    x = f64(x)
    return np.where(x * beta > threshold, x, np.logaddexp(0.0, x * beta) / beta)


def elu(x, alpha=1.0):
    """torch.nn.ELU: x if x > 0, else alpha (exp(x) - 1)."""
    x = f64(x)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def gelu(x, approximate="none"):
    """torch.nn.GELU: x Phi(x), or 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) for "tanh".

    Phi(x) = (1 + erf(x / sqrt 2)) / 2 is written as erfc(-x / sqrt 2) / 2, and 1 + tanh(z) as
    2 sigmoid(2z): the same numbers, without the cancellation at negative x.
    """
    x = f64(x)
    if approximate == "tanh":
        return x * sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))
    if approximate != "none":
        raise ValueError(f"approximate={approximate!r}")
    return 0.5 * x * _erfc(-x / math.sqrt(2.0))


def prelu(x, weight):
    """torch.nn.PReLU and LeakyReLU: x if x >= 0, else a x; one a, or one per feature."""
    x = f64(x)
    return np.where(x >= 0, x, f64(weight) * x)


def log_softmax(x):
    """torch.nn.LogSoftmax(-1): log(exp(x_i) / sum_j exp(x_j))."""
    x = f64(x)
    z = x - x.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def softmax(x):
    """torch.nn.Softmax(-1): exp(x_i) / sum_j exp(x_j)."""
    x = f64(x)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# ---- layers with tensors -----------------------------------------------------------------------


def named(tensors, prefix, name):
    """The tensor `prefix.name` in float64, or None where there is none."""
    value = tensors.get(f"{prefix}.{name}" if prefix else name)
    return None if value is None else f64(value)


def required(tensors, prefix, name):
    value = named(tensors, prefix, name)
    if value is None:
        raise KeyError(f"{prefix}.{name}" if prefix else name)
    return value


def linear(x, weight, bias=None):
    """torch.nn.Linear: y = x A^T + b."""
    y = f64(x) @ f64(weight).T
    return y if bias is None else y + f64(bias)


def scaled(x, weight, bias):
    """x * weight + bias, either of which may be absent."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    """torch.nn.LayerNorm: (x - E[x]) / sqrt(Var[x] + eps) * gamma + beta, over the features, the
    variance being the biased one ("equivalent to torch.var(input, unbiased=False)")."""
    x = f64(x)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return scaled(centred / np.sqrt(variance + eps), weight, bias)


def batch_norm(x, mean, variance, weight=None, bias=None, eps=1e-5):
    """torch.nn.BatchNorm1d in evaluation: the same formula with the running statistics, feature
    by feature ("running estimates ... are then used for normalization during evaluation")."""
    return scaled((f64(x) - mean) / np.sqrt(f64(variance) + eps), weight, bias)


def _embedding(o, t, x):
    """torch.nn.Embedding: row `token` of the table."""
    return required(t, o.prefix, "weight")[np.asarray(x)]


def _batch_norm(o, t, x):
    mean, variance = (required(t, o.prefix, f"running_{s}") for s in ("mean", "var"))
    weight, bias = (named(t, o.prefix, s) for s in ("weight", "bias"))
    return batch_norm(x, mean, variance, weight, bias, _option(o, "eps", 1e-5))


def _option(layer, name, default):
    return getattr(layer, name, default)


# One entry per layer without state: f(layer, tensors, x) -> y, features on the last axis.
STATELESS = {
    "Linear": lambda o, t, x: linear(
        x, required(t, o.prefix, "weight"), named(t, o.prefix, "bias")
    ),
    "Embedding": _embedding,
    "LayerNorm": lambda o, t, x: layer_norm(
        x, named(t, o.prefix, "weight"), named(t, o.prefix, "bias"), _option(o, "eps", 1e-5)
    ),
    "BatchNorm1d": _batch_norm,
    # clstm's own: y = x * scale + shift
    "Affine": lambda o, t, x: scaled(
        f64(x), named(t, o.prefix, "scale"), named(t, o.prefix, "shift")
    ),
    # torch.nn.Dropout: "during evaluation the module simply computes an identity function"
    "Dropout": lambda o, t, x: f64(x),
    "Identity": lambda o, t, x: f64(x),
    "ReLU": lambda o, t, x: np.maximum(f64(x), 0.0),
    # torch.nn.ReLU6: min(max(0, x), 6)
    "ReLU6": lambda o, t, x: np.clip(f64(x), 0.0, 6.0),
    "LeakyReLU": lambda o, t, x: prelu(x, _option(o, "negative_slope", 0.01)),
    "PReLU": lambda o, t, x: prelu(x, required(t, o.prefix, "weight")),
    "ELU": lambda o, t, x: elu(x, _option(o, "alpha", 1.0)),
    "Tanh": lambda o, t, x: np.tanh(f64(x)),
    "Hardtanh": lambda o, t, x: np.clip(
        f64(x), _option(o, "min_val", -1.0), _option(o, "max_val", 1.0)
    ),
    "Sigmoid": lambda o, t, x: sigmoid(x),
    "GELU": lambda o, t, x: gelu(x, _option(o, "approximate", "none")),
    # torch.nn.SiLU: x sigmoid(x)
    "SiLU": lambda o, t, x: f64(x) * sigmoid(x),
    "Softplus": lambda o, t, x: softplus(x, _option(o, "beta", 1.0), _option(o, "threshold", 20.0)),
    "Softmax": lambda o, t, x: softmax(x),
    "LogSoftmax": lambda o, t, x: log_softmax(x),
}


# ---- LSTM --------------------------------------------------------------------------------------


def directions(tensors, prefix=""):
    """The weights by layer and direction, `[[forward, reverse], ...]`, dtypes as stored.

    Names are torch.nn.LSTM's (`weight_ih_l{k}{_reverse}`, ...) or, without `_l{k}`,
    torch.nn.LSTMCell's; layers, directions, biases and projection follow from which are there.
    """
    dot = f"{prefix}." if prefix else ""

    def one(suffix):
        get = {
            name: tensors.get(f"{dot}{name}{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        }
        if get["weight_ih"] is None:
            return None
        return Direction(*(None if a is None else np.asarray(a) for a in get.values()))

    cell = one("")
    if cell is not None:
        return [[cell]]
    layers = []
    while (forward_weights := one(f"_l{len(layers)}")) is not None:
        reverse_weights = one(f"_l{len(layers)}_reverse")
        layers.append([w for w in (forward_weights, reverse_weights) if w is not None])
    if not layers:
        raise KeyError(f"{dot}weight_ih_l0")
    return layers


def bias_sum(w):
    """b_ih + b_hh, (4H,); zeros where the layer has none."""
    total = np.zeros(w.w_ih.shape[0])
    for bias in (w.b_ih, w.b_hh):
        if bias is not None:
            total = total + f64(bias)
    return total


def lstm_step(w, x, h, c):
    """One step of one layer and direction, x (..., I), h (..., P), c (..., H) -> (h', c').

    torch.nn.LSTM:  i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)     c' = f * c + i * g
                    f = sigmoid(W_if x + b_if + W_hf h + b_hf)     h' = o * tanh(c')
                    g =    tanh(W_ig x + b_ig + W_hg h + b_hg)
                    o = sigmoid(W_io x + b_io + W_ho h + b_ho)     proj_size: h' = W_hr h'
    """
    z = bias_sum(w) + f64(x) @ f64(w.w_ih).T + f64(h) @ f64(w.w_hh).T
    i, f, g, o = np.split(z, 4, axis=-1)
    c = sigmoid(f) * f64(c) + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h if w.w_hr is None else h @ f64(w.w_hr).T), c


def valid_rows(steps, batch, lengths):
    """(T, B, 1) booleans: is step t of row b within its length?"""
    if lengths is None:
        return np.ones((steps, batch, 1), bool)
    lengths = np.asarray(lengths)
    if lengths.shape != (batch,) or (batch and not 0 <= lengths.min() <= lengths.max() <= steps):
        raise ValueError(f"lengths {lengths} for T={steps}, B={batch}")
    return np.arange(steps)[:, None, None] < lengths[None, :, None]


def lstm(tensors, prefix, x, state=None, lengths=None):
    """torch.nn.LSTM, time-major: x (T, B, I) -> y (T, B, D*P), (h_n (L*D, B, P), c_n (L*D, B, H)).

    A row past its length keeps its state and gives 0, in either direction: so the reverse
    direction, which starts at T - 1, begins its work at the last valid step, and a row of length 0
    passes its initial state through.
    """
    x = f64(x)
    steps, batch = x.shape[:2]
    valid = valid_rows(steps, batch, lengths)
    x = np.where(valid, x, 0.0)  # the padding may hold anything
    stack = directions(tensors, prefix)
    flat = [w for layer in stack for w in layer]
    if state is None:
        h_n = [np.zeros((batch, w.output_size)) for w in flat]
        c_n = [np.zeros((batch, w.hidden_size)) for w in flat]
    else:
        h_n, c_n = (list(f64(s)) for s in state)
        if len(h_n) != len(flat) or len(c_n) != len(flat):
            raise ValueError(f"a state of {len(h_n)} rows for {len(flat)} layers and directions")
    row = 0
    for layer in stack:
        outputs = []
        for d, w in enumerate(layer):
            y = np.zeros((steps, batch, w.output_size))
            for t in range(steps) if d == 0 else reversed(range(steps)):
                h, c = lstm_step(w, x[t], h_n[row], c_n[row])
                h_n[row] = np.where(valid[t], h, h_n[row])
                c_n[row] = np.where(valid[t], c, c_n[row])
                y[t] = np.where(valid[t], h, 0.0)
            outputs.append(y)
            row += 1
        x = np.concatenate(outputs, axis=-1)
    return x, (np.stack(h_n), np.stack(c_n))


# ---- a list of layers --------------------------------------------------------------------------


def _initial(layer, tensors, batch):
    """The learned initial state h0, c0 of a layer (a tensor or its name), or None."""
    values = [_option(layer, name, None) for name in ("h0", "c0")]
    if all(value is None for value in values):
        return None
    flat = [w for one in directions(tensors, layer.prefix) for w in one]
    state = []
    for value, size in zip(values, (flat[0].output_size, flat[0].hidden_size), strict=True):
        if isinstance(value, str):
            value = required(tensors, "", value)
        value = np.zeros(size) if value is None else f64(value)
        rows = value.reshape(-1, 1, size)  # (L*D, P), (L*D, 1, P) or (P,) of one layer
        state.append(np.broadcast_to(rows, (len(flat), batch, size)))
    return tuple(state)


def layers_core(layers, tensors, x, states, lengths=None):
    """Time-major: x (T, B, I) or tokens (T, B), one state or None per recurrent layer (a cell's
    without the L axis) -> y (T, B, O), the list of states. Rows past a length are 0 in y."""
    x = np.asarray(x)
    steps, batch = x.shape[:2]
    valid = valid_rows(steps, batch, lengths)
    x = np.where(valid[..., 0] if x.ndim == 2 else valid, x, 0)
    states = list(states)
    finals = []
    for layer in layers:
        kind = type(layer).__name__
        if kind in STATELESS:
            x = STATELESS[kind](layer, tensors, x)
            continue
        if kind not in RECURRENT:
            raise NotImplementedError(kind)
        state = states.pop(0)
        if state is None:
            state = _initial(layer, tensors, batch)
        elif kind == "LSTMCell":
            state = tuple(f64(s)[None] for s in state)
        x, final = lstm(tensors, layer.prefix, x, state, lengths)
        finals.append(tuple(s[0] for s in final) if kind == "LSTMCell" else final)
    return np.where(valid, x, 0.0), finals


def forward(layers, tensors, x, state=None, lengths=None):
    """What `m(x, state, lengths=lengths)` returns , in float64.

    x is (T, B, I), (B, T, I) under batch_first, or (T, I); without I for tokens. The result is
    (y, state): the state bare for one recurrent layer, a list for several, None for none.
    A bare LSTMCell is one step: x (I,) or (B, I) -> (h, c).
    """
    layers = list(layers)
    recurrent = [layer for layer in layers if type(layer).__name__ in RECURRENT]
    x = np.asarray(x)
    # IEEE rules apply to non-finite inputs and weights: inf - inf is a NaN, not a fault
    with np.errstate(invalid="ignore", over="ignore"):
        if len(layers) == 1 and type(layers[0]).__name__ == "LSTMCell":
            ((w,),) = directions(tensors, layers[0].prefix)
            if state is None:
                initial = _initial(layers[0], tensors, 1)
                sizes = (w.output_size, w.hidden_size)
                rows = (
                    [np.zeros(n) for n in sizes] if initial is None else [s[0, 0] for s in initial]
                )
                state = tuple(np.broadcast_to(s, (*x.shape[:-1], s.shape[-1])) for s in rows)
            return lstm_step(w, x, *state)

        tokens = type(layers[0]).__name__ == "Embedding"
        unbatched = x.ndim == (1 if tokens else 2)
        batch_first = not unbatched and any(_option(r, "batch_first", False) for r in recurrent)
        if unbatched:
            x = x[:, None]
        elif batch_first:
            x = x.swapaxes(0, 1)
        states = [state] if len(recurrent) == 1 else state
        if states is None:
            states = [None] * len(recurrent)
        if unbatched:  # the batch axis is the one before the features, with or without an L axis
            states = [s and tuple(f64(a)[..., None, :] for a in s) for s in states]
        y, finals = layers_core(layers, tensors, x, states, lengths)
        if unbatched:
            y = y[:, 0]
            finals = [tuple(a[..., 0, :] for a in s) for s in finals]
        elif batch_first:
            y = y.swapaxes(0, 1)
    if not finals:
        return y, None
    return y, finals[0] if len(finals) == 1 else finals
