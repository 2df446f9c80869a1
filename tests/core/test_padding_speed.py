# SPDX-License-Identifier: MIT
"""Padding is never multiplied, shown by time: 16 sequences of which 15 have length 1 cost less
than a third of 16 full ones. (The long one alone is a sixteenth of the products, but has no
neighbour to share the loads of weights with.) Least times, both sides interleaved."""

import numpy as np
import pytest
from test_speed import quickest

import clstm
import samples
from clstm import nn

pytestmark = pytest.mark.timing

H, T, B, TRIES = 128, 64, 16, 6


@pytest.mark.parametrize("layer, bidirectional", [
    (nn.LSTM(), False), (nn.LSTM(), True), (nn.GRU(), False), (nn.GRU(), True), (nn.RNN(), True),
    (nn.GRU(linear_before_reset=False), False), (nn.LSTM(peephole="full"), False),
], ids=repr)  # fmt: skip
def test_padding_is_never_multiplied(layer, bidirectional):
    tensors = samples.recurrent_tensors(samples.rng_of(0), layer, H, H, bidirectional=bidirectional)
    model = clstm.from_state_dict(tensors, layers=[layer])
    x = samples.floats(samples.rng_of(1), T, B, H)
    lengths = np.ones(B, np.int64)
    lengths[5] = T
    ratios = []
    for _ in range(TRIES):
        ragged, full = quickest(lambda: model(x, lengths=lengths), lambda: model(x), rounds=30)
        ratios.append(ragged / full)
        print(f"{layer}: {ragged * 1e6:.0f} us / {full * 1e6:.0f} us = {ratios[-1]:.3f}")
        if ratios[-1] < 1 / 3:
            return
    pytest.fail(f"{layer}: {ratios}, expected less than a third")
