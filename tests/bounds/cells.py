# SPDX-License-Identifier: MIT
"""One teacher-forced step of every cell, as its equations in the numbers of `algebra`.

**A gate** is its function on the sum of products. **c' = fma(f, c, fl(i g))**, or a blend of c and
g where one gate is derived from the other. **h' = fl(o h(c'))**; under a projection that is what
W_hr multiplies, a sum from its bias. What an option adds to an equation adds its operation here;
numbers of the caller's (clips, alpha and beta, zoneout) are rounded once by the engine.

**After a layer norm** the gate's weight, offset, both biases, a forget bias and the peephole's
product are added in an order that this does not ask for: there are at most 6 roundings of partial
sums, none larger than the sum T of all terms' sizes, so 6 u T covers any order, a fold of the
constant ones at load included. (Half of it would do for the usual orders; a norm's own error is
larger than either.)

**Flush**: allowed for c and for h, and for h before a projection too.
"""

from typing import NamedTuple

import numpy as np

import oracle
from oracle import Direction, bias_sum, f64, gate_rows, kind_of, option

from .activations import activate
from .algebra import (
    TINY,
    Near,
    U,
    blend,
    clip,
    exact,
    features,
    flushed,
    fma,
    moved,
    mul,
    normalised,
    number,
    sum_bound,
    sum_of_products,
)


class Step(NamedTuple):
    """One step in float64 and how far float32 may lie from it, elementwise."""

    h: np.ndarray  # (..., P)
    c: np.ndarray | None  # (..., H) of an LSTM
    h_bound: np.ndarray
    c_bound: np.ndarray | None
    z: np.ndarray  # (..., G*H): sums of products with the biases, in the order of the rows
    z_bound: np.ndarray

    def state(self):
        """(value, bound) of each part of the state."""
        parts = [(self.h, self.h_bound)]
        return parts if self.c is None else [*parts, (self.c, self.c_bound)]


def float32(name, a):
    """The engine's own numbers, in float64: refuse what float32 cannot hold, since the reference
    would then be of other inputs than the engine saw. NaN and infinity have no bound either."""
    a = f64(a)
    with np.errstate(over="ignore"):
        same = np.array_equal(a, a.astype(np.float32))
    if not same or not np.isfinite(a).all():
        raise ValueError(f"{name} is not finite float32")
    return a


def _given(name, a, error):
    """Near: exactly the engine's own where the error is 0, else within it."""
    if np.ndim(error) == 0 and error == 0:
        return exact(float32(name, a))
    a = f64(a)
    return Near(a, np.broadcast_to(f64(error), a.shape))


def _sum(weights, inputs, bias, kind, bias_err=0.0, diagonal=()):
    values, errors = [a.value for a in inputs], [a.err for a in inputs]
    return Near(*sum_bound(weights, values, bias, kind, errors, bias_err, diagonal))


class _Gates:
    """The pre-activations of an LSTM's step, by gate."""

    def __init__(self, layer, w, x, h, kind):
        self.layer, self.w, self.x, self.h, self.kind = layer, w, x, h, kind
        self.rows, self.hidden = gate_rows(layer), w.hidden_size
        self.norm = option(layer, "layer_norm", None)
        self.full = option(layer, "peephole", None) == "full"
        self.peephole = {}
        if option(layer, "peephole", None) == "diagonal":
            self.peephole = oracle.diagonal_peephole(layer, w)
        forget = option(layer, "forget_bias", 0.0)
        self.bias = np.zeros(len(w.w_ih)) + bias_sum(w)
        self.bias_err = np.zeros(len(w.w_ih))
        if forget and "f" in self.rows:
            f = self.slice("f")
            both = np.abs(self.bias[f])
            self.bias[f] += forget
            self.bias_err[f] = 2 * U * (both + abs(forget)) + number(forget).err
        if self.norm is not None:
            zero = np.zeros(len(w.w_ih))
            if self.norm.get("separate", False):
                self.sums = _sum([w.w_ih], [x], zero, kind), _sum([w.w_hh], [h], zero, kind)
            else:
                self.sums = (_sum([w.w_ih, w.w_hh], [x, h], zero, kind),)

    def slice(self, gate):
        k = self.rows.index(gate)
        return slice(k * self.hidden, (k + 1) * self.hidden)

    def sum(self, gate, c, bias=True):
        """W x + U h + b (+ C c, + p c) of one gate."""
        mine, w = self.slice(gate), self.w
        weights, inputs = [f64(w.w_ih)[mine], f64(w.w_hh)[mine]], [self.x, self.h]
        if self.full:
            weights, inputs = [*weights, f64(w.w_ch)[mine]], [*inputs, c]
        diagonal = [(self.peephole[gate], c)] if gate in self.peephole else []
        start, start_err = self.bias[mine], self.bias_err[mine]
        if not bias:
            start, start_err = np.zeros(self.hidden), 0.0
        return _sum(weights, inputs, start, self.kind, start_err, diagonal)

    def normal(self, gate, c):
        """The same with the sums normalised and the rest added after it."""
        mine, w, eps = self.slice(gate), self.w, self.norm.get("eps", 1e-5)
        per_gate, separate = (self.norm.get(s, False) for s in ("per_gate", "separate"))
        peephole = gate in self.peephole
        lanes = -(-self.hidden // 16)
        if per_gate and not separate and peephole:
            parts, peephole = [normalised(self.sum(gate, c, bias=False), eps, lanes)], False
        elif per_gate:
            parts = [normalised(features(a, mine), eps, lanes) for a in self.sums]
        else:  # joint: sixteen lanes may be had of each gate for itself
            whole = [normalised(a, eps, lanes * len(self.rows)) for a in self.sums]
            parts = [features(a, mine) for a in whole]
        value, carried, terms = self.bias[mine], self.bias_err[mine], np.abs(bias_sum(w)[mine])
        terms = terms + np.abs(self.bias[mine])
        names = ("ln_ih", "ln_hh")[: len(parts)]
        for name, part in zip(names, parts, strict=True):
            weight, offset = getattr(w, name), getattr(w, f"{name}_bias")
            one = mul(part, exact(f64(weight)[mine]))
            value, carried = value + one.value, carried + one.err
            terms = terms + one.largest
            if offset is not None:
                value, terms = value + f64(offset)[mine], terms + np.abs(f64(offset)[mine])
        if peephole:
            p = exact(self.peephole[gate])
            value, carried = value + p.value * c.value, carried + moved(p, c)
            terms = terms + p.largest * c.largest
        return Near(value, carried + 6 * U * (terms + carried) + TINY)

    def __call__(self, gate, c):
        z = self.sum(gate, c) if self.norm is None else self.normal(gate, c)
        return clip(z, option(self.layer, "clip", None))


def _cell_norm(w, c, eps):
    n = normalised(c, eps)
    if w.ln_cell_bias is None:
        return mul(n, exact(w.ln_cell))
    return fma(n, exact(w.ln_cell), exact(w.ln_cell_bias))


def _lstm(layer, w, x, h, c, direction, kind):
    gates = _Gates(layer, w, x, h, kind)
    f_of, g_of, h_of = oracle.activations(layer, direction)
    norm = option(layer, "layer_norm", None) or {}
    cell_norm, eps = norm.get("cell", False), norm.get("eps", 1e-5)
    coupled = option(layer, "coupled", None)

    g = activate(g_of, gates("g", c))
    if coupled == "f=1-i":
        new = blend(activate(f_of, gates("i", c)), g, c)
    elif coupled == "i=1-f":
        new = blend(activate(f_of, gates("f", c)), c, g)
    else:
        i, f = activate(f_of, gates("i", c)), activate(f_of, gates("f", c))
        new = sum_of_products(f, c, i, g)
    limit, stored = option(layer, "cell_clip", None), option(layer, "cell_clip_stored", False)
    if stored:
        new = clip(new, limit)
    if cell_norm == "stored":
        new = _cell_norm(w, new, eps)
    new = flushed(new)

    sees_new = bool(gates.peephole) or option(layer, "output_peephole", "old") == "new"
    o = activate(f_of, gates("o", new if sees_new else c))
    shown = _cell_norm(w, new, eps) if cell_norm is True else new
    if not stored:
        shown = clip(shown, limit)
    out = flushed(mul(o, activate(h_of, shown)))
    if w.w_hr is not None:
        bias = np.zeros(w.output_size) if w.b_hr is None else w.b_hr
        out = flushed(clip(_sum([w.w_hr], [out], bias, kind), option(layer, "proj_clip", None)))
    if option(layer, "zoneout", None) is not None:
        p_h, p_c = (number(p) for p in layer.zoneout)
        out, new = flushed(blend(p_h, h, out)), flushed(blend(p_c, c, new))
    return out, new


def _gru(layer, w, x, h, direction, kind):
    f_of, g_of = oracle.activations(layer, direction)
    limit, hidden = option(layer, "clip", None), w.hidden_size
    both = bias_sum(w)
    r, z = (
        activate(f_of, clip(_sum([f64(w.w_ih)[k], f64(w.w_hh)[k]], [x, h], both[k], kind), limit))
        for k in (slice(hidden), slice(hidden, 2 * hidden))
    )
    n = slice(2 * hidden, None)
    w_n, u_n = f64(w.w_ih)[n], f64(w.w_hh)[n]
    if option(layer, "linear_before_reset", True):
        b_n, d_n = (np.zeros(hidden) if b is None else f64(b)[n] for b in (w.b_ih, w.b_hh))
        argument = fma(r, _sum([u_n], [h], d_n, kind), _sum([w_n], [x], b_n, kind))
    else:
        argument = _sum([w_n, u_n], [x, mul(r, h)], both[n], kind)
    candidate = activate(g_of, clip(argument, limit))
    return (blend(z, h, candidate),)


def _rnn(layer, w, x, h, direction, kind):
    (f_of,) = oracle.activations(layer, direction)
    z = _sum([w.w_ih, w.w_hh], [x, h], bias_sum(w), kind)
    return (activate(f_of, clip(z, option(layer, "clip", None))),)


def cell_bound(
    layer, w: Direction, x, state, direction=0, kind="provable", x_err=0.0, errors=None
) -> Step:
    """One teacher-forced step of one layer and direction: x (..., I), state (h,) or (h, c) are
    what the engine itself stepped from, float32. Where one of them is not the engine's own but
    float64 within a known distance, `x_err` and `errors` say so and are carried through."""
    near_x = _given("x", x, x_err)
    errors = errors or [0.0] * len(state)
    near = [_given(n, s, e) for n, s, e in zip("hc", state, errors, strict=False)]
    step = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[kind_of(layer)]
    new = [flushed(a) for a in step(layer, w, near_x, *near, direction, kind)]
    z = _sum([w.w_ih, w.w_hh], [near_x, near[0]], bias_sum(w), kind)
    h, c = new[0], new[1] if len(new) > 1 else None
    values = (h.value, None) if c is None else (h.value, c.value)
    bounds = (h.err, None) if c is None else (h.err, c.err)
    return Step(*values, *bounds, z.value, z.err)


def step_bound(w: Direction, x, h, c, kind="provable", x_err=0.0, h_err=0.0, c_err=0.0) -> Step:
    """The same of an LSTM without options."""
    return cell_bound(None, w, x, (h, c), 0, kind, x_err, (h_err, c_err))
