# SPDX-License-Identifier: MIT
"""Nodes of torch.export, one by one, into a graph of clstm's layers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..axes import Size, Value, refuse, width
from ..errors import ClstmError
from ..graph import Graph
from ..node import Node as GraphNode
from ..program import as_array
from .export import Differs, Node, Program, Ref
from .nodes import CELLS, RECURRENT, source

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor that follows from parameters and shapes alone, at both lengths; `name` if it is a
    parameter or buffer itself."""

    first: Any
    second: Any
    name: str = ""


@dataclass(frozen=True)
class Parts:
    """What unbind and split give, made when one is taken."""

    pick: Callable[[int], Value]
    count: int | None


class Translation:
    """Of one program."""

    def __init__(self, program: Program) -> None:
        self.torch = importlib.import_module("torch")
        self.program = program
        self.graph = Graph(merge=False)  # each of the module's layers keeps a state of its own
        self.values: dict[str, Any] = {}
        self.last: Value | None = None  # the output of the last recurrent layer

    # ---- arguments ------------------------------------------------------------------------

    def get(self, node: Node, argument: Any) -> Any:
        """What an argument stands for: a Value, a Const, a number, or a tuple of them."""
        if isinstance(argument, Ref):
            found = self.values[argument.name]
            if isinstance(found, Exception):
                raise found
            return found
        if isinstance(argument, tuple):
            return tuple(self.get(node, a) for a in argument)
        if isinstance(argument, Differs | Size):
            raise refuse(node.where, "a number depends on the length or the batch size")
        return argument

    def value(self, node: Node, argument: Any) -> Value:
        found = self.get(node, argument)
        if isinstance(found, Value):
            return found
        if isinstance(found, Const):
            raise refuse(node.where, "computes with a constant where clstm needs a sequence")
        raise refuse(node.where, f"an argument is {found!r}, not a sequence")

    def array(self, node: Node, argument: Any) -> Array:
        """A constant; axes along which it only repeats to fit the length become 1."""
        found = self.get(node, argument)
        if isinstance(found, Value):
            raise refuse(node.where, "a weight is computed from the input")
        if not isinstance(found, Const):
            return np.asarray(found)
        if found.first is found.second:
            return as_array(found.first)
        first, second = (as_array(t) for t in (found.first, found.second))
        if first.ndim == second.ndim:
            for i in range(first.ndim):
                if first.shape[i] != second.shape[i]:
                    first, second = _once_along(first, i), _once_along(second, i)
        if first.shape != second.shape or not np.array_equal(first, second, equal_nan=True):
            shapes = f"{first.shape} and {second.shape}"
            raise refuse(node.where, "a constant that depends on the length or the batch; it "
                         f"has the shapes {shapes}")  # fmt: skip
        return first

    def optional(self, node: Node, argument: Any) -> Array | None:
        return None if argument is None else self.array(node, argument)

    def number(self, node: Node, argument: Any) -> float:
        found = self.get(node, argument)
        if isinstance(found, Const):
            found = self.array(node, argument)
            if found.size == 1:
                return float(found.reshape(()))
        if not isinstance(found, int | float):
            raise refuse(node.where, "an argument is not one number")
        return float(found)

    def prefix(self, arguments: dict[str, Any]) -> str:
        """The module's name, where the tensors are its parameters by their usual names."""
        found = set()
        for word, argument in arguments.items():
            if argument is None:
                continue
            known = self.values.get(argument.name) if isinstance(argument, Ref) else None
            name = known.name if isinstance(known, Const) else ""
            prefix, dot, leaf = name.rpartition(".")
            found.add(prefix if dot and leaf == word else "")
        return found.pop() if len(found) == 1 else ""

    # ---- the whole ------------------------------------------------------------------------

    def run(self, operations: dict[str, Any]) -> tuple[list[nn.Layer], dict[str, Array]]:
        for name, (target, tensor) in self.program.constants.items():
            self.values[name] = Const(tensor, tensor, target)
        self.inputs()
        for node in self.program.nodes:
            try:
                self.values[node.name] = self.one(node, operations)
            except ClstmError as refusal:
                # Raised where it is read: what nothing reads, as a h_n left aside, may be anything.
                self.values[node.name] = refusal
            except Exception as error:  # of an operation with arguments that no test has
                self.values[node.name] = refuse(
                    node.where, f"in this form it is no operation of clstm ({error!r})"
                )
        return self.outputs()

    def inputs(self) -> None:
        for i, given in enumerate(self.program.inputs):
            shape = given.shape
            if i != self.program.main:
                # (L, B, H), (L, H) without a batch, (B, H) of a cell: what varies is the batch.
                layers = [k for k, n in enumerate(shape[:-1]) if n is not None]
                value = self.graph.state(given.name, shape, layers)
            elif not given.dtype.is_floating_point:
                value = self.graph.input(f"the input {given.name!r}", shape, tokens=True)
            elif not shape or shape[-1] is None:
                raise refuse(f"the input {given.name!r}", "has time or batch as its last axis, and "
                             "clstm takes features last", "leave transpose(1, 2) or x[..., None] "
                             "out of forward")  # fmt: skip
            else:
                value = self.graph.input(f"the input {given.name!r}", shape)
            self.values[given.name] = value

    def one(self, node: Node, operations: dict[str, Any]) -> Any:
        if self.constant(node):
            return self.fold(node)
        base = node.target.partition(".")[0]
        operation = operations.get(node.target) or operations.get(base)
        if operation is None:
            raise refuse(node.where, "is no operation that clstm has")
        return operation(self, node, *node.args, **node.kwargs)

    def constant(self, node: Node) -> bool:
        """Whether only parameters, shapes and numbers go in; the values of x do not."""
        base = node.target.partition(".")[0]
        if base.endswith("_like") or base.startswith("new_"):
            return not base.startswith("rand")
        if node.target.startswith(RECURRENT + CELLS):
            return False
        tags = getattr(node.pair[0].target, "tags", ())
        if any(str(t).endswith("nondeterministic_seeded") for t in tags):
            raise refuse(node.where, "is random, in evaluation too",
                         "use nn.Dropout, or F.dropout with training=self.training")  # fmt: skip
        refs = [*_refs(node.args), *_refs(tuple(node.kwargs.values()))]
        return all(isinstance(v, Const) or _all_const(v) for v in (self.get(node, r) for r in refs))

    def fold(self, node: Node) -> Any:
        """The operation itself, at both lengths."""
        results = []
        for side in (0, 1):
            made = node.pair[side]
            by_name = dict(zip((n.name for n in made.all_input_nodes),
                               self._sources(node, made, side), strict=True))  # fmt: skip
            args = _replaced(made.args, by_name)
            kwargs = _replaced(made.kwargs, by_name)
            with self.torch.no_grad():
                results.append(made.target(*args, **kwargs))
        first, second = results
        if isinstance(first, tuple | list):
            return tuple(Const(a, b) for a, b in zip(first, second, strict=False))
        return Const(first, second)

    def _sources(self, node: Node, made: Any, side: int) -> list[Any]:
        found = []
        for theirs, ours in zip(made.all_input_nodes, node.pair[0].all_input_nodes, strict=True):
            value = self.values[source(ours).name]
            if isinstance(value, Const):
                found.append((value.first, value.second)[side])
            elif isinstance(value, tuple):
                found.append([(v.first, v.second)[side] for v in value])
            else:  # only its shape counts
                like = theirs.meta["val"]
                found.append(self.torch.zeros(tuple(like.shape), dtype=like.dtype))
        return found

    # ---- outputs --------------------------------------------------------------------------

    def outputs(self) -> tuple[list[nn.Layer], dict[str, Array]]:
        given = []
        for i, argument in enumerate(_flat(self.program.outputs)):
            if argument is None:
                continue
            found = self.values.get(argument.name) if isinstance(argument, Ref) else argument
            if isinstance(found, Exception):
                raise found
            if not isinstance(found, Value):
                raise refuse(f"output {i}", "is a constant, not computed from the input")
            given.append((str(i), found))
        outputs, states = self.divided(given)
        if not outputs:
            if self.last is None:
                raise refuse("the outputs", "forward returns no tensor")
            outputs = [("0", self.last)]
        self.next_states(outputs, states)
        batch = any(a.size is None for a in self.graph.rows)
        if self.graph.stepwise and batch and len(self.graph.nodes) > 1:
            raise refuse(
                "from_torch", "forward takes one step of a batch, and a model of more than a cell "
                "runs over time", "give an example with a batch of 1; then m.stream() takes the "
                "steps of one sequence, and m(x[None], state) one step of a batch",
            )  # fmt: skip
        layers, tensors = self.graph.finish(outputs, [v for _, v in states])
        return list(layers), dict(tensors)

    def next_states(
        self, outputs: list[tuple[str, Value]], states: list[tuple[str, Value]]
    ) -> None:
        """Refuses an output that the caller would feed back as a state, but which is none."""
        returned = {(id(r.owner), r.word) for _, v in states for r in v.states or ()}
        returned |= {(id(v.node), "h") for _, v in states}
        for made in self.graph.nodes:
            if not made.stated:
                continue
            cell = made.cells[0]
            sizes = {"h": cell["weight_hh"].shape[1], "c": cell["weight_hh"].shape[0] // 4}
            missing = [sizes[w] for w in (("h", "c") if _has_c(made) else ("h",))
                       if (id(made), w) not in returned]  # fmt: skip
            for name, value in outputs if len(outputs) > 1 else []:
                step = value.last or self.graph.stepwise
                if step and width(value) in missing and value.node is not made:
                    raise refuse(
                        f"output {name}", f"has the size of the state of {made.name}, but is not "
                        "what that layer gives; fed back it would differ from the model's state",
                        "return the layer's own state",
                    )  # fmt: skip

    def divided(
        self, given: list[tuple[str, Value]]
    ) -> tuple[list[tuple[str, Value]], list[tuple[str, Value]]]:
        """Outputs, and final states, which the model returns as its state.

        A state is c, and h as the layer returns it, or in any form if c goes out too or the state
        came in; h of a layer alone, without its axis of layers, is the last step's output.
        """
        with_c = {id(r.owner) for _, v in given for r in v.states or () if r.word == "c"}
        outputs: list[tuple[str, Value]] = []
        states: list[tuple[str, Value]] = []
        for name, value in given:
            rows = value.states
            if rows is None:
                cell = value.node is not None and value.node.kind in _CELL_KINDS and not value.last
                paired = id(value.node) in with_c or (cell and value.node.stated)
                other = any(v is not value and v.states is None for _, v in given)
                is_state = cell and paired and other
            elif any(isinstance(r.owner, str) for r in rows):
                raise refuse(f"output {name}", "is an input state, unchanged")
            else:
                owners = {id(r.owner): r.owner for r in rows}
                whole = value.ndim > self.graph.n_rows + self.graph.stepwise
                whole = whole or len(rows) > 1 or len(owners) > 1
                is_state = whole or any(
                    r.word == "c" or id(r.owner) in with_c or r.owner.stated for r in rows
                )
            (states if is_state else outputs).append((name, value))
        return outputs, states


def _has_c(made: GraphNode) -> bool:
    return made.kind in (nn.LSTM, nn.LSTMCell)


_CELL_KINDS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def _once_along(array: Array, axis: int) -> Array:
    """With one row along the axis, where all are the same."""
    if not array.shape[axis]:
        return array
    one = array.take([0], axis=axis)
    return one if np.array_equal(np.broadcast_to(one, array.shape), array) else array


def _all_const(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, Const) for v in value)


def _refs(argument: Any) -> list[Ref]:
    if isinstance(argument, Ref):
        return [argument]
    if isinstance(argument, tuple):
        return [r for a in argument for r in _refs(a)]
    if isinstance(argument, Differs) and hasattr(argument.first, "meta"):
        return [Ref(argument.first.name)]
    return []


def _flat(argument: Any) -> list[Any]:
    if isinstance(argument, tuple):
        return [f for a in argument for f in _flat(a)]
    return [argument]


def _replaced(argument: Any, by_name: dict[str, Any]) -> Any:
    """Arguments of torch.fx with tensors instead of nodes."""
    if hasattr(argument, "all_input_nodes"):
        return by_name[argument.name]
    if isinstance(argument, dict):
        return {k: _replaced(v, by_name) for k, v in argument.items()}
    if isinstance(argument, list | tuple):
        return [_replaced(a, by_name) for a in argument]
    return argument
