# SPDX-License-Identifier: MIT
"""Whole runs and single layers: every check returns the worst |engine - reference| / bound, so
that a test says `assert check(...) <= 1`; a NaN or an infinity makes that false too.

`layer` is the description with the options, None for an LSTM without any. States are tuples:
(h, c) of an LSTM, (h,) of the other cells.
"""

import numpy as np

from oracle import as_tuple, directions, f64, option, valid_rows

from .algebra import TINY, U, exact, normalised, sum_bound, ulp
from .cells import cell_bound, float32


def worst(actual, reference, bound):
    """max |actual - reference| / bound; 0 where there is nothing to compare."""
    actual = f64(actual)
    if actual.shape != np.shape(reference):
        raise ValueError(f"shape {actual.shape}, expected {np.shape(reference)}")
    if not np.isfinite(actual).all():
        return np.inf
    off = np.abs(actual - reference)
    with np.errstate(divide="ignore", invalid="ignore"):  # what was clipped has a bound of 0
        return float(np.max(np.where(off == 0, 0.0, off / bound), initial=0.0))


def stream_check(tensors, prefix, x, states, kind="provable", layer=None):
    """Every layer of a stream (or pool) at every step, teacher-forced in the whole state.

    x (T, I) or (T, B, I); states: T + 1 of them, before the first step and after each, as
    `stream.state` gives them: (h (L, ...), c (L, ...)) or h, a cell's without the L axis.
    """
    stack = directions(tensors, prefix)
    parts = [np.stack(part) for part in zip(*(as_tuple(layer, s) for s in states), strict=True)]
    x = np.asarray(x)
    if parts[0].ndim == x.ndim:  # a cell
        parts = [part[:, None] for part in parts]
    if len(states) != len(x) + 1 or parts[0].shape[1] != len(stack):
        raise ValueError(f"{len(states)} states of {parts[0].shape[1]} layers for T={len(x)}")
    ratios = []
    for k, (w,) in enumerate(stack):
        step = cell_bound(layer, w, x, [part[:-1, k] for part in parts], 0, kind)
        for part, (value, bound) in zip(parts, step.state(), strict=True):
            ratios.append(worst(part[1:, k], value, bound))
        x = parts[0][1:, k]  # the output of a layer is its h, and the input of the next
    return max(ratios)


def direction_check(
    w, x, y, h0, c0, c_n, kind="provable", lengths=None, reverse=False, layer=None, direction=0
):
    """One layer and direction of a sequence x (T, B, I), from its outputs y (T, B, P) and c_n.

    y is the engine's own h at every step, so every step is teacher-forced in h. The engine's c in
    between is not seen: it is carried in float64 together with how far the engine's may lie from
    it (`c_err`), which stays small, for a forget gate is below 1. Every h is checked, and the last
    c of every row; a row's padding must be exactly 0 and length 0 pass c through exactly. Cells
    without c have c0 and c_n None.
    """
    x, y, h = (f64(a) for a in (x, y, h0))
    steps, batch = x.shape[:2]
    valid = valid_rows(steps, batch, lengths)
    if (y[~valid[..., 0]] != 0).any():
        return np.inf
    c = [] if c0 is None else [f64(c0)]
    c_err = [np.zeros_like(a) for a in c]
    ratio = 0.0
    for t in reversed(range(steps)) if reverse else range(steps):
        now = valid[t]
        state, errors = [h, *c], [0.0, *c_err]
        step = cell_bound(layer, w, np.where(now, x[t], 0.0), state, direction, kind, 0.0, errors)
        rows = now[:, 0]
        ratio = max(ratio, worst(y[t][rows], step.h[rows], step.h_bound[rows]))
        if not np.isfinite(y[t]).all():
            return np.inf
        h = np.where(now, y[t], h)
        if c:
            c = [np.where(now, step.c, c[0])]
            c_err = [np.where(now, step.c_bound, c_err[0])]
    if not c:
        return ratio
    # where no step was taken c must be the same number: any difference at all is over TINY / 2
    return max(ratio, worst(c_n, c[0], np.where(c_err[0] > 0, c_err[0], TINY / 2)))


def recurrent_check(
    layer, tensors, prefix, x, outputs, state, final, kind="provable", lengths=None
):
    """A whole recurrent layer on a sequence, all of its layers and directions: x (T, B, I); state
    and final are (h (L*D, B, P), c (L*D, B, H)) or (h,); outputs is y (T, B, D*P) of every layer,
    for L = 1 `[y]`. The lower layers' are had from the models of `first_layers`, whose bits are
    the same."""
    stack = directions(tensors, prefix)
    if len(outputs) != len(stack):
        raise ValueError(f"{len(outputs)} outputs for {len(stack)} layers")
    steps, batch = np.shape(x)[:2]
    last = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    ratio, row = 0.0, 0
    for one, output in zip(stack, outputs, strict=True):
        parts = np.split(np.asarray(output), len(one), axis=-1)
        for d, (w, y) in enumerate(zip(one, parts, strict=True)):
            (h0, *c0), (h_n, *c_n) = ([s[row] for s in given] for given in (state, final))
            c0, c_n = (c[0] if c else None for c in (c0, c_n))
            back = d == 1 or option(layer, "reverse", False)
            found = direction_check(w, x, y, h0, c0, c_n, kind, lengths, back, layer, d)
            # h_n is y at a row's last step, or h0, to the bit
            for b in range(batch):
                end = h0[b] if last[b] == 0 else y[0 if back else last[b] - 1, b]
                found = found if np.array_equal(h_n[b], end) else np.inf
            ratio = max(ratio, found)
            row += 1
        x = output
    return ratio


def lstm_check(tensors, prefix, x, outputs, state, final, kind="provable", lengths=None):
    """The same of an LSTM without options."""
    return recurrent_check(None, tensors, prefix, x, outputs, state, final, kind, lengths)


def first_layers(tensors, prefix, count):
    """The tensors of the first `count` layers of a recurrent layer, under the same prefix."""
    start = f"{prefix}." if prefix else ""
    return {
        name: value
        for name, value in tensors.items()
        if name.startswith(start)
        and any(
            name.removesuffix(".weight").removesuffix(".bias").removesuffix("_reverse")
            .endswith(f"_l{k}")
            for k in range(count)
        )
    }  # fmt: skip


# ---- layers without state ------------------------------------------------------------------------


def linear_bound(weight, bias, x, kind="provable", x_err=0.0):
    """(y, bound) of a Linear layer on the engine's own float32 input x (..., I), or on one known
    to within x_err of x."""
    x = float32("x", x) if np.ndim(x_err) == 0 and x_err == 0 else f64(x)
    bias = np.zeros(len(weight)) if bias is None else bias
    return sum_bound([weight], [x], bias, kind, [x_err])


def fold(weight, bias, scale, shift):
    """(weight, bias), in float64, of a product whose input passes an Affine first:
    W (x * scale + shift) + b = (W * scale) x + (W shift + b). For a Direction, whose biases are
    two, give `bias_sum(w)` and put the result into b_ih, None into b_hh."""
    weight = f64(weight)
    return weight * f64(scale), f64(bias) + weight @ f64(shift)


def affine_bound(x, scale, shift):
    """(y, bound) of an Affine or BatchNorm1d that is not folded, scale and shift float64: each is
    rounded once (not at all, if it was float32), and one fma rounds the result."""
    x, scale, shift = f64(x), f64(scale), f64(shift)
    y = x * scale + shift
    bound = 2.0 * U * (np.abs(x * scale) + np.abs(shift)) + U * np.abs(y) + 2.0 * TINY
    return y, np.where((scale == np.float32(scale)) & (shift == np.float32(shift)), ulp(y), bound)


def layer_norm_bound(x, weight=None, bias=None, eps=1e-5):
    """(y, bound) of LayerNorm on the engine's own float32 input x (..., N): `normalised`, then
    one fma with the weight and bias."""
    y, e_y = normalised(exact(x), eps)
    if weight is not None:
        y, e_y = y * f64(weight), e_y * np.abs(f64(weight))
    if bias is not None:
        y = y + f64(bias)
    return y, (e_y + U * (np.abs(y) + e_y)) * (1 + 2.0**-10)
