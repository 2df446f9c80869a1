# SPDX-License-Identifier: MIT
"""Promise 3 for every cell and option: the same bits for steps, runs, whole sequences, batches
and ragged rows one by one, with every kernel set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from samples import same_bits

wide = st.sampled_from([1, 2, 5, 15, 16, 17, 31, 33, 64, 65])


def row(state, b):
    return tuple(np.ascontiguousarray(s[:, b]) for s in state)


def check(one, seed, steps, batch):
    rng = samples.rng_of(seed)
    x, state = samples.floats(rng, steps, batch, one.n_in), one.state(rng, batch)
    kernels = clstm.available_kernels()
    models = [one.model(kernel=kernel) for kernel in kernels]
    y, final = models[0](x, one.given(state))
    final = oracle.as_tuple(one.layer, final)
    for model in models[1:]:
        again, other = model(x, one.given(state))
        assert same_bits(again, y)
        assert same_bits(oracle.as_tuple(one.layer, other), final)

    # rows one by one, at another alignment
    model = models[seed % len(models)]
    for b in range(batch):
        start = tuple(s[:, b : b + 1] for s in state)
        alone, end = model(x[:, b : b + 1], one.given(start))
        assert same_bits(alone[:, 0], y[:, b])
        assert same_bits(row(oracle.as_tuple(one.layer, end), 0), row(final, b))

    # ragged rows in any order against the same rows one by one
    lengths = rng.integers(0, steps + 1, batch)
    ragged, ends = model(x, one.given(state), lengths=lengths)
    ends = oracle.as_tuple(one.layer, ends)
    for b, n in enumerate(lengths):
        start = tuple(s[:, b : b + 1] for s in state)
        alone, end = models[0](x[:n, b : b + 1], one.given(start))
        assert same_bits(alone[:, 0], ragged[:n, b]) and not ragged[n:, b].any()
        assert same_bits(row(oracle.as_tuple(one.layer, end), 0), row(ends, b))

    if one.streams:
        streamed(one, rng, models[-1], x, state, y, final)


def streamed(one, rng, model, x, state, y, final):
    """Steps, runs and chunks of one row of it, with the sequences' bits."""
    steps, batch = x.shape[:2]
    if batch == 0:
        return
    b = int(rng.integers(batch))
    own = np.ascontiguousarray(x[:, b])
    start = row(state, b)
    s = model.stream(state=start if one.kind == "LSTM" else start[0])
    begin = s.snapshot()
    stepped = [s.step(frame) for frame in own]
    assert same_bits(np.array(stepped, np.float32).reshape(y[:, b].shape), y[:, b])
    assert same_bits(oracle.as_tuple(one.layer, s.state), row(final, b))
    s = model.stream(snapshot=begin)
    assert same_bits(s.run(own), y[:, b])
    cut = int(rng.integers(steps + 1))
    s = model.stream(snapshot=begin)
    assert same_bits(np.concatenate([s.run(own[:cut]), s.run(own[cut:])]), y[:, b])
    assert same_bits(oracle.as_tuple(one.layer, s.state), row(final, b))
    # chunks of the batch
    first, middle = model(x[:cut], one.given(state))
    second, end = model(x[cut:], middle)
    assert same_bits(np.concatenate([first, second]), y)
    assert same_bits(oracle.as_tuple(one.layer, end), final)


cases = dict(
    one=samples.recurrent_models(sizes=wide),
    seed=samples.seeds,
    steps=st.integers(0, 6),
    batch=st.sampled_from([1, 2, 3, 8, 17]),
)


@given(**cases)
@samples.examples(200)
def test_every_way_to_run_gives_the_same_bits(one, seed, steps, batch):
    check(one, seed, steps, batch)


@pytest.mark.long
@given(**cases)
@samples.examples(3000)
def test_every_way_to_run_gives_the_same_bits_at_length(one, seed, steps, batch):
    check(one, seed, steps, batch)


@given(samples.recurrent_models(sizes=wide, cell=True), samples.seeds, st.integers(1, 9))
@samples.examples(60)
def test_a_cell_is_a_layer_of_one_step(one, seed, batch):
    """Alone one step, in a stream and in a list of layers the same over time."""
    rng = samples.rng_of(seed)
    x, state = samples.floats(rng, batch, one.n_in), one.state(rng, batch)
    model = one.model()
    result = oracle.as_tuple(one.layer, model(x, one.given(state)))
    for b in range(batch):
        start = tuple(np.ascontiguousarray(s[0, b]) for s in state)
        s = model.stream(state=start if one.kind == "LSTM" else start[0])
        assert same_bits(s.step(np.ascontiguousarray(x[b])), result[0][b])
        assert same_bits(oracle.as_tuple(one.layer, s.state), tuple(part[b] for part in result))
