# SPDX-License-Identifier: MIT
"""Every cell and option where numbers end: NaN, infinity, states that vanish."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from bounds.tolerances import FLUSH
from clstm import nn
from samples import same_bits

small = st.sampled_from([1, 2, 7, 16, 17, 40])
models = samples.recurrent_models(sizes=small)


@given(models, samples.seeds, st.sampled_from(clstm.available_kernels()))
@samples.examples(100)
def test_a_nan_stays_in_its_row_and_is_not_lost(one, seed, kernel):
    """No clamp, comparison or function makes a number of it: every later h of that row is NaN."""
    rng = samples.rng_of(seed)
    x, state = samples.floats(rng, 4, 5, one.n_in), one.state(rng, 5)
    model = one.model(kernel=kernel)
    clean, end = model(x, one.given(state))
    x[1, 2, rng.integers(one.n_in)] = np.nan
    y, final = model(x, one.given(state))
    others = [0, 1, 3, 4]
    assert same_bits(y[:, others], clean[:, others])
    for mine, before in zip(*(oracle.as_tuple(one.layer, s) for s in (final, end)), strict=True):
        assert same_bits(mine[:, others], before[:, others])
        assert one.num_layers * one.directions > 1 or np.isnan(mine[:, 2]).all()
    forward = y[..., : one.output_size]
    after = slice(0, 2) if getattr(one.layer, "reverse", False) else slice(1, None)
    assert np.isnan(forward[after, 2]).all()
    if one.streams:
        assert same_bits(y[0], clean[0])
        s = model.stream(state=one.given(tuple(a[:, 2] for a in state)))
        assert same_bits(s.run(np.ascontiguousarray(x[:, 2])), y[:, 2])


@given(
    samples.recurrent_models(sizes=small, most_layers=1),
    samples.seeds,
    st.sampled_from([np.inf, -np.inf, 3e38]),
)
@samples.examples(100)
def test_infinity_and_overflow_are_the_oracles(one, seed, huge):
    """By IEEE rules: NaN where the oracle has NaN, infinite where it is, and bits that no kernel
    set disagrees on. (float64 does not overflow at 3e38, so there only the bits are compared.)"""
    rng = samples.rng_of(seed)
    x, state = samples.floats(rng, 1, 3, one.n_in), one.state(rng, 3)
    x[0, 1, rng.integers(one.n_in)] = huge
    results = [one.model(kernel=k)(x, one.given(state)) for k in clstm.available_kernels()]
    for other in results[1:]:
        assert same_bits(results[0], other)
    if np.isfinite(huge):
        return
    y, _ = oracle.forward([one.layer], one.tensors, x, one.given(state))
    np.testing.assert_array_equal(np.isnan(results[0][0]), np.isnan(y))
    np.testing.assert_array_equal(np.isinf(results[0][0]), np.isinf(y))


@given(
    samples.recurrent_models(sizes=small, bidirectional=False),
    samples.seeds,
    st.sampled_from([2.0**-101, 2.0**-99, 2.0**-126, 2.0**-140]),
)
@samples.examples(100)
def test_no_state_is_below_the_flush(one, seed, tiny):
    """|h|, |c| < 2^-100 become 0, whatever the cell; without biases and inputs states stay tiny."""
    tensors = {n: a * np.float32("bias" not in n) for n, a in one.tensors.items()}
    one = one._replace(tensors=tensors)
    rng = samples.rng_of(seed)
    state = tuple((a * tiny).astype(np.float32) for a in one.state(rng))
    s = one.model().stream(state=one.given(state))
    for _ in range(3):
        s.step(np.zeros(one.n_in, np.float32))
        for part in oracle.as_tuple(one.layer, s.state):
            assert ((part == 0) | (np.abs(part) >= FLUSH)).all()


@pytest.mark.parametrize("layer", [
    nn.GRU(), nn.GRU(linear_before_reset=False), nn.RNN(), nn.LSTM(zoneout=(0.5, 0.5)),
    nn.LSTM(peephole="full"),
], ids=repr)  # fmt: skip
def test_a_state_vanishes(layer):
    """Just above the flush, a step that shrinks it gives exactly 0: the test above sees it."""
    rng = samples.rng_of(1)
    tensors = samples.recurrent_tensors(rng, layer, 3, 16, bias=False, scale=0.01)
    model = clstm.from_state_dict(tensors, layers=[layer])
    one = samples.Recurrent(layer, tensors, 3, 16, 1, 1)
    state = tuple(np.full_like(a, 2.0**-100) for a in one.state(rng))
    s = model.stream(state=one.given(state))
    s.step(np.zeros(3, np.float32))
    assert all((part == 0).all() for part in oracle.as_tuple(layer, s.state))
