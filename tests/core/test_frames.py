# SPDX-License-Identifier: MIT
"""What step, run, out and bind take, and that a refusal changes nothing."""

import array
import ctypes

import numpy as np
import pytest

from clstm import DTypeError, ShapeError, TokenError
from samples import fed, made, refused, same_bits, warm


@pytest.fixture
def lstm():
    return made("lstm")


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


# ---- bind ----


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
