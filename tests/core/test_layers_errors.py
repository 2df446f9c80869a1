# SPDX-License-Identifier: MIT
"""Tensors that do not fit their description: which one, what was expected, what was found."""

import numpy as np
import pytest
import torch

import clstm
from bounds.tolerances import NEAR
from clstm import ModelFormatError, UnsupportedError, nn
from samples import floats, recurrent_tensors, rng_of


def made(layer, **options):
    return recurrent_tensors(rng_of(1), layer, 3, 4, **options)


GRU, LSTM, RNN = made(nn.GRU()), made(nn.LSTM()), made(nn.RNN())
COUPLED = made(nn.LSTM(coupled="f=1-i"))
TWO = made(nn.LSTM(), layers=2)
PEEPING = made(nn.LSTM(peephole="diagonal"))
FULL = made(nn.LSTM(peephole="full"))
NORM = made(nn.LSTM(layer_norm={"separate": True, "cell": True}))
PROJECTED = made(nn.LSTM(), proj=2)


def zeros(*shape):
    return np.zeros(shape, np.float32)


# Layer, tensors, and words of the message in order.
REFUSED = {
    "a GRU as an LSTM": (nn.LSTM(), GRU, "weight_hh_l0 has 3 times as many rows as columns: a GRU",
                         r"found shape \(12, 4\)"),
    "an LSTM as a GRU": (nn.GRU(), LSTM, "weight_hh_l0 has 4 times as many rows", "an LSTM",
                         "expected 3 times"),
    "an RNN as an LSTM": (nn.LSTM(), RNN, "as many rows as columns: an RNN", "expected 4"),
    "an LSTM as an RNN": (nn.RNN(), LSTM, "weight_hh_l0 has 4 times", "an LSTM"),
    "a GRU cell as an LSTM": (nn.LSTMCell(), made(nn.GRUCell()), "weight_hh has 3 times", "a GRU"),
    "a plain LSTM as coupled": (nn.LSTM(coupled="i=1-f"), LSTM, "weight_hh_l0 has 4 times",
                                "not coupled", "expected 3 times"),
    "a coupled LSTM as plain": (nn.LSTM(), COUPLED, "an LSTM with coupled=", "expected 4"),
    "rows of no gates": (nn.LSTM(), LSTM | {"weight_ih_l0": zeros(18, 3)}, "weight_ih_l0",
                         r"4 \* hidden_size rows", "18"),
    "rows of no GRU's gates": (nn.GRU(), GRU | {"weight_ih_l0": zeros(13, 3)}, "weight_ih_l0",
                               r"a GRU has 3 \* hidden_size rows", "13"),
    "mixed sizes": (nn.LSTM(), TWO | {"weight_ih_l1": zeros(20, 4), "weight_hh_l1": zeros(20, 5)},
                    "weight_ih_l1", r"4 \* hidden_size rows, 16 as its other", r"\(20, 4\)"),
    "mixed inputs": (nn.LSTM(), TWO | {"weight_ih_l1": zeros(16, 5)}, "weight_ih_l1",
                     r"\(16, 4\)", r"\(16, 5\)"),
    "mixed directions": (nn.GRU(), GRU | {f"{n}_reverse": a for n, a in made(nn.GRU()).items()}
                         | {"weight_hh_l0_reverse": zeros(12, 5)}, "weight_hh_l0_reverse",
                         r"\(12, 4\)", r"\(12, 5\)"),
    "another width": (nn.GRU(input_size=5), GRU, "input_size=5", "3"),
    "a short peephole": (nn.LSTM(peephole="diagonal"), PEEPING | {"weight_ch_l0": zeros(11)},
                         "weight_ch_l0", "rows i, f, o", r"\(12,\)", r"\(11,\)"),
    "two rows of three": (nn.LSTM(peephole="diagonal"), PEEPING | {"weight_ch_l0": zeros(8)},
                          "weight_ch_l0", r"\(12,\)", r"\(8,\)"),
    "a full one as diagonal": (nn.LSTM(peephole="diagonal"), FULL, "weight_ch_l0", r"\(12,\)",
                               r"\(16, 4\)"),
    "a diagonal one as full": (nn.LSTM(peephole="full"), PEEPING, "weight_ch_l0", r"\(16, 4\)",
                               r"\(12,\)"),
    "no peephole": (nn.LSTM(peephole="full"), LSTM, "weight_ch_l0 is missing"),
    "a peephole too many": (nn.LSTM(), PEEPING, "weight_ch_l0 belongs to nn.LSTM with peephole="),
    "norms too many": (nn.LSTM(), NORM, "ln_ih_l0.weight belongs to nn.LSTM with layer_norm="),
    "a norm too many": (nn.LSTM(layer_norm={"cell": True}), NORM, "ln_hh_l0.weight",
                        r"layer_norm=dict\(separate=True\)"),
    "no norm": (nn.LSTM(layer_norm={"separate": True}), made(nn.LSTM(layer_norm={})),
                "ln_hh_l0.weight is missing"),
    "a short norm": (nn.LSTM(layer_norm={}), made(nn.LSTM(layer_norm={}))
                     | {"ln_ih_l0.weight": zeros(4)}, "ln_ih_l0.weight", r"\(16,\)", r"\(4,\)"),
    "half the norms' biases": (nn.LSTM(layer_norm={"separate": True}),
                               made(nn.LSTM(layer_norm={"separate": True}))
                               | {"ln_ih_l0.bias": zeros(16)}, "ln_hh_l0.bias is missing"),
    "one bias": (nn.RNN(), {n: a for n, a in RNN.items() if n != "bias_hh_l0"},
                 "bias_hh_l0 is missing"),
    "a bias too short": (nn.GRU(), GRU | {"bias_hh_l0": zeros(4)}, "bias_hh_l0", r"\(12,\)"),
    "a GRU with a projection": (nn.GRU(), GRU | {"weight_hr_l0": zeros(2, 4)}, "weight_hr_l0",
                                "projection"),
    "a projection's bias alone": (nn.LSTM(), LSTM | {"bias_hr_l0": zeros(2)}, "bias_hr_l0"),
    "a clip of no projection": (nn.LSTM(proj_clip=1), LSTM, "proj_clip", "weight_hr_l0"),
    "a wide projection": (nn.LSTM(), LSTM | {"weight_hh_l0": zeros(16, 5),
                                             "weight_hr_l0": zeros(5, 4)}, "proj_size 5"),
    "a gap": (nn.GRU(), GRU | {n.replace("l0", "l2"): a for n, a in GRU.items()},
              "weight_ih_l1 is missing"),
    "no tensors": (nn.GRU("x"), GRU, "x.weight_ih_l0 is missing", "there is weight_ih_l0"),
    "integers": (nn.RNN(), RNN | {"weight_hh_l0": np.zeros((4, 4), int)}, "weight_hh_l0",
                 "floating point", "int64"),
    "two directions reversed": (nn.GRU(reverse=True), made(nn.GRU(), bidirectional=True),
                                "reverse=True", "weight_ih_l0_reverse"),
    "a learned state": (nn.GRU(h0=np.zeros((2, 4))), GRU, "h0", r"\(1, 4\)", r"\(2, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_message_names_the_tensor_and_both_sides(name):
    layer, tensors, *words = REFUSED[name]
    with pytest.raises(ModelFormatError, match=".*".join(words)):
        clstm.from_state_dict(tensors, layers=[layer])


@pytest.mark.parametrize("name", [n for n in LSTM if "bias" not in n] + ["weight_hr_l0"])
@pytest.mark.parametrize("shape", [(), (16,), (0, 4), (16, 3, 1)])
def test_another_rank_is_refused(name, shape):
    with pytest.raises(ModelFormatError, match=name):
        clstm.from_state_dict(PROJECTED | {name: zeros(*shape)}, layers=[nn.LSTM()])


@pytest.mark.parametrize("layer, tensors", [
    (nn.LSTM(zoneout=(0.1, 0)), PROJECTED),
    (nn.LSTM(peephole="full", layer_norm={}), made(nn.LSTM(peephole="full", layer_norm={}))),
])  # fmt: skip
def test_what_no_text_defines_is_unsupported(layer, tensors):
    with pytest.raises(UnsupportedError, match="together with"):
        clstm.from_state_dict(tensors, layers=[layer])


@pytest.mark.parametrize("kind, options", [
    (nn.LSTM, {"activations": ["Sigmoid", "Sine", "Tanh"]}),
    (nn.LSTM, {"activations": ["Sigmoid", "Tanh"]}), (nn.GRU, {"activations": ["Tanh"] * 3}),
    (nn.GRUCell, {"activations": ["Tanh"] * 4}), (nn.RNN, {"activations": [("Elu", 1, 2, 3)]}),
    (nn.RNN, {"nonlinearity": "sigmoid"}), (nn.LSTM, {"peephole": "both"}),
    (nn.LSTM, {"peephole": "diagonal", "output_peephole": "new"}), (nn.LSTM, {"coupled": True}),
    (nn.LSTM, {"clip": 0}), (nn.LSTM, {"cell_clip": -1}), (nn.GRU, {"clip": float("nan")}),
    (nn.LSTM, {"zoneout": (0.1, 1.1)}), (nn.LSTM, {"zoneout": 0.1}),
    (nn.LSTM, {"forget_bias": float("nan")}), (nn.LSTM, {"layer_norm": {"joint": True}}),
    (nn.LSTM, {"layer_norm": {"cell": "new"}}), (nn.LSTM, {"layer_norm": {"eps": -1}}),
    (nn.GRU, {"batch_first": "yes"}),
])  # fmt: skip
def test_an_option_out_of_range_is_a_value_error(kind, options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=name):
        kind(**options)


@pytest.mark.parametrize("make", [
    lambda: nn.LSTM(activations=["Sigmoid", "Swish", "Tanh"]), lambda: nn.RNN(activations="gelu"),
    lambda: nn.GRU(activations=["Sigmoid"]), lambda: nn.LSTM(activations=7),
])  # fmt: skip
def test_an_unknown_activation_is_an_error_of_ours(make):
    with pytest.raises(ModelFormatError, match="activations"):
        make()


def test_what_is_guessed_is_named_with_what_was_found():
    wrong = PROJECTED | {"weight_hr_l0": zeros(2, 5)}
    with pytest.raises(ModelFormatError, match=r"weight_hh_l0.*weight_hr_l0, \(2, 5\).*\(16, 2\)"):
        clstm.from_state_dict(wrong)
    with pytest.raises(ModelFormatError, match=r"weight_hh_l0.*it has columns, found .*\(16, 3\)"):
        clstm.from_state_dict(LSTM | {"weight_hh_l0": zeros(16, 3)})
    for layer, tensors, there in (
        (nn.LSTM(), made(nn.LSTMCell()), "weight_ih"), (nn.LSTMCell(), LSTM, "weight_ih_l0"),
    ):  # fmt: skip
        with pytest.raises(ModelFormatError, match=f"is missing; there is {there}$"):
            clstm.from_state_dict(tensors, layers=[layer])


def test_activations_of_two_directions_need_two():
    with pytest.raises(ValueError, match="two directions"):
        clstm.from_state_dict(GRU, layers=[nn.GRU(activations=["Sigmoid", "Tanh"] * 2)])


@pytest.mark.parametrize("strict", [True, False])
def test_tensors_that_need_an_option_are_never_guessed(strict):
    coupled = made(nn.LSTM(coupled="f=1-i", peephole="diagonal"))
    for tensors, words in ((PEEPING, 'peephole="diagonal"'), (FULL, 'peephole="full"'),
                           (NORM, "separate=True, cell=True"), (coupled, "coupled=")):  # fmt: skip
        with pytest.raises(ModelFormatError, match="an option") as caught:
            clstm.from_state_dict(tensors, strict=strict)
        assert words in str(caught.value)


# ---- live modules, states and calls --------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True},
    {"num_layers": 2, "dropout": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["GRU", "RNN", "relu"])
def test_from_torch_takes_live_grus_and_rnns(kind, options):
    torch.manual_seed(0)
    more = {"nonlinearity": "relu"} if kind == "relu" else {}
    module = getattr(torch.nn, "GRU" if kind == "GRU" else "RNN")(3, 4, **options, **more).eval()
    model, x = clstm.from_torch(module), floats(rng_of(2), 5, 5, 3)
    with torch.no_grad():
        y, h = (a.numpy() for a in module(torch.from_numpy(x)))
        alone = [a.numpy() for a in module(torch.from_numpy(x[0]))]
    for got, expected in zip((*model(x), *model(x[0])), (y, h, *alone), strict=True):
        assert got.shape == expected.shape and got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=NEAR)


@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell"])
def test_a_bare_cell_is_one_step_and_returns_h(kind):
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 4)
    model, x, h = clstm.from_torch(module), floats(rng_of(2), 2, 3), floats(rng_of(3), 2, 4)
    with torch.no_grad():
        expected = module(torch.from_numpy(x), torch.from_numpy(h)).numpy()
    np.testing.assert_allclose(model(x, h), expected, atol=NEAR)
    np.testing.assert_allclose(model(x[0], h[0]), expected[0], atol=NEAR)
    with pytest.raises(clstm.ShapeError, match=f"nn.{kind[:3]}"):
        model(x[None])
    stream = model.stream(h[0])
    np.testing.assert_allclose(stream.step(x[0]), expected[0], atol=NEAR)
    assert stream.state.shape == (4,)


@pytest.mark.parametrize("layer", [nn.GRU(), nn.RNN()], ids=repr)
def test_a_state_is_h_alone(layer):
    model = clstm.from_state_dict(made(layer, layers=2), layers=[layer])
    h, x = floats(rng_of(2), 2, 4), floats(rng_of(3), 5, 3)
    stream = model.stream(h)
    assert stream.state.shape == (2, 4)
    np.testing.assert_array_equal(stream.state, h)
    y = stream.run(x)
    again, h_n = model(x, h)
    np.testing.assert_allclose(y, again, atol=NEAR)
    np.testing.assert_allclose(stream.state, h_n, atol=NEAR)
    copy = model.stream(snapshot=stream.snapshot())
    np.testing.assert_array_equal(copy.step(x[0]), stream.step(x[0]))
    for wrong in ((h, h), (h,), h[:1], [h]):
        with pytest.raises(clstm.ShapeError, match="h"):
            model(x, wrong)


def test_several_kinds_have_a_list_of_states():
    layers = [nn.GRU("a"), nn.LSTM("b"), nn.RNNCell("c")]
    tensors = {}
    for layer in layers:
        tensors |= recurrent_tensors(rng_of(1), layer, 4, 4)
    model = clstm.from_state_dict(tensors, layers=layers)
    _, (a, (h, c), e) = model(floats(rng_of(2), 5, 2, 4))
    assert (a.shape, h.shape, c.shape, e.shape) == ((1, 2, 4), (1, 2, 4), (1, 2, 4), (2, 4))
    y, states = model(floats(rng_of(3), 5, 2, 4), [a, (h, c), e])
    assert y.shape == (5, 2, 4) and len(states) == 3
    with pytest.raises(clstm.ShapeError, match="h alone"):
        model(floats(rng_of(3), 5, 2, 4), [(a, a), (h, c), e])
    assert "GRU(4->4) + LSTM(4->4) + RNNCell(4->4)" in repr(model)
