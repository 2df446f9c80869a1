# SPDX-License-Identifier: MIT
"""What the tests of the command share: models, rows, and how an error looks."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from clstm import nn

ROOT = Path(__file__).resolve().parents[3]
LAYERS = [nn.LSTM("lstm"), nn.Linear("fc")]
LIST = "[nn.LSTM('lstm'), nn.Linear('fc')]"
Cli = Callable[..., SimpleNamespace]


def fails(result: SimpleNamespace, *words: str) -> None:
    """Status 2, one line that has the words, nothing else."""
    assert result.status == 2
    assert re.fullmatch(r"clstm: .+\n", result.err), result.err
    for word in words:
        assert word in result.err


def lstm(p: str, n_in: int, n: int, both: bool = False) -> dict[str, np.ndarray]:
    r = np.random.default_rng(n_in * 100 + n)
    ends = ["_l0", "_l0_reverse"] if both else ["_l0"]
    shapes = dict(weight_ih=(4 * n, n_in), weight_hh=(4 * n, n), bias_ih=(4 * n,), bias_hh=(4 * n,))
    return {
        f"{p}{name}{end}": r.normal(0, 0.3, shape).astype("f4")
        for end in ends
        for name, shape in shapes.items()
    }


def state_dict() -> dict[str, np.ndarray]:
    r = np.random.default_rng(1)
    fc = {"fc.weight": r.normal(size=(2, 8)).astype("f4"), "fc.bias": r.normal(size=2).astype("f4")}
    return lstm("lstm.", 3, 8) | fc


def frames(n: int = 20) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(n, 3)).astype("f4")


def as_csv(x: np.ndarray) -> bytes:
    return "".join(",".join(f"{v:.9g}" for v in row) + "\n" for row in x.tolist()).encode()


def from_csv(text: str) -> np.ndarray:
    return np.array([[float(v) for v in line.split(",")] for line in text.splitlines()], "f4")


def command() -> list[str]:
    script = Path(sysconfig.get_path("scripts")) / "clstm"
    return [str(script)] if script.exists() else [sys.executable, "-m", "clstm"]
