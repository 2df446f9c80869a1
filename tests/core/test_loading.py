# SPDX-License-Identifier: MIT
"""from_state_dict: layers, prefixes, values.

The readers of files have their tests in tests/unit; files of ours in test_files.py.
"""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

import clstm
from clstm import ModelFormatError, UnsupportedError, nn
from samples import ZOO, floats, linear_tensors, lstm_tensors, rng_of, same_bits


def lstm(prefix="", **options):
    return lstm_tensors(rng_of(0), 6, 8, prefix=prefix, **options)


def with_head(lstm_prefix="lstm", head_prefix="fc"):
    return lstm(lstm_prefix) | linear_tensors(rng_of(1), 8, 3, head_prefix)


HEAD = [nn.LSTM("lstm"), nn.Linear("fc")]


def bits(model):
    return model(floats(rng_of(2), 5, 6))[0]


# ---- without layers= -----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "lstm", "encoder.rnn", "module.lstm", "model", "a.b.c.0"])
@pytest.mark.parametrize("options", [{}, {"layers": 3}, {"bidirectional": True}, {"proj": 3},
                                     {"bias": False}, {"cell": True}])  # fmt: skip
def test_exactly_one_recurrent_module_is_found_under_any_prefix(prefix, options):
    tensors = lstm(prefix, **options)
    model = clstm.from_state_dict(tensors)
    (layer,) = model.layers
    cell = options.get("cell", False)
    assert type(layer) is (nn.LSTMCell if cell else nn.LSTM) and layer.prefix == prefix
    assert (layer.input_size, layer.hidden_size) == (6, 8)
    assert layer.bias == options.get("bias", True)
    if not cell:
        assert layer.batch_first is False
        assert layer.num_layers == options.get("layers", 1)
        assert layer.bidirectional == options.get("bidirectional", False)
        assert layer.proj_size == options.get("proj", 0)


@pytest.mark.parametrize("kind", ["GRU", "RNN", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("prefix", ["", "net.rnn."])
def test_a_gru_or_rnn_is_recognised(kind, prefix):
    module = getattr(torch.nn, kind)(6, 8)
    tensors = {f"{prefix}{k}": v for k, v in module.state_dict().items()}
    (layer,) = clstm.from_state_dict(tensors).layers
    assert (type(layer).__name__, layer.prefix) == (kind, prefix.removesuffix("."))
    assert (layer.input_size, layer.hidden_size, layer.bias) == (6, 8, True)


def test_a_projected_gru_shaped_lstm_is_still_an_lstm():
    tensors = lstm_tensors(rng_of(0), 6, 6, proj=2)  # weight_hh is 24 : 2, weight_hr tells H = 6
    assert clstm.from_state_dict(tensors).layers[0].proj_size == 2


def test_more_than_a_recurrent_module_says_which_layers_to_write():
    tensors = with_head()
    with pytest.raises(ModelFormatError) as caught:
        clstm.from_state_dict(tensors)
    message = str(caught.value)
    assert "fc.weight" in message and "lstm.weight_ih_l0" in message  # what was found
    line = re.search(r"layers=(\[.*\])", message)[1]
    assert line == '[nn.LSTM("lstm"), nn.Linear("fc")]'
    assert same_bits(
        bits(clstm.from_state_dict(tensors, layers=eval(line, {"nn": nn}))),
        bits(clstm.from_state_dict(tensors, layers=HEAD)),
    )


def test_strict_false_ignores_what_is_no_part_of_the_recurrent_module():
    model = clstm.from_state_dict(with_head(), strict=False)
    assert [type(a) for a in model.layers] == [nn.LSTM]
    assert same_bits(bits(model), bits(clstm.from_state_dict(lstm("lstm"))))


@pytest.mark.parametrize("strict", [True, False])
def test_two_recurrent_modules_are_refused_even_then(strict):
    tensors = lstm("first") | lstm_tensors(rng_of(3), 8, 4, prefix="second")
    with pytest.raises(ModelFormatError, match="2 recurrent modules") as caught:
        clstm.from_state_dict(tensors, strict=strict)
    assert 'layers=[nn.LSTM("first"), nn.LSTM("second")]' in str(caught.value)


@pytest.mark.parametrize("tensors", [{}, {"fc.weight": np.zeros((3, 4), np.float32)}])
def test_no_recurrent_module_is_refused(tensors):
    for strict in (True, False):
        with pytest.raises(ModelFormatError, match="recurrent modules"):
            clstm.from_state_dict(tensors, strict=strict)


def test_rows_that_fit_no_kind_are_refused():
    tensors = {"weight_ih_l0": np.zeros((10, 3), "f"), "weight_hh_l0": np.zeros((10, 5), "f")}
    with pytest.raises(ModelFormatError, match=r"4 \(LSTM\), 3 \(GRU\) or 1 \(RNN\)"):
        clstm.from_state_dict(tensors)


# ---- layers=, prefixes, wrappers -----------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["lstm", "lstm."])
def test_a_prefix_may_end_in_its_dot(prefix):
    assert same_bits(bits(clstm.from_state_dict(lstm("lstm"), layers=[nn.LSTM(prefix)])),
                     bits(clstm.from_state_dict(lstm("lstm"))))  # fmt: skip


WRAPPED = {
    "module": lambda k: f"module.{k}",
    "model": lambda k: f"model.{k}",
    "net": lambda k: f"net.{k}",
    "module.model": lambda k: f"module.model.{k}",
    "model.module.net": lambda k: f"model.module.net.{k}",
    "compiled": lambda k: f"_orig_mod.{k}",
    "compiled and wrapped": lambda k: f"module._orig_mod.{k}",
    "wrapped and compiled": lambda k: f"_orig_mod.module.{k}",
    "compiled in the middle": lambda k: f"model._orig_mod.net.{k}",
    "each part compiled": lambda k: k.replace(".", "._orig_mod."),
    "each part compiled and wrapped": lambda k: "model." + k.replace(".", "._orig_mod."),
    "one part compiled": lambda k: k.replace("lstm.", "lstm._orig_mod."),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapper_prefixes_that_all_keys_share_are_taken_off(wrap):
    expected = clstm.from_state_dict(with_head(), layers=HEAD)
    model = clstm.from_state_dict({wrap(k): v for k, v in with_head().items()}, layers=HEAD)
    assert same_bits(bits(model), bits(expected))
    assert model.fingerprint == expected.fingerprint


def test_a_prefix_matches_literally_first():
    tensors = {f"model.{k}": v for k, v in with_head().items()}
    literal = clstm.from_state_dict(tensors, layers=[nn.LSTM("model.lstm"), nn.Linear("model.fc")])
    assert same_bits(bits(literal), bits(clstm.from_state_dict(with_head(), layers=HEAD)))
    assert literal.layers[0].prefix == "model.lstm"
    both = {**lstm("lstm"), **{f"module.{k}": v * 2 for k, v in lstm("lstm").items()}}
    picked = clstm.from_state_dict(both, layers=[nn.LSTM("lstm")], strict=False)
    assert same_bits(bits(picked), bits(clstm.from_state_dict(lstm("lstm"))))


def test_wrappers_that_not_all_keys_share_stay():
    tensors = {f"model.{k}": v for k, v in with_head().items()} | {"step": np.zeros(1, "f")}
    with pytest.raises(ModelFormatError, match=r"lstm\.weight_ih_l0 is missing"):
        clstm.from_state_dict(tensors, layers=HEAD, strict=False)


def test_other_prefixes_are_not_taken_off():
    with pytest.raises(ModelFormatError, match="there is encoder") as caught:
        clstm.from_state_dict({f"encoder.{k}": v for k, v in with_head().items()}, layers=HEAD)
    assert "encoder.lstm.weight_ih_l0" in str(caught.value)


def test_without_a_prefix_the_tensors_stand_bare():
    model = clstm.from_state_dict(lstm(), layers=[nn.LSTM()])
    assert same_bits(bits(model), bits(clstm.from_state_dict(lstm("x"))))
    wrapped = {f"module.{k}": v for k, v in lstm().items()}
    assert same_bits(bits(clstm.from_state_dict(wrapped, layers=[nn.LSTM()])), bits(model))


def test_surplus_tensors_are_refused_by_name_unless_not_strict():
    tensors = with_head() | {"extra.weight": np.zeros(3, np.float32)}
    with pytest.raises(ModelFormatError, match=r"extra\.weight.*strict=False"):
        clstm.from_state_dict(tensors, layers=HEAD)
    model = clstm.from_state_dict(tensors, layers=HEAD, strict=False)
    assert same_bits(bits(model), bits(clstm.from_state_dict(with_head(), layers=HEAD)))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", with_head())
def test_a_missing_tensor_is_refused_always(name, strict):
    tensors = {k: v for k, v in with_head().items() if k != name}
    if name == "fc.bias":  # a Linear without one is a Linear
        assert clstm.from_state_dict(tensors, layers=HEAD).layers[1].bias is False
        return
    with pytest.raises(ModelFormatError, match=re.escape(name)):
        clstm.from_state_dict(tensors, layers=HEAD, strict=strict)


GAPS = [
    *("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1", "weight_hr_l1", "_l1", "_l0"),
    *("weight_hr_l0", "weight_ih_l0_reverse", "bias_hh_l0_reverse"),
]


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("strict", [True, False])
def test_gaps_between_layers_are_refused(gap, strict):
    every = lstm(layers=3, bidirectional=True, proj=3)
    tensors = {k: v for k, v in every.items() if gap != k and not k.endswith(gap)}
    assert len(tensors) < len(every)
    for layers in (None, [nn.LSTM()]):
        with pytest.raises(ModelFormatError):
            clstm.from_state_dict(tensors, layers=layers, strict=strict)
    with pytest.raises(ModelFormatError, match=gap):
        clstm.from_state_dict(tensors, layers=[nn.LSTM()], strict=strict)


WRONG_SHAPES = [
    ("lstm.weight_ih_l0", (32, 7)),
    ("lstm.weight_ih_l0", ()),
    ("lstm.weight_ih_l0", (32, 6, 1)),
    ("lstm.weight_ih_l0", (0, 6)),
    ("lstm.weight_ih_l0", (33, 6)),
    ("lstm.weight_hh_l0", (32, 9)),
    ("lstm.weight_hh_l0", (31, 8)),
    ("lstm.bias_ih_l0", (31,)),
    ("lstm.bias_hh_l0", (1, 32)),
    ("fc.weight", (3, 9)),
    ("fc.weight", (24,)),
    ("fc.weight", (0, 8)),
    ("fc.bias", (4,)),
]


@pytest.mark.parametrize("name, shape", WRONG_SHAPES)
def test_a_tensor_of_a_wrong_shape_is_refused_by_its_name_and_shape(name, shape):
    tensors = with_head() | {name: np.zeros(shape, np.float32)}
    if (name, shape) == ("lstm.weight_ih_l0", (32, 7)):  # it is what tells the input size
        assert clstm.from_state_dict(tensors, layers=HEAD).input_size == 7
        return
    with pytest.raises(ModelFormatError, match=re.escape(name)) as caught:
        clstm.from_state_dict(tensors, layers=HEAD)
    assert str(shape) in str(caught.value) or "rows" in str(caught.value)


def test_integers_are_no_weights():
    with pytest.raises(ModelFormatError, match=r"fc\.bias: expected floating point, found int64"):
        clstm.from_state_dict(with_head() | {"fc.bias": np.zeros(3, np.int64)}, layers=HEAD)


SIZES = [
    ("lstm", nn.LSTM, {"input_size": 6, "hidden_size": 8, "num_layers": 2, "bias": True,
                       "bidirectional": False, "proj_size": 0}),
    ("cell", nn.LSTMCell, {"input_size": 6, "hidden_size": 7, "bias": True}),
    ("fc", nn.Linear, {"in_features": 6, "out_features": 3, "bias": True}),
    ("emb", nn.Embedding, {"num_embeddings": 11, "embedding_dim": 6}),
    ("ln", nn.LayerNorm, {"normalized_shape": 6}),
    ("ln", nn.LayerNorm, {"normalized_shape": (6,)}),
    ("bn", nn.BatchNorm1d, {"num_features": 6}),
    ("act", nn.PReLU, {"num_parameters": 6}),
]  # fmt: skip
ONES = np.ones(6, np.float32)
OF_SIZE = {
    "lstm": lstm("lstm", layers=2),
    "cell": ZOO["cell"][1],
    "fc": linear_tensors(rng_of(0), 6, 3, "fc"),
    "emb": {"emb.weight": floats(rng_of(0), 11, 6)},
    "ln": {"ln.weight": ONES, "ln.bias": ONES},
    "bn": {"bn.running_mean": ONES, "bn.running_var": ONES},
    "act": {"act.weight": ONES},
}


@pytest.mark.parametrize("prefix, kind, sizes", SIZES)
def test_sizes_given_are_checked_and_never_needed(prefix, kind, sizes):
    tensors, before = OF_SIZE[prefix], [] if prefix != "act" else [nn.LayerNorm(normalized_shape=6)]
    plain = clstm.from_state_dict(tensors, layers=[*before, kind(prefix)])
    given = clstm.from_state_dict(tensors, layers=[*before, kind(prefix, **sizes)])
    assert plain.fingerprint == given.fingerprint
    for name, size in sizes.items():
        wrong = (
            not size if isinstance(size, bool) else (7,) if isinstance(size, tuple) else size + 1
        )
        with pytest.raises(ModelFormatError, match=name):
            clstm.from_state_dict(tensors, layers=[*before, kind(prefix, **{name: wrong})])


def test_sizes_are_checked_for_a_layer_with_arrays_too():
    layer = nn.LSTM("lstm", h0=np.zeros((1, 8), "f"), hidden_size=9)
    with pytest.raises(ModelFormatError, match="hidden_size=9, but the tensors say 8"):
        clstm.from_state_dict(lstm("lstm"), layers=[layer])


def test_descriptions_show_themselves():
    assert repr(nn.LSTM("x", batch_first=True, hidden_size=9)) == "LSTM('x', batch_first=True)"
    assert repr(nn.Linear()) == "Linear()" and repr(nn.ELU(0.5)) == "ELU(alpha=0.5)"
    assert "h0=ndarray" in repr(nn.LSTM("lstm", h0=np.zeros(2)))
    assert "scale=ndarray" in repr(nn.Affine(scale=np.ones(2)))


def test_widths_must_fit_from_layer_to_layer():
    tensors = lstm("lstm") | linear_tensors(rng_of(1), 9, 3, "fc")
    with pytest.raises(ModelFormatError, match=re.escape("fc.weight: expected shape (any, 8)")):
        clstm.from_state_dict(tensors, layers=HEAD)


@pytest.mark.parametrize("layers, error, match", [
    ([], ValueError, "empty"),
    ([nn.LSTM("lstm"), "Linear"], TypeError, "descriptions"),
    ([torch.nn.LSTM(6, 8)], TypeError, "descriptions"),
    ([nn.LSTM("lstm"), nn.Embedding("fc")], ModelFormatError, "first layer"),
    ([nn.ReLU()], ModelFormatError, "input size"),
])  # fmt: skip
def test_layers_that_make_no_model_are_refused(layers, error, match):
    with pytest.raises(error, match=match):
        clstm.from_state_dict(with_head(), layers=layers, strict=False)


def test_batch_first_must_agree():
    tensors = lstm("a") | lstm_tensors(rng_of(1), 8, 8, prefix="b")
    for first in (True, False):
        layers = [nn.LSTM("a", batch_first=first), nn.LSTM("b", batch_first=not first)]
        with pytest.raises(ValueError, match="batch_first"):
            clstm.from_state_dict(tensors, layers=layers)
    layers = [nn.LSTM("a", batch_first=True), nn.LSTM("b", batch_first=True)]
    assert clstm.from_state_dict(tensors, layers=layers)(np.zeros((2, 5, 6)))[0].shape == (2, 5, 8)


@pytest.mark.parametrize("h0", [*(np.zeros(s) for s in ((2, 8), (1, 9), 16, (8, 1))), "nowhere"])
def test_an_initial_state_must_fit(h0):
    with pytest.raises(ModelFormatError, match=r"h0|nowhere"):
        clstm.from_state_dict(lstm("lstm"), layers=[nn.LSTM("lstm", h0=h0)])


@pytest.mark.parametrize("layers", [None, [nn.LSTM("lstm")], [nn.LSTM()]])
def test_weight_normalisation_is_refused_with_the_line_that_removes_it(layers):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(6, 8)

    net = Net()
    module = net.lstm if layers == [nn.LSTM()] else net
    weight_norm(net.lstm, "weight_hh_l0")
    with pytest.raises(ModelFormatError, match=r"remove_parametrizations\(") as caught:
        clstm.from_state_dict(module.state_dict(), layers=layers)
    assert "parametrizations.weight_hh_l0" in str(caught.value)


# ---- values --------------------------------------------------------------------------------------


class Tensorlike:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a


VALUES = {
    "torch": torch.from_numpy,
    "parameter": lambda a: torch.nn.Parameter(torch.from_numpy(a)),
    "not contiguous": lambda a: torch.from_numpy(np.repeat(a, 2, axis=-1))[..., ::2],
    "float64": lambda a: a.astype(np.float64),
    "byte-swapped": lambda a: a.astype(">f4"),
    "fortran": np.asfortranarray,
    "__array__": Tensorlike,
    "read-only": lambda a: np.frombuffer(a.tobytes(), np.float32).reshape(a.shape),
}


@pytest.mark.parametrize("convert", VALUES.values(), ids=VALUES)
def test_a_state_dict_may_hold_whatever_is_an_array(convert):
    model = clstm.from_state_dict({k: convert(v) for k, v in lstm().items()})
    assert same_bits(bits(model), bits(clstm.from_state_dict(lstm())))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_torch_tensors_are_widened_exactly(dtype):
    narrow = {k: torch.from_numpy(v).to(dtype) for k, v in lstm().items()}
    wide = {k: v.float().numpy() for k, v in narrow.items()}
    assert same_bits(bits(clstm.from_state_dict(narrow)), bits(clstm.from_state_dict(wide)))


def test_the_model_keeps_no_hold_of_the_callers_arrays():
    tensors = lstm("lstm") | {"h0": np.zeros((1, 8), np.float32)}
    model = clstm.from_state_dict(tensors, layers=[nn.LSTM("lstm", h0="h0")])
    before, print_before = bits(model), model.fingerprint
    for a in tensors.values():
        a.fill(7)
    assert same_bits(bits(model), before) and model.fingerprint == print_before


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_load_and_ieee_rules_apply(bad):
    tensors = with_head()
    tensors["fc.bias"][1] = bad
    y = clstm.from_state_dict(tensors, layers=HEAD)(np.zeros((2, 6)))[0]
    assert np.isfinite(y[:, [0, 2]]).all() and same_bits(y[:, 1], np.full(2, bad, np.float32))


def test_float64_weights_beyond_float32_become_infinite_without_a_warning():
    tensors = {k: v.astype(np.float64) for k, v in with_head().items()}
    tensors["fc.bias"][0] = 1e300
    assert clstm.from_state_dict(tensors, layers=HEAD)(np.zeros((1, 6)))[0][0, 0] == np.inf


# ---- files, in short -----------------------------------------------------------------------------


def test_every_kind_of_file_and_source_gives_the_same_model(tmp_path):
    from safetensors.numpy import save_file

    tensors = with_head()
    state = {k: torch.from_numpy(v) for k, v in tensors.items()}
    for suffix in ("pt", "pth", "ckpt"):
        torch.save(state, tmp_path / f"m.{suffix}")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.ckpt")
    save_file(tensors, tmp_path / "m.safetensors")
    np.savez(tmp_path / "m.npz", **tensors)
    expected = clstm.from_state_dict(tensors, layers=HEAD)
    expected.save(tmp_path / "m.clstm")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 7
    for path in paths:
        layers = None if path.suffix == ".clstm" else HEAD
        data = path.read_bytes()
        bare = tmp_path / "bare"  # told by content
        bare.write_bytes(data)
        for source in (path, str(path), data, memoryview(data), io.BytesIO(data), bare):
            model = clstm.load(source, layers=layers)
            assert model.fingerprint == expected.fingerprint
            assert same_bits(bits(model), bits(expected))
        raw = clstm.read_weights(path)
        assert {k: v.shape for k, v in raw.items()} == {k: v.shape for k, v in tensors.items()}
        assert all(same_bits(raw[k], v) for k, v in tensors.items())


def test_messages_name_the_file(tmp_path):
    np.savez(tmp_path / "weights.npz", **with_head())
    with pytest.raises(ModelFormatError, match=r"weights\.npz.*layers=\["):
        clstm.load(tmp_path / "weights.npz")
    both = nn.LSTM(zoneout=(0.1, 0.1))
    np.savez(tmp_path / "projected.npz", **lstm_tensors(rng_of(1), 6, 8, proj=2))
    with pytest.raises(UnsupportedError, match=r"projected\.npz.*zoneout"):
        clstm.load(tmp_path / "projected.npz", layers=[both])


def test_reading_what_torch_wrote_needs_no_torch(tmp_path):
    torch.save({k: torch.from_numpy(v) for k, v in lstm().items()}, tmp_path / "m.pt")
    code = ("import sys; sys.modules['torch'] = None; import clstm, numpy as np; "
            "print(clstm.load(sys.argv[1])(np.zeros((2, 6)))[0].shape)")  # fmt: skip
    command = [sys.executable, "-c", code, tmp_path / "m.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 8)\n"


def test_one_scale_for_all_features_leaves_their_number_to_the_next_layer():
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    m = clstm.from_state_dict({"fc.weight": weight}, layers=[nn.Affine(scale=2.0), nn.Linear("fc")])
    assert m.input_size == 3
    assert np.array_equal(m(np.ones((1, 3)))[0], [2 * weight.sum(1)])
