# SPDX-License-Identifier: MIT
"""from_torch(module, example): what is refused, and how the message names it.

A message cites the line of forward: what it must say stands on another line here.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import clstm
from clstm import UnsupportedError
from traced import H, I, made, parts, zeros

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


def loop(m, x):
    h, c, out = torch.zeros(x.shape[0], H), torch.zeros(x.shape[0], H), []
    for t in range(x.shape[1]):
        h, c = m.cell(x[:, t], (h, c))
        out.append(h)
    return torch.stack(out, 1)


def loop_of_three(m, x):
    h, c = m.cell(m.a(x)[0][:, -1])
    for _ in range(3):
        h, c = m.cell(h, (h, c))
    return h


def by_hand(m, x):
    h = torch.zeros(x.shape[0], H)
    for step in x.unbind(1):
        h = torch.tanh(m.into(torch.cat([step, h], -1)))
    return h


def packed(m, x):
    p = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(m.a(p)[0], batch_first=True)[0]


def packed_by_an_input(m, x, lengths):
    p = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return m.a(p)[1][0]


def decoder(m, x):
    return m.b1(x, m.a(x)[1])[0]


def switched(m, x):
    return m.a(x if x.shape[1] < 5 else -x)[0]


def fed_back(m, x, h):
    h = m.second(x, h)
    return m.fc(h), h * 0.9


REFUSED = [  # forward; the operation, "" where torch.export itself failed; the cause
    (loop, "select.int", "11 operations .* and 31 .* Python loop over time: .* m.stream"),
    (by_hand, "unbind.int", "a Python loop over time"),
    (loop_of_three, "lstm_cell.default", "over the last time step only"),
    (packed, None, "leave pack_padded_sequence .* m\\(x, lengths=...\\)"),
    (decoder, "lstm.input", "starts from what another recurrent layer gives"),
    (switched, "zeros.default", "depends on the length or the batch size"),
    (lambda m, x: m.a(x)[0].view(2, 3, H),
     "", "axis 0 is 5, not 2 and axis 1 is 8, not 3, .* shape '\\[2, 3, 6\\]' is invalid"),
    (lambda m, x: m.a(x, (torch.zeros(1, 2, H),) * 2)[0],
     "", "depends on the example's length or batch size"),
    (lambda m, x: m.missing(x),
     "", "has no attribute 'missing'"),
    (lambda m, x: m.a(x)[0] * x.shape[1],
     "mul.Tensor", "a number depends on the length"),
    (lambda m, x: m.a(x)[0] + torch.arange(x.shape[1])[:, None],
     "add.Tensor", "a constant that depends on the length"),
    (lambda m, x: m.a(x)[0] + torch.arange(x.shape[0])[:, None, None],
     "add.Tensor", "a constant that depends on .* the batch"),
    (lambda m, x: m.a(x)[0][:, 2],
     "select.int", "takes element 2 of axis 1"),
    (lambda m, x: m.a(x[:, 0][:, None])[0],
     "select.int", "takes element 0 of axis 1"),
    (lambda m, x: m.a(x)[0][:, 1:],
     "slice.Tensor", "takes a part of axis 1"),
    (lambda m, x: m.a(x)[0][-1],
     "select.int", "axis 0 of the input as time, but axis 1"),
    (lambda m, x: m.a(x)[0].mean(1),
     "mean.dim", "the mean over axis 1 .* take the mean outside of the model"),
    (lambda m, x: m.a(x)[0].max(1)[0],
     "max.dim", "no operation that clstm has; .* take the max outside of the model"),
    (lambda m, x: m.a(x)[0].sum(),
     "sum.default", "the sum over axis 0"),
    (lambda m, x: m.a(x)[0].softmax(1),
     "softmax.int", "works along the features only"),
    (lambda m, x: m.a(x)[0].flatten(1),
     "flatten.using_ints", "mixes time or batch with features"),
    (lambda m, x: m.a(x)[0].flatten(0, 1),
     None, "output '0': has the axes"),
    (lambda m, x: m.a(x)[0].transpose(0, 1),
     None, "output '0': .* in the input's order"),
    (lambda m, x: m.a(x)[0].view(*x.shape[:2], 2, 3),
     None, "output '0': has the axes .* all features on the last one"),
    (lambda m, x: m.a(x)[0].squeeze(),
     "squeeze.default", "takes axis 0 of the input away where that is 1"),
    (lambda m, x: m.a(x.flatten(0, 1)[None])[0][0],
     "lstm.input", "over axis 0 of the input *x *axis 1 of the input as time"),
    (lambda m, x: m.b(m.a(x)[1][1])[0],
     "lstm.input", "no time step of its output holds .* outside of the model"),
    (lambda m, x: torch.cat([*m.both(x)[1]], -1),
     "cat.default", "joins|final states"),
    (lambda m, x: F.dropout(m.a(x)[0]),
     "dropout.default|native_dropout.default", "is random, in evaluation too"),
    (lambda m, x: m.a(x)[0] + torch.rand(H),
     "rand.default", "is random, in evaluation too"),
    (lambda m, x: m.a(x)[0].half().float(),
     "to.dtype|_to_copy.default", "casts torch.float32 to torch.float16"),
    (lambda m, x: m.a(x)[0].index_fill(2, torch.tensor([1]), 0.0),
     "index_fill.int_Scalar", "is no operation"),
    (lambda m, x: m.bn_train(m.a(x)[0].transpose(1, 2)),
     "batch_norm.default", "statistics of the batch"),
    (lambda m, x: torch.ones(3),
     None, "reads no input but states"),
    (lambda m, x: (m.a(x)[0], torch.ones(3)),
     None, "output 1: is a constant"),
]  # fmt: skip


def refusing_parts(m):
    parts(m)
    m.cell, m.into = nn.LSTMCell(H, H), nn.Linear(2 * H, H)
    m.b1, m.bn_train = nn.LSTM(I, H, batch_first=True), nn.BatchNorm1d(H, track_running_stats=False)
    m.second, m.thin = nn.GRUCell(I, H), nn.RNN(1, 4, batch_first=True)


@pytest.mark.parametrize("forward, target, cause", REFUSED)
def test_what_depends_on_the_length_or_is_no_layer_is_refused_by_name(forward, target, cause):
    x = zeros(2, 3, H if forward in (loop, by_hand) else I)
    with pytest.raises(UnsupportedError) as caught:
        clstm.from_torch(made(refusing_parts, forward), x)
    message = str(caught.value)
    if target is not None:
        place = rf"\w+ \(({target}) at " if target else "from_torch: "
        assert re.match(rf"{place}test_trace_refused\.py:\d+, ", message), message
    assert re.search(cause, message), message


@pytest.mark.parametrize("forward, example, words", [
    (packed_by_an_input, (zeros(2, 3, I), torch.tensor([3, 2])), ["pack_padded", "lengths="]),
    (lambda m, x, z: m.a(x + z)[0], (zeros(2, 3, I), zeros(2, 3, I)),
     ["'x', 'z'", "takes one"]),
    (lambda m, x, h: m.a(x)[0] + h, (zeros(2, 3, I), zeros(H)),
     ["'x', 'h'"]),
    (fed_back, (zeros(1, I), zeros(1, H)), ["output 1", "has the size of the state"]),
    (lambda m, x, h: m.fc(m.second(x, h)), (zeros(2, I), zeros(2, H)),
     ["a batch of 1"]),
    (lambda m, x: m.thin(x[..., None])[0], zeros(2, 3),
     ["the input 'x'", "features last"]),
    (lambda m, x: m.a(x.transpose(1, 2))[0], zeros(2, I, 3),
     ["the input 'x'", "features last"]),
    (lambda m, x: m.a(F.one_hot(x, I).float())[0], torch.zeros(2, 3, dtype=torch.int64),
     ["one_hot", "scatter|is no operation|torch.export"]),
    (lambda m, x, h: m.b(x, (h[:2], h[:2])), (zeros(2, 3, H), zeros(2, 2, H)),
     ["shares the state"]),
])  # fmt: skip
def test_inputs_that_clstm_does_not_take_are_refused_by_name(forward, example, words):
    with pytest.raises(UnsupportedError) as caught:
        clstm.from_torch(made(refusing_parts, forward), example)
    for word in words:
        assert re.search(word, str(caught.value)), str(caught.value)


class Bare(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("module, example", [
    (Bare(), "x"),
    (Bare(), 3),
    (Bare(), ()),
    ([nn.LSTM(2, 3)], zeros(1, 2, 2)),
    (3, zeros(1, 2, 2)),
])  # fmt: skip
def test_what_is_no_module_or_no_example(module, example):
    with pytest.raises(TypeError):
        clstm.from_torch(module, example)
