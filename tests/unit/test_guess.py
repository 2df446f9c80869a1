# SPDX-License-Identifier: MIT
"""What `clstm.guess` makes of tensors without layers=."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
from clstm import nn
from clstm.cli.layers import parse_layers
from clstm.guess import suggest
from samples import recurrent_tensors, rng_of

Dict = dict[str, np.ndarray]


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def lstm(p: str, n_in: int, hidden: int, *, both: bool = False, end: str = "_l0") -> Dict:
    found = {
        f"{p}weight_ih{end}": zeros(4 * hidden, n_in),
        f"{p}weight_hh{end}": zeros(4 * hidden, hidden),
        f"{p}bias_ih{end}": zeros(4 * hidden),
        f"{p}bias_hh{end}": zeros(4 * hidden),
    }
    return found | {f"{name}_reverse": a for name, a in found.items()} if both else found


def kind(p: str, name: str, n_in: int, hidden: int) -> Dict:
    layer = getattr(nn, name)(p.removesuffix("."))
    return {n: a * 0 for n, a in recurrent_tensors(rng_of(0), layer, n_in, hidden).items()}


def linear(p: str, out: int, n_in: int) -> Dict:
    return {f"{p}weight": zeros(out, n_in), f"{p}bias": zeros(out)}


def norm(p: str, n: int) -> Dict:
    return {f"{p}weight": zeros(n), f"{p}bias": zeros(n)}


def by_name(tensors: Dict) -> Dict:
    """As .safetensors has them."""
    return dict(sorted(tensors.items()))


EMBEDDED = {"encoder.weight": zeros(50, 8)} | lstm("rnn.", 8, 8) | linear("decoder.", 50, 8)
STATISTICS = {f"bn.running_{word}": zeros(8) for word in ("mean", "var")}
CASES = [
    (lstm("lstm.", 3, 8) | linear("fc.", 2, 8), '[nn.LSTM("lstm"), nn.Linear("fc")]'),
    (by_name(lstm("lstm.", 3, 8) | linear("fc.", 2, 8)), '[nn.LSTM("lstm"), nn.Linear("fc")]'),
    (by_name(lstm("lstm.", 8, 8) | linear("fc.", 8, 8)), '[nn.LSTM("lstm"), nn.Linear("fc")]'),
    (EMBEDDED, '[nn.Embedding("encoder"), nn.LSTM("rnn"), nn.Linear("decoder")]'),
    (by_name(EMBEDDED), '[nn.Embedding("encoder"), nn.LSTM("rnn"), nn.Linear("decoder")]'),
    (
        by_name({"norm.scale": zeros(5), "norm.shift": zeros(1)} | lstm("lstm.", 5, 8)),
        '[nn.Affine("norm"), nn.LSTM("lstm")]',
    ),
    (
        {"h0": zeros(1, 1, 8), "c0": zeros(1, 8)} | lstm("lstm.", 5, 8) | linear("out.", 2, 8),
        '[nn.LSTM("lstm", h0="h0", c0="c0"), nn.Linear("out")]',
    ),
    (
        by_name(
            linear("enter.", 7, 5)
            | lstm("l.", 7, 8, both=True)
            | norm("ln.", 16)
            | linear("out.", 2, 16)
        ),
        '[nn.Linear("enter"), nn.LSTM("l"), nn.LayerNorm("ln"), nn.Linear("out")]',
    ),
    (
        linear("0.", 7, 5) | {"1.weight": zeros(1)} | lstm("2.", 7, 8) | linear("4.", 2, 8),
        '[nn.Linear("0"), nn.PReLU("1"), nn.LSTM("2"), nn.Linear("4")]',
    ),
    (
        lstm("cell.", 4, 8, end="") | norm("bn.", 8) | STATISTICS,
        '[nn.LSTMCell("cell"), nn.BatchNorm1d("bn")]',
    ),
    (linear("", 3, 4), '[nn.Linear("")]'),
    (kind("g.", "GRU", 3, 8) | linear("fc.", 2, 8), '[nn.GRU("g"), nn.Linear("fc")]'),
    (kind("g.", "GRU", 3, 8) | {"h0": zeros(1, 8)}, '[nn.GRU("g", h0="h0")]'),
    (kind("r.", "RNNCell", 3, 8) | linear("fc.", 2, 8), '[nn.RNNCell("r"), nn.Linear("fc")]'),
    (lstm("l.", 3, 8) | {"l.weight_ch_l0": zeros(24)}, '[nn.LSTM("l", peephole="diagonal")]'),
    (lstm("l.", 3, 8) | {"l.weight_ch_l0": zeros(32, 8)}, '[nn.LSTM("l", peephole="full")]'),
    (lstm('a"b\n.', 3, 4) | linear("x.", 1, 4), '[nn.LSTM(\'a"b\\n\'), nn.Linear("x")]'),
]


@pytest.mark.parametrize(("tensors", "layers"), CASES)
def test_the_suggestion_is_right_and_can_be_loaded(tensors: Dict, layers: str) -> None:
    found = suggest(tensors)
    assert (found.layers, found.others) == (layers, [])
    if len(tensors) > 2:
        with pytest.raises(clstm.ModelFormatError) as error:
            clstm.from_state_dict(tensors)
        assert f"layers={layers}" in str(error.value)
    clstm.from_state_dict(tensors, layers=parse_layers(layers))


def test_what_no_layer_takes_is_named() -> None:
    conv = {"conv.bias": zeros(3), "conv.weight": zeros(3, 3, 3)}
    found = suggest(conv | lstm("lstm.", 3, 4))
    assert (found.layers, found.others) == ('[nn.LSTM("lstm")]', ["conv.bias", "conv.weight"])
    assert str(found).endswith("strict=False (which leaves out conv.bias, conv.weight)")
    assert "no tensor looks like a layer" in str(suggest(conv))


@pytest.mark.parametrize(
    "stray",
    ["xweight_ih_l0", "lstm.weight_hr_l0_reverse", "lstm.bias_hh_l0_reverse", "lstm.weight_hh"],
)
def test_a_stray_tensor_with_a_recurrent_name_is_refused(stray: str) -> None:
    with pytest.raises(clstm.ModelFormatError):
        clstm.from_state_dict(lstm("lstm.", 3, 4) | {stray: zeros(16)})


@pytest.mark.parametrize("end", ["_l1", "_l0_reverse"])
def test_the_tensor_that_is_missing_is_named(end: str) -> None:
    with pytest.raises(clstm.ModelFormatError, match=r"lstm\.weight_hh_l0 is missing"):
        clstm.from_state_dict(lstm("lstm.", 3, 4, end=end))


@given(st.dictionaries(st.text(max_size=90), st.sampled_from([(4, 1), (4,), (3,)])), st.text())
def test_names_of_a_file_leave_a_message_on_one_line(others: dict[str, Any], prefix: str) -> None:
    found = {name: zeros(*shape) for name, shape in others.items()}
    for tensors in (found, found | lstm(prefix, 3, 4), found | lstm(prefix, 3, 4, end="_l1")):
        try:
            clstm.from_state_dict(tensors)
        except clstm.ClstmError as error:
            assert str(error).isprintable() and len(str(error)) < 4000
        assert str(suggest(tensors)).isprintable()


def test_a_name_that_would_break_a_message_is_quoted() -> None:
    with pytest.raises(clstm.ModelFormatError, match=r"in '\\n'; say"):
        clstm.from_state_dict({"\n": zeros(3)})
    with pytest.raises(clstm.ModelFormatError, match=r"^a\\nb\.weight_hh_l0 is missing"):
        clstm.from_state_dict(lstm("a\nb.", 3, 4, end="_l1"))


def test_thousands_of_modules_take_neither_a_deep_stack_nor_long() -> None:
    many = {f"m{i}.weight": zeros(2, 3) for i in range(5000)}
    found = suggest(many)
    assert found.layers.endswith(", ...]") and len(found.layers) < 3000
    assert len(suggest(dict(list(many.items())[:64])).others) == 0
