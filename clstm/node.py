# SPDX-License-Identifier: MIT
"""What a graph is made of while it is followed: layers to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import nn
from .axes import LAYER, Array, StateRow, Value, check_order, factors, refuse

Tensors = dict[str, Array]


@dataclass(eq=False)
class Node:
    """One layer to be."""

    name: str  # of the operation, for messages
    kind: type[nn.Layer]
    options: dict[str, Any] = field(default_factory=dict)
    tensors: Tensors = field(default_factory=dict)
    inputs: tuple[Node, ...] = ()
    width: int = 0
    prefix: str = ""
    # Recurrent ones only: tensors of each layer and direction, in order; initial "h0", "c0".
    cells: list[Tensors] = field(default_factory=list)
    directions: int = 1
    initial: dict[str, Array] = field(default_factory=dict)
    stated: bool = False  # whether the initial state is an input of the file


@dataclass
class Recurrence:
    """What a recurrent layer gives: y as x was, h and c of (L * D, batch, features)."""

    y: Value
    h: Value
    c: Value | None


def bind_initial(
    node: str, made: Node, initial: Mapping[str, Value | Array | None],
    used: dict[tuple[str, int], StateRow],
) -> None:  # fmt: skip
    """Gives a recurrent layer its initial state. used: which row of a state input is whose."""
    given = {w: v for w, v in initial.items() if v is not None}
    stated = [w for w, v in given.items() if isinstance(v, Value)]
    if stated and len(stated) != len(initial):
        raise refuse(node, f"only {stated} of its initial state is an input")
    made.stated = bool(stated)
    for word, v in given.items():
        if not isinstance(v, Value):
            if np.any(v):
                made.initial[word] = np.asarray(v)
            continue
        if v.states is None or any(not isinstance(r.owner, str) for r in v.states):
            raise refuse(node, f"its initial {word[0]} is computed",
                         "it must be an input of the file or a constant")  # fmt: skip
        if len(v.states) != len(made.cells) or factors(v, LAYER) not in ([], [0], [0, 1]):
            raise refuse(node, f"an initial {word[0]} of {len(v.states)} rows for "
                         f"{len(made.cells)} layers and directions")  # fmt: skip
        for i, row in enumerate(v.states):
            if (row.owner, row.index) in used:
                raise refuse(node, f"shares the state {row.owner!r} with another layer")
            check_order(node, row, word[0], used)
            used[row.owner, row.index] = StateRow(made, word[0], i)
