# SPDX-License-Identifier: MIT
"""API.md, "Stream": every sentence of it."""

import array
import copy
import ctypes
import gc
import itertools
import pickle
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from clstm import DTypeError, ShapeError, SnapshotError, TokenError, nn
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


# ---- what step takes -----------------------------------------------------------------------------

GOOD = np.arange(6, dtype=np.float32)

ACCEPTED = {
    "float32": GOOD,
    "array.array": array.array("f", GOOD),
    "memoryview": memoryview(GOOD),
    "a view": np.arange(20, dtype=np.float32)[:6],
    "read-only": np.frombuffer(GOOD.tobytes(), np.float32),
    "ctypes": (ctypes.c_float * 6)(*GOOD),
    "unaligned": np.frombuffer(b"x" + GOOD.tobytes(), np.float32, 6, 1),
}


@pytest.mark.parametrize("x", ACCEPTED.values(), ids=ACCEPTED)
def test_step_takes_a_native_contiguous_float32_frame(lstm, x):
    assert same_bits(lstm.stream().step(x), lstm.stream().run(GOOD[None])[0])


REFUSED_X = {
    "non-contiguous": (np.zeros(12, np.float32)[::2], ShapeError),
    "reversed": (np.zeros(6, np.float32)[::-1], ShapeError),
    "broadcast": (np.broadcast_to(np.float32(1), 6), ShapeError),
    "0-d": (np.float32(1), ShapeError),
    "0-d array": (np.zeros((), np.float32), ShapeError),
    "2-d": (np.zeros((1, 6), np.float32), ShapeError),
    "too short": (np.zeros(5, np.float32), ShapeError),
    "too long": (np.zeros(7, np.float32), ShapeError),
    "empty": (np.zeros(0, np.float32), ShapeError),
    "float64": (np.zeros(6), DTypeError),
    "float16": (np.zeros(6, np.float16), DTypeError),
    "int32": (np.zeros(6, np.int32), DTypeError),
    "uint32": (np.zeros(6, np.uint32), DTypeError),
    "complex64": (np.zeros(6, np.complex64), DTypeError),
    "a record": (np.zeros(6, [("a", "<f4")]), DTypeError),
    "byte-swapped": (np.zeros(6, np.dtype("f4").newbyteorder()), DTypeError),
    "list": ([0.0] * 6, DTypeError),
    "tuple": ((0.0,) * 6, DTypeError),
    "bytes": (bytes(24), DTypeError),
    "bytearray": (bytearray(24), DTypeError),
    "array of doubles": (array.array("d", [0.0] * 6), DTypeError),
    "object": (np.zeros(6, object), DTypeError),
    "str": ("abcdef", DTypeError),
    "None": (None, DTypeError),
    "a number": (1.0, DTypeError),
}


@pytest.mark.parametrize("x, error", REFUSED_X.values(), ids=REFUSED_X)
@pytest.mark.parametrize("with_out", [False, True])
def test_step_refuses_every_other_frame_and_changes_nothing(lstm, x, error, with_out):
    s, out = warm(lstm), np.full(8, 7, np.float32)
    with refused(s, error, "^x: expected"):
        s.step(x, out) if with_out else s.step(x)
    assert (out == 7).all()


def read_only(a):
    a.flags.writeable = False
    return a


REFUSED_OUT = {
    "read-only": (read_only(np.zeros(8, np.float32)), ShapeError),
    "non-contiguous": (np.zeros(16, np.float32)[::2], ShapeError),
    "too short": (np.zeros(7, np.float32), ShapeError),
    "too long": (np.zeros(9, np.float32), ShapeError),
    "2-d": (np.zeros((1, 8), np.float32), ShapeError),
    "0-d": (np.zeros((), np.float32), ShapeError),
    "float64": (np.zeros(8), DTypeError),
    "int32": (np.zeros(8, np.int32), DTypeError),
    "byte-swapped": (np.zeros(8, np.dtype("f4").newbyteorder()), DTypeError),
    "list": ([0.0] * 8, DTypeError),
    "bytes": (bytes(32), DTypeError),
    "bytearray": (bytearray(32), DTypeError),
}


@pytest.mark.parametrize("out, error", REFUSED_OUT.values(), ids=REFUSED_OUT)
def test_a_wrong_out_is_refused_and_changes_nothing(lstm, out, error):
    s = warm(lstm)
    with refused(s, error, "^out: expected"):
        s.step(GOOD, out)
    with refused(s, error, "^y: expected"):
        s.bind(GOOD, out)
    if isinstance(out, np.ndarray) and out.ndim == 1:  # the same fault in two axes
        with refused(s, error, "^out: expected"):
            s.run(
                GOOD[None],
                out.reshape(1, -1) if out.flags.c_contiguous else np.zeros((1, 16), "f")[:, ::2],
            )


def test_out_may_not_overlap_the_input(lstm):
    s, block = warm(lstm), np.zeros(40, np.float32)
    for x, out in ((block[:6], block[:8]), (block[7:13], block[:8]), (block[:6], block[5:13])):
        with refused(s, ShapeError, "overlap"):
            s.step(x, out)
        with refused(s, ShapeError, "overlap"):
            s.bind(x, out)
    with refused(s, ShapeError, "overlap"):
        s.run(block[:12].reshape(2, 6), block[11:27].reshape(2, 8))
    s.step(block[8:14], block[:8])  # side by side is fine
    assert (block[14:] == 0).all()


def test_an_array_over_the_same_memory_may_be_converted_before_out_is_written(lstm):
    """run converts float64 to a copy, so nothing overlaps any more."""
    block = np.arange(24.0)
    expected = lstm.stream().run(block[:12].reshape(2, 6).copy())
    out = block.view(np.float32)[:16].reshape(2, 8)
    assert same_bits(lstm.stream().run(block[:12].reshape(2, 6), out), expected)


REFUSED_RUN = {
    "1-d": (np.zeros(6), ShapeError),
    "3-d": (np.zeros((2, 1, 6)), ShapeError),
    "too narrow": (np.zeros((2, 5)), ShapeError),
    "empty but narrow": (np.zeros((0, 5)), ShapeError),
    "empty list": ([], ShapeError),
    "complex": (np.zeros((2, 6), complex), DTypeError),
    "object": (np.zeros((2, 6), object), DTypeError),
    "str": ("abc", DTypeError),
    "times": (np.zeros((2, 6), "M8[s]"), DTypeError),
    "ragged": ([[0.0] * 6, [0.0] * 5], DTypeError),
    "None": (None, DTypeError),
}


@pytest.mark.parametrize("x, error", REFUSED_RUN.values(), ids=REFUSED_RUN)
def test_run_refuses_every_other_chunk_and_changes_nothing(lstm, x, error):
    s = warm(lstm)
    with refused(s, error, "^X: expected"):
        s.run(x)


@pytest.mark.parametrize("shape", [(2, 8), (4, 8), (3, 7), (3, 9), (24,), (3, 1, 8)])
def test_run_checks_out_before_anything_changes(lstm, shape):
    s = warm(lstm)
    with refused(s, ShapeError, "^out: expected"):
        s.run(fed(lstm, 0, 3), out=np.zeros(shape, np.float32))


# ---- tokens --------------------------------------------------------------------------------------


@pytest.fixture
def tokens():
    return made("tokens")


TOKENS = {
    "int": 4,
    "int64": np.int64(4),
    "uint8": np.uint8(4),
    "uint64": np.uint64(4),
    "(1,) array": np.array([4]),
    "(1,) int16": np.array([4], np.int16),
    "byte-swapped": np.array([4], ">i8"),
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_step_takes_a_token_as_int_numpy_integer_or_array_of_one(tokens, token):
    expected = tokens.stream().run([4])[0]
    assert same_bits(tokens.stream().step(token), expected)
    out = np.empty(3, np.float32)
    assert tokens.stream().step(token, out=out) is out and same_bits(out, expected)


@pytest.mark.parametrize("token", [-1, 11, 2**40, -(2**70), 2**70, np.int64(-1), np.uint64(2**63)])
def test_a_token_outside_the_table_is_a_token_error(tokens, token):
    s = warm(tokens)
    with refused(s, TokenError, r"outside 0 \.\.\. 10"):
        s.step(token)
    if -(2**63) <= token < 2**64:
        with refused(s, TokenError, r"outside 0 \.\.\. 10"):
            s.step(np.array([token]))
        with refused(s, TokenError, r"outside 0 \.\.\. 10"):
            s.run(np.full(3, token))
        with pytest.raises(TokenError, match=r"outside 0 \.\.\. 10"):
            tokens(np.full(2, token))


FLOATS = [1.0, np.float32(1), np.float64(1), np.array([1.0]), np.array([1], "f4")]


@pytest.mark.parametrize("token", [*FLOATS, "1", None, b"1", [1], 1j, np.array([1], object)])
def test_a_token_that_is_no_integer_is_a_dtype_error(tokens, token):
    s = warm(tokens)
    with refused(s, DTypeError, "^x: expected a token"):
        s.step(token)


def test_floats_are_no_tokens_in_run_and_call_either(tokens):
    s = warm(tokens)
    for x in ([1.0, 2.0], np.zeros(3, np.float32), np.zeros(3, bool)):
        with refused(s, DTypeError, "expected tokens"):
            s.run(x)
        with pytest.raises(DTypeError, match="expected tokens"):
            tokens(x)
    assert s.run([]).shape == (0, 3)  # an empty list has NumPy's default dtype


@pytest.mark.parametrize("token", [np.array([1, 2]), np.array([[1]]), np.array([], int)])
def test_a_token_of_another_shape_is_a_shape_error(tokens, token):
    s = warm(tokens)
    with refused(s, ShapeError, "expected one token"):
        s.step(token)


def test_a_bad_out_leaves_a_token_stream_unchanged(tokens):
    s = warm(tokens)
    with refused(s, ShapeError, "^out"):
        s.step(4, out=np.zeros(4, np.float32))


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
    assert np.abs(y - exact).max() < 1e-5  # which state it was; the bound has its own tests
    batched = np.repeat(x[:, None], 3, axis=1)
    assert same_bits(model(batched)[0][:, 2], y)  # every row begins there
    assert same_bits(model.stream(state=(start[0] * 0, start[1] * 0)).state[0], start[0] * 0)


# ---- copy, steps, bind ---------------------------------------------------------------------------


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
    s.step(GOOD)
    s.run(fed(lstm, 0, 5))
    s.run(fed(lstm, 0, 0))
    assert s.steps == 6 and lstm.stream(snapshot=s.snapshot()).steps == 6
    with pytest.raises(AttributeError):
        s.steps = 3
    s.reset()
    assert s.steps == 0


def test_bind_steps_from_one_buffer_to_another(lstm):
    x, y = np.zeros(6, np.float32), np.zeros(8, np.float32)
    s, other = lstm.stream(), lstm.stream()
    go = s.bind(x, y)
    for frame in fed(lstm, 7, 5):
        x[:] = frame
        go()
        assert same_bits(y, other.step(frame))
    assert s.steps == 5 and same_bits(s.state, other.state)


def test_bind_of_tokens_checks_at_each_call(tokens):
    x, y = np.zeros(1, np.int64), np.zeros(3, np.float32)
    s, other = tokens.stream(), tokens.stream()
    go = s.bind(x, y)
    for token in (3, 0, 10):
        x[0] = token
        go()
        assert same_bits(y, other.step(token))
    for token in (-1, 11):
        x[0] = token
        with refused(s, TokenError):
            go()
    for wrong in (np.zeros(1, np.int32), np.zeros(2, np.int64), np.zeros(1), [1], 1):
        with pytest.raises(DTypeError, match="int64 array of shape"):
            s.bind(wrong, y)


@pytest.mark.parametrize("x, error", REFUSED_X.values(), ids=REFUSED_X)
def test_bind_checks_its_buffers_at_once(lstm, x, error):
    with pytest.raises(error, match=r"^x: expected"):
        lstm.stream().bind(x, np.zeros(8, np.float32))


def test_bound_buffers_are_held(lstm):
    x, y = bytearray(24), bytearray(32)
    go = lstm.stream().bind(memoryview(x).cast("f"), memoryview(y).cast("f"))
    with pytest.raises(BufferError):
        x.append(0)
    go()
    assert y != bytearray(32)
    del go
    x.append(0)  # released


# ---- snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_a_snapshot_goes_on_where_it_was_taken(name):
    model = made(name)
    s, x = warm(model), fed(model, 11, 6)
    blob = s.snapshot()
    assert type(blob) is bytes
    other = model.stream(snapshot=blob)
    assert same_bits(other.state, s.state) and other.steps == 3
    assert same_bits(other.run(x), s.run(x))
    assert same_bits(
        model.stream(snapshot=memoryview(blob)).run(x), model.stream(snapshot=blob).run(x)
    )


def test_a_snapshot_fits_every_kernel_and_format_of_the_same_weights(lstm, tmp_path):
    blob, x = warm(lstm).snapshot(), fed(lstm, 1, 4)
    lstm.save(tmp_path / "m.clstm")
    lstm.save(tmp_path / "m.safetensors")
    models = [made("lstm", kernel=k) for k in clstm.available_kernels()]
    models += [clstm.load(tmp_path / f"m.{kind}") for kind in ("clstm", "safetensors")]
    expected = lstm.stream(snapshot=blob).run(x)
    assert all(same_bits(m.stream(snapshot=blob).run(x), expected) for m in models)


def test_a_snapshot_of_another_model_is_refused(lstm):
    layers, tensors = ZOO["lstm"]
    moved = {k: v + (k == "lstm.bias_hh_l1") for k, v in tensors.items()}
    others = [made("projected"), made("tokens"), clstm.from_state_dict(moved, layers=layers)]
    for other in others:
        with pytest.raises(SnapshotError, match="other layers or weights"):
            other.stream(snapshot=warm(lstm).snapshot())


def with_checksum(data):
    return data + zlib.crc32(data).to_bytes(4, "little")


def test_a_snapshot_of_another_version_is_refused_by_its_number(lstm):
    blob = warm(lstm).snapshot()
    newer = with_checksum(blob[:8] + (2).to_bytes(4, "little") + blob[12:-4])
    with pytest.raises(SnapshotError, match=r"version 2.*version 1"):
        lstm.stream(snapshot=newer)


def test_a_snapshot_with_a_wrong_count_is_refused(lstm):
    blob = warm(lstm).snapshot()
    for wrong in (blob[:-8], blob[:-4] + bytes(4), blob[:12] + bytes(4) + blob[16:-4]):
        with pytest.raises(SnapshotError):
            lstm.stream(snapshot=with_checksum(wrong))


@pytest.mark.parametrize("name", ["lstm", "no state"])
def test_a_snapshot_cut_short_at_any_length_is_refused(name):
    model = made(name)
    blob = warm(model).snapshot()
    for n in range(len(blob)):
        with pytest.raises(SnapshotError):
            model.stream(snapshot=blob[:n])
    with pytest.raises(SnapshotError):
        model.stream(snapshot=blob + b"\0")


def test_a_snapshot_with_any_bit_flipped_is_refused(lstm):
    blob = warm(lstm).snapshot()
    for i in range(len(blob) * 8):
        bad = bytearray(blob)
        bad[i // 8] ^= 1 << i % 8
        with pytest.raises(SnapshotError):
            lstm.stream(snapshot=bad)


@given(st.binary(max_size=300))
@samples.examples(200)
def test_any_other_bytes_are_a_snapshot_error(data):
    model = made("no state")
    for blob in (data, b"CLSNAP\r\n" + data, with_checksum(b"CLSNAP\r\n" + data)):
        with pytest.raises(SnapshotError):
            model.stream(snapshot=blob)


@pytest.mark.parametrize("blob", [3, "text", object(), [1, 2]])
def test_what_is_no_bytes_is_a_snapshot_error(lstm, blob):
    with pytest.raises(SnapshotError, match="expected bytes"):
        lstm.stream(snapshot=blob)


def test_state_and_snapshot_together_are_refused(lstm):
    s = warm(lstm)
    with pytest.raises(ValueError, match="one of them"):
        lstm.stream(s.state, snapshot=s.snapshot())


def test_a_stream_does_not_pickle_and_says_what_does(lstm):
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"snapshot\(\)"):
            way(lstm.stream())


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
    assert s.step(GOOD).shape == (8,)
    assert s.model.input_size == 6
