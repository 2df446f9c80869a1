# SPDX-License-Identifier: MIT
"""GRUs, RNNs and cells made from torch's own modules: torch's results, shapes and orders, packed
sequences too.

torch in float64 must agree with the oracle to float64's rounding, and clstm must lie within the
bound around the oracle at every step, layer and direction.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import clstm
import oracle
import samples
from bounds import first_layers, recurrent_check
from bounds.tolerances import FLOAT64_RUN, NEAR
from clstm import nn
from torch_side import arrays

sizes = st.sampled_from([1, 2, 3, 8, 15, 16, 17, 33, 64, 65])


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(["GRU", "RNN", "RNN relu", "LSTM"]))
    return dict(
        kind=kind,
        n_in=draw(sizes),
        hidden=draw(sizes),
        layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        batch=draw(st.sampled_from([None, 1, 2, 5, 17])),
        steps=draw(st.integers(1, 9)),
        with_state=draw(st.booleans()),
        ragged=draw(st.booleans()),
        seed=draw(samples.seeds),
    )


def module_of(case):
    name, _, nonlinearity = case["kind"].partition(" ")
    torch.manual_seed(case["seed"])
    more = {"nonlinearity": nonlinearity} if nonlinearity else {}
    return getattr(torch.nn, name)(
        case["n_in"], case["hidden"], case["layers"], bias=case["bias"],
        batch_first=case["batch_first"], bidirectional=case["bidirectional"], **more,
    )  # fmt: skip


def leaves(kind, result):
    y, final = result
    return (y, *(final if kind == "LSTM" else (final,)))


def check(case):
    module, rng = module_of(case), samples.rng_of(case["seed"])
    kind, steps, batch = case["kind"].partition(" ")[0], case["steps"], case["batch"]
    n = 1 if batch is None else batch
    rows = case["layers"] * (1 + case["bidirectional"])
    x = samples.floats(rng, steps, n, case["n_in"])
    parts = 2 if kind == "LSTM" else 1
    state = tuple(
        samples.floats(rng, rows, n, case["hidden"], scale=float(case["with_state"]))
        for _ in range(parts)
    )
    lengths = rng.integers(1, steps + 1, n) if case["ragged"] and batch is not None else None

    def own(a):  # of x and y; states have no batch_first
        if batch is None:
            return np.ascontiguousarray(a[:, 0])
        return np.ascontiguousarray(a.swapaxes(0, 1)) if case["batch_first"] else a

    def bare(tensors, count=rows):
        if not case["with_state"]:
            return None
        given = tuple(s[:count, 0] if batch is None else s[:count] for s in tensors)
        return given if kind == "LSTM" else given[0]

    result = leaves(kind, clstm.from_torch(module)(own(x), bare(state), lengths=lengths))

    wide = module.double()
    t_x, t_state = torch.from_numpy(own(x)).double(), None
    if case["with_state"]:
        t_state = bare([torch.from_numpy(s).double() for s in state])
    with torch.no_grad():
        if lengths is None:
            theirs = leaves(kind, wide(t_x, t_state))
        else:
            packed = pack_padded_sequence(
                t_x, torch.from_numpy(lengths), case["batch_first"], enforce_sorted=False
            )
            y, final = wide(packed, t_state)
            y, _ = pad_packed_sequence(y, case["batch_first"], total_length=steps)
            theirs = leaves(kind, (y, final))
    module.float()

    tensors = arrays(module)
    options = {"nonlinearity": "relu"} if "relu" in case["kind"] else {}
    layer = getattr(nn, kind)(batch_first=case["batch_first"], **options)
    exact = leaves(kind, oracle.forward([layer], tensors, own(x), bare(state), lengths))
    for mine, torchs, true in zip(result, theirs, exact, strict=True):
        assert type(mine) is np.ndarray and mine.dtype == np.float32
        assert mine.flags.c_contiguous and mine.shape == torchs.shape == true.shape
        assert np.abs(torchs.numpy() - true).max(initial=0) <= FLOAT64_RUN

    def time_major(a):
        if batch is None:
            return a[:, None]
        return a.swapaxes(0, 1) if case["batch_first"] else a

    outputs = []
    for k in range(1, case["layers"]):
        model = clstm.from_state_dict(first_layers(tensors, "", k), layers=[layer])
        count = k * (1 + case["bidirectional"])
        outputs.append(time_major(model(own(x), bare(state, count), lengths=lengths)[0]))
    final = tuple(s[:, None] if batch is None else s for s in result[1:])
    outputs.append(time_major(result[0]))
    ratio = recurrent_check(layer, tensors, "", x, outputs, state, final, "provable", lengths)
    assert ratio <= 1


@given(cases())
@samples.examples(150)
def test_every_shape_and_axis_order_is_torchs(case):
    check(case)


@pytest.mark.long
@given(cases())
@samples.examples(2000)
def test_every_shape_and_axis_order_is_torchs_at_length(case):
    check(case)


@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell", "LSTMCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_are_torchs(kind, bias):
    rng = samples.rng_of(3)
    cell = getattr(torch.nn, kind)(9, 17, bias)
    model = clstm.from_torch(cell)
    for rows in ((), (0,), (5,)):
        x = samples.floats(rng, *rows, 9)
        state = tuple(samples.floats(rng, *rows, 17) for _ in range(1 + (kind == "LSTMCell")))
        given = state if len(state) > 1 else state[0]
        with torch.no_grad():
            tensors = tuple(torch.from_numpy(s) for s in state)
            theirs = cell(torch.from_numpy(x), tensors if len(state) > 1 else tensors[0])
        ours = model(x, given)
        for a, b in zip(*((v if len(state) > 1 else (v,)) for v in (ours, theirs)), strict=True):
            assert a.shape == b.shape and np.abs(a - b.numpy()).max(initial=0) < NEAR
    with pytest.raises(clstm.ShapeError):
        model(samples.floats(rng, 2, 3, 9))


@given(
    st.sampled_from(["GRU", "RNN", "LSTM"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 6), min_size=1, max_size=9),
    samples.seeds,
)
@samples.examples(60)
def test_packed_sequences_in_and_out(kind, bidirectional, batch_first, is_sorted, lengths, seed):
    """m(packed) is m of the padded batch, packed again in the order that it came in."""
    lengths = sorted(lengths, reverse=True) if is_sorted else lengths
    torch.manual_seed(seed)
    module = getattr(torch.nn, kind)(5, 7, 2, bidirectional=bidirectional, batch_first=batch_first)
    rng, batch, steps = samples.rng_of(seed), len(lengths), max(lengths)
    shape = (batch, steps) if batch_first else (steps, batch)
    x = samples.floats(rng, *shape, 5)
    packed = pack_padded_sequence(
        torch.from_numpy(x), torch.tensor(lengths), batch_first, enforce_sorted=is_sorted
    )
    model = clstm.from_torch(module)
    y, final = model(packed)
    padded, expected = model(x, lengths=lengths)
    with torch.no_grad():
        theirs, their_final = module(packed)
    assert isinstance(y, PackedSequence)
    assert torch.equal(y.batch_sizes, theirs.batch_sizes)
    for one, two in zip(y[2:], theirs[2:], strict=True):
        assert (one is None) == (two is None) and (one is None or torch.equal(one, two))
    back, _ = pad_packed_sequence(y, batch_first)
    assert samples.same_bits(back.numpy(), padded)
    assert np.abs(y.data.numpy() - theirs.data.numpy()).max() < NEAR
    pairs = [(final, expected, their_final)]
    if kind == "LSTM":
        pairs = list(zip(final, expected, their_final, strict=True))
    for mine, plain, torchs in pairs:
        assert samples.same_bits(np.asarray(mine), plain)
        assert np.abs(np.asarray(mine) - torchs.numpy()).max() < NEAR
