# SPDX-License-Identifier: MIT
"""Numbers of the file; csrc/src/weights.h has the same. None is ever reused."""

from __future__ import annotations

from .. import nn
from ..formats.container import Record

LSTM, GRU, RNN = 1, 2, 3
RECURRENT = (LSTM, GRU, RNN)
LINEAR, EMBEDDING, LAYER_NORM, BATCH_NORM, AFFINE = 16, 17, 18, 19, 20
ADD, MUL, CONCAT, SLICE, OUTPUT, FIRST = 21, 22, 23, 24, 25, 26
IDENTITY, DROPOUT, PRELU, GELU, GELU_TANH = 32, 33, 37, 42, 43

PLAIN: dict[int, type[nn.Layer]] = {
    34: nn.ReLU, 35: nn.ReLU6, 39: nn.Tanh, 41: nn.Sigmoid, 44: nn.SiLU, 46: nn.Softmax,
    47: nn.LogSoftmax, FIRST: nn.First,
}  # fmt: skip
NUMBERED: dict[int, type[nn.Layer]] = {  # whose options are numbers, in order
    DROPOUT: nn.Dropout, 36: nn.LeakyReLU, 38: nn.ELU, 40: nn.Hardtanh, 45: nn.Softplus,
}  # fmt: skip
SEVERAL: dict[int, type[nn.Add | nn.Mul | nn.Concat]] = {
    ADD: nn.Add,
    MUL: nn.Mul,
    CONCAT: nn.Concat,
}

BATCH_FIRST, BIDIRECTIONAL, CELL, BIAS, WEIGHT, H0, C0 = 1, 2, 4, 8, 16, 32, 64
PEEPHOLE, PEEPHOLE_FULL, OUTPUT_NEW, COUPLED_F, COUPLED_I = (1 << n for n in range(7, 12))
CELL_CLIP_STORED, PROJ_BIAS, LN, LN_PER_GATE, LN_SEPARATE = (1 << n for n in range(12, 17))
LN_CELL, LN_CELL_STORED, LN_BIAS, LN_CELL_BIAS = (1 << n for n in range(17, 21))
ACTIVATIONS, RESET_BEFORE, REVERSE = 1 << 21, 1 << 22, 1 << 23


def directions(record: Record) -> int:
    """Of a recurrent record."""
    return 2 if record.flags & BIDIRECTIONAL else 1
