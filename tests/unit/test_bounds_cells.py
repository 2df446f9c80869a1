# SPDX-License-Identifier: MIT
"""The bound of every cell and option: the oracle's equations in float32 lie within it, and leaving
an option out, or doing it in another system's way, lies outside."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import bounds
import oracle
import samples
from bounds import algebra, worst
from bounds.tolerances import EXACT_SHARE, FLOAT64
from clstm import nn

# ---- the oracle in float32 ----------------------------------------------------------------------


def single(a):
    return np.asarray(a, np.float64).astype(np.float32).astype(np.float64).view(Single)


class Single(np.ndarray):
    """float64 whose every result is rounded to float32; products of matrices are float32's, in the
    order of the BLAS, which is not the engine's."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(a) for a in inputs]
        if ufunc is np.matmul:
            return single(np.matmul(*(a.astype(np.float32) for a in plain)))
        result = getattr(ufunc, method)(*plain, **options)
        return single(result) if np.asarray(result).dtype == np.float64 else result


def single_norm(x, weight=None, bias=None, eps=1e-5):
    x = single(x)
    d = x - x.mean(axis=-1, keepdims=True)
    y = d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * single(weight)
    return y if bias is None else y + single(bias)


ROUNDED = {  # functions that are rounded once
    name: lambda x, a, b, f=f: single(f(np.asarray(x), np.float32(a), np.float32(b)))
    for name, f in oracle.ACTIVATIONS.items()
}


def single_step(*args):
    """oracle.cell_step as it would be in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle.cells, "f64", single)
        patch.setattr(oracle.cells, "ACTIVATIONS", ROUNDED)
        patch.setattr(oracle.cells, "layer_norm", single_norm)
        return oracle.cell_step(*args)


def ratio(step, state):
    return max(worst(a, *of) for a, of in zip(state, step.state(), strict=True))


wide = st.sampled_from([1, 2, 15, 16, 17, 64, 65, 130])


def test_rounding_is_float32s():
    a, b = single(np.array([1.0, 3.0])), single(np.array([2.0**-24, 7.0]))
    assert type(a + b) is Single and (np.asarray(a + b) == [1.0, 10.0]).all()
    assert np.asarray(a / b)[1] == np.float64(np.float32(3) / np.float32(7))
    assert np.asarray(np.array([1.0, 1.0]) @ single([1.0, 2.0**-24])) == 1.0


@given(
    samples.recurrent_models(sizes=wide, most_layers=1),
    samples.seeds,
    st.sampled_from([1e-30, 1e-3, 1.0, 1.0, 10.0]),
)
@samples.examples(300)
def test_every_cell_in_float32_keeps_the_bound(model, seed, scale):
    rng = samples.rng_of(seed)
    x, state = samples.floats(rng, 3, model.n_in, scale=scale), model.state(rng, 3)
    for d, w in enumerate(oracle.directions(model.tensors)[0]):
        before = [s[d] for s in state]
        step = bounds.cell_bound(model.layer, w, x, before, d)
        for part, (value, bound) in zip(
            oracle.cell_step(model.layer, w, x, before, d), step.state(), strict=True
        ):
            assert (np.abs(part - value) <= EXACT_SHARE * bound + FLOAT64).all()
        assert ratio(step, single_step(model.layer, w, x, before, d)) <= 1


@given(samples.recurrent_models(sizes=st.integers(2, 70), most_layers=1), samples.seeds)
@samples.examples(60)
def test_the_bound_is_not_slack(model, seed):
    """At most a few thousand u of values of about 1: no derivation lost its hold of a number. (A
    layer norm of nearly equal numbers may: there the result is anything.)"""
    assume(not (getattr(model.layer, "layer_norm", None) and model.hidden < 9))
    rng = samples.rng_of(seed)
    x, state = samples.floats(rng, 2, model.n_in), model.state(rng, 2)
    w = oracle.directions(model.tensors)[0][0]
    step = bounds.cell_bound(model.layer, w, x, [s[0] for s in state])
    for value, bound in step.state():
        spread = 1.0 + np.abs(value).max()
        within = np.median(bound) if "ThresholdedRelu" in str(model.layer) else bound.max()
        assert within <= 2e4 * algebra.U * spread


OPTIONS = {
    "diagonal peephole": dict(peephole="diagonal"),
    "f = 1 - i": dict(coupled="f=1-i"),
    "clip": dict(clip=0.3),
    "cell clip": dict(cell_clip=0.3),
    "stored cell clip": dict(cell_clip=0.3, cell_clip_stored=True),
    "forget bias": dict(forget_bias=1e-3),
    "zoneout of h": dict(zoneout=(1e-3, 0.0)),
    "zoneout of c": dict(zoneout=(0.0, 1e-3)),
    "hard sigmoid": dict(activations=["HardSigmoid", "Tanh", "Tanh"]),
    "joint sum": dict(layer_norm={}),
    "separate": dict(layer_norm=dict(separate=True)),
    "per gate": dict(layer_norm=dict(per_gate=True)),
    "cell": dict(layer_norm=dict(cell=True)),
    "stored cell": dict(layer_norm=dict(cell="stored")),
    "both": dict(layer_norm=dict(per_gate=True), peephole="diagonal"),
}
# (the option as it is, as another system or nobody has it)
OTHERS = [(name, {}) for name in OPTIONS] + [
    ("cell clip", OPTIONS["stored cell clip"]),
    ("joint sum", OPTIONS["separate"]),
    ("joint sum", OPTIONS["per gate"]),
    ("joint sum", dict(layer_norm=dict(eps=1e-3))),
    ("cell", OPTIONS["stored cell"]),
    ("hard sigmoid", dict(activations=[("HardSigmoid", 1 / 6, 0.5), "Tanh", "Tanh"])),
    ("both", OPTIONS["per gate"]),
]


@pytest.mark.parametrize("name, other", OTHERS, ids=str)
def test_another_reading_lies_outside(name, other):
    layer, other = nn.LSTM(**OPTIONS[name]), nn.LSTM(**other)
    everything = nn.LSTM(peephole="diagonal", layer_norm=dict(separate=True, cell=True))
    rng = samples.rng_of(3)
    tensors = samples.recurrent_tensors(rng, everything, 40, 30, norm_bias=True)
    ((w,),) = oracle.directions(tensors)
    x, h, c = (samples.floats(rng, 4, n) for n in (40, 30, 30))

    def weights(one):
        if one.coupled is None:
            return w
        gates = [np.delete(np.split(a, 4), 1, axis=0) for a in w[:4]]
        return w._replace(**{n: np.concatenate(a) for n, a in zip(w._fields, gates, strict=False)})

    step = bounds.cell_bound(layer, weights(layer), x, (h, c))
    assert ratio(step, oracle.cell_step(layer, weights(layer), x, (h, c))) < 0.01
    assert ratio(step, oracle.cell_step(other, weights(other), x, (h, c))) > 3


def test_a_gru_and_an_rnn_of_another_kind_lie_outside():
    rng = samples.rng_of(4)
    for layer, others in (
        (nn.GRU(), [nn.GRU(linear_before_reset=False), nn.GRU(clip=0.5)]),
        (nn.GRU(linear_before_reset=False), [nn.GRU()]),
        (nn.RNN(), [nn.RNN(nonlinearity="relu"), nn.RNN(clip=0.5)]),
    ):
        ((w,),) = oracle.directions(samples.recurrent_tensors(rng, layer, 20, 30))
        x, h = samples.floats(rng, 4, 20), samples.floats(rng, 4, 30)
        step = bounds.cell_bound(layer, w, x, (h,))
        for other in others:
            assert ratio(step, oracle.cell_step(other, w, x, (h,))) > 3
        missing = w._replace(w_hh=np.where(np.arange(30) == 29, 0, w.w_hh))
        assert ratio(step, oracle.cell_step(layer, missing, x, (h,))) > 3


# ---- the algebra, operation by operation ---------------------------------------------------------


@given(samples.seeds)
@samples.examples(100)
def test_operations_hold_at_the_ends_of_the_interval(seed):
    """Operands moved within their errors, results rounded: nothing lies outside."""
    rng = samples.rng_of(seed)
    size = np.exp2(rng.uniform(-20, 20, (3, 50)))
    near = [
        algebra.Near(rng.standard_normal(50) * s, s * np.exp2(-rng.uniform(2, 30))) for s in size
    ]
    a, b, c = near
    at = [n.value + n.err * rng.choice([-1.0, 0.3, 1.0], 50) for n in near]
    t = algebra.Near(rng.uniform(0, 1, 50), np.exp2(-rng.uniform(2, 30, 50)))
    u = t.value + t.err * rng.choice([-1.0, 1.0], 50)

    def f32(x):
        return np.float64(np.float32(x))

    x, y, z = at
    for bound, actual in (
        (algebra.add(a, b), x + y),
        (algebra.subtract(a, b), x - y),
        (algebra.mul(a, b), x * y),
        (algebra.fma(a, b, c), x * y + z),
        (algebra.sum_of_products(a, b, b, c), x * y + f32(y * z)),
        (algebra.blend(t, a, b), u * x + f32(f32(1 - u) * y)),
        (algebra.blend(t, a, b), f32(1 - u) * y + f32(u * x)),
        (algebra.blend(t, a, b), u * f32(x - y) + y),
    ):
        assert worst(f32(actual), bound.value, bound.err * algebra.SLACK) <= 1
    bound, limit = algebra.clip(a, 0.3), np.float64(np.float32(0.3))
    assert worst(np.clip(x, -limit, limit), bound.value, bound.err * algebra.SLACK) <= 1


@pytest.mark.parametrize("one", samples.GATE_FUNCTIONS, ids=str)
def test_functions_hold_within_their_interval(one):
    """Monotone or not, with breaks and jumps: f anywhere in the interval, then rounded."""
    name, alpha, beta = one
    rng = samples.rng_of(7)
    value = np.concatenate([rng.standard_normal(400) * 3, [0.0, 0.3, -0.7, 0.9, 1e-6, -1e-6, 40.0]])
    value = value.astype(np.float32).astype(np.float64)
    for err in (0.0, 1e-7, 1e-3, 0.5):
        bound = bounds.activate(one, algebra.Near(value, np.full(value.shape, err)))
        for part in (-1.0, -0.5, 0.0, 0.7, 1.0):
            z = np.float64((value + part * err).astype(np.float32))  # the engine's own
            z = np.where(np.abs(z - value) <= err, z, value)
            y = oracle.ACTIVATIONS[name](z, np.float32(alpha), np.float32(beta))
            assert worst(np.float32(y), bound.value, bound.err * algebra.SLACK + algebra.TINY) <= 1
        most = 2 * err + 1e-6 * (1 + np.abs(value))
        assert (bound.err <= most + (name == "ThresholdedRelu")).all()


@given(samples.seeds, st.integers(1, 70), st.sampled_from([1e-5, 1e-3]))
@samples.examples(100)
def test_a_norm_of_inexact_numbers_holds(seed, width, eps):
    rng = samples.rng_of(seed)
    value = rng.standard_normal((20, width)) * np.exp2(rng.uniform(-15, 5)) + rng.normal() * 0.1
    err = np.abs(value) * np.exp2(-rng.uniform(3, 24, value.shape))
    bound = bounds.normalised(algebra.Near(value, err), eps)
    for _ in range(3):
        moved = value + err * rng.choice([-1.0, 1.0], err.shape)
        assert worst(oracle.layer_norm(moved, eps=eps), bound.value, bound.err) <= 1
    precise = bounds.normalised(algebra.Near(value, 0 * err), eps)
    assert worst(oracle.layer_norm(value), oracle.layer_norm(value), precise.err) == 0
