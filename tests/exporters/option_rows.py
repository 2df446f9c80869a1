# SPDX-License-Identifier: MIT
"""Rows of docs/supported.md for options that torch's modules do not have: through a state dict
and, where ONNX has the option, through its operator; against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import export_blocked
import numpy as np
import onnx
from export_route import Blocked
from export_torch import Run
from onnx import TensorProto, helper, numpy_helper

import clstm
import oracle
import samples
from bounds.tolerances import DIFFERENT, FAR
from clstm import nn

STEPS, BATCH, N_IN, HIDDEN = 6, 3, 5, 4

HEAD = """\
## Options that `torch.nn` does not have

Arguments of `clstm.nn`, for a state dict with `layers=`; and the same as attributes or inputs of \
ONNX's LSTM, GRU and RNN operators, where these have them.
"""


@dataclass
class Option:
    title: str
    layer: nn.Layer
    tensors: dict[str, Any] = field(default_factory=dict)  # of samples.recurrent_tensors
    onnx: dict[str, Any] | None = None  # attributes; None: the operator has no such option
    other: nn.Layer | None = None  # what it would be if the option were not seen


FUNCTIONS = [("HardSigmoid", 0.3, 0.4), ("Softsign", 0.0, 0.0), ("ScaledTanh", 0.9, 0.7)]
NAMES = {
    "activations": [name for name, _, _ in FUNCTIONS],
    "activation_alpha": [0.3, 0.9],
    "activation_beta": [0.4, 0.7],
}
NORMS: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("one for all gates", {}, None),
    ("`per_gate=True`", {"per_gate": True}, {}),
    ("`separate=True`", {"separate": True}, {}),
    ("`cell=True`", {"cell": True}, {}),
    ('`cell="stored"`', {"cell": "stored"}, {"cell": True}),
]
OPTIONS = [
    Option('LSTM, `peephole="diagonal"`', nn.LSTM(peephole="diagonal"), onnx={}),
    Option('LSTM, `peephole="full"`', nn.LSTM(peephole="full")),
    Option(
        'LSTM, `peephole="full"`, `output_peephole="new"`',
        nn.LSTM(peephole="full", output_peephole="new"),
        other=nn.LSTM(peephole="full"),
    ),
    Option('LSTM, `coupled="f=1-i"`', nn.LSTM(coupled="f=1-i"), onnx={"input_forget": 1}),
    Option('LSTM, `coupled="i=1-f"`', nn.LSTM(coupled="i=1-f")),
    Option("LSTM, `clip`", nn.LSTM(clip=0.3), onnx={"clip": 0.3}),
    Option("LSTM, `cell_clip`", nn.LSTM(cell_clip=0.2)),
    Option(
        "LSTM, `cell_clip_stored=True`",
        nn.LSTM(cell_clip=0.2, cell_clip_stored=True),
        other=nn.LSTM(cell_clip=0.2),
    ),
    Option(
        "LSTM, projection with bias, `proj_clip`",
        nn.LSTM(proj_clip=0.2),
        {"proj": 3, "proj_bias": True},
    ),
    Option("LSTM, `forget_bias`", nn.LSTM(forget_bias=1.0)),
    Option("LSTM, `zoneout`", nn.LSTM(zoneout=(0.2, 0.1))),
    Option("LSTM, `activations`", nn.LSTM(activations=FUNCTIONS), onnx=NAMES),
    *(
        Option(
            f"LSTM, `layer_norm`, {words}",
            nn.LSTM(layer_norm=norm),
            {"norm_bias": True},
            other=nn.LSTM(layer_norm=other),
        )
        for words, norm, other in NORMS
    ),
    Option(
        "GRU, `linear_before_reset=False`",
        nn.GRU(linear_before_reset=False),
        onnx={"linear_before_reset": 0},
    ),
    Option(
        "GRU, `activations`, `clip`",
        nn.GRU(activations=FUNCTIONS[:2], clip=0.4),
        onnx={
            "linear_before_reset": 1,
            "clip": 0.4,
            "activations": NAMES["activations"][:2],
            "activation_alpha": [0.3],
            "activation_beta": [0.4],
        },
    ),
    Option(
        "RNN, `activations`, `clip`",
        nn.RNN(activations=FUNCTIONS[2:], clip=0.4),
        onnx={
            "clip": 0.4,
            "activations": ["ScaledTanh"],
            "activation_alpha": [0.9],
            "activation_beta": [0.7],
        },
    ),
]


def option_table(blocked: Blocked, table: Callable[[list[str], list[list[str]]], str]) -> str:
    rows = []
    for option in OPTIONS:
        tensors = samples.recurrent_tensors(
            samples.rng_of(1), option.layer, N_IN, HIDDEN, **option.tensors
        )
        checked(option, tensors)
        entry = ""
        if option.onnx is not None:
            reply = blocked.ask(operator(option, tensors), runs_of(option, tensors), cell=False)
            wrong = [r for r in reply.get("runs", [reply]) if not isinstance(r, float) or r > 1]
            assert not wrong, f"{option.title}: {wrong}"
            entry = "yes"
        rows.append([option.title, "yes", entry])
    return f"{HEAD}\n{table(['', 'state dict', 'ONNX operator'], rows)}"


def runs_of(option: Option, tensors: dict[str, np.ndarray]) -> list[tuple[str, Run]]:
    rng = samples.rng_of(2)
    found = []
    for how, batch in (("m(x)", (BATCH,)), ("stream", ())):
        x = 2 * samples.floats(rng, STEPS, *batch, N_IN)
        y, final = oracle.forward([option.layer], tensors, x)
        final = final if isinstance(final, tuple) else (final,)
        found.append((how, Run(x, (), y, final, FAR)))
    return found


def checked(option: Option, tensors: dict[str, np.ndarray]) -> None:
    """The state dict's model against the reference, and the reference with the option against
    the one without, which must be far apart for this to show anything."""
    model = clstm.from_state_dict(tensors, layers=[option.layer])
    other = type(option.layer)() if option.other is None else option.other
    for how, run in runs_of(option, tensors):
        given = {"cell": False, "tolerance": run.tolerance, "x": run.x, "y": run.y}
        given |= {"given": [], "final": list(run.final)}
        compare = export_blocked.streamed if how == "stream" else export_blocked.called
        assert compare(model, given) <= 1, option.title
        if not getattr(option.layer, "coupled", None):  # whose tensors have other shapes
            y, _ = oracle.forward([other], tensors, run.x)
            assert np.abs(y - run.y).max() > DIFFERENT, option.title


def operator(option: Option, tensors: dict[str, np.ndarray]) -> bytes:
    """A file of one node: gate rows in ONNX's order, i o f c and z r h, peepholes i o f."""
    kind = type(option.layer).__name__
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[kind]
    if getattr(option.layer, "coupled", None):  # f's rows are there and mean nothing
        order = [0, 2, 0, 1]

    def rows(name: str, gates: list[int]) -> np.ndarray:
        parts = np.split(tensors[f"{name}_l0"], max(gates) + 1)
        return np.concatenate([parts[g] for g in gates])[None]

    bias = np.concatenate([rows("bias_ih", order), rows("bias_hh", order)], axis=1)
    inputs = {"W": rows("weight_ih", order), "R": rows("weight_hh", order), "B": bias}
    names = ["x", "W", "R", "B"]
    if "weight_ch_l0" in tensors:
        inputs["P"] = rows("weight_ch", [0, 2, 1])
        names += ["", "", "", "P"]
    outputs = ["Y", "hn", "cn"] if kind == "LSTM" else ["Y", "hn"]
    attributes = {"hidden_size": HIDDEN} | (option.onnx or {})
    nodes = [
        helper.make_node(kind, names, outputs, **attributes),
        helper.make_node("Squeeze", ["Y", "one"], ["y"]),
    ]
    inputs["one"] = np.array([1])
    floating = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "option",
        [helper.make_tensor_value_info("x", floating, ["T", "B", N_IN])],
        [
            helper.make_tensor_value_info(name, floating, [first, "B", HIDDEN])
            for name, first in [("y", "T"), *((name, 1) for name in outputs[1:])]
        ],
        [numpy_helper.from_array(value, name) for name, value in inputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model.SerializeToString()
