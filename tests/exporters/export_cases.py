# SPDX-License-Identifier: MIT
"""The modules that are exported and traced: every combination of what follows, and a sample of it
in which every two values of two factors meet. Nothing here needs torch."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Case:
    exporter: str  # "old": torch.onnx.export(dynamo=False), "new": dynamo=True, "": from_torch
    cell: str  # LSTM, GRU, RNN, "RNN relu", and the cells of one step, LSTMCell, GRUCell, RNNCell
    opset: int = 18
    axes: str = "dynamic"  # or "static": length and batch are numbers
    layers: int = 1
    directions: int = 1
    state: str = "none"  # "given": inputs h0 and c0; "learned": parameters, expanded to the batch
    embedding: bool = False
    head: str = "none"  # "linear"; "deep": two with a ReLU and a Softmax; "norm": LayerNorm first
    layout: str = "time first"  # "batch first", "unbatched"
    bias: bool = True
    returns: str = "state"  # "y": the module drops the states
    sizes: str = "apart"  # "equal": length, batch and both sizes are one number; "batch of 1"
    proj: int = 0

    @property
    def name(self) -> str:
        """What differs from the defaults, for the test's id."""
        kind = f"{self.exporter} " if self.exporter else ""
        words = [f"{kind}{self.cell}"] + ([f"opset {self.opset}"] if kind else [])
        for f in fields(self)[3:]:
            value = getattr(self, f.name)
            if value != f.default:
                words.append(f.name if value is True else f"{f.name} {value}")
        return ", ".join(words)

    @property
    def seed(self) -> int:
        return zlib.crc32(repr(self).encode())

    @property
    def is_cell(self) -> bool:
        return self.cell.endswith("Cell")

    @property
    def bare(self) -> bool:
        """A module of torch's own, nothing around it."""
        plain = self.state != "learned" and self.returns == "state"
        return plain and not self.embedding and self.head == "none"


# What issue and exporters multiply; the full product is run in the long form.
RECURRENT: dict[str, Sequence] = {
    "layers": (1, 2),
    "directions": (1, 2),
    "state": ("none", "given"),
    "embedding": (False, True),
    "head": ("none", "linear"),
}
OLD: dict[str, Sequence] = {
    "exporter": ("old",),
    "cell": ("LSTM", "GRU", "RNN", "RNN relu"),
    "opset": tuple(range(14, 21)),
    "axes": ("static", "dynamic"),
}
NEW: dict[str, Sequence] = {
    "exporter": ("new",),
    "cell": ("LSTM", "GRU"),
    "opset": (18, 19, 20),
    "axes": ("static", "dynamic"),
}
TRACED: dict[str, Sequence] = {"exporter": ("",), "cell": ("LSTM", "GRU", "RNN", "RNN relu")}
# What else varies: in the sample like any other factor; in the product it is drawn.
BESIDE: dict[str, Sequence] = {
    "state": ("none", "given", "learned"),
    "head": ("none", "linear", "deep", "norm"),
    "layout": ("time first", "batch first", "unbatched"),
    "bias": (True, False),
    "returns": ("state", "y"),
    "sizes": ("apart", "equal", "batch of 1"),
}


def sensible(case: Mapping) -> bool:
    """Whether such a module exists and torch exports it. `case` may lack factors."""

    def are(**words: object) -> bool:
        return all(case.get(name) == value for name, value in words.items())

    # The new exporter fails on an unbatched sequence of unknown length.
    return not are(exporter="new", axes="dynamic", layout="unbatched")


def product(*factors: Mapping[str, Sequence]) -> Iterator[Case]:
    """Every combination; what stands beside it is drawn for each. A learned state counts as an
    initial state, every head as a head."""
    merged = {name: values for each in factors for name, values in each.items()}
    forms = {"given": ("given", "learned"), "linear": ("linear", "deep", "norm")}
    for values in itertools.product(*merged.values()):
        plain = dict(zip(merged, values, strict=True))
        draw = random.Random(repr(plain))
        rows = [
            plain
            | {name: draw.choice(choices) for name, choices in BESIDE.items()}
            | {name: draw.choice(forms.get(plain[name], ("none",))) for name in ("state", "head")}
            for _ in range(50)
        ]
        yield Case(**next(row for row in rows if sensible(row)))


Pair = tuple[tuple[str, object], tuple[str, object]]


def _pairs(row: Mapping) -> set[Pair]:
    return set(itertools.combinations(sorted(row.items(), key=lambda item: item[0]), 2))


def pairwise(
    factors: Mapping[str, Sequence], allowed: Callable[[Mapping], bool] = lambda row: True
) -> list[dict]:
    """Rows in which every allowed pair of values of two factors meets; the same in each run.

    Greedy: each row begins with a pair that is still missing, and takes, factor by factor, the
    value that meets most missing pairs; the best of several orders of the factors is kept."""
    draw = random.Random(1)
    missing = dict.fromkeys(
        pair
        for a, b in itertools.combinations(sorted(factors), 2)
        for u, v in itertools.product(factors[a], factors[b])
        if allowed(dict(pair := ((a, u), (b, v))))
    )
    rows = []
    while missing:
        first = next(iter(missing))
        best: tuple[int, dict] | None = None
        for _ in range(20):
            row = _completed(dict(first), factors, allowed, missing, draw)
            if row is not None:
                met = len(_pairs(row) & missing.keys())
                best = (met, row) if best is None or met > best[0] else best
        if best is None:
            raise ValueError(f"no allowed row has {first}")
        rows.append(best[1])
        for pair in _pairs(best[1]):
            missing.pop(pair, None)
    return rows


def _completed(
    row: dict,
    factors: Mapping[str, Sequence],
    allowed: Callable[[Mapping], bool],
    missing: Mapping[Pair, None],
    draw: random.Random,
) -> dict | None:
    others = [name for name in factors if name not in row]
    draw.shuffle(others)
    for name in others:
        choices = [row | {name: value} for value in factors[name]]
        choices = [choice for choice in choices if allowed(choice)]
        if not choices:
            return None
        draw.shuffle(choices)
        row = max(choices, key=lambda choice: len(_pairs(choice) & missing.keys()))
    return row


def sample(*factors: Mapping[str, Sequence]) -> list[Case]:
    merged = {name: values for each in (*factors, BESIDE) for name, values in each.items()}
    fixed = {name: values[0] for name, values in merged.items() if len(values) == 1}
    return [Case(**row) for row in pairwise(merged, lambda row: sensible(fixed | row))]


CELLS = [
    Case(exporter, cell, opset=opset, axes=axes, state="given", bias=bias)
    for exporter, opset, axes, bias in (
        ("old", 14, "dynamic", True),
        ("old", 20, "static", False),
        ("new", 20, "dynamic", False),
    )
    for cell in ("LSTMCell", "GRUCell", "RNNCell")
]

# What torch writes wrongly, or writes out step by step, and the words by which it is refused.
REFUSED = [
    (Case("new", "RNN", axes="static"), "unroll"),
    (Case("new", "RNN relu", layers=2, directions=2), "unroll"),
    (Case("new", "LSTM", axes="static", proj=2), "proj_size"),
    (Case("new", "LSTM", layers=2, directions=2, proj=2), "proj_size"),
]


def unused(case: Case) -> Case:
    """The same without what only a file has."""
    return replace(case, exporter="", opset=18, axes="dynamic")
