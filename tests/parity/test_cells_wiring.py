# SPDX-License-Identifier: MIT
"""Add, Mul, Concat, Slice, First, Identity(input) and Output are the oracle's, to the bit.

Inputs and weights are small integers, of which float32 is exact, so nothing is to be tolerated; a
recurrent layer in between is checked by `test_cells_bound.py`, and here only its place.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from clstm import nn

WIDTH = 4


@st.composite
def programs(draw):
    """(layers, tensors) of random wiring; values stay below 2^24."""
    rng = samples.rng_of(draw(samples.seeds))
    # a Linear first, for it tells the width of the input
    layers = [nn.Linear("fc")]
    tensors = {"fc.weight": rng.integers(-2, 3, (WIDTH, WIDTH)).astype(np.float32)}
    # of each value: its features, and the largest it can be
    widths, sizes = [WIDTH, WIDTH], [3, 24]

    def put(layer, width, size):
        layers.append(layer)
        widths.append(width)
        sizes.append(size)

    for _ in range(draw(st.integers(1, 8))):
        kind = draw(
            st.sampled_from(["Add", "Mul", "Concat", "Slice", "First", "Identity", "Linear"])
        )
        last = widths[-1]
        same = [k for k, width in enumerate(widths) if width == last]
        any_value = st.integers(0, len(widths) - 1)
        if kind in ("Add", "Mul"):
            chosen = draw(st.lists(st.sampled_from(same), min_size=2, max_size=4))
            numbers = [sizes[k] for k in chosen]
            size = sum(numbers) if kind == "Add" else int(np.prod(numbers, dtype=object))
            if size < 2**20:
                put(getattr(nn, kind)(inputs=tuple(chosen)), last, size)
        elif kind == "Concat":
            chosen = draw(st.lists(any_value, min_size=2, max_size=4))
            width = sum(widths[k] for k in chosen)
            if width < 50:
                put(nn.Concat(inputs=tuple(chosen)), width, max(sizes[k] for k in chosen))
        elif kind == "Slice":
            start = draw(st.integers(0, last - 1))
            stop = draw(st.integers(start + 1, last))
            put(nn.Slice(start=start, stop=stop), stop - start, sizes[-1])
        elif kind == "First":
            put(nn.First(), last, sizes[-1])
        elif kind == "Identity":
            k = draw(any_value)
            put(nn.Identity(input=k), widths[k], sizes[k])
        elif sizes[-1] * last * 2 < 2**20:
            width, name = draw(st.sampled_from([1, WIDTH, 7])), f"fc{len(layers)}"
            tensors[f"{name}.weight"] = rng.integers(-2, 3, (width, last)).astype(np.float32)
            put(nn.Linear(name), width, sizes[-1] * last * 2)
    if draw(st.booleans()):
        chosen = draw(st.lists(st.integers(0, len(widths) - 1), min_size=1, max_size=4))
        last = draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
        layers.append(nn.Output(inputs=tuple(chosen), last=tuple(last)))
    return layers, tensors


def each(value):
    return value if isinstance(value, tuple) else (value,)


@given(programs(), samples.seeds, st.integers(1, 5), st.integers(1, 4), st.booleans())
@samples.examples(150)
def test_random_wiring_is_exact(program, seed, steps, batch, ragged):
    layers, tensors = program
    rng = samples.rng_of(seed)
    x = rng.integers(-3, 4, (steps, batch, WIDTH)).astype(np.float32)
    lengths = rng.integers(0, steps + 1, batch) if ragged else None
    model = clstm.from_state_dict(tensors, layers=layers)
    for given_x, given_lengths in ((x, lengths), (x[:, 0], None)):
        y, state = model(given_x, lengths=given_lengths)
        exact, _ = oracle.forward(layers, tensors, given_x, lengths=given_lengths)
        assert state is None and isinstance(y, tuple) == isinstance(exact, tuple)
        for mine, true in zip(each(y), each(exact), strict=True):
            assert mine.dtype == np.float32 and mine.shape == true.shape
            np.testing.assert_array_equal(mine, true)
    # a stream returns every step of all of them, and cannot look back
    assert model.streamable == (nn.First() not in layers)
    if not model.streamable:
        with pytest.raises(clstm.UnsupportedError, match="whole sequence"):
            model.stream()
        return
    s = model.stream()
    whole = [layer for layer in layers if not isinstance(layer, nn.Output)]
    if len(whole) < len(layers):
        whole.append(nn.Output(inputs=layers[-1].inputs))
    exact, _ = oracle.forward(whole, tensors, x[:, 0])
    for t in range(steps):
        y = s.step(np.ascontiguousarray(x[t, 0]))
        for mine, true in zip(each(y), each(exact), strict=True):
            np.testing.assert_array_equal(mine, true[t])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_two_recurrent_layers_with_a_residual(kind, batch_first):
    """Each layer's input is what the wiring says: the parts alone give the same bits."""
    rng = samples.rng_of(2)
    make = getattr(nn, kind)
    first = samples.recurrent_tensors(rng, make("a"), WIDTH, WIDTH)
    second = samples.recurrent_tensors(rng, make("b"), 2 * WIDTH, 5, bidirectional=True)
    layers = [
        make("a", batch_first=batch_first),  # 1
        nn.Add(inputs=(0, 1)),  # 2
        nn.Concat(inputs=(2, 0)),  # 3
        make("b", batch_first=batch_first),  # 4
        nn.Output(inputs=(4, 2, 4), last=(False, False, True)),
    ]
    model = clstm.from_state_dict(first | second, layers=layers)
    x = samples.floats(rng, 6, 3, WIDTH)
    lengths = np.array([4, 0, 6])

    def own(a):
        return np.ascontiguousarray(a.swapaxes(0, 1)) if batch_first else a

    (y, total, last), states = model(own(x), lengths=lengths)
    lower = clstm.from_state_dict(first, layers=[make("a")])
    upper = clstm.from_state_dict(second, layers=[make("b")])
    y_a, state_a = lower(x, lengths=lengths)
    valid = np.arange(6)[:, None, None] < lengths[None, :, None]
    total_alone = np.where(valid, x + y_a, np.float32(0))
    y_b, state_b = upper(
        np.where(valid, np.concatenate([total_alone, x], -1), np.float32(0)), lengths=lengths
    )
    assert samples.same_bits(y, own(y_b)) and samples.same_bits(states, [state_a, state_b])
    np.testing.assert_array_equal(total, own(total_alone))
    assert last.shape == (3, 10)
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(last[b], y_b[n - 1, b] if n else np.zeros(10))
    # and the state goes on from there
    again, _ = model(own(x), states, lengths=lengths)
    expected, _ = lower(x, state_a, lengths=lengths)
    total_again = np.where(valid, x + expected, np.float32(0))
    np.testing.assert_array_equal(again[1], own(total_again))
