# SPDX-License-Identifier: MIT
"""Made the files v1b_* and v1b.npz beside it, once, with clstm 0.2.0 (format version 1, numeric
policy 1): the cells, options and wiring that 0.1.0 did not have. They are kept as they are; see
make.py.

    python tests/golden/make_cells.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import clstm
from clstm import nn

MODELS = {
    "gru": [nn.GRU("gru", h0="h0"), nn.Linear("fc")],
    "gru_before": [nn.GRU("gru", linear_before_reset=False, clip=0.75, batch_first=True)],
    "rnn": [nn.RNN("a", nonlinearity="relu"), nn.RNN("b", clip=1.5)],
    "cells": [nn.GRUCell("gru"), nn.RNNCell("rnn", nonlinearity="relu")],
    "diagonal": [
        nn.LSTM(
            "lstm", peephole="diagonal", coupled="f=1-i", clip=2.0, cell_clip=0.5,
            zoneout=(0.25, 0.125),
            activations=[
                ("HardSigmoid", 0.25, 0.5), "Softsign", ("ScaledTanh", 1.5, 0.75),
                "Sigmoid", ("LeakyRelu", 0.125), ("Elu", 0.5),
            ],
        ),
    ],
    "full": [
        nn.LSTM(
            "lstm", peephole="full", output_peephole="new", forget_bias=1.0, cell_clip=0.25,
            cell_clip_stored=True, proj_clip=0.25, h0="h0", c0="c0",
        ),
    ],
    "norm": [
        nn.LSTM(
            "a", peephole="diagonal", layer_norm={"per_gate": True, "cell": "stored", "eps": 1e-3}
        ),
        nn.LSTM("b", coupled="i=1-f", layer_norm={"separate": True, "cell": True}),
        nn.LSTM("c", layer_norm={}),
    ],
    "wiring": [
        nn.Embedding("emb"), nn.LSTM("lstm"), nn.GRU("gru"), nn.Add((1, 2, 3)), nn.Mul((4, 1)),
        nn.Concat((5, 2)), nn.Slice(2, 11), nn.Linear("fc"), nn.Identity(input=3), nn.Tanh(),
        nn.Output((10, 8, 3), last=(False, True, False)),
    ],
}  # fmt: skip
INPUTS = {
    "gru": (8, 2, 4), "gru_before": (2, 8, 4), "rnn": (8, 2, 3),
    "cells": (8, 2, 4), "diagonal": (8, 2, 5), "full": (8, 2, 6), "norm": (8, 2, 4),
    "wiring": (8, 2),
}  # fmt: skip


def cell(prefix, end, rows, n_in, hidden, out=0, full=False, diagonal=False, bias=True):
    """Shapes of one layer and direction, `rows` gates of `hidden` each."""
    shapes = {"weight_ih": (rows * hidden, n_in), "weight_hh": (rows * hidden, out or hidden)}
    if bias:
        shapes |= {"bias_ih": (rows * hidden,), "bias_hh": (rows * hidden,)}
    if out:
        shapes |= {"weight_hr": (out, hidden), "bias_hr": (out,)}
    if full or diagonal:
        shapes["weight_ch"] = (rows * hidden, hidden) if full else (3 * hidden,)
    return {f"{prefix}.{name}{end}": shape for name, shape in shapes.items()}


def norm(prefix, rows, hidden, names, bias):
    """Shapes of the normalisations of a layer of one direction."""
    for name in names:
        size = hidden if name == "ln_cell" else rows * hidden
        for word in ("weight", "bias")[: 1 + bias]:
            yield f"{prefix}.{name}_l0.{word}", (size,)


BOTH = ("_l0", "_l0_reverse")
SHAPES = {
    "gru": cell("gru", "_l0", 3, 4, 9) | cell("gru", "_l1", 3, 9, 9)
    | {"h0": (2, 9), "fc.weight": (3, 9)},
    "gru_before": cell("gru", BOTH[0], 3, 4, 7) | cell("gru", BOTH[1], 3, 4, 7),
    "rnn": cell("a", BOTH[0], 1, 3, 17) | cell("a", BOTH[1], 1, 3, 17)
    | cell("b", "_l0", 1, 34, 5, bias=False),
    "cells": cell("gru", "", 3, 4, 7) | cell("rnn", "", 1, 7, 18),
    "diagonal": cell("lstm", BOTH[0], 3, 5, 6, diagonal=True)
    | cell("lstm", BOTH[1], 3, 5, 6, diagonal=True),
    "full": cell("lstm", "_l0", 4, 6, 9, 5, full=True) | {"h0": (1, 5), "c0": (1, 9)},
    "norm": cell("a", "_l0", 4, 4, 6, diagonal=True)
    | dict(norm("a", 4, 6, ("ln_ih", "ln_cell"), True))
    | cell("b", "_l0", 3, 6, 7) | dict(norm("b", 3, 7, ("ln_ih", "ln_hh", "ln_cell"), False))
    | cell("c", "_l0", 4, 7, 3) | dict(norm("c", 4, 3, ("ln_ih",), True)),
    "wiring": {"emb.weight": (11, 6), "fc.weight": (4, 9)}
    | cell("lstm", "_l0", 4, 6, 6) | cell("gru", "_l0", 3, 6, 6),
}  # fmt: skip


def main(folder: Path) -> None:
    rng = np.random.default_rng(2)
    expected = {}
    for name, layers in MODELS.items():
        tensors = {k: rng.uniform(-1, 1, s).astype("f") for k, s in SHAPES[name].items()}
        m = clstm.from_state_dict(tensors, layers=layers)
        x = rng.normal(size=INPUTS[name]).astype("f")
        if m.num_embeddings:
            x = rng.integers(0, m.num_embeddings, INPUTS[name])
        y = m(x)[0]
        several = isinstance(y, tuple)  # a certificate is of every step
        m.save(folder / f"v1b_{name}.clstm", check=None if several else (x, y))
        expected |= {f"{name}.x": x, f"{name}.fingerprint": m.fingerprint}
        parts = {f"{name}.y{i}": part for i, part in enumerate(y)} if several else {f"{name}.y": y}
        expected |= parts
    np.savez(folder / "v1b.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
