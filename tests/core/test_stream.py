# SPDX-License-Identifier: MIT
"""Every sentence of the docstrings of Stream."""

import gc
import itertools

import numpy as np
import pytest

import clstm
import oracle
import samples
from bounds.tolerances import FAR
from clstm import DTypeError, ShapeError, nn
from samples import ZOO, fed, made, refused, same_bits, unchanged, warm

NUMBERS = [name for name in ZOO if name != "tokens"]


@pytest.fixture
def lstm():
    return made("lstm")


# ---- step, run, the whole sequence ---------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_step_run_and_call_give_the_same_bits(name):
    model = made(name)
    x = fed(model, 2, 40)
    whole = clstm.from_state_dict(ZOO[name][1], layers=[*ZOO[name][0], nn.Identity()])(x)[0]
    by_step, by_run = model.stream(), model.stream()
    stepped = np.stack([by_step.step(frame) for frame in x])
    chunks = [by_run.run(part) for part in np.split(x, [1, 2, 7, 7, 30])]
    assert same_bits(stepped, whole)
    assert same_bits(np.concatenate(chunks), whole)
    assert same_bits(by_step.state, by_run.state)
    assert by_step.steps == by_run.steps == 40


def test_step_returns_a_fresh_array_or_out_itself(lstm):
    s, x = lstm.stream(), fed(lstm, 3, 2)
    first, second = s.step(x[0]), s.step(x[1])
    assert first is not second and not np.shares_memory(first, second)
    assert first.shape == (8,) and first.dtype == np.float32 and first.flags.owndata
    s.reset()
    out = np.empty(8, np.float32)
    assert s.step(x[0], out) is out and same_bits(out, first)
    assert s.step(x[1], out=out) is out and same_bits(out, second)


def test_run_returns_a_fresh_array_or_out_itself(lstm):
    x = fed(lstm, 3, 5)
    y, out = lstm.stream().run(x), np.empty((5, 8), np.float32)
    assert y.shape == (5, 8) and y.dtype == np.float32 and y.flags.c_contiguous
    assert lstm.stream().run(x, out=out) is out and same_bits(out, y)


@pytest.mark.parametrize("name", ZOO)
def test_no_steps_change_nothing(name):
    s = warm(made(name))
    with unchanged(s):
        y = s.run(fed(s.model, 0, 0))
        assert y.shape == (0, s.model.output_size) and y.dtype == np.float32
        assert s.run(fed(s.model, 0, 0), out=y) is y


NUMBER_TYPES = ["b", "u1", "i2", "i4", "i8", "u8", "f2", "f4", ">f4", "f8", ">f8", "g", "?"]


@pytest.mark.parametrize("dtype", NUMBER_TYPES)
def test_run_converts_every_real_dtype(lstm, dtype):
    x = (np.arange(30).reshape(5, 6) % 7).astype(dtype)
    expected = lstm.stream().run(x.astype(np.float32))
    assert same_bits(lstm.stream().run(x), expected)
    assert same_bits(lstm.stream().run(np.asfortranarray(x)), expected)
    assert same_bits(lstm.stream().run(np.repeat(x, 2, axis=0)[::2]), expected)
    assert same_bits(lstm.stream().run(x.tolist()), expected)


class Buffer:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a


def test_run_takes_whatever_is_an_array(lstm):
    torch = pytest.importorskip("torch")
    x = fed(lstm, 1, 4)
    expected = lstm.stream().run(x)
    for same in (torch.from_numpy(x), torch.from_numpy(x).double(), Buffer(x), memoryview(x)):
        assert same_bits(lstm.stream().run(same), expected)
    rounded = torch.from_numpy(x).bfloat16()
    assert same_bits(lstm.stream().run(rounded), lstm.stream().run(rounded.float().numpy()))


def test_run_of_float64_beyond_float32_is_infinite_without_a_warning(lstm):
    y = lstm.stream().run(np.full((1, 6), 1e300))
    assert same_bits(y, lstm.stream().run(np.full((1, 6), np.inf, np.float32)))


# ---- state ---------------------------------------------------------------------------------------

SHAPES = {
    "lstm": [((2, 8), (2, 8))],
    "projected": [((1, 3), (1, 8))],
    "cell": [((7,), (7,))],
    "cell and head": [((7,), (7,))],
    "two layers of state": [((2, 8), (2, 8)), ((5,), (5,))],
    "learned": [((2, 8), (2, 8))],
    "tokens": [((2, 8), (2, 8))],
    "no state": [],
}


def listed(state):
    """A list of the states of the recurrent layers, of what `state` is."""
    return [] if state is None else state if isinstance(state, list) else [state]


def with_batch_axis(state):
    def widen(a):
        return a[None] if a.ndim == 1 else a[:, None]

    states = [tuple(widen(a) for a in pair) for pair in listed(state)]
    return states if isinstance(state, list) else states[0]


@pytest.mark.parametrize("name", ZOO)
def test_the_state_has_torchs_unbatched_shapes(name):
    state = warm(made(name)).state
    assert [tuple(a.shape for a in pair) for pair in listed(state)] == SHAPES[name]
    assert all(
        type(pair) is tuple and a.dtype == np.float32 for pair in listed(state) for a in pair
    )
    assert isinstance(state, list) == (len(SHAPES[name]) > 1)
    assert (state is None) == (not SHAPES[name])


@pytest.mark.parametrize("name", [name for name in ZOO if SHAPES[name]])
def test_the_state_is_had_as_a_copy_and_set_as_a_copy(name):
    model = made(name)
    s, x = warm(model), fed(model, 5, 4)
    state = s.state
    with unchanged(s):
        for a in itertools.chain(*listed(s.state)):
            a += 1
    expected = s.copy().run(x)
    for value in (
        state,
        with_batch_axis(state),
        [list(p) for p in state] if len(SHAPES[name]) > 1 else list(state),
    ):
        other = model.stream()
        other.state = value
        assert same_bits(other.state, state)
        assert same_bits(other.run(x), expected)
    begun = model.stream(state=state)
    for a in itertools.chain(*listed(state)):
        a.fill(np.nan)
    assert same_bits(begun.run(x), expected)
    assert begun.steps == 4  # of its own; a state has no count


def test_the_state_of_a_stream_and_of_a_call_are_the_same(lstm):
    x = fed(lstm, 4, 9)
    s = warm(lstm)
    y, final = lstm(x, s.state)
    assert same_bits(s.copy().run(x), y)
    s.run(x)
    assert same_bits(s.state, final)
    s.state = final  # goes round


def test_setting_converts_dtypes(lstm):
    h, c = np.arange(16).reshape(2, 8), np.linspace(0, 1, 16).reshape(2, 8)
    s = lstm.stream(state=(h, c.tolist()))
    assert same_bits(s.state, (h.astype(np.float32), c.astype(np.float32)))


WRONG_STATES = {
    "None": (None, ShapeError),
    "h alone": (np.zeros((2, 8)), ShapeError),
    "three": ((np.zeros((2, 8)),) * 3, ShapeError),
    "one layer": ((np.zeros((1, 8)), np.zeros((2, 8))), ShapeError),
    "c too wide": ((np.zeros((2, 8)), np.zeros((2, 9))), ShapeError),
    "flat": ((np.zeros(16), np.zeros(16)), ShapeError),
    "two of a batch": ((np.zeros((2, 2, 8)), np.zeros((2, 2, 8))), ShapeError),
    "batch first": ((np.zeros((1, 2, 8)), np.zeros((1, 2, 8))), ShapeError),
    "complex": ((np.zeros((2, 8)), np.zeros((2, 8), complex)), DTypeError),
    "words": (("h", "c"), DTypeError),
}


@pytest.mark.parametrize("state, error", WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_wrong_state_is_refused_before_anything_changes(lstm, state, error):
    s = warm(lstm)
    with refused(s, error):
        s.state = state
    if state is not None:
        with pytest.raises(error):
            lstm.stream(state=state)


def test_a_state_of_several_layers_is_set_whole_or_not_at_all():
    s = warm(made("two layers of state"))
    good, bad = s.state[0], (np.zeros(5), np.zeros(6))
    for value in ([tuple(a + 1 for a in good), bad], [good], good, [good, good]):
        with refused(s, ShapeError):
            s.state = value
    stateless = made("no state").stream()
    stateless.state = None
    with pytest.raises(ShapeError, match="has none"):
        stateless.state = (np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("name", ZOO)
def test_reset_is_a_new_stream(name):
    model = made(name)
    s, new = warm(model), model.stream()
    s.reset()
    assert same_bits(s.state, new.state) and s.steps == 0
    assert same_bits(s.run(fed(model, 3, 5)), new.run(fed(model, 3, 5)))
    if name != "learned":
        assert not any(a.any() for a in itertools.chain(*listed(model.stream().state)))


@pytest.mark.parametrize("how", ["names", "prefixed names", "arrays", "h0 alone"])
def test_a_learned_initial_state_is_where_streams_and_calls_begin(how):
    rng = samples.rng_of(8)
    tensors = samples.lstm_tensors(rng, 6, 8, layers=2, proj=3, prefix="lstm")
    h0, c0 = samples.floats(rng, 2, 1, 3), samples.floats(rng, 2, 8)
    layer = {
        "names": nn.LSTM("lstm", h0="first.h", c0="first.c"),
        "prefixed names": nn.LSTM("lstm", h0="h0", c0="c0"),
        "arrays": nn.LSTM("lstm", h0=h0, c0=c0),
        "h0 alone": nn.LSTM("lstm", h0="first.h"),
    }[how]
    more = {
        "names": {"first.h": h0, "first.c": c0},
        "prefixed names": {"lstm.h0": h0, "lstm.c0": c0},
        "arrays": {},
        "h0 alone": {"first.h": h0},
    }[how]
    model = clstm.from_state_dict(tensors | more, layers=[layer])
    start = h0[:, 0], np.zeros_like(c0) if how == "h0 alone" else c0
    s, x = model.stream(), samples.floats(rng, 5, 6)
    assert same_bits(s.state, start)
    y = s.run(x)
    s.reset()
    assert same_bits(s.state, start)
    assert same_bits(model(x)[0], y) and same_bits(model(x, start)[0], y)
    exact, _ = oracle.forward([nn.LSTM("lstm")], tensors, x, start)
    assert np.abs(y - exact).max() < FAR  # which state it was; the bound has its own tests
    batched = np.repeat(x[:, None], 3, axis=1)
    assert same_bits(model(batched)[0][:, 2], y)  # every row begins there
    assert same_bits(model.stream(state=(start[0] * 0, start[1] * 0)).state[0], start[0] * 0)


# ---- copy, steps ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_a_copy_goes_its_own_way_from_the_same_state(name):
    model = made(name)
    s, x = warm(model), fed(model, 6, 4)
    other, into = s.copy(), warm(model, 7)
    assert s.copy(into=into) is into and s.copy(s) is s
    assert other.steps == into.steps == s.steps == 3
    with unchanged(s):
        assert same_bits(other.run(x), into.run(x))
    assert same_bits(other.state, into.state) and other.steps == 7 and s.steps == 3


def test_copy_into_a_stream_of_another_model_is_refused(lstm):
    s, foreign = warm(lstm), made("lstm").stream()
    with unchanged(s), refused(foreign, ValueError, "same model"):
        s.copy(into=foreign)
    with unchanged(s), pytest.raises(TypeError):
        s.copy(into=3)


def test_steps_counts_from_the_start_or_reset(lstm):
    s = lstm.stream()
    assert s.steps == 0
    s.step(fed(lstm, 0, 1)[0])
    s.run(fed(lstm, 0, 5))
    s.run(fed(lstm, 0, 0))
    assert s.steps == 6 and lstm.stream(snapshot=s.snapshot()).steps == 6
    with pytest.raises(AttributeError):
        s.steps = 3
    s.reset()
    assert s.steps == 0


# ---- NaN, bidirectional --------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_nan_stays_in_its_stream_and_reset_clears_it(name, bad):
    model = made(name)
    x = fed(model, 3, 5)
    s, neighbour = model.stream(), model.stream()
    expected = model.stream().run(x)
    poisoned = x.copy()
    poisoned[2, 1] = bad
    y = s.run(poisoned)
    assert same_bits(y[:2], expected[:2])
    if np.isnan(bad):
        assert np.isnan(y[2]).all()
        assert s.is_finite() == (name == "no state")
    assert same_bits(neighbour.run(x), expected) and neighbour.is_finite()
    s.reset()
    assert s.is_finite() and same_bits(s.run(x), expected)
    batch = np.stack([x, poisoned, x], axis=1)  # nor does it leave its row of a batch
    if name != "cell":
        y, _ = model(batch)
        assert same_bits(y[:, 0], expected) and same_bits(y[:, 2], expected)


def test_is_finite_sees_every_number_of_the_state(lstm):
    s = warm(lstm)
    state = s.state
    assert s.is_finite()
    for bad, a in itertools.product((np.nan, np.inf, -np.inf), state):
        for i in np.ndindex(a.shape):
            kept, a[i] = a[i], bad
            s.state = state
            a[i] = kept
            assert not s.is_finite()
    s.state = state
    assert s.is_finite()


def test_a_bidirectional_layer_does_not_stream():
    tensors = samples.lstm_tensors(samples.rng_of(0), 6, 8, bidirectional=True)
    model = clstm.from_state_dict(tensors)
    with pytest.raises(clstm.UnsupportedError, match="whole sequence"):
        model.stream()
    assert model(np.zeros((3, 6)))[0].shape == (3, 16)


def test_a_stream_keeps_its_model_alive():
    s = made("lstm").stream()
    gc.collect()
    assert s.step(np.zeros(6, np.float32)).shape == (8,)
    assert s.model.input_size == 6
