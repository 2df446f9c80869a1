# SPDX-License-Identifier: MIT
"""what a call takes and returns, attributes, pickling."""

import copy
import dataclasses
import pickle
import re

import numpy as np
import pytest

import clstm
import oracle
from bounds.tolerances import FAR
from clstm import DTypeError, ShapeError, nn
from samples import ZOO, fed, made, same_bits

T, B = 5, 3


def shapes(state):
    if isinstance(state, list):
        return [shapes(s) for s in state]
    return state and tuple(a.shape for a in state)


def ordered(layers, batch_first):
    return [
        dataclasses.replace(layer, batch_first=batch_first) if isinstance(layer, nn.LSTM) else layer
        for layer in layers
    ]


# ---- forms of the result -------------------------------------------------------------------------

FORMS = {  # name: (output shape behind (T, B), states)
    "lstm": (8, ((2, B, 8), (2, B, 8))),
    "projected": (3, ((1, B, 3), (1, B, 8))),
    "cell and head": (3, ((B, 7), (B, 7))),
    "two layers of state": (5, [((2, B, 8), (2, B, 8)), ((B, 5), (B, 5))]),
    "learned": (3, ((2, B, 8), (2, B, 8))),
    "tokens": (3, ((2, B, 8), (2, B, 8))),
    "no state": (3, None),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_call_returns_y_and_the_state_in_the_form_of_the_model(name):
    model = made(name)
    width, states = FORMS[name]
    y, state = model(fed(model, 1, T, B))
    assert y.shape == (T, B, width) and shapes(state) == states
    y, state = model(fed(model, 1, T))  # unbatched: every axis of B is gone

    def narrow(form):
        if isinstance(form, list):
            return [narrow(f) for f in form]
        return form and tuple((*s[:-2], s[-1]) for s in form)

    assert y.shape == (T, width) and shapes(state) == narrow(states)


def arrays_in(result):
    if isinstance(result, tuple | list):
        return [a for part in result for a in arrays_in(part)]
    return [] if result is None else [result]


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("batched", [False, True])
def test_results_are_fresh_contiguous_float32(name, batched):
    model = made(name)
    shape = ([B] if batched else []) if name == "cell" else [T, B] if batched else [T]
    x = fed(model, 1, *shape)
    first, second = arrays_in(model(x)), arrays_in(model(x))
    for a in first:
        assert type(a) is np.ndarray and a.dtype == np.float32 and a.dtype.isnative
        assert a.flags.c_contiguous and a.flags.writeable and a.flags.aligned
    everything = [*first, *second, x]
    for i, a in enumerate(everything):
        assert not any(np.shares_memory(a, b) for b in everything[:i])


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_call_is_the_oracles(name, batch_first):
    layers, tensors = ZOO[name]
    layers = [
        nn.LSTM(layer.prefix, batch_first, h0=layer.h0, c0=layer.c0)
        if isinstance(layer, nn.LSTM)
        else layer
        for layer in layers
    ]
    model = clstm.from_state_dict(tensors, layers=layers)
    batch_first = batch_first and any(isinstance(layer, nn.LSTM) for layer in layers)
    assert model.batch_first == batch_first
    for shape in [(7,), (B, 7) if batch_first else (7, B), (B, 1)]:
        shape = shape if name != "cell" else shape[1:]
        x = fed(model, 2, *shape)
        result = model(x)
        exact = oracle.forward(layers, tensors, x)
        again = model(x, result if name == "cell" else result[1])
        exact_again = oracle.forward(layers, tensors, x, exact if name == "cell" else exact[1])
        for mine, theirs in ((result, exact), (again, exact_again)):
            for a, b in zip(arrays_in(mine), arrays_in(theirs), strict=True):
                assert a.shape == b.shape
                assert np.abs(a - b).max(initial=0) < FAR  # which numbers; the bound: parity/


@pytest.mark.parametrize("name", [name for name in FORMS if name != "no state"])
def test_state_goes_in_as_it_came_out(name):
    model = made(name)
    x = fed(model, 1, 2 * T, B)
    y, end = model(x)
    first, middle = model(x[:T])
    second, last = model(x[T:], middle)
    assert same_bits(np.concatenate([first, second]), y) and same_bits(last, end)
    one, end_one = model(x[:, 1])
    assert same_bits(one, np.ascontiguousarray(y[:, 1]))
    stream = model.stream()
    assert same_bits(stream.run(x[:, 1]), one)
    assert same_bits(stream.state, end_one)  # the same shapes, too
    assert same_bits(
        model(x[T:, 1], model.stream(state=end_one).state)[0], model(x[T:, 1], end_one)[0]
    )


def test_several_states_are_a_list_and_checked_whole():
    model = made("two layers of state")
    x = fed(model, 1, T, B)
    _, state = model(x)
    assert isinstance(state, list)
    assert same_bits(model(x, tuple(state))[0], model(x, state)[0])
    for wrong in (state[0], state[:1], [*state, state[0]], [state[1], state[0]], [None, None], 3):
        with pytest.raises(ShapeError):
            model(x, wrong)
    with pytest.raises(ShapeError, match="has none"):
        made("no state")(fed(made("no state"), 1, T, B), state)


# ---- a bare cell ---------------------------------------------------------------------------------


def test_a_bare_cell_is_one_step():
    cell = made("cell")
    x = fed(cell, 1, B)
    h, c = cell(x)
    assert h.shape == c.shape == (B, 7)
    h1, c1 = cell(x[1], (h[1], c[1]))
    assert h1.shape == c1.shape == (7,)
    stream = cell.stream()
    assert same_bits(stream.step(x[1]), h[1])
    assert same_bits(stream.step(x[1]), h1) and same_bits(stream.state, (h1, c1))
    assert cell(fed(cell, 1, 0))[0].shape == (0, 7)


def test_a_bare_cell_names_nn_lstm_for_sequences():
    cell = made("cell")
    with pytest.raises(ShapeError, match=r"nn\.LSTM"):
        cell(fed(cell, 1, T, B))
    with pytest.raises(ShapeError, match="one step"):
        cell(fed(cell, 1, B), lengths=[1] * B)
    for wrong in (np.zeros(5), np.zeros((B, 7)), np.zeros(()), np.zeros((1, 1, 1, 6))):
        with pytest.raises(ShapeError):
            cell(wrong)


# ---- what a call takes ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["b", "u1", "i4", "u8", "f2", "f4", ">f4", "f8", "g", "?"])
def test_every_real_dtype_is_converted(dtype):
    model = made("lstm")
    x = (np.arange(T * B * 6).reshape(T, B, 6) % 5).astype(dtype)
    state = tuple((np.arange(2 * B * 8).reshape(2, B, 8) % 3).astype(dtype) for _ in "hc")
    same = [a.astype(np.float32) for a in state]
    expected = model(x.astype(np.float32), same)
    assert same_bits(model(x, state), expected)
    assert same_bits(model(np.asfortranarray(x), [np.asfortranarray(s) for s in state]), expected)
    assert same_bits(model(x.tolist(), [s.tolist() for s in state]), expected)


NO_NUMBERS = {
    "complex": np.zeros((T, B, 6), complex),
    "object": np.zeros((T, 6), object),
    "times": np.zeros((T, 6), "M8[s]"),
    "str": "abc",
    "None": None,
    "ragged": [[0.0] * 6, [0.0]],
}


@pytest.mark.parametrize("wrong", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_holds_no_real_numbers_is_a_dtype_error(wrong):
    with pytest.raises(DTypeError, match=r"^x: expected"):
        made("lstm")(wrong)


@pytest.mark.parametrize("shape", [(), (6,), (T, 5), (T, B, 7), (T, B, 1, 6), (6, T)])
def test_a_wrong_shape_says_what_was_expected_and_given(shape):
    with pytest.raises(ShapeError, match=re.escape(f"(T, 6), (T, B, 6), got {shape}")):
        made("lstm")(np.zeros(shape))


@pytest.mark.parametrize("shape", [(), (T, B, 1)])
def test_tokens_of_a_wrong_shape_are_a_shape_error(shape):
    with pytest.raises(ShapeError, match="expected shape"):
        made("tokens")(np.zeros(shape, int))


STATES = {
    "one of them": np.zeros((2, B, 8)),
    "three": (np.zeros((2, B, 8)),) * 3,
    "layers": (np.zeros((1, B, 8)),) * 2,
    "batch": (np.zeros((2, B + 1, 8)),) * 2,
    "unbatched": (np.zeros((2, 8)),) * 2,
    "width": (np.zeros((2, B, 8)), np.zeros((2, B, 7))),
    "order": (np.zeros((B, 2, 8)),) * 2,
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_wrong_state_is_a_shape_error(state):
    with pytest.raises(ShapeError):
        made("lstm")(np.zeros((T, B, 6)), state)


def test_a_state_without_numbers_is_a_dtype_error():
    with pytest.raises(DTypeError, match=r"^c: expected"):
        made("lstm")(np.zeros((T, B, 6)), (np.zeros((2, B, 8)), np.zeros((2, B, 8), complex)))


def test_an_unbatched_call_refuses_a_batched_state():
    with pytest.raises(ShapeError, match=re.escape("expected shape (2, 8), got (2, 1, 8)")):
        made("lstm")(np.zeros((T, 6)), (np.zeros((2, 1, 8)),) * 2)


def test_unaligned_input_gives_the_same_bits():
    model, x = made("lstm"), fed(made("lstm"), 1, T, B)
    moved = np.frombuffer(b"x" + x.tobytes(), np.float32, x.size, 1).reshape(x.shape)
    assert same_bits(model(moved), model(x))
    tokens = made("tokens")
    x = fed(tokens, 1, T, B)
    moved = np.frombuffer(b"x" + x.tobytes(), np.int64, x.size, 1).reshape(x.shape)
    assert same_bits(tokens(moved), tokens(x))


# ---- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lstm", "learned", "tokens", "two layers of state", "no state"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_rows_past_a_length_are_zero_behind_the_heads_too(name, batch_first):
    layers, tensors = ZOO[name]
    layers = [
        nn.LSTM(a.prefix, batch_first, h0=a.h0, c0=a.c0) if isinstance(a, nn.LSTM) else a
        for a in layers
    ]
    model = clstm.from_state_dict(tensors, layers=layers)
    lengths = [4, 0, 7, 1]
    x = fed(model, 3, 7, 4)
    own = x.swapaxes(0, 1) if model.batch_first else x
    y, state = model(own, lengths=lengths)
    y = y.swapaxes(0, 1) if model.batch_first else y
    assert y.shape[:2] == (7, 4)
    for b, n in enumerate(lengths):
        alone, end = model(x[:n, b])
        assert same_bits(np.ascontiguousarray(y[:n, b]), alone)
        assert same_bits(y[n:, b], np.zeros_like(y[n:, b]))
        row = [tuple(a.take(b, axis=a.ndim - 2) for a in pair) for pair in listed(state)]
        assert same_bits(row, listed(end))


def listed(state):
    return [] if state is None else state if isinstance(state, list) else [state]


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda a: np.array(a, np.uint8)])
def test_lengths_may_be_any_integers(kind):
    model = made("lstm")
    x = fed(model, 3, T, B)
    assert same_bits(model(x, lengths=kind([5, 1, 0])), model(x, lengths=np.int64([5, 1, 0])))


WRONG_LENGTHS = {
    "too long": [6, 1, 1],
    "negative": [-1, 1, 1],
    "too few": [5, 1],
    "too many": [5, 1, 1, 1],
    "a number": 5,
    "two axes": [[5, 1, 1]],
    "floats": [5.0, 1.0, 1.0],
    "huge": [2**63, 1, 1],
}


@pytest.mark.parametrize("lengths", WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
def test_wrong_lengths_are_a_shape_error(lengths):
    with pytest.raises(ShapeError, match=r"^lengths: expected"):
        made("lstm")(np.zeros((T, B, 6)), lengths=lengths)


def test_lengths_of_an_unbatched_call_are_a_shape_error():
    with pytest.raises(ShapeError, match=r"^lengths"):
        made("lstm")(np.zeros((T, 6)), lengths=[T])


# ---- nothing at all ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0), (0,)])
def test_no_steps_or_no_batch_give_empty_outputs_and_the_state_unchanged(name, shape):
    model = made(name)
    y, state = model(fed(model, 1, *shape))
    assert y.shape == (*shape, model.output_size) and y.dtype == np.float32
    again, after = model(fed(model, 1, *shape), state)
    assert again.shape == y.shape and same_bits(after, state)
    if shape == (0,):
        assert same_bits(state, model.stream().state)
    if len(shape) == 2:
        assert same_bits(model(fed(model, 1, *shape), lengths=[0] * shape[1])[1], state)


# ---- about ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_attributes(name):
    model = made(name)
    tokens = name == "tokens"
    assert model.input_size == (None if tokens else 6)
    assert model.num_embeddings == (11 if tokens else 0)
    assert model.output_size == model.stream().run(fed(model, 1, 1)).shape[1]
    assert model.precision == "float32" and model.threads == 1 and model.gemm == "packed"
    assert model.kernel in clstm.available_kernels()
    assert len(model.layers) == len(ZOO[name][0])
    assert [type(a) for a in model.layers] == [type(a) for a in ZOO[name][0]]
    n_bytes = sum(a.nbytes for a in ZOO[name][1].values())
    assert n_bytes * 0.5 < model.nbytes < n_bytes * 4 + 20_000
    with pytest.raises(AttributeError):
        model.kernel = "scalar"


@pytest.mark.parametrize("name", ZOO)
def test_repr_is_one_readable_line(name):
    model = made(name)
    text = repr(model)
    assert "\n" not in text and len(text) < 200 and text.startswith("clstm.Model(")
    assert f"kernel={model.kernel}" in text and "float32" in text and "KiB" in text
    for layer in ZOO[name][0]:
        assert type(layer).__name__ in text


def test_fingerprint_tells_weights_and_layers_and_nothing_else():
    layers, tensors = ZOO["cell and head"]
    prints = {made("cell and head", kernel=k).fingerprint for k in clstm.available_kernels()}
    prints.add(clstm.from_state_dict(dict(reversed(tensors.items())), layers=layers).fingerprint)
    prints.add(
        clstm.from_state_dict(
            {k: v.astype(np.float64) for k, v in tensors.items()}, layers=layers
        ).fingerprint
    )
    checked = [nn.LSTMCell("cell", hidden_size=7), nn.Linear("fc", out_features=3), nn.Tanh()]
    prints.add(clstm.from_state_dict(tensors, layers=checked).fingerprint)
    (one,) = prints
    assert re.fullmatch("[0-9a-f]{64}", one)
    others = {one}
    for name in tensors:
        changed = tensors | {name: tensors[name] + np.float32(2**-10)}
        others.add(clstm.from_state_dict(changed, layers=layers).fingerprint)
    others.add(clstm.from_state_dict(tensors, layers=layers[:2]).fingerprint)
    others.add(clstm.from_state_dict(tensors, layers=[*layers[:2], nn.ReLU()]).fingerprint)
    assert len(others) == len(tensors) + 3


@pytest.mark.parametrize("name", ZOO)
def test_a_model_pickles_as_its_file(name, tmp_path):
    model = made(name)
    x = fed(model, 1, T) if name != "cell" else fed(model, 1)
    for other in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert type(other) is clstm.Model and other.fingerprint == model.fingerprint
        assert other.layers == model.layers and same_bits(other(x), model(x))
    model.save(tmp_path / "m.clstm")
    assert (tmp_path / "m.clstm").read_bytes() in pickle.dumps(model)


def test_every_gemm_and_kernel_option_shows_in_the_model(monkeypatch):
    monkeypatch.delenv("CLSTM_KERNEL", raising=False)
    assert made("lstm").kernel == clstm.available_kernels()[0]
    for kernel in clstm.available_kernels():
        assert made("lstm", kernel=kernel).kernel == kernel


def test_calls_do_not_change_the_model():
    model, x = made("learned"), fed(made("learned"), 1, T, B)
    before = model(x)
    model.stream().run(x[:, 0])
    model(x * np.nan)
    assert same_bits(model(x), before)
    assert same_bits(made("learned")(x), before)


def test_a_state_of_a_cell_may_have_an_axis_of_1_for_the_batch():
    torch = pytest.importorskip("torch")
    m = clstm.from_torch([torch.nn.LSTMCell(5, 6), torch.nn.Linear(6, 2)])
    x, h = np.ones((1, 5), np.float32), np.full((1, 6), 0.5, np.float32)
    y, state = m(x, (h, h))
    assert np.array_equal(y, m(x, (h[0], h[0]))[0]) and state[0].shape == (6,)
    with pytest.raises(ShapeError):
        m(x, (h[None], h[None]))
