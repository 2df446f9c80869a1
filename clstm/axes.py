# SPDX-License-Identifier: MIT
"""Values of a traced graph and what their axes stand for.

clstm's layers work on rows of features, one row for each time step and sequence. A traced graph
moves axes about instead: it transposes, reshapes, squeezes and expands. None of that is run; it
is followed, so that at each operation it is known which axis is time, which the batch, and in
which order the features lie. What cannot be followed would mix rows, and is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedError

if TYPE_CHECKING:
    from .formats.budget import Budget

Array = NDArray[Any]

ROW, FEATURE, LAYER, ONE = "row", "feature", "layer", "one"

_MOST_NUMBERS = 2**26  # of a matrix that is made here
_MOST_AXES = 64  # NumPy's limit

LOOP = (
    "a loop over time that the exporter unrolled; export nn.LSTM, nn.GRU or nn.RNN instead of a "
    "loop in Python, with dynamo=False, or load the state dict with layers="
)


@dataclass(frozen=True)
class Size:
    """A size known only when the model runs: `times` the product of these axes of the input."""

    rows: tuple[int, ...]
    times: int = 1


AnySize = int | Size


@dataclass(frozen=True)
class Axis:
    """One axis of a value.

    kind: ROW, made of `rows`, numbers of the input's axes (several after a merge); FEATURE, a
    factor of the features; LAYER, a factor of the rows of a state; ONE, of size 1. order: places
    the factors of features and layers, the slowest first, whatever the order of the axes.
    """

    kind: str
    size: int | None  # None: known only when the model runs
    rows: tuple[int, ...] = ()
    order: tuple[int, ...] = ()

    def __str__(self) -> str:
        word = {ROW: " x ".join(f"axis {n} of the input" for n in self.rows), FEATURE: "features",
                LAYER: "layers", ONE: "1"}[self.kind]  # fmt: skip
        return word


One = Axis(ONE, 1)


@dataclass(frozen=True)
class StateRow:
    """One row of a state: row `index` of the state input `owner` (a name), or of the final h or
    c (`word`) of the recurrent node `owner`."""

    owner: Any
    word: str
    index: int


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the graph: what a node of the builder gives, or rows of a state.

    last: only the last time step of it is meant, so it has no axis of time.
    """

    axes: tuple[Axis, ...]
    node: Any = None
    last: bool = False
    states: tuple[StateRow, ...] | None = None

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def shape(self) -> tuple[AnySize, ...]:
        return tuple(Size(a.rows) if a.size is None else a.size for a in self.axes)

    def kinds(self) -> str:
        """For messages: what each axis is."""
        return "(" + ", ".join(str(a) for a in self.axes) + ")"


def refuse(node: str, cause: str, way: str = "") -> UnsupportedError:
    return UnsupportedError(f"{node}: {cause}" + (f"; {way}" if way else ""))


def split_features(value: Value, parts: Sequence[int]) -> Value:
    """The last axis, all the features, as several; the first is the slowest."""
    a = value.axes[-1]
    split = [replace(a, size=n, order=(*a.order, i)) if n > 1 or i == len(parts) - 1 else One
             for i, n in enumerate(parts)]  # fmt: skip
    return replace(value, axes=(*value.axes[:-1], *split))


def axis_number(node: str, value: Value, axis: int, more: int = 0) -> int:
    """`axis` counted from 0; `more` axes are about to be added."""
    n = value.ndim + more
    if not -n <= axis < n:
        raise refuse(node, f"axis {axis} of a value of {n} axes")
    return axis % n


def permute(node: str, value: Value, order: Sequence[int]) -> Value:
    if sorted(order) != list(range(value.ndim)):
        raise refuse(node, f"the order {list(order)} of {value.ndim} axes")
    return replace(value, axes=tuple(value.axes[i] for i in order))


def unsqueeze(node: str, value: Value, where: Iterable[int]) -> Value:
    """New axes of size 1, counted in the result."""
    where = list(where)
    places = {axis_number(node, value, i, len(where)) for i in where}
    if len(places) != len(where):
        raise refuse(node, f"the axes {where} twice")
    left = iter(value.axes)
    n = value.ndim + len(places)
    if n > _MOST_AXES:
        raise refuse(node, f"makes {n} axes; an array has {_MOST_AXES} at most")
    return replace(value, axes=tuple(One if i in places else next(left) for i in range(n)))


def squeeze(node: str, value: Value, where: Iterable[int] | None) -> Value:
    """Without these axes of size 1; None: all axes that are known to be."""
    if where is None and any(a.size is None for a in value.axes):
        raise refuse(node, "squeezes whichever axes are 1 when it runs", "name the axes")
    if where is None:
        places = {i for i, a in enumerate(value.axes) if a.size == 1}
    else:
        places = {axis_number(node, value, i) for i in where}
    for i in places:
        if value.axes[i].size != 1:
            raise refuse(node, f"takes away {value.axes[i]}, whose size is not known to be 1",
                         "export with that size fixed at 1, or keep the axis")  # fmt: skip
    return replace(value, axes=tuple(a for i, a in enumerate(value.axes) if i not in places))


def expand(node: str, value: Value, shape: Sequence[AnySize]) -> Value:
    """Only where nothing is repeated; -1 and 1 keep an axis."""
    if len(shape) > value.ndim:
        value = unsqueeze(node, value, range(len(shape) - value.ndim))
    for axis, size in zip(value.axes[value.ndim - len(shape) :], shape, strict=True):
        same = size in (-1, 1) or size == (Size(axis.rows) if axis.size is None else axis.size)
        if not same:
            raise refuse(node, f"repeats an axis {size} times")
    return value


def reshape(node: str, value: Value, shape: Sequence[AnySize]) -> Value:
    """Axes merged and split in their order; -1 as in NumPy. Rows never mix with features."""
    atoms = [a for axis in value.axes for a in _atoms(axis)]
    left = atoms[::-1]  # a stack, next one on top
    groups: list[list[Axis]] = []
    for size in _inferred(node, value, atoms, shape):
        taken = _take(node, value, size, left)
        first = next((i for i, a in enumerate(taken) if not _unit(a)), 0)
        if first and taken[first].kind != ROW:  # rows of size 1 belong to the rows before them
            if groups and groups[-1] and groups[-1][-1].kind == ROW:
                groups[-1] += taken[:first]
            taken = taken[first:]
        groups.append(taken)
    if any(a.size != 1 for a in left):
        raise _no_reshape(node, value, shape)
    if groups and groups[-1] and groups[-1][-1].kind == ROW:
        groups[-1] += [a for a in left[::-1] if _unit(a)]
    _check_rows(node, value, shape, groups)
    return replace(value, axes=_merged(node, groups))


def _unit(axis: Axis) -> bool:
    return axis.kind == ROW and axis.size == 1


def _check_rows(
    node: str, value: Value, shape: Sequence[AnySize], groups: Sequence[Sequence[Axis]]
) -> None:
    """Refuses what keeps time and batch apart only at the sizes of the export."""
    rows = [a for group in groups for a in group if a.kind == ROW]
    if len(rows) < 2 or _joins_directions(value, shape):
        return
    way = "export with dynamic shapes, or with a length and a batch that differ and are not 1"
    apart = [g for g in groups if len(g) == 1 and g[0].kind == ROW]
    sizes = [a.size for g in apart for a in g if a.size is not None]
    if len(set(sizes)) < len(sizes):
        raise refuse(node, f"reshapes two axes of the size {sizes[0]}, so that time and batch "
                     "may be exchanged", way)  # fmt: skip
    rest = [g for g, n in zip(groups, shape, strict=True) if n == -1]
    fixed = [g for g, n in zip(groups, shape, strict=True) if n == 1]
    if any(a.kind == ROW for g in rest for a in g) and any(_unit(a) for g in fixed for a in g):
        raise refuse(node, "reshapes to a fixed size of 1 and -1, which merges time and batch "
                     "at any other size", way)  # fmt: skip


def _joins_directions(value: Value, shape: Sequence[AnySize]) -> bool:
    """Whether (time, batch, directions, H) becomes (time, batch, D * H), as exporters write it
    behind every recurrent operator."""
    rows, rest = value.axes[:2], value.axes[2:]
    return (
        len(shape) == 3
        and all(a.kind == ROW and len(a.rows) == 1 for a in rows)
        and len(rest) == 2
        and all(a.kind in (FEATURE, ONE) for a in rest)
    )


def _atoms(axis: Axis) -> list[Axis]:
    if axis.kind == ONE:
        return []
    if axis.kind == ROW and len(axis.rows) > 1:
        sizes = axis.order or (0,) * len(axis.rows)  # a merged row keeps its parts' sizes here
        return [Axis(ROW, n or None, (r,)) for r, n in zip(axis.rows, sizes, strict=True)]
    return [axis]


def _no_reshape(node: str, value: Value, shape: Sequence[AnySize]) -> UnsupportedError:
    sizes = ", ".join(str(s) if isinstance(s, int) else "dynamic" for s in shape)
    baked = any(a.size is None for a in value.axes)
    way = "a length or batch size may be written into the file: export with dynamic shapes"
    return refuse(node, f"cannot reshape {value.kinds()} to ({sizes})", way if baked else "")


def _inferred(
    node: str, value: Value, atoms: Sequence[Axis], shape: Sequence[AnySize]
) -> list[AnySize]:
    if -1 not in shape:
        return list(shape)
    if list(shape).count(-1) > 1:
        raise refuse(node, "more than one size of -1")
    known = math.prod(a.size for a in atoms if a.size is not None)
    rows = [a.rows[0] for a in atoms if a.size is None]
    for size in shape:
        if isinstance(size, Size):
            known_rows, times = size.rows, size.times
        else:
            known_rows, times = (), 1 if size == -1 else size
        if times < 1 or known % times or any(r not in rows for r in known_rows):
            raise _no_reshape(node, value, shape)
        known //= times
        for r in known_rows:
            rows.remove(r)
    rest: AnySize = Size(tuple(rows), known) if rows else known
    return [rest if size == -1 else size for size in shape]


def _take(node: str, value: Value, size: AnySize, left: list[Axis]) -> list[Axis]:
    """The next atoms whose sizes make `size`, from the stack; a factor may be split."""
    rows, need = (list(size.rows), size.times) if isinstance(size, Size) else ([], size)
    taken: list[Axis] = []
    if size == 1 and left and left[-1].kind == ROW and left[-1].size == 1:
        return [left.pop()]
    while rows or need != 1:
        if not left:
            raise _no_reshape(node, value, [size])
        atom = left.pop()
        if atom.size is None:
            if atom.rows[0] not in rows:
                raise _no_reshape(node, value, [size])
            rows.remove(atom.rows[0])
            taken.append(atom)
        elif _unit(atom):
            taken.append(atom)  # it stays known, so that no other axis can take its place
        elif need % atom.size == 0:
            need //= atom.size
            taken.append(atom)
        elif atom.kind != ROW and need > 1 and atom.size % need == 0:
            taken.append(replace(atom, size=need, order=(*atom.order, 0)))
            left.append(replace(atom, size=atom.size // need, order=(*atom.order, 1)))
            need = 1
        else:
            raise _no_reshape(node, value, [size])
    return taken


def _merged(node: str, groups: Sequence[Sequence[Axis]]) -> tuple[Axis, ...]:
    places: dict[tuple[str, tuple[int, ...]], int] = {}
    for kind in (FEATURE, LAYER):
        orders = sorted(a.order for group in groups for a in group if a.kind == kind)
        places |= {(kind, order): i for i, order in enumerate(orders)}
    axes = []
    for group in groups:
        kinds = {a.kind for a in group}
        if not group:
            axes.append(One)
        elif len(kinds) > 1:
            raise refuse(node, "mixes time or batch with features in one axis")
        elif kinds == {ROW}:
            if len(group) == 1:
                axes.append(group[0])
                continue
            known = all(a.size is not None for a in group)
            size = math.prod(a.size or 0 for a in group) if known else None
            rows = tuple(a.rows[0] for a in group)
            axes.append(Axis(ROW, size, rows, tuple(a.size or 0 for a in group)))
        else:
            order = [places[a.kind, a.order] for a in group]
            if order != list(range(order[0], order[0] + len(order))):
                raise refuse(node, "brings features into another order")
            axes.append(replace(group[0], size=math.prod(a.size or 0 for a in group)))
    return tuple(axes)


def row_slice(node: str, axis: Axis, index: int, loop: bool) -> UnsupportedError:
    """A part of time or of the batch that is not the last; loop: an unrolled one may take it."""
    way = f"if it takes each step in turn, it is {LOOP}" if loop and index == 0 else ""
    return refuse(node, f"takes a part of {axis} from {index} on, and of time clstm takes the "
                  "last only, of the batch all", way)  # fmt: skip


def one_row(node: str, axis: Axis, start: int | None, stop: int | None, step: int) -> bool:
    """Whether start:stop:step of a row of size 1 is its last element; else it is all of it.
    Refuses what is so at that size only."""
    whole = stop is None or stop >= 2**31 - 1
    if step == 1 and whole and start in (None, 0, -1):
        return start == -1
    raise refuse(node, f"takes {start or 0}:{'' if whole else stop}:{step} of {axis}, which is all "
                 "of it only because its size is 1",
                 "export with that size dynamic or larger; clstm takes the last only")  # fmt: skip


def factors(value: Value, kind: str) -> list[int]:
    """Numbers of the axes of this kind, the slowest factor first."""
    found = [i for i, a in enumerate(value.axes) if a.kind == kind]
    return sorted(found, key=lambda i: value.axes[i].order)


def restored(value: Value, axis: int = -1) -> Value:
    """A single feature may have lost its axis: one of size 1 in its place stands for it."""
    axis %= max(1, value.ndim)
    if value.ndim and not factors(value, FEATURE) and value.axes[axis].kind == ONE:
        a = Axis(FEATURE, 1, order=(0,))
        return replace(value, axes=(*value.axes[:axis], a, *value.axes[axis + 1 :]))
    return value


def width(value: Value) -> int:
    """Features of a row."""
    return math.prod(value.axes[i].size or 0 for i in factors(value, FEATURE))


def sums(node: str, value: Value, where: Container[int], budget: Budget) -> Array:
    """The matrix of ones and zeros that sums the features along these axes."""
    order = factors(value, FEATURE)
    sizes = [value.axes[i].size or 1 for i in order]
    left = [1 if i in where else n for i, n in zip(order, sizes, strict=True)]
    n_out, n = math.prod(left), math.prod(sizes)
    if n_out * n > _MOST_NUMBERS:
        raise refuse(node, f"sums {n} features in {n_out} groups", "use a Linear layer")
    budget.take(4 * n_out * n, f"{node}: {n_out} sums of {n} features")
    weight = np.zeros((n_out, n), np.float32)
    groups = np.broadcast_to(np.arange(n_out).reshape(left), sizes)
    weight[groups.reshape(-1), np.arange(n)] = 1
    return weight


def select_states(value: Value, axis: int, picked: Sequence[int], keep: bool) -> Value:
    """Some layers of a state."""
    assert value.states is not None
    order = factors(value, LAYER)
    table = np.empty(len(value.states), object)
    table[:] = value.states
    table = table.reshape([value.axes[i].size or 0 for i in order])
    table = np.take(table, list(picked), axis=order.index(axis))
    a = replace(value.axes[axis], size=len(picked))
    if len(picked) == 1:
        a = One
    axes = (*value.axes[:axis], *([a] if keep else []), *value.axes[axis + 1 :])
    return replace(value, axes=axes, states=tuple(table.ravel()))


def check_order(
    node: str, row: StateRow, word: str, used: Mapping[tuple[str, int], StateRow]
) -> None:
    """Refuses a row of a state input that comes after later rows of it."""
    before = [n for (owner, n), r in used.items() if (owner, r.word) == (row.owner, word)]
    if row.index < max(before, default=0):
        raise refuse(node, f"takes the layers of the state {row.owner!r} in another order than "
                     "they have in it", "export with the state as it is")  # fmt: skip


def join_states(node: str, values: Sequence[Value], axis: int) -> Value:
    """States of several layers, one after the other."""
    rows: list[StateRow] = []
    for v in values:
        others = [i for i in factors(v, LAYER) if i != axis]
        if v.states is None or others or v.axes[axis].kind not in (LAYER, ONE):
            raise refuse(node, "joins a state with something else, or not along its layers")
        rest = [a for i, a in enumerate(v.axes) if i != axis]
        if rest != [a for i, a in enumerate(values[0].axes) if i != axis]:
            raise refuse(node, "joins states of different shapes")
        rows += v.states
    a = Axis(LAYER, len(rows), order=(0,)) if len(rows) > 1 else One
    first = values[0]
    return replace(first, axes=(*first.axes[:axis], a, *first.axes[axis + 1 :]), states=tuple(rows))


def vector(node: str, value: Value, constant: Array, budget: Budget) -> Array:
    """A constant that NumPy broadcasts to the value's axes, as one number for each feature,
    in clstm's order, or one for all."""
    constant = np.asarray(constant)
    if constant.size == 1 and constant.ndim <= value.ndim:
        return constant.reshape(1).astype(np.float32)
    if constant.ndim > value.ndim:
        raise refuse(node, f"a constant of shape {constant.shape} against {value.kinds()}")
    constant = constant.reshape((1,) * (value.ndim - constant.ndim) + constant.shape)
    for i, a in enumerate(value.axes):
        if a.kind != FEATURE and constant.shape[i] != 1:
            first = constant.take([0], axis=i)
            if a.size != constant.shape[i] or not np.array_equal(
                np.broadcast_to(first, constant.shape), constant, equal_nan=True
            ):
                raise refuse(node, f"a constant that differs along {a}")
            constant = first
    order = factors(value, FEATURE)
    sizes = [value.axes[i].size or 1 for i in order]
    others = [i for i in range(value.ndim) if i not in order]
    constant = constant.transpose([*others, *order]).reshape([constant.shape[i] for i in order])
    if any(n not in (1, m) for n, m in zip(constant.shape, sizes, strict=True)):
        raise refuse(node, f"a constant of shape {constant.shape} against {value.kinds()}")
    budget.take(4 * math.prod(sizes), f"{node}: {math.prod(sizes)} features")
    return np.broadcast_to(constant, sizes).astype(np.float32).reshape(-1)


def flat(node: str, array: Array, n: int, budget: Budget) -> Array:
    """A number a feature, where a file may give one for as many as it claims."""
    if array.size not in (1, n) or array.shape[-1:] not in ((), (array.size,)):
        raise refuse(node, f"a tensor of shape {array.shape} for {n} features")
    if array.size < n:
        budget.take(4 * n, f"{node}: {n} features")
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), n), np.float32)


def same_axes(a: Sequence[Axis], b: Sequence[Axis]) -> bool:
    """Whether two lists of axes mean the same; of the factors only their order counts."""
    places = [sorted(x.order for x in axes if x.kind == FEATURE) for axes in (a, b)]
    return len(a) == len(b) and all(
        (
            (x.kind, x.size, x.rows) == (y.kind, y.size, y.rows)
            and (x.kind != FEATURE or places[0].index(x.order) == places[1].index(y.order))
        )
        or (x.size == y.size == 1 and {x.kind, y.kind} == {ONE, FEATURE})
        for x, y in zip(a, b, strict=True)
    )
