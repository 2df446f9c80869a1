# SPDX-License-Identifier: MIT
"""Modules with a forward of their own, for the tests of from_torch(module, example)."""

from __future__ import annotations

import types

import numpy as np
import torch
from torch import nn

from bounds.tolerances import NEAR

I, H, V = 5, 6, 11  # noqa: E741


def arrays(value):
    """What torch returns, in NumPy."""
    if isinstance(value, tuple | list):
        return tuple(arrays(v) for v in value)
    return value.detach().numpy()


def close(ours, theirs, tolerance=NEAR):
    if isinstance(theirs, tuple | list):
        assert isinstance(ours, tuple | list) and len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            close(a, b, tolerance)
        return
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max(initial=0) < tolerance


def run(module, *inputs):
    """The module in evaluation, on arrays."""
    training = module.training
    with torch.no_grad():
        found = arrays(module.eval()(*[as_tensors(x) for x in inputs]))
    module.train(training)
    return found


def as_tensors(x):
    return tuple(as_tensors(i) for i in x) if isinstance(x, tuple) else torch.from_numpy(x)


def made(init, forward, seed=0):
    """A module of these parts, with weights from the seed."""
    torch.manual_seed(seed)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            init(self)

    # torch.export keeps the lines of functions of this name.
    forward = types.FunctionType(forward.__code__.replace(co_name="forward"), forward.__globals__,
                                 closure=forward.__closure__)  # fmt: skip
    Own.forward = forward
    module = Own()
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module


def parts(m):
    m.emb = nn.Embedding(V, I)
    m.a = nn.LSTM(I, H, batch_first=True)
    m.b = nn.LSTM(H, H, 2, batch_first=True, dropout=0.5)
    m.gate, m.vector = nn.Linear(H, 1), nn.Parameter(torch.randn(H))
    m.gru = nn.GRU(I, H, batch_first=True)
    m.rnn = nn.RNN(H, 4, nonlinearity="relu", batch_first=True)
    m.both = nn.LSTM(I, 4, 2, batch_first=True, bidirectional=True, proj_size=3)
    m.drop, m.act = nn.Dropout(0.5), nn.PReLU(H)
    m.ln, m.bn = nn.LayerNorm(H), nn.BatchNorm1d(H)
    m.fc, m.wide = nn.Linear(H, 3), nn.Linear(2 * H, 3)
    m.scale = nn.Parameter(torch.rand(H))


def zeros(*shape):
    return torch.zeros(shape)
