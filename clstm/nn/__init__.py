# SPDX-License-Identifier: MIT
"""Layer descriptions under the names of ``torch.nn``.

A description says which tensors of a state dict make a layer (by their prefix) and what
tensors cannot tell. Sizes are read from the tensors; sizes given as keywords are checked
against them, never needed. A list of descriptions, in order, is a model:

    clstm.load("w.pt", layers=[nn.Embedding("emb"), nn.LSTM("lstm"), nn.Linear("fc")])
"""

from ._base import Layer
from .recurrent import ACTIVATIONS as ACTIVATIONS
from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .stateless import (
    ELU,
    GELU,
    Affine,
    BatchNorm1d,
    Dropout,
    Embedding,
    Hardtanh,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .wiring import Add, Concat, First, Mul, Output, Slice

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Add",
    "Affine",
    "BatchNorm1d",
    "Concat",
    "Dropout",
    "Embedding",
    "First",
    "GRUCell",
    "Hardtanh",
    "Identity",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Mul",
    "Output",
    "PReLU",
    "RNNCell",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Tanh",
]
