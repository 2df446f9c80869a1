# SPDX-License-Identifier: MIT
"""Which input of an ONNX graph is the model's input, which are states, which the lengths.

Told by what they feed: the initial states and sequence_lens of recurrent operators. Where cells
are written as single operations that does not tell; then names decide, and else the order, in
which the input comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clstm.axes import refuse
from clstm.errors import ModelFormatError, UnsupportedError

from ..source import shown
from .nodes import FileNode, Flattener
from .tensors import FLOATS, INTEGERS

_WORDS = {10: "float16", 11: "float64", 16: "bfloat16"}
STATE, LENGTHS, OTHER = "state", "lengths", "other"
_RECURRENT = {"LSTM": {5: STATE, 6: STATE, 4: LENGTHS}, "GRU": {5: STATE, 4: LENGTHS},
              "RNN": {5: STATE, 4: LENGTHS}}  # fmt: skip
_MOVES = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Slice", "Split",
          "Gather", "Concat", "Expand", "Flatten")  # fmt: skip
_SIZES = ("Shape", "Size")
# h, c, h0, hx, c_in, hidden, cell_state, prev_state, ...
_STATE_NAME = re.compile(
    r"(.*[_./])?([hc](\d*|x|n|in|t|prev)|hidden|cell|state|(hidden|cell|prev|initial)_?"
    r"(state|[hc]))s?([_.]?(\d+|in|input|prev|old|init))?",
    re.IGNORECASE,
)


_AFFIXES = {"in", "out", "input", "output", "new", "next", "prev", "old", "init", "initial",
            "final", "last", "n", "t"}  # fmt: skip


def _key(name: str) -> str:
    words = [w for w in re.split("[^a-z0-9]+", name.lower()) if w]
    return "_".join(w for w in words if w not in _AFFIXES) or name.lower()


def _letter(name: str) -> str:
    found = re.fullmatch(r"(?:.*[_./])?([hc])\d*[nxto]?", _key(name))
    return found[1] if found else ""


class Owners:
    """The state inputs, by what their names say."""

    def __init__(self, names: Iterable[str]) -> None:
        self.said: dict[tuple[Any, str], list[str]] = {}
        for name in names:
            for say in (_key, _letter):
                self.said.setdefault((say, say(name)), []).append(name)

    def crossing(self, owner: str, output: str) -> str | None:
        """The state input that the output's name says, if it is another one than `owner`."""
        for say in (_key, _letter):
            said = say(output)
            if said and said == say(owner):
                return None
            if said and (found := self.said.get((say, said))):
                return found[0]
        return None


@dataclass(frozen=True)
class Input:
    """An input of the graph; sizes -1 where they are known only when the model runs."""

    name: str
    floating: bool
    dims: tuple[int, ...]
    words: tuple[str, ...]  # names of such sizes

    @property
    def shown(self) -> str:
        return shown(self.name)

    def sizes(self) -> list[int | None]:
        return [None if n < 0 else n for n in self.dims]


def inputs_of(graph: Any) -> list[Input]:
    """The inputs that no initializer fills."""
    filled = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    found = []
    for info in graph.input:
        if info.name in filled:
            continue
        kind = info.type.tensor_type
        if not info.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise UnsupportedError(f"input {shown(info.name)}: of no tensor type, or no known rank")
        if kind.elem_type not in FLOATS + INTEGERS:
            raise UnsupportedError(f"input {shown(info.name)}: elements of ONNX's type "
                                   f"{kind.elem_type}, expected float32, or integers of tokens "
                                   "or lengths")  # fmt: skip
        if kind.elem_type in FLOATS[1:]:
            raise UnsupportedError(f"input {shown(info.name)}: elements of "
                                   f"{_WORDS[kind.elem_type]}, and clstm computes in float32; "
                                   "export the model as float32")  # fmt: skip
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        if len(dims) > 8 or any(not -1 <= n < 2**31 for n in dims):
            raise ModelFormatError(f"input {shown(info.name)}: a shape of {dims[:8]}")
        words = tuple(d.dim_param for d in kind.shape.dim)
        found.append(Input(info.name, kind.elem_type in FLOATS, tuple(dims), words))
    if len({i.name for i in found}) != len(found):
        raise ModelFormatError("two inputs of one name")
    return found


@dataclass
class Roles:
    """One assignment; states: their axes of layers."""

    source: str
    states: dict[str, tuple[int, ...]]
    lengths: str | None
    pairs: Sequence[tuple[str, str]]
    needed: set[str]
    top: list[FileNode]  # nodes of the graph, functions put in place
    flattener: Flattener  # for those of branches


class Analysis:
    """How values flow from the inputs to the recurrent operators."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.flattener = Flattener(model)
        self.top = list(self.flattener.nodes(model.graph.node))
        self.every = list(self._with_branches(self.top))
        self.readers: dict[str, list[tuple[FileNode, int]]] = {}
        for node in self.every:
            for place, name in enumerate(node.inputs):
                self.readers.setdefault(name, []).append((node, place))
        self.ends = self._ends()

    def _with_branches(self, nodes: Sequence[FileNode]) -> Iterator[FileNode]:
        for node in nodes:
            yield node
            for attr in node.proto.attribute:
                if attr.HasField("g"):
                    inner = list(self.flattener.nodes(attr.g.node))
                    yield from self._with_branches(inner)
                    for out, name in zip(attr.g.output, node.outputs, strict=False):
                        yield FileNode("Identity", node.name, [out.name], [name], node.proto, {})

    def needed(self) -> set[str]:
        """Names that an output depends on, through branches too."""
        made: dict[str, list[FileNode]] = {}
        for node in self.every:
            for name in node.outputs:
                made.setdefault(name, []).append(node)
        found: set[str] = set()
        stack = [o.name for o in self.model.graph.output]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                for node in made.get(name, ()):
                    stack += node.inputs
        return found

    def _ends(self) -> dict[str, set[str]]:
        """What each value feeds when it is only moved: from the ends back, all at once."""
        moved: dict[str, list[str]] = {}  # what a value is made of
        found: dict[str, set[str]] = {}
        for name, readers in self.readers.items():
            for node, place in readers:
                if node.op in _MOVES and (place == 0 or node.op == "Concat"):
                    for out in node.outputs:
                        moved.setdefault(out, []).append(name)
                elif node.op not in _SIZES:
                    kind = _RECURRENT.get(node.op, {}).get(place, OTHER)
                    found.setdefault(name, set()).add(kind)
        stack = [(name, kind) for name, kinds in found.items() for kind in kinds]
        while stack:
            name, kind = stack.pop()
            for source in moved.get(name, ()):
                if kind not in found.setdefault(source, set()):
                    found[source].add(kind)
                    stack.append((source, kind))
        return found


def roles_of(
    model: Any, inputs: Sequence[Input], analysis: Analysis, pairs: Sequence[tuple[str, str]]
) -> list[Roles]:
    """The assignments to try, the likeliest first."""
    names = {i.name for i in inputs}
    for a, b in pairs:
        if a not in names or b not in {o.name for o in model.graph.output}:
            raise ValueError(f"states: the file has no input {a!r} or no output {b!r}; inputs: "
                             f"{', '.join(sorted(names))}")  # fmt: skip
    needed = analysis.needed()
    stated = {a for a, _ in pairs}
    lengths, rest = None, []
    for i in inputs:
        if i.name not in needed:
            continue
        ends = analysis.ends.get(i.name, set())
        if i.name in stated or ends == {STATE}:
            stated.add(i.name)
        elif ends == {LENGTHS} and not i.floating and lengths is None:
            lengths = i.name
        else:
            rest.append(i)
    if not rest:
        raise refuse("the graph", "no input is left that is not a state or lengths")
    # Beside operators a state feeds one; a step in single operations does not tell.
    free = not any(n.op in _RECURRENT for n in analysis.every)
    by_name = [i.name for i in rest if i.floating and _STATE_NAME.fullmatch(i.name)]
    sources = [i.name for i in rest if i.name not in by_name] or [i.name for i in rest]
    found = []
    left, named = {i.name for i in rest}, set(by_name)
    for source in sources[:4]:
        others = [i for i in inputs if i.name in stated or (i.name in left - {source} and (
            free or i.name in named or STATE in analysis.ends.get(i.name, ())))]  # fmt: skip
        states = {i.name: _layer_axes(i, analysis) for i in others if i.floating and i.dims}
        found.append(Roles(source, states, lengths, pairs, needed,
                           analysis.top, analysis.flattener))  # fmt: skip
    return found


def _layer_axes(i: Input, analysis: Analysis) -> tuple[int, ...]:
    """Which axes of a state are its layers."""
    readers = analysis.readers.get(i.name, ())
    if len(i.dims) == 3:
        direct = [n for n, _ in readers if n.op in _RECURRENT]
        layouts = {a.i for n in direct for a in n.proto.attribute if a.name == "layout"}
        return (1,) if layouts == {1} else (0,)
    if len(i.dims) == 2:
        # (layers, features) of a sequence without a batch is unsqueezed between both.
        direct = [n for n, _ in readers if n.op == "Unsqueeze"]
        unbatched = any(list(a.ints) == [1] for n in direct for a in n.proto.attribute)
        return (0,) if unbatched or _unsqueezed_between(direct, analysis) else ()
    return tuple(range(max(0, len(i.dims) - 2)))


def _unsqueezed_between(nodes: Sequence[FileNode], analysis: Analysis) -> bool:
    constants = {t.name: t for t in analysis.model.graph.initializer}
    made = {name: n for n in analysis.top for name in n.outputs if n.op == "Constant"}
    for node in nodes:
        name = node.inputs[1] if len(node.inputs) > 1 else ""
        tensor = constants.get(name)
        if name in made:
            tensor = next((a.t for a in made[name].proto.attribute if a.HasField("t")), None)
        one = (1).to_bytes(8, "little")
        if tensor is not None and (tensor.raw_data == one or list(tensor.int64_data) == [1]):
            return True
    return False
