# SPDX-License-Identifier: MIT
"""The oracle is right (against torch in float64), and the bound bounds: float32 summed as DESIGN.md
§5 says lies within it whatever the input, and a slightly wrong computation lies outside."""

from types import SimpleNamespace

import bounds
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")


def layer(kind, prefix="", **options):
    """A stand-in for `clstm.nn.<kind>`: the oracle asks for the class name and the attributes."""
    return type(kind, (SimpleNamespace,), {})(prefix=prefix, **options)


def arrays(module, prefix=""):
    dot = f"{prefix}." if prefix else ""
    return {dot + name: value.detach().numpy() for name, value in module.state_dict().items()}


def close(actual, expected):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert actual.shape == tuple(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


# ---- the oracle against torch in float64 --------------------------------------------------------


@st.composite
def lstm_cases(draw):
    hidden = draw(st.integers(1, 40))
    projection = draw(st.integers(0, hidden - 1)) if draw(st.booleans()) else 0
    options = dict(
        input_size=draw(st.integers(1, 40)),
        hidden_size=hidden,
        num_layers=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        proj_size=projection,
        batch_first=draw(st.booleans()),
    )
    steps, batch = draw(st.integers(0, 10)), draw(st.integers(0, 5))
    lengths = None
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    return options, steps, batch, lengths, draw(st.booleans()), draw(st.integers(0, 2**31))


def torch_lstm(module, x, state, lengths):
    """torch on the rows and lengths it takes; what it does not take, by definition: an empty
    sequence and a row of length 0 leave the state as it was, and padding is 0. Time-major."""
    steps, batch = x.shape[:2]
    module.batch_first = False
    h, c = (s.clone() for s in state)
    width = module.proj_size or module.hidden_size
    y = torch.zeros(steps, batch, width * (2 if module.bidirectional else 1), dtype=x.dtype)
    if lengths is None:
        if steps:
            y, (h, c) = module(x, (h, c))
        return y, (h, c)
    rows = [b for b in range(batch) if lengths[b] > 0]
    if rows:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x[:, rows], [lengths[b] for b in rows], enforce_sorted=False
        )
        out, (h_rows, c_rows) = module(packed, (h[:, rows], c[:, rows]))
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, total_length=steps)
        y[:, rows], h[:, rows], c[:, rows] = out, h_rows, c_rows
    return y, (h, c)


@settings(deadline=None, max_examples=120)
@given(lstm_cases())
@torch.no_grad()
def test_lstm_is_torchs(case):
    options, steps, batch, lengths, with_state, seed = case
    torch.manual_seed(seed)
    module = torch.nn.LSTM(**options).double()
    rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
    hidden, width = options["hidden_size"], options["proj_size"] or options["hidden_size"]
    x = torch.randn(steps, batch, options["input_size"], dtype=torch.float64)
    state = [torch.zeros(rows, batch, n, dtype=torch.float64) for n in (width, hidden)]
    if with_state:
        state = [torch.randn_like(s) for s in state]
    y, (h, c) = torch_lstm(module, x, state, lengths)

    given_x, swapped = x.numpy(), options["batch_first"]
    if swapped:
        given_x, y = given_x.swapaxes(0, 1), y.swapaxes(0, 1)
    layers = [layer("LSTM", "rnn", batch_first=swapped)]
    given_state = tuple(s.numpy() for s in state) if with_state else None
    actual, (h_n, c_n) = oracle.forward(
        layers, arrays(module, "rnn"), given_x, given_state, lengths
    )
    close(actual, y)
    close(h_n, h)
    close(c_n, c)


@torch.no_grad()
def test_padding_may_hold_anything():
    torch.manual_seed(0)
    tensors = arrays(torch.nn.LSTM(3, 4, bidirectional=True).double())
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    clean = oracle.forward([layer("LSTM")], tensors, x, lengths=[2, 0])
    x[2:, 0], x[:, 1] = np.inf, np.nan
    again = oracle.forward([layer("LSTM")], tensors, x, lengths=[2, 0])
    for one, two in ((clean[0], again[0]), (clean[1][0], again[1][0])):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="lengths"):
        oracle.forward([layer("LSTM")], tensors, x, lengths=[6, 0])


@torch.no_grad()
def test_unbatched_and_cells_are_torchs():
    torch.manual_seed(1)
    module = torch.nn.LSTM(5, 6, num_layers=2, proj_size=3, batch_first=True).double()
    x, h, c = (torch.randn(*s, dtype=torch.float64) for s in ((7, 5), (2, 3), (2, 6)))
    layers = [layer("LSTM", batch_first=True)]
    for state in (None, (h, c)):
        y, final = module(x, state)
        actual, actual_final = oracle.forward(
            layers, arrays(module), x.numpy(), state and tuple(s.numpy() for s in state)
        )
        close(actual, y)
        for one, two in zip(actual_final, final, strict=True):
            close(one, two)

    cell = torch.nn.LSTMCell(5, 6).double()
    for shape in ((5,), (0, 5), (3, 5)):
        x = torch.randn(*shape, dtype=torch.float64)
        h, c = (torch.randn(*shape[:-1], 6, dtype=torch.float64) for _ in range(2))
        for state in (None, (h, c)):
            given_state = state and tuple(s.numpy() for s in state)
            actual = oracle.forward(
                [layer("LSTMCell", "c")], arrays(cell, "c"), x.numpy(), given_state
            )
            for one, two in zip(actual, cell(x, state), strict=True):
                close(one, two)


@torch.no_grad()
def test_a_list_of_layers_is_a_sequence_of_modules():
    """Tokens, an LSTM with a learned initial state, a cell over time, a head; ragged."""
    torch.manual_seed(2)
    nn = torch.nn
    parts = dict(
        emb=nn.Embedding(11, 4), lstm=nn.LSTM(4, 5), cell=nn.LSTMCell(5, 3), fc=nn.Linear(3, 2)
    )
    tensors = {"h0": np.full((1, 5), 0.5), "c0": np.full((1, 1, 5), -0.25)}
    for name, part in parts.items():
        tensors |= arrays(part.double(), name)
    layers = [
        layer("Embedding", "emb"),
        layer("LSTM", "lstm", batch_first=True, h0="h0", c0=tensors["c0"]),
        layer("Dropout", p=0.5),
        layer("LSTMCell", "cell"),
        layer("Linear", "fc"),
        layer("LogSoftmax"),
    ]
    tokens = np.random.default_rng(2).integers(0, 11, (3, 6))
    lengths = [4, 0, 6]
    y, states = oracle.forward(layers, tensors, tokens, lengths=lengths)
    assert y.shape == (3, 6, 2) and [len(s) for s in states] == [2, 2]
    for b, length in enumerate(lengths):
        assert (y[b, length:] == 0).all()
        h = (torch.full((1, 5), 0.5).double(), torch.full((1, 5), -0.25).double())
        state = (torch.zeros(3).double(), torch.zeros(3).double())
        for t in range(length):
            out, h = parts["lstm"](parts["emb"](torch.tensor(tokens[b, t : t + 1])), h)
            state = parts["cell"](out[0], state)
            close(y[b, t], nn.functional.log_softmax(parts["fc"](state[0]), -1))
        for part in (0, 1):
            close(states[0][part][:, b], h[part])
            close(states[1][part][b], state[part])
    # unbatched, and going on from a state: the same numbers
    first, middle = oracle.forward(layers, tensors, tokens[2, :3])
    second, _ = oracle.forward(layers, tensors, tokens[2, 3:], middle)
    close(np.concatenate([first, second]), y[2])


FEATURES = 6
HEADS = [
    (torch.nn.Linear(FEATURES, 4), {}),
    (torch.nn.Linear(FEATURES, 4, bias=False), {}),
    (torch.nn.LayerNorm(FEATURES, eps=1e-3), {"eps": 1e-3}),
    (torch.nn.LayerNorm(FEATURES, elementwise_affine=False), {}),
    (torch.nn.BatchNorm1d(FEATURES, eps=1e-2), {"eps": 1e-2}),
    (torch.nn.BatchNorm1d(FEATURES, affine=False), {}),
    (torch.nn.Dropout(0.3), {"p": 0.3}),
    (torch.nn.Identity(), {}),
    (torch.nn.ReLU(), {}),
    (torch.nn.ReLU6(), {}),
    (torch.nn.LeakyReLU(), {}),
    (torch.nn.LeakyReLU(0.3), {"negative_slope": 0.3}),
    (torch.nn.PReLU(), {}),
    (torch.nn.PReLU(FEATURES), {}),
    (torch.nn.ELU(), {}),
    (torch.nn.ELU(0.7), {"alpha": 0.7}),
    (torch.nn.Tanh(), {}),
    (torch.nn.Hardtanh(), {}),
    (torch.nn.Hardtanh(-0.5, 2.0), {"min_val": -0.5, "max_val": 2.0}),
    (torch.nn.Sigmoid(), {}),
    (torch.nn.GELU(), {}),
    (torch.nn.GELU("tanh"), {"approximate": "tanh"}),
    (torch.nn.SiLU(), {}),
    (torch.nn.Softplus(), {}),
    (torch.nn.Softplus(2.0, 5.0), {"beta": 2.0, "threshold": 5.0}),
    (torch.nn.Softmax(-1), {}),
    (torch.nn.LogSoftmax(-1), {}),
]


@pytest.mark.parametrize(("module", "options"), HEADS, ids=lambda v: str(v).partition("(")[0])
@torch.no_grad()
def test_stateless_layers_are_torchs(module, options):
    generator = torch.Generator().manual_seed(3)
    for name, value in module.double().state_dict().items():
        if value.is_floating_point():  # away from the initial ones and zeros; a variance above 0
            value.copy_(torch.rand(value.shape, generator=generator) + ("var" in name) * 0.1)
    module.eval()
    x = torch.randn(50, FEATURES, dtype=torch.float64, generator=generator) * 4.0
    x[:6, 0] = torch.tensor([0.0, -0.0, 800.0, -800.0, 1e-30, -1e-30], dtype=torch.float64)
    kind = type(module).__name__
    y, state = oracle.forward([layer(kind, "m", **options)], arrays(module, "m"), x.numpy())
    close(y, module(x))
    assert state is None


def test_affine_and_fold():
    rng = np.random.default_rng(4)
    x, scale, shift = rng.standard_normal((7, 3)), rng.standard_normal(3), rng.standard_normal(3)
    weight, bias = rng.standard_normal((2, 3)), rng.standard_normal(2)
    layers = [layer("Affine", "a"), layer("Linear", "")]
    tensors = {"a.scale": scale, "a.shift": shift, "weight": weight, "bias": bias}
    y, _ = oracle.forward(layers, tensors, x)
    close(y, (x * scale + shift) @ weight.T + bias)
    folded, folded_bias = bounds.fold(weight, bias, scale, shift)
    close(oracle.linear(x, folded, folded_bias), y)


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
    return np.where(np.abs(a) < 2.0**-100, 0.0, a)


def engine_step(w, x, h, c, rng, *, rows="ifgo", bias=True, skip_x=None, skip_h=None, ulps=1.0):
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
    if w.w_hr is not None:
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
    for actual, expected in zip((step.h, step.c), reference, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-300)


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
    assert (step.z_bound < 1e-4 * bounds.U * 100).all()
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
    assert bounds.worst(h_wrong, step.h, step.h_bound) > 3
    assert bounds.worst(c_wrong, step.c, step.c_bound) > 3


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
    full, _ = engine_step(w._replace(w_hr=None), f32(x), f32(h), f32(c), rng)
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

    assert again(end=(h, c + 1e-3)) > 1
    assert again(end=(np.nextafter(h, 2), c)) > 1
    assert again(y=[*outputs[:-1], outputs[-1] * np.nan]) > 1
    if ragged:
        spoilt = outputs[-1].copy()
        spoilt[5, 1, -1] = 1e-30
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
    single[2] = (single[2][0], f32(single[2][1] + 1e-3))
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
    assert reference.h_bound.max() < 1e-4


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
