# SPDX-License-Identifier: MIT
"""torch.export at two lengths: one list of nodes, each with what it was at both.

Both programs have fixed sizes. What differs between them depends on the length; a size that
differs as an axis of the input does is that axis (a `Size`), anything else is a `Differs`.
Symbolic sizes would take one export only, but they merge with sizes that happen to be equal,
and errors about them do not say which line of `forward` is the cause.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import logging
import warnings
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..axes import Size
from ..errors import UnsupportedError
from .nodes import (
    CELLS,
    LOOP,
    PACKING,
    RECURRENT,
    failed,
    is_check,
    line_of,
    source,
    target_of,
    where,
)

_VIEWS = (
    "clone", "contiguous", "detach", "expand", "getitem", "permute", "reshape", "select", "slice",
    "split", "split_with_sizes", "squeeze", "transpose", "unbind", "unsqueeze", "view",
)  # fmt: skip


@dataclass(frozen=True)
class Ref:
    """The value of another node."""

    name: str


@dataclass(frozen=True)
class Differs:
    """An argument that is not the same at both lengths."""

    first: Any
    second: Any


@dataclass(frozen=True)
class Node:
    """One call: `target` is "add.Tensor", say; `where` names it in messages."""

    name: str
    where: str
    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    pair: tuple[Any, Any]  # torch.fx's nodes


@dataclass(frozen=True)
class Input:
    """An argument of forward; sizes that vary are None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: Any


@dataclass
class Program:
    """A module, traced."""

    nodes: list[Node]
    inputs: list[Input]  # of the caller, tensors only
    main: int  # the one that is no state
    constants: dict[str, tuple[str, Any]]  # parameters and buffers: node's name to name, tensor
    outputs: Any  # Ref, or a tuple of them


@dataclass
class _Side:
    """One export."""

    program: Any
    nodes: list[Any]
    output: Any = None
    inputs: list[Any] = field(default_factory=list)
    constants: dict[str, tuple[str, Any]] = field(default_factory=dict)


def export(module: Any, example: Any, known: Container[str]) -> tuple[Program, list[Any], Any]:
    """Both exports, put together; and the leaves and the form of the example. known: operations
    to leave as they are. Raises UnsupportedError."""
    torch = importlib.import_module("torch")
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    args, kwargs = _arguments(torch, example)
    with evaluation(torch, module):
        program = _at_two_lengths(torch, module, args, kwargs, known)
    return program, *torch.utils._pytree.tree_flatten((args, kwargs))


def _arguments(torch: Any, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, dict):
        args, kwargs = (), dict(example)
    else:
        args, kwargs = (tuple(example) if isinstance(example, list | tuple) else (example,)), {}
    args, kwargs = torch.utils._pytree.tree_map(_tensor_of(torch), (args, kwargs))
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    if not any(isinstance(x, torch.Tensor) for x in leaves):
        raise TypeError("example: expected a tensor, a tuple of them, or a dict of keyword "
                        f"arguments, got {type(example).__name__}")  # fmt: skip
    if not all(x.numel() for x in leaves if isinstance(x, torch.Tensor)):
        raise ValueError("example: a tensor without elements; give one of a usual size")
    return args, kwargs


def _tensor_of(torch: Any) -> Any:
    """NumPy's arrays as tensors, its double numbers in the type that modules have."""

    def convert(x: Any) -> Any:
        if not hasattr(x, "__array_interface__"):
            return x
        tensor = torch.as_tensor(x)
        return tensor.float() if tensor.is_floating_point() else tensor

    return convert


@contextlib.contextmanager
def evaluation(torch: Any, module: Any) -> Iterator[None]:
    """The module in evaluation, and everything as it was afterwards."""
    before = [(m, dict(m.__dict__), {k: dict(v) for k, v in m.__dict__.items() if type(v) is dict})
              for m in module.modules()]  # fmt: skip
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)  # export logs and prints what it also raises
            module.eval()
            yield
    finally:
        logging.disable(disabled)
        for m, attributes, tables in before:  # a forward may keep states there
            for name in m.__dict__.keys() - attributes.keys():
                del m.__dict__[name]
            m.__dict__.update(attributes)
            for name, table in tables.items():
                m.__dict__[name].clear()
                m.__dict__[name].update(table)


# ---- which axes are time and batch --------------------------------------------------------


def _at_two_lengths(
    torch: Any, module: Any, args: Any, kwargs: Any, known: Container[str]
) -> Program:
    tree = torch.utils._pytree
    leaves, form = tree.tree_flatten((args, kwargs))
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]
    # Tensors of their own: export takes one that is given twice for one input.
    leaves = [_empty_like(torch, x) if i in tensors else x for i, x in enumerate(leaves)]
    args, kwargs = tree.tree_unflatten(leaves, form)
    example = _once(torch, module, args, kwargs, known)
    if isinstance(example, Exception):
        raise failed(example) from None
    main = _main_input(example)
    x = tensors[main]
    shape = tuple(leaves[x].shape)
    refusal: Exception | None = None
    for varied, batch in _choices(module, leaves[x], len(tensors) > 1):
        sizes = _other_sizes(shape, varied)
        other = list(leaves)
        for i in tensors:
            new = list(leaves[i].shape)
            if i == x:
                for axis in varied:
                    new[axis] = sizes[axis][1]
            elif batch is not None and (at := _batch_axis(new, shape[batch])) is not None:
                new[at] = sizes[batch][1]
            other[i] = _empty_like(torch, leaves[i], new)
        args, kwargs = tree.tree_unflatten(other, form)
        second = _once(torch, module, args, kwargs, known) if varied else example
        if isinstance(second, Exception):
            refusal = refusal or failed(second, sizes)
        elif varied and shape[0] == 1 and _is_step(example, second) and len(shape) == 2:
            continue  # a batch of 1 stays 1: rows of the model's input are time then
        elif not _rows_vary(example, second):
            refusal = refusal or UnsupportedError(
                f"from_torch: cannot tell which axes of the example, {list(shape)}, are time and "
                "batch: the recurrent layer does not read them as such"
            )
        else:
            return _together(example, second, main, sizes)
    assert refusal is not None
    raise refusal


def _empty_like(torch: Any, x: Any, shape: Sequence[int] | None = None) -> Any:
    return torch.zeros(x.shape if shape is None else shape, dtype=x.dtype, device=x.device)


def _main_input(side: _Side) -> int:
    """Which input is not a state; there must be one."""
    states = set()
    for node in side.nodes:
        if target_of(node).startswith(RECURRENT + CELLS):
            given = node.args[1]
            for state in given if isinstance(given, list | tuple) else [given]:
                while state.op == "call_function" and target_of(state).partition(".")[0] in _VIEWS:
                    state = state.args[0]
                states.add(state.name)
    others = [i for i, n in enumerate(side.inputs) if n.name not in states and n.users]
    if not others:
        raise UnsupportedError("from_torch: forward reads no input but states")
    if len(others) > 1:
        names = ", ".join(repr(side.inputs[i].name) for i in others)
        raise UnsupportedError(
            f"from_torch: forward has the inputs {names}; clstm takes one beside the states of "
            "recurrent layers: concatenate them outside of the module (lengths: leave them out "
            "and pass m(x, lengths=...) to the model)"
        )
    return others[0]


def _choices(module: Any, x: Any, states: bool) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Axes of the input that may be time and batch, and which of them is the batch of the states;
    likely ones first. An axis stays as it is only where it is 1."""
    batch_first = any(getattr(m, "batch_first", False) is True for m in module.modules())
    n = x.ndim + (not x.is_floating_point())  # as if tokens had features
    sets: list[tuple[int, ...]]
    sets = {1: [(), (0,)], 2: [(0,), (0, 1)], 3: [(0, 1), (0, 2)]}.get(n, [()])  # type: ignore
    sets = [axes for axes in sets if all(axis < x.ndim for axis in axes)]
    sets += [(axis,) for axis in range(n - 1) if n == 3 and x.shape[1 - axis] == 1]
    sets += [()] if n == 2 and x.shape[0] == 1 else []
    for axes in sets:
        order = axes if batch_first else axes[::-1]
        for batch in [*order, None] if states else [None]:
            yield axes, batch


def _other_sizes(shape: Sequence[int], varied: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Sizes that tell the axes apart: no two in one proportion. Short where the example is
    long, so that an unrolled loop costs little."""
    sizes: dict[int, tuple[int, int]] = {}
    for axis in varied:
        n = shape[axis]
        other = (n + 3 if n < 8 else 5) + 2 * len(sizes)  # nor in one distance
        while any(n * b == a * other for a, b in sizes.values()):
            other += 1
        sizes[axis] = n, other
    return sizes


def _batch_axis(shape: Sequence[int], batch: int) -> int | None:
    """Of a state: (L, B, H) or (B, H), or wherever that size is."""
    order = [len(shape) - 2, *range(len(shape))] if len(shape) > 1 else []
    return next((axis for axis in order if shape[axis] == batch), None)


def _is_step(first: _Side, second: _Side) -> bool:
    """Whether the recurrent layers have no time to run over."""
    times = set()
    for side in (first, second):
        for node in side.nodes:
            if target_of(node).startswith(CELLS):
                times.add(1)
            elif target_of(node).startswith(RECURRENT):
                shape = node.args[0].meta["val"].shape
                times.add(shape[int(node.args[-1]) if len(shape) == 3 else 0])
    return times == {1}


def _rows_vary(first: _Side, second: _Side) -> bool:
    """Whether time and batch, as the first recurrent node reads them, are the axes that vary; an
    axis of 1 may stay."""
    for a, b in zip(first.nodes, second.nodes, strict=False):
        if target_of(a) != target_of(b):
            return True  # its refusal says more
        if target_of(a).startswith(RECURRENT + CELLS):
            old, new = a.args[0].meta["val"].shape, b.args[0].meta["val"].shape
            pairs = zip(old[:-1], new[:-1], strict=False)
            return len(old) == len(new) and all(m != n or m == 1 for m, n in pairs)
    return True


# ---- one export -----------------------------------------------------------------------------


def _once(torch: Any, module: Any, args: Any, kwargs: Any, known: Container[str]) -> Any:
    """The export, or the error: the caller knows whether another length works."""
    try:
        program = torch.export.export(module, args, kwargs or None, strict=False)
        # With an empty table only what is not basic is decomposed, and writing in place becomes
        # values, so that no write through a view is overlooked. It takes longer than the export.
        if any(_is_special(n, known) for n in program.graph.nodes if n.op != "placeholder"):
            program = program.run_decompositions({})
    except Exception as error:
        return error
    # Copies depend on strides, which a batch of 1 changes.
    program.graph.eliminate_dead_code()
    calls = [n for n in program.graph.nodes
             if n.op == "call_function" and source(n) is n and not is_check(n)]  # fmt: skip
    side = _Side(program, calls)
    by_name = {n.name: n for n in program.graph.nodes}
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            if hasattr(spec.arg, "name") and spec.arg.name in by_name:
                node = by_name[spec.arg.name]
                if isinstance(node.meta.get("val"), torch.Tensor):
                    side.inputs.append(node)
            continue
        table = program.state_dict if spec.target in program.state_dict else program.constants
        side.constants[spec.arg.name] = spec.target, table[spec.target]
    for spec in program.graph_signature.output_specs:
        if spec.kind.name != "USER_OUTPUT":
            return UnsupportedError(
                f"forward changes {spec.target or 'its input'}; a model's only state is that of "
                "its recurrent layers"
            )
    side.output = next(n for n in program.graph.nodes if n.op == "output").args[0]
    return side


def _is_special(node: Any, known: Container[str]) -> bool:
    """Whether it writes in place, or is nothing that has a layer or makes a constant."""
    if node.op != "call_function" or not node.all_input_nodes or source(node) is not node:
        return bool(node.op == "get_attr")
    schema, target = getattr(node.target, "_schema", None), target_of(node)
    if bool(schema.is_mutable) if schema else target != "getitem":
        return True
    return not (target in known or target.partition(".")[0] in known or is_check(node))


# ---- both together --------------------------------------------------------------------------


def _together(
    first: _Side,
    second: _Side,
    main: int,
    sizes: dict[int, tuple[int, int]],
) -> Program:
    for node in (*first.nodes, *second.nodes):
        if "pack_padded_sequence" in target_of(node) or "pad_packed_sequence" in target_of(node):
            raise UnsupportedError(f"{where(node)}: {PACKING}")
    _same_nodes(first, second, sizes)
    names = {b.name: a.name for a, b in zip(first.nodes, second.nodes, strict=True)}
    names |= {b.name: a.name for a, b in zip(first.inputs, second.inputs, strict=True)}
    names |= {n: n for n in second.constants}
    pairing = _Pairing(names, sizes)
    nodes = []
    for a, b in zip(first.nodes, second.nodes, strict=True):
        args = pairing(tuple(a.args), tuple(b.args))
        kwargs = pairing(dict(a.kwargs), dict(b.kwargs))
        nodes.append(Node(a.name, where(a), target_of(a), args, kwargs, (a, b)))
    inputs = []
    for a, b in zip(first.inputs, second.inputs, strict=True):
        old, new = a.meta["val"], b.meta["val"]
        shape = tuple(m if m == n else None for m, n in zip(old.shape, new.shape, strict=True))
        inputs.append(Input(a.name, shape, old.dtype))
    outputs = pairing(tuple(first.output), tuple(second.output))
    return Program(nodes, inputs, main, first.constants, outputs)


def _same_nodes(first: _Side, second: _Side, sizes: dict[int, tuple[int, int]]) -> None:
    """Or the first node that is there at one length only."""
    for a, b in itertools.zip_longest(first.nodes, second.nodes):
        if a is not None and b is not None and target_of(a) == target_of(b):
            continue
        counts = [Counter(line_of(n) for n in side.nodes) for side in (first, second)]
        grown = {line: counts[1][line] - counts[0][line] for line in counts[0]}
        looped = next((n for n in first.nodes
                       if any(grown[line_of(n)] * (q - p) > 0 and grown[line_of(n)] % (q - p) == 0
                              for p, q in sizes.values())), None)  # fmt: skip
        if looped is not None:
            m, n = (count[line_of(looped)] for count in counts)
            raise UnsupportedError(
                f"{where(looped)}: {m} operations at one length and {n} at another: {LOOP}"
            )
        raise UnsupportedError(
            f"{where(a or b)}: what is computed depends on the length or the batch size: this is "
            "not the same at two of them"
        )


@dataclass
class _Pairing:
    """Arguments of a node at both lengths as one."""

    names: dict[str, str]
    sizes: dict[int, tuple[int, int]]

    def __call__(self, a: Any, b: Any) -> Any:
        if hasattr(a, "meta"):
            a, b = source(a), source(b) if hasattr(b, "meta") else b
            same = hasattr(b, "meta") and self.names.get(b.name) == a.name
            return Ref(a.name) if same else Differs(a, b)
        if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
            return tuple(self(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, dict):
            return {k: self(a[k], b.get(k)) for k in a}
        if type(a) is int and type(b) is int and a != b:
            return self.size(a, b) or Differs(a, b)
        return a if type(a) is type(b) and a == b else Differs(a, b)

    def size(self, a: int, b: int) -> Size | None:
        """The product of axes of the input that a and b are, if they are one."""
        for n in range(1, len(self.sizes) + 1):
            for rows in itertools.combinations(self.sizes, n):
                over, under = a, b
                for r in rows:
                    (over, m), (under, k) = (
                        divmod(over, self.sizes[r][0]),
                        divmod(under, self.sizes[r][1]),
                    )
                    if m or k:
                        break
                else:
                    if over == under:
                        return Size(rows, over)
        return None
