# SPDX-License-Identifier: MIT
"""``clstm info``"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from typing import Any

from .. import nn
from ..errors import ModelFormatError, UnsupportedError
from ..formats import Weights
from ..formats.container import Image
from ..guess import suggest, unclear
from ..loading import image_of, is_ours, naming
from ..model import Model
from ..program import weights_of
from . import ATOL, RTOL
from .common import build_model, non_finite, read_weights, warn_non_finite
from .compare import compare, run_certificate
from .text import one_line, table


def main(args: argparse.Namespace) -> int:
    weights, layers = read_weights(args)
    facts: dict[str, Any] = {"file": args.file, "kind": weights.kind}
    try:
        with naming(weights.name):
            image = image_of(weights, layers, not args.no_strict)
    except (ModelFormatError, UnsupportedError) as error:
        if layers is not None or is_ours(weights):
            raise
        reason = unclear(weights.tensors, not args.no_strict)
        facts |= _foreign(weights, reason or str(error).removeprefix(f"{weights.name}: "))
    else:
        facts |= _about(build_model(args, dataclasses.replace(image, check=None)), image)
    facts["tensors"] = [
        {"name": n, "dtype": str(a.dtype), "shape": list(a.shape), "non_finite": non_finite(a)}
        for n, a in weights.tensors.items()
    ]
    print(json.dumps(facts) if args.json else _page(facts))
    warn_non_finite(weights.tensors)
    return 0


def _about(model: Model, image: Image) -> dict[str, Any]:
    layers = [
        _layer(layer) | {"parameters": sum(a.size for a in weights_of(record).values())}
        for layer, record in zip(model.layers, image.records, strict=True)
    ]
    return {
        "layers": layers,
        "input_size": model.input_size,
        "num_embeddings": model.num_embeddings,
        "output_size": model.output_size,
        "parameters": sum(layer["parameters"] for layer in layers),
        "precision": model.precision,
        "kernel": model.kernel,
        "gemm": model.gemm,
        "packed_bytes": model.nbytes,
        "fingerprint": model.fingerprint,
        "certificate": _certificate(model, image),
    }


def _layer(layer: nn.Layer) -> dict[str, Any]:
    sizes = {name: getattr(layer, name) for name in layer.checked}
    return {
        "layer": repr(layer),
        "type": type(layer).__name__,
        "options": layer.options(),
        "sizes": {name: size for name, size in sizes.items() if size is not None},
    }


def _certificate(model: Model, image: Image) -> dict[str, Any] | None:
    if image.check is None:
        return None
    x, y = image.check
    result = compare(run_certificate(model, x, y), y, RTOL, ATOL)
    return {
        "steps": x.shape[0],
        "batch": x.shape[1],
        "holds": not result.wrong,
        "says": str(result),
    }


def _foreign(weights: Weights, reason: str) -> dict[str, Any]:
    """Of a file that is no model by itself: why, and what to write."""
    suggestion = suggest(weights.tensors)
    return {
        "layers": None,
        "reason": reason,
        "suggested_layers": suggestion.layers,
        "suggested_strict": not suggestion.others,
        "left_out": suggestion.others,
    }


# ---- as text ------------------------------------------------------------------------------


def _page(facts: dict[str, Any]) -> str:
    head = [("file", f"{facts['file']} ({facts['kind']})")]
    body = _model_page(facts) if facts["layers"] else [("model", facts["reason"])]
    rows = [(t["name"], t["dtype"], tuple(t["shape"])) for t in facts["tensors"]]
    parts = [table(head + body, indent=""), f"tensors\n{table(rows)}"]
    if facts["layers"]:
        layers = [
            (item["layer"], _words(item["sizes"]), f"{item['parameters']:,} parameters")
            for item in facts["layers"]
        ]
        parts.insert(1, f"layers\n{table(layers)}")
    else:
        parts.append(_what_to_write(facts))
    return "\n".join(parts)


def _model_page(facts: dict[str, Any]) -> list[tuple[str, str]]:
    tokens, check = facts["num_embeddings"], facts["certificate"]
    takes = f"tokens 0 ... {tokens - 1}" if tokens else f"{facts['input_size']} features"
    held = "none"
    if check:
        held = f"{check['steps']} steps x {check['batch']}; "
        held += check["says"] if check["holds"] else f"FAILS: {check['says']}"
    return [
        ("input", takes),
        ("output", _features(facts["output_size"])),
        ("parameters", f"{facts['parameters']:,} ({facts['precision']})"),
        ("kernel", facts["kernel"]),
        ("gemm", facts["gemm"]),
        ("packed", f"{facts['packed_bytes']:,} bytes"),
        ("fingerprint", facts["fingerprint"]),
        ("certificate", held),
    ]


def _features(size: int | tuple[int, ...]) -> str:
    if isinstance(size, int):
        return f"{size} features"
    return f"{len(size)} outputs of {', '.join(map(str, size))} features"


def _words(sizes: dict[str, Any]) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def _what_to_write(facts: dict[str, Any]) -> str:
    if facts["suggested_layers"] == "[]":
        return "no tensor looks like a layer of clstm.nn"
    others = facts["left_out"]
    words = ["clstm", "convert", facts["file"], "-o", "model.clstm"]
    words += ["--layers", facts["suggested_layers"], *(["--no-strict"] if others else [])]
    lines = [
        "perhaps (activations leave no tensors: add them)",
        f"  layers={facts['suggested_layers']}{', strict=False' if others else ''}",
        f"  {shlex.join(words)}",
    ]
    if others:
        lines.insert(1, f"  leaving out {', '.join(others[:4])}{' ...' if len(others) > 4 else ''}")
    return "\n".join(one_line(line) for line in lines)
