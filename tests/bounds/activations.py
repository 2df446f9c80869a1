# SPDX-License-Identifier: MIT
"""The bound of each function of a gate: f(z) for a z that is known to within its error."""

import numpy as np

from oracle import ACTIVATIONS

from .algebra import (
    TINY,
    Near,
    U,
    clamp,
    exact,
    fma,
    mul,
    number,
    sigmoid_bound,
    tanh_bound,
    ulp,
)
from .tolerances import HEAD_FLOOR, HEAD_ULPS


def head_bound(value):
    """GELU, softmax, log-softmax, SiLU, softplus and ELU, on the engine's own float32 input: 4 ulps
    of the exact result, or 2^-23 where it nears 0."""
    return np.maximum(HEAD_ULPS * ulp(value), HEAD_FLOOR)


def _carried(f, z, breaks=()):
    """sup |f(t) - f(z)| over |t - z| <= e, for an f that is monotone between its breaks: it stands
    at an end of the interval or at a break within it, come from either side."""
    here = f(z.value)
    most = np.maximum(*(np.abs(f(z.value + s * z.err) - here) for s in (-1.0, 1.0)))
    for b in breaks:
        within = np.abs(z.value - b) <= z.err
        for t in (np.nextafter(b, -np.inf), b, np.nextafter(b, np.inf)):
            most = np.maximum(most, np.where(within, np.abs(f(t) - here), 0.0))
    return here, most


def _relu(z, f, alpha, beta):
    return Near(*_carried(f, z, (0.0,)))  # a comparison: exact


def _hard_tanh(z, f, alpha, beta):
    return clamp(z, number(alpha), number(beta))


def _hard_sigmoid(z, f, alpha, beta):
    """One fma, then held within numbers that float32 has."""
    return clamp(fma(number(alpha), z, number(beta)), exact(0.0), exact(1.0))


def _affine(z, f, alpha, beta):
    return fma(number(alpha), z, number(beta))


def _softsign(z, f, alpha, beta):
    """|x| is exact, 1 + |x| one rounding, the quotient another: (1 + u)^2 / (1 - u) of f^ at the
    most, which 2.1 u covers."""
    value, most = _carried(f, z)
    return Near(value, most + 2.1 * U * (np.abs(value) + most) + TINY)


def _softplus(z, f, alpha, beta):
    value, most = _carried(f, z)
    return Near(value, most + head_bound(value + most))


def _elu(z, f, alpha, beta):
    """x itself above 0; below it exp(x) - 1 as a head's ELU has it, times a rounded alpha."""
    value, most = _carried(f, z, (0.0,))
    a = number(alpha)
    low = np.minimum(z.value - z.err, 0.0)
    power = np.abs(np.expm1(low))  # the largest |exp(x) - 1|
    own = a.largest * head_bound(power) + a.err * power + U * a.largest * (power + 2.0**-22) + TINY
    return Near(value, most + np.where(low < 0, own, 0.0))


def _leaky_relu(z, f, alpha, beta):
    value, most = _carried(f, z, (0.0,))
    a = number(alpha)
    low = np.maximum(z.err - z.value, 0.0)  # the largest |x| below 0
    own = a.err * low + U * a.largest * low + TINY
    return Near(value, most + np.where(low > 0, own, 0.0))


def _thresholded_relu(z, f, alpha, beta):
    """With alpha rounded to a^, z^ > a^ where t = z^ + alpha - a^ is over alpha; the result is
    then t or 0 but for another alpha - a^."""
    a = number(alpha)
    value, most = _carried(f, Near(z.value, z.err + a.err), (float(alpha), 0.0))
    return Near(value, most + a.err)


def _scaled_tanh(z, f, alpha, beta):
    inner = mul(number(beta), z)
    return mul(number(alpha), Near(*tanh_bound(inner.value, inner.err)))


_BOUNDS = {
    "Sigmoid": lambda z, f, alpha, beta: Near(*sigmoid_bound(z.value, z.err)),
    "Tanh": lambda z, f, alpha, beta: Near(*tanh_bound(z.value, z.err)),
    "Relu": _relu,
    "HardSigmoid": _hard_sigmoid,
    "HardTanh": _hard_tanh,
    "Softsign": _softsign,
    "Softplus": _softplus,
    "Elu": _elu,
    "LeakyRelu": _leaky_relu,
    "ThresholdedRelu": _thresholded_relu,
    "ScaledTanh": _scaled_tanh,
    "Affine": _affine,
}


def activate(one, z):
    """f(z) of a Near z; `one` is (name, alpha, beta)."""
    name, alpha, beta = one
    return _BOUNDS[name](z, lambda x: ACTIVATIONS[name](x, alpha, beta), alpha, beta)
