# SPDX-License-Identifier: MIT
"""from_torch."""

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

import clstm
from bounds.tolerances import NEAR
from clstm import UnsupportedError
from samples import floats, rng_of, same_bits


def bits(model):
    return model(floats(rng_of(2), 5, 6))[0]


def test_from_torch_takes_modules_cells_sequentials_and_lists():
    torch.manual_seed(0)
    lstm_, fc, act = torch.nn.LSTM(6, 8, batch_first=True), torch.nn.Linear(8, 3), torch.nn.Tanh()
    x = floats(rng_of(1), 2, 5, 6)
    with torch.no_grad():
        expected = act(fc(lstm_(torch.from_numpy(x))[0])).numpy()
    nested = torch.nn.Sequential(lstm_, torch.nn.Sequential(fc, act))
    for module in ([lstm_, fc, act], (lstm_, fc, act), torch.nn.Sequential(lstm_, fc, act), nested,
                   [lstm_, [fc, act]], torch.nn.ModuleList([lstm_, fc, act])):  # fmt: skip
        model = clstm.from_torch(module)
        assert model.batch_first
        y, (h, c) = model(x)
        assert np.abs(y - expected).max() < NEAR and h.shape == c.shape == (1, 2, 8)
    assert [repr(a) for a in clstm.from_torch(lstm_).layers] == ["LSTM(batch_first=True)"]
    assert clstm.from_torch(fc)(x[0, :, :1] * np.ones(8))[0].shape == (5, 3)
    assert clstm.from_torch(torch.nn.LSTMCell(6, 8))(x[:, 0])[0].shape == (2, 8)


def test_from_torch_is_evaluation_and_leaves_the_module_alone():
    module = torch.nn.Sequential(torch.nn.LSTM(6, 8, 2, dropout=0.9), torch.nn.Dropout(0.9)).train()
    model = clstm.from_torch(module)
    assert module.training and module[0].training
    assert same_bits(bits(model), bits(clstm.from_torch(module[0])))
    before = bits(model)
    with torch.no_grad():
        module[0].weight_hh_l0.zero_()
    assert same_bits(bits(model), before)


def test_from_torch_keeps_a_modules_dtype_apart():
    module = torch.nn.LSTM(6, 8)
    expected = bits(clstm.from_torch(module))
    assert same_bits(bits(clstm.from_torch(module.double())), expected)
    half = module.bfloat16()
    wide = {k: v.float() for k, v in half.state_dict().items()}
    assert same_bits(bits(clstm.from_torch(half)), bits(clstm.from_state_dict(wide)))


class Custom(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(6, 8)


@pytest.mark.parametrize("module, error", [
    (Custom(), UnsupportedError),
    (torch.nn.Conv1d(2, 3, 1), UnsupportedError),
    ([torch.nn.LSTM(6, 8), torch.nn.Conv1d(2, 3, 1)], UnsupportedError),
    (torch.nn.LayerNorm((2, 3)), UnsupportedError),
    (torch.nn.BatchNorm1d(3, track_running_stats=False), UnsupportedError),
    (torch.nn.Embedding(3, 2, max_norm=1.0), UnsupportedError),
    ([torch.nn.LSTM(6, 8), torch.nn.Softmax(0)], ValueError),
    (weight_norm(torch.nn.LSTM(6, 8), "weight_hh_l0"), UnsupportedError),
    ([], ValueError),
    ([3], TypeError),
    ("lstm", TypeError),
])  # fmt: skip
def test_from_torch_refuses_what_it_cannot_do(module, error):
    with pytest.raises(error):
        clstm.from_torch(module)


def test_a_module_of_another_kind_needs_an_example():
    with pytest.raises(UnsupportedError, match="give example="):
        clstm.from_torch(Custom())
