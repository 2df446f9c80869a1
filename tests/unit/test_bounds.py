# SPDX-License-Identifier: MIT
"""The bound bounds: float32 summed as ARCHITECTURE says lies within it whatever the input, and a
slightly wrong computation lies outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bounds
import oracle
from bounds.tolerances import DIFFERENT, EXACT_SHARE, WRONG_TERM
from torch_side import arrays, close

torch = pytest.importorskip("torch")


# ---- the bound: float32 as the engine does it ---------------------------------------------------


def f32(a):
    return np.asarray(a).astype(np.float32).astype(np.float64)


def total(start, weight, x, block=64, skip=None):
    """start (B, R) + W x, each block of products one chain of fma. (A product of two float32 is
    exact in float64; the sum is rounded twice, which is 2^-29 of an ulp off a true fma.)"""
    for first in range(0, x.shape[-1], block):
        chain = np.zeros_like(start)
        for k in range(first, min(first + block, x.shape[-1])):
            if k != skip:
                chain = f32(chain + weight[:, k] * x[..., k, None])
        start = f32(start + chain)
    return start


def off(f, ulps, rng, x):
    """A correctly rounded f, then pushed away by `ulps` units of the last place, either way, but
    not over 1. (The units of the binade below where f rounds to a power of two, as 1 is.)"""
    y = f(x).astype(np.float32)
    unit = np.spacing(np.nextafter(np.abs(y), np.float32(0))).astype(np.float64)
    return np.clip(y + rng.choice([-1.0, 1.0], y.shape) * ulps * unit, -1.0, 1.0)


def flush(a):
    return np.where(np.abs(a) < bounds.FLUSH, 0.0, a)


def engine_step(w, x, h, c, rng, *, rows="ifgo", bias=True, skip_x=None, skip_h=None, ulps=1.0,
                project=True):  # fmt: skip
    """A step in float32 emulated in float64; the options after `rng` make it wrong. (`ulps`: with
    the rounding to nearest, 1 makes the 1.5 that tanh may err by.)"""
    start = np.zeros((len(x), 4 * w.hidden_size))
    if bias and w.b_ih is not None:
        start = start + f32(f32(w.b_ih) + f32(w.b_hh))
    z = total(total(start, f32(w.w_ih), x, skip=skip_x), f32(w.w_hh), h, skip=skip_h)
    gates = dict(zip(rows, np.split(z, 4, axis=-1), strict=True))
    i, f, o = (off(oracle.sigmoid, ulps, rng, gates[name]) for name in "ifo")
    g = off(np.tanh, ulps, rng, gates["g"])
    c = flush(f32(f * c + f32(i * g)))
    h = flush(f32(o * off(np.tanh, ulps, rng, c)))
    if w.w_hr is not None and project:
        h = flush(total(np.zeros((len(x), w.output_size)), f32(w.w_hr), h))
    return h, c


def random_case(seed, inputs, hidden, projection=0, bias=True, batch=3, spread=1.0, scale=1.0):
    """Weights and inputs in float32; a `spread` above 1 mixes magnitudes over many powers."""
    rng = np.random.default_rng(seed)

    def draw(*shape, size=1.0):
        a = rng.standard_normal(shape) * size * np.exp2(rng.uniform(-1, 1, shape) * np.log2(spread))
        return a.astype(np.float32)

    k = scale / np.sqrt(hidden)
    width = projection or hidden
    w = oracle.Direction(
        draw(4 * hidden, inputs, size=k),
        draw(4 * hidden, width, size=k),
        draw(4 * hidden, size=k) if bias else None,
        draw(4 * hidden, size=k) if bias else None,
        draw(projection, hidden, size=k) if projection else None,
    )
    state = np.clip(draw(batch, width), -1, 1), draw(batch, hidden)
    return w, draw(batch, inputs), *state, rng


def ratio(step, h, c):
    return max(bounds.worst(h, step.h, step.h_bound), bounds.worst(c, step.c, step.c_bound))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    inputs=st.integers(1, 150),
    hidden=st.integers(1, 100),
    projection=st.integers(0, 99),
    bias=st.booleans(),
    spread=st.sampled_from([1.0, 8.0, 2.0**20, 2.0**45]),
    scale=st.sampled_from([1.0, 2.0**-60, 2.0**-110, 30.0]),
)
def test_the_provable_bound_holds_whatever_the_input(
    seed, inputs, hidden, projection, bias, spread, scale
):
    """Magnitudes mixed over 90 powers of two, saturated gates, underflow and flush."""
    w, x, h, c, rng = random_case(
        seed, inputs, hidden, projection % hidden, bias, spread=spread, scale=scale
    )
    step = bounds.step_bound(w, x, h, c)
    assert ratio(step, *engine_step(w, f32(x), f32(h), f32(c), rng)) <= 1
    reference = oracle.lstm_step(w, x, h, c)
    assert ratio(step, *reference) < EXACT_SHARE


@pytest.mark.parametrize("hidden", [1, 32, 63, 64, 65, 130, 300])
def test_the_random_bound_holds_and_is_not_slack(hidden):
    """16 u S for random tests; and the pre-activations come within a factor of 100 of it."""
    w, x, h, c, rng = random_case(hidden, hidden, hidden, batch=20)
    step = bounds.step_bound(w, x, h, c, "random")
    provable = bounds.step_bound(w, x, h, c)
    assert (step.h_bound <= provable.h_bound).all() and (step.c_bound <= provable.c_bound).all()
    assert ratio(step, *engine_step(w, f32(x), f32(h), f32(c), rng)) <= 1
    start = np.broadcast_to(f32(f32(w.b_ih) + f32(w.b_hh)), (20, 4 * hidden))
    z = total(total(start, f32(w.w_ih), f32(x)), f32(w.w_hh), f32(h))
    assert 0.01 < bounds.worst(z, step.z, step.z_bound) < 0.5


def test_the_sum_bound_holds_where_all_errors_agree():
    """The worst case of a chain: a large first term, then terms just over half an ulp of it, each
    rounded the same way. Half of the bound is reached, so the constant is no luxury."""
    x = np.full((1, 128), 0.5 + 2.0**-20, dtype=np.float64) * 2.0**-23
    x[:, [0, 64]] = 1.0
    ones = np.ones((1, 128))
    z, bound = bounds.linear_bound(ones, None, f32(x))
    actual = total(np.zeros((1, 1)), ones, f32(x))
    assert 0.4 < bounds.worst(actual, z, bound) <= 1


def test_cancelling_biases_are_covered():
    """S has |b_ih + b_hh|, and no input or state adds to it: one rounding of that sum."""
    w, x, h, c, rng = random_case(5, 4, 9)
    first = rng.standard_normal(36).astype(np.float32)
    second = (-first * (1 + rng.standard_normal(36) * 1e-5)).astype(np.float32)
    w, x, h = w._replace(b_ih=first, b_hh=second), 0 * x, 0 * h
    step = bounds.step_bound(w, x, h, c)
    z = np.broadcast_to(f32(f32(first) + f32(second)), step.z.shape)
    assert bounds.worst(z, step.z, step.z_bound) <= 1
    assert (step.z_bound < 16 * DIFFERENT * bounds.U).all()
    assert ratio(step, *engine_step(w, f32(x), f32(h), f32(c), rng)) <= 1


MUTANTS = {
    "i and f swapped": dict(rows="figo"),
    "g and o swapped": dict(rows="ifog"),
    "f and g swapped": dict(rows="igfo"),
    "bias dropped": dict(bias=False),
    "first product missing": dict(skip_x=0),
    "last of a block of x missing": dict(skip_x=63),
    "first of a block of x missing": dict(skip_x=64),
    "last product of x missing": dict(skip_x=129),
    "last of a block of h missing": dict(skip_h=63),
    "first of a block of h missing": dict(skip_h=64),
    "last product of h missing": dict(skip_h=98),
    "tanh and sigmoid of 1e-4": dict(ulps=1000.0),
}


@pytest.mark.parametrize("kind", ["provable", "random"])
@pytest.mark.parametrize("wrong", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_wrong_step_lies_outside(wrong, kind):
    w, x, h, c, rng = random_case(6, 130, 99)
    x, h, c = f32(x), f32(h), f32(c)
    step = bounds.step_bound(w, x, h, c, kind)
    assert ratio(step, *engine_step(w, x, h, c, rng)) <= 1
    h_wrong, c_wrong = engine_step(w, x, h, c, rng, **wrong)
    assert bounds.worst(h_wrong, step.h, step.h_bound) > WRONG_TERM
    assert bounds.worst(c_wrong, step.c, step.c_bound) > WRONG_TERM


@pytest.mark.parametrize("bits", [8, 11, 14])
def test_narrower_weights_lie_outside(bits):
    """bfloat16 (8 bits), float16 (11), and still 14 of float32's 24."""
    w, x, h, c, rng = random_case(7, 64, 64)

    def narrow(a):
        m, e = np.frexp(a.astype(np.float64))
        return np.ldexp(np.rint(m * 2**bits) / 2**bits, e)

    step = bounds.step_bound(w, x, h, c, "random")
    narrowed = w._replace(w_ih=narrow(w.w_ih), w_hh=narrow(w.w_hh))
    assert ratio(step, *engine_step(narrowed, f32(x), f32(h), f32(c), rng)) > 1


def test_a_missing_projection_term_lies_outside():
    w, x, h, c, rng = random_case(8, 10, 99, projection=7)
    step = bounds.step_bound(w, x, h, c)
    full, _ = engine_step(w, f32(x), f32(h), f32(c), rng, project=False)
    for skip, outside in ((None, False), (0, True), (63, True), (64, True), (98, True)):
        y = total(np.zeros((3, 7)), f32(w.w_hr), full, skip=skip)
        assert (bounds.worst(y, step.h, step.h_bound) > 1) == outside


def test_only_the_engines_own_numbers_have_a_bound():
    w, x, h, c, _ = random_case(9, 3, 4)
    for bad in (x.astype(np.float64) + 1e-12, np.full_like(x, np.nan), np.full_like(x, np.inf)):
        with pytest.raises(ValueError, match="x is not finite float32"):
            bounds.step_bound(w, bad, h, c)
    assert bounds.worst([np.nan], np.zeros(1), np.ones(1)) == np.inf
    with pytest.raises(ValueError, match="shape"):
        bounds.worst(np.zeros((2, 1)), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="kind"):
        bounds.step_bound(w, x, h, c, "loose")


def test_ulp_is_float32s_spacing():
    values = np.float32([1, 1.5, 2, 0.75, 2**-126, 1e-40, 2**-149, 3e38, -7.5, 0])
    np.testing.assert_array_equal(bounds.ulp(values.astype(np.float64)), np.spacing(np.abs(values)))


# ---- whole runs ---------------------------------------------------------------------------------


def engine_lstm(tensors, x, h0, c0, lengths, rng, **wrong):
    """All layers and directions in emulated float32, with everything a check may be given."""
    steps, batch = x.shape[:2]
    valid = oracle.valid_rows(steps, batch, lengths)
    outputs, trace_h, trace_c, row = [], [], [], 0
    for stack in oracle.directions(tensors):
        parts = []
        for d, w in enumerate(stack):
            h, c = h0[row], c0[row]
            y, hs, cs = np.zeros((steps, batch, w.output_size)), [h], [c]
            for t in reversed(range(steps)) if d else range(steps):
                new_h, new_c = engine_step(w, x[t], h, c, rng, **wrong)
                h, c = np.where(valid[t], new_h, h), np.where(valid[t], new_c, c)
                y[t] = np.where(valid[t], h, 0.0)
                hs.append(h)
                cs.append(c)
            parts.append(y)
            trace_h.append(hs)
            trace_c.append(cs)
            row += 1
        x = np.concatenate(parts, axis=-1)
        outputs.append(x)
    states = [
        (np.stack([h[t] for h in trace_h]), np.stack([c[t] for c in trace_c]))
        for t in range(steps + 1)
    ]
    return outputs, states


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(1, 70), st.integers(2, 20), st.integers(0, 9)),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    ragged=st.booleans(),
    kind=st.sampled_from(["provable", "random"]),
)
@torch.no_grad()
def test_runs_keep_the_bound_and_wrong_ones_do_not(
    seed, sizes, layers, bidirectional, ragged, kind
):
    inputs, hidden, projection = sizes
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    module = torch.nn.LSTM(
        inputs, hidden, layers, bidirectional=bidirectional, proj_size=projection % hidden
    )
    tensors = arrays(module)
    steps, batch = 6, 3
    x = f32(rng.standard_normal((steps, batch, inputs)))
    rows = layers * (2 if bidirectional else 1)
    h0 = f32(rng.uniform(-1, 1, (rows, batch, projection % hidden or hidden)))
    c0 = f32(rng.standard_normal((rows, batch, hidden)))
    lengths = [4, 0, 6] if ragged else None

    def check(**wrong):
        outputs, states = engine_lstm(tensors, x, h0, c0, lengths, rng, **wrong)
        result = bounds.lstm_check(tensors, "", x, outputs, states[0], states[-1], kind, lengths)
        if not bidirectional and not ragged:
            assert (bounds.stream_check(tensors, "", x, states, kind) <= 1) == (result <= 1)
        return result, outputs, states

    result, outputs, states = check()
    assert result <= 1
    assert check(rows="figo")[0] > 1
    assert check(bias=False)[0] > 1
    assert check(skip_x=inputs - 1)[0] > 1
    h, c = states[-1]

    def again(y=outputs, end=(h, c)):
        return bounds.lstm_check(tensors, "", x, y, states[0], end, kind, lengths)

    assert again(end=(h, c + DIFFERENT)) > 1
    assert again(end=(np.nextafter(h, 2), c)) > 1
    assert again(y=[*outputs[:-1], outputs[-1] * np.nan]) > 1
    if ragged:
        spoilt = outputs[-1].copy()
        spoilt[5, 1, -1] = bounds.FLUSH
        assert again(y=[*outputs[:-1], spoilt]) > 1


@torch.no_grad()
def test_first_layers_and_cells():
    tensors = arrays(torch.nn.LSTM(3, 4, 3, bidirectional=True), "m.rnn") | {"m.fc.weight": 0}
    for count in (1, 2, 3):
        some = bounds.first_layers(tensors, "m.rnn", count)
        assert len(some) == count * 8 and len(oracle.directions(some, "m.rnn")) == count

    w, x, h, c, rng = random_case(10, 5, 6, batch=1)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell = dict(zip(names, w[:4], strict=True))
    states = [(f32(h), f32(c))]
    for _ in range(4):
        states.append(engine_step(w, f32(x), *states[-1], rng))
    single = [(h[0], c[0]) for h, c in states]
    assert bounds.stream_check(cell, "", np.repeat(x, 4, axis=0), single) <= 1
    assert bounds.stream_check(cell, "", np.repeat(x[None], 4, axis=0), states) <= 1
    single[2] = (single[2][0], f32(single[2][1] + DIFFERENT))
    assert bounds.stream_check(cell, "", np.repeat(x, 4, axis=0), single) > 1


def test_a_contractive_free_run_stays_within_the_carried_bound():
    """h and c of the reference run free in float64; their bounds are carried along."""
    w, _, h, c, rng = random_case(11, 8, 12, scale=0.3)
    reference = bounds.step_bound(w, np.zeros((3, 8)), h, c)
    x = f32(rng.standard_normal((30, 3, 8)))
    engine = engine_step(w, np.zeros((3, 8)), f32(h), f32(c), rng)
    for t in range(30):
        engine = engine_step(w, x[t], *engine, rng)
        reference = bounds.step_bound(
            w, x[t], reference.h, reference.c, "provable", 0.0, reference.h_bound, reference.c_bound
        )
        assert ratio(reference, *engine) <= 1
    assert reference.h_bound.max() < DIFFERENT


def test_linear_bound():
    rng = np.random.default_rng(12)
    weight = rng.standard_normal((9, 130)).astype(np.float32)
    bias = rng.standard_normal(9).astype(np.float32)
    x = f32(rng.standard_normal((4, 130)))
    for kind in ("provable", "random"):
        y, bound = bounds.linear_bound(weight, bias, x, kind)
        close(y, oracle.linear(x, weight, bias))
        start = np.broadcast_to(f32(bias), (4, 9))
        assert bounds.worst(total(start, f32(weight), x), y, bound) <= 1
        for skip in (0, 63, 64, 127, 128, 129):
            assert bounds.worst(total(start, f32(weight), x, skip=skip), y, bound) > 1
        moved, wider = bounds.linear_bound(weight, bias, x + 1e-6, kind, 1e-6)
        assert bounds.worst(total(start, f32(weight), x), moved, wider) <= 1
    assert (bounds.head_bound(np.array([0.0, 1.0, 100.0])) == [2**-23, 2**-21, 2**-15]).all()
