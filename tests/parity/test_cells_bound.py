# SPDX-License-Identifier: MIT
"""Every cell with every option, teacher-forced, lies within the bound of `bounds` around the
oracle: streams in the whole state, sequences by the outputs of each layer and direction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from bounds import cell_bound, first_layers, recurrent_check, stream_check, worst
from clstm import loading, nn

# 16 and 64 are the widths of a block of units and of a chain of sums.
wide = st.sampled_from([1, 2, 3, 7, 15, 16, 17, 33, 63, 64, 65, 130])


def walk(one, x, start, **options):
    """The states of a stream before the first step and after each, as tuples' bare forms."""
    s = one.model(**options).stream(state=one.given(start))
    states = [s.state]
    for frame in x:
        y = s.step(frame)
        states.append(s.state)
        h = states[-1][0] if one.kind == "LSTM" else states[-1]
        assert samples.same_bits(y, h if h.ndim == 1 else h[-1])
    return states


def check_stream(one, seed, scale=1.0, steps=5, kind="provable", **options):
    rng = samples.rng_of(seed)
    x = samples.floats(rng, steps, one.n_in, scale=scale)
    states = walk(one, x, one.state(rng), **options)
    assert stream_check(one.tensors, one.layer.prefix, x, states, kind, one.layer) <= 1


@given(
    samples.recurrent_models(sizes=wide, bidirectional=False),
    samples.seeds,
    st.sampled_from([1.0, 1.0, 1e-30, 1e-3, 10.0]),
)
@samples.examples(400)
def test_a_stream_keeps_the_bound_at_every_step(one, seed, scale):
    check_stream(one, seed, scale)


@pytest.mark.long
@given(
    samples.recurrent_models(sizes=wide, bidirectional=False),
    samples.seeds,
    st.sampled_from([1.0, 1.0, 1e-30, 1e-3, 10.0]),
)
@samples.examples(5000)
def test_a_stream_keeps_the_bound_at_every_step_at_length(one, seed, scale):
    check_stream(one, seed, scale)


@given(samples.recurrent_models(sizes=wide, cell=True), samples.seeds)
@samples.examples(60)
def test_a_stream_of_a_cell_keeps_the_bound(one, seed):
    check_stream(one, seed)


@pytest.mark.parametrize("kernel", clstm.available_kernels())
@given(one=samples.recurrent_models(sizes=wide, bidirectional=False), seed=samples.seeds)
@samples.examples(25)
def test_every_kernel_set_keeps_the_random_bound(kernel, one, seed):
    check_stream(one, seed, kind="random", kernel=kernel)


@pytest.mark.parametrize("function", samples.GATE_FUNCTIONS, ids=str)
def test_every_function_in_every_place_keeps_the_bound(function):
    """Unbounded ones of a gate too, for two steps."""
    plain = [("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0), ("Tanh", 0.0, 0.0)]
    rng = samples.rng_of(9)
    for kind, count in ((nn.LSTM, 3), (nn.GRU, 2), (nn.RNN, 1)):
        for place in range(count):
            layer = kind(activations=[*plain[:place], function, *plain[place + 1 : count]])
            tensors = samples.recurrent_tensors(rng, layer, 20, 33, scale=0.5)
            check_stream(samples.Recurrent(layer, tensors, 20, 33, 1, 1), place, steps=2)


@pytest.mark.parametrize("layer", [
    nn.GRU(), nn.GRU(linear_before_reset=False), nn.RNN(), nn.RNN(nonlinearity="relu"),
    nn.LSTM(peephole="diagonal"), nn.LSTM(peephole="full", output_peephole="new"),
    nn.LSTM(coupled="f=1-i"), nn.LSTM(coupled="i=1-f", peephole="diagonal"),
    nn.LSTM(layer_norm=dict(separate=True, cell=True)),
    nn.LSTM(layer_norm=dict(per_gate=True, cell="stored"), peephole="diagonal"),
], ids=repr)  # fmt: skip
def test_large_sizes_keep_the_random_bound(layer):
    rng = samples.rng_of(11)
    tensors = samples.recurrent_tensors(rng, layer, 200, 300, norm_bias=True)
    one = samples.Recurrent(layer, tensors, 200, 300, 1, 1)
    check_stream(one, 12, kind="random")


@pytest.mark.parametrize("cell", [True, "stored"])
def test_a_stored_clip_does_not_hold_a_cell_that_is_normalised_after_it(cell):
    """The stored c is held, then normalised; what h's function sees is the norm, of about 1."""
    layer = nn.LSTM(cell_clip=0.1, cell_clip_stored=True, layer_norm=dict(cell=cell))
    tensors = samples.recurrent_tensors(samples.rng_of(6), layer, 5, 18)
    check_stream(samples.Recurrent(layer, tensors, 5, 18, 1, 1), 7)


# ---- sequences ----------------------------------------------------------------------------------


def outputs_of(one, call):
    """The output of every layer, and the final state; `call` of a model and its initial state."""
    outputs = []
    for k in range(1, one.num_layers + 1):
        below = one._replace(tensors=first_layers(one.tensors, one.layer.prefix, k), num_layers=k)
        y, final = call(below)
        outputs.append(y)
    return outputs, final


def check_sequence(one, seed, steps, batch, ragged, kind="provable", **options):
    rng = samples.rng_of(seed)
    x = samples.floats(rng, steps, batch, one.n_in)
    state = one.state(rng, batch)
    lengths = rng.integers(0, steps + 1, batch) if ragged else None

    def call(below):
        rows = below.num_layers * below.directions
        given = below.given(tuple(s[:rows] for s in state))
        return below.model(**options)(x, given, lengths=lengths)

    outputs, final = outputs_of(one, call)
    final = oracle.as_tuple(one.layer, final)
    ratio = recurrent_check(
        one.layer, one.tensors, one.layer.prefix, x, outputs, state, final, kind, lengths
    )
    assert ratio <= 1


sequences = dict(
    one=samples.recurrent_models(sizes=wide),
    seed=samples.seeds,
    steps=st.integers(0, 6),
    batch=st.sampled_from([1, 2, 5, 17]),
    ragged=st.booleans(),
)


@given(**sequences)
@samples.examples(200)
def test_a_sequence_keeps_the_bound_at_every_step(one, seed, steps, batch, ragged):
    check_sequence(one, seed, steps, batch, ragged)


@pytest.mark.long
@given(**sequences)
@samples.examples(3000)
def test_a_sequence_keeps_the_bound_at_every_step_at_length(one, seed, steps, batch, ragged):
    check_sequence(one, seed, steps, batch, ragged)


@pytest.mark.skipif(not loading.numpy_blas(), reason="not run: this NumPy brings no OpenBLAS")
@given(**sequences)
@samples.examples(60)
def test_a_sequence_by_a_blas_keeps_the_random_bound(one, seed, steps, batch, ragged):
    check_sequence(one, seed, steps, batch, ragged, "random", gemm="blas")


@given(
    samples.recurrent_models(sizes=wide, cell=True),
    samples.seeds,
    st.none() | st.sampled_from([0, 1, 3, 17]),
    st.booleans(),
)
@samples.examples(80)
def test_a_bare_cell_is_one_step_within_the_bound(one, seed, batch, with_state):
    rng = samples.rng_of(seed)
    rows = () if batch is None else (batch,)
    x, state = samples.floats(rng, *rows, one.n_in), one.state(rng, *rows)
    state = tuple(s[0] * np.float32(with_state) + 0 for s in state)
    given = (state if one.kind == "LSTM" else state[0]) if with_state else None
    result = oracle.as_tuple(one.layer, one.model()(x, given))
    ((w,),) = oracle.directions(one.tensors, one.layer.prefix)
    step = cell_bound(one.layer, w, x, state)
    for actual, (value, bound) in zip(result, step.state(), strict=True):
        assert type(actual) is np.ndarray and actual.dtype == np.float32
        assert worst(actual, value, bound) <= 1


def test_a_learned_initial_state():
    rng = samples.rng_of(5)
    for kind in (nn.GRU, nn.RNN):
        tensors = samples.recurrent_tensors(rng, kind(), 5, 6, layers=2)
        h0 = samples.floats(rng, 2, 1, 6)
        learned = clstm.from_state_dict(tensors | {"h0": h0}, layers=[kind(h0="h0")])
        plain = clstm.from_state_dict(tensors, layers=[kind()])
        x = samples.floats(rng, 4, 3, 5)
        given = np.ascontiguousarray(np.broadcast_to(h0, (2, 3, 6)))
        assert samples.same_bits(learned(x), plain(x, given))
        s = learned.stream()
        assert samples.same_bits(s.state, h0[:, 0])
        s.run(x[:, 0])
        s.reset()
        assert samples.same_bits(s.state, h0[:, 0])
