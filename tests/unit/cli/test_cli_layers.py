# SPDX-License-Identifier: MIT
"""`--layers` is read and never evaluated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from climaker import (
    LAYERS,
    LIST,
    Cli,
    fails,
)

from clstm import nn
from clstm.cli.layers import parse_layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (LIST, LAYERS),
        ("nn.LSTM()", [nn.LSTM()]),
        (" (clstm.nn.LSTM('a', True), ReLU(),)\n", [nn.LSTM("a", True), nn.ReLU()]),
        ("[nn.LayerNorm('n', eps=1)]", [nn.LayerNorm("n", 1)]),
        ("[nn.Affine(scale=[-1, 2.5])]", [nn.Affine(scale=[-1, 2.5])]),
        ("[nn.LSTM('l', h0='h0', hidden_size=3)]", [nn.LSTM("l", h0="h0", hidden_size=3)]),
        ("[nn.LayerNorm(normalized_shape=(6,))]", [nn.LayerNorm(normalized_shape=(6,))]),
        (
            "[nn.GRU('g', linear_before_reset=False, activations=['relu', ('tanh', None, None)])]",
            [nn.GRU("g", linear_before_reset=False, activations=["Relu", "Tanh"])],
        ),
        (
            "nn.LSTM(layer_norm={'cell': 'stored', 'eps': 0.1}, zoneout=(0.1, 0))",
            [nn.LSTM(layer_norm={"cell": "stored", "eps": 0.1}, zoneout=(0.1, 0))],
        ),
        (
            "[nn.Add((0, 1)), nn.Slice(0, 2), nn.Identity(0), "
            "nn.Output((1, 2), last=(True, False))]",
            [nn.Add((0, 1)), nn.Slice(0, 2), nn.Identity(0), nn.Output((1, 2), (True, False))],
        ),
    ],
)
def test_layers_are_read(text: str, layers: list[nn.Layer]) -> None:
    assert parse_layers(text) == layers


HOSTILE = [
    "", "1", "x", "nn", "x=1", "\0", "[", "lambda: nn.LSTM()", "nn.LSTM", "nn.LSTM()()",
    "[nn.LSTM() for _ in 'a']", "*[nn.LSTM()]", "print('EVALUATED')", "open('EVALUATED', 'w')",
    "__import__('os').system('touch EVALUATED')", "nn.dataclass('a')", "nn.Layer()",
    "nn.LSTM.__init__('a')", "nn.__dict__['LSTM']('a')", "os.system('touch EVALUATED')",
    "[nn.LSTM(open('EVALUATED', 'w'))]", "nn.LSTM(prefix=print('EVALUATED'))",
    "nn.LSTM((lambda: 'a')())", "nn.LSTM(f'{print(1)}')", "nn.LSTM('a' + 'b')", "nn.LSTM('a' * 9)",
    "nn.LSTM(*['a'])", "nn.LSTM(**{'prefix': 'a'})", "nn.LSTM('a', prefix='b')", "nn.LSTM(z=1)",
    "nn.LSTM(prefix='a', prefix='b')", "nn.LSTM(5)", "nn.LSTM(None)", "nn.LSTM('a', 1)",
    "nn.LSTM(h0={})", "nn.LSTM(h0=[[1], ['x']])", "nn.LSTM(h0=b'x')", "nn.LSTM(h0=[[[[[1]]]]])",
    "nn.LayerNorm(eps=10**9999)", "nn.LayerNorm(eps=" + "9" * 400 + ")", "nn.LayerNorm(eps=True)",
    "nn.LayerNorm(eps='a')", "nn.LayerNorm(eps=1j)", "nn.Softmax(0)", "nn.GELU('x')", "nn.GRU('g')",
    "nn.Add(1)", "nn.Add(('a', 1))", "nn.Add((1.5, 0))", "nn.Slice(-1, 2)", "nn.Identity(True)",
    "nn.LSTM(activations=3)", "nn.LSTM(activations=['sin'])", "nn.LSTM(zoneout=0.5)",
    "nn.LSTM(layer_norm={'eps': []})", "nn.LSTM(layer_norm={1: 2})", "nn.LSTM(clip='a')",
    "nn.LSTM(layer_norm=[1])", "nn.LSTM(activations=[['tanh', 'x']])", "nn.LSTM(forget_bias=None)",
    "nn.ReLU(1)", "[" * 9999, "-" * 99999 + "1", "+".join("1" * 50000), "nn." * 5000 + "LSTM()",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_list_of_layers_is_refused(run: Cli, foreign: Path, text: str) -> None:
    fails(run("info", foreign, "--layers", text))


def test_layers_are_never_evaluated(tmp_path: Path) -> None:
    """No code is run, nothing imported or opened, while hostile texts are read."""
    code = f"""
import sys
from clstm.cli.layers import parse_layers
hostile = {[t for t in HOSTILE if len(t) < 200]!r}
def read():
    for text in [{LIST!r}, *hostile]:
        try: parse_layers(text)
        except ValueError: pass
read()  # whatever is imported late
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
read()
sys.exit(f"{{set(seen)}}" if set(seen) - {{"compile"}} else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layers",
    ["[]", "[nn.ReLU()]", "[nn.LSTM('x')]", "[nn.Affine(scale='x'), nn.LSTM('lstm')]",
     "[nn.LSTM('lstm', h0=[[1], [2, 3]])]", "[nn.LSTM('lstm', h0=3)]", "[nn.LSTM('l\\ud800')]",
     "[nn.LSTM('lstm', hidden_size='a')]", "[nn.LayerNorm(normalized_shape=-5)]",
     "[nn.LayerNorm(normalized_shape=2**40)]", "[nn.LayerNorm(normalized_shape=5000000000)]",
     "[nn.LSTM('lstm'), nn.LSTM('lstm')]"],
)  # fmt: skip
def test_layers_that_do_not_fit_are_one_line(run: Cli, foreign: Path, layers: str) -> None:
    fails(run("info", foreign, "--layers", layers, "--no-strict"))
