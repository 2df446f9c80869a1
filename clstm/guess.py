# SPDX-License-Identifier: MIT
"""Without ``layers=``: what the tensors of a state dict look like, by their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import nn
from .errors import ModelFormatError
from .program import listed, refuse_parametrised

Tensors = Mapping[str, np.ndarray]

_RECURRENT_NAME = re.compile(
    r"((?:.*\.)?)(?:(?:weight|bias)_(?:ih|hh|hr)|(weight_ch|ln_(?:ih|hh|cell)(?=.*\.)))"
    r"(?:_l\d+(?:_reverse)?)?(?(2)(?:\.weight|\.bias)?)",
    re.S,
)
_KINDS = {4: "LSTM", 3: "GRU", 1: "RNN"}
_MOST_MODULES = 64  # that are put in order and shown
_MOST_TRIES = 20_000  # of places in an order; only models that are no chain come near


def guess(tensors: Tensors, strict: bool) -> list[nn.Layer]:
    """The one recurrent module that the tensors are, or ModelFormatError with what to write."""
    refuse_parametrised(n for n in tensors if ".parametrizations." in f".{n}")
    reason = unclear(tensors, strict)
    if reason:
        raise ModelFormatError(
            f"{reason}, in {listed(list(tensors))}; say what the model is, "
            f"perhaps {suggest(tensors)}"
        )
    return [_describe(next(iter(_recurrent_prefixes(tensors))), tensors)]


def unclear(tensors: Tensors, strict: bool) -> str:
    """Why the tensors are not exactly one recurrent module, or ""."""
    prefixes = _recurrent_prefixes(tensors)
    others = [n for n in tensors if not _RECURRENT_NAME.fullmatch(n)]
    chosen = [n for n in tensors if (m := _RECURRENT_NAME.fullmatch(n)) and m[2]]
    if len(prefixes) == 1 and chosen:
        return f"{listed(chosen[:1])} belongs to an option that tensors cannot tell"
    if len(prefixes) == 1 and (not others or not strict):
        return ""
    what = f"also {listed(others)}" if len(prefixes) == 1 else f"{len(prefixes)} recurrent modules"
    return f"not exactly one recurrent module: {what}"


def _recurrent_prefixes(tensors: Tensors) -> dict[str, None]:
    return dict.fromkeys(m[1] for n in tensors if (m := _RECURRENT_NAME.fullmatch(n)))


def _kind(p: str, tensors: Tensors) -> tuple[str, bool]:
    """LSTM, GRU, RNN or "", by rows : columns of weight_hh; and whether it is a cell."""
    cell = f"{p}weight_hh" in tensors
    end = "" if cell else "_l0"
    hh, hr = tensors.get(f"{p}weight_hh{end}"), tensors.get(f"{p}weight_hr{end}")
    if hh is None or hh.ndim != 2:
        return "", cell
    if f"{p}weight_ch{end}" in tensors or f"{p}ln_ih{end}.weight" in tensors:
        return "LSTM", cell  # with three gates, if two of them are coupled
    hidden = hr.shape[1] if hr is not None and hr.ndim == 2 else hh.shape[1]
    ratio, rest = divmod(hh.shape[0], hidden) if hidden else (0, 1)
    return _KINDS.get(ratio, "") if not rest else "", cell


def _describe(prefix: str, tensors: Tensors) -> nn.Layer:
    kind, cell = _kind(prefix, tensors)
    first = f"{prefix}weight_hh{'' if cell else '_l0'}"
    if first not in tensors:
        raise ModelFormatError(f"{first} is missing")
    if not kind:
        hr = tensors.get(first.replace("weight_hh", "weight_hr"))
        columns = (
            f"{first.replace('weight_hh', 'weight_hr')}, {hr.shape}, has"
            if hr is not None
            else "it has"
        )
        raise ModelFormatError(
            f"{first}: expected 4 (LSTM), 3 (GRU) or 1 (RNN) times as many rows as {columns} "
            f"columns, found shape {tensors[first].shape}"
        )
    described: type[nn.Layer] = getattr(nn, f"{kind}{'Cell' if cell else ''}")
    return described(**{"prefix": prefix.removesuffix(".")})


# ---- what to write ------------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    """A ``layers=`` value as text to write, and the tensors that it leaves out."""

    layers: str
    others: list[str]

    def __str__(self) -> str:
        if self.layers == "[]":
            return "layers=[...]; no tensor looks like a layer of clstm.nn"
        if not self.others:
            return f"layers={self.layers}"
        return f"layers={self.layers}, strict=False (which leaves out {listed(self.others, 4)})"


@dataclass(frozen=True)
class _Module:
    """A layer that the tensors of one prefix may be. Widths: 0 for tokens, None for any."""

    word: str
    n_in: int | None
    n_out: int | None
    rank: int  # where such a layer tends to stand
    names: list[str] = field(default_factory=list)


def suggest(tensors: Tensors) -> Suggestion:
    """A ``layers=`` value that the tensors look like. Activations leave no tensors, so none is
    suggested; the order is the file's where its widths fit, else one whose widths do."""
    parts: dict[str, list[str]] = {}
    for name in tensors:
        m = _RECURRENT_NAME.fullmatch(name)
        parts.setdefault(m[1] if m else name[: name.rfind(".") + 1], []).append(name)
    found = [looks for p, names in parts.items() if (looks := _looks(p, names, tensors))]
    if list(parts) == sorted(parts) and not all(p[:1].isdigit() for p in parts):
        found.sort(key=lambda looks: looks[0].rank)  # sorted by name: no order of a program
    chain = _chain(found, None, [_MOST_TRIES]) if len(found) <= _MOST_MODULES else None
    if chain is None:
        chain = [looks[0 if i == 0 else -1] for i, looks in enumerate(found)]
    taken = {name for module in chain for name in module.names}
    words = [module.word for module in chain[:_MOST_MODULES]]
    words += ["..."] if len(chain) > _MOST_MODULES else []
    return Suggestion(f"[{', '.join(words)}]", [name for name in tensors if name not in taken])


def _looks(p: str, names: Sequence[str], tensors: Tensors) -> list[_Module]:
    """What the tensors under one prefix may be, the likeliest first; nothing for a convolution,
    say."""
    shapes = {name[len(p) :]: tensors[name].shape for name in names}
    weight, prefix = shapes.get("weight", ()), _quoted(p)
    longest = max((shape[0] for shape in shapes.values() if len(shape) == 1), default=0)
    n = longest if longest > 1 else None
    if any(_RECURRENT_NAME.fullmatch(leaf) for leaf in shapes):
        return _recurrent(p, names, tensors)
    if "running_mean" in shapes:
        return [_Module(f"nn.BatchNorm1d({prefix})", n, n, 2, list(names))]
    if "scale" in shapes and "shift" in shapes:
        return [_Module(f"nn.Affine({prefix})", n, n, 2, list(names))]
    if len(weight) == 1:
        word = "PReLU" if weight == (1,) and "bias" not in shapes else "LayerNorm"
        return [_Module(f"nn.{word}({prefix})", n, n, 2, list(names))]
    if len(weight) != 2:
        return []
    linear = _Module(f"nn.Linear({prefix})", weight[1], weight[0], 3, list(names))
    if "bias" in shapes:
        return [linear]
    rank = 0 if "emb" in p.lower() else 3
    return [_Module(f"nn.Embedding({prefix})", 0, weight[1], rank, list(names)), linear]


def _quoted(prefix: str) -> str:
    bare = prefix.removesuffix(".")
    return f'"{bare}"' if bare.isprintable() and not {'"', "\\"} & set(bare) else repr(bare)


def _recurrent(p: str, part: Sequence[str], tensors: Tensors) -> list[_Module]:
    kind, cell = _kind(p, tensors)
    end = "" if cell else "_l0"
    w, hr = tensors.get(f"{p}weight_ih{end}"), tensors.get(f"{p}weight_hr{end}")
    names = [n for n in part if _RECURRENT_NAME.fullmatch(n)]
    words, n_in, n_out = [_quoted(p)], None, None
    if w is not None and w.ndim == 2 and kind:
        words += _options(p, end, tensors, kind)
        gates = 3 if "coupled=..." in words else next(n for n, k in _KINDS.items() if k == kind)
        hidden = w.shape[0] // gates
        both = 2 if f"{p}weight_ih_l0_reverse" in tensors else 1
        out = hr.shape[0] if hr is not None else hidden
        n_in, n_out = w.shape[1], out * both
        cells = 1 if cell else sum("weight_ih" in n for n in names)
        initial = (("h0", cells * out), ("c0", cells * hidden))
        for word, size in initial[: 2 if kind == "LSTM" else 1]:
            name = next((n for n in (f"{p}{word}", word) if n in tensors), None)
            if name and tensors[name].size == size:
                words.append(f'{word}="{name}"')
                names.append(name)
    word = f"nn.{kind or 'LSTM'}{'Cell' if cell else ''}({', '.join(words)})"
    return [_Module(word, n_in, n_out, 1, names)]


def _options(p: str, end: str, tensors: Tensors, kind: str) -> list[str]:
    """Options of an LSTM that some tensors ask for; what they leave open is an ellipsis."""
    words = []
    peephole, hh = tensors.get(f"{p}weight_ch{end}"), tensors.get(f"{p}weight_hh{end}")
    if peephole is not None:
        words.append(f'peephole="{"full" if peephole.ndim == 2 else "diagonal"}"')
    if f"{p}ln_ih{end}.weight" in tensors:
        both, cell = f"{p}ln_hh{end}.weight" in tensors, f"{p}ln_cell{end}.weight" in tensors
        words.append(f"layer_norm=dict(per_gate=..., separate={both}, cell={cell})")
    square = hh is not None and hh.ndim == 2 and f"{p}weight_hr{end}" not in tensors
    if kind == "LSTM" and square and hh is not None and hh.shape[0] == 3 * hh.shape[1]:
        words.append("coupled=...")
    return words


def _chain(
    left: list[list[_Module]], width: int | None, tries: list[int], first: bool = True
) -> list[_Module] | None:
    """The first order of the modules in which each takes what the one before gives."""
    if not left:
        return []
    for i, looks in enumerate(left):
        for module in looks:
            tries[0] -= 1
            if tries[0] < 0:
                return None
            if module.n_in == 0 and not first:
                continue
            if not first and None not in (module.n_in, width) and module.n_in != width:
                continue
            after = width if module.n_out is None else module.n_out
            rest = _chain(left[:i] + left[i + 1 :], after, tries, False)
            if rest is not None:
                return [module, *rest]
    return None
