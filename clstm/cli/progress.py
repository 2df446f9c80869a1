# SPDX-License-Identifier: MIT
"""How far a long run has come, on standard error: a bar by rich if there is one, else a line
now and then."""

from __future__ import annotations

import importlib
import sys
import time
from types import TracebackType
from typing import Any, TextIO

_FIRST, _EVERY = 1.0, 2.0  # seconds


def wanted(given: bool | None, out: TextIO | None) -> bool:
    """As asked, else where it would not mix with the predictions on a terminal."""
    if given is not None:
        return given
    return _is_terminal(sys.stderr) and not _is_terminal(out or sys.stdout)


def _is_terminal(file: TextIO | None) -> bool:
    return file is not None and file.isatty()


class Progress:
    """Silent for the first second."""

    def __init__(self, total: int | None, shown: bool) -> None:
        self.total = total
        self.next = time.monotonic() + _FIRST if shown else float("inf")
        self.bar: Any = None
        self.plain = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, rows: int) -> None:
        """done of the total; rows are what has been predicted."""
        now = time.monotonic()
        if now < self.next:
            return
        if self.bar is None and not self.plain:
            self.bar = _rich_bar(self.total)
            self.plain = self.bar is None
        if self.plain:
            share = f" ({done / self.total:.0%})" if self.total else ""
            print(f"clstm: {rows:,} rows{share}", file=sys.stderr, flush=True)
            self.next = now + _EVERY
        else:
            self.bar.update(0, completed=done if self.total else rows, rows=f"{rows:,} rows")
            self.next = now + 0.1


def _rich_bar(total: int | None) -> Any:
    """A bar that has begun, or None without rich or a terminal."""
    if not _is_terminal(sys.stderr):
        return None
    try:
        progress = importlib.import_module("rich.progress")
        console = importlib.import_module("rich.console")
    except ImportError:
        return None
    bar = progress.Progress(
        progress.BarColumn(),
        progress.TextColumn("{task.fields[rows]}"),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
        transient=True,
    )
    bar.add_task("run", total=total, rows="")
    bar.start()
    return bar
