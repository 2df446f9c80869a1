# SPDX-License-Identifier: MIT
"""Every option of the recurrent layers from tensors to records, files and back."""

import itertools
import json

import numpy as np
import pytest

import clstm
from clstm import nn, program
from clstm.formats.budget import Budget
from clstm.formats.container import Image, Record, read_image, write_image
from samples import floats, recurrent_tensors, rng_of, same_bits

NORM = {"per_gate": True, "separate": False, "cell": True, "eps": 1e-3}
# Description, and how its tensors are made. Each has an option that no other has.
CASES = {
    "lstm": (nn.LSTM("m"), {"layers": 2}),
    "batch first": (nn.GRU("m", True), {}),
    "diagonal": (nn.LSTM("m", peephole="diagonal"), {"layers": 2, "bidirectional": True}),
    "full": (nn.LSTM("m", peephole="full"), {}),
    "full, new": (nn.LSTM("m", peephole="full", output_peephole="new"), {}),
    "f=1-i": (nn.LSTM("m", coupled="f=1-i", peephole="diagonal"), {}),
    "i=1-f": (nn.LSTM("m", coupled="i=1-f", peephole="full"), {}),
    "clips": (nn.LSTM("m", clip=0.7, cell_clip=0.3, proj_clip=0.2), {"proj": 2}),
    "stored": (nn.LSTM("m", cell_clip=0.3, cell_clip_stored=True, forget_bias=1.0), {}),
    "proj bias": (nn.LSTM("m"), {"proj": 2, "proj_bias": True, "bias": False, "layers": 2}),
    "zoneout": (nn.LSTM("m", zoneout=(0.1, 0.25)), {}),
    "norm": (nn.LSTM("m", layer_norm={}), {"norm_bias": True}),
    "norm, cell": (nn.LSTM("m", layer_norm=NORM, peephole="diagonal"), {"layers": 2}),
    "norm, stored": (nn.LSTM("m", layer_norm={"separate": True, "cell": "stored"}),
                     {"norm_bias": True, "bidirectional": True}),
    "functions": (nn.LSTM("m", activations=[("HardSigmoid", 0.2, 0.5), "Softsign", "relu"]),
                  {"bidirectional": True}),
    "functions of each": (nn.GRU("m", activations=["Sigmoid", "Tanh", "HardTanh", ("Elu", 0.3)]),
                          {"bidirectional": True}),
    "gru": (nn.GRU("m"), {"layers": 2, "bidirectional": True}),
    "reset before": (nn.GRU("m", linear_before_reset=False, clip=0.5), {"bias": False}),
    "rnn": (nn.RNN("m"), {"layers": 2}),
    "relu": (nn.RNN("m", "relu"), {"bidirectional": True}),
    "affine": (nn.RNN("m", activations=[("Affine", 0.3, 0.1)]), {}),
    "reverse": (nn.LSTM("m", reverse=True), {}),
    "lstm cell": (nn.LSTMCell("m", peephole="diagonal", layer_norm={"cell": True}), {}),
    "gru cell": (nn.GRUCell("m", linear_before_reset=False), {}),
    "rnn cell": (nn.RNNCell("m", "relu"), {"bias": False}),
    "no prefix": (nn.GRU(activations=["Relu", "Tanh"]), {}),
    "learned": (nn.GRU("m", h0="start"), {"layers": 2}),
    "array": (nn.RNN(h0=np.full((1, 1, 4), 0.5)), {}),
}  # fmt: skip


def case(name):
    layer, options = CASES[name]
    tensors = recurrent_tensors(rng_of(1), layer, 3, 4, **options)
    if name == "learned":
        tensors["start"] = floats(rng_of(2), 2, 4)
    return layer, tensors


@pytest.mark.parametrize("name", CASES)
def test_a_layer_comes_back_from_both_kinds_of_file(name, tmp_path):
    layer, tensors = case(name)
    model = clstm.from_state_dict(tensors, layers=[layer])
    x = floats(rng_of(3), *(() if name.endswith("cell") else (5,)), 2, 3)
    expected = model(x)
    for suffix in ("clstm", "safetensors"):
        model.save(tmp_path / f"m.{suffix}")
        again = clstm.load(tmp_path / f"m.{suffix}")
        assert again.fingerprint == model.fingerprint
        assert [a.options() for a in again.layers] == [a.options() for a in model.layers]
        assert same_bits(again(x), expected)


@pytest.mark.parametrize("name", CASES)
def test_what_the_caller_wrote_is_what_the_model_says(name):
    layer, tensors = case(name)
    (found,) = clstm.from_state_dict(tensors, layers=[layer]).layers
    expected, options = layer.options(), found.options()
    if name == "array":  # it has a name now
        expected["h0"] = "rnn0.h0"
    assert options == expected and type(found) is type(layer)


def test_no_two_options_have_one_fingerprint():
    """Over the same tensors, where they fit: an option that a file forgot would show here."""
    layers = [
        nn.LSTM(), nn.LSTM(clip=1), nn.LSTM(cell_clip=1), nn.LSTM(forget_bias=1),
        nn.LSTM(cell_clip=1, cell_clip_stored=True), nn.LSTM(zoneout=(0.1, 0)),
        nn.LSTM(zoneout=(0, 0.1)),
        nn.LSTM(activations=["Sigmoid", "Tanh", "Relu"]), nn.LSTM(batch_first=True),
        nn.LSTM(activations=[("Sigmoid"), ("Elu", 0.1), "Tanh"]), nn.LSTM(reverse=True),
        nn.LSTM(activations=[("Sigmoid"), ("Elu", 0.2), "Tanh"]),
    ]  # fmt: skip
    peeping = [nn.LSTM(peephole="full"), nn.LSTM(peephole="full", output_peephole="new")]
    norms = [
        {"per_gate": p, "separate": s, "cell": c, "eps": e}
        for p, s, c, e in itertools.product([False, True], [True], [True, "stored"], [0, 1])
    ]
    for group in (layers, peeping, [nn.LSTM(layer_norm=norm) for norm in norms]):
        tensors = recurrent_tensors(rng_of(1), group[-1], 3, 4)
        prints = [clstm.from_state_dict(tensors, layers=[layer]).fingerprint for layer in group]
        assert len(set(prints)) == len(group)


@pytest.mark.parametrize("same", [
    (nn.LSTM(), nn.LSTM(activations=["Sigmoid", "Tanh", "Tanh"]), nn.LSTM(zoneout=(0, 0)),
     nn.LSTM(forget_bias=0), nn.LSTM(num_layers=1, bias=True)),
    (nn.RNN(), nn.RNN(activations="Tanh")),
    (nn.RNN("", "relu"), nn.RNN(activations=["relu"]), nn.RNN(activations=[("Relu", 0, 0)])),
    (nn.GRU(activations=["HardSigmoid", "Tanh"]),
     nn.GRU(activations=[("hard_sigmoid", 0.2, 0.5), "TANH"])),
], ids=str)  # fmt: skip
def test_what_computes_the_same_has_one_fingerprint(same):
    tensors = recurrent_tensors(rng_of(1), same[0], 3, 4)
    prints = [clstm.from_state_dict(tensors, layers=[layer]).fingerprint for layer in same]
    assert len(set(prints)) == 1


def test_a_plain_lstms_record_has_no_number_that_older_files_lack():
    (record,), _ = program.bind([nn.LSTM()], recurrent_tensors(rng_of(1), nn.LSTM(), 3, 4), True)
    assert record.dims == (3, 4, 0, 1, 0) and record.flags == program.BIAS
    assert not any(record.params) and record.inputs == (0,)


def test_a_derived_gates_peephole_may_be_left_out():
    for coupled, at in (("f=1-i", 4), ("i=1-f", 0)):
        layer = nn.LSTM(coupled=coupled, peephole="diagonal")
        tensors = recurrent_tensors(rng_of(1), layer, 3, 4)
        (full,), _ = program.bind([layer], tensors, True)
        tensors["weight_ch_l0"] = np.delete(tensors["weight_ch_l0"], range(at, at + 4))
        (short,), _ = program.bind([layer], tensors, True)
        expected = full.tensors["weight_ch_l0"].copy()
        expected[at : at + 4] = 0
        np.testing.assert_array_equal(short.tensors["weight_ch_l0"], expected)


def test_the_file_holds_every_input_of_a_record():
    layers = [nn.LSTM("a"), nn.Linear("b"), nn.Identity(0), nn.Linear("c"), nn.Add((2, 4)),
              nn.Concat((1, 5, 2)), nn.Slice(2, 5), nn.Output((7, 1), (True, False))]  # fmt: skip
    tensors = recurrent_tensors(rng_of(1), layers[0], 3, 4)
    tensors |= {"b.weight": np.ones((6, 4), "f4"), "c.weight": np.ones((6, 3), "f4")}
    records, n_in = program.bind(layers, tensors, True)
    data = write_image(Image(records, n_in))
    again = read_image(data, "x", Budget(len(data))).records
    expected = [(0,), (1,), (0,), (3,), (2, 4), (1, 5, 2), (6,), (7, 1)]
    assert [r.inputs for r in again] == [r.inputs for r in records] == expected
    assert program.fingerprint(again) == clstm.load(data).weights_fingerprint
    assert json.loads(program.layers_to_json(program.layers_of(again)))[4:] == [
        {"type": "Add", "inputs": [2, 4]}, {"type": "Concat", "inputs": [1, 5, 2]},
        {"type": "Slice", "start": 2, "stop": 5},
        {"type": "Output", "inputs": [7, 1], "last": [True, False]},
    ]  # fmt: skip


def test_wiring_that_no_description_tells_is_kept_apart(tmp_path):
    """By a file that something else wrote: a layer that reads back without an Identity."""
    linear = {"l.weight": np.eye(3, dtype="f4")}
    found = set()
    for slot in (0, 1, 2):
        first = Record(program.LINEAR, "l", 0, (0,), (3, 3), (), linear)
        records = [first, Record(34, inputs=(1,)), Record(39, inputs=(slot,))]
        model = clstm.load(write_image(Image(records, 3)))
        found.add(model.fingerprint)
        assert [r.inputs for r in model._records] == [(0,), (1,), (slot,)]
        if slot != 2:
            with pytest.raises(clstm.ModelFormatError, match=r"save as \.clstm"):
                model.save(tmp_path / "m.safetensors")
    assert len(found) == 3


def test_one_direction_against_time():
    layer = nn.GRU("m", reverse=True)
    tensors = recurrent_tensors(rng_of(1), layer, 3, 4)
    reverse, x = clstm.from_state_dict(tensors, layers=[layer]), floats(rng_of(2), 5, 2, 3)
    y, h = clstm.from_state_dict(tensors)(x[::-1])
    assert same_bits(reverse(x), (y[::-1], h))
    with pytest.raises(clstm.UnsupportedError):
        reverse.stream()


@pytest.mark.parametrize("items", [
    [{"type": "LSTM", "zoneout": 3}], [{"type": "LSTM", "layer_norm": [1]}],
    [{"type": "GRU", "activations": [3]}], [{"type": "GRU", "activations": [[[], 1]]}],
    [{"type": "LSTM", "clip": "x"}], [{"type": "LSTM", "forget_bias": []}],
    [{"type": "Add", "inputs": 1}], [{"type": "Add", "inputs": [{}]}],
    [{"type": "Slice", "start": 1e400}], [{"type": "Output", "last": 1}],
    [{"type": "Identity", "input": "a"}], [{"type": "GRUCell", "x": 1}],
])  # fmt: skip
def test_metadata_that_is_no_description_is_refused(items):
    with pytest.raises(clstm.ModelFormatError, match="layers in its metadata"):
        program.layers_from_json(json.dumps(items), "x")
