# SPDX-License-Identifier: MIT
"""Several inputs and several outputs, against the same layers put together in NumPy."""

import numpy as np
import pytest

import clstm
from bounds.tolerances import NEAR
from clstm import DTypeError, ModelFormatError, ShapeError, nn
from samples import floats, linear_tensors, recurrent_tensors, rng_of, same_bits

I, H, T, B = 3, 4, 6, 2  # noqa: E741
TENSORS = (
    recurrent_tensors(rng_of(1), nn.LSTM("a"), I, H)
    | recurrent_tensors(rng_of(2), nn.GRU("b"), H, H)
    | linear_tensors(rng_of(3), I, H, "p")
    | linear_tensors(rng_of(4), 2 * H, 2, "q")
)
A, GRU_B, P, Q = nn.LSTM("a"), nn.GRU("b"), nn.Linear("p"), nn.Linear("q")
# Values: 1 LSTM, 2 GRU of it, 3 the input again, 4 its projection, 5 a sum, 6 a product, ...
NET = [A, GRU_B, nn.Identity(0), P, nn.Add((4, 1, 2)), nn.Mul((5, 2)), nn.Concat((6, 1)), Q,
       nn.Identity(7), nn.Slice(1, 6)]  # fmt: skip


def alone(layers, x, **options):
    names = tuple(layer.prefix + "." for layer in layers)
    tensors = {n: a for n, a in TENSORS.items() if n.startswith(names)}
    return clstm.from_state_dict(tensors, layers=layers)(x, **options)[0]


def values(x, **options):
    v = [x, alone([A], x, **options)]
    v += [alone([A, GRU_B], x, **options), x, alone([P], x)]
    v.append((v[4] + v[1]) + v[2])
    v.append(v[5] * v[2])
    v.append(np.concatenate([v[6], v[1]], -1))
    v.append(alone([Q], v[7]))
    return [*v, v[7], v[7][..., 1:6]]


def model(*outputs, last=(), **options):
    end = [nn.Output(outputs, last)] if outputs else []
    return clstm.from_state_dict(TENSORS, layers=NET + end, **options)


X = floats(rng_of(9), T, B, I)


@pytest.mark.parametrize("value", range(1, len(NET) + 1))
def test_every_value_is_what_numpy_makes_of_the_layers(value):
    m = model(value)
    y, state = m(X)
    np.testing.assert_allclose(y, values(X)[value], atol=NEAR)
    assert m.output_size == y.shape[-1] and len(state) == 2
    assert same_bits(m.stream().run(X[:, 0]), y[:, 0])


def test_several_outputs_are_a_tuple_in_their_order():
    m, v = model(8, 1, 10, 8), values(X)
    assert m.output_size == (2, H, 5, 2)
    for x, axes in ((X, slice(None)), (X[:, 1], (slice(None), 1))):
        ys, _ = m(x)
        assert isinstance(ys, tuple) and len(ys) == 4
        for y, k in zip(ys, (8, 1, 10, 8), strict=True):
            np.testing.assert_allclose(y, v[k][axes], atol=NEAR)
            assert y.flags.c_contiguous
        assert not np.may_share_memory(ys[0], ys[3])
    stream = m.stream()
    rows = [stream.step(x) for x in X[:, 0]]
    ran = m.stream().run(X[:, 0])
    for i, y in enumerate(m(X[:, 0])[0]):
        np.testing.assert_array_equal(np.stack([row[i] for row in rows]), y)
        np.testing.assert_array_equal(ran[i], y)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_last_output_is_the_last_valid_step(batch_first):
    layers = [nn.LSTM("a", batch_first), nn.GRU("b", batch_first), *NET[2:],
              nn.Output((8, 1), (True, False))]  # fmt: skip
    m = clstm.from_state_dict(TENSORS, layers=layers)
    x = X.swapaxes(0, 1) if batch_first else X
    (last, every), _ = m(x)
    (full, _), _ = model(8, 1)(X)
    np.testing.assert_array_equal(last, full[-1])
    assert last.shape == (B, 2) and every.shape == (*x.shape[:2], H)
    (ragged, _), _ = m(x, lengths=[4, 0])
    np.testing.assert_array_equal(ragged, [full[3, 0], np.zeros(2)])
    (one, every), _ = m(X[:, 0])
    np.testing.assert_array_equal(one, full[-1, 0])
    assert every.shape == (T, H)
    (empty, _), _ = m(x[:0] if not batch_first else x[:, :0])
    np.testing.assert_array_equal(empty, np.zeros((B, 2)))


def test_one_last_output_is_no_tuple():
    m = model(8, last=(True,))
    y, _ = m(X)
    np.testing.assert_array_equal(y, model(8)(X)[0][-1])
    assert m.output_size == 2
    assert m.stream().run(X[:, 0]).shape == (T, 2)  # a stream returns every step's


@pytest.mark.parametrize("batch_first", [False, True])
def test_outputs_of_other_axes(batch_first, tmp_path):
    """One feature without its axis, the last step with that of time: as y.squeeze(-1) and
    y[:, -1:] have them, whatever the call."""
    layers = [nn.LSTM("a", batch_first), nn.Slice(2, 3)]
    tensors = {n: a for n, a in TENSORS.items() if n.startswith("a.")}
    end = nn.Output((2, 2, 1, 2), (False, True, True, True), (True, True, False, True),
                    (False, False, True, True))  # fmt: skip
    m = clstm.from_state_dict(tensors, layers=[*layers, end])
    x, time = (X.swapaxes(0, 1), 1) if batch_first else (X, 0)
    full = clstm.from_state_dict(tensors, layers=[*layers, nn.Output((1,))])

    def expected(y):
        last = y.take([-1], axis=time if y.ndim == 3 else 0)
        one = last[:, 0] if y.ndim == 3 and batch_first else last[0]
        return y[..., 2], one[..., 2], last, last[..., 2]

    for given in (x, X[:, 0]):
        for a, b in zip(m(given)[0], expected(full(given)[0]), strict=True):
            assert a.flags.c_contiguous and same_bits(a, b)
        short = slice(0, 4) if given.ndim == 2 or not batch_first else (slice(None), slice(0, 4))
        if given.ndim == 3:
            for a, b in zip(m(given, lengths=[4, 4])[0], expected(full(given[short])[0]),
                            strict=True):  # fmt: skip
                assert same_bits(a.take(range(4), time) if a.shape == (*given.shape[:2],) else a, b)
    assert m.output_size == (1, 1, H, 1)
    assert [y.shape for y in m.stream().step(X[0, 0])] == [(1,), (1,), (H,), (1,)]
    for name in ("m.clstm", "m.safetensors"):
        m.save(tmp_path / name, check=(x, m(x)[0]))
        again = clstm.load(tmp_path / name)
        assert again.fingerprint == m.fingerprint and again.layers[-1] == end
        assert same_bits(again(x)[0], m(x)[0])
        m.save(tmp_path / name, check=(X[:, 0], m(X[:, 0])[0]))
    wrong = list(m(x)[0])
    wrong[3] = wrong[3] + 1
    with pytest.raises(ValueError, match="check: y is not"):
        m.save(tmp_path / "w.clstm", check=(x, tuple(wrong)))
    one = clstm.from_state_dict(tensors, layers=[*layers, nn.Output(squeeze=(True,))])
    assert same_bits(one(x)[0], full(x)[0][..., 2])


def test_first_is_the_first_step_of_each_sequence(tmp_path):
    """Of ragged ones in any order too; backwards it is the last that was computed."""
    both = recurrent_tensors(rng_of(8), nn.LSTM("c"), I, H, bidirectional=True)
    layers = [nn.LSTM("c"), nn.Slice(H, 2 * H), nn.First(), nn.Identity(1), nn.Slice(0, H),
              nn.Concat((5, 3)), nn.Output(last=(True,))]  # fmt: skip
    m = clstm.from_state_dict(both, layers=layers)
    for lengths in (None, [2, 6], [6, 1], [0, 3]):
        y, (h, _) = m(X, lengths=lengths)
        expected = np.concatenate([h[0], h[1]], -1)
        assert same_bits(y, np.where([[lengths != [0, 3]], [True]], expected, np.float32(0)))
    every = clstm.from_state_dict(both, layers=layers[:-1])(X, lengths=[2, 6])[0]
    assert same_bits(every[1:2, 0, H:], every[:1, 0, H:]) and not every[2:, 0].any()
    assert not m.streamable
    with pytest.raises(clstm.UnsupportedError, match="whole sequence"):
        m.stream()
    m.save(tmp_path / "m.clstm")
    assert same_bits(clstm.load(tmp_path / "m.clstm")(X), m(X))
    # of a model that goes with time alone it needs no direction, but all steps in one frame
    long = floats(rng_of(10), 1500, 3, I)
    found = clstm.from_state_dict(TENSORS, layers=[A, nn.First()], strict=False)(long)[0]
    assert same_bits(found, np.broadcast_to(alone([A], long)[:1], (1500, 3, H)))


def test_out_is_a_tuple_of_buffers():
    m = model(8, 1)
    expected = m.stream().run(X[:, 0])
    stream, out = m.stream(), (np.empty(2, "f4"), np.empty(H, "f4"))
    for t, x in enumerate(X[:, 0]):
        assert all(a is b for a, b in zip(stream.step(x, out), out, strict=True))
        assert same_bits(out, tuple(y[t] for y in expected))
    stream, out = m.stream(), (np.empty((T, 2), "f4"), np.empty((T, H), "f4"))
    assert stream.run(X[:, 0], out) == out or same_bits(out, expected)
    assert same_bits(out, expected)
    frame, out = np.empty(I, "f4"), (np.empty(2, "f4"), np.empty(H, "f4"))
    stream = m.stream()
    step = stream.bind(frame, out)
    for t in range(T):
        frame[:] = X[t, 0]
        step()
        assert same_bits(out, tuple(y[t] for y in expected))
    assert stream.steps == T and step.stream is stream


@pytest.mark.parametrize("out, error", [
    (np.empty(6, "f4"), ShapeError), ((np.empty(2, "f4"),), ShapeError),
    ((np.empty(2, "f4"), np.empty(H)), DTypeError), ((np.empty(2, "f4"), [0.0] * H), DTypeError),
    ((np.empty(2, "f4"), np.empty(H + 1, "f4")), ShapeError),
    ((np.empty(2, "f4"), np.empty(2 * H, "f4")[::2]), ShapeError),
    ((np.empty(2, "f4"), np.broadcast_to(np.float32(0), H)), ShapeError),
    ((np.empty(2, "f4"), np.empty(H, ">f4")), DTypeError),
])  # fmt: skip
def test_another_out_changes_nothing(out, error):
    stream = model(8, 1).stream()
    for call in (lambda: stream.step(X[0, 0], out), lambda: stream.bind(X[0, 0].copy(), out)):
        with pytest.raises(error, match="out"):
            call()
    assert stream.steps == 0 and not np.any(stream.state[1])


def test_buffers_must_not_overlap():
    stream, memory = model(8, 1).stream(), np.empty(9, "f4")
    with pytest.raises(ShapeError, match="overlap"):
        stream.step(X[0, 0], (memory[:2], memory[1 : 1 + H]))
    with pytest.raises(ShapeError, match="overlaps x"):
        stream.step(memory[3:6], (memory[:2], memory[2 : 2 + H]))


def test_files_and_copies_keep_the_wiring(tmp_path):
    m = model(8, 1, last=(False, True))
    expected = m(X)
    for name in ("m.clstm", "m.safetensors"):
        m.save(tmp_path / name)
        again = clstm.load(tmp_path / name)
        assert again.fingerprint == m.fingerprint and again.layers[2:3] == [nn.Identity(0)]
        assert same_bits(again(X), expected)
    every = tuple(np.stack(s, 0) for s in zip(*map(m.stream().step, X[:, 0]), strict=True))
    m.save(tmp_path / "c.clstm", check=(X[:, 0], every))
    assert same_bits(clstm.load(tmp_path / "c.clstm")(X), expected)
    wrong = (every[0], every[1] + 1)
    with pytest.raises(ValueError, match="check: y is not"):
        m.save(tmp_path / "d.clstm", check=(X[:, 0], wrong))
    prints = {model(8, 1).fingerprint, model(1, 8).fingerprint, m.fingerprint,
              model(8, 1, last=(True, False)).fingerprint}  # fmt: skip
    assert len(prints) == 4


# ---- tokens -------------------------------------------------------------------------------------

TABLES = {"e.weight": floats(rng_of(5), 7, I), "f.weight": floats(rng_of(6), 7, H)}
TOKENS = rng_of(7).integers(0, 7, (T, B))


def test_an_embedding_may_stand_behind_the_input_again():
    layers = [nn.Embedding("e"), A, nn.Identity(0), nn.Embedding("f"), nn.Add((2, 4))]
    lstm = {n: a for n, a in TENSORS.items() if n.startswith("a.")}
    m = clstm.from_state_dict(TABLES | lstm, layers=layers)
    expected = alone([A], TABLES["e.weight"][TOKENS]) + TABLES["f.weight"][TOKENS]
    np.testing.assert_allclose(m(TOKENS)[0], expected, atol=NEAR)
    assert (m.input_size, m.num_embeddings) == (None, 7)
    later = [nn.Identity(), nn.Embedding("e"), A]
    m = clstm.from_state_dict({"e.weight": TABLES["e.weight"]} | lstm, layers=later)
    np.testing.assert_allclose(m(TOKENS)[0], alone([A], TABLES["e.weight"][TOKENS]), atol=NEAR)


# ---- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize("layers, error, words", [
    ([P, nn.Add((0, 1))], ModelFormatError, "value 0 has 3 features, value 1 has 4"),
    ([P, nn.Mul((1, 0))], ModelFormatError, "one width"),
    ([P, nn.Add((1,))], ValueError, "2 ... 4 inputs"), ([P, nn.Concat()], ValueError, "2 ... 4"),
    ([P, nn.Add((1,) * 5)], ValueError, "2 ... 4"), ([P, nn.Output((1,) * 5)], ValueError, "... 4"),
    ([P, nn.Add((1, 2))], ValueError, "before it, 0 ... 1, not 2"),
    ([P, nn.Identity(2)], ValueError, "not 2"), ([nn.Add((0, 1)), P], ValueError, "not 1"),
    ([P, nn.Slice(2, 5)], ModelFormatError, "stop <= 4"),
    ([P, nn.Slice(2, 2)], ModelFormatError, "start < stop"),
    ([nn.Slice(0, 1), P], ModelFormatError, "not known"),
    ([nn.Concat((0, 0)), P], ModelFormatError, "width of value 0 is not known"),
    ([P, nn.Output((1,)), nn.ReLU()], ValueError, "last layer"),
    ([P, nn.Output((0, 1), (True,))], ValueError, "each of the 2 outputs"),
    ([P, nn.Output((0, 1), (), (True,))], ValueError, "squeeze says of each of the 2 outputs"),
    ([P, nn.Output((1,), squeeze=(True,))], ModelFormatError, "4 features; expected 1"),
    ([P, nn.Output((1,), keep=(True,))], ValueError, "keep is for an output of the last step"),
    ([nn.Embedding("e"), nn.Identity(0), nn.First()], ModelFormatError, "which is tokens"),
    ([P, nn.Identity(0), Q], ModelFormatError, "q.weight: expected shape"),
    ([P, nn.Identity(0), nn.Tanh(), nn.Linear("q")], ModelFormatError, "q.weight"),
    ([nn.ReLU(), nn.ReLU()], ModelFormatError, "input size"),
    ([P, nn.Embedding("e")], ModelFormatError, "Identity"),
    ([nn.Embedding("e"), nn.Identity(0), P], ModelFormatError, "which is tokens"),
    ([P, nn.Identity(0), nn.Embedding("e")], ModelFormatError, "which is tokens"),
    ([nn.Embedding("e"), nn.Concat((0, 1))], ModelFormatError, "which is tokens"),
    ([nn.Embedding("e"), nn.Identity(0)], ModelFormatError, "tokens themselves"),
    ([nn.Embedding("e"), nn.Output((0,))], ModelFormatError, "which is tokens"),
])  # fmt: skip
def test_wiring_that_does_not_fit_is_refused(layers, error, words):
    with pytest.raises(error, match=words):
        clstm.from_state_dict(TENSORS | TABLES, layers=layers, strict=False)


def test_a_later_reader_tells_a_width():
    """Of the input, through activations and a sum."""
    layers = [nn.Tanh(), nn.ReLU(), nn.Add((0, 2)), P]
    m = clstm.from_state_dict({n: TENSORS[n] for n in ("p.weight", "p.bias")}, layers=layers)
    assert m.input_size == I
    np.testing.assert_allclose(m(X)[0], alone([P], X + np.maximum(np.tanh(X), 0)), atol=NEAR)
