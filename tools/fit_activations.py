# SPDX-License-Identifier: MIT
"""Find the coefficients in csrc/src/kernels/math.inc.h.

Minimax polynomials by Lawson's iteration (weighted least squares whose weights grow
where the error is large), then rounded to float32 one by one, lowest power first, the
rest fitted again each time: the low powers carry the most weight, so their rounding is
absorbed by the powers above them.

    python tools/fit_activations.py        prints each table and its error before rounding

The errors printed are those of the polynomial alone, evaluated exactly; what the kernels
reach with float32 arithmetic is measured by tests/c/sweep_activations.c.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np

mpmath.mp.dps = 40


def nodes(low: float, high: float, count: int = 1200) -> np.ndarray:
    """Chebyshev nodes: dense at the ends, where minimax errors peak."""
    k = np.arange(count)
    return 0.5 * (low + high) + 0.5 * (high - low) * np.cos((2 * k + 1) * math.pi / (2 * count))


def lawson(
    x: np.ndarray, y: np.ndarray, scale: np.ndarray, powers: list[int], rounds: int = 300
) -> np.ndarray:
    """Minimise max |scale * (polynomial(x) - y)| over the coefficients of ``powers``."""
    basis = np.stack([x**p for p in powers], axis=1) * scale[:, None]
    target = y * scale
    weight = np.full(len(x), 1.0 / len(x))
    best, best_error = np.zeros(len(powers)), math.inf
    for _ in range(rounds):
        root = np.sqrt(weight)[:, None]
        coef = np.linalg.lstsq(basis * root, target * root[:, 0], rcond=None)[0]
        error = np.abs(basis @ coef - target)
        if error.max() < best_error:
            best, best_error = coef, float(error.max())
        weight = weight * (error / error.max() + 1e-12)
        weight /= weight.sum()
    return best


def fit(name: str, x: np.ndarray, y: np.ndarray, scale: np.ndarray, degree: int) -> list[float]:
    """Coefficients of 1, x, ... x**degree as float32 values; prints them with the error."""
    rest, residual, found = list(range(degree + 1)), y.copy(), []
    while rest:
        coef = lawson(x, residual, scale, rest)
        rounded = float(np.float32(coef[0]))
        found.append(rounded)
        residual = residual - rounded * x ** rest.pop(0)
    error = float(np.abs(residual * scale).max())
    print(f"{name}: error {error:.3g} = {error * 2**24:.3f} u")
    for value in found:
        print(f"    {value.hex():>24}   {value:.9g}f")
    return found


def exact(function: object, x: np.ndarray) -> np.ndarray:
    return np.array([float(function(mpmath.mpf(float(v)))) for v in x])  # type: ignore[operator]


def main() -> None:
    x = nodes(-0.35, 0.35)
    y = exact(lambda v: (mpmath.expm1(v) - v) / v**2, x)
    fit("EXP: (exp(r) - 1 - r) / r^2, error of exp", x, y, x**2 / np.exp(x), 4)

    a = nodes(1e-4, 0.66)
    y = exact(lambda v: (mpmath.tanh(v) / v - 1) / v**2, a)
    fit("TANH: (tanh(a)/a - 1) / a^2 in a^2, error of tanh", a**2, y, a**3 / np.tanh(a), 4)

    f = nodes(math.sqrt(0.5) - 1, math.sqrt(2) - 1)
    y = exact(lambda v: (mpmath.log1p(v) - v) / v**2, f)
    fit("LOG: (log(1+f) - f) / f^2, error of log", f, y, np.abs(f**2 / np.log1p(f)), 8)

    x = nodes(1e-4, 1.0)
    phi = exact(lambda v: (mpmath.ncdf(v) - mpmath.mpf("0.5")) / v, x)
    fit("PHI: (Phi(x) - 1/2) / x in x^2, absolute error of Phi", x**2, phi, x, 5)

    w = nodes(1.0 / (1 + 0.5 * 14.5), 1.0 / (1 + 0.5 * 1.0))
    t = (1 / w - 1) / 0.5
    y = exact(lambda v: mpmath.ncdf(-v) * mpmath.exp(v * v / 2), t)
    fit("TAIL: Phi(-t) exp(t^2/2) in w = 1/(1 + t/2), relative error", w, y, 1 / y, 8)


if __name__ == "__main__":
    main()
