# SPDX-License-Identifier: MIT
"""The nodes of a graph as a list of layers: merged, ordered, numbered and named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import nn
from .axes import FEATURE, ONE, ROW, Array, Value, factors, refuse, restored, width
from .graph import Graph
from .node import Node, Tensors

_STACKED = (nn.LSTM, nn.GRU, nn.RNN)
_SEVERAL = (nn.Add, nn.Mul, nn.Concat)
# Layers whose tensors or options tell the number of features that they read.
_TELLING = (nn.Linear, nn.LayerNorm, nn.BatchNorm1d)
_MOST_OUTPUTS = 4


def emit(
    graph: Graph, outputs: Sequence[tuple[str, Value]], keep: Sequence[Value]
) -> tuple[list[nn.Layer], Tensors]:
    """See Graph.finish."""
    if not outputs:
        raise refuse("the outputs", "none is left that is not a state")
    if len(outputs) > _MOST_OUTPUTS:
        raise refuse(f"output {outputs[_MOST_OUTPUTS][0]!r}",
                     f"clstm has at most {_MOST_OUTPUTS} outputs")  # fmt: skip
    forms = [_checked(graph, name, graph.rowwise(f"output {name!r}", v)) for name, v in outputs]
    values = [form.value for form in forms]
    roots = [v.node for v in values]
    roots += [r.owner for v in keep for r in v.states or () if not isinstance(r.owner, str)]
    nodes = _reached(graph, roots)
    timed = [n for n in nodes if n.kind in _STACKED]
    if any(v.last for v in values) and not timed:
        raise refuse(graph.cuts[0] if graph.cuts else "the outputs",
                     "takes the last row, and no recurrent layer tells what time is")  # fmt: skip
    first_of = _merge(graph, nodes, [v.node for v in values]) if graph.merge else {}
    return _Writer(graph, nodes, first_of).write(forms)


class _Form(NamedTuple):
    """A value as an output, and what nn.Output says of it."""

    value: Value
    squeeze: bool
    keep: bool


def _checked(graph: Graph, name: str, value: Value) -> _Form:
    """An output has the input's axes in their order, and features last. One feature may lack its
    axis, and the last step keep an axis of 1 in the place of time."""
    node = f"output {name!r}"
    if value.node is graph.source and not graph.source.width:
        raise refuse(node, "is the input of tokens itself")
    rows = [a.rows for a in graph.rows]
    over = [r for r in rows if not (value.last and r == (graph.time,))]
    squeeze = not factors(value, FEATURE) and value.ndim == len(over) and value.node.width == 1
    value = value if squeeze else restored(value)
    axes = list(value.axes)
    if not squeeze:
        features = factors(value, FEATURE)
        if features != [len(axes) - 1] or axes[-1].size != width(value):
            raise refuse(node, f"has the axes {value.kinds()}; expected all features on the last "
                         "one", "flatten them in the model, or give them their axes outside of "
                         "it")  # fmt: skip
        axes.pop()
    keep = value.last and len(axes) == len(rows)
    sizes = {a.rows: a.size for a in graph.rows}
    # A row that is 1 in the file may have been squeezed and put back.
    fits = len(axes) == len(rows if keep else over) and all(
        (a.kind == ROW and a.rows == r)
        or (a.kind == ONE and (sizes[r] == 1 or (keep and r == (graph.time,))))
        for a, r in zip(axes, rows if keep else over, strict=False)
    )
    if not fits:
        raise refuse(node, f"has the axes {value.kinds()}; clstm gives them in the input's order",
                     "transpose the output outside of the model")  # fmt: skip
    return _Form(value, squeeze, keep)


def _reached(graph: Graph, roots: Sequence[Node]) -> list[Node]:
    wanted: set[int] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) not in wanted:
            wanted.add(id(node))
            stack += node.inputs
    return [n for n in graph.nodes if id(n) in wanted]


def _merge(graph: Graph, nodes: list[Node], outputs: Sequence[Node]) -> dict[int, Node]:
    """Recurrent nodes that only feed the next of their kind become one of several layers, as
    torch's num_layers, so that the state has torch's shape again. Returns what stands for each
    node that went away."""
    readers: dict[int, int] = {}
    for node in [*(i for n in nodes for i in n.inputs), *outputs]:
        readers[id(node)] = readers.get(id(node), 0) + 1
    instead: dict[int, Node] = {}
    for node in nodes:
        if node.kind not in _STACKED:
            continue
        before = instead.get(id(node.inputs[0]), node.inputs[0])
        if readers[id(node.inputs[0])] == 1 and _alike(before, node):
            for word in set(before.initial) | set(node.initial):
                before.initial[word] = np.concatenate([_initial(n, word) for n in (before, node)])
            before.cells += node.cells
            before.name = f"{before.name.partition(' and ')[0]} and {node.name}"
            instead[id(node)] = before
    nodes[:] = [n for n in nodes if id(n) not in instead]
    return instead


def _initial(node: Node, word: str) -> Array:
    cell = node.cells[0]
    hidden = (
        np.shape(cell["weight_hr"])[1] if "weight_hr" in cell else node.width // (node.directions)
    )
    n = hidden if word == "c0" else node.width // node.directions
    given = node.initial.get(word)
    shape = (len(node.cells), n)
    return np.zeros(shape, np.float32) if given is None else given.reshape(shape)


def _alike(a: Node, b: Node) -> bool:
    cells = [*a.cells[:1], *b.cells]  # those of a are alike
    shapes = [{w: np.shape(t) for w, t in c.items() if w != "weight_ih"} for c in cells]
    return (
        a.kind is b.kind
        and a.options == b.options
        and a.directions == b.directions
        and a.stated == b.stated
        and not (a.stated and bool(a.initial) != bool(b.initial))
        and all(s == shapes[0] for s in shapes)
    )


class _Writer:
    def __init__(self, graph: Graph, nodes: list[Node], instead: dict[int, Node]) -> None:
        self.graph, self.nodes, self.instead = graph, nodes, instead
        self.layers: list[nn.Layer] = []
        self.tensors: Tensors = {}
        self.slots: dict[int, int] = {id(graph.source): 0}
        self.at = 0  # the value that the next layer would read
        self.prefixes: set[str] = set()
        self.parents: set[str] = set()  # of these, so that no name is a part of another

    def slot(self, node: Node) -> int:
        return self.slots[id(self.instead.get(id(node), node))]

    def write(self, forms: Sequence[_Form]) -> tuple[list[nn.Layer], Tensors]:
        if self._untold():
            self._tell()
        for node in self.nodes:
            self._node(node)
        slots = tuple(self.slot(form.value.node) for form in forms)
        said = [(f.value.last, f.squeeze, f.keep) for f in forms]
        last, squeeze, keep = ((*flags,) if any(flags) else () for flags in zip(*said, strict=True))
        if len(forms) > 1 or last or squeeze:
            plain = len(forms) == 1 and slots[0] == self.at
            self.layers.append(nn.Output(() if plain else slots, last, squeeze, keep))
        elif slots[0] != self.at:
            self._goto(slots[0], always=True)
        return self.layers, self.tensors

    def _untold(self) -> bool:
        """Whether no layer tells the number of features of the input before one must know it."""
        if not self.graph.source.width:
            return False  # tokens
        same = {id(self.graph.source)}  # values of as many features, through layers that keep them
        for node in self.nodes:
            if same.isdisjoint(id(i) for i in node.inputs):
                continue
            wide = max((t.size for t in node.tensors.values()), default=0) > 1
            if node.cells or node.kind in _TELLING or (node.kind is nn.Affine and wide):
                return False
            if node.kind in (nn.Slice, nn.Concat, nn.Affine, nn.PReLU):
                return True
            same.add(id(node))
        return True

    def _tell(self) -> None:
        """x * 1 + 0, which says how wide x is."""
        n = self.graph.source.width
        self.graph.budget.take(2 * 8 * n, f"an input of {n} features")
        tell = Node("the input", nn.Affine, {}, {"scale": np.ones(n), "shift": np.zeros(n)},
                    (self.graph.source,), n, "input")  # fmt: skip
        self._node(tell)
        self.slots[id(self.graph.source)] = self.at

    def _goto(self, slot: int, *, always: bool = False) -> None:
        if slot != self.at or always:
            self.layers.append(nn.Identity(input=slot))
            self.at = len(self.layers)

    def _node(self, node: Node) -> None:
        options: dict[str, Any] = dict(node.options)
        if node.kind in _SEVERAL:
            options["inputs"] = tuple(self.slot(i) for i in node.inputs)
        else:
            self._goto(self.slot(node.inputs[0]))
        if node.tensors or node.cells:
            options["prefix"] = prefix = self._prefix(node)
            for word, array in node.tensors.items():
                if node.kind is nn.Affine:  # of one number it would not tell the width
                    array = np.broadcast_to(array, node.width)
                # Many layers may read one array of the file, or a view that repeats one number.
                self.graph.budget.take(4 * array.size, f"{node.name}: {word} of {array.shape}")
                self._tensor(f"{prefix}.{word}", array)
        if node.cells:
            self._cells(node, prefix, options)
        self.layers.append(node.kind(**options))
        self.at = self.slots[id(node)] = len(self.layers)

    def _cells(self, node: Node, prefix: str, options: dict[str, Any]) -> None:
        for i, cell in enumerate(node.cells):
            k, reverse = divmod(i, node.directions)
            end = f"_l{k}" + "_reverse" * reverse if node.kind in _STACKED else ""
            for word, array in cell.items():
                name, dot, leaf = word.partition(".")  # ln_ih.weight is ln_ih_l0.weight
                self._tensor(f"{prefix}.{name}{end}{dot}{leaf}", array)
        for word in node.initial:
            self._tensor(f"{prefix}.{word}", _initial(node, word))
            options[word] = f"{prefix}.{word}"
        if node.kind in _STACKED:
            rows = [a.rows[0] for a in self.graph.rows]
            options["batch_first"] = len(rows) == 2 and self.graph.time == 1

    def _tensor(self, name: str, array: Array) -> None:
        with np.errstate(over="ignore"):
            self.tensors[name] = np.ascontiguousarray(array, np.float32)

    def _prefix(self, node: Node) -> str:
        base = node.prefix or f"{node.kind.__name__.lower()}{len(self.layers) + 1}"
        prefix, n = base, 1
        while {prefix, *_parents(prefix)} & self.prefixes or prefix in self.parents:
            n += 1
            prefix = f"{base}_{n}"
        self.prefixes.add(prefix)
        self.parents.update(_parents(prefix))
        return prefix


def _parents(prefix: str) -> list[str]:
    parts = prefix.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


__all__ = ["emit"]
