# SPDX-License-Identifier: MIT
"""The one tolerance against float64 (promise 2), derived here and used everywhere.

Notation: u = 2^-24, the unit roundoff of float32: a rounded result is exact * (1 + d), |d| <= u,
or exact + at most 2^-150 when it is subnormal. z is exact, z^ what the engine has. Everything
below is elementwise per unit and vectorised over any leading axes (batch, time, ...).

**A sum**: a total that starts from the bias; to it the blocks of 64 products are added in
order; within a block, one chain of at most 64 fused multiply-adds from zero. So with K blocks a
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
rounded once just the same, relative to its own size.

*Weights may be float64* that the engine rounds once each at load (a float64 checkpoint, an Affine
folded in): a product then meets 65 + K roundings, which the margin above covers. Not so two
float64 biases that are rounded before they are summed: give those as what they were rounded to.

"random" is the promise for random tests: 16 u S in place of (66 + K) u S. Rounding errors of
random sign grow like the square root of their number, so real sums stay far below either.

**Underflow**: each fma or sum may lose 2^-150 where its result is subnormal; there are no more than
one per product and one per block: (number of products) * 2^-149 covers both. **Overflow** has no
bound: partial sums stay within S and its errors, and S at 2^127 or more is refused.

**A gate** s = sigmoid(z) or tanh(z): with e the bound on z^ - z, by the mean value theorem
|s(z^) - s(z)| <= e sup |s'| over [z - e, z + e]. Both derivatives are even and fall away from 0,
so the supremum stands at the point of the interval nearest to 0, |z| - e or 0. The function itself
adds 1.5 (tanh) or 2 (sigmoid) ulps of its exact value, whose size is largest at the far end.
(An ulp is the spacing of the binade that holds the exact value: below 1, u, and never 2u.)

**c' = fma(f, c, fl(i g))**: with E the bounds on the gates, c exact (or within E_c, if given),

    |i^ g^ - i g| <= |i| E_g + |g| E_i + E_i E_g,                    and likewise for f c;
    fl(i^ g^) errs by u (|i| + E_i)(|g| + E_g), the fma by u times at most (|c'| + all of this).

**h' = fl(o tanh(c'))** likewise, where tanh(c') errs by E_c' sup tanh' and 1.5 ulps. Under a
projection this is what W_hr multiplies: a sum of ceil(H/64) blocks from a total of zero, whose
terms are known to within E: sum |w| E + (66 + ceil(H/64)) u sum |w| (|h| + E).

**Flush**: a state below 2^-100 becomes 0: at most 2^-100 more where the exact value, less
its bound, lies below that. (Allowed for h before a projection too; it may or may not be flushed.)
"""

from typing import NamedTuple

import numpy as np

from oracle import Direction, bias_sum, directions, f64, sigmoid, valid_rows

U = 2.0**-24
TINY = 2.0**-149  # the least subnormal: the roundings of one product where they underflow
FLUSH = 2.0**-100
TANH_ULPS, SIGMOID_ULPS = 1.5, 2.0  # promise 1
# The reference and this bound are themselves computed in float64, with some dozens of roundings
# of 2^-53, relative to terms that the bound holds at least u/2 times: 2^-20 of it covers them.
SLACK = 1.0 + 2.0**-20


class Step(NamedTuple):
    """One step in float64 and how far float32 may lie from it, elementwise."""

    h: np.ndarray  # (..., P)
    c: np.ndarray  # (..., H)
    h_bound: np.ndarray
    c_bound: np.ndarray
    z: np.ndarray  # (..., 4H): pre-activations, rows i, f, g, o
    z_bound: np.ndarray


def ulp(x):
    """The spacing of float32 at |x|, for float64 x: 2^(floor(log2 |x|) - 23), at least 2^-149."""
    _, exponent = np.frexp(x)  # |x| = m 2^exponent, m in [1/2, 1)
    return np.where(np.equal(x, 0), TINY, np.ldexp(1.0, np.maximum(exponent - 24, -149)))


def blocks(*widths):
    return sum(-(-width // 64) for width in widths)


def _constant(kind, *widths):
    if kind == "random":
        return 16.0
    if kind != "provable":
        raise ValueError(f"kind={kind!r}")
    return 66.0 + blocks(*widths)


def _float32(name, a):
    """The engine's own numbers, in float64: refuse what float32 cannot hold, since the reference
    would then be of other inputs than the engine saw. NaN and infinity have no bound either."""
    a = f64(a)
    with np.errstate(over="ignore"):
        same = np.array_equal(a, a.astype(np.float32))
    if not same or not np.isfinite(a).all():
        raise ValueError(f"{name} is not finite float32")
    return a


def sum_bound(weights, inputs, bias, kind="provable", errors=None):
    """(z, bound) of z = bias + sum over the parts of W x: weights and inputs are lists, in the
    order of the sum; `errors` are bounds on the inputs themselves, if they are not exact."""
    z, size = f64(bias), np.abs(f64(bias))
    moved, products = 0.0, 0
    for weight, x, error in zip(weights, inputs, errors or [0.0] * len(inputs), strict=True):
        weight, x = f64(weight), f64(x)
        error = np.broadcast_to(f64(error), x.shape)
        z = z + x @ weight.T
        size = size + (np.abs(x) + error) @ np.abs(weight).T
        moved = moved + error @ np.abs(weight).T
        products += x.shape[-1]
    if not (size < 2.0**127).all():
        raise ValueError("a sum may overflow float32: there is no bound")
    constant = _constant(kind, *(f64(x).shape[-1] for x in inputs))
    return z, moved + constant * U * size + products * TINY


def linear_bound(weight, bias, x, kind="provable", x_err=0.0):
    """(y, bound) of a Linear layer on the engine's own float32 input x (..., I), or on one known
    to within x_err of x."""
    x = _float32("x", x) if np.ndim(x_err) == 0 and x_err == 0 else f64(x)
    bias = np.zeros(len(weight)) if bias is None else bias
    return sum_bound([weight], [x], bias, kind, [x_err])


def fold(weight, bias, scale, shift):
    """(weight, bias), in float64, of a product whose input passes an Affine first:
    W (x * scale + shift) + b = (W * scale) x + (W shift + b). For a Direction, whose biases are
    two, give `bias_sum(w)` and put the result into b_ih, None into b_hh."""
    weight = f64(weight)
    return weight * f64(scale), f64(bias) + weight @ f64(shift)


def sigmoid_slope(x):
    return sigmoid(x) * sigmoid(-x)


def tanh_slope(x):
    """1 - tanh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2|x|), without cancellation."""
    e = np.exp(-2.0 * np.abs(x))
    return 4.0 * e / (1.0 + e) ** 2


def _curve(f, slope, span, ulps, z, e):
    """(f(z), how far the engine's f(z^) may lie from it) for |z^ - z| <= e; f's values lie within
    an interval of length `span`, so they cannot differ by more."""
    nearest = np.maximum(np.abs(z) - e, 0.0)
    largest = np.maximum(np.abs(f(z - e)), np.abs(f(z + e)))
    largest = np.minimum(largest, 1.0 - U)  # both are below 1, where the spacing is u, not 2u
    return f(z), np.minimum(e * slope(nearest), span) + ulps * ulp(largest)


def sigmoid_bound(z, e=0.0):
    return _curve(sigmoid, sigmoid_slope, 1.0, SIGMOID_ULPS, f64(z), e)


def tanh_bound(z, e=0.0):
    return _curve(np.tanh, tanh_slope, 2.0, TANH_ULPS, f64(z), e)


def _product(a, e_a, b, e_b):
    """(bound on a^ b^ - a b, the largest |a^ b^|)."""
    moved = np.abs(a) * e_b + np.abs(b) * e_a + e_a * e_b
    return moved, (np.abs(a) + e_a) * (np.abs(b) + e_b)


def _flushed(value, bound):
    return bound + np.where(np.abs(value) - bound < FLUSH, FLUSH, 0.0)


def step_bound(w: Direction, x, h, c, kind="provable", x_err=0.0, h_err=0.0, c_err=0.0) -> Step:
    """One teacher-forced step of one layer and direction: x (..., I), h (..., P) and c (..., H)
    are what the engine itself stepped from, float32. Where one of them is not the engine's own but
    float64 within a known distance, its `_err` says so (elementwise) and is carried through."""
    given = []
    for name, a, error in (("x", x, x_err), ("h", h, h_err), ("c", c, c_err)):
        exact = np.ndim(error) == 0 and error == 0
        given.append(_float32(name, a) if exact else f64(a))
    x, h, c = given
    z, e = sum_bound([w.w_ih, w.w_hh], [x, h], bias_sum(w), kind, [x_err, h_err])
    (z_i, z_f, z_g, z_o), (e_i, e_f, e_g, e_o) = (np.split(a, 4, axis=-1) for a in (z, e))
    i, e_i = sigmoid_bound(z_i, e_i)
    f, e_f = sigmoid_bound(z_f, e_f)
    g, e_g = tanh_bound(z_g, e_g)
    o, e_o = sigmoid_bound(z_o, e_o)

    ig_moved, ig_largest = _product(i, e_i, g, e_g)
    fc_moved, _ = _product(f, e_f, c, f64(c_err))
    c_next = f * c + i * g
    c_bound = ig_moved + fc_moved + U * ig_largest + TINY
    c_bound = c_bound + U * (np.abs(c_next) + c_bound) + TINY
    c_bound = _flushed(c_next, c_bound * SLACK)

    t, e_t = tanh_bound(c_next, c_bound)
    moved, largest = _product(o, e_o, t, e_t)
    h_next = o * t
    h_bound = _flushed(h_next, (moved + U * largest + TINY) * SLACK)
    if w.w_hr is not None:
        zero = np.zeros(w.output_size)
        h_next, h_bound = sum_bound([w.w_hr], [h_next], zero, kind, [h_bound])
        h_bound = _flushed(h_next, h_bound * SLACK)
    return Step(h_next, c_next, h_bound, c_bound, z, e)


# ---- whole runs: every check below returns the worst |engine - reference| / bound --------------
# so that a test says `assert check(...) <= 1`; a NaN or an infinity makes that false too.


def worst(actual, reference, bound):
    """max |actual - reference| / bound; 0 where there is nothing to compare."""
    actual = f64(actual)
    if actual.shape != np.shape(reference):
        raise ValueError(f"shape {actual.shape}, expected {np.shape(reference)}")
    if not np.isfinite(actual).all():
        return np.inf
    return float(np.max(np.abs(actual - reference) / bound, initial=0.0))


def stream_check(tensors, prefix, x, states, kind="provable"):
    """Every layer of a stream (or pool) at every step, teacher-forced in h and in c.

    x (T, I) or (T, B, I); states: T + 1 of them, before the first step and after each, as
    `stream.state` gives them: (h (L, ...), c (L, ...)), a cell's without the L axis.
    """
    stack = directions(tensors, prefix)
    h, c = (np.stack([state[part] for state in states]) for part in (0, 1))
    x = np.asarray(x)
    if h.ndim == x.ndim:  # a cell
        h, c = h[:, None], c[:, None]
    if len(states) != len(x) + 1 or h.shape[1] != len(stack):
        raise ValueError(f"{len(states)} states of {h.shape[1]} layers for T={len(x)}")
    ratios = []
    for k, (w,) in enumerate(stack):
        step = step_bound(w, x, h[:-1, k], c[:-1, k], kind)
        ratios += [worst(h[1:, k], step.h, step.h_bound), worst(c[1:, k], step.c, step.c_bound)]
        x = h[1:, k]  # the output of a layer is its h, and the input of the next
    return max(ratios)


def direction_check(w, x, y, h0, c0, c_n, kind="provable", lengths=None, reverse=False):
    """One layer and direction of a sequence x (T, B, I), from its outputs y (T, B, P) and c_n.

    y is the engine's own h at every step, so every step is teacher-forced in h. The engine's c in
    between is not seen: it is carried in float64 together with how far the engine's may lie from
    it (`c_err`), which stays small, for a forget gate is below 1. Every h is checked, and the last
    c of every row; a row's padding must be exactly 0 and length 0 pass c through exactly.
    """
    x, y, h, c = (f64(a) for a in (x, y, h0, c0))
    steps, batch = x.shape[:2]
    valid = valid_rows(steps, batch, lengths)
    if (y[~valid[..., 0]] != 0).any():
        return np.inf
    c_err = np.zeros_like(c)
    ratio = 0.0
    for t in reversed(range(steps)) if reverse else range(steps):
        now = valid[t]
        step = step_bound(w, np.where(now, x[t], 0.0), h, c, kind, c_err=c_err)
        rows = now[:, 0]
        ratio = max(ratio, worst(y[t][rows], step.h[rows], step.h_bound[rows]))
        if not np.isfinite(y[t]).all():
            return np.inf
        h = np.where(now, y[t], h)
        c = np.where(now, step.c, c)
        c_err = np.where(now, step.c_bound, c_err)
    # where no step was taken c must be the same number: any difference at all is over TINY / 2
    return max(ratio, worst(c_n, c, np.where(c_err > 0, c_err, TINY / 2)))


def lstm_check(tensors, prefix, x, outputs, state, final, kind="provable", lengths=None):
    """A whole LSTM on a sequence, all layers and directions: x (T, B, I); state and final are
    (h (L*D, B, P), c (L*D, B, H)); outputs is y (T, B, D*P) of every layer, for L = 1 `[y]`. The
    lower layers' are had from the models of `first_layers`, whose bits are the same."""
    stack = directions(tensors, prefix)
    if len(outputs) != len(stack):
        raise ValueError(f"{len(outputs)} outputs for {len(stack)} layers")
    steps, batch = np.shape(x)[:2]
    last = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    ratio, row = 0.0, 0
    for layer, output in zip(stack, outputs, strict=True):
        parts = np.split(np.asarray(output), len(layer), axis=-1)
        for d, (w, y) in enumerate(zip(layer, parts, strict=True)):
            (h0, c0), (h_n, c_n) = ((s[0][row], s[1][row]) for s in (state, final))
            one = direction_check(w, x, y, h0, c0, c_n, kind, lengths, reverse=d == 1)
            # h_n is y at a row's last step, or h0, to the bit
            for b in range(batch):
                end = h0[b] if last[b] == 0 else y[0 if d else last[b] - 1, b]
                one = one if np.array_equal(h_n[b], end) else np.inf
            ratio = max(ratio, one)
            row += 1
        x = output
    return ratio


def first_layers(tensors, prefix, count):
    """The tensors of the first `count` layers of an LSTM, under the same prefix."""
    start = f"{prefix}." if prefix else ""
    return {
        name: value
        for name, value in tensors.items()
        if name.startswith(start)
        and any(name.removesuffix("_reverse").endswith(f"_l{k}") for k in range(count))
    }


def head_bound(exact, ulps=4.0):
    """GELU, softmax, log-softmax and SiLU, on the engine's own float32 input: 4 ulps of the
    exact result, or 2^-23 where it nears 0."""
    return np.maximum(ulps * ulp(exact), 2.0**-23)


def affine_bound(x, scale, shift):
    """(y, bound) of an Affine or BatchNorm1d that is not folded, scale and shift float64: each is
    rounded once (not at all, if it was float32), and one fma rounds the result."""
    x, scale, shift = f64(x), f64(scale), f64(shift)
    y = x * scale + shift
    bound = 2.0 * U * (np.abs(x * scale) + np.abs(shift)) + U * np.abs(y) + 2.0 * TINY
    return y, np.where((scale == np.float32(scale)) & (shift == np.float32(shift)), ulp(y), bound)


def layer_norm_bound(x, weight=None, bias=None, eps=1e-5):
    """(y, bound) of LayerNorm on the engine's own float32 input x (..., N), by first order terms
    with a margin: sums are sixteen partial ones of ceil(N/16) terms, folded in 4 (order of sums).

        mean:       k u mean|x|, k = ceil(N/16) + 5 with the division        E_m
        d = x - m:  E_m + u (|d| + E_m)                                      E_d
        variance:   mean(2 |d| E_d + E_d^2) of that, and k u of itself       E_v
        s:          half the relative error of variance + eps, 2 u more      r
        y = d / s:  E_d / s + |y| (r + u); then one fma with the weight and bias
    """
    x = f64(x)
    k = -(-x.shape[-1] // 16) + 5
    e_m = k * U * np.abs(x).mean(axis=-1, keepdims=True)
    d = x - x.mean(axis=-1, keepdims=True)
    e_d = e_m + U * (np.abs(d) + e_m)
    power = (d * d).mean(axis=-1, keepdims=True) + eps
    e_v = (2 * np.abs(d) * e_d + e_d * e_d).mean(axis=-1, keepdims=True) + (k + 2) * U * power
    # s^ >= sqrt(power - e_v), and never below sqrt(eps) less its roundings
    least = np.sqrt(np.maximum(power - e_v, eps * (1 - 4 * U)))
    s = np.sqrt(power)
    r = np.minimum(e_v / (least * (least + s)), 1e30) + 2 * U
    y = d / s
    e_y = e_d / least + np.abs(y) * (r + U) + U * e_d / least + TINY
    if weight is not None:
        y, e_y = y * f64(weight), e_y * np.abs(f64(weight))
    if bias is not None:
        y = y + f64(bias)
    return y, (e_y + U * (np.abs(y) + e_y)) * (1 + 2.0**-10)
