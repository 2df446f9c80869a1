# SPDX-License-Identifier: MIT
"""Whether a traced model gives what the module gives, at sizes that no export has seen.

Two exports do not show a branch on the length, or a slice that is longer than both: the module
itself does. It runs at some more lengths and batch sizes, beside the model; a difference is a
refusal, never an answer.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError, UnsupportedError
from .export import Input, evaluation

if TYPE_CHECKING:
    from ..model import Model

Arrays = list[np.ndarray]

# Time and batch: small ones, equal ones, and some beyond what a forward may compare with.
_PAIRS = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 4), (4, 3), (5, 5), (17, 2), (40, 1), (130, 3)]
_SINGLE = [1, 2, 3, 4, 7, 17, 40, 130]
# Float32 against float32, where another computation shows as a gross difference.
_TOLERANCE = 1e-3


def verify(module: Any, leaves: Sequence[Any], form: Any, inputs: Sequence[Input], main: int,
           model: Model) -> None:  # fmt: skip
    """Raises UnsupportedError if the model differs from the module. leaves, form: the example;
    inputs: its tensors, the sizes that vary None; main: the one that is no state."""
    torch = importlib.import_module("torch")
    module = getattr(module, "_orig_mod", module)
    tree, generator = torch.utils._pytree, torch.Generator().manual_seed(0)
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]
    shape = tuple(leaves[tensors[main]].shape)
    varied = [axis for axis, size in enumerate(inputs[main].shape) if size is None]
    for sizes in [tuple(shape[axis] for axis in varied), *_probes(len(varied), model.batch_first)]:
        batch = (
            sizes[0 if model.batch_first else -1] if len(sizes) == 2 else sizes[0] if sizes else 1
        )
        given = list(leaves)
        for i, (at, wanted) in enumerate(zip(tensors, inputs, strict=True)):
            new = list(wanted.shape)
            for axis, size in zip(varied, sizes, strict=True) if i == main else ():
                new[axis] = size
            full = [batch if n is None else n for n in new]
            given[at] = _random(torch, leaves[at], full, generator, model.num_embeddings)
        args, kwargs = tree.tree_unflatten(given, form)
        ours = _ours(
            model, given[tensors[main]], [given[at] for at in tensors if at != tensors[main]]
        )
        if ours is None:
            continue
        with evaluation(torch, module):
            try:
                theirs = tree.tree_leaves(module(*args, **kwargs))
            except Exception:
                if sizes == tuple(shape[axis] for axis in varied):
                    raise
                continue  # not a size of the module's
        expected = [t.detach().cpu().numpy() for t in theirs if isinstance(t, torch.Tensor)]
        if not _agree(expected, *ours):
            raise UnsupportedError(_message(expected, *ours, sizes))


def _probes(n: int, batch_first: bool) -> Iterator[tuple[int, ...]]:
    if n == 1:
        yield from ((size,) for size in _SINGLE)
    if n == 2:
        yield from ((b, t) if batch_first else (t, b) for t, b in _PAIRS)


def _random(torch: Any, x: Any, shape: Sequence[int], generator: Any, n_tokens: int) -> Any:
    if x.is_floating_point():
        return torch.randn(tuple(shape), generator=generator).to(x.dtype)
    return torch.randint(0, max(n_tokens, 1), tuple(shape), generator=generator).to(x.dtype)


def _ours(model: Model, x: Any, states: Sequence[Any]) -> tuple[Arrays, Arrays] | None:
    """What the model returns, outputs and states. None where those given are no state of its."""
    state = _structured(model, [s.numpy() for s in states]) if states else None
    if states and state is None:
        return None
    try:
        returned = model(x.numpy(), state)
    except ShapeError:
        return None if states else ([], [])
    return ([], _flat(returned)) if model._bare_cell else (_flat(returned[0]), _flat(returned[1]))


def _structured(model: Model, states: Sequence[np.ndarray]) -> Any:
    """In the model's order: of each recurrent layer h, and an LSTM's c."""
    counts = [2 if r.n_hidden else 1 for r in model.recurrent]
    if sum(counts) != len(states):
        return None
    left, found = list(states), []
    for n in counts:
        pair = tuple(left.pop(0) for _ in range(n))
        found.append(pair if n == 2 else pair[0])
    return found[0] if len(found) == 1 else found


def _flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, list | tuple):
        return [array for part in value for array in _flat(part)]
    return [] if value is None else [value]


def _agree(expected: Arrays, y: Arrays, final: Arrays) -> bool:
    """Whether forward returns y and states of the model in its order, of which it may drop some
    (the model returns them all the same), or all states and no y."""
    n, left = len(y), iter(final)
    if n and len(expected) >= n and all(map(_equal, expected, y)):
        return all(any(_equal(a, b) for b in left) for a in expected[n:])
    return len(expected) == len(final) and all(map(_equal, expected, final))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """The state of a cell's one row may lack the axis of its batch of 1."""
    return a.shape in (b.shape, (1, *b.shape)) and np.allclose(
        a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
    )


def _message(expected: Arrays, y: Arrays, final: Arrays, sizes: Sequence[int]) -> str:
    shapes = [list(a.shape) for a in expected]
    given = [a.shape for a in expected]
    same = any(given == [b.shape for b in found] for found in (y, [*y, *final], final))
    what = "other numbers" if same else f"outputs of other shapes or in another order, {shapes},"
    return (
        f"from_torch: with an input of sizes {list(sizes)} forward gives {what} than what was "
        "traced. Either it computes something else at some lengths or batch sizes (a branch, a "
        "slice or a constant that hangs on the shape; rows that are no time), or it takes or "
        "returns states in an order of its own: clstm takes and returns (y, state), with h, then "
        "c, of each recurrent layer in turn"
    )
