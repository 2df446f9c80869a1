# SPDX-License-Identifier: MIT
"""``clstm verify``"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._stream import real
from ..errors import ModelFormatError, ShapeError
from ..formats import Weights, read_file
from ..loading import image_of, is_ours, naming
from ..model import Model
from .common import build_model, read_image
from .compare import Comparison, compare, run_certificate, side_by_side
from .text import one_line

_ARRAYS = "an .npz for --against holds x and y, and perhaps h0 and c0"


def main(args: argparse.Namespace) -> int:
    rtol, atol = args.rtol, args.atol
    image = read_image(args)
    model = build_model(args, dataclasses.replace(image, check=None))  # here it may fail
    if args.against is None:
        result = _certificate(model, image.check, args.file, rtol, atol)
    else:
        result = _against(model, read_file(args.against), rtol, atol)
    _report(result, args)
    return 1 if result.wrong else 0


def _against(model: Model, known: Weights, rtol: float, atol: float) -> Comparison:
    with naming(known.name):
        if known.kind != "npz":
            check = image_of(known, None, strict=True).check if is_ours(known) else None
            return _certificate(model, check, known.name, rtol, atol)
        return _worst(compare(*pair, rtol, atol) for pair in _outputs(model, known.tensors))


def _worst(found: Iterable[Comparison]) -> Comparison:
    """Of all outputs together; the place is that of the worst, behind the output's number."""
    results = list(found)
    if len(results) == 1:
        return results[0]
    n, worst = max(enumerate(results), key=lambda item: (item[1].wrong > 0, item[1].error))
    return dataclasses.replace(
        worst,
        count=sum(result.count for result in results),
        wrong=sum(result.wrong for result in results),
        index=(n, *worst.index),
    )


def _certificate(
    model: Model, check: tuple[np.ndarray, np.ndarray] | None, name: str, rtol: float, atol: float
) -> Comparison:
    if check is None:
        raise ModelFormatError(f"{name}: it holds no certificate; give --against FILE.npz")
    x, y = check
    return compare(run_certificate(model, x, y), y, rtol, atol)


def _outputs(
    model: Model, arrays: dict[str, np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """What the model makes of x, and y; or each output and its own y0, y1, ..."""
    mixed = model.outputs.apart  # of several steps and of one, say: no array holds both
    names = [f"y{n}" for n in range(len(model.outputs.widths))] if mixed else ["y"]
    wanted = _ARRAYS if not mixed else f"{_ARRAYS}; of this model {', '.join(names)} in place of y"
    missing = sorted({"x", *names} - arrays.keys())
    if missing:
        raise ModelFormatError(f"{wanted}; it has no {missing[0]}")
    surplus = sorted(arrays.keys() - {"x", "h0", "c0", *names})
    if surplus:
        raise ModelFormatError(f"{wanted}, not {surplus[0]}")
    returned = model(arrays["x"], _state(model, arrays))
    got = returned[0] if isinstance(returned, tuple) else returned  # the h of a bare cell
    outputs = got if mixed else [side_by_side(got)]
    return [(a, real(arrays[name], name)) for a, name in zip(outputs, names, strict=True)]


def _state(model: Model, arrays: dict[str, np.ndarray]) -> Any:
    given = [arrays[name] for name in ("h0", "c0") if name in arrays]
    if not given:
        return None
    if len(model.recurrent) != 1:
        raise ShapeError(f"h0, c0: the model has {len(model.recurrent)} recurrent layers, not one")
    n_parts = len(model.recurrent[0].parts)
    if len(given) < n_parts:
        raise ShapeError("h0, c0: one is missing")
    if n_parts == 1 and "c0" in arrays:
        raise ShapeError("c0: a GRU or an RNN has none")
    return tuple(given) if n_parts > 1 else given[0]


def _report(result: Comparison, args: argparse.Namespace) -> None:
    if not args.json:
        word = "mismatch" if result.wrong else "ok"
        print(f"{word}: {one_line(str(result))} (atol {args.atol:g}, rtol {args.rtol:g})")
        return
    tolerance = {"rtol": args.rtol, "atol": args.atol}
    values = {"ok": not result.wrong} | dataclasses.asdict(result) | tolerance
    print(json.dumps({k: _finite(v) for k, v in values.items()}, allow_nan=False))


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
