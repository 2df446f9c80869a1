# SPDX-License-Identifier: MIT
"""A NaN or an infinity stays with its own sequence: in a batch, beside other streams, with threads,
in every kind of cell. test_stream.py has it for one stream and its reset."""

import itertools

import numpy as np
import pytest

import clstm
import samples
from clstm import nn
from samples import same_bits

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
POISONS = [np.nan, np.inf, -np.inf, np.float32(3e38)]
BATCH, STEPS = 9, 7  # more rows than any kernel takes at once, and a rest


def model_of(kind, n, **options):
    rng = samples.rng_of(3)
    shapes = {"l.weight_ih_l0": (GATES[kind] * n, n), "l.weight_hh_l0": (GATES[kind] * n, n)}
    tensors = {name: rng.uniform(-0.1, 0.1, s).astype(np.float32) for name, s in shapes.items()}
    tensors |= samples.linear_tensors(rng, n, 5, "fc")
    layers = [getattr(nn, kind)("l"), nn.LayerNorm("ln"), nn.Linear("fc"), nn.Softmax()]
    tensors |= {"ln.weight": samples.floats(rng, n), "ln.bias": samples.floats(rng, n)}
    return clstm.from_state_dict(tensors, layers=layers, **options)


def rows(state, row):
    """Of a batch's state, that of one row."""
    return [part[:, row] for part in (state if isinstance(state, tuple) else (state,))]


@pytest.mark.parametrize("kernel", clstm.available_kernels())
@pytest.mark.parametrize("kind, n, threads", [*((k, 21, 1) for k in GATES), ("LSTM", 272, 2)])
def test_neighbours_in_a_batch_keep_their_bits(monkeypatch, kernel, kind, n, threads):
    monkeypatch.setenv("CLSTM_KERNEL", kernel)
    model = model_of(kind, n, threads=threads)
    x = samples.floats(samples.rng_of(4), STEPS, BATCH, n)
    lengths = np.array([7, 3, 7, 0, 5, 7, 1, 6, 2])
    expected, state = model(x, lengths=lengths)
    poisoned_rows = range(BATCH) if n < 100 else (0, 4)
    for row, poison in itertools.product(poisoned_rows, POISONS):
        spoiled = x.copy()
        spoiled[2, row, row % n] = poison
        got, after = model(spoiled, lengths=lengths)
        for other in set(range(BATCH)) - {row}:
            assert same_bits(got[:, other], expected[:, other])
            assert all(map(same_bits, rows(after, other), rows(state, other)))
        assert same_bits(got[:2, row], expected[:2, row])
        assert (got[lengths[row] :, row] == 0).all()
        if np.isnan(poison) and lengths[row] > 2:
            assert np.isnan(got[2 : lengths[row], row]).all()
            assert all(np.isnan(part).all() for part in rows(after, row))
    assert same_bits(model(x, lengths=lengths), (expected, state))  # nor does it stay behind


@pytest.mark.parametrize("kind", GATES)
def test_other_streams_of_the_model_do_not_see_it(kind):
    """Streams taken in turn: one is poisoned, by its input or by its state, and reset later."""
    model = model_of(kind, 21)
    x = samples.floats(samples.rng_of(4), STEPS, 21)
    expected = model.stream().run(x)
    for how, poison in itertools.product(("input", "state"), POISONS[:3]):
        streams = [model.stream() for _ in range(5)]
        for t in range(STEPS):
            for i, s in enumerate(streams):
                frame = x[t].copy()
                if i == 2 and t == 3:
                    if how == "input":
                        frame[5] = poison
                    else:
                        bad = np.full((1, 21), poison, np.float32)
                        s.state = (bad, bad) if kind == "LSTM" else bad
                y = s.step(frame)
                assert same_bits(y, expected[t]) or (i == 2 and t >= 3)
        finite = [s.is_finite() for s in streams]
        assert all(finite[:2] + finite[3:])
        if np.isnan(poison):
            assert not finite[2]
            copy = streams[2].copy()
            assert not copy.is_finite()
            copy.reset()
            assert copy.is_finite() and not streams[2].is_finite()
        streams[2].reset()
        assert streams[2].is_finite() and same_bits(streams[2].run(x), expected)
