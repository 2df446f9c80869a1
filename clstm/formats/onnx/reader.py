# SPDX-License-Identifier: MIT
"""An ONNX graph, node by node, through the builder."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from clstm import nn
from clstm.axes import FEATURE, ROW, AnySize, Axis, Size, StateRow, Value, refuse, row_slice
from clstm.errors import ClstmError, ModelFormatError, UnsupportedError
from clstm.graph import Graph
from clstm.node import Tensors

from ..budget import Budget
from ..source import shown
from .const import Const
from .constants import Folder
from .nodes import FileNode, attributes, check_schema
from .operators import Op, apply
from .partial import Partial
from .recurrent import Operator, joined
from .roles import Input, Owners, Roles
from .tensors import TensorReader

_RECURRENT = ("LSTM", "GRU", "RNN")
_LOOPS = ("Loop", "Scan", "SequenceMap")
_LOOP_WAY = "clstm's recurrent layers are the loops: export nn.LSTM, nn.GRU or nn.RNN themselves"
# Where values are renamed only: of lengths and of tokens.
_RENAMES = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape")


LENGTHS_WAY = (
    "lengths are given by m(x, lengths=...): export pack_padded_sequence with "
    "enforce_sorted=True, or without packing, and take the last valid step from the final h"
)


class Lengths:
    """The input that says how long each sequence is."""


Scope = MutableMapping[str, Any]


class Reader:
    """One attempt to read a graph, with given roles of its inputs."""

    def __init__(
        self, model: Any, tensors: TensorReader, opset: int, inputs: Sequence[Input], roles: Roles,
    ) -> None:  # fmt: skip
        self.model, self.tensors, self.opset = model, tensors, opset
        self.inputs, self.roles = inputs, roles
        self.folder = Folder(tensors.budget, opset)
        # Constants and the tensors of the layers are counted apart, or each would count twice.
        self.graph = Graph(budget=Budget(tensors.budget.max_bytes))
        self.ragged: list[bool] = []  # of each recurrent operator
        self.dims: dict[str, Size] = {}  # names of the input's sizes
        graph = model.graph
        self.declared = {info.name: info for info in (*graph.value_info, *graph.output)}

    def read(self) -> tuple[list[nn.Layer], Tensors]:
        """Layers and tensors."""
        scope: Scope = {}
        self._inputs(scope)
        self._graph(self.model.graph, scope, 0)
        return self._outputs(scope)

    # ---- inputs -------------------------------------------------------------------------------

    def _inputs(self, scope: Scope) -> None:
        dims = self.dims
        x = next(i for i in self.inputs if i.name == self.roles.source)
        if not x.floating and len(x.dims) > 2:
            raise refuse(f"input {x.shown}", f"integers of {len(x.dims)} axes; tokens have the "
                         "axes time and batch only, and features are float32")  # fmt: skip
        scope[x.name] = self.graph.input(x.shown, x.sizes(), tokens=not x.floating)
        for row, (size, word) in enumerate(zip(x.sizes(), x.words, strict=True)):
            if size is None and word:
                dims.setdefault(word, Size((row,)))
        for i in self.inputs:
            if i.name in self.roles.states:
                value = self.graph.state(i.name, self._sizes(i), self.roles.states[i.name])
                axes = [
                    Axis(ROW, None, dims[w].rows) if a.kind == ROW and w in dims else a
                    for a, w in zip(value.axes, i.words, strict=True)
                ]
                scope[i.name] = Value(tuple(axes), states=value.states)
            elif i.name == self.roles.lengths:
                scope[i.name] = Lengths()
            elif i is not x:
                scope[i.name] = self._other(i, x)

    def _sizes(self, i: Input) -> list[int | None]:
        """Those of a state. Where the file leaves open how many layers it has, as many as there
        are directions of recurrent operators: no other number fits all of them."""
        sizes, layers = i.sizes(), self.roles.states[i.name]
        if [sizes[axis] for axis in layers] == [None]:
            found = [attributes(node, self.tensors).get("direction")
                     for node in self.roles.top if node.op in _RECURRENT]  # fmt: skip
            sizes[layers[0]] = sum(2 if d == "bidirectional" else 1 for d in found) or None
        return sizes

    def _other(self, i: Input, x: Input) -> UnsupportedError:
        """Why an input has no role."""
        if i.floating and len(i.dims) == len(x.dims):
            return refuse(f"input {i.shown}", f"is a second input beside {x.shown}, and a model "
                          "of clstm has one", "join them along the features outside of "
                          "the model; states=[(input, output), ...] names states")  # fmt: skip
        if not i.floating and len(i.dims) == 1:
            return refuse(f"input {i.shown}", "is computed with, and it may hold the lengths of "
                          "the sequences", LENGTHS_WAY)  # fmt: skip
        return refuse(f"input {i.shown}", "is neither the model's input nor a state nor lengths",
                      "states=[(input, output), ...] names states that are not "
                      "recognised")  # fmt: skip

    # ---- nodes ----------------------------------------------------------------------------------

    def _graph(self, proto: Any, scope: Scope, depth: int) -> None:
        for tensor in proto.initializer:
            try:
                scope[tensor.name] = Const(self.tensors.read(tensor, "tensor"))
            except UnsupportedError as error:
                scope[tensor.name] = error
        needed = self.roles.needed
        nodes = self.roles.flattener.nodes(proto.node) if depth else self.roles.top
        for node in nodes:
            if depth == 0 and not any(n in needed for n in node.outputs):
                continue
            try:
                found = self._node(node, scope, depth)
            except UnsupportedError as error:
                # It matters only if something that counts reads it.
                found = [error] * len(node.outputs)
            if len(found) < len(node.outputs):
                more = refuse(node.name, "an output that clstm does not compute")
                found = [*found, *[more] * (len(node.outputs) - len(found))]
            for name, value in zip(node.outputs, found, strict=False):
                if name:
                    scope[name] = value

    def _node(self, node: FileNode, scope: Scope, depth: int) -> list[Any]:
        inputs = []
        for name in node.inputs:
            if name and name not in scope:
                raise ModelFormatError(f"{node.name}: reads {shown(name)}, which no node before it "
                                       "makes: a cycle, or nodes out of order")  # fmt: skip
            inputs.append(scope[name] if name else None)
        for value in inputs:
            if isinstance(value, UnsupportedError):
                raise value
        attrs = attributes(node, self.tensors)
        check_schema(node, attrs, self.opset)
        try:
            return self._run(node, inputs, attrs, scope, depth)
        except ClstmError:
            raise
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            # A hostile file may contradict itself in more ways than are foreseen.
            cause = f"{type(error).__name__}: {error}"
            raise ModelFormatError(f"{node.name}: contradicts itself: {cause}") from error

    def _run(
        self, node: FileNode, inputs: list[Any], attrs: dict[str, Any], scope: Scope, depth: int
    ) -> list[Any]:
        n = len(node.outputs)
        if node.op == "Constant":
            return [self._constant(node, attrs)]
        if node.op == "If":
            return self._branch(node, inputs, attrs, scope, depth)
        if node.op in _LOOPS:
            raise refuse(node.name, "a loop", _LOOP_WAY)
        if any(isinstance(v, Lengths) for v in inputs) and node.op not in _RECURRENT:
            if node.op in _RENAMES:
                return [inputs[0]]
            raise refuse(node.name, "computes with the lengths of the sequences", LENGTHS_WAY)
        if node.op in _RECURRENT:
            return self._recurrent(node, inputs, attrs)
        constant = all(v is None or isinstance(v, Const) for v in inputs)
        if constant and self.folder.can(node.op):
            return list(self.folder.run(node.op, node.name, inputs, attrs, n))
        if not inputs:
            raise refuse(node.name, "an operator that clstm does not run")
        declared = self._declared(node.outputs[0]) if node.op == "Reshape" else ()
        return apply(Op(self.graph, node.op, node.name, inputs, attrs, n, self.opset, declared))

    def _declared(self, name: str) -> list[AnySize | None]:
        """The sizes that the file declares for a value."""
        if name not in self.declared:
            return []
        sizes = self.declared[name].type.tensor_type.shape.dim
        return [d.dim_value if d.HasField("dim_value") else self.dims.get(d.dim_param)
                for d in sizes]  # fmt: skip

    def _constant(self, node: FileNode, attrs: dict[str, Any]) -> Const:
        for word, dtype in (("value", None), ("value_float", np.float32), ("value_int", np.int64),
                            ("value_floats", np.float32), ("value_ints", np.int64)):  # fmt: skip
            if word in attrs:
                return Const(np.asarray(attrs[word], dtype))
        raise UnsupportedError(f"{node.name}: a constant of {', '.join(attrs) or 'nothing'}")

    def _branch(
        self, node: FileNode, inputs: list[Any], attrs: dict[str, Any], scope: Scope, depth: int
    ) -> list[Any]:
        cond = inputs[0] if inputs else None
        if not isinstance(cond, Const) or cond.array.size != 1:
            raise refuse(node.name, "a branch that depends on an input",
                         "export with that input constant")  # fmt: skip
        proto = attrs["then_branch" if cond.array.reshape(()).item() else "else_branch"]
        inner: Scope = ChainMap({}, scope)
        self._graph(proto, inner, depth + 1)
        return [inner[o.name] for o in proto.output]

    def _recurrent(self, node: FileNode, inputs: list[Any], attrs: dict[str, Any]) -> list[Any]:
        operator = Operator(node.op, node.name, inputs, attrs, self.opset)
        x = inputs[0]
        if isinstance(x, Partial):
            x = x.resolve(self.graph)
        if not isinstance(x, Value):
            raise refuse(node.name, "its input is constant")
        y, h, c, ragged = operator.build(self.graph, x)
        self.ragged.append(ragged)
        return [y, h, c] if node.op == "LSTM" else [y, h]

    # ---- outputs --------------------------------------------------------------------------------

    def _outputs(self, scope: Scope) -> tuple[list[nn.Layer], Tensors]:
        graph, found = self.graph, []
        for o in self.model.graph.output:
            value = scope.get(o.name)
            if isinstance(value, UnsupportedError):
                raise value
            if isinstance(value, Partial):
                value = value.resolve(graph)
            if not isinstance(value, Value):
                cause = (
                    "is constant" if isinstance(value, Const) else "is the lengths of the sequences"
                )
                raise refuse(f"output {shown(o.name)}", cause)
            found.append((o.name, value))
        states, values = self._pairs(
            [(name, joined(f"output {shown(name)}", value)) for name, value in found]
        )
        if self.ragged and any(self.ragged):
            if not all(self.ragged):
                raise refuse("sequence_lens", "some recurrent operators read them, some do not")
            if graph.cuts:
                raise refuse(graph.cuts[0], "takes the last row of padded sequences",
                             "take it from Y_h, or leave the lengths away")  # fmt: skip
        if not values:
            # Only states come out: a model returns them beside y.
            kept = {id(r.owner) for v in states for r in v.states or ()}
            top = [n for n in graph.nodes if id(n) in kept][-1]
            rows = tuple(Axis(ROW, a.size, a.rows) for a in graph.rows)
            axes = (*rows, Axis(FEATURE, top.width, order=(0,)))
            values = [("y", Value(axes, node=top))]
        if graph.picked and graph.time is None and not graph.stepwise:
            place, name = next(iter(graph.picked.items()))
            raise row_slice(name, Axis(ROW, 1, place), 0, True)
        layers, tensors = graph.finish(values, states)
        if graph.stepwise and len(layers) == 1 and len(graph.rows) == 2:
            sizes = ", ".join("?" if a.size is None else str(a.size) for a in graph.rows)
            raise refuse("the graph", f"a single step of a cell, whose input the file declares as "
                         f"({sizes}, features)", "export the cell with an input of (batch, "
                         "features)")  # fmt: skip
        if graph.stepwise and len(layers) > 1 and any(a.size != 1 for a in graph.rows):
            # What is more than a cell runs over time, so that rows of x would be time steps.
            raise refuse("the graph", "a single step of a batch through a cell and other layers",
                         "export it with a batch of 1; then m.stream() takes the steps of one "
                         "sequence, and m(x[None], state) one step of a batch")  # fmt: skip
        return layers, tensors

    def _pairs(
        self, outputs: Sequence[tuple[str, Value]]
    ) -> tuple[list[Value], list[tuple[str, Value]]]:
        """Final states among the outputs, checked against the inputs that they go on as, and the
        other outputs."""
        graph = self.graph
        wanted: dict[str, dict[int, StateRow]] = {}
        for (owner, i), row in graph.used_states.items():
            wanted.setdefault(owner, {})[i] = row
        named = dict(self.roles.pairs)
        taken: dict[str, Value] = {}
        found: dict[tuple[StateRow | None, ...], list[tuple[str, Value]]] = {}
        for name, value in outputs:
            if (state := self._as_state(value)) is not None:
                found.setdefault(state.states or (), []).append((name, state))
        for owner, used in wanted.items():
            for name, state in found.get(tuple(used.get(i) for i in range(len(used))), ()):
                if name not in taken and named.get(owner, name) == name:
                    taken[name] = state
                    break
            else:
                if owner in named:
                    raise refuse(f"output {shown(named[owner])}",
                                 f"is not the next state of the input {shown(owner)}")  # fmt: skip
        self._check_names(taken, wanted)
        for owner in named.keys() - wanted.keys():
            raise refuse(f"input {shown(owner)}", "is not the initial state of a recurrent layer")
        values = []
        firsts = {v.states[0] for v in taken.values() if v.states}
        left = (s for s, used in wanted.items() if s not in named and used.get(0) not in firsts)
        unpaired, order = next(left, None), {id(n): i for i, n in enumerate(graph.nodes)}
        for name, value in outputs:
            if name in taken:
                continue
            if value.states is not None and self._whole(value):
                given = next((r.owner for r in value.states if isinstance(r.owner, str)), None)
                if given is not None:
                    raise refuse(f"output {shown(name)}", f"is the state input {shown(given)} as "
                                 "it came in, not a next one")  # fmt: skip
                if unpaired is not None and not graph.stepwise:
                    graph.pair(unpaired, name, value)  # refuses by name
                self._check_order(name, value, order)
                taken[name] = value
            else:
                values.append((name, value))
        return list(taken.values()), values

    def _check_names(self, taken: dict[str, Value], wanted: dict[str, dict[int, StateRow]]) -> None:
        """Refuses names that say another pairing than the data takes."""
        owners, named = Owners(wanted), dict(self.roles.pairs)
        firsts: dict[StateRow | None, list[str]] = {}
        for name, value in taken.items():
            firsts.setdefault(value.states[0] if value.states else None, []).append(name)
        for owner, used in wanted.items():
            for name in firsts.get(used.get(0), ()) if owner not in named else ():
                other = owners.crossing(owner, name)
                if other is not None:
                    raise refuse(
                        f"output {shown(name)}", f"is the next state of the input {shown(owner)}, "
                        f"but its name says {shown(other)}",
                        f"say which pairs are meant: states=[({owner!r}, {name!r}), ...]",
                    )  # fmt: skip

    def _check_order(self, name: str, value: Value, order: Mapping[int, int]) -> None:
        """Refuses layers of a state that come out in another order than the model has them."""
        for word in "hc":
            rows = [(order[id(r.owner)], r.index) for r in value.states or () if r.word == word]
            if rows != sorted(rows):
                raise refuse(f"output {shown(name)}", "has the layers of a state in another order "
                             "than the model", "export the state as it is")  # fmt: skip

    def _whole(self, value: Value) -> bool:
        """Whether it is a state as operators give it: with an axis of layers, or c. Without a
        batch a state of one layer has as many axes as the last row of a batch."""
        rows = value.states or ()
        layered = value.ndim == len(self.graph.rows) + 1 and not self.graph.stepwise
        shaped = layered or value.ndim == 3 or rows[0].word == "c"
        return shaped and len(set(rows)) == len(rows)

    def _as_state(self, value: Value) -> Value | None:
        if value.states is not None:
            return value
        if self.graph.stepwise and value.node is not None and value.node.cells:
            return Value(value.axes, states=(StateRow(value.node, "h", 0),))
        return None
