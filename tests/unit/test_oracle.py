# SPDX-License-Identifier: MIT
"""The oracle is right: it agrees with torch in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bounds
import oracle
from torch_side import arrays, close, layer

torch = pytest.importorskip("torch")


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
