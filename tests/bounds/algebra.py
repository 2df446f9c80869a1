# SPDX-License-Identifier: MIT
"""Numbers with a bound on how far float32 may lie from them, and what each operation adds to it.

Notation: u = 2^-24, the unit roundoff of float32: a rounded result is exact * (1 + d), |d| <= u,
or exact + at most 2^-150 when it is subnormal (a sum or difference never loses anything there).
A `Near(value, err)` says |engine - value| <= err, elementwise over any leading axes; value is exact
but for float64. Every operation below has as its bound

    the most that f can move, when its operands move within their bounds       (carried)
  + the rounding of the engine's own result, u |f^| <= u (|value| + carried)   (own),

so an equation that is written in these operations has its bound derived line by line, to all
orders: nothing is dropped for being small. `ulps` of a function (promise 1) take the place of its
own rounding. Where an engine may write an expression in more than one way, as
(1 - t) b + t a, the bound holds for each of them (`blend`).

**A sum** of products: a total that starts from the bias; to it the blocks of 64 products are added
in order; within a block, one chain of at most 64 fused multiply-adds from zero. So with K blocks a
product meets at most 64 roundings in its chain (the first fma, onto zero, is its own rounding)
and K as part of the total; the bias meets K. Hence

    |z^ - z| <= ((1 + u)^(64 + K) - 1) S,    S = |b| + sum |w||x| + sum |u||h|.

(1 + u)^n - 1 <= n u + (n u)^2 for n u < 1, and (n u)^2 <= 0.96 u as long as n <= 4000, that is for
up to 250,000 inputs. Of the promised (66 + K) u S, 64 + K is the first order and 0.96 the second;
1.04 is left: for float64's own error in z (at most (I + H + 2) 2^-53 S, below 2^-11 u S for the
same sizes) and for one more rounding of each weight, see below.

*b_ih + b_hh is rounded once, when it is summed.* S has |b_ih + b_hh|, not |b_ih| + |b_hh|, and
that is enough: one rounding errs by at most u |b_ih + b_hh|, whatever cancelled, because both
parts are float32 to begin with. So the bias meets K + 1 <= 64 + K roundings in all. (It holds for
a sum in float64 rounded once too.) A bias that is itself folded from float64 (see `fold`) is
rounded once just the same, relative to its own size. A third part, a forget bias, may make one
rounding more, of a partial sum that is larger than the result: it is carried in (`bias_err`).

*Weights may be float64* that the engine rounds once each at load (a float64 checkpoint, an Affine
folded in): a product then meets 65 + K roundings, which the margin above covers. Not so two
float64 biases that are rounded before they are summed: give those as what they were rounded to.

"random" is the promise for random tests: 16 u S in place of (66 + K) u S. Rounding errors of
random sign grow like the square root of their number, so real sums stay far below either.

**Underflow**: each fma or sum may lose 2^-150 where its result is subnormal; there are no more than
one per product and one per block: (number of products) * 2^-149 covers both. **Overflow** has no
bound: partial sums stay within S and its errors, and S at 2^127 or more is refused.
"""

from typing import NamedTuple

import numpy as np

from oracle import f64, sigmoid

from .tolerances import FLUSH, RANDOM, SIGMOID_ULPS, SLACK, SUM, TANH_ULPS, TINY, U


class Near(NamedTuple):
    """A value and how far the engine's may lie from it."""

    value: np.ndarray
    err: np.ndarray

    @property
    def largest(self):
        return np.abs(self.value) + self.err


def features(a, key):
    """Those features of a Near number."""
    return Near(a.value[..., key], np.broadcast_to(a.err, a.value.shape)[..., key])


def exact(a):
    a = f64(a)
    return Near(a, np.zeros_like(a))


def number(a):
    """A number of the caller's, float64, that the engine rounds to float32 once."""
    a = f64(a)
    return Near(a, np.abs(a - a.astype(np.float32).astype(np.float64)))


def ulp(x):
    """The spacing of float32 at |x|, for float64 x: 2^(floor(log2 |x|) - 23), at least 2^-149."""
    _, exponent = np.frexp(x)  # |x| = m 2^exponent, m in [1/2, 1)
    return np.where(np.equal(x, 0), TINY, np.ldexp(1.0, np.maximum(exponent - 24, -149)))


# ---- arithmetic ---------------------------------------------------------------------------------


def rounded(value, carried, own=0.0):
    """The end of every operation: one rounding of a result that is off by `carried` already."""
    before = carried + own
    return Near(value, before + U * (np.abs(value) + before))


def add(a, b):
    return rounded(a.value + b.value, a.err + b.err)


def subtract(a, b):
    return rounded(a.value - b.value, a.err + b.err)


def moved(a, b):
    """|a^ b^ - a b| <= |a| E_b + |b| E_a + E_a E_b."""
    return np.abs(a.value) * b.err + np.abs(b.value) * a.err + a.err * b.err


def mul(a, b):
    one = rounded(a.value * b.value, moved(a, b))
    return Near(one.value, one.err + TINY)


def fma(a, b, c):
    one = rounded(a.value * b.value + c.value, moved(a, b) + c.err)
    return Near(one.value, one.err + TINY)


def sum_of_products(a, b, c, d):
    """fma(a, b, fl(c d)): fl(c^ d^) errs by u of its largest, then the fma by u of the result."""
    own = U * c.largest * d.largest + TINY
    one = rounded(a.value * b.value + c.value * d.value, moved(a, b) + moved(c, d), own)
    return Near(one.value, one.err + TINY)


def blend(t, a, b):
    """t a + (1 - t) b, in which t stands twice, and its error with it:

        t^ a^ + (1 - t^) b^ - value = (t^ - t)(a - b) + t^ (a^ - a) + (1 - t^)(b^ - b).

    It may be written fma(t, a, fl(fl(1 - t) b)), fma(fl(1 - t), b, fl(t a)) or
    fma(t, fl(a - b), b): roundings of at most 2 u |(1 - t) b| + u |t a|, or of u |t (a - b)|, and
    in any case of the result.
    """
    rest = Near(1.0 - t.value, t.err)
    value = t.value * a.value + rest.value * b.value
    carried = t.err * np.abs(a.value - b.value) + t.largest * a.err + rest.largest * b.err
    twice = 2.0 * U * (1.0 + U) * rest.largest * b.largest + U * t.largest * a.largest
    once = U * t.largest * (np.abs(a.value - b.value) + a.err + b.err)
    one = rounded(value, carried, np.maximum(twice, once) + TINY)
    return Near(one.value, one.err + TINY)


def clamp(a, low, high):
    """Held within two Near numbers: neither the operand nor an end moves the result by more than
    it moves itself, and where the operand is well outside only the end counts."""
    value = np.minimum(np.maximum(a.value, low.value), high.value)
    ends = [np.minimum(np.maximum(a.value + s * a.err, low.value), high.value) for s in (-1, 1)]
    carried = np.maximum(*(np.abs(end - value) for end in ends))
    return Near(value, carried + np.maximum(low.err, high.err))


def clip(a, limit):
    """Held within +-limit; None: not at all."""
    if limit is None:
        return a
    high = number(limit)
    return clamp(a, Near(-high.value, high.err), high)


def flushed(a):
    """A state below 2^-100 becomes 0: at most 2^-100 more where the exact value, less its bound,
    lies below that."""
    below = np.abs(a.value) - a.err * SLACK < FLUSH
    return Near(a.value, a.err * SLACK + np.where(below, FLUSH, 0.0))


# ---- sums ---------------------------------------------------------------------------------------


def blocks(*widths):
    return sum(-(-width // 64) for width in widths)


def _constant(kind, *widths):
    if kind == "random":
        return RANDOM
    if kind != "provable":
        raise ValueError(f"kind={kind!r}")
    return SUM + blocks(*widths)


def sum_bound(weights, inputs, bias, kind="provable", errors=None, bias_err=0.0, diagonal=()):
    """(z, bound) of z = bias + sum over the parts of W x: weights and inputs are lists, in the
    order of the sum; `errors` are bounds on the inputs themselves, if they are not exact.

    `diagonal`: (weight, Near) pairs, elementwise products of a peephole. Wherever in the sum the
    engine adds one, first, between or last, it is one product more in S that meets at most K + 1
    roundings, as the bias does.
    """
    z, size = f64(bias), np.abs(f64(bias)) + bias_err
    carried, products = f64(bias_err), len(diagonal)
    for weight, x, error in zip(weights, inputs, errors or [0.0] * len(inputs), strict=True):
        weight, x = f64(weight), f64(x)
        error = np.broadcast_to(f64(error), x.shape)
        z = z + x @ weight.T
        size = size + (np.abs(x) + error) @ np.abs(weight).T
        carried = carried + error @ np.abs(weight).T
        products += x.shape[-1]
    for weight, x in diagonal:
        z = z + f64(weight) * x.value
        size = size + np.abs(f64(weight)) * x.largest
        carried = carried + np.abs(f64(weight)) * x.err
    if not (size < 2.0**127).all():
        raise ValueError("a sum may overflow float32: there is no bound")
    constant = _constant(kind, *(f64(x).shape[-1] for x in inputs))
    return z, carried + constant * U * size + products * TINY


# ---- layer norm ---------------------------------------------------------------------------------


def normalised(x, eps, parts=None):
    """(x - mean) / sqrt(var + eps) of a Near x (..., N), in the order of the policy: sums are
    sixteen partial ones of `parts` terms (default ceil(N/16)), folded in 4 steps.

        mean:       carried mean(E_x); k u mean(|x| + E_x), k = parts + 5 with the division   E_m
        d = x - m:  E_x + E_m + u (|d| + E_x + E_m)                                           E_d
        variance:   mean(2 |d| E_d + E_d^2) of that, and k u of itself                        E_v
        s:          half the relative error of variance + eps, 2 u more                       r
        y = d / s:  E_d / s + |y| (r + u)

    The margin of 2^-10 stands for the products of these terms and for eps, rounded once. Where the
    inputs have errors, the variance may also be bounded as a length: sqrt(var + eps) is the
    Euclidean norm of (d / sqrt(N), sqrt(eps)), so by the triangle inequality s moves by at most
    sqrt(mean(E_d^2)), which is less where d is far smaller than its error; the lesser is taken.
    """
    value = x.value
    e_x = np.broadcast_to(x.err, value.shape)
    k = (-(-value.shape[-1] // 16) if parts is None else parts) + 5
    e_m = (e_x + k * U * (np.abs(value) + e_x)).mean(axis=-1, keepdims=True)
    d = value - value.mean(axis=-1, keepdims=True)
    e_d = e_x + e_m
    e_d = e_d + U * (np.abs(d) + e_d)
    variance = (d * d).mean(axis=-1, keepdims=True)
    power = variance + eps
    s = np.sqrt(power)
    own = (k + 2) * U * power
    e_v = (2 * np.abs(d) * e_d + e_d * e_d).mean(axis=-1, keepdims=True) + own
    # s^ >= sqrt(power - e_v), and never below sqrt(eps) less its roundings
    least = np.sqrt(np.maximum(power - e_v, eps * (1 - 4 * U)))
    length = np.sqrt((e_d * e_d).mean(axis=-1, keepdims=True))
    least = np.maximum(least, (s - length) * (1 - (k + 4) * U))
    with np.errstate(divide="ignore", invalid="ignore"):  # eps = 0 and no variance: no bound
        by_length = length + (k + 4) * U * (s + length)
        r = np.minimum(np.minimum(e_v / (least * (least + s)), by_length / least), 1e30) + 2 * U
        y = np.where(d == 0, 0.0, d / s)
        e_y = e_d / least + np.abs(y) * (r + U) + U * e_d / least + TINY
    return Near(y, np.where(np.isnan(e_y), np.inf, e_y * (1 + 2.0**-10)))


# ---- functions ----------------------------------------------------------------------------------


def sigmoid_slope(x):
    return sigmoid(x) * sigmoid(-x)


def tanh_slope(x):
    """1 - tanh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2|x|), without cancellation."""
    e = np.exp(-2.0 * np.abs(x))
    return 4.0 * e / (1.0 + e) ** 2


def _curve(f, slope, span, ulps, z, e):
    """(f(z), how far the engine's f(z^) may lie from it) for |z^ - z| <= e, f sigmoid or tanh.

    By the mean value theorem |f(z^) - f(z)| <= e sup |f'| over [z - e, z + e]. Both derivatives are
    even and fall away from 0, so the supremum stands at the point of the interval nearest to 0,
    |z| - e or 0; and f's values lie within an interval of length `span`, so they cannot differ by
    more. The function itself adds its ulps of the exact value, whose size is largest at the far
    end. (An ulp is the spacing of the binade that holds the exact value: below 1, u, never 2u.)
    """
    nearest = np.maximum(np.abs(z) - e, 0.0)
    largest = np.maximum(np.abs(f(z - e)), np.abs(f(z + e)))
    largest = np.minimum(largest, 1.0 - U)  # both are below 1, where the spacing is u, not 2u
    return f(z), np.minimum(e * slope(nearest), span) + ulps * ulp(largest)


def sigmoid_bound(z, e=0.0):
    return _curve(sigmoid, sigmoid_slope, 1.0, SIGMOID_ULPS, f64(z), e)


def tanh_bound(z, e=0.0):
    return _curve(np.tanh, tanh_slope, 2.0, TANH_ULPS, f64(z), e)
