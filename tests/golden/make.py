# SPDX-License-Identifier: MIT
"""Made the files beside it, once, with clstm 0.1.0 (numeric policy 1). They are kept as they are:
a newer version writes files of its own beside them, it does not write these again.

    python tests/golden/make.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import clstm
from clstm import nn

MODELS = {
    "tokens": [
        nn.Embedding("emb"), nn.LSTM("lstm"), nn.LayerNorm("norm"), nn.Dropout(0.1),
        nn.Linear("fc"), nn.BatchNorm1d("bn"), nn.GELU(), nn.Affine("aff"), nn.PReLU("prelu"),
        nn.Linear("out"), nn.LogSoftmax(),
    ],
    "both_ways": [
        nn.BatchNorm1d("bn"), nn.LSTM("lstm", batch_first=True, h0="h0", c0="c0"),
        nn.LeakyReLU(0.2), nn.Linear("fc"), nn.Softplus(2.0, 10.0), nn.ELU(0.5), nn.SiLU(),
        nn.Hardtanh(-0.5, 2.0), nn.Softmax(),
    ],
    "cell": [nn.LSTMCell("lstm_cell")],
}  # fmt: skip
SHAPES = {
    "tokens": {
        "emb.weight": (11, 6), "lstm.weight_ih_l0": (28, 6), "lstm.weight_hh_l0": (28, 3),
        "lstm.bias_ih_l0": (28,), "lstm.bias_hh_l0": (28,), "lstm.weight_hr_l0": (3, 7),
        "lstm.weight_ih_l1": (28, 3), "lstm.weight_hh_l1": (28, 3), "lstm.bias_ih_l1": (28,),
        "lstm.bias_hh_l1": (28,), "lstm.weight_hr_l1": (3, 7), "norm.weight": (3,),
        "norm.bias": (3,), "fc.weight": (9, 3), "fc.bias": (9,), "bn.running_mean": (9,),
        "bn.running_var": (9,), "bn.weight": (9,), "bn.bias": (9,), "aff.scale": (9,),
        "aff.shift": (1,), "prelu.weight": (1,), "out.weight": (4, 9),
    },
    "both_ways": {
        "bn.running_mean": (5,), "bn.running_var": (5,), "h0": (2, 18), "c0": (2, 18),
        "lstm.weight_ih_l0": (72, 5), "lstm.weight_hh_l0": (72, 18),
        "lstm.weight_ih_l0_reverse": (72, 5), "lstm.weight_hh_l0_reverse": (72, 18),
        "fc.weight": (6, 36), "fc.bias": (6,),
    },
    "cell": {
        "lstm_cell.weight_ih": (68, 4), "lstm_cell.weight_hh": (68, 17),
        "lstm_cell.bias_ih": (68,), "lstm_cell.bias_hh": (68,),
    },
}  # fmt: skip
INPUTS = {"tokens": (8, 2), "both_ways": (2, 8, 5), "cell": (3, 4)}


def main(folder: Path) -> None:
    rng = np.random.default_rng(1)
    expected = {}
    for name, layers in MODELS.items():
        tensors = {k: rng.uniform(-1, 1, s).astype("f") for k, s in SHAPES[name].items()}
        tensors |= {k: np.abs(t) for k, t in tensors.items() if k.endswith("running_var")}
        m = clstm.from_state_dict(tensors, layers=layers)
        x = rng.normal(size=INPUTS[name]).astype("f")
        if m.num_embeddings:
            x = rng.integers(0, m.num_embeddings, INPUTS[name])
        y = m(x)[0]
        m.save(folder / f"v1_{name}.clstm", check=(x, y))
        expected |= {f"{name}.x": x, f"{name}.y": y, f"{name}.fingerprint": m.fingerprint}
    np.savez(folder / "v1.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
