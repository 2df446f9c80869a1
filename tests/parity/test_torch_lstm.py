# SPDX-License-Identifier: MIT
"""m(x) of a bare recurrent module against torch.nn.LSTM and LSTMCell: results, shapes, orders.

One tolerance, derived. What torch means is what it computes in float64: the oracle must agree with
that to float64's rounding (`FLOAT64_RUN`), so that every random case proves the oracle's meaning
afresh; and clstm must lie within the bound of `bounds` around the oracle at every step, layer
and direction, teacher-forced. torch's own float32 keeps that bound too
(`test_torch_in_float32_keeps_the_same_bound`), so the two differ by at most twice that a step.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import clstm
import oracle
import samples
from bounds import first_layers, lstm_check, step_bound, worst
from bounds.tolerances import DIFFERENT, FLOAT64_RUN
from clstm import nn

# oneDNN has no projections, and torch says so once in a process
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

sizes = st.integers(1, 130)


@st.composite
def cases(draw, most_layers=4):
    hidden = draw(sizes)
    return Case(
        n_in=draw(sizes),
        hidden=hidden,
        layers=draw(st.integers(1, most_layers)),
        bidirectional=draw(st.booleans()),
        proj=draw(st.integers(1, hidden - 1)) if hidden > 1 and draw(st.booleans()) else 0,
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        batch=draw(st.none() | st.integers(0, 17)),  # None: unbatched
        steps=draw(st.integers(0, 40)),
        with_state=draw(st.booleans()),
        ragged=draw(st.booleans()),
        seed=draw(samples.seeds),
    )


class Case:
    """A random model in three engines, its input and initial state."""

    def __init__(self, n_in, hidden, layers, bidirectional, proj, bias, batch_first, batch, steps,
                 with_state, ragged, seed):  # fmt: skip
        rng = samples.rng_of(seed)
        self.layers, self.steps, self.batched = layers, steps, batch is not None
        self.batch_first = batch_first
        self.tensors = samples.lstm_tensors(
            rng, n_in, hidden, layers=layers, bidirectional=bidirectional, proj=proj, bias=bias
        )
        self.module = torch.nn.LSTM(n_in, hidden, layers, bias=bias, batch_first=batch_first,
                                    bidirectional=bidirectional, proj_size=proj)  # fmt: skip
        self.module.load_state_dict({k: torch.from_numpy(v) for k, v in self.tensors.items()})
        # Time-major and batched here; own() gives the case's axis order.
        n, rows = batch if self.batched else 1, layers * (1 + bidirectional)
        self.x = samples.floats(rng, steps, n, n_in)
        shapes = [(rows, n, size) for size in (proj or hidden, hidden)]
        self.with_state = with_state
        self.state = tuple(samples.floats(rng, *s, scale=float(with_state)) for s in shapes)
        self.lengths = rng.integers(0, steps + 1, n) if ragged and self.batched else None

    def own(self, a):
        if not self.batched:
            return np.ascontiguousarray(a[:, 0])
        return np.ascontiguousarray(a.swapaxes(0, 1)) if self.batch_first else a

    def time_major(self, a):
        if not self.batched:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def own_state(self, layers):
        """What a call is given: the state of the first layers, or None."""
        if not self.with_state:
            return None
        rows = len(self.state[0]) // self.layers * layers
        return tuple(s[:rows] if self.batched else s[:rows, 0] for s in self.state)

    def clstm(self, layers):
        """(y, (h, c)) of the first layers, by clstm."""
        tensors = first_layers(self.tensors, "", layers)
        model = clstm.from_state_dict(tensors, layers=[nn.LSTM(batch_first=self.batch_first)])
        return model(self.own(self.x), self.own_state(layers), lengths=self.lengths)

    def torch(self, dtype):
        """The same of all layers by torch, ragged sequences packed."""
        module = self.module.to(dtype)
        x, state = torch.from_numpy(self.own(self.x)).to(dtype), self.own_state(self.layers)
        if state is not None:
            state = tuple(torch.tensor(s).to(dtype) for s in state)
        with torch.no_grad():
            if self.lengths is None:
                y, final = module(x, state)
            else:
                lengths = torch.from_numpy(self.lengths)
                packed = pack_padded_sequence(x, lengths, self.batch_first, enforce_sorted=False)
                y, final = module(packed, state)
                y, _ = pad_packed_sequence(y, self.batch_first, total_length=self.steps)
        return y.numpy(), tuple(s.numpy() for s in final)

    def torch_can(self):
        """torch refuses empty sequences, which clstm allows."""
        return self.steps > 0 and (self.lengths is None or self.lengths.min(initial=0) > 0)

    def oracle(self):
        state = self.own_state(self.layers)
        layers = [nn.LSTM(batch_first=self.batch_first)]
        return oracle.forward(layers, self.tensors, self.own(self.x), state, self.lengths)

    def ratio(self, y, final, lower):
        """The worst error over its bound; lower: y of the layers below the last."""
        if not self.batched:
            final = tuple(s[:, None] for s in final)
        outputs = [self.time_major(a) for a in (*lower, y)]
        return lstm_check(self.tensors, "", self.x, outputs, self.state, final, "provable",
                          self.lengths)  # fmt: skip


def leaves(result):
    y, (h, c) = result
    return y, h, c


def check(case):
    result = case.clstm(case.layers)
    expected = case.oracle()
    for ours, exact in zip(leaves(result), leaves(expected), strict=True):
        assert type(ours) is np.ndarray and ours.dtype == np.float32
        assert ours.flags.c_contiguous and ours.flags.writeable
        assert ours.shape == exact.shape
    lower = [case.clstm(k)[0] for k in range(1, case.layers)]
    assert case.ratio(*result, lower) <= 1
    if case.torch_can():
        for theirs, exact in zip(leaves(case.torch(torch.float64)), leaves(expected), strict=True):
            assert theirs.shape == exact.shape
            assert np.abs(theirs - exact).max(initial=0) <= FLOAT64_RUN * (
                1 + np.abs(exact).max(initial=0)
            )


@given(cases())
@samples.examples(300)
def test_every_shape_and_axis_order_is_torchs(case):
    check(case)


@pytest.mark.long
@given(cases())
@samples.examples(3000)
def test_every_shape_and_axis_order_is_torchs_at_length(case):
    check(case)


@given(cases(most_layers=1))
@samples.examples(60)
def test_torch_in_float32_keeps_the_same_bound(case):
    if case.torch_can():
        assert case.ratio(*case.torch(torch.float32), []) <= 1


@given(sizes, sizes, st.booleans(), st.none() | st.integers(0, 17), st.booleans(), samples.seeds)
@samples.examples(150)
def test_a_cell_is_one_step_as_torchs(n_in, hidden, bias, batch, with_state, seed):
    rng = samples.rng_of(seed)
    cell = torch.nn.LSTMCell(n_in, hidden, bias)
    tensors = samples.lstm_tensors(rng, n_in, hidden, bias=bias, cell=True)
    cell.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
    rows = () if batch is None else (batch,)
    x = samples.floats(rng, *rows, n_in)
    state = tuple(samples.floats(rng, *rows, hidden, scale=float(with_state)) for _ in "hc")
    ours = clstm.from_torch(cell)(x, state if with_state else None)
    with torch.no_grad():
        theirs = cell.double()(torch.from_numpy(x).double(),
                               tuple(torch.from_numpy(s).double() for s in state))  # fmt: skip
    ((w,),) = oracle.directions(tensors)
    step = step_bound(w, x, *state)
    assert worst(ours[0], step.h, step.h_bound) <= 1 and worst(ours[1], step.c, step.c_bound) <= 1
    for mine, torchs, exact in zip(ours, theirs, (step.h, step.c), strict=True):
        assert type(mine) is np.ndarray and mine.dtype == np.float32 and mine.flags.c_contiguous
        assert mine.shape == torchs.shape
        assert np.abs(torchs.numpy() - exact).max(initial=0) <= FLOAT64_RUN


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_length_zero_passes_the_state_through_and_gives_zeros(batch_first, bidirectional):
    rng = samples.rng_of(5)
    tensors = samples.lstm_tensors(rng, 6, 9, layers=2, bidirectional=bidirectional)
    model = clstm.from_state_dict(tensors, layers=[nn.LSTM(batch_first=batch_first)])
    rows = 2 * (1 + bidirectional)
    state = tuple(samples.floats(rng, rows, 4, 9) for _ in "hc")
    x = np.full((7, 4, 6), np.nan, np.float32)  # what stands past a length is never read
    x[:3, 1] = samples.floats(rng, 3, 6)
    x[:, 3] = samples.floats(rng, 7, 6)
    y, final = model(x.swapaxes(0, 1) if batch_first else x, state, lengths=[0, 3, 0, 7])
    y = y.swapaxes(0, 1) if batch_first else y
    for start, end in zip(state, final, strict=True):
        assert samples.same_bits(end[:, [0, 2]], start[:, [0, 2]])
    assert samples.same_bits(y[:, [0, 2]], np.zeros_like(y[:, [0, 2]]))
    assert samples.same_bits(y[3:, 1], np.zeros_like(y[3:, 1]))
    alone = np.ascontiguousarray(x[:3, 1])  # row 1 as a call of its own
    y_alone, final_alone = model(alone, tuple(s[:, 1] for s in state))
    assert samples.same_bits(y_alone, y[:3, 1])
    assert samples.same_bits(final_alone, tuple(s[:, 1] for s in final))


@pytest.mark.parametrize("shape", [(0, 3, 6), (0, 0, 6), (4, 0, 6), (0, 6)])
@pytest.mark.parametrize("with_state", [False, True])
def test_no_steps_leave_the_state_and_no_batch_is_as_torch(shape, with_state):
    tensors = samples.lstm_tensors(samples.rng_of(6), 6, 5, layers=2)
    rows = (2, *shape[1:-1], 5)
    state = tuple(samples.floats(samples.rng_of(7), *rows, scale=float(with_state)) for _ in "hc")
    y, final = clstm.from_state_dict(tensors)(np.zeros(shape), state if with_state else None)
    assert y.shape == (*shape[:-1], 5) and y.dtype == np.float32
    assert samples.same_bits(final, state)
    if shape[0]:  # torch's own shapes
        module = torch.nn.LSTM(6, 5, 2)
        with torch.no_grad():
            theirs = leaves(module(torch.zeros(shape)))
        assert [tuple(a.shape) for a in theirs] == [a.shape for a in leaves((y, final))]


def test_the_tolerance_sees_a_wrong_output():
    case = Case(20, 30, 1, False, 0, True, False, 2, 10, True, False, 8)
    y, final = case.clstm(1)
    assert case.ratio(y, final, []) <= 1
    y[4, 1, 7] += DIFFERENT
    assert case.ratio(y, final, []) > 1
