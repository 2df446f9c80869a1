# SPDX-License-Identifier: MIT
"""Layers without state and the functions of one number, in float64; each names its page of
PyTorch's documentation (https://docs.pytorch.org/docs/2.13/) or its operator text."""

import math

import numpy as np


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


# ---- activations of gates ----------------------------------------------------------------------

# As the operators LSTM, GRU and RNN of ONNX define them, f(x, alpha, beta)
# (https://onnx.ai/onnx/operators/onnx__LSTM.html, attribute `activations`):
#
#     Relu(x) - max(0, x)                    Tanh, Sigmoid
#     Affine(x) - alpha*x + beta             LeakyRelu(x) - x if x >= 0 else alpha * x
#     ThresholdedRelu(x) - x if x >= alpha else 0
#     ScaledTanh(x) - alpha*Tanh(beta*x)     HardSigmoid(x) - min(max(alpha*x + beta, 0), 1)
#     Elu(x) - x if x >= 0 else alpha*(e^x - 1)
#     Softsign(x) - x/(1 + |x|)              Softplus(x) - log(1 + e^x)
#
# ThresholdedRelu at alpha itself: the operator of that name says 0 there ("x > alpha",
# https://onnx.ai/onnx/operators/onnx__ThresholdedRelu.html) and so does ONNX Runtime in its cells;
# so do we. HardTanh is torch.nn.Hardtanh between alpha and beta.
ACTIVATIONS = {
    "Sigmoid": lambda x, alpha, beta: sigmoid(x),
    "Tanh": lambda x, alpha, beta: np.tanh(x),
    "Relu": lambda x, alpha, beta: np.maximum(x, 0.0),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0),
    "HardTanh": lambda x, alpha, beta: np.clip(x, alpha, beta),
    "Softsign": lambda x, alpha, beta: x / (1.0 + np.abs(x)),
    "Softplus": lambda x, alpha, beta: np.logaddexp(0.0, x),
    "Elu": lambda x, alpha, beta: elu(x, alpha),
    "LeakyRelu": lambda x, alpha, beta: prelu(x, alpha),
    "ThresholdedRelu": lambda x, alpha, beta: np.where(x > alpha, x, 0.0),
    "ScaledTanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "Affine": lambda x, alpha, beta: alpha * x + beta,
}


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
    return batch_norm(x, mean, variance, weight, bias, option(o, "eps", 1e-5))


def option(layer, name, default):
    return getattr(layer, name, default)


# One entry per layer without state: f(layer, tensors, x) -> y, features on the last axis.
STATELESS = {
    "Linear": lambda o, t, x: linear(
        x, required(t, o.prefix, "weight"), named(t, o.prefix, "bias")
    ),
    "Embedding": _embedding,
    "LayerNorm": lambda o, t, x: layer_norm(
        x, named(t, o.prefix, "weight"), named(t, o.prefix, "bias"), option(o, "eps", 1e-5)
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
    "LeakyReLU": lambda o, t, x: prelu(x, option(o, "negative_slope", 0.01)),
    "PReLU": lambda o, t, x: prelu(x, required(t, o.prefix, "weight")),
    "ELU": lambda o, t, x: elu(x, option(o, "alpha", 1.0)),
    "Tanh": lambda o, t, x: np.tanh(f64(x)),
    "Hardtanh": lambda o, t, x: np.clip(
        f64(x), option(o, "min_val", -1.0), option(o, "max_val", 1.0)
    ),
    "Sigmoid": lambda o, t, x: sigmoid(x),
    "GELU": lambda o, t, x: gelu(x, option(o, "approximate", "none")),
    # torch.nn.SiLU: x sigmoid(x)
    "SiLU": lambda o, t, x: f64(x) * sigmoid(x),
    "Softplus": lambda o, t, x: softplus(x, option(o, "beta", 1.0), option(o, "threshold", 20.0)),
    "Softmax": lambda o, t, x: softmax(x),
    "LogSoftmax": lambda o, t, x: log_softmax(x),
}
