# SPDX-License-Identifier: MIT
"""Options, files and arguments that a review found to be taken wrongly, or refused in words that
say too little."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

import clstm
from clstm import ModelFormatError, nn
from clstm.formats import from_gates
from samples import floats, lstm_tensors, recurrent_tensors, rng_of, same_bits

LSTM = lstm_tensors(rng_of(0), 3, 4)
GRU = recurrent_tensors(rng_of(1), nn.GRU(), 3, 4)
NAN, INF = float("nan"), float("inf")


def of(layer, tensors):
    return clstm.from_state_dict(tensors, layers=[layer])


# ---- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, options", [
    (nn.LSTM, {"forget_bias": 3.0, "coupled": "f=1-i"}), (nn.LSTM, {"cell_clip_stored": True}),
    (nn.LSTM, {"forget_bias": INF}), (nn.LSTM, {"forget_bias": 1e39}),
    (nn.LSTM, {"forget_bias": True}), (nn.LSTM, {"forget_bias": 10**400}),
    (nn.LSTM, {"clip": 1e39}), (nn.LSTM, {"clip": 1e-60}), (nn.LSTM, {"clip": INF}),
    (nn.LSTM, {"clip": 10**400}), (nn.LSTM, {"clip": np.ones(2)}), (nn.LSTM, {"clip": True}),
    (nn.LSTM, {"cell_clip": 1e39}), (nn.LSTM, {"proj_clip": "1"}), (nn.LSTM, {"clip": 1j}),
    (nn.LSTM, {"zoneout": (True, False)}), (nn.LSTM, {"zoneout": (NAN, 0)}),
    (nn.RNN, {"activations": [("HardTanh", 1, -1)]}), (nn.RNN, {"activations": [("Elu", NAN)]}),
    (nn.RNN, {"activations": [("Affine", 1, INF)]}), (nn.RNN, {"activations": [("Elu", 1e39)]}),
    (nn.RNN, {"activations": [("Elu", 10**400)]}), (nn.RNN, {"activations": [("Elu", True)]}),
    (nn.LSTM, {"peephole": np.ones(3)}),
    (nn.GRU, {"linear_before_reset": "no"}), (nn.GRU, {"linear_before_reset": None}),
    (nn.Output, {"last": ("a", "b")}), (nn.Output, {"last": (1, 0)}), (nn.Output, {"last": "ab"}),
    (nn.Dropout, {"p": 1.5}), (nn.Dropout, {"p": -0.1}), (nn.Dropout, {"p": NAN}),
    (nn.LeakyReLU, {"negative_slope": NAN}), (nn.LeakyReLU, {"negative_slope": "a"}),
    (nn.ELU, {"alpha": NAN}), (nn.ELU, {"alpha": None}), (nn.Softplus, {"beta": NAN}),
    (nn.Softplus, {"threshold": [1]}), (nn.Hardtanh, {"min_val": NAN}),
    (nn.Hardtanh, {"max_val": "1"}), (nn.LayerNorm, {"eps": "a"}), (nn.BatchNorm1d, {"eps": None}),
    (nn.Add, {"inputs": (0, True)}), (nn.Add, {"inputs": (0, 1.0)}), (nn.Slice, {"start": 1.5}),
])  # fmt: skip
def test_an_option_that_makes_no_sense_is_a_value_error(kind, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)


def test_numbers_of_numpy_become_pythons():
    layer = nn.LSTM(
        clip=np.float32(0.5), cell_clip=np.array(2), forget_bias=np.int64(1),
        zoneout=np.array([0.25, 0.5]), batch_first=np.bool_(True),
        layer_norm={"eps": np.float32(0.5), "cell": np.bool_(True)},
        activations=[("HardTanh", np.float32(-1), np.int64(1)), "Tanh", "Tanh"],
    )  # fmt: skip
    same = nn.LSTM(
        clip=0.5, cell_clip=2, forget_bias=1, zoneout=(0.25, 0.5), batch_first=True,
        layer_norm={"eps": 0.5, "cell": True}, activations=[("HardTanh", -1, 1), "Tanh", "Tanh"],
    )  # fmt: skip
    assert layer == same and repr(layer) == repr(same)
    assert nn.Add(np.array([0, 1])) == nn.Add((np.int64(0), np.int32(1))) == nn.Add((0, 1))
    assert type(nn.Add(np.array([0, 1])).inputs[0]) is int
    assert nn.Output((1,), np.array([True])).last == (True,)
    assert nn.Slice(np.int64(1), np.int64(2)) == nn.Slice(1, 2)
    assert type(nn.ELU(np.float32(0.5)).alpha) is float


@pytest.mark.parametrize("kind", [nn.LSTM, nn.Linear, nn.LayerNorm, nn.GRUCell, nn.PReLU])
@pytest.mark.parametrize("prefix", [5, None, b"lstm"])
def test_a_prefix_is_text(kind, prefix):
    with pytest.raises(TypeError, match=f"prefix={prefix!r}: expected text"):
        kind(prefix)


@pytest.mark.parametrize("name", ["batch_first", "reverse"])
@pytest.mark.parametrize("value", ["no", None, 2, [True]])
def test_flags_are_refused_in_the_same_words(name, value):
    with pytest.raises(ValueError) as caught:
        nn.GRU(**{name: value})
    assert str(caught.value) == f"{name}={value!r}: expected one of False, True"


@pytest.mark.parametrize("h0", [[["a"] * 4], [[1.0], [1.0, 2.0]], np.ones((1, 4), complex), {}])
def test_an_initial_state_of_no_numbers_names_layer_and_option(h0):
    with pytest.raises(ModelFormatError, match=r"nn\.|GRU\(.*h0: expected"):
        of(nn.GRU(h0=h0), GRU)
    with pytest.raises(ModelFormatError, match="scale: expected"):
        of(nn.Affine(scale=h0), {})


def test_a_complex_weight_is_refused():
    with pytest.raises(ModelFormatError, match="weight_ih_l0: expected floating point"):
        of(nn.GRU(), GRU | {"weight_ih_l0": GRU["weight_ih_l0"].astype(complex)})


def test_messages_show_what_was_given():
    with pytest.raises(ModelFormatError, match="hidden_size='4', but the tensors say 4"):
        of(nn.LSTM(hidden_size="4"), LSTM)
    with pytest.raises(ModelFormatError, match=r"bias_ih_l0: expected shape \(12,\), found"):
        of(nn.GRU(), GRU | {"bias_ih_l0": np.zeros(4, "f4")})
    with pytest.raises(ModelFormatError, match=r"^h0: expected shape \(1, 4\)"):
        of(nn.LSTM(h0=np.zeros((2, 4))), LSTM)
    with pytest.raises(ModelFormatError, match="an LSTM; expected as many, found"):
        of(nn.RNN(), LSTM)


def test_a_model_shows_options_that_are_off():
    assert "GRU(3->4 linear_before_reset=False)" in repr(of(nn.GRU(linear_before_reset=False), GRU))
    assert "GRU(3->4)" in repr(of(nn.GRU(), GRU))
    assert "GRU(3->4 reverse)" in repr(of(nn.GRU(reverse=True), GRU))


def test_a_layer_against_time_has_no_stream():
    with pytest.raises(clstm.UnsupportedError, match="goes against time needs the whole sequence"):
        of(nn.GRU(reverse=True), GRU).stream()


# ---- certificates ------------------------------------------------------------------------------


def mixed(*last, batch_first=False):
    layers = [
        nn.LSTM(batch_first=batch_first),
        nn.Slice(0, 2),
        nn.Output((1, 2)[: len(last)], last),
    ]
    return clstm.from_state_dict(LSTM, layers=layers)


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3), (2, 5, 3)])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("last", [(True,), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("kind", ["clstm", "safetensors"])
def test_a_certificate_takes_what_the_call_returns(last, batch_first, shape, kind, tmp_path):
    model, x = mixed(*last, batch_first=batch_first), floats(rng_of(2), *shape)
    path, y = tmp_path / f"m.{kind}", model(x)[0]
    model.save(path, check=(x, y))
    again = clstm.load(path)
    assert same_bits(again(x), model(x))
    parts = [part + np.float32(2e-6) for part in (y if isinstance(y, tuple) else (y,))]
    near = tuple(parts) if len(parts) > 1 else parts[0]
    model.save(path, check=(x, near))  # the caller's own numbers are what is kept
    at = (slice(None),) * 2 if not last[0] else (-1, slice(None))
    kept = clstm.load(path)._parsed.check[1][at][..., : parts[0].shape[-1]]
    first = parts[0] if parts[0].ndim < 3 or not batch_first else parts[0].swapaxes(0, 1)
    np.testing.assert_array_equal(kept.reshape(first.shape), first)
    parts[-1].reshape(-1)[-1] += 0.01
    with pytest.raises(ValueError, match="check: y is not what this model gives"):
        model.save(path, check=(x, tuple(parts) if len(parts) > 1 else parts[0]))


def test_a_last_step_of_a_long_sequence_is_no_certificate(tmp_path):
    model, x = mixed(True), floats(rng_of(2), 129, 2, 3)
    with pytest.raises(ValueError, match=r"256 rows.*give fewer than these 258"):
        model.save(tmp_path / "m.clstm", check=(x, model(x)[0]))
    model.save(tmp_path / "m.clstm", check=(x[:128], model(x[:128])[0]))
    clstm.load(tmp_path / "m.clstm")


@pytest.mark.parametrize("check, words", [
    (3, r"expected \(x, y\)"), ("xy", r"expected \(x, y\)"), ((1, 2, 3), "got 3 values"),
    ((np.zeros((2, 3)),), "got 1 values"),
    ((np.zeros((2, 3)), (np.zeros((2, 4)), np.zeros(2))), "without the state"),
    ((np.zeros((2, 3)), (np.zeros((2, 4)), (np.zeros(2), np.zeros(2)))), "without the state"),
    ((np.zeros(3), np.zeros(4)), r"x \(3,\) does not fit"),
    ((np.zeros((2, 3)), np.zeros(())), "do not fit"),
    ((np.zeros((2, 1, 3)), np.zeros(4)), "do not fit"),
])  # fmt: skip
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_check_of_another_form_says_what_was_expected(check, words, batch_first, tmp_path):
    for model in (of(nn.LSTM(batch_first=batch_first), LSTM), mixed(False, True)):
        with pytest.raises(ValueError, match="check: "):
            model.save(tmp_path / "m.clstm", check=check)
    with pytest.raises(ValueError, match=words):
        of(nn.LSTM(batch_first=batch_first), LSTM).save(tmp_path / "m.clstm", check=check)
    assert not list(tmp_path.iterdir())


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [
    [{"type": "LSTM", "prefix": 5}], [{"type": "LSTM", "prefix": None}], [{"type": "Layer"}],
    [{"type": "LSTM"}, {"type": "Add", "inputs": [-1, 2]}],
    [{"type": "LSTM"}, {"type": "Add", "inputs": [0, 2**70]}],
    [{"type": "LSTM"}, {"type": "Add", "inputs": []}], [{"type": "LSTM"}, {"type": "Add"}],
    [{"type": "LSTM"}, {"type": "Concat", "inputs": [1] * 1000}], [{"type": "LSTM"}, {}],
    [{"type": "LSTM"}, None], [{"type": "LSTM"}, {"type": "Identity", "input": 9}],
    [{"type": "LSTM"}, {"type": "Slice"}], [{"type": "LSTM"}, {"type": "Slice", "stop": 2**70}],
    [{"type": "LSTM", "h0": {"a": 1}}], [{"type": "LSTM", "h0": [["a"]]}],
    [{"type": "LSTM"}, {"type": "LayerNorm", "eps": "a"}],
    [{"type": "LSTM"}, {"type": "Affine", "scale": {"a": 1}}],
    [{"type": "LSTM"}, {"type": "Output"}, {"type": "Tanh"}],
    [{"type": "LSTM"}, {"type": "Output", "last": [True, True]}],
    [{"type": "LSTM", "activations": ["Tanh"] * 6}], [{"type": "LSTM", "layer_norm": 1}],
    [{"type": "LSTM", "batch_first": True}, {"type": "LSTM"}], 5, {}, None, "LSTM", [],
])  # fmt: skip
def test_hostile_layers_of_a_file_are_a_format_error_that_names_it(layers, tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(save(LSTM, {"clstm.layers": json.dumps(layers)}))
    with pytest.raises(ModelFormatError, match=r"hostile\.safetensors"):
        clstm.load(path)


def test_a_pickled_model_has_one_thread():
    model = clstm.from_state_dict(LSTM, threads=2)
    assert (model.threads, pickle.loads(pickle.dumps(model)).threads) == (2, 1)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("states", [5, "ab", [1], {"a": "b"}])
def test_states_that_are_no_pairs_say_what_was_expected(states):
    with pytest.raises(ValueError, match=r"states=.*expected \[\(input name, output name\)"):
        clstm.load(b"\x08\x07\x12\x00", states=states)


@pytest.mark.parametrize("name", ["key", "states", "foo", "external_data"])
def test_an_option_that_a_function_has_not_is_named_with_it(name):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=rf"^from_state_dict\(\) has no option {name}="):
        clstm.from_state_dict(LSTM, **{name: None})
    with pytest.raises(TypeError, match=rf"^from_torch\(\) has no option {name}="):
        clstm.from_torch(torch.nn.LSTM(3, 4), **{name: None})
    with pytest.raises(TypeError, match=r"^from_torch\(\) has no option layers="):
        clstm.from_torch(torch.nn.LSTM(3, 4), layers=[nn.LSTM()])
    clstm.from_torch(torch.nn.LSTM(3, 4), strict=True, threads=1, max_bytes=10)


def gates(letters, n_in, hidden):
    found = {}
    for k in letters:
        found |= {f"W_x{k}": floats(rng_of(1), hidden, n_in)}
        found |= {f"W_h{k}": floats(rng_of(2), hidden, hidden)}
    return found


@pytest.mark.parametrize("layers, words", [
    ([gates("ifgo", 3, 5), gates("rzn", 5, 5)], "layer 2 is a GRU, the first an LSTM"),
    ([gates("h", 3, 5), gates("ifgo", 5, 5)], "layer 2 is an LSTM, the first an RNN"),
    ([gates("igo", 3, 5), gates("ifgo", 5, 5)], "the first an LSTM without f"),
    ([gates("ifgo", 3, 5), gates("ifgo", 4, 5)], "layer 2 takes 4 features, the one before gives"),
    ([gates("ifgo", 3, 5), gates("ifgo", 5, 4)], "layer 2 has 4 units"),
])  # fmt: skip
def test_a_list_of_gates_is_one_stack(layers, words):
    with pytest.raises(ModelFormatError, match=words):
        from_gates(layers)
    from_gates([layers[0]])


def test_gates_and_order_of_another_type_say_what_was_expected():
    with pytest.raises(TypeError, match=r"gates: expected arrays by name, or a list.*got int"):
        from_gates(5)
    with pytest.raises(TypeError, match="order=5: expected the letters"):
        from_gates({"i2h.weight": np.zeros((4, 2))}, "torch7", order=5)
