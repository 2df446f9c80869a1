# SPDX-License-Identifier: MIT
"""Weights as textbooks write them, gate by gate, as a state dict under torch's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFormatError

Array = NDArray[Any]

_LAYOUTS = ("split", "torch7", "hx", "chx")
# Names of one gate, in torch's order of rows; which of the names are there tells the kind.
_KINDS: dict[str, tuple[str, ...]] = {"LSTM": ("i", "f", "gc", "o"), "GRU": ("r", "zu", "nhgc")}
_SPLIT = re.compile(r"(?:(w)_?([xihc])_?|(b)_?([xih]?)_?|([wu])_?)([ifgcorznuh])")
_JOINED = re.compile(r"(?:(w)_?|(b)_?)([ifgcorznuh])?")
_TORCH7 = re.compile(r"([io]2g|[ihx]2h)[._](weight|bias)")
_TORCH7_ORDER = {"g": "igfo", "h": "ifog"}  # of rnn's FastLSTM, and of char-rnn


_NAMES = {
    "split": "expected W_xi, W_hi, b_i, or W_i, U_i, b_i, and the same of each gate",
    "torch7": "expected i2g.weight, i2g.bias, o2g.weight, or those of i2h and h2h, or the names of "
    "layout 'split'",
    "hx": "expected W_i, b_i, and the same of each gate",
    "chx": "expected W_i, b_i, and the same of each gate",
}


def from_gates(
    gates: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    layout: str = "split",
    *,
    transposed: bool | None = None,
    order: str | None = None,
) -> dict[str, Array]:
    """A state dict from the weights of a network written from scratch.

    gates: arrays by name; of several layers a list, the first layer first. The names of the
    gates tell the kind: i, f, g (or c), o an LSTM; without f or without i one whose gates are
    coupled; r, z, n (or h) a GRU; h alone an RNN. Case and underscores do not matter. The
    result is for ``from_state_dict(from_gates(...), layers=[nn.LSTM()])``.

    layout:
      "split"   ``W_xi`` (H, I), ``W_hi`` (H, H), ``b_i`` (H,), or ``b_xi`` and ``b_hi``, for
                every gate; ``W_i, U_i, b_i`` likewise. Peepholes, for layers=[nn.LSTM(
                peephole="diagonal")]: ``w_ci, w_cf, w_co`` (H,); for peephole="full": ``W_ci,
                W_cf, W_cg, W_co`` (H, H), each perhaps missing.
      "torch7"  separate products of x and of h, each with its bias: the names of "split", or
                all gates at once: ``i2g.weight`` (4H, I), ``i2g.bias``, ``o2g.weight`` (4H, H),
                perhaps ``o2g.bias``, rows i, g, f, o as in the rnn package's FastLSTM, or
                ``i2h.*`` and ``h2h.*``, rows i, f, o, g as in char-rnn. order= says another.
      "hx"      ``W_i`` (H, H + I), columns of h, then of x; ``b_i`` (H,).
      "chx"     ``W_i`` (H, H + H + I), columns of c, of h, of x; for peephole="full". A gate
                that does not read c may have H + I columns.

    Biases are all there or all missing, and may be (1, H) or (H, 1). Matrices may as well be
    transposed, for x @ W: their shapes tell. Where I = H they do not, and transposed=True has
    to be said, for rows are taken as outputs.

    A peephole of o sees the new c(t) where it is diagonal; where it is full, the old one, or
    with nn.LSTM(output_peephole="new") the new one. A GRU's h is (1 - z) n + z h, as torch has
    it: where a text has z and 1 - z the other way round, negate z's weights and bias. Most texts
    reset h before the product, nn.GRU(linear_before_reset=False).

    Raises ModelFormatError for missing, unknown or misshapen tensors.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(_LAYOUTS)}")
    if order is not None and not isinstance(order, str):
        raise TypeError(f'order={order!r}: expected the letters of the gates, say "ifgo"')
    if not isinstance(gates, Mapping | list | tuple):
        raise TypeError(
            f"gates: expected arrays by name, or a list of such, got {type(gates).__name__}"
        )
    layers = [gates] if isinstance(gates, Mapping) else list(gates)
    found: dict[str, Array] = {}
    kinds: list[str] = []
    for k, layer in enumerate(layers):
        if not isinstance(layer, Mapping):
            raise TypeError(f"gates: expected arrays by name, got {type(layer).__name__}")
        parts = _parse(layer, layout, order)
        tensors = _assemble(parts, layout, transposed)
        kinds.append(_kind(parts))
        if kinds[k] != kinds[0]:
            raise ModelFormatError(
                f"gates: layer {k + 1} is {kinds[k]}, the first {kinds[0]}; one kind goes in one "
                "list"
            )
        before, width = found.get(f"weight_hh_l{k - 1}"), tensors["weight_ih"].shape[1]
        if before is not None and before.shape != tensors["weight_hh"].shape:
            raise ModelFormatError(
                f"gates: layer {k + 1} has {tensors['weight_hh'].shape[1]} units, the one before "
                f"{before.shape[1]}; layers of one list have as many"
            )
        if before is not None and before.shape[1] != width:
            raise ModelFormatError(
                f"gates: layer {k + 1} takes {width} features, the one before gives "
                f"{before.shape[1]}"
            )
        found |= {f"{name}_l{k}": a for name, a in tensors.items()}
    if not found:
        raise ModelFormatError("gates: there are none")
    return found


@dataclass
class _Parts:
    """Arrays by what they multiply ("x", "h", "c", or "hx" and "chx" side by side; "b", "bx",
    "bh" for biases) and by gate, and the name of each in messages."""

    arrays: dict[tuple[str, str], Array] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, what: str, gate: str, name: str, array: Array) -> None:
        if (what, gate) in self.arrays:
            raise ModelFormatError(f"{name} and {self.names[what, gate]} are the same")
        self.arrays[what, gate], self.names[what, gate] = array, name

    def of(self, what: str) -> dict[str, Array]:
        return {gate: a for (kind, gate), a in self.arrays.items() if kind == what}


# ---- names --------------------------------------------------------------------------------


def _parse(layer: Mapping[str, Any], layout: str, order: str | None) -> _Parts:
    parts = _Parts()
    arrays = {str(name): _array(str(name), value) for name, value in layer.items()}
    joint = {n: m for n in arrays if layout == "torch7" and (m := _TORCH7.fullmatch(n.lower()))}
    if joint:
        _parse_joint(arrays, joint, order, parts)
        return parts
    if order is not None:
        raise ValueError('order= is for layout="torch7" with all gates in one matrix')
    for name, array in arrays.items():
        word = name.lower()
        if layout in ("hx", "chx"):
            m = _JOINED.fullmatch(word)
            what = layout if m and m[1] else "b"
            gate = (m[3] or "h") if m else ""
        else:
            m = _SPLIT.fullmatch(word)
            what, gate = _meaning(m) if m else ("", "")
        if not m:
            raise ModelFormatError(f"{name}: no name of layout {layout!r}; {_NAMES[layout]}")
        parts.add(what, gate, name, array)
    return parts


def _meaning(m: re.Match[str]) -> tuple[str, str]:
    """W_xi, torch's W_ii, or W_i and U_i; a bias of one product or of both."""
    if m[1]:
        return {"i": "x"}.get(m[2], m[2]), m[6]
    if m[3]:
        return "b" + {"i": "x"}.get(m[4], m[4]), m[6]
    return {"w": "x", "u": "h"}[m[5]], m[6]


def _parse_joint(
    arrays: dict[str, Array],
    joint: dict[str, re.Match[str]],
    order: str | None,
    parts: _Parts,
) -> None:
    """All gates in one matrix: taken apart."""
    surplus = [name for name in arrays if name not in joint]
    if surplus:
        raise ModelFormatError(f"{surplus[0]}: not one of {', '.join(joint)}")
    styles = {m[1][-1] for m in joint.values()}
    if len(styles) > 1:
        raise ModelFormatError(f"{', '.join(joint)}: names of two programs")
    rows = order if order is not None else _TORCH7_ORDER[styles.pop()]
    if sorted(rows) not in (sorted("ifgo"), sorted("ifco")):
        raise ValueError(f"order={order!r}: expected the letters i, f, g and o")
    for name, m in joint.items():
        what = "h" if m[1] in ("o2g", "h2h") else "x"
        array = arrays[name]
        if m[2] == "bias":
            pieces, what = np.split(_vector(name, array, None, 4), 4), f"b{what}"
        elif array.ndim != 2 or all(n % 4 for n in array.shape):
            raise ModelFormatError(f"{name}: expected shape (4 * H, ...), found {array.shape}")
        else:
            pieces = np.split(array, 4, axis=_gates_axis(name, m, arrays, joint))
        for gate, piece in zip(rows, pieces, strict=True):
            parts.add(what, gate, name, piece)


def _gates_axis(
    name: str, m: re.Match[str], arrays: dict[str, Array], joint: dict[str, re.Match[str]]
) -> int:
    """h's matrix, (4H, H) or (H, 4H), tells it for both."""
    other = next((n for n, m in joint.items() if m[1] in ("o2g", "h2h") and m[2] == "weight"), name)
    rows, columns = arrays[other].shape if arrays[other].ndim == 2 else (0, 0)
    if rows == 4 * columns and columns:
        axis = 0
    elif columns == 4 * rows and rows:
        axis = 1
    else:
        raise ModelFormatError(f"{other}: expected shape (4 * H, H), found {arrays[other].shape}")
    if arrays[name].shape[axis] != 4 * min(rows, columns):
        raise ModelFormatError(
            f"{name}: expected {4 * min(rows, columns)} {'rows' if axis == 0 else 'columns'} as "
            f"{other} has, found shape {arrays[name].shape}"
        )
    return axis


def _array(name: str, value: Any) -> Array:
    from ..program import as_array  # which imports this package

    try:
        array = as_array(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelFormatError(f"{name}: {error}") from None
    if array.dtype.kind not in "fiu":
        raise ModelFormatError(f"{name}: expected real numbers, found {array.dtype}")
    return array


# ---- shapes -------------------------------------------------------------------------------


def _assemble(parts: _Parts, layout: str, transposed: bool | None) -> dict[str, Array]:
    """The tensors of one layer, by torch's names without their number."""
    if layout in ("hx", "chx"):
        _take_apart(parts, layout, transposed)
        transposed = False
    gates = _gates(parts)
    weights = {what: _all_of(parts, what, gates) for what in "xh"}
    _check_matrices(parts, gates)
    hidden = weights["h"][0].shape[0]
    if not hidden or any(a.shape != (hidden, hidden) for a in weights["h"]):
        wrong = next(g for g, a in zip(gates, weights["h"], strict=True)
                     if a.shape != (hidden, hidden) or not hidden)  # fmt: skip
        raise ModelFormatError(
            f"{parts.names['h', wrong]}: expected a square matrix of all gates' one size, found "
            f"shape {parts.arrays['h', wrong].shape}"
        )
    flip = _flipped(parts, gates, hidden, transposed)
    if flip:
        weights = {what: [a.T for a in arrays] for what, arrays in weights.items()}
    found = {"weight_ih": np.concatenate(weights["x"]), "weight_hh": np.concatenate(weights["h"])}
    found |= _biases(parts, gates, hidden)
    peephole = _peephole(parts, gates, hidden, flip)
    found |= {} if peephole is None else {"weight_ch": peephole}
    return {name: np.ascontiguousarray(a, np.float32) for name, a in found.items()}


def _gates(parts: _Parts) -> list[str]:
    """The gates that are there, in torch's order."""
    there = {gate for what, gate in parts.arrays}
    if there == {"h"}:
        return ["h"]
    for kind, letters in _KINDS.items():
        if kind == "GRU" and "r" not in there:
            continue
        gates = [[letter for letter in group if letter in there] for group in letters]
        if sum(map(len, gates)) != len(there) or any(len(g) > 1 for g in gates):
            continue
        missing = [group[0] for group, g in zip(letters, gates, strict=True) if not g]
        # a coupled LSTM derives i or f from the other
        if not missing or (kind == "LSTM" and missing in (["i"], ["f"])):
            return [g[0] for g in gates if g]
        raise ModelFormatError(f"gates: of {kind}'s, {', '.join(missing)} is missing")
    raise ModelFormatError(
        f"gates: found {', '.join(sorted(there))}; expected i, f, g (or c), o of an LSTM, "
        "r, z, n (or h) of a GRU, or h of an RNN"
    )


def _kind(parts: _Parts) -> str:
    """In words, of gates that _gates has found to be one of the kinds."""
    gates = set(_gates(parts))
    if gates == {"h"}:
        return "an RNN"
    if "r" in gates:
        return "a GRU"
    return "an LSTM" if {"i", "f"} <= gates else f"an LSTM without {'f' if 'i' in gates else 'i'}"


def _all_of(parts: _Parts, what: str, gates: list[str]) -> list[Array]:
    arrays = parts.of(what)
    for gate in gates:
        if gate not in arrays:
            raise ModelFormatError(f"gates: W_{what}{gate} is missing")
    return [arrays[gate] for gate in gates]


def _check_matrices(parts: _Parts, gates: list[str]) -> None:
    for what in "xh":
        first = parts.arrays[what, gates[0]].shape
        for gate in gates:
            name, shape = parts.names[what, gate], parts.arrays[what, gate].shape
            if len(shape) != 2 or not all(shape):
                raise ModelFormatError(f"{name}: expected a matrix, found shape {shape}")
            if shape != first:
                raise ModelFormatError(
                    f"{name}: expected shape {first} as {parts.names[what, gates[0]]} has, "
                    f"found {shape}"
                )


def _flipped(parts: _Parts, gates: list[str], hidden: int, transposed: bool | None) -> bool:
    """Whether rows are inputs, by the matrices of x unless they are square."""
    name, shape = parts.names["x", gates[0]], parts.arrays["x", gates[0]].shape
    if hidden not in shape:
        raise ModelFormatError(f"{name}: expected shape ({hidden}, I), found {shape}")
    told = None if shape[0] == shape[1] else shape[1] == hidden
    if None not in (told, transposed) and told != transposed:
        raise ModelFormatError(f"{name}: transposed={transposed}, but its shape is {shape}")
    return bool(transposed if told is None else told)


def _take_apart(parts: _Parts, layout: str, transposed: bool | None) -> None:
    """Matrices over [h, x] or [c, h, x] into those of each. They have more inputs than outputs,
    so that the shape tells which the rows are."""
    joined = parts.of(layout)
    shapes = {gate: a.shape for gate, a in joined.items()}
    for gate, shape in shapes.items():
        if len(shape) != 2 or not min(shape) or shape[0] == shape[1]:
            raise ModelFormatError(
                f"{parts.names[layout, gate]}: expected shape (H, {'H + ' * (layout == 'chx')}"
                f"H + I), found {shape}"
            )
    # what most have, so that a message names the one that differs; [c, h, x] may lack its c
    hidden = max(found := [min(shape) for shape in shapes.values()], key=found.count, default=0)
    wide = [max(shape) for shape in shapes.values()]
    most = max(wide, key=wide.count if layout == "hx" else None, default=0)
    n_cell = hidden if layout == "chx" else 0
    for gate, array in joined.items():
        name, rows_are_inputs = parts.names[layout, gate], array.shape[0] > array.shape[1]
        if transposed is not None and transposed != rows_are_inputs:
            raise ModelFormatError(
                f"{name}: transposed={transposed}, but its shape is {array.shape}"
            )
        a = array.T if rows_are_inputs else array
        if a.shape not in ((hidden, most), (hidden, most - n_cell)) or most <= n_cell + hidden:
            raise ModelFormatError(
                f"{name}: expected {hidden} outputs of {most} inputs as the others have, found "
                f"shape {array.shape}"
            )
        if layout == "chx" and a.shape[1] == most:
            parts.add("c", gate, name, a[:, :hidden])
        elif layout == "chx":
            parts.add("c", gate, name, np.zeros((hidden, hidden)))
        a = a[:, a.shape[1] - (most - n_cell) :]
        parts.add("h", gate, name, a[:, :hidden])
        parts.add("x", gate, name, a[:, hidden:])


def _biases(parts: _Parts, gates: list[str], hidden: int) -> dict[str, Array]:
    """One of both products goes to x's. All gates have biases or none has."""
    both = {what: parts.of(what) for what in ("b", "bx", "bh")}
    if both["b"] and (both["bx"] or both["bh"]):
        names = [parts.names[key] for key in parts.names if key[0] in both]
        raise ModelFormatError(f"{', '.join(names)}: one bias a gate, or one of each product")
    if not any(both.values()):
        return {}
    found = {}
    for word, arrays in (("bias_ih", both["b"] or both["bx"]), ("bias_hh", both["bh"])):
        what = "bh" if word == "bias_hh" else "b" if both["b"] else "bx"
        missing = [gate for gate in gates if gate not in arrays]
        if arrays and missing:
            shown = f"b_{what[1:]}{missing[0]}"
            raise ModelFormatError(f"gates: {shown} is missing; other gates have their bias")
        rows = [_vector(parts.names[what, g], arrays[g], hidden) for g in gates if g in arrays]
        found[word] = np.concatenate(rows) if rows else np.zeros(len(gates) * hidden)
    return found


def _vector(name: str, array: Array, size: int | None, parts: int = 1) -> Array:
    """(H,), (1, H) or (H, 1) as (H,)."""
    size = array.size if size is None else size
    plain = array.shape in ((size,), (1, size), (size, 1))
    if not plain or not size or size % parts:
        expected = f"({size},)" if parts == 1 else f"({parts} * H,)"
        raise ModelFormatError(f"{name}: expected shape {expected}, found {array.shape}")
    return array.reshape(size)


def _peephole(parts: _Parts, gates: list[str], hidden: int, flip: bool) -> Array | None:
    given = parts.of("c")
    if not given:
        return None
    name = parts.names["c", next(iter(given))]
    if "o" not in gates:
        raise ModelFormatError(f"{name}: only an LSTM has a c to read")
    square = {gate: a.shape == (hidden, hidden) and a.ndim == 2 for gate, a in given.items()}
    if not any(square.values()):
        zero = np.zeros(hidden)
        surplus = [gate for gate in given if gate not in "ifo"]
        if surplus:
            raise ModelFormatError(
                f"{parts.names['c', surplus[0]]}: a diagonal peephole is of i, f and o alone"
            )
        return np.concatenate(
            [_vector(parts.names["c", g], given[g], hidden) if g in given else zero for g in "ifo"]
        )
    zeros = np.zeros((hidden, hidden))
    rows = []
    for gate in gates:
        array = given.get(gate, zeros)
        if array.shape != (hidden, hidden):
            raise ModelFormatError(
                f"{parts.names['c', gate]}: expected shape ({hidden}, {hidden}) as the full "
                f"peepholes of other gates, found {array.shape}"
            )
        rows.append(array.T if flip else array)
    return np.concatenate(rows)


__all__ = ["from_gates"]
