# SPDX-License-Identifier: MIT
"""Text for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clstm.errors import escaped


def one_line(text: str) -> str:
    """Without line breaks and control characters."""
    return escaped(text.replace("\n", " "))


def warn(text: str) -> None:
    print(f"clstm: warning: {one_line(text)}", file=sys.stderr)


def table(rows: Sequence[Sequence[object]], indent: str = "  ") -> str:
    """Columns side by side, the last of no width."""
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(indent + line.rstrip() for line in lines)
