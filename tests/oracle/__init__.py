# SPDX-License-Identifier: MIT
"""What a model must compute, in float64 and plain NumPy: the reference of every test.

It is written from the equations in PyTorch's documentation
(https://docs.pytorch.org/docs/2.13/generated/torch.nn.LSTM.html and its neighbours; each function
names its page), from the operator texts of ONNX and from papers, and shares no code, no layout and
no formula with the kernels. Speed is no concern.

Tensors are a mapping from torch's names to arrays. Layers are objects known by their class name,
`.prefix` and options, so the list of `clstm.nn` layers that makes a model drives the oracle too:

    forward(layers, tensors, x, state=None, lengths=None)   the axis orders and results of `m(x)`
    layers_core(...), recurrent(...), lstm(...)             the same, time-major: (T, B, features)
    cell_step(layer, w, x, state)                           one step of one layer and direction

functions.py has layers without state, cells.py one step of each cell, models.py the rest. How far
float32 may stray from these numbers is the business of `bounds`.
"""

from .cells import (
    ACTIVATIONS,
    Direction,
    activations,
    bias_sum,
    cell_step,
    diagonal_peephole,
    directions,
    gate_rows,
    gru_step,
    kind_of,
    lstm_step,
    rnn_step,
)
from .functions import (
    STATELESS,
    batch_norm,
    elu,
    f64,
    gelu,
    layer_norm,
    linear,
    log_softmax,
    named,
    option,
    prelu,
    required,
    scaled,
    sigmoid,
    softmax,
    softplus,
)
from .models import (
    RECURRENT,
    as_tuple,
    forward,
    is_cell,
    is_recurrent,
    last_steps,
    layers_core,
    lstm,
    recurrent,
    state_sizes,
    valid_rows,
)

__all__ = [
    "ACTIVATIONS",
    "RECURRENT",
    "STATELESS",
    "Direction",
    "activations",
    "as_tuple",
    "batch_norm",
    "bias_sum",
    "cell_step",
    "diagonal_peephole",
    "directions",
    "elu",
    "f64",
    "forward",
    "gate_rows",
    "gelu",
    "gru_step",
    "is_cell",
    "is_recurrent",
    "kind_of",
    "last_steps",
    "layer_norm",
    "layers_core",
    "linear",
    "log_softmax",
    "lstm",
    "lstm_step",
    "named",
    "option",
    "prelu",
    "recurrent",
    "required",
    "rnn_step",
    "scaled",
    "sigmoid",
    "softmax",
    "softplus",
    "state_sizes",
    "valid_rows",
]
