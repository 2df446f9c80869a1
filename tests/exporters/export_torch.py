# SPDX-License-Identifier: MIT
"""The torch side of a case: the module with its weights, its ONNX file, and what it computes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from export_cases import Case
from torch import nn

VOCABULARY, FEATURES, OUT = 11, 5, 4
# length, batch, input size, hidden size
SIZES = {"apart": (7, 3, 5, 6), "equal": (4, 4, 4, 4), "batch of 1": (7, 1, 5, 6)}


class Sizes(NamedTuple):
    length: int
    batch: int
    features: int
    hidden: int


def sizes_of(case: Case) -> Sizes:
    return Sizes(*SIZES[case.sizes])


class Net(nn.Module):
    """As a user writes it: embedding, recurrent layer, head."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        sizes, wide = sizes_of(case), sizes_of(case).hidden * case.directions
        self.case = case
        self.rnn = recurrent(case)
        if case.embedding:
            self.emb = nn.Embedding(VOCABULARY, sizes.features)
        if case.head == "linear":
            self.head = nn.Linear(wide, OUT)
        elif case.head == "deep":
            self.head = nn.Sequential(
                nn.Linear(wide, OUT), nn.ReLU(), nn.Linear(OUT, 3), nn.Softmax(-1)
            )
        elif case.head == "norm":
            self.head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, OUT))
        if case.state == "learned":
            shape = (case.layers * case.directions, 1, sizes.hidden)
            shape = shape[::2] if case.layout == "unbatched" else shape
            self.h0 = nn.Parameter(torch.randn(shape))
            if case.cell == "LSTM":
                self.c0 = nn.Parameter(torch.randn(shape))

    def forward(self, x, h0=None, c0=None):
        case = self.case
        if case.state == "learned":
            h0, c0 = self.h0, getattr(self, "c0", None)
            if case.layout != "unbatched":
                batch = x.shape[0 if case.layout == "batch first" else 1]
                h0 = h0.expand(-1, batch, -1).contiguous()
                c0 = None if c0 is None else c0.repeat(1, batch, 1)
        if case.embedding:
            x = self.emb(x)
        state = None if h0 is None else (h0, c0) if case.cell == "LSTM" else h0
        y, state = self.rnn(x, state)
        if case.head != "none":
            y = self.head(y)
        if case.returns == "y":
            return y
        return (y, *state) if case.cell == "LSTM" else (y, state)


def recurrent(case: Case) -> nn.Module:
    _, _, features, hidden = sizes_of(case)
    if case.is_cell:
        return getattr(nn, case.cell)(features, hidden, bias=case.bias)
    options: dict[str, Any] = {"nonlinearity": "relu"} if case.cell == "RNN relu" else {}
    if case.proj:
        options["proj_size"] = case.proj
    if case.layers > 1:
        options["dropout"] = 0.25  # does nothing in evaluation
    return getattr(nn, case.cell.split()[0])(
        features,
        hidden,
        case.layers,
        bias=case.bias,
        batch_first=case.layout == "batch first",
        bidirectional=case.directions == 2,
        **options,
    )


def module_of(case: Case) -> nn.Module:
    """Seeded by the case; torch's own module where nothing is around it."""
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        return (recurrent(case) if case.bare else Net(case)).eval()


class Run(NamedTuple):
    """Input, initial state and what torch computes in float64; arrays, in the file's layout."""

    x: np.ndarray
    state: tuple[np.ndarray, ...]  # h or h, c
    y: np.ndarray
    final: tuple[np.ndarray, ...]
    tolerance: float


def state_shapes(case: Case, batch: int | None) -> list[tuple[int, ...]]:
    hidden = sizes_of(case).hidden
    lead = () if case.is_cell else (case.layers * case.directions,)
    middle = () if batch is None else (batch,)
    widths = [case.proj or hidden, hidden] if case.cell.startswith("LSTM") else [hidden]
    return [(*lead, *middle, width) for width in widths]


def inputs_of(case: Case, length: int, batch: int | None, seed: int = 0) -> tuple:
    """(x, h0 and c0 or h0 if given) as arrays."""
    rng = np.random.default_rng([case.seed, seed])
    shape = (batch, length) if case.layout == "batch first" else (length, batch)
    shape = (batch,) if case.is_cell else shape
    shape = tuple(n for n in shape if n is not None)
    if case.embedding:
        x = rng.integers(0, VOCABULARY, shape)
    else:
        x = rng.standard_normal((*shape, sizes_of(case).features)).astype(np.float32)
    state = ()
    if case.state == "given":
        shapes = state_shapes(case, batch)
        state = tuple(rng.standard_normal(s).astype(np.float32) for s in shapes)
    return x, state


def arguments(case: Case, x: np.ndarray, state: tuple) -> tuple:
    """What the module is called with: torch's own take a state as one argument."""
    given = [torch.from_numpy(a) for a in state]
    if not given:
        return (torch.from_numpy(x),)
    if not case.bare:
        return (torch.from_numpy(x), *given)
    return (torch.from_numpy(x), tuple(given) if len(given) > 1 else given[0])


def flat(result: Any) -> list[torch.Tensor]:
    """y, h, c of (y, (h, c)), (y, h, c) or y."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def _computed(case: Case, module: nn.Module, x: np.ndarray, state: tuple) -> list[np.ndarray]:
    """y and the final states, those that the module itself drops included."""
    kept = []
    rnn = module if case.bare else module.rnn
    hook = rnn.register_forward_hook(lambda _module, _given, result: kept.extend(flat(result)))
    double = next(module.parameters()).dtype == torch.float64

    def wide(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(wide(a) for a in argument)
        return argument.double() if double and argument.is_floating_point() else argument

    with torch.no_grad(), quiet():  # of a projection torch says that it is slow
        y = flat(module(*wide(arguments(case, x, state))))[0]
    hook.remove()
    states = kept if case.is_cell else kept[1:]
    return [tensor.numpy() for tensor in (y, *states)]


def run_of(case: Case, module: nn.Module, length: int, batch: int | None, seed: int = 0) -> Run:
    """`batch` None: unbatched, which is computed as a batch of one, for not every module takes
    it. The tolerance: torch's float32 and ours round the same sums in different orders, so
    both lie within the same bound of the exact value. That bound is far away; how far torch
    strays in this very case tells the size of such errors. Eight times as much is allowed, and
    never less than 16 roundings of 1 (2^-20), because torch may be lucky."""
    x, state = inputs_of(case, length, batch, seed)
    lone = batch is None and case.layout != "unbatched"
    axis = 0 if case.layout == "batch first" or case.is_cell else 1
    asked = x, state
    if lone:
        x = np.expand_dims(x, axis)
        state = tuple(np.expand_dims(s, -2) for s in state)
    single = _computed(case, module, x, state)
    double = _computed(case, module.double(), x, state)
    module.float()
    error = max(float(np.abs(a - b).max()) for a, b in zip(single, double, strict=True))
    size = max(1.0, *(float(np.abs(a).max()) for a in double))
    if lone:
        double = [double[0].squeeze(axis), *(s.squeeze(-2) for s in double[1:])]
    return Run(*asked, double[0], tuple(double[1:]), max(8 * error, size * 2.0**-20))


def other_sizes(case: Case) -> tuple[int, int | None]:
    """Another length and batch than those of the export."""
    length, batch, _, _ = sizes_of(case)
    return length + 3, None if case.layout == "unbatched" else batch + 1


# ---- files --------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters print, log and warn about themselves and each other."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def exported(case: Case, module: nn.Module) -> bytes:
    """The ONNX file that the case's exporter writes."""
    length, batch, _, _ = sizes_of(case)
    x, state = inputs_of(case, length, None if case.layout == "unbatched" else batch)
    given = arguments(case, x, state)
    out = io.BytesIO()
    with quiet():
        if case.exporter == "old":
            torch.onnx.export(
                module, given, out, dynamo=False, opset_version=case.opset, **_names(case)
            )
            return out.getvalue()
        program = torch.onnx.export(
            module, given, dynamo=True, opset_version=case.opset, dynamic_shapes=_dims(case)
        )
        return program.model_proto.SerializeToString()


def _axes(case: Case) -> tuple[dict[int, str], dict[int, str]]:
    """Names of the axes that are dynamic, of x and y and of a state."""
    if case.axes == "static":
        return {}, {}
    if case.is_cell:
        return {0: "B"}, {0: "B"}
    if case.layout == "unbatched":
        return {0: "T"}, {}
    time = 1 if case.layout == "batch first" else 0
    return {time: "T", 1 - time: "B"}, {1: "B"}


def _names(case: Case) -> dict[str, Any]:
    of_x, of_state = _axes(case)
    states = ["h", "c"] if case.cell.startswith("LSTM") else ["h"]
    inputs = ["x", *(f"{s}0" for s in states if case.state == "given")]
    outputs = ["y", *(f"{s}n" for s in states if case.returns == "state")]
    if case.is_cell:
        outputs = [f"{s}n" for s in states]
    axes = {name: of_x if name in "xy" else of_state for name in inputs + outputs}
    return {
        "input_names": inputs,
        "output_names": outputs,
        "dynamic_axes": {name: each for name, each in axes.items() if each},
    }


def _dims(case: Case) -> tuple | None:
    if case.axes == "static":
        return None
    auto = torch.export.Dim.AUTO
    of_x, of_state = ({axis: auto for axis in axes} for axes in _axes(case))
    if case.state != "given":
        return (of_x,)
    states = [of_state] * (2 if case.cell.startswith("LSTM") else 1)
    if not case.bare:
        return (of_x, *states)
    return (of_x, tuple(states) if len(states) > 1 else states[0])
