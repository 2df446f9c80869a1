# SPDX-License-Identifier: MIT
"""Nodes of torch.export and its errors, as messages name them."""

from __future__ import annotations

import itertools
import linecache
import os
import traceback
from collections.abc import Sequence
from typing import Any

from ..errors import UnsupportedError

LOOP = (
    "a Python loop over time: use nn.LSTM, nn.GRU or nn.RNN over the whole sequence, or trace "
    "one step of the cell and call m.stream()"
)
PACKING = (
    "packs the sequence; leave pack_padded_sequence and pad_packed_sequence out of forward and "
    "pass m(x, lengths=...) to the model"
)
RECURRENT = ("lstm.", "gru.", "rnn_tanh.", "rnn_relu.")
CELLS = ("lstm_cell.", "gru_cell.", "rnn_tanh_cell.", "rnn_relu_cell.")

_SAME = ("clone", "contiguous", "detach", "alias", "lift_fresh_copy")  # nothing but memory
_MOST_TEXT = 80


def source(node: Any) -> Any:
    """The node whose value this one has."""
    while node.op == "call_function" and _is_same(node):
        node = node.args[0]
    return node


def is_check(node: Any) -> bool:
    return target_of(node).startswith(("_assert", "sym_constrain"))


def _is_same(node: Any) -> bool:
    base = target_of(node).partition(".")[0]
    return base in _SAME or (base == "dropout" and not node.args[2])


def target_of(node: Any) -> str:
    """lstm.input for torch.ops.aten.lstm.input, getitem for Python's."""
    if type(node.target).__name__ == "OpOverload":
        name = str(node.target).removeprefix("aten.")
        return "view.default" if name in ("_unsafe_view.default", "reshape.default") else name
    return str(getattr(node.target, "__name__", node.target))


def _user_line(frames: Sequence[tuple[str, int, str]]) -> str:
    """ "model.py:14, y = self.fc(y)": the innermost frame that is the caller's own code."""
    ours = os.path.dirname(os.path.dirname(__file__)) + os.sep
    for file, line, text in reversed(frames):
        packaged = f"{os.sep}torch{os.sep}" in file or file.startswith((ours, "<"))
        if not packaged and not file.endswith(("contextlib.py", "functools.py")):
            text = text.strip()
            text = text if len(text) < _MOST_TEXT else text[: _MOST_TEXT - 4] + " ..."
            return f"{os.path.basename(file)}:{line}, {text}"
    return ""


def where(node: Any) -> str:
    lines = (node.meta.get("stack_trace") or "").splitlines()
    frames = []
    for at, text in itertools.pairwise(lines):
        at = at.strip()
        if at.startswith('File "') and ", line " in at:
            file, _, rest = at[6:].partition('", line ')
            frames.append((file, int(rest.split(",")[0]), text))
    line = _user_line(frames)
    return f"{node.name} ({target_of(node)}{' at ' + line if line else ''})"


def failed(error: Exception, sizes: dict[int, tuple[int, int]] | None = None) -> Exception:
    """An error of torch.export, or of forward under it, with the line and the cause."""
    if isinstance(error, UnsupportedError):
        return error
    frames = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        packed = any(type(v).__name__ == "PackedSequence" for v in frame.f_locals.values())
        if packed or code.co_name in ("pack_padded_sequence", "pad_packed_sequence"):
            return UnsupportedError(f"from_torch: {PACKING}")
        text = linecache.getline(code.co_filename, number)
        frames.append((code.co_filename, number, text))
    line = _user_line(frames)
    cause = next((t.strip() for t in str(error).splitlines() if t.strip()), type(error).__name__)
    start = f"from_torch: {line + ': ' if line else ''}"
    if "data-dependent" in str(error):
        return UnsupportedError(
            f"{start}torch.export cannot follow control flow that depends on data: {cause}"
        )
    if sizes:
        changes = " and ".join(f"axis {i} is {b}, not {a}" for i, (a, b) in sizes.items())
        return UnsupportedError(
            f"{start}depends on the example's length or batch size: where {changes}, it fails "
            f"with: {cause}; write sizes as x.shape[...] or -1"
        )
    return UnsupportedError(f"{start}torch.export fails: {cause}")


def line_of(node: Any) -> str:
    return where(node).partition(" at ")[2] or target_of(node)
