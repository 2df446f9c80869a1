# SPDX-License-Identifier: MIT
"""Records of LSTM, GRU, RNN and their cells, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import nn
from ..errors import ModelFormatError, UnsupportedError
from ..formats.container import Record
from ..nn.recurrent import ACTIVATIONS as FUNCTIONS
from ..nn.recurrent import Activation
from .kinds import (
    ACTIVATIONS,
    BATCH_FIRST,
    BIAS,
    BIDIRECTIONAL,
    C0,
    CELL,
    CELL_CLIP_STORED,
    COUPLED_F,
    COUPLED_I,
    GRU,
    H0,
    LN,
    LN_BIAS,
    LN_CELL,
    LN_CELL_BIAS,
    LN_CELL_STORED,
    LN_PER_GATE,
    LN_SEPARATE,
    LSTM,
    OUTPUT_NEW,
    PEEPHOLE,
    PEEPHOLE_FULL,
    PROJ_BIAS,
    RESET_BEFORE,
    REVERSE,
    RNN,
    directions,
)
from .tensors import Arrays, Tensors, checked, dotted, numbers_of

Layer: TypeAlias = nn.LSTM | nn.LSTMCell | nn.GRU | nn.GRUCell | nn.RNN | nn.RNNCell

_KINDS: dict[type[nn.Layer], int] = {
    nn.LSTM: LSTM, nn.LSTMCell: LSTM, nn.GRU: GRU, nn.GRUCell: GRU, nn.RNN: RNN, nn.RNNCell: RNN,
}  # fmt: skip
WORDS = {LSTM: "lstm", GRU: "gru", RNN: "rnn"}
_DEFAULT_FUNCTIONS = {LSTM: ("Sigmoid", "Tanh", "Tanh"), GRU: ("Sigmoid", "Tanh"), RNN: ("Tanh",)}
_NUMBERS = {name: number for number, name in enumerate(FUNCTIONS)}
_LOOKS = {1: "an RNN", 3: "a GRU", 4: "an LSTM"}


def bind_recurrent(layer: Layer, t: Tensors, width: int | None, index: int) -> Record:
    """The record, every tensor checked: sizes follow from the first layer's."""
    kind, p = _KINDS[type(layer)], dotted(layer.prefix)
    flags = _flags(layer, kind)
    n_gates = {LSTM: 3 if flags & (COUPLED_F | COUPLED_I) else 4, GRU: 3, RNN: 1}[kind]
    n_layers, found = _extent(t, p, kind, bool(flags & CELL))
    ends = ["", "_reverse"] if found["_reverse"] else [""]
    first = "" if flags & CELL else "_l0"
    w = t.shaped(f"{p}weight_ih{first}", None, width)
    projected = kind == LSTM and found["weight_hr"] and not flags & CELL
    _check_kind(t, f"{p}weight_hh{first}", kind, n_gates, projected)
    hidden = w.shape[0] // n_gates
    _check_rows(f"{p}weight_ih{first}", w, layer, n_gates, hidden)
    proj = t.shaped(f"{p}weight_hr{first}", None, hidden).shape[0] if projected else 0
    if proj >= hidden:
        raise ModelFormatError(
            f"{p}weight_hr{first}: proj_size {proj} must be below hidden_size {hidden}"
        )
    out = proj or hidden
    _check_options(layer, p, proj, len(ends))
    flags |= BIDIRECTIONAL * (len(ends) == 2) | BIAS * found["bias"]
    flags |= PROJ_BIAS * (projected and found["bias_hr"])
    flags |= LN_BIAS * (found["ln_bias"] and bool(flags & LN))
    flags |= LN_CELL_BIAS * (found["ln_cell_bias"] and bool(flags & LN_CELL))
    tensors: Arrays = {}
    for k in range(n_layers):
        for end in ends:
            n_in = out * len(ends) if k else width
            suffix = "" if flags & CELL else f"_l{k}{end}"
            cell = _Cell(t, p, suffix, flags, n_gates, hidden, out)
            tensors |= cell.tensors(layer, n_in, bool(proj))
    sizes = {"input_size": w.shape[1], "hidden_size": hidden, "bias": bool(flags & BIAS)}
    if not flags & CELL:
        sizes |= {"num_layers": n_layers, "bidirectional": len(ends) == 2}
        sizes |= {"proj_size": proj} if kind == LSTM else {}
    checked(layer, **sizes)
    start = p or f"{WORDS[kind]}{index}."
    word = _options(layer, kind, start, len(ends), tensors)
    flags |= ACTIVATIONS * (word is not None)
    flags |= _initial(t, layer, start, n_layers * len(ends), out, hidden, tensors)
    dims = (w.shape[1], hidden, proj, n_layers, word or 0)
    return Record(kind, layer.prefix, flags, (0,), dims, _params(layer, kind), tensors)


def _flags(layer: Any, kind: int) -> int:
    """What the description says, as flags."""
    flags: int = CELL * (not hasattr(layer, "batch_first"))
    flags |= BATCH_FIRST * getattr(layer, "batch_first", False)
    flags |= REVERSE * getattr(layer, "reverse", False)
    if kind == GRU:
        flags |= RESET_BEFORE * (not layer.linear_before_reset)
    if kind != LSTM:
        return flags
    flags |= {None: 0, "diagonal": PEEPHOLE, "full": PEEPHOLE_FULL}[layer.peephole]
    flags |= {None: 0, "f=1-i": COUPLED_F, "i=1-f": COUPLED_I}[layer.coupled]
    flags |= OUTPUT_NEW * (layer.output_peephole == "new")
    flags |= CELL_CLIP_STORED * (layer.cell_clip_stored and layer.cell_clip is not None)
    norm = layer.layer_norm
    if norm is not None:
        flags |= LN | LN_PER_GATE * norm["per_gate"] | LN_SEPARATE * norm["separate"]
        flags |= LN_CELL * bool(norm["cell"]) | LN_CELL_STORED * (norm["cell"] == "stored")
    return flags


def _params(layer: Any, kind: int) -> tuple[float, ...]:
    if kind != LSTM:
        return (float(layer.clip or 0), 0.0, 0.0, 0.0, 0.0, 0.0)
    clips = [float(n or 0) for n in (layer.clip, layer.cell_clip, layer.proj_clip)]
    return (*clips, float(layer.forget_bias), *(layer.zoneout or (0.0, 0.0)))


def _extent(t: Tensors, p: str, kind: int, cell: bool) -> tuple[int, dict[str, bool]]:
    """The number of layers, and which tensors there are that a layer may have or not. One of a
    sort tells that all of the sort must be there."""
    words = "weight_ih|weight_hh|bias_ih|bias_hh" + ("|weight_hr|bias_hr" if kind == LSTM else "")
    norms = r"|(ln_(?:ih|hh|cell))" if kind == LSTM else "|(?!)()"
    end = r"()()" if cell else r"_l(\d+)(_reverse)?"
    pattern = re.compile(re.escape(p) + rf"(?:({words}){norms}){end}(\.bias|\.weight)?")
    found = [m for name in t.all if (m := pattern.fullmatch(name))]
    plain = [m for m in found if m[1] and not m[5]]
    names = {m[1] for m in plain}
    biased = {m[2] for m in found if m[2] and m[5] == ".bias"}
    n_layers = 1 if cell else _count({int(m[3]) for m in plain}, p)
    return n_layers, {
        "_reverse": any(m[4] for m in plain),
        "bias": not names.isdisjoint(("bias_ih", "bias_hh")),
        "weight_hr": "weight_hr" in names,
        "bias_hr": "bias_hr" in names,
        "ln_bias": not biased.isdisjoint(("ln_ih", "ln_hh")),
        "ln_cell_bias": "ln_cell" in biased,
    }


def _count(numbers: set[int], p: str) -> int:
    if numbers and numbers != set(range(len(numbers))):
        missing = min(set(range(max(numbers))) - numbers)
        raise ModelFormatError(
            f"{p}weight_ih_l{missing} is missing between the layers {sorted(numbers)}"
        )
    return len(numbers)


def _check_kind(t: Tensors, name: str, kind: int, n_gates: int, projected: bool) -> None:
    """weight_hh is square gate by gate, so it tells a GRU from an LSTM."""
    shape = t.need(name).shape
    if projected or len(shape) != 2 or not shape[1] or shape[0] % shape[1]:
        return  # its own check says what is wrong
    ratio = shape[0] // shape[1]
    if ratio == n_gates or ratio not in _LOOKS:
        return
    looks = _LOOKS[ratio]
    if kind == LSTM and ratio == 3:
        looks += ", or an LSTM with coupled="
    elif kind == LSTM and ratio == 4:
        looks += " whose gates are not coupled"
    times = f"{ratio} times as many rows as columns" if ratio > 1 else "as many rows as columns"
    wanted = f"{n_gates} times as many" if n_gates > 1 else "as many"
    raise ModelFormatError(f"{name} has {times}: {looks}; expected {wanted}, found shape {shape}")


def _check_rows(name: str, w: np.ndarray, layer: nn.Layer, n_gates: int, hidden: int) -> None:
    if w.shape[:1] == (n_gates * hidden,) and hidden:
        return
    kind = _KINDS[type(layer)]
    article = {LSTM: "an LSTM", GRU: "a GRU", RNN: "an RNN"}[kind]
    coupled = " with coupled gates" if kind == LSTM and n_gates == 3 else ""
    times = f"{n_gates} * hidden_size" if n_gates > 1 else "hidden_size"
    # of the first layer, whose rows tell hidden_size, no multiple is expected
    expected = f", {n_gates * hidden} as its other tensors" if w.shape[:1] > (0,) and not (
        w.shape[0] % n_gates) else ""  # fmt: skip
    raise ModelFormatError(
        f"{name}: {article}{coupled} has {times} rows{expected}; found shape {w.shape}"
    )


def _check_options(layer: Any, p: str, proj: int, n_directions: int) -> None:
    """Options that the tensors decide on."""
    if getattr(layer, "reverse", False) and n_directions == 2:
        raise ModelFormatError(
            f"{layer!r}: reverse=True is for one direction, but {p}weight_ih_l0_reverse is there"
        )
    if getattr(layer, "proj_clip", None) is not None and not proj:
        raise ModelFormatError(
            f"{layer!r}: proj_clip is for a projection, and there is no {p}weight_hr_l0"
        )
    if any(getattr(layer, "zoneout", None) or ()) and proj:
        raise UnsupportedError(f"{layer!r}: zoneout together with a projection")
    if getattr(layer, "layer_norm", None) and layer.peephole == "full":
        raise UnsupportedError(f'{layer!r}: layer_norm together with peephole="full"')


class _Cell:
    """The tensors of one layer and direction."""

    def __init__(
        self, t: Tensors, p: str, end: str, flags: int, n_gates: int, hidden: int, out: int
    ) -> None:
        self.t, self.p, self.end, self.flags = t, p, end, flags
        self.n_gates, self.hidden, self.out = n_gates, hidden, out

    def take(self, word: str, *shape: int | None, leaf: str = "") -> Iterator[tuple[str, Any]]:
        name = f"{self.p}{word}{self.end}{leaf}"
        yield name, self.t.shaped(name, *shape)

    def tensors(self, layer: nn.Layer, n_in: int | None, projected: bool) -> Arrays:
        return dict(self._all(layer, n_in, projected))

    def _all(
        self, layer: nn.Layer, n_in: int | None, projected: bool
    ) -> Iterator[tuple[str, np.ndarray]]:
        rows, flags = self.n_gates * self.hidden, self.flags
        name = f"{self.p}weight_ih{self.end}"
        _check_rows(name, self.t.need(name), layer, self.n_gates, self.hidden)
        yield from self.take("weight_ih", rows, n_in)
        yield from self.take("weight_hh", rows, self.out)
        if flags & BIAS:
            yield from self.take("bias_ih", rows)
            yield from self.take("bias_hh", rows)
        if projected:
            yield from self.take("weight_hr", self.out, self.hidden)
        if flags & PROJ_BIAS:
            yield from self.take("bias_hr", self.out)
        if flags & PEEPHOLE:
            yield self._diagonal()
        if flags & PEEPHOLE_FULL:
            yield from self.take("weight_ch", rows, self.hidden)
        for word in ("ln_ih", "ln_hh")[: 2 if flags & LN_SEPARATE else 1] if flags & LN else ():
            yield from self.take(word, rows, leaf=".weight")
            if flags & LN_BIAS:
                yield from self.take(word, rows, leaf=".bias")
        if flags & LN_CELL:
            yield from self.take("ln_cell", self.hidden, leaf=".weight")
        if flags & LN_CELL_BIAS:
            yield from self.take("ln_cell", self.hidden, leaf=".bias")

    def _diagonal(self) -> tuple[str, np.ndarray]:
        """Rows i, f, o; a coupled LSTM may leave out the derived gate's, which nothing reads."""
        name, n = f"{self.p}weight_ch{self.end}", self.hidden
        array = self.t.need(name)
        if self.flags & (COUPLED_F | COUPLED_I) and array.shape == (2 * n,):
            at = n if self.flags & COUPLED_F else 0
            return name, np.insert(array, [at] * n, np.float32(0))
        if array.shape != (3 * n,):
            raise ModelFormatError(
                f"{name}: a diagonal peephole has 3 * hidden_size numbers, rows i, f, o: expected "
                f"shape ({3 * n},), found {array.shape}"
            )
        return name, array


def _options(layer: Any, kind: int, p: str, n_directions: int, into: Arrays) -> int | None:
    """Numbers of the options that are kept as tensors. Returns the word of the activations, or
    None where they are the kind's own."""
    norm = getattr(layer, "layer_norm", None)
    if norm is not None:
        into[f"{p}ln_eps"] = np.array([norm["eps"]], "<f4")
    given: tuple[Activation, ...] | None = layer.activations
    if given is None and getattr(layer, "nonlinearity", "") == "relu":
        given = (("Relu", 0.0, 0.0),)
    defaults = _DEFAULT_FUNCTIONS[kind]
    if given is None:
        return None
    if len(given) > n_directions * len(defaults):
        raise ValueError(f"{layer!r}: activations for two directions; the tensors have one")
    functions = given * (n_directions * len(defaults) // len(given))
    if functions == tuple((name, *FUNCTIONS[name]) for name in defaults) * n_directions:
        return None
    into[f"{p}activations"] = np.array([numbers for _, *numbers in functions], "<f4")
    return sum(_NUMBERS[name] << 5 * i for i, (name, *_) in enumerate(functions))


def _initial(
    t: Tensors, layer: Any, p: str, n_cells: int, n_out: int, n_hidden: int, into: Arrays
) -> int:
    """The learned initial state goes into the tensors; returns its flags."""
    flags = 0
    for word, flag, size in (("h0", H0, n_out), ("c0", C0, n_hidden)):
        given = getattr(layer, word, None)
        if given is None:
            continue
        if isinstance(given, str):
            name = given if given in t.all else f"{p}{given}"
            array, shown = t.need(name), name
        else:
            name, array = f"{p}{word}", numbers_of(given, f"{layer!r}: {word}")
            shown = name if layer.prefix else word  # the prefix is one made up here
        if array.size != n_cells * size or size not in array.shape[-1:]:
            raise ModelFormatError(
                f"{shown}: expected shape ({n_cells}, {size}), found {array.shape}"
            )
        into[name] = np.ascontiguousarray(array.reshape(n_cells, size))
        flags |= flag
    return flags


# ---- records back to layers ---------------------------------------------------------------


def derived(r: Record) -> set[str]:
    """Tensors of the record that its options make, so that no other file needs them."""
    names = list(r.tensors)[: len(r.tensors) - bool(r.flags & H0) - bool(r.flags & C0)]
    return set(names[len(names) - bool(r.flags & LN) - bool(r.flags & ACTIVATIONS) :])


def layer_of(r: Record) -> nn.Layer:
    """The description that the record came from, its sizes filled in."""
    names = list(r.tensors)
    c0 = names.pop() if r.flags & C0 else None
    h0 = names.pop() if r.flags & H0 else None
    functions = r.tensors[names.pop()] if r.flags & ACTIVATIONS else None
    eps = r.tensors[names.pop()] if r.flags & LN else None
    words: dict[str, Any] = {"prefix": r.name, "h0": h0, "input_size": r.dims[0],
                             "hidden_size": r.dims[1], "bias": bool(r.flags & BIAS)}  # fmt: skip
    if not r.flags & CELL:
        words |= {"batch_first": bool(r.flags & BATCH_FIRST), "reverse": bool(r.flags & REVERSE),
                  "num_layers": r.dims[3], "bidirectional": directions(r) == 2}  # fmt: skip
    params = (*r.params, *[0.0] * 6)[:6]
    words["clip"] = params[0] or None
    if functions is not None:
        words |= _activations_of(r, functions)
    if r.kind == GRU:
        words["linear_before_reset"] = not r.flags & RESET_BEFORE
        return (nn.GRUCell if r.flags & CELL else nn.GRU)(**words)
    if r.kind == RNN:
        return (nn.RNNCell if r.flags & CELL else nn.RNN)(**words)
    words |= {
        "c0": c0,
        "peephole": _chosen(r, (PEEPHOLE, "diagonal"), (PEEPHOLE_FULL, "full")),
        "output_peephole": "new" if r.flags & OUTPUT_NEW else "old",
        "coupled": _chosen(r, (COUPLED_F, "f=1-i"), (COUPLED_I, "i=1-f")),
        "cell_clip": params[1] or None,
        "cell_clip_stored": bool(r.flags & CELL_CLIP_STORED),
        "proj_clip": params[2] or None,
        "forget_bias": params[3],
        "zoneout": params[4:] if any(params[4:]) else None,
    }
    if eps is not None:
        cell = _chosen(r, (LN_CELL_STORED, "stored"), (LN_CELL, True)) or False
        words["layer_norm"] = {"per_gate": bool(r.flags & LN_PER_GATE), "cell": cell,
                               "separate": bool(r.flags & LN_SEPARATE),
                               "eps": _shortest(eps.reshape(-1)[0])}  # fmt: skip
    if r.flags & CELL:
        return nn.LSTMCell(**words)
    return nn.LSTM(**words, proj_size=r.dims[2])


def _chosen(r: Record, *words: tuple[int, Any]) -> Any:
    return next((word for flag, word in words if r.flags & flag), None)


def _activations_of(r: Record, numbers: np.ndarray) -> dict[str, Any]:
    names = list(FUNCTIONS)
    found = []
    for i, row in enumerate(numbers):
        number = r.dims[4] >> 5 * i & 31
        if number >= len(names):
            raise UnsupportedError(f"activation {number}, which this version does not know")
        found.append((names[number], *map(_shortest, row)))
    half = len(found) // 2
    if directions(r) == 2 and found[:half] == found[half:]:
        found = found[:half]
    if r.kind == RNN and found == [("Relu", 0.0, 0.0)]:
        return {"nonlinearity": "relu"}
    return {"activations": tuple(found)}


def _shortest(value: np.floating[Any]) -> float:
    """As a caller writes it: 0.2, not 0.20000000298."""
    return float(str(np.float32(value)))


OPTION_OF: Sequence[tuple[str, str]] = (
    (r"weight_ch(_l\d+(_reverse)?)?", "nn.LSTM with peephole="),
    (r"ln_ih(_l\d+(_reverse)?)?\.(weight|bias)", "nn.LSTM with layer_norm=dict(...)"),
    (r"ln_hh(_l\d+(_reverse)?)?\.(weight|bias)", "nn.LSTM with layer_norm=dict(separate=True)"),
    (r"ln_cell(_l\d+(_reverse)?)?\.(weight|bias)", "nn.LSTM with layer_norm=dict(cell=True)"),
    (r"(weight|bias)_hr_l\d+(_reverse)?", "nn.LSTM with a projection (weight_hr)"),
)
