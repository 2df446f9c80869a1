# SPDX-License-Identifier: MIT
"""What is measured: one recurrent layer, its weights and its inputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FRAMES = {"step": 64, "batch": 8, "sequence": 4}  # different inputs, taken in turn
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A step or a batch goes on from the state that the last call left; a sequence starts from
    zeros each time."""

    mode: str  # "step", "batch" (one step of many streams), "sequence"
    kind: str
    n_in: int
    hidden: int
    steps: int = 1
    batch: int = 1
    threads: int = 1

    @property
    def gates(self) -> int:
        return GATES[self.kind]

    @property
    def states(self) -> int:
        return 2 if self.kind == "LSTM" else 1

    @property
    def name(self) -> str:
        return f"{self.mode} {self.kind} I{self.n_in} H{self.hidden} T{self.steps} B{self.batch}"

    def weights(self) -> Arrays:
        """As PyTorch draws its first weights."""
        rng, m, n = np.random.default_rng(self.hidden), self.gates * self.hidden, self.hidden
        shapes = dict(weight_ih_l0=(m, self.n_in), weight_hh_l0=(m, n))
        shapes |= dict(bias_ih_l0=(m,), bias_hh_l0=(m,))
        edge = n**-0.5
        return {k: rng.uniform(-edge, edge, s).astype(np.float32) for k, s in shapes.items()}

    def inputs(self) -> np.ndarray:
        """(frames, T, B, I)"""
        shape = FRAMES[self.mode], self.steps, self.batch, self.n_in
        return np.random.default_rng(self.hidden + 1).standard_normal(shape, np.float32)

    def flops(self) -> tuple[float, float]:
        """Of the products with the input and with h, in one call; a multiply-add is two."""
        per = 2.0 * self.steps * self.batch * self.gates * self.hidden
        return per * self.n_in, per * self.hidden

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)
