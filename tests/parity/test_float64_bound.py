# SPDX-License-Identifier: MIT
"""promise 2: one step, teacher-forced, lies within the bound of `bounds` around float64;
and in the mean clstm errs far less than torch's own nn.LSTM does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from bounds import first_layers, lstm_check, stream_check
from bounds.tolerances import MEAN_RATIO
from clstm import nn


def walk(model, x, start=None):
    """The states of a stream before the first step and after each."""
    s = model.stream(state=start)
    states = [s.state]
    for frame in x:
        s.step(frame)
        states.append(s.state)
    return states


@st.composite
def any_model(draw, wild):
    """Weights of torch's size, or (wild) of sizes that saturate, cancel or vanish."""
    rng = samples.rng_of(draw(samples.seeds))
    hidden = draw(st.integers(1, 130))
    options = {
        "layers": draw(st.integers(1, 3)),
        "proj": draw(st.integers(1, hidden - 1)) if hidden > 1 and draw(st.booleans()) else 0,
        "bias": draw(st.booleans()),
        "scale": draw(st.sampled_from([1e-30, 1e-3, 1.0, 30.0])) if wild else None,
    }
    tensors = samples.lstm_tensors(rng, draw(st.integers(1, 260)), hidden, **options)
    return rng, tensors, draw(st.sampled_from([1e-30, 1e-3, 1.0, 100.0, 1e6])) if wild else 1.0


def inputs(rng, tensors, steps, scale, *batch):
    return samples.floats(rng, steps, *batch, tensors["weight_ih_l0"].shape[1], scale=scale)


def cancelling(rng, x):
    """Sums of large terms that all but vanish: the second half repeats the first, negated."""
    half = x.shape[-1] // 2
    x[..., half : 2 * half] = -x[..., :half]
    return x


def check_stream(rng, tensors, x, kind):
    model = clstm.from_state_dict(tensors)
    rows, out = len(oracle.directions(tensors)), tensors["weight_hh_l0"].shape[1]
    hidden = len(tensors["weight_hh_l0"]) // 4
    start = samples.floats(rng, rows, out), samples.floats(rng, rows, hidden)
    assert stream_check(tensors, "", x, walk(model, x, start), kind) <= 1


@given(any_model(wild=False))
@samples.examples(60)
def test_a_stream_keeps_the_random_bound_at_every_step(model):
    rng, tensors, scale = model
    check_stream(rng, tensors, inputs(rng, tensors, 8, scale), "random")


@given(any_model(wild=True), st.booleans())
@samples.examples(120)
def test_a_stream_keeps_the_provable_bound_whatever_the_input(model, cancel):
    rng, tensors, scale = model
    x = inputs(rng, tensors, 8, scale)
    check_stream(rng, tensors, cancelling(rng, x) if cancel else x, "provable")


@pytest.mark.parametrize("kernel", clstm.available_kernels())
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 63, 64, 65, 128, 200])
def test_every_kernel_set_keeps_the_random_bound(kernel, hidden):
    rng = samples.rng_of(hidden)
    tensors = samples.lstm_tensors(rng, 70, hidden, layers=2)
    x = inputs(rng, tensors, 20, 1.0)
    model = clstm.from_state_dict(tensors, kernel=kernel)
    assert stream_check(tensors, "", x, walk(model, x), "random") <= 1


def check_sequence(rng, tensors, x, kind, bidirectional, lengths, **options):
    layers = len(oracle.directions(tensors))
    calls = []
    for k in range(1, layers + 1):
        model = clstm.from_state_dict(first_layers(tensors, "", k), **options)
        calls.append(model(x, lengths=lengths))
    (_, final), outputs = calls[-1], [y for y, _ in calls]
    start = tuple(np.zeros_like(s) for s in final)
    assert lstm_check(tensors, "", x, outputs, start, final, kind, lengths) <= 1


@given(any_model(wild=True), st.integers(1, 40), st.integers(1, 17), st.booleans())
@samples.examples(60)
def test_a_sequence_keeps_the_provable_bound_at_every_step(model, steps, batch, ragged):
    rng, tensors, scale = model
    lengths = rng.integers(0, steps + 1, batch) if ragged else None
    check_sequence(rng, tensors, inputs(rng, tensors, steps, scale, batch), "provable", False,
                   lengths)  # fmt: skip


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("steps, batch", [(1, 1), (1, 64), (64, 1), (40, 17), (600, 2)])
def test_a_sequence_keeps_the_random_bound_at_every_step(steps, batch, bidirectional):
    rng = samples.rng_of(steps + batch)
    tensors = samples.lstm_tensors(rng, 33, 48, layers=2, bidirectional=bidirectional)
    check_sequence(rng, tensors, inputs(rng, tensors, steps, 1.0, batch), "random", bidirectional,
                   None)  # fmt: skip


# ---- against torch's own error -----------------------------------------------------------------


def errors(hidden, seed):
    """(clstm's, torch's) max |dh| over the units and steps of one model.

    I = H, torch's default weights, x ~ N(0, 1). A stream of clstm's is warmed up by 2 steps; then
    at each of 2 steps both engines and float64 start from its state and take the same input.
    """
    torch.manual_seed(seed)
    module = torch.nn.LSTM(hidden, hidden)
    tensors = {k: v.detach().numpy() for k, v in module.state_dict().items()}
    ((w,),) = oracle.directions(tensors)
    w = type(w)(*(None if a is None else a.astype(np.float64) for a in w))
    stream = clstm.from_state_dict(tensors, layers=[nn.LSTM()]).stream()
    x = samples.floats(samples.rng_of(seed), 4, hidden)
    stream.run(x[:2])
    worst = np.zeros(2)
    for frame in x[2:]:
        h, c = stream.state
        exact, _ = oracle.lstm_step(w, frame, h[0], c[0])
        with torch.no_grad():
            theirs, _ = module(torch.from_numpy(frame[None]),
                               (torch.from_numpy(h), torch.from_numpy(c)))  # fmt: skip
        both = stream.step(frame), theirs.numpy()[0]
        worst = np.maximum(worst, [np.abs(y - exact).max() for y in both])
    return worst


def mean_ratio(hidden, models):
    ours, theirs = np.mean([errors(hidden, seed) for seed in range(models)], axis=0)
    print(f"H={hidden}: mean max|dh| {ours:.3g}, torch's {theirs:.3g}, ratio {ours / theirs:.3f}")
    return ours / theirs


@pytest.mark.parametrize("hidden, limit", MEAN_RATIO.items())
def test_in_the_mean_it_errs_less_than_torch(hidden, limit):
    assert mean_ratio(hidden, 50) <= limit
