# SPDX-License-Identifier: MIT
"""The oracle's GRU and RNN are torch's; its options are short formulas from the papers, written
here once more, one hidden unit or one gate at a time. Where two systems define a thing
differently, both forms are shown, and that they differ."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
import samples
from bounds.tolerances import DIFFERENT, FLOAT64
from clstm import nn
from torch_side import arrays, close, layer

torch = pytest.importorskip("torch")

# ---- torch --------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(["GRU", "RNN tanh", "RNN relu"]),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    layers=st.integers(1, 3),
    flags=st.tuples(*[st.booleans()] * 4),
    steps=st.integers(1, 8),
    batch=st.integers(1, 4),
    seed=samples.seeds,
)
@samples.examples(100)
@torch.no_grad()
def test_gru_and_rnn_are_torchs(kind, sizes, layers, flags, steps, batch, seed):
    bias, both, batch_first, ragged = flags
    torch.manual_seed(seed)
    rng = samples.rng_of(seed)
    name, _, nonlinearity = kind.partition(" ")
    options = {"nonlinearity": nonlinearity} if nonlinearity else {}
    module = getattr(torch.nn, name)(
        *sizes, layers, bias=bias, bidirectional=both, batch_first=batch_first, **options
    ).double()
    x = torch.randn(steps, batch, sizes[0], dtype=torch.float64)
    x = x.transpose(0, 1).contiguous() if batch_first else x
    h0 = torch.randn(layers * (1 + both), batch, sizes[1], dtype=torch.float64)
    lengths = None
    if ragged:
        lengths = rng.integers(1, steps + 1, batch)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.from_numpy(lengths), batch_first, enforce_sorted=False
        )
        y, h = module(packed, h0)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first, total_length=steps)
    else:
        y, h = module(x, h0)
    ours = layer(name, "m", batch_first=batch_first, **options)
    actual, final = oracle.forward([ours], arrays(module, "m"), x.numpy(), h0.numpy(), lengths)
    close(actual, y)
    close(final, h)


@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell"])
@torch.no_grad()
def test_cells_are_torchs(kind):
    torch.manual_seed(0)
    cell = getattr(torch.nn, kind)(5, 6).double()
    for shape in ((5,), (0, 5), (3, 5)):
        x = torch.randn(*shape, dtype=torch.float64)
        h = torch.randn(*shape[:-1], 6, dtype=torch.float64)
        for state in (None, h):
            given_state = None if state is None else state.numpy()
            actual = oracle.forward([layer(kind, "c")], arrays(cell, "c"), x.numpy(), given_state)
            close(actual, cell(x, state))


@torch.no_grad()
def test_unbatched_learned_and_over_time():
    torch.manual_seed(1)
    gru, cell = torch.nn.GRU(4, 5, 2).double(), torch.nn.RNNCell(5, 3).double()
    tensors = arrays(gru, "g") | arrays(cell, "c") | {"h0": np.full((2, 1, 5), 0.5)}
    x = torch.randn(7, 4, dtype=torch.float64)
    y, (h_g, h_c) = oracle.forward(
        [layer("GRU", "g", h0="h0"), layer("RNNCell", "c")], tensors, x.numpy()
    )
    middle, h = gru(x, torch.full((2, 5), 0.5).double())
    state = torch.zeros(3).double()
    for t in range(7):
        state = cell(middle[t], state)
        close(y[t], state)
    close(h_g, h)
    close(h_c, state)


def test_reverse_is_the_second_direction():
    """ONNX's direction="reverse": the valid part of each row, from its end."""
    rng = samples.rng_of(8)
    tensors = samples.recurrent_tensors(rng, nn.GRU(), 3, 4, bidirectional=True)
    x, lengths = rng.standard_normal((5, 3, 3)), [5, 0, 2]
    y, h = oracle.forward([nn.GRU()], tensors, x, lengths=lengths)
    alone = {n.removesuffix("_reverse"): a for n, a in tensors.items() if "reverse" in n}
    back, end = oracle.forward([nn.GRU(reverse=True)], alone, x, lengths=lengths)
    np.testing.assert_array_equal(back, y[..., 4:])
    np.testing.assert_array_equal(end[0], h[1])


# ---- options, one at a time, against short formulas ---------------------------------------------


class Gates:
    """z of each gate of one LSTM step, by torch's names, and everything to go on from there."""

    def __init__(self, seed=0, hidden=5, gates="ifgo", **options):
        rng = samples.rng_of(seed)
        everything = dict(peephole="full") if options.pop("full", False) else {}
        self.description = nn.LSTM(**everything)
        tensors = samples.recurrent_tensors(rng, self.description, 4, hidden, **options)
        ((self.w,),) = oracle.directions(tensors)
        self.x, self.h, self.c = (
            rng.standard_normal(n) for n in (4, self.w.output_size, self.w.hidden_size)
        )
        products = self.products()
        self.z = dict(
            zip("ifgo", np.split(sum(products) + oracle.bias_sum(self.w), 4), strict=True)
        )
        self.p = dict(zip("ifo", rng.standard_normal((3, hidden)), strict=True))
        self.peephole = np.concatenate([self.p[gate] for gate in "ifo"])
        self.ln = rng.uniform(0.5, 1.5, (4, 4 * hidden))
        self.ln_cell = rng.uniform(0.5, 1.5, (2, hidden))

    def products(self):
        w = [a.astype(np.float64) for a in (self.w.w_ih, self.w.w_hh)]
        return w[0] @ self.x, w[1] @ self.h

    def without(self, gate):
        """The weights of a coupled cell."""
        k = "ifgo".index(gate)
        rows = [np.concatenate(np.delete(np.split(a, 4), k, axis=0)) for a in self.w[:4]]
        return self.w._replace(**dict(zip(self.w._fields[:4], rows, strict=True)))

    def step(self, w=None, **options):
        return oracle.lstm_step(w or self.w, self.x, self.h, self.c, layer("LSTM", **options))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def merge(i, f, g, o, c, h_of=np.tanh):
    new = f * c + i * g
    return o * h_of(new), new


def agree(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=FLOAT64, atol=FLOAT64)


def differ(one, two):
    assert max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) > DIFFERENT


def test_a_diagonal_peephole_of_o_sees_the_new_cell():
    """Gers and Schmidhuber 2000, ONNX: o sees c(t), unlike i and f. (An o that sees c(t - 1) is
    what the full matrix does by default.)"""
    s = Gates()
    w = s.w._replace(w_ch=s.peephole)
    i, f = (sigmoid(s.z[n] + s.p[n] * s.c) for n in "if")
    new = f * s.c + i * np.tanh(s.z["g"])
    expected = sigmoid(s.z["o"] + s.p["o"] * new) * np.tanh(new), new
    agree(s.step(w, peephole="diagonal"), expected)
    old = sigmoid(s.z["o"] + s.p["o"] * s.c) * np.tanh(new), new
    differ(expected, old)
    full = np.concatenate([np.diag(s.p.get(gate, np.zeros(5))) for gate in "ifgo"])
    w = s.w._replace(w_ch=full)
    agree(s.step(w, peephole="full", output_peephole="old"), old)
    agree(s.step(w, peephole="full", output_peephole="new"), expected)


def test_a_full_peephole_is_one_more_product_of_every_gate():
    s = Gates(full=True)
    c_of = dict(zip("ifgo", np.split(s.w.w_ch.astype(float), 4), strict=True))
    z = {gate: s.z[gate] + c_of[gate] @ s.c for gate in "ifgo"}
    i, f, g = sigmoid(z["i"]), sigmoid(z["f"]), np.tanh(z["g"])
    expected = merge(i, f, g, sigmoid(z["o"]), s.c)
    agree(s.step(peephole="full"), expected)
    new = f * s.c + i * g
    seen = sigmoid(s.z["o"] + c_of["o"] @ new) * np.tanh(new), new
    agree(s.step(peephole="full", output_peephole="new"), seen)
    differ(expected, seen)


def test_coupled_gates_both_ways():
    """Greff et al. 2017 and ONNX: f = 1 - i; TFLite: i = 1 - f. The same tensors mean another
    cell; after the activation, so a function that is not within 0 ... 1 is still taken from 1."""
    s = Gates()
    i, f, o = (sigmoid(s.z[gate]) for gate in "ifo")
    g = np.tanh(s.z["g"])
    one, two = merge(i, 1 - i, g, o, s.c), merge(1 - f, f, g, o, s.c)
    agree(s.step(s.without("f"), coupled="f=1-i"), one)
    agree(s.step(s.without("i"), coupled="i=1-f"), two)
    differ(one, two)
    # the derived gate's peephole is ignored, and may be absent
    w = s.without("f")
    p = {gate: s.p[gate] for gate in "io"}
    i = sigmoid(s.z["i"] + p["i"] * s.c)
    new = (1 - i) * s.c + i * g
    expected = sigmoid(s.z["o"] + p["o"] * new) * np.tanh(new), new
    for w_ch in (s.peephole, np.concatenate([p["i"], p["o"]])):
        agree(s.step(w._replace(w_ch=w_ch), peephole="diagonal", coupled="f=1-i"), expected)
    doubled = 2 * s.z["i"]
    functions = [("Affine", 2.0, 0.0), ("Tanh", 0.0, 0.0), ("Tanh", 0.0, 0.0)]
    actual = s.step(s.without("f"), coupled="f=1-i", activations=functions)
    agree(actual, merge(doubled, 1 - doubled, g, 2 * s.z["o"], s.c))


def test_clip_is_of_arguments_and_cell_clip_of_a_copy_or_of_the_cell():
    """TFLite stores the clipped cell; the other form clips only what h's function sees."""
    s = Gates()
    z = {gate: np.clip(a, -0.2, 0.2) for gate, a in s.z.items()}
    i, f, o = (sigmoid(z[gate]) for gate in "ifo")
    agree(s.step(clip=0.2), merge(i, f, np.tanh(z["g"]), o, s.c))
    i, f, o = (sigmoid(s.z[gate]) for gate in "ifo")
    new = f * s.c + i * np.tanh(s.z["g"])
    held = np.clip(new, -0.2, 0.2)
    assert (held != new).any()
    copy, stored = (o * np.tanh(held), new), (o * np.tanh(held), held)
    agree(s.step(cell_clip=0.2), copy)
    agree(s.step(cell_clip=0.2, cell_clip_stored=True), stored)
    differ(copy, stored)
    # o's peephole sees the stored one, before a clip that is not stored
    w = s.w._replace(w_ch=np.concatenate([0 * s.p["i"], 0 * s.p["f"], s.p["o"]]))
    for flag, seen in ((False, new), (True, held)):
        out = sigmoid(s.z["o"] + s.p["o"] * seen) * np.tanh(held)
        actual = s.step(w, peephole="diagonal", cell_clip=0.2, cell_clip_stored=flag)
        agree(actual, (out, seen))


def test_projection_with_bias_and_clip():
    """TFLite: projection_bias is added, then the sum is held within +-proj_clip."""
    s = Gates(proj=3, proj_bias=True)
    i, f, o = (sigmoid(s.z[gate]) for gate in "ifo")
    h, c = merge(i, f, np.tanh(s.z["g"]), o, s.c)
    projected = s.w.w_hr.astype(float) @ h + s.w.b_hr
    agree(s.step(), (projected, c))
    agree(s.step(proj_clip=0.05), (np.clip(projected, -0.05, 0.05), c))
    differ([projected], [np.clip(projected, -0.05, 0.05)])


def test_forget_bias_is_added_before_the_clip():
    """TensorFlow's BasicLSTMCell adds it at run time; Keras has it in the stored bias."""
    s = Gates()
    i, f, o = (sigmoid(s.z[gate]) for gate in "ifo")
    g = np.tanh(s.z["g"])
    with_bias = merge(i, sigmoid(s.z["f"] + 1.0), g, o, s.c)
    agree(s.step(forget_bias=1.0), with_bias)
    stored = s.w.b_hh.astype(float)
    stored[5:10] += 1.0
    agree(s.step(s.w._replace(b_hh=stored)), with_bias)
    differ(with_bias, s.step())
    z = {gate: np.clip(a + (gate == "f"), -0.3, 0.3) for gate, a in s.z.items()}
    i, f, o = (sigmoid(z[gate]) for gate in "ifo")
    agree(s.step(forget_bias=1.0, clip=0.3), merge(i, f, np.tanh(z["g"]), o, s.c))


def test_zoneout_is_the_expectation_and_h_is_of_the_cell_before_it():
    """Krueger et al. 2017, equations of section 3.1: h is made of f c + i g, not of the c that is
    stored."""
    s = Gates()
    i, f, o = (sigmoid(s.z[gate]) for gate in "ifo")
    h, c = merge(i, f, np.tanh(s.z["g"]), o, s.c)
    stored = 0.25 * s.c + 0.75 * c
    expected = 0.1 * s.h + 0.9 * h, stored
    agree(s.step(zoneout=(0.1, 0.25)), expected)
    differ(expected, (0.1 * s.h + 0.9 * o * np.tanh(stored), stored))


def norm(a, eps=1e-5):
    return (a - a.mean()) / math.sqrt(a.var() + eps)


def normed(s, z, c_for_h=lambda c: c, stored=lambda c: c):
    i, f, o = (sigmoid(z[gate]) for gate in "ifo")
    new = stored(f * s.c + i * np.tanh(z["g"]))
    return o * np.tanh(c_for_h(new)), new


def split(a):
    return dict(zip("ifgo", np.split(a, 4), strict=True))


def test_layer_norm_in_all_its_forms():
    """Ba, Kiros and Hinton 2016 (20 to 22) normalise both products, over all gates, with offsets,
    and the cell for h; TFLite each gate of the sum. Biases come after the norm; inside, they
    would be another cell."""
    s = Gates()
    a, r = s.products()
    bias, (g1, b1, g2, b2), (gc, bc) = oracle.bias_sum(s.w), s.ln, s.ln_cell
    w = s.w._replace(ln_ih=g1, ln_hh=g2, ln_cell=gc)
    offset = w._replace(ln_ih_bias=b1, ln_hh_bias=b2, ln_cell_bias=bc)

    def each(v):
        return np.concatenate([norm(part) for part in np.split(v, 4)])

    results = []
    for per_gate, over in ((False, norm), (True, each)):
        summed, separate = over(a + r) * g1, over(a) * g1 + over(r) * g2
        options = dict(layer_norm=dict(per_gate=per_gate))
        results += [normed(s, split(summed + bias))]
        agree(s.step(w, **options), results[-1])
        agree(s.step(offset, **options), normed(s, split(summed + b1 + bias)))
        options = dict(layer_norm=dict(per_gate=per_gate, separate=True))
        results += [normed(s, split(separate + bias))]
        agree(s.step(w, **options), results[-1])
        agree(s.step(offset, **options), normed(s, split(separate + b1 + b2 + bias)))

    def cell(c):
        return norm(c) * gc + bc

    z = split(norm(a + r) * g1 + b1 + bias)
    results += [normed(s, z, c_for_h=cell), normed(s, z, stored=cell)]
    agree(s.step(offset, layer_norm=dict(cell=True)), results[-2])
    agree(s.step(offset, layer_norm=dict(cell="stored")), results[-1])
    results += [normed(s, split(norm(a + r + bias) * g1))]  # the bias inside
    for k, one in enumerate(results):
        for two in results[:k]:
            differ(one, two)
    agree(s.step(w, layer_norm=dict(eps=0.3)), normed(s, split(norm(a + r, 0.3) * g1 + bias)))


def test_layer_norm_with_a_peephole():
    """TFLite has the peephole inside the norm of a gate; elsewhere it is added after it. A cell
    that is normalised for h only is seen as it is; clips come after all."""
    s = Gates()
    a, r = s.products()
    bias, (g1, _, g2, _), (gc, _) = oracle.bias_sum(s.w), s.ln, s.ln_cell
    w = s.w._replace(w_ch=s.peephole, ln_ih=g1, ln_hh=g2, ln_cell=gc)
    sums, gains, biases = split(a + r), split(g1), split(bias)

    def cell(inside, joint):
        def z(gate, c):
            seen = s.p[gate] * c if gate in s.p else 0.0
            if inside:
                return norm(sums[gate] + seen) * gains[gate] + biases[gate]
            whole = joint if joint is not None else norm(sums[gate]) * gains[gate]
            return (split(joint)[gate] if joint is not None else whole) + biases[gate] + seen

        i, f = sigmoid(z("i", s.c)), sigmoid(z("f", s.c))
        new = f * s.c + i * np.tanh(z("g", s.c))
        return sigmoid(z("o", new)) * np.tanh(norm(new) * gc), new

    options = dict(peephole="diagonal")
    inside = cell(True, None)
    agree(s.step(w, layer_norm=dict(per_gate=True, cell=True), **options), inside)
    differ(inside, cell(False, None))
    joint = cell(False, norm(a + r) * g1)
    agree(s.step(w, layer_norm=dict(cell=True), **options), joint)
    separate = cell(False, norm(a) * g1 + norm(r) * g2)
    agree(s.step(w, layer_norm=dict(separate=True, cell=True), **options), separate)


def test_reset_after_and_before():
    """torch (and Keras's reset_after): r of the product; ONNX's default: the product of r h. With a
    bias of the recurrent product that is another cell even where W is diagonal."""
    rng = samples.rng_of(3)
    tensors = samples.recurrent_tensors(rng, nn.GRU(), 3, 4)
    ((w,),) = oracle.directions(tensors)
    x, h = rng.standard_normal(3), rng.standard_normal(4)
    (w_r, w_z, w_n), (u_r, u_z, u_n), (b_r, b_z, b_n), (d_r, d_z, d_n) = (
        np.split(a.astype(float), 3) for a in w[:4]
    )
    r, z = sigmoid(w_r @ x + b_r + u_r @ h + d_r), sigmoid(w_z @ x + b_z + u_z @ h + d_z)
    results = []
    for clip in (None, 0.6):
        for after in (True, False):
            hidden = r * (u_n @ h + d_n) if after else u_n @ (r * h) + d_n
            n, rr, zz = w_n @ x + b_n + hidden, r, z
            if clip:
                held = [np.clip(np.log(v / (1 - v)), -clip, clip) for v in (r, z)]
                rr, zz = (sigmoid(v) for v in held)
                hidden = rr * (u_n @ h + d_n) if after else u_n @ (rr * h) + d_n
                n = np.clip(w_n @ x + b_n + hidden, -clip, clip)
            expected = (1 - zz) * np.tanh(n) + zz * h
            one = layer("GRU", linear_before_reset=after, clip=clip)
            agree([oracle.gru_step(w, x, h, one)], [expected])
            results.append(expected)
    for k, one in enumerate(results):
        for two in results[:k]:
            differ([one], [two])


def test_activations_by_name_and_direction():
    """Both hard sigmoids are reachable: ONNX's and old Keras's 0.2 x + 0.5, and torch's and
    Keras 3's relu6(x + 3) / 6."""
    x = np.linspace(-8, 8, 1601)
    t = torch.from_numpy(x)
    F = torch.nn.functional
    same = {
        ("Sigmoid", 0, 0): torch.sigmoid(t),
        ("Tanh", 0, 0): torch.tanh(t),
        ("Relu", 0, 0): F.relu(t),
        ("HardSigmoid", 1 / 6, 0.5): F.hardsigmoid(t),
        ("HardSigmoid", 0.2, 0.5): (0.2 * t + 0.5).clamp(0, 1),
        ("HardTanh", -0.5, 2.0): F.hardtanh(t, -0.5, 2.0),
        ("Softsign", 0, 0): F.softsign(t),
        ("Softplus", 0, 0): F.softplus(t, threshold=1000),
        ("Elu", 0.7, 0): F.elu(t, 0.7),
        ("LeakyRelu", 0.1, 0): F.leaky_relu(t, 0.1),
        ("ThresholdedRelu", 1.5, 0): F.threshold(t, 1.5, 0.0),
        ("ScaledTanh", 1.7159, 2 / 3): 1.7159 * torch.tanh(2 / 3 * t),
        ("Affine", 0.3, -0.2): 0.3 * t - 0.2,
    }
    assert {name for name, _, _ in same} == set(oracle.ACTIVATIONS)
    for (name, alpha, beta), expected in same.items():
        close(oracle.ACTIVATIONS[name](x, alpha, beta), expected)
    differ([same["HardSigmoid", 1 / 6, 0.5].numpy()], [same["HardSigmoid", 0.2, 0.5].numpy()])

    names = [("Relu", 0.0, 0.0), ("Softsign", 0.0, 0.0), ("Affine", 0.5, 0.0)]
    others = [("Tanh", 0.0, 0.0), ("Relu", 0.0, 0.0), ("Elu", 1.0, 0.0)]
    for count, kind in ((3, "LSTM"), (2, "GRU"), (1, "RNN")):
        one = layer(kind, activations=names[:count])
        assert oracle.activations(one, 0) == oracle.activations(one, 1) == names[:count]
        two = layer(kind, activations=names[:count] + others[:count])
        assert oracle.activations(two, 0) == names[:count]
        assert oracle.activations(two, 1) == others[:count]
    s = Gates()
    z = {gate: np.maximum(s.z[gate], 0) for gate in "ifo"}
    g = s.z["g"] / (1 + np.abs(s.z["g"]))
    expected = merge(z["i"], z["f"], g, z["o"], s.c, lambda c: 0.5 * c)
    agree(s.step(activations=names), expected)
    both = layer("LSTM", activations=others + names)
    agree(oracle.lstm_step(s.w, s.x, s.h, s.c, both, 1), expected)
    # nonlinearity is RNN's own word, activations comes before it
    assert oracle.activations(layer("RNN", nonlinearity="relu")) == [("Relu", 0.0, 0.0)]
    assert oracle.activations(layer("RNN", nonlinearity="relu", activations=names[1:2])) == [
        names[1]
    ]


# ---- wiring -------------------------------------------------------------------------------------


@torch.no_grad()
def test_wiring_is_torchs():
    """A residual addition, a product, a concatenation, slices, and the model's input once more."""
    torch.manual_seed(5)
    lstm, fc = torch.nn.LSTM(4, 4).double(), torch.nn.Linear(4, 3).double()
    tensors = arrays(lstm, "m") | arrays(fc, "fc")
    layers = [
        layer("LSTM", "m"),  # 1
        layer("Add", inputs=(0, 1)),  # 2
        layer("Linear", "fc"),  # 3
        layer("Identity", input=2),  # 4
        layer("Slice", start=1, stop=4),  # 5
        layer("Mul", inputs=(3, 5)),  # 6
        layer("Concat", inputs=(6, 0, 2)),  # 7
    ]
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    middle, state = lstm(x)
    total = x + middle
    product = fc(total) * total[..., 1:4]
    expected = torch.cat([product, x, total], -1)
    y, final = oracle.forward(layers, tensors, x.numpy())
    close(y, expected)
    close(final[0], state[0])
    first = oracle.forward([*layers, layer("First")], tensors, x.numpy())[0]
    close(first, expected[:1].expand(5, -1, -1))
    layers.append(layer("Output", inputs=(7, 3, 6), last=(False, True, True)))
    whole, one, two = oracle.forward(layers, tensors, x.numpy())[0]
    close(whole, expected)
    close(one, fc(total)[-1])
    close(two, product[-1])
    unbatched = oracle.forward(layers, tensors, x.numpy()[:, 1])[0]
    for a, b in zip(unbatched, (expected[:, 1], fc(total)[-1, 1], product[-1, 1]), strict=True):
        close(a, b)


@torch.no_grad()
def test_last_steps_of_ragged_rows_and_batch_first():
    torch.manual_seed(6)
    gru = torch.nn.GRU(3, 4, bidirectional=True, batch_first=True).double()
    layers = [layer("GRU", "m", batch_first=True), layer("Output", last=(True,))]
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    y, _ = oracle.forward(layers, arrays(gru, "m"), x.numpy())
    close(y, gru(x)[0][:, -1])
    y, _ = oracle.forward(layers, arrays(gru, "m"), x.numpy(), lengths=[6, 2, 0, 1])
    for b, length in ((0, 6), (1, 2), (3, 1)):
        close(y[b], gru(x[b, :length])[0][-1])
    assert (y[2] == 0).all()
