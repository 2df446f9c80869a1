# SPDX-License-Identifier: MIT
"""The text of ``--layers``: read, never evaluated."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from typing import Any

from .. import nn

_EXAMPLE = "[nn.LSTM('lstm'), nn.Linear('fc')]"


def parse_layers(text: str) -> list[nn.Layer]:
    """A list of calls of names in clstm.nn with literal arguments; ValueError for all else."""
    try:
        body = ast.parse(text.strip(), "--layers", "eval").body
        items = body.elts if isinstance(body, ast.List | ast.Tuple) else [body]
        return [_layer(item) for item in items]
    except (SyntaxError, RecursionError, MemoryError):
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise ValueError(f"--layers: expected a list such as {_EXAMPLE}, got {shown!r}") from None


def _layer(node: ast.expr) -> nn.Layer:
    shown = _shown(node)
    if not isinstance(node, ast.Call):
        raise ValueError(f"--layers: {shown} is no layer; expected, say, {_EXAMPLE}")
    found = re.fullmatch(r"(?:(?:clstm\.)?nn\.)?(\w+)", _shown(node.func))
    kinds = sorted(set(nn.__all__) - {"Layer"})
    if not found or found[1] not in kinds:
        raise ValueError(f"--layers: {shown}: none of clstm.nn, which has {', '.join(kinds)}")
    cls: type[nn.Layer] = getattr(nn, found[1])
    defaults = {f.name: f.default for f in fields(cls)}
    given = list(zip(defaults, node.args, strict=False))
    given += [(word.arg or "**", word.value) for word in node.keywords]
    takes = f"nn.{found[1]} takes {', '.join(defaults) or 'no arguments'}"
    if len(node.args) > len(defaults):
        raise ValueError(f"--layers: {shown}: too many arguments; {takes}")
    options: dict[str, Any] = {}
    for word, value in given:
        if word not in defaults or word in options:
            raise ValueError(f"--layers: {shown}: {word} is unknown or repeated; {takes}")
        options[word] = _literal(value)
        expected = _expected(word, options[word], defaults[word])
        if expected:
            raise ValueError(f"--layers: {shown}: {word}: expected {expected}")
    return cls(**options)


def _literal(node: ast.expr) -> Any:
    """Its value, or Ellipsis for what is no literal."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ...


def _expected(word: str, value: Any, default: Any) -> str:
    """What the type of the default asks for, or "" if the value is that."""
    if isinstance(default, str):
        return "" if isinstance(value, str) else "text"
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(default, int | float):
        return "" if _numbers(value, depth=0) and not isinstance(value, bool) else "a number"
    plain = value is None or isinstance(value, str | bool) or _numbers(value, depth=4)
    if word == "layer_norm" and isinstance(value, dict):
        plain = all(isinstance(v, str) or _numbers(v, depth=0) for v in value.values())
    elif word == "activations" and isinstance(value, list | tuple):
        plain = all(isinstance(v, str) or _named(v) for v in value)
    return "" if plain else "text, a number or a list of numbers, written out"


def _named(value: Any) -> bool:
    """A name and numbers."""
    pair = isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str)
    return pair and all(v is None or _numbers(v, depth=0) for v in value[1:])


def _numbers(value: Any, depth: int) -> bool:
    """A number that an array can hold, or lists of such."""
    if isinstance(value, list | tuple):
        return depth > 0 and all(_numbers(item, depth - 1) for item in value)
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64)


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 80 else text[:77] + "..."
