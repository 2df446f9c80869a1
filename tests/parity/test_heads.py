# SPDX-License-Identifier: MIT
"""Every layer but the recurrent: alone, and in sequences behind LSTMs, built by from_torch.

Each layer's output is compared with float64 on the input that it was really given: a model of the
layers before it gives that, since results have the same bits in any model. Where torch's result
is exact, in float32, it must be the same bits.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clstm
import oracle
import samples
from bounds import (
    affine_bound,
    head_bound,
    layer_norm_bound,
    linear_bound,
    lstm_check,
    sigmoid_bound,
    tanh_bound,
    ulp,
    worst,
)
from bounds.tolerances import FLOAT64_STEEP, HEAD_FLOOR, HEAD_ULPS
from clstm import nn

EXACT = ("Embedding", "Dropout", "Identity", "ReLU", "ReLU6", "Hardtanh")

ACTIVATIONS = {
    "ReLU": lambda n: torch.nn.ReLU(),
    "ReLU6": lambda n: torch.nn.ReLU6(),
    "LeakyReLU": lambda n: torch.nn.LeakyReLU(),
    "LeakyReLU 0.3": lambda n: torch.nn.LeakyReLU(0.3),
    "PReLU": lambda n: torch.nn.PReLU(),
    "PReLU each": torch.nn.PReLU,
    "ELU": lambda n: torch.nn.ELU(),
    "ELU 0.7": lambda n: torch.nn.ELU(0.7),
    "Tanh": lambda n: torch.nn.Tanh(),
    "Hardtanh": lambda n: torch.nn.Hardtanh(),
    "Hardtanh -0.5 2": lambda n: torch.nn.Hardtanh(-0.5, 2.0),
    "Sigmoid": lambda n: torch.nn.Sigmoid(),
    "GELU": lambda n: torch.nn.GELU(),
    "GELU tanh": lambda n: torch.nn.GELU("tanh"),
    "SiLU": lambda n: torch.nn.SiLU(),
    "Softplus": lambda n: torch.nn.Softplus(),
    "Softplus 2 5": lambda n: torch.nn.Softplus(2.0, 5.0),
    "Dropout": lambda n: torch.nn.Dropout(0.3),
    "Identity": lambda n: torch.nn.Identity(),
}
ROWS = {  # which look at a whole row
    "Softmax": lambda n: torch.nn.Softmax(-1),
    "LogSoftmax": lambda n: torch.nn.LogSoftmax(-1),
    "LayerNorm": torch.nn.LayerNorm,
    "LayerNorm no bias": lambda n: torch.nn.LayerNorm(n, bias=False),
    "LayerNorm plain": lambda n: torch.nn.LayerNorm(n, 1e-2, elementwise_affine=False),
    "BatchNorm1d": torch.nn.BatchNorm1d,
    "BatchNorm1d plain": lambda n: torch.nn.BatchNorm1d(n, 1e-2, affine=False),
    "Linear": lambda n: torch.nn.Linear(n, n + 3),
    "Linear no bias": lambda n: torch.nn.Linear(n, max(1, n - 3), bias=False),
}
LAYERS = ACTIVATIONS | ROWS


def randomised(module, seed):
    """Its tensors away from the ones and zeros that torch begins with; variances above 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and "weight_" not in name and "bias_" not in name:
            span = 1.0 if "var" in name else 2.0
            value.copy_(torch.rand(value.shape, generator=generator) * span + (1.1 - span))
    return module.eval()


@torch.no_grad()
def torch_run(modules, x):
    """A sequence of modules as clstm means it: features last, recurrent outputs passed on."""
    for module in modules:
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.PReLU):  # features second
            x = module(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        else:
            x = module(x)
        x = x[0] if isinstance(x, tuple) else x
    return x.numpy()


def tensors_of(modules):
    """The names that from_torch gives the tensors of a list."""
    return {
        f"{i}.{name}": value.numpy()
        for i, module in enumerate(modules)
        for name, value in module.float().state_dict().items()
    }


def option(tensors, layer, name):
    return tensors.get(f"{layer.prefix}.{name}")


def scaling(layer, tensors):
    """(scale, shift) of a BatchNorm1d in float64."""
    get = {n: oracle.named(tensors, layer.prefix, n) for n in ("weight", "bias")}
    mean, var = (oracle.named(tensors, layer.prefix, f"running_{n}") for n in ("mean", "var"))
    scale = (1.0 if get["weight"] is None else get["weight"]) / np.sqrt(var + layer.eps)
    return scale, (0.0 if get["bias"] is None else get["bias"]) - mean * scale


def expected(layer, tensors, x):
    """(y, bound) of one layer in float64, on its own float32 input."""
    kind = type(layer).__name__
    exact = oracle.STATELESS[kind](layer, tensors, x)
    if kind == "Linear":
        _, bound = linear_bound(option(tensors, layer, "weight"), option(tensors, layer, "bias"), x)
    elif kind == "LayerNorm":
        weight, bias = (option(tensors, layer, n) for n in ("weight", "bias"))
        _, bound = layer_norm_bound(x, weight, bias, layer.eps)
    elif kind == "BatchNorm1d":
        _, bound = affine_bound(x, *scaling(layer, tensors))
    elif kind in EXACT:
        bound = np.full(exact.shape, 2.0**-150)  # no error at all
    elif kind in ("LeakyReLU", "PReLU"):
        bound = ulp(exact)  # one product; the slope itself is float32
    elif kind in ("Tanh", "Sigmoid"):
        _, bound = (tanh_bound if kind == "Tanh" else sigmoid_bound)(x)
    else:
        bound = head_bound(exact)
    return exact, bound


def of_rows(module, rows):
    """`module` behind a table of these rows: so its input is exact, and has a size."""
    table = torch.nn.Embedding.from_pretrained(torch.from_numpy(rows))
    modules = [table, module]
    model = clstm.from_torch(modules)
    y, state = model(np.arange(len(rows)))
    assert state is None and y.dtype == np.float32
    return model.layers[1], tensors_of(modules), y


def wide(rng, rows, width):
    """Magnitudes from 1e-38 to 1e3, all of them alike; most of the ranges where functions bend."""
    x = 10.0 ** rng.uniform(-38, 3, (rows, width)) * rng.choice([-1, 1], (rows, width))
    bend = rng.random((rows, width)) < 0.7
    return np.where(bend, rng.uniform(-20, 20, (rows, width)), x).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("width", [1, 15, 16, 17, 130])
def test_alone_it_keeps_its_bound_and_is_torchs(name, width):
    rng = samples.rng_of(width)
    module = randomised(LAYERS[name](width), width)
    x = wide(rng, 400, width)
    layer, tensors, y = of_rows(module, x)
    exact, bound = expected(layer, tensors, x)
    assert worst(y, exact, bound) <= 1
    if type(layer).__name__ in EXACT:
        assert samples.same_bits(y, torch_run([module], torch.from_numpy(x)))
    theirs = torch_run([module.double()], torch.from_numpy(x).double())
    assert np.abs(theirs - exact).max() <= FLOAT64_STEEP * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("name", ["GELU", "GELU tanh", "SiLU", "Softplus", "ELU"])
def test_curves_keep_the_head_bound_over_all_magnitudes(name):
    """4 ulp or 2^-23, on a grid of every 1000th float32 from -1e4 to 1e4 and beyond."""
    bits = np.arange(0, 0x7F800000, 8501, dtype=np.uint32)
    x = np.concatenate([bits, bits | 0x80000000]).view(np.float32)
    x = np.concatenate([x, np.linspace(-110, 110, 200_001, dtype=np.float32)])
    x = x[: len(x) // 16 * 16].reshape(-1, 16)
    layer, tensors, y = of_rows(ACTIVATIONS[name](1), x)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        exact, bound = expected(layer, tensors, x)
    exact = np.where(np.isnan(exact), np.where(x > 0, x, 0.0), exact)  # x^3 overflowed: the limit
    assert worst(y, exact, bound) <= 1


@given(samples.seeds, st.integers(1, 70), st.sampled_from([1e-3, 1.0, 30.0, 1e4, 1e30]))
@samples.examples(80)
def test_softmax_and_log_softmax_keep_the_head_bound(seed, width, scale):
    x = samples.floats(samples.rng_of(seed), 20, width, scale=scale)
    for name in ("Softmax", "LogSoftmax"):
        layer, tensors, y = of_rows(ROWS[name](width), x)
        assert worst(y, *expected(layer, tensors, x)) <= 1


@given(samples.seeds, st.integers(1, 200), st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
       st.sampled_from([0.0, 1.0, 1e3]))  # fmt: skip
@samples.examples(80)
def test_layer_norm_keeps_its_bound_at_any_spread_and_mean(seed, width, spread, mean):
    x = samples.floats(samples.rng_of(seed), 10, width, scale=spread) + np.float32(mean)
    for name in ("LayerNorm", "LayerNorm plain"):
        layer, tensors, y = of_rows(randomised(ROWS[name](width), seed), x)
        assert worst(y, *expected(layer, tensors, x)) <= 1


SPECIAL = np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, -1e-45, 1.0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_values_are_torchs(name):
    """As torch's in float64, but that 0 * inf, which makes a NaN of -inf in GELU and SiLU there,
    is the limit here; a NaN comes of nothing but a NaN."""
    module = randomised(ACTIVATIONS[name](1), 1)
    layer, tensors, y = of_rows(module, SPECIAL[:, None])
    theirs = torch_run([module.double()], torch.from_numpy(SPECIAL[:, None]).double())
    if name.startswith(("GELU", "SiLU")):
        assert np.isnan(theirs[1]) and y[1] == 0
        theirs[1] = 0.0
    finite = np.isfinite(SPECIAL)
    assert np.array_equal(y[~finite], theirs[~finite].astype(np.float32), equal_nan=True)
    exact, bound = expected(layer, tensors, SPECIAL[finite, None])
    assert worst(y[finite], exact, bound) <= 1
    zeros = slice(3, 5)
    assert (np.signbit(y[zeros]) == np.signbit(theirs[zeros])).all()


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_special_rows_are_torchs(name):
    i, n = np.inf, np.nan
    rows = [[i, 1, 2], [-i, 1, 2], [-i, -i, -i], [n, 1, 2], [1, 2, n], [i, i, 1], [i, -i, 0],
            [3e38, -3e38, 0], [-3e38, -3e38, -3e38], [0, 0, 0], [88, -88, 0]]  # fmt: skip
    rows = np.float32(rows)
    *_, y = of_rows(ROWS[name](3), rows)
    theirs = torch_run([ROWS[name](3)], torch.from_numpy(rows))
    assert (np.isnan(y) == np.isnan(theirs)).all() and (np.isinf(y) == np.isinf(theirs)).all()
    assert np.allclose(y, theirs, rtol=HEAD_ULPS * HEAD_FLOOR, atol=HEAD_FLOOR, equal_nan=True)


def test_embedding_gives_rows_of_its_table_bit_for_bit():
    table = np.concatenate([SPECIAL, SPECIAL])[None] * np.ones((7, 1), np.float32)
    _, _, y = of_rows(torch.nn.Identity(), table)
    assert samples.same_bits(y, table)


# ---- Affine, clstm's own -------------------------------------------------------------------------


def affine_cases():
    rng = samples.rng_of(4)
    scale, shift = samples.floats(rng, 5), samples.floats(rng, 5)
    yield "tensors", nn.Affine("a"), {"a.scale": scale, "a.shift": shift}, scale, shift
    yield "torch's names", nn.Affine("a"), {"a.weight": scale, "a.bias": shift}, scale, shift
    yield "one for all", nn.Affine("a"), {"a.scale": scale[:1], "a.shift": shift}, scale[0], shift
    yield "arrays", nn.Affine(scale=scale, shift=shift), {}, scale, shift
    yield "numbers", nn.Affine(scale=0.5, shift=-2), {}, 0.5, -2.0
    yield "scale alone", nn.Affine(scale=3.0), {}, 3.0, 0.0
    yield "shift alone", nn.Affine(shift=3.0), {}, 1.0, 3.0


@pytest.mark.parametrize("case", list(affine_cases()), ids=lambda case: case[0])
@pytest.mark.parametrize("behind", ["LSTM", "Linear"])
def test_affine_scales_and_shifts_whatever_gives_its_numbers(case, behind):
    """Behind an LSTM it is an operation, behind a Linear it is folded into its weights."""
    _, layer, tensors, scale, shift = case
    rng = samples.rng_of(9)
    if behind == "LSTM":
        first = samples.lstm_tensors(rng, 4, 5, prefix="f")
        before = clstm.from_state_dict(first, layers=[nn.LSTM("f")])
    else:
        first = samples.linear_tensors(rng, 4, 5, "f")
        before = clstm.from_state_dict(first, layers=[nn.Linear("f")])
    model = clstm.from_state_dict(first | tensors, layers=[getattr(nn, behind)("f"), layer])
    x = samples.floats(rng, 30, 4)
    y, _ = model(x)
    scale, shift = np.broadcast_to(scale, 5), np.broadcast_to(shift, 5)
    if behind == "LSTM":
        exact, bound = affine_bound(before(x)[0], scale, shift)
    else:
        weight = first["f.weight"] * scale[:, None].astype(np.float64)
        exact, bound = linear_bound(weight, first["f.bias"] * scale.astype(float) + shift, x)
    assert worst(y, exact, bound) <= 1


# ---- in sequences --------------------------------------------------------------------------------


@st.composite
def sequences(draw):
    """A list of modules with at least one LSTM, perhaps behind an embedding; rows of it."""
    width = draw(st.integers(1, 40))
    batch_first = draw(st.booleans())
    modules = [torch.nn.Embedding(11, width)] if draw(st.booleans()) else []
    names = draw(st.lists(st.sampled_from(["LSTM", *LAYERS]), min_size=1, max_size=6))
    names.insert(draw(st.integers(0, 0 if not modules else len(names))), "LSTM")
    torch.manual_seed(draw(samples.seeds))
    for name in names:
        if name == "LSTM":
            out = draw(st.integers(1, 40))
            proj = draw(st.sampled_from([0, 0, 1])) if out > 1 else 0
            module = torch.nn.LSTM(width, out, bidirectional=draw(st.booleans()), proj_size=proj,
                                   batch_first=batch_first)  # fmt: skip
            width = (proj or out) * (1 + module.bidirectional)
        else:
            module = LAYERS[name](width)
            width = module.out_features if "Linear" in name else width
        modules.append(randomised(module, len(modules)))
    return modules, batch_first, draw(st.integers(1, 12)), draw(st.none() | st.integers(1, 5))


@given(sequences())
@samples.examples(120)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_in_a_sequence_every_layer_keeps_its_bound(case):
    modules, batch_first, steps, batch = case
    shape = (steps,) if batch is None else (batch, steps) if batch_first else (steps, batch)
    rng = samples.rng_of(steps)
    if isinstance(modules[0], torch.nn.Embedding):
        x = rng.integers(0, 11, shape)
    else:
        x = samples.floats(rng, *shape, modules[0].input_size)
    model = clstm.from_torch(torch.nn.Sequential(*modules) if steps % 2 else modules)
    tensors = tensors_of(modules)
    y, given = x, {-1: x}
    for i, layer in enumerate(model.layers):
        part = clstm.from_torch(modules[: i + 1])
        before, (y, states) = y, part(x)
        given[i] = y
        if isinstance(layer, nn.LSTM):
            ratio = lstm_ratio(layer, tensors, before, y, states, batch, batch_first)
        elif isinstance(layer, nn.BatchNorm1d) and isinstance(model.layers[i - 1], nn.Linear):
            scale, shift = scaling(layer, tensors)  # folded: one layer with the Linear before it
            linear = model.layers[i - 1]
            weight, bias = (option(tensors, linear, n) for n in ("weight", "bias"))
            bias = shift if bias is None else bias * scale + shift
            ratio = worst(y, *linear_bound(weight * scale[:, None], bias, given[i - 2]))
        else:
            ratio = worst(y, *expected(layer, tensors, before))
        assert ratio <= 1, layer
    # and the whole of it means what torch means
    theirs = torch_run([m.double() for m in modules], torch.from_numpy(x) if x.dtype == np.int64
                       else torch.from_numpy(x).double())  # fmt: skip
    exact, _ = oracle.forward(model.layers, tensors, x)
    assert y.shape == theirs.shape and y.flags.c_contiguous
    assert np.abs(theirs - exact).max() <= FLOAT64_STEEP * max(1.0, np.abs(exact).max())


def lstm_ratio(layer, tensors, x, y, states, batch, batch_first):
    final = states[-1] if isinstance(states, list) else states
    if batch is None:
        x, y, final = x[:, None], y[:, None], tuple(s[:, None] for s in final)
    elif batch_first:
        x, y = x.swapaxes(0, 1), y.swapaxes(0, 1)
    start = tuple(np.zeros_like(s) for s in final)
    return lstm_check(tensors, layer.prefix, x, [y], start, final)
