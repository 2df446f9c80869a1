# SPDX-License-Identifier: MIT
"""A traced graph becomes layers: the builder that both front ends use, ONNX and torch.export.

A front end calls one method for each operation, with the operation's name first (messages show
it) and values as this module returns them; `finish` gives the descriptions and the tensors. What
only moves axes is in `clstm.axes` and is followed, not run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import axes as ax
from . import nn
from .axes import FEATURE, LAYER, ONE, ROW, Array, Axis, One, Size, StateRow, Value, refuse, width
from .formats.budget import Budget
from .node import Node, Recurrence, Tensors, bind_initial

MOST_CELLS = 2**16


class Graph:
    """The builder."""

    def __init__(self, *, merge: bool = True, budget: Budget | None = None) -> None:
        """merge: recurrent layers that only feed the next, alike, become one of several layers.
        budget: for the tensors of the layers; None: of a module, which is in memory already."""
        self.merge, self.budget = merge, budget or Budget(sys.maxsize)
        self.source = Node("the input", nn.Identity)
        self.nodes: list[Node] = []
        self.n_rows = 0
        self.time: int | None = None  # which axis of the input
        self.stepwise = False  # a recurrent layer took one step, without an axis of time
        self.cuts: list[str] = []  # operations that take the last row, ragged or not
        self.used_states: dict[tuple[str, int], StateRow] = {}
        self.rows: tuple[Axis, ...] = ()
        self.picked: dict[tuple[int, ...], str] = {}  # rows of size 1 that a node took out

    # ---- inputs -----------------------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int | None], *, tokens: bool = False) -> Value:
        """The model's input: rows and then features, or tokens. None: size known when run."""
        if any(n is not None and n < 1 for n in shape):
            raise refuse(name, f"an input of shape {tuple(shape)}")
        n = len(shape) if tokens else len(shape) - 1
        if not 0 <= n <= 2 or (tokens and n == 0):
            raise refuse(name, f"an input of {len(shape)} axes; expected time, batch and features")
        self.rows = tuple(Axis(ROW, shape[i], (i,)) for i in range(n))
        self.n_rows = n
        if tokens:
            return Value(self.rows, self.source)
        size = shape[-1]
        if size is None:
            raise refuse(name, "the number of features is not fixed",
                         "export with the last axis of the input static")  # fmt: skip
        self.source.width = size
        return Value((*self.rows, Axis(FEATURE, size, order=(0,))), self.source)

    def state(self, name: str, shape: Sequence[int | None], layers: Sequence[int] = (0,)) -> Value:
        """A state input: its axes of layers, the batch, and features last."""
        axes: list[Axis] = []
        n = 1
        for i, size in enumerate(shape):
            if i in layers:
                if size is None or size < 1:
                    raise refuse(name, "the number of layers of a state is not fixed")
                n *= size
                axes.append(Axis(LAYER, size, order=(i,)) if size > 1 else One)
            elif i == len(shape) - 1:
                axes.append(Axis(FEATURE, size, order=(0,)))
            else:
                axes.append(Axis(ROW, size, (-1,)))  # the batch, whichever axis of x it is
        if n > MOST_CELLS:
            raise refuse(name, f"a state of {n} layers")
        return Value(tuple(axes), states=tuple(StateRow(name, "", i) for i in range(n)))

    # ---- axes -------------------------------------------------------------------------------

    permute = staticmethod(ax.permute)
    unsqueeze = staticmethod(ax.unsqueeze)
    squeeze = staticmethod(ax.squeeze)
    reshape = staticmethod(ax.reshape)
    expand = staticmethod(ax.expand)

    def select(self, node: str, value: Value, axis: int, index: int) -> Value:
        """One element of an axis, which goes away."""
        axis = ax.axis_number(node, value, axis)
        return self.slice(node, value, axis, index, index + 1 or None, keep=False)

    def slice(
        self, node: str, value: Value, axis: int, start: int | None, stop: int | None,
        step: int = 1, *, keep: bool = True,
    ) -> Value:  # fmt: skip
        """start:stop:step of an axis: of features, layers of a state, or the last time step."""
        axis = ax.axis_number(node, value, axis)
        a = value.axes[axis]
        if a.size is None:
            start = start or 0
            if step == 1 and start == 0 and (stop is None or stop >= 2**31 - 1) and keep:
                return value
            if step == 1 and start == -1 and (stop is None or stop >= 2**31 - 1):
                return self._last(node, value, axis, keep)
            if step == 1 and (start, stop) == (0, 1) and a.rows == (self.time,):
                return self._last(node, self.first(node, value), axis, keep)
            raise ax.row_slice(node, a, start, self.time is None)
        if a.kind == ROW and a.size == 1 and keep:
            last = ax.one_row(node, a, start, stop, step)
            return self._last(node, value, axis, keep) if last else value
        picked = range(a.size)[slice(start, stop, step)]
        if not picked or (not keep and len(picked) != 1):
            raise refuse(node, f"slices {start}:{stop}:{step} of an axis of {a.size}")
        if a.kind == LAYER or (a.kind == ONE and value.states is not None):
            if a.kind == ONE:
                return value if keep else ax.squeeze(node, value, [axis])
            return ax.select_states(value, axis, picked, keep)
        if len(picked) == a.size and step > 0 and keep:
            return value
        if a.kind == ONE:
            return value if keep else ax.squeeze(node, value, [axis])
        if a.kind == ROW:
            if a.size == 1 and a.rows != (self.time,):
                self.picked[a.rows] = node  # the one sequence of the batch, or a single step
                return ax.squeeze(node, value, [axis])
            if picked == range(a.size - 1, a.size) and (a.size > 1 or start == -1):
                return self._last(node, value, axis, keep)
            if picked == range(1) and a.size > 1 and a.rows == (self.time,):
                return self._last(node, self.first(node, value), axis, keep)
            raise ax.row_slice(node, a, picked[0], self.time is None)
        if picked.step != 1 and len(picked) > 1:
            raise refuse(node, f"picks features in steps of {step}", "use a Linear layer")
        return self._features(node, value, axis, picked[0], picked[-1] + 1, keep)

    def first(self, node: str, value: Value) -> Value:
        """At every time step what was there at the first."""
        return self._map(node, nn.First, self.rowwise(node, value), {})

    def _last(self, node: str, value: Value, axis: int, keep: bool) -> Value:
        a = value.axes[axis]
        if len(a.rows) != 1:
            raise refuse(node, "takes the last of time and batch together")
        self.bind_time(node, a)
        self.cuts.append(node)
        rest = (One,) if keep else ()
        axes = (*value.axes[:axis], *rest, *value.axes[axis + 1 :])
        return replace(value, axes=axes, last=True)

    def _features(
        self, node: str, value: Value, axis: int, start: int, stop: int, keep: bool
    ) -> Value:
        value = self.rowwise(node, value)
        order = ax.factors(value, FEATURE)
        if axis != next((i for i in order if value.axes[i].size != 1), axis):
            raise refuse(node, "takes a part of each part of the features")
        size = value.axes[axis].size or 1
        rest = width(value) // size
        out = self._add(node, nn.Slice, (value,), (stop - start) * rest,
                        {"start": start * rest, "stop": stop * rest})  # fmt: skip
        axes = list(value.axes)
        axes[axis] = replace(axes[axis], size=stop - start)
        if not keep:
            del axes[axis]
        return replace(value, axes=tuple(axes), node=out)

    def bind_time(self, node: str, axis: Axis) -> None:
        """This axis of the input is time."""
        if axis.kind != ROW or len(axis.rows) != 1 or axis.rows[0] < 0:
            raise refuse(node, f"runs over {axis} as time", "it keeps time and batch apart only "
                         "if a reshape does" if len(axis.rows) > 1 else "")  # fmt: skip
        if self.time not in (None, axis.rows[0]):
            raise refuse(node, f"runs over axis {axis.rows[0]} of the input as time, but axis "
                         f"{self.time} is", "clstm runs along one axis only")  # fmt: skip
        if axis.rows in self.picked:
            raise ax.row_slice(self.picked[axis.rows], axis, 0, True)
        self.time = axis.rows[0]

    # ---- rows of features -----------------------------------------------------------------------

    def rowwise(self, node: str, value: Value) -> Value:
        """The value as rows of features: a final h is the last time step of y, where it is."""
        if value.states is None:
            if value.node is self.source and not self.source.width:
                raise refuse(node, "computes with tokens", "only an Embedding reads them")
            return value
        row = value.states[0]
        if isinstance(row.owner, str):
            raise refuse(node, f"computes with the state input {row.owner!r}, which clstm takes "
                         "only as the initial state of a recurrent layer")  # fmt: skip
        rec: Node = row.owner
        layer, direction = divmod(row.index, rec.directions)
        top = len(rec.cells) // rec.directions - 1
        if len(value.states) != 1 or row.word != "h" or layer != top:
            raise refuse(
                node, f"computes with final states of {rec.name} that no time step of its output "
                "holds (c, a lower layer's, or several at once)",
                "m(x) returns the states beside y: compute with them outside of the model",
            )  # fmt: skip
        value = replace(value, node=rec, states=None, last=not self.stepwise)
        if rec.directions == 2:
            n = rec.width // 2
            span = {"start": direction * n, "stop": (direction + 1) * n}
            value = replace(value, node=self._add(node, nn.Slice, [value], n, span))
        if direction == 1 or rec.options.get("reverse"):  # its last step is the sequence's first
            value = self.first(node, value)
        return value

    def feature_axis(self, node: str, value: Value, axis: int = -1) -> Value:
        """The value as rows of which this axis holds all features; else refuses."""
        value = ax.restored(self.rowwise(node, value), ax.axis_number(node, value, axis))
        a = value.axes[axis]
        if a.kind != FEATURE or a.size != width(value):
            raise refuse(node, f"works along axis {axis} of {value.kinds()}, which is not all of "
                         "the features", "clstm works along the features only")  # fmt: skip
        return value

    def _add(
        self, node: str, kind: type[nn.Layer], values: Sequence[Value], n_out: int,
        options: dict[str, Any] | None = None, tensors: Tensors | None = None, prefix: str = "",
    ) -> Node:  # fmt: skip
        made = Node(node, kind, options or {}, tensors or {},
                    tuple(v.node for v in values), n_out, prefix)  # fmt: skip
        self.nodes.append(made)
        return made

    def _map(self, node: str, kind: type[nn.Layer], value: Value, options: dict[str, Any],
             tensors: Tensors | None = None, prefix: str = "") -> Value:  # fmt: skip
        return replace(
            value,
            node=self._add(node, kind, [value], width(value), options, tensors, prefix),
        )

    def activation(self, node: str, layer: nn.Layer, value: Value) -> Value:
        """A layer of clstm.nn without tensors that works on each number alone."""
        return self._map(node, type(layer), self.rowwise(node, value), layer.options())

    def prelu(self, node: str, value: Value, weight: Array) -> Value:
        value = self.rowwise(node, value)
        weight = ax.vector(node, value, weight, self.budget)
        return self._map(node, nn.PReLU, value, {}, {"weight": weight})

    def softmax(self, node: str, value: Value, axis: int = -1, *, log: bool = False) -> Value:
        value = self.feature_axis(node, value, axis)
        return self._map(node, nn.LogSoftmax if log else nn.Softmax, value, {})

    def layer_norm(
        self, node: str, value: Value, weight: Array | None, bias: Array | None, eps: float,
        prefix: str = "",
    ) -> Value:  # fmt: skip
        """Over the last axis."""
        value = self.feature_axis(node, value)
        n = width(value)
        tensors = {w: ax.flat(node, a, n, self.budget)
                   for w, a in (("weight", weight), ("bias", bias)) if a is not None}  # fmt: skip
        options: dict[str, Any] = {"eps": eps}
        if not tensors:
            options["normalized_shape"] = n
        return self._map(node, nn.LayerNorm, value, options, tensors, prefix)

    def batch_norm(
        self, node: str, value: Value, axis: int, mean: Array, var: Array,
        weight: Array | None, bias: Array | None, eps: float, prefix: str = "",
    ) -> Value:  # fmt: skip
        value = self.feature_axis(node, value, axis)
        given = {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias}
        n = width(value)
        tensors = {w: ax.flat(node, a, n, self.budget) for w, a in given.items() if a is not None}
        return self._map(node, nn.BatchNorm1d, value, {"eps": eps}, tensors, prefix)

    def affine(self, node: str, value: Value, scale: Any, shift: Any) -> Value:
        """value * scale + shift; constants that broadcast to the value, or None."""
        value = self.rowwise(node, value)
        before = value.node
        if before.kind is nn.Linear and scale is None and "bias" not in before.tensors:
            # The bias of a product; the one without goes away if nothing else reads it.
            bias = ax.vector(node, value, shift, self.budget)
            bias = ax.flat(node, bias, before.width, self.budget)
            tensors = {"weight": before.tensors["weight"], "bias": bias}
            made = Node(before.name, nn.Linear, {}, tensors, before.inputs, before.width,
                        before.prefix)  # fmt: skip
            self.nodes.append(made)
            return replace(value, node=made)
        if before.kind is nn.Affine and scale is None and not before.tensors["shift"].any():
            # A product with a constant and then a sum: one layer.
            scale, value = before.tensors["scale"], replace(value, node=before.inputs[0])
            if scale.size > 1:
                shift = ax.vector(node, value, shift, self.budget)
                flat = replace(value, axes=(Axis(FEATURE, scale.size, order=(0,)),))
                return replace(self.affine(node, flat, scale, shift), axes=value.axes)
        given = (np.ones(1) if scale is None else scale, np.zeros(1) if shift is None else shift)
        words = {w: ax.vector(node, value, a, self.budget)
                 for w, a in zip(("scale", "shift"), given, strict=True)}  # fmt: skip
        n = max(a.size for a in words.values())
        words = {w: np.ascontiguousarray(np.broadcast_to(a, n)) for w, a in words.items()}
        return self._map(node, nn.Affine, value, {}, words)

    def linear(
        self, node: str, value: Value, weight: Array, bias: Array | None = None, prefix: str = ""
    ) -> Value:
        """The last axis times weight (O, I), plus bias (O,)."""
        value = self.feature_axis(node, value)
        if weight.ndim != 2 or weight.shape[1] != width(value) or not weight.shape[0]:
            raise refuse(node, f"a weight of shape {weight.shape} for {width(value)} features")
        tensors = {"weight": weight}
        if bias is not None:
            tensors["bias"] = ax.flat(node, bias, weight.shape[0], self.budget)
        out = self._add(node, nn.Linear, [value], weight.shape[0], None, tensors, prefix)
        a = Axis(FEATURE, weight.shape[0], order=(0,))
        return replace(value, axes=(*value.axes[:-1], a), node=out)

    def total(
        self, node: str, value: Value, places: Sequence[int], *, mean: bool, keep: bool
    ) -> Value:
        """The sum or mean over axes of features, as a product with a constant matrix."""
        value, word = self.rowwise(node, value), "mean" if mean else "sum"
        where = {ax.axis_number(node, value, i) for i in places}
        for i in sorted(where):
            if value.axes[i].kind not in (FEATURE, ONE):
                raise refuse(node, f"takes the {word} over {value.axes[i]}, and clstm over the "
                             "features only", "return what it reads, and take the "
                             f"{word} outside of the model")  # fmt: skip
        weight = ax.sums(node, value, where, self.budget)
        weight *= len(weight) / weight.shape[1] if mean else 1
        made = self._add(node, nn.Linear, [value], len(weight), None, {"weight": weight})
        axes = [replace(a, size=1) if i in where else a for i, a in enumerate(value.axes)]
        kept = tuple(a for i, a in enumerate(axes) if keep or i not in where)
        return replace(value, axes=kept, node=made)

    def embedding(self, node: str, value: Value, weight: Array, prefix: str = "") -> Value:
        """A row of weight (V, E) for each token of the input."""
        if value.node is not self.source or self.source.width or weight.ndim != 2:
            raise refuse(node, "looks up what is not the model's input of tokens")
        out = self._add(node, nn.Embedding, [value], weight.shape[1], None,
                        {"weight": weight}, prefix)  # fmt: skip
        axes = (*value.axes, Axis(FEATURE, weight.shape[1], order=(0,)))
        return replace(value, axes=axes, node=out)

    # ---- several values -------------------------------------------------------------------------

    def _aligned(self, node: str, values: Sequence[Value]) -> list[Value]:
        """Values of the same axes, so that their rows belong together."""
        values = [self.rowwise(node, v) for v in values]
        n = max(v.ndim for v in values)
        values = [ax.unsqueeze(node, v, range(n - v.ndim)) for v in values]
        if len({v.last for v in values}) > 1:
            raise refuse(node, "mixes the last time step with every time step")
        return values

    def combine(self, node: str, kind: type[nn.Add] | type[nn.Mul], a: Value, b: Value) -> Value:
        """The sum or product of two values, feature by feature."""
        a, b = self._aligned(node, (a, b))
        a, b = self._stretched(node, a, b), self._stretched(node, b, a)
        if not ax.same_axes(a.axes, b.axes):
            raise refuse(node, f"combines {a.kinds()} with {b.kinds()} of "
                         f"{width(a)} and {width(b)} features")  # fmt: skip
        return replace(a, node=self._add(node, kind, (a, b), width(a)))

    def _stretched(self, node: str, value: Value, other: Value) -> Value:
        """One feature beside several is repeated, exactly, by a product with ones."""
        n = width(other)
        one = width(value) == 1 < n == other.axes[-1].size and value.axes[-1].size == 1
        if not one or not ax.same_axes(value.axes[:-1], other.axes[:-1]):
            return value
        return self.linear(node, value, np.broadcast_to(np.float32(1), (n, 1)))

    def add(self, node: str, a: Value, b: Value) -> Value:
        return self.combine(node, nn.Add, a, b)

    def sub(self, node: str, a: Value, b: Value) -> Value:
        return self.combine(node, nn.Add, a, self.affine(node, b, np.float32(-1), None))

    def mul(self, node: str, a: Value, b: Value) -> Value:
        return self.combine(node, nn.Mul, a, b)

    def concat(self, node: str, values: Sequence[Value], axis: int) -> Value:
        """Along the features, or states along their layers."""
        axis = ax.axis_number(node, values[0], axis)
        if all(v.states is not None for v in values) and values[0].axes[axis].kind in (LAYER, ONE):
            return ax.join_states(node, values, axis)
        if len({v.ndim for v in values}) > 1:
            raise refuse(node, "concatenates values of different numbers of axes")
        values = self._aligned(node, values)
        first = values[0]
        if len(values) == 1:
            return first
        for v in values:
            a = v.axes[axis]
            order = ax.factors(v, FEATURE)
            rest = ax.same_axes((*v.axes[:axis], *v.axes[axis + 1 :]),
                         (*first.axes[:axis], *first.axes[axis + 1 :]))  # fmt: skip
            slowest = order and order[0] == axis
            if a.kind == ONE and rest and len(order) > 0:
                slowest = True  # stacked: the new factor is the slowest
            if a.kind not in (FEATURE, ONE) or not rest or not slowest:
                raise refuse(node, f"concatenates {v.kinds()} along {a}",
                             "clstm concatenates features only")  # fmt: skip
        size = sum(v.axes[axis].size or 1 for v in values)
        joined = Axis(FEATURE, size, order=(-1,))
        parts, n = (
            [v.node for v in values],
            width(first)
            // ((first.axes[axis].size or 1) if first.axes[axis].kind == FEATURE else 1),
        )
        while len(parts) > 1:  # four at a time
            some = parts[:4]
            made = Node(node, nn.Concat, inputs=tuple(some), width=sum(p.width for p in some))
            self.nodes.append(made)
            parts = [made, *parts[4:]]
        assert parts[0].width == size * n
        axes = [*first.axes[:axis], joined, *first.axes[axis + 1 :]]
        for place, i in enumerate(ax.factors(replace(first, axes=tuple(axes)), FEATURE)):
            axes[i] = replace(axes[i], order=(place,))
        return replace(first, axes=tuple(axes), node=parts[0])

    # ---- recurrent layers -----------------------------------------------------------------------

    def recurrent(
        self, node: str, kind: type[nn.Layer], x: Value, cells: Sequence[Mapping[str, Array]], *,
        time: int | None, batch: int | None, hidden: int, out: int, directions: int = 1,
        initial: Mapping[str, Value | Array | None] | None = None,
        options: Mapping[str, Any] | None = None, prefix: str = "",
    ) -> Recurrence:  # fmt: skip
        """A recurrent layer over x, whose axes are time, batch (numbers or None) and features.

        kind: nn.LSTM, nn.GRU or nn.RNN. cells: the tensors of each layer and direction, in
        torch's order, by torch's names without `_l0` (weight_ih, weight_hh, bias_ih, ...). out:
        features of h of a direction. initial: "h0" and "c0", a state (its first axis or axes the
        layers), an array of (L * D, features) or None.
        """
        x = self.feature_axis(node, x)
        if x.last:
            raise refuse(node, "runs over the last time step only of another layer's output")
        if {i for i in (time, batch) if i is not None} != set(range(x.ndim - 1)):
            raise refuse(node, f"reads {x.kinds()}; expected time, batch and features")
        single = time is None or x.axes[time].kind == ONE
        if batch is not None and (x.axes[batch].kind not in (ROW, ONE) or
                                  len(x.axes[batch].rows) > 1):  # fmt: skip
            raise refuse(node, f"takes {x.axes[batch]} as the batch")
        if single:
            if directions == 2 or (len(cells) > 1 and self.merge):
                raise refuse(node, "several layers or directions over a single step")
            if self.time is not None:
                raise refuse(node, "a single step in a model that runs over time")
            self.stepwise = True
            if time is None or self.merge:
                cell = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}
                kind = cell.get(kind, kind)
        else:
            if self.stepwise:
                raise refuse(node, "runs over time in a model that takes a single step")
            assert time is not None
            self.bind_time(node, x.axes[time])
        self.budget.take(4 * sum(a.size for c in cells for a in c.values()), node)
        made = self._add(node, kind, [x], out * directions, dict(options or {}), prefix=prefix)
        made.cells, made.directions = [dict(c) for c in cells], directions
        bind_initial(node, made, initial or {}, self.used_states)
        y_axes = (*x.axes[:-1], Axis(FEATURE, out * directions, order=(0,)))
        y = replace(x, axes=y_axes, node=made)
        layers = Axis(LAYER, len(cells), order=(0,)) if len(cells) > 1 else One
        b = () if batch is None else (x.axes[batch],)

        def final(word: str, n: int) -> Value:
            states = tuple(StateRow(made, word, i) for i in range(len(cells)))
            return Value((layers, *b, Axis(FEATURE, n, order=(0,))), states=states)

        has_c = kind in (nn.LSTM, nn.LSTMCell)
        return Recurrence(y, final("h", out), final("c", hidden) if has_c else None)

    def pair(self, name: str, out_name: str, out: Value) -> None:
        """The state input `name` goes on as the output `out_name`: what it must be."""
        used = {i: r for (owner, i), r in self.used_states.items() if owner == name}
        rows = out.states or ()
        same = len(used) == len(rows) and all(
            (r.owner, r.word, r.index) == (u.owner, u.word, u.index)
            for i, r in enumerate(rows)
            if (u := used.get(i)) is not None
        )
        if not same or set(used) != set(range(len(rows))):
            raise refuse(f"output {out_name!r}", f"is not the next state of the input {name!r}",
                         "name the pairs: states=[(input, output), ...]")  # fmt: skip

    # ---- the end --------------------------------------------------------------------------------

    def finish(
        self, outputs: Sequence[tuple[str, Value]], keep: Sequence[Value] = ()
    ) -> tuple[list[nn.Layer], Tensors]:
        """Layers and tensors of a model with these outputs; keep: final states that it has."""
        from .emit import emit

        return emit(self, outputs, keep)


__all__ = ["Graph", "Recurrence", "Size", "StateRow", "Value"]
