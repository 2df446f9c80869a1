# SPDX-License-Identifier: MIT
"""A step asks for no memory and makes no system call."""

import itertools
import os
import re
import sys

import numpy as np
import pytest

import build
import clstm
from build import linux
from clstm import nn

STEPS = 1_000_000


def weights(rng, prefix, rows, n_in, out, hidden=None):
    """Those of one layer and direction."""
    shapes = {"weight_ih": (rows, n_in), "weight_hh": (rows, out), "bias_ih": rows, "bias_hh": rows}
    shapes |= {"weight_hr": (out, hidden)} if hidden else {}
    name, _, end = prefix.partition("_")
    return {
        f"{name}.{word}_{end}": rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        for word, shape in shapes.items()
    }


def plain(rng):
    """Several layers and a head of every action."""
    layers = [
        nn.LayerNorm("n"),
        nn.LSTM("a"),
        nn.LSTM("b"),
        nn.Linear("fc"),
        nn.GELU(),
        nn.LogSoftmax(),
    ]
    shapes = {"n.weight": 9, "n.bias": 9, "fc.weight": (5, 7), "fc.bias": 5}
    tensors = {name: rng.uniform(-0.3, 0.3, s).astype("f") for name, s in shapes.items()}
    tensors |= weights(rng, "a_l0", 68, 9, 17) | weights(rng, "a_l1", 68, 17, 17)
    return layers, tensors | weights(rng, "b_l0", 48, 17, 7, 12)


def options(rng):
    """Cells that take a step in several passes, and wiring."""
    norm = {"per_gate": True, "separate": True, "cell": True}
    layers = [
        nn.GRU("a"),
        nn.GRU("b", linear_before_reset=False),
        nn.RNN("c", clip=1.0),
        nn.LSTM("d", peephole="full", output_peephole="new", zoneout=(0.125, 0.25)),
        nn.LSTM("e", peephole="diagonal", layer_norm=norm, activations=["Softsign", "Elu", "Tanh"]),
        nn.LSTM("f", proj_clip=0.5),
        nn.Add((1, 2, 3, 4)),
        nn.Mul((7, 5)),
        nn.Concat((6, 8, 0)),
        nn.Slice(3, 30),
        nn.Concat((10, 9, 6)),
    ]
    tensors = {}
    for prefix, gates in [("a_l0", 3), ("b_l0", 3), ("c_l0", 1), ("d_l0", 4), ("e_l0", 4)]:
        tensors |= weights(rng, prefix, gates * 17, 17 if tensors else 9, 17)
    tensors |= weights(rng, "f_l0", 48, 17, 7, 12)
    more = {"d.weight_ch_l0": (68, 17), "e.weight_ch_l0": 51, "e.ln_cell_l0.weight": 17}
    more |= {f"e.ln_{x}_l0.weight": 68 for x in ("ih", "hh")}
    tensors |= {name: rng.uniform(-0.3, 0.3, s).astype("f") for name, s in more.items()}
    return layers, tensors


@pytest.fixture(scope="module", params=[plain, options], ids=["plain", "options"])
def model(request):
    layers, tensors = request.param(np.random.default_rng(3))
    return clstm.from_state_dict(tensors, layers=layers)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.clstm"
    model.save(path)
    return path


@linux
@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_no_allocation_in_c(kernel, builder, file, count_alloc):
    program = builder(("alloc_steps.c",))
    env = {**os.environ, "LD_PRELOAD": str(count_alloc), "CLSTM_KERNEL": kernel}
    out = build.succeed([program, file, STEPS if kernel != "scalar" else STEPS // 10], env=env)
    assert re.search(r"\d+ steps: 0 allocations \(and 1 of our own\)", out), out


@linux
@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_no_system_call_in_c(kernel, builder, file):
    done = build.run(
        [builder(("alloc_steps.c",)), file, 100_000, "sealed"],
        env={**os.environ, "CLSTM_KERNEL": kernel},
    )
    if done.returncode == 77:
        pytest.skip("not run: no seccomp here")
    assert (done.returncode, done.stdout) == (0, "sealed\n")


def growth(step, n):
    """Blocks that live after n steps and did not before; the readings themselves leave some."""
    times = itertools.repeat(None, n)
    before = sys.getallocatedblocks()
    for _ in times:
        step()
    return sys.getallocatedblocks() - before


def test_no_allocation_in_python(model):
    s = model.stream()
    x = np.linspace(-1, 1, model.input_size, dtype=np.float32)
    y = np.empty(model.output_size, np.float32)
    for step in (lambda: s.step(x, out=y), s.bind(x, y)):
        growth(step, 1000)
        assert growth(step, STEPS) == growth(step, 0)
    assert s.steps == 2 * (STEPS + 1000)
