# SPDX-License-Identifier: MIT
"""A traced model is run beside its module at sizes that no export saw: what differs is refused."""

import numpy as np
import pytest

import clstm
from clstm import UnsupportedError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export


class Base(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.l = torch.nn.LSTM(3, 4, batch_first=True)
        self.k = torch.nn.LSTM(4, 4, batch_first=True)
        self.g = torch.nn.GRU(3, 4, batch_first=True)
        self.body = forward

    def forward(self, *given):
        return self.body(self, *given)


def zero_if(condition):
    def forward(s, x):
        y = s.l(x)[0]
        return y * 0 if condition(x.shape) else y

    return forward


X = torch.zeros(2, 6, 3)
STATE = torch.zeros(1, 2, 4)
REFUSED = {
    "a branch on a length of 1": (zero_if(lambda n: n[1] == 1), X),
    "on a length that the example passes": (zero_if(lambda n: n[1] > 3), X),
    "on a long one": (zero_if(lambda n: n[1] > 100), X),
    "on the batch": (zero_if(lambda n: n[0] > 1), X),
    "on equal sizes": (zero_if(lambda n: n[0] == n[1]), X),
    "a constant made of the length": (lambda s, x: s.l(x)[0] * min(x.shape[1], 4), X),
    "a slice beyond both lengths": (lambda s, x: s.l(x[:, :20])[0], X),
    "rows that are no time": (lambda s, x: s.l(x.unsqueeze(1))[0].squeeze(1), torch.zeros(5, 3)),
    "h alone": (lambda s, x: s.l(x)[1][0], X),
    "c alone": (lambda s, x: s.l(x)[1][1], X),
    "states in another order": (lambda s, x: (lambda y, hc: (y, hc[::-1]))(*s.l(x)), X),
    "layers in another order": (
        lambda s, x: (lambda y, a: (lambda z, b: (z, b, a))(*s.k(y)))(*s.l(x)), X),
    "states taken in another order": (lambda s, x, c, h: s.l(x, (h, c))[0], (X, STATE, STATE)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_another_computation_at_other_sizes_is_refused(name):
    forward, example = REFUSED[name]
    module = Base(forward).eval()
    with pytest.raises(UnsupportedError, match="from_torch: with an input of sizes"):
        clstm.from_torch(module, example)


def short(s, x):
    assert x.shape[1] < 20
    return s.l(x)[0]


TAKEN = {
    "outputs": (lambda s, x: s.l(x)[0], X),
    "outputs and states": (lambda s, x: s.l(x), X),
    "states alone": (lambda s, x: s.l(x)[1], X),
    "the one state of a GRU": (lambda s, x: s.g(x)[1], X),
    "one of two states": (lambda s, x: (lambda y, hc: (y, hc[0]))(*s.l(x)), X),
    "states of the second layer": (
        lambda s, x: (lambda y, a: (lambda z, b: (z, b))(*s.k(y)))(*s.l(x)), X),
    "states of two layers": (
        lambda s, x: (lambda y, a: (lambda z, b: (z, a, b))(*s.k(y)))(*s.l(x)), X),
    "the last step": (lambda s, x: s.l(x)[0][:, -1], X),
    "states taken": (lambda s, x, h, c: s.l(x, (h, c))[0], (X, STATE, STATE)),
    "numbers of NumPy": (lambda s, x: s.l(x)[0], np.zeros((2, 6, 3))),
    "lengths that the module refuses": (short, X),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_the_same_computation_is_taken(name):
    forward, example = TAKEN[name]
    module = Base(forward).eval()
    random = torch.random.get_rng_state()
    model = clstm.from_torch(module, example)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert model.input_size == 3


def test_an_example_without_elements_is_a_value_error():
    with pytest.raises(ValueError, match="without elements"):
        clstm.from_torch(Base(lambda s, x: s.l(x)[0]), torch.zeros(0, 6, 3))
