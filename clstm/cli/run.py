# SPDX-License-Identifier: MIT
"""``clstm run``"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO

import numpy as np

from .common import build_model, read_image, refuse_same
from .compare import side_by_side
from .progress import Progress, wanted
from .rows import open_rows


def main(args: argparse.Namespace) -> int:
    model = build_model(args, read_image(args))
    stream = model.stream()
    text = _formatter(sum(model.outputs.widths), args.json)
    with ExitStack() as stack:
        rows = stack.enter_context(open_rows(args.input, model, args.chunk, args.header))
        out = _output(args, stack)
        progress = stack.enter_context(Progress(rows.total, wanted(args.progress, out)))
        for x in rows.chunks:
            # print() of a closed standard output (None) is silent
            print(text(side_by_side(stream.run(x))), end="", file=out, flush=True)
            progress.update(rows.done(), stream.steps)
    return 0


def _output(args: argparse.Namespace, stack: ExitStack) -> TextIO | None:
    """The file to write, or None for standard output."""
    if args.output is None:
        return None
    refuse_same(args.output, [args.file, *([args.input] if args.input != "-" else [])])
    return stack.enter_context(open(args.output, "w", encoding="ascii"))


def _formatter(width: int, as_json: bool) -> Callable[[np.ndarray], str]:
    """Rows as text. Nine digits bring a float32 back exactly; JSON has neither NaN nor infinity,
    so null stands for them."""
    line = ",".join(["%.9g"] * width) + "\n"
    if not as_json:
        return lambda y: "".join(line % tuple(row) for row in y.tolist())

    def number(value: float) -> str:
        return f"{value:.9g}" if math.isfinite(value) else "null"

    return lambda y: "".join(f"[{','.join(map(number, row))}]\n" for row in y.tolist())
