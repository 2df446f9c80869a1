# SPDX-License-Identifier: MIT
"""What several nodes of a file compute together, recognised while they are read.

ONNX has no operator for a single step of a cell, and older operator sets none for layer norm and
GELU; exporters write them as sums, products and functions. Parts of such a pattern are kept as
`Partial` results until the node that completes it. One that is used otherwise is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clstm import nn
from clstm.axes import FEATURE, ONE, Axis, Value, refuse, width
from clstm.graph import Graph
from clstm.node import Recurrence

from .const import Const
from .constants import split_sizes

if TYPE_CHECKING:
    from .operators import Op

Array = NDArray[Any]

_WAY = "export nn.LSTM, nn.GRU or nn.RNN, for which ONNX has operators"


@dataclass(eq=False)
class Partial:
    """Part of a pattern: what it is, and of what."""

    name: str  # of the node, for messages
    kind: str
    args: tuple[Any, ...] = ()
    made: Recurrence | None = field(default=None)

    def resolve(self, graph: Graph) -> Value:
        """The value that it is, if it is complete."""
        if self.kind == "cell" and self.made is not None:
            assert self.made.c is not None
            return self.made.c
        if self.kind in ("Tanh", "Relu") and isinstance(self.args[0], Form):
            if self.made is None:
                word = "tanh" if self.kind == "Tanh" else "relu"
                options = {} if word == "tanh" else {"nonlinearity": word}
                self.made = _build(graph, self.name, nn.RNN, [self.args[0]], options)
            return self.made.y
        if self.kind in ("mean", "centred"):
            mean = graph.total(self.name, self.args[0], [-1], mean=True, keep=True)
            return mean if self.kind == "mean" else graph.sub(self.name, self.args[0], mean)
        state = next((s for s in _states(self)), None)
        owner = f"the state input {state.states[0].owner!r}" if state else "its input"
        word = "product" if self.kind == "multiply" else self.kind.lower()
        raise refuse(self.name, f"a {word} of {owner} is not part of a cell or layer "
                     "that clstm recognises", _WAY)  # fmt: skip


@dataclass(eq=False)
class Form(Partial):
    """wx x + bx + wh h + bh of the features x and the state h; either may be absent."""

    x: Value | None = None
    wx: Array | None = None
    bx: Array | None = None
    h: Value | None = None
    wh: Array | None = None
    bh: Array | None = None

    def rows(self, start: int, stop: int) -> Form:
        parts: dict[str, Any] = {w: None if (a := getattr(self, w)) is None else a[start:stop]
                 for w in ("wx", "bx", "wh", "bh")}  # fmt: skip
        return replace(self, **parts)

    @property
    def n(self) -> int:
        weight = self.wx if self.wx is not None else self.wh
        assert weight is not None
        return int(weight.shape[0])


def _states(item: Any) -> list[Any]:
    if isinstance(item, Form):
        return [item.h] if item.h is not None else []
    if isinstance(item, Partial):
        return [s for a in item.args[:4] for s in _states(a)]
    return [item] if is_state(item) else []


def is_state(item: Any) -> bool:
    return (
        isinstance(item, Value)
        and item.states is not None
        and all(isinstance(r.owner, str) for r in item.states)
    )


# ---- recognising -----------------------------------------------------------------------------


def fuse(o: Op) -> Any:
    """What the node gives if it is part of a pattern, else None."""
    for pattern in (_layer_norm, _gelu, _cells):
        found = pattern(o)
        if found is not None:
            return found
    return None


def _scalar(item: Any) -> float | None:
    plain = isinstance(item, Const) and item.array.dtype.kind in "fiu" and not item.repeated
    if plain and item.array.size == 1:
        return float(item.array.reshape(()).item())
    return None


def _near(item: Any, number: float) -> bool:
    found = _scalar(item)
    return found is not None and math.isclose(found, number, rel_tol=1e-6)


def _kind(item: Any, kind: str) -> bool:
    return isinstance(item, Partial) and item.kind == kind


def _layer_norm(o: Op) -> Any:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)"""
    a = o.inputs[0] if o.inputs else None
    b = o.inputs[1] if len(o.inputs) > 1 else None
    if o.op == "ReduceMean":
        value = a.args[0] if isinstance(a, Partial) and a.kind == "square" else a
        if not isinstance(value, Value) or value.states is not None:
            return None
        axes = o.ints(1, "axes")
        if axes not in ([-1], [value.ndim - 1]) or not o.attrs.get("keepdims", 1):
            return None
        o.graph.feature_axis(o.name, value)
        return Partial(o.name, "mean" if value is a else "variance", (value, 0.0))
    if o.op == "Sub" and isinstance(b, Partial) and b.kind == "mean" and b.args[0] is a:
        return Partial(o.name, "centred", (a,))
    if _kind(a, "centred"):
        assert isinstance(a, Partial)
        if (o.op == "Pow" and _near(b, 2)) or (o.op == "Mul" and b is a):
            return Partial(o.name, "square", a.args)
        if o.op == "Div" and isinstance(b, Partial) and b.kind == "deviation":
            value, eps = b.args
            if value is a.args[0]:
                return o.graph.layer_norm(o.name, value, None, None, eps)
    for one, other in ((a, b), (b, a)):
        eps = _scalar(other)
        if _kind(one, "variance") and o.op == "Add" and eps is not None and 0 <= eps < math.inf:
            assert isinstance(one, Partial)
            return Partial(o.name, "variance", (one.args[0], one.args[1] + eps))
    if o.op == "Sqrt" and isinstance(a, Partial) and a.kind == "variance":
        return Partial(o.name, "deviation", a.args)
    return None


def _gelu(o: Op) -> Any:
    """x / 2 (1 + erf(x / sqrt 2))"""
    if o.op == "Erf" and isinstance(o.inputs[0], Value):
        node = o.inputs[0].node
        if node is not None and node.kind is nn.Affine:
            t = node.tensors
            if t["scale"].size == 1 and np.isclose(t["scale"][0], 0.5**0.5, rtol=1e-6) and (
                t["shift"][0] == 0
            ):  # fmt: skip
                return Partial(o.name, "erf", (node.inputs[0],))
    if o.op not in ("Add", "Mul"):
        return None
    for a, b in (o.inputs[:2], o.inputs[1::-1]):
        if o.op == "Add" and _kind(a, "erf") and _near(b, 1):
            return Partial(o.name, "1 + erf", a.args)
        if o.op == "Mul" and isinstance(a, Partial) and a.kind == "1 + erf":
            if isinstance(b, Value) and b.node is a.args[0]:
                return Partial(o.name, "twice gelu", (b,))
            if _near(b, 0.5):
                return Partial(o.name, "half", a.args)
            half = b.node if isinstance(b, Value) else None
            if half is not None and half.kind is nn.Affine and half.inputs[0] is a.args[0] and (
                half.tensors["scale"].tolist() == [0.5] and half.tensors["shift"].tolist() == [0.0]
            ):  # fmt: skip
                assert isinstance(b, Value)
                return o.graph.activation(o.name, nn.GELU(), replace(b, node=a.args[0]))
        if o.op == "Mul" and _kind(a, "twice gelu") and _near(b, 0.5):
            return o.graph.activation(o.name, nn.GELU(), a.args[0])
        if o.op == "Mul" and _kind(a, "half") and isinstance(b, Value) and b.node is a.args[0]:
            return o.graph.activation(o.name, nn.GELU(), b)
    return None


# ---- cells ---------------------------------------------------------------------------------


def _cells(o: Op) -> Any:
    """A step of a cell, from sums and products of x and its state."""
    inputs = [i for i in o.inputs if i is not None]
    if not any(isinstance(i, Partial) or is_state(i) for i in inputs):
        return None
    call = _STEPS.get(o.op)
    found = None if call is None else call(o, inputs)
    if found is None and any(isinstance(i, Partial) for i in inputs) and o.op not in (
        "Identity", "Dropout", "Cast"
    ):  # fmt: skip
        # Completes the pattern, or refuses it by name.
        resolved = [i.resolve(o.graph) if isinstance(i, Partial) else i for i in o.inputs]
        o.inputs = resolved
    return found


def _product(o: Op, inputs: list[Any]) -> Any:
    a = inputs[0]
    joined = _kind(a, "concatenation")
    if not (is_state(a) or joined) or not isinstance(inputs[1], Const):
        return None
    weight = inputs[1].floats(o.name)
    if weight.ndim != 2 or o.attrs.get("transA") or any(
        o.attrs.get(w, 1) != 1 for w in ("alpha", "beta")
    ):  # fmt: skip
        return None
    weight = weight if o.attrs.get("transB") else weight.T
    bias = None
    if len(inputs) > 2:
        if not isinstance(inputs[2], Const) or not _each(inputs[2], weight.shape[0], 2):
            return None
        bias = np.broadcast_to(inputs[2].floats(o.name).reshape(-1), weight.shape[0])
    if not joined:
        if not _of_width(a, weight.shape[1]):
            return None
        return Form(o.name, "product", h=a, wh=weight, bh=bias)
    form = Form(o.name, "product", bx=bias)
    at = 0
    for part in a.args:
        n = part.axes[-1].size or 0
        columns = weight[:, at : at + n]
        at += n
        form = (
            replace(form, h=part, wh=columns)
            if is_state(part)
            else replace(form, x=part, wx=columns)
        )
    return form if at == weight.shape[1] else None


def _each(const: Const, n: int, ndim: int) -> bool:
    """Whether it is a number for each of n features, or one for all, whatever the row."""
    shape, size = const.array.shape, const.array.size
    return len(shape) <= ndim and shape[-1:] == (size,) and size in (1, n) and not const.repeated


def _of_width(state: Value, n: int) -> bool:
    size = state.axes[-1].size
    return state.axes[-1].kind == FEATURE and size in (None, n)


def _concat(o: Op, inputs: list[Any]) -> Any:
    if len(inputs) != 2 or sum(is_state(i) for i in inputs) != 1:
        return None
    n = inputs[0].ndim if isinstance(inputs[0], Value) else 0
    plain = all(isinstance(i, Value) and i.ndim == n and i.axes[-1].size for i in inputs)
    if not plain or int(o.attrs["axis"]) not in (-1, n - 1):
        return None
    return Partial(o.name, "concatenation", tuple(inputs))


def linear_form(name: str, item: Any) -> Form | None:
    """A value that is a linear layer of another, or a part of its features, as a form."""
    if isinstance(item, Form):
        return item
    if not isinstance(item, Value) or item.node is None:
        return None
    node, spans, shifts = item.node, [], []
    while node.kind in (nn.Slice, nn.Affine):
        if node.kind is nn.Slice:
            spans.append(slice(node.options["start"], node.options["stop"]))
        elif np.all(node.tensors["scale"] == 1):
            shifts.append((len(spans), node.tensors["shift"]))
        else:
            return None
        node = node.inputs[0]
    if node.kind is not nn.Linear:
        return None
    weight, bias = node.tensors["weight"], node.tensors.get("bias")
    bias = np.zeros(len(weight), np.float32) if bias is None else bias
    for i in range(len(spans) + 1)[::-1]:
        for place, shift in shifts[::-1]:
            if place == i:
                bias = bias + shift
        if i:
            weight, bias = weight[spans[i - 1]], bias[spans[i - 1]]
    x = replace(
        item,
        node=node.inputs[0],
        axes=(*item.axes[:-1], Axis(FEATURE, weight.shape[1], order=(0,))),
    )
    return Form(name, "product", x=x, wx=weight, bx=bias)


def _add(o: Op, inputs: list[Any]) -> Any:
    made = [i.n for i in inputs if isinstance(i, Form)]
    made += [width(i) for i in inputs if isinstance(i, Value)]
    o.graph.budget.take(4 * sum(made), o.name)  # biases that are summed
    for a, b in (inputs, inputs[::-1]):
        if isinstance(a, Form) and isinstance(b, Const):
            if not _each(b, a.n, _ndim(a)):
                return None
            word = "bx" if a.x is not None else "bh"
            old = getattr(a, word)
            total = (0 if old is None else old) + b.array.reshape(-1)
            changed: dict[str, Any] = {word: np.broadcast_to(total, a.n).astype(np.float32)}
            return replace(a, **changed)
        if _kind(a, "multiply") and (x := linear_form(o.name, b)) is not None and x.h is None:
            for r, hn in (a.args, a.args[::-1]):
                if _kind(r, "Sigmoid") and isinstance(hn, Form) and hn.x is None:
                    return Partial(o.name, "candidate", (r.args[0], x, hn))
        if _kind(a, "multiply") and _kind(b, "multiply"):
            found = _lstm_c(o, a, b) or _gru(o, a, b)
            if found is not None:
                return found
        # (h - n) z + n
        if _kind(a, "multiply") and _kind(b, "Tanh"):
            for difference, z in (a.args, a.args[::-1]):
                if _kind(difference, "difference") and difference.args[1] is b:
                    return _build_gru(o, difference.args[0], z, b)
    a, b = (linear_form(o.name, i) for i in inputs)
    if a is None or b is None or a.n != b.n or (a.x and b.x) or (a.h and b.h):
        return None
    if a.x is None:
        a, b = b, a
    return replace(a, name=o.name, h=b.h, wh=b.wh, bh=b.bh) if b.h is not None else None


def _split(o: Op, inputs: list[Any]) -> Any:
    form = inputs[0]
    if not isinstance(form, Form) or int(o.attrs.get("axis", 0)) not in (-1, _ndim(form) - 1):
        return None
    sizes = split_sizes(o.name, form.n, o.ints(1, "split"), o.attrs, o.n_outputs)
    ends = np.cumsum(sizes).tolist()
    return [form.rows(end - n, end) for n, end in zip(sizes, ends, strict=True)]


def _ndim(form: Form) -> int:
    value = form.x if form.x is not None else form.h
    assert value is not None
    return value.ndim


def _slice(o: Op, inputs: list[Any]) -> Any:
    form = inputs[0]
    if not isinstance(form, Form):
        return None
    starts, ends, axes, steps = (o.ints(i + 1, w) for i, w in
                                 enumerate(("starts", "ends", "axes", "steps")))  # fmt: skip
    if not starts or not ends or len(starts) != 1 or axes not in ([-1], [_ndim(form) - 1]):
        return None
    picked = range(form.n)[slice(starts[0], ends[0])]
    return form.rows(picked.start, picked.stop) if picked and steps in (None, [1]) else None


def _function(o: Op, inputs: list[Any]) -> Any:
    a = inputs[0]
    if isinstance(a, Form) or _kind(a, "candidate") or _kind(a, "cell"):
        return Partial(o.name, o.op, (a,))
    return None


def _multiply(o: Op, inputs: list[Any]) -> Any:
    a, b = inputs[:2]
    for first, second in ((a, b), (b, a)):
        if _kind(first, "Sigmoid") and _kind(second, "Tanh") and _kind(second.args[0], "cell"):
            return _build_lstm(o, second.args[0], first.args[0])
    return Partial(o.name, "multiply", (a, b))


def _subtract(o: Op, inputs: list[Any]) -> Any:
    a, b = inputs[:2]
    if _near(a, 1) and _kind(b, "Sigmoid"):
        return Partial(o.name, "complement", (b,))
    if is_state(a) and _kind(b, "Tanh"):
        return Partial(o.name, "difference", (a, b))
    return None


def _lstm_c(o: Op, a: Partial, b: Partial) -> Any:
    """f c + i g"""
    for kept, new in ((a, b), (b, a)):
        for f, c in (kept.args, kept.args[::-1]):
            for i, g in (new.args, new.args[::-1]):
                gates = _kind(f, "Sigmoid") and _kind(i, "Sigmoid") and _kind(g, "Tanh")
                forms = [i, f, g]
                if gates and is_state(c) and all(isinstance(p.args[0], Form) for p in forms):
                    return Partial(o.name, "cell", (*(p.args[0] for p in forms), c))
    return None


def _gru(o: Op, a: Partial, b: Partial) -> Any:
    """(1 - z) n + z h"""
    for new, kept in ((a, b), (b, a)):
        for complement, n in (new.args, new.args[::-1]):
            for z, h in (kept.args, kept.args[::-1]):
                if _kind(complement, "complement") and complement.args[0] is z and is_state(h):
                    return _build_gru(o, h, z, n)
    return None


def _build_lstm(o: Op, cell: Partial, out: Form) -> Value | None:
    *forms, c = cell.args
    if not isinstance(out, Form) or cell.made is not None:
        return None
    cell.made = _build(o.graph, o.name, nn.LSTM, [*forms, out], {}, c)
    return cell.made.y


def _build_gru(o: Op, h: Value, z: Any, n: Any) -> Value | None:
    if not (_kind(z, "Sigmoid") and _kind(n, "Tanh") and _kind(n.args[0], "candidate")):
        return None
    r, xn, hn = n.args[0].args
    candidate = replace(xn, h=hn.h, wh=hn.wh, bh=hn.bh)
    forms = [r, z.args[0], candidate]
    if not all(isinstance(f, Form) for f in forms) or any(f.h is not None and not _one_state(
            f.h, h) for f in forms):  # fmt: skip
        return None
    return _build(o.graph, o.name, nn.GRU, forms, {}).y


def _one_state(a: Value, b: Value) -> bool:
    return a.states == b.states and a.ndim == b.ndim


def _build(
    graph: Graph, name: str, kind: type[nn.Layer], forms: Sequence[Form],
    options: dict[str, Any], c: Value | None = None,
) -> Recurrence:  # fmt: skip
    """The cell whose gates these are, in torch's order."""
    x, h = forms[0].x, forms[0].h
    n = forms[0].n
    whole = [f for f in forms if f.x is not None and f.h is not None and f.n == n]
    same = len(whole) == len(forms) and all(
        f.x is not None and x is not None and f.x.node is x.node and f.x.axes == x.axes
        and f.h is not None and h is not None and _one_state(f.h, h)
        and f.wh is not None and f.wh.shape == (n, n)
        for f in forms
    )  # fmt: skip
    if not same or x is None or h is None or len(h.states or ()) != 1:
        raise refuse(name, "gates that do not read one input and one state of their own size", _WAY)
    rows = [i for i, a in enumerate(x.axes[:-1]) if a.kind != ONE]
    if x.last or len(rows) > 1 or x.ndim > 3 or h.ndim != x.ndim or (c and c.ndim != x.ndim):
        raise refuse(name, "a cell over several time steps at once", _WAY)
    batch = rows[0] if rows else (0 if x.ndim == 2 else x.ndim - 2 if x.ndim == 3 else None)
    time = next((i for i in range(x.ndim - 1) if i != batch), None)
    cell = {
        "weight_ih": np.concatenate([f.wx for f in forms]),
        "weight_hh": np.concatenate([f.wh for f in forms]),
    }
    for word, key in (("bias_ih", "bx"), ("bias_hh", "bh")):
        parts = [getattr(f, key) for f in forms]
        cell[word] = np.concatenate([np.zeros(n, np.float32) if p is None else p for p in parts])
    initial = {"h0": h} | ({"c0": c} if c is not None else {})
    return graph.recurrent(name, kind, x, [cell], time=time, batch=batch, hidden=n, out=n,
                           initial=initial, options=options)  # fmt: skip


_STEPS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "Gemm": _product, "MatMul": _product, "Concat": _concat, "Add": _add, "Split": _split,
    "Slice": _slice, "Sigmoid": _function, "Tanh": _function, "Relu": _function,
    "Mul": _multiply, "Sub": _subtract,
}  # fmt: skip
