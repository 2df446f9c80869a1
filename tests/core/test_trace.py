# SPDX-License-Identifier: MIT
"""from_torch(module, example): modules with a forward of their own, at other lengths and batch
sizes than the example's."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import clstm
from bounds.tolerances import NEAR
from clstm import UnsupportedError
from samples import floats, rng_of, same_bits
from traced import H, I, V, close, made, parts, run, zeros

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

# Each takes x (B, T, I) and returns one tensor or several, none of them a state.


def residual(m, x):
    y = m.a(x)[0]
    return m.fc(m.drop(y + m.b(m.drop(y))[0]))


def joined(m, x):
    y = m.a(x)[0]
    z = m.gru(x)[0]
    return m.wide(torch.cat([y * z, y - 2 * z], -1)), m.rnn(
        torch.stack([y, z], -1).sigmoid()[..., 0]
    )[0]


def normalised(m, x):
    y = m.bn(m.a(x)[0].transpose(1, 2)).transpose(1, 2)
    return m.ln(F.relu(y)) * 2 + 1, y


def pieces(m, x):
    y = m.a(x)[0]
    one, two = y.chunk(2, -1)
    three, four, five = y.split([1, 2, 3], -1)
    return one * two.tanh(), torch.cat([five, three, four, y[..., 1:3], y[:, :, -1:]], 2), F.glu(y)


def reshaped(m, x):
    n, t, _ = x.shape
    y = m.a(x)[0].reshape(-1, H)
    y = m.fc(y).view(n, t, 3).permute(1, 0, 2).unsqueeze(0)
    return y.squeeze(0).transpose(0, 1)


def inner_axes(m, x):
    y = m.a(x)[0]
    heads = y.view(y.shape[0], y.shape[1], 2, 3)
    return (heads * 0.5).flatten(2), torch.stack([y, -y], 2).flatten(2), m.both(x)[0]


def functions(m, x):
    y = m.a(x)[0]
    y = F.softplus(F.leaky_relu(F.gelu(y) + F.silu(y), 0.1), beta=2)
    y = F.elu(y - 1, 0.7) / 3 + F.hardswish(y) * F.mish(y) + F.logsigmoid(y).clamp(-0.5, 0.5)
    return F.softmax(y, 2), torch.log_softmax(1 - y, -1), F.hardsigmoid(y) ** 2 + y.clamp(min=0)


def constants(m, x):
    y = m.a(x)[0] @ m.b.weight_hh_l0[:H].T + m.scale
    return y * torch.tensor([1.0, 2, 3, 4, 5, 6]) + torch.zeros(x.shape[1], H) - m.scale / 2


def in_place(m, x):
    y = m.a(x)[0]
    y += 1
    y.mul_(m.scale)
    return m.act(y.transpose(1, 2)).transpose(1, 2), y.relu_()


def last_of_y(m, x):
    return m.fc(m.a(x)[0][:, -1])


def last_by_length(m, x):
    return m.a(x)[0][:, x.shape[1] - 1, 1:], m.fc(m.gru(x)[0].unbind(1)[-1])


def last_of_h(m, x):
    y, (h, _) = m.a(x)
    return torch.log_softmax(m.fc(h[-1] + m.b(y)[1][0][-1]), -1), y


def one_feature(m, x):
    y = m.a(x)[0]
    gate = m.gate(y).sigmoid()
    mean = y.mean(-1, keepdim=True)
    return (
        gate.squeeze(-1),
        m.gate(y)[..., 0] * gate.squeeze(2),
        gate * y + (y - mean),
        y @ m.vector,
    )


def sums(m, x):
    y = m.a(x)[0]
    heads = y.view(*y.shape[:2], 3, 2)
    return y.mean(-1), y.sum(2, keepdim=True), heads.sum(2), heads.mean(3)


def steps_that_stay(m, x):
    y = m.gru(x)[0]
    return m.fc(y[:, -1:]), m.gate(y[:, -1]).squeeze(-1), m.gate(y[:, -1]).flatten(), y[:, -1:, 2]


def first_steps(m, x):
    y = m.a(x)[0]
    return torch.cat([y[:, 0], y[:, -1]], -1), m.fc(y[:, 0]).relu(), m.fc(x[:, 0, :1] * y[:, 0])


def both_ends(m, x):
    y, (h, _) = m.both(x)
    last = h.view(2, 2, len(x), -1)[-1]
    return (torch.cat([h[-2], h[-1]], -1), h[-1] + last[0], torch.cat((last[1], last[0]), 1).tanh(),
            torch.cat([y[:, -1, :3], y[:, :1, 3:].squeeze(1)], -1))  # fmt: skip


def squeezed_h(m, x):
    return m.ln(m.gru(x)[1].squeeze(0)), m.gru(x)[1].transpose(0, 1).flatten(1)


OWN = [residual, joined, normalised, pieces, reshaped, inner_axes, functions, constants, in_place,
       last_of_y, last_by_length, last_of_h, squeezed_h, one_feature, sums, steps_that_stay,
       first_steps, both_ends]  # fmt: skip


@pytest.mark.parametrize("forward", OWN, ids=lambda f: f.__name__)
def test_a_forward_of_its_own_agrees_at_other_lengths_and_batches(forward):
    module = made(parts, forward)
    model = clstm.from_torch(module, torch.zeros(2, 3, I))
    for shape in ((2, 3, I), (3, 7, I), (1, 1, I), (1, 4, I)):
        x = floats(rng_of(shape[1]), *shape)
        close(model(x)[0], run(module, x))
    assert model.streamable != (forward in (inner_axes, first_steps, both_ends))
    if model.streamable:
        x = floats(rng_of(1), 1, 6, I)
        last = model.layers[-1].last if isinstance(model.layers[-1], clstm.nn.Output) else ()
        for n in (1, 6):  # a stream's y(t) is the last step of what was seen
            ours, theirs = model.stream().run(x[0, :n]), run(module, x[:, :n])
            theirs = theirs if isinstance(theirs, tuple) else (theirs,)
            ours = ours if isinstance(ours, tuple) else (ours,)
            flags = last or (False,) * len(theirs)
            for a, b, flag in zip(ours, theirs, flags, strict=True):
                close(a[-1], (b[0] if flag else b[0, -1]).reshape(-1))


# ---- states -----------------------------------------------------------------------------------


def test_states_come_in_and_go_out():
    def forward(m, x, state):
        y, (h, c) = m.b(x, state)
        z, hz = m.gru(y[..., 1:])
        return m.fc(z), (h, c), hz

    module = made(parts, forward)
    state = zeros(2, 2, H)
    model = clstm.from_torch(module, (zeros(2, 3, H), (state, state)))  # one tensor, twice
    x = floats(rng_of(0), 3, 8, H)
    h, c = floats(rng_of(1), 2, 3, H), floats(rng_of(2), 2, 3, H)
    y, (hc, hz) = model(x, [(h, c), np.zeros((1, 3, H), np.float32)])
    close((y, hc, hz), run(module, x, (h, c)))
    y, state = model(x[:, :5])
    close(np.concatenate([y, model(x[:, 5:], state)[0]], 1), run(module, x, (h * 0, c * 0))[0])


def test_states_in_other_shapes_of_the_module_are_the_layers_own():
    def forward(m, x, state):
        y, (h, c) = m.a(x, (state[0], state[1]))
        return y * 2, torch.stack([h, c])

    module = made(parts, forward)
    model = clstm.from_torch(module, {"x": zeros(2, 3, I), "state": zeros(2, 1, 2, H)})
    x, s = floats(rng_of(0), 4, 5, I), floats(rng_of(1), 2, 1, 4, H)
    y, state = model(x, (s[0], s[1]))
    close((y, np.stack(state)), run(module, x, s))


def test_a_module_that_returns_only_states_gives_its_layers_output_with_them():
    module = made(parts, lambda m, x: m.a(x)[1])
    model = clstm.from_torch(module, zeros(2, 3, I))
    x = floats(rng_of(0), 3, 4, I)
    y, state = model(x)
    close(state, run(module, x))
    close(y, run(module.a, x)[0])


def test_a_learned_initial_state_is_the_models_own():
    def init(m):
        m.lstm = nn.LSTM(I, H, 2)
        m.h0, m.c0 = nn.Parameter(torch.rand(2, 1, H)), nn.Parameter(torch.rand(2, H))

    def forward(m, x):
        n = x.shape[1]
        return m.lstm(x, (m.h0.expand(-1, n, -1).contiguous(), m.c0[:, None].repeat(1, n, 1)))

    module = made(init, forward)
    model = clstm.from_torch(module, zeros(3, 2, I))
    x = floats(rng_of(0), 6, 4, I)
    close(model(x), run(module, x))
    stream = model.stream()
    stream.run(x[:3, 1])
    stream.reset()
    close(stream.run(x[:, 1]), run(module, x)[0][:, 1])


def one_step(m, x, h, c, g):
    h, c = m.cell(m.first(x).relu(), (h, c))
    g = m.second(h, g)
    return m.fc(torch.cat([h, g], 1)), h, c, g


def step_parts(m):
    m.first, m.cell, m.second = nn.Linear(I, H), nn.LSTMCell(H, H), nn.GRUCell(H, 4)
    m.fc = nn.Linear(H + 4, 3)


def test_one_step_of_cells_streams():
    module = made(step_parts, one_step)
    example = (zeros(1, I), zeros(1, H), zeros(1, H), zeros(1, 4))
    model = clstm.from_torch(module, example)
    x = floats(rng_of(0), 7, I)
    h, c, g = (np.zeros((1, n), np.float32) for n in (H, H, 4))
    expected = []
    for row in x:
        y, h, c, g = run(module, row[None], h, c, g)
        expected.append(y[0])
    stream = model.stream()
    close(stream.run(x), np.stack(expected))
    (ours_h, ours_c), ours_g = stream.state
    close((ours_h, ours_c, ours_g), (h[0], c[0], g[0]))
    close(model(x)[0], np.stack(expected))


def test_one_step_of_a_layer_of_sequences_streams():
    def step(m, x, state):
        y, state = m.b(x[:, None], state)
        return m.fc(y.squeeze(1)), state

    module = made(parts, step)
    model = clstm.from_torch(module, (zeros(1, H), (zeros(2, 1, H), zeros(2, 1, H))))
    x = floats(rng_of(0), 7, H)
    state = (np.zeros((2, 1, H), np.float32),) * 2
    stream = model.stream()
    for row in x:
        y, state = run(module, row[None], state)
        close(stream.step(row), y[0])
    close(stream.state, tuple(s[:, 0] for s in state))


def test_a_cell_without_a_batch_and_one_that_is_all():
    def step(m, x, h):
        h = m.second(x, h)
        return m.act(h).tanh(), h

    module = made(lambda m: (step_parts(m), setattr(m, "act", nn.PReLU())), step)
    model = clstm.from_torch(module, (zeros(H), zeros(4)))
    x, h = floats(rng_of(0), 1, H), floats(rng_of(1), 4)
    y, state = model(x, h)
    close((y[0], state), run(module, x[0], h))
    bare = clstm.from_torch(
        made(step_parts, lambda m, x, h: m.second(x, h)), (zeros(2, H), zeros(2, 4))
    )
    close(bare(np.tile(x, (3, 1)), np.tile(h, (3, 1))),
          run(module, np.tile(x, (3, 1)), np.tile(h, (3, 1)))[1])  # fmt: skip


# ---- inputs -----------------------------------------------------------------------------------


def test_tokens_in_either_order_of_axes_and_without_a_batch():
    def forward(m, ids):
        e = m.emb(ids)
        return m.fc(m.drop(m.a(e)[0]) * m.gru(e)[0])

    for batch_first in (True, False):
        module = made(parts, forward)
        module.a.batch_first = module.gru.batch_first = batch_first
        model = clstm.from_torch(module, torch.zeros(4, 3, dtype=torch.int64))
        ids = rng_of(0).integers(0, V, (2, 9))
        close(model(ids)[0], run(module, ids))
        assert model.num_embeddings == V and model.batch_first == batch_first
    model = clstm.from_torch(module, torch.zeros(4, dtype=torch.int64))
    close(model(ids[0])[0], run(module, ids[0]))


def test_a_sequence_without_a_batch_and_a_batch_made_inside():
    for forward in (lambda m, x: m.fc(m.a(x)[0])[-1],
                    lambda m, x: m.fc(m.a(x[None])[0].squeeze(0))[-1]):  # fmt: skip
        module = made(parts, forward)
        model = clstm.from_torch(module, zeros(4, I))
        x = floats(rng_of(0), 9, I)
        close(model(x)[0], run(module, x))


def test_time_and_batch_are_told_by_the_layer_that_reads_them():
    module = made(parts, lambda m, x: m.a(x.transpose(0, 1))[0].transpose(0, 1))
    model = clstm.from_torch(module, zeros(3, 3, I))  # T = B: the example alone does not tell
    x = floats(rng_of(0), 7, 2, I)
    close(model(x)[0], run(module, x))
    assert not model.batch_first


def test_an_example_of_one_step_and_one_sequence_is_enough():
    for shape in ((1, 1, I), (1, 4, I), (3, 1, I)):
        module = made(parts, residual)
        model = clstm.from_torch(module, zeros(*shape))
        x = floats(rng_of(0), 2, 6, I)
        close(model(x)[0], run(module, x))


def test_types_of_the_module_and_a_computed_weight():
    module = made(parts, residual)
    weight_norm(module.a, "weight_hh_l0")
    x = floats(rng_of(0), 2, 6, I)
    close(clstm.from_torch(module, zeros(1, 2, I))(x)[0], run(module, x))
    wide = made(parts, residual).double()
    expected = run(wide, x.astype(np.float64))
    close(clstm.from_torch(wide, zeros(1, 2, I).double())(x)[0], expected)


def test_buffers_and_weights_that_two_layers_share():
    def init(m):
        parts(m)
        m.register_buffer("mean", torch.rand(I), persistent=False)
        m.out, m.plain = nn.Linear(I, V, bias=False), torch.rand(V)
        m.out.weight = m.emb.weight
        m.back = nn.Linear(H, I)

    def forward(m, ids):
        return m.out(m.back(m.a(m.emb(ids) - m.mean)[0])) + m.plain

    module = made(init, forward)
    ids = rng_of(0).integers(0, V, (3, 5))
    close(clstm.from_torch(module, torch.zeros(2, 3, dtype=torch.int64))(ids)[0], run(module, ids))


def test_an_mlp_has_no_state():
    module = made(parts, lambda m, x: m.wide(torch.cat([m.fc(x), m.fc(x)] * 2, -1)))
    x = floats(rng_of(0), 4, H)
    y, state = clstm.from_torch(module, zeros(2, H))(x)
    assert state is None
    close(y, run(module, x))


@pytest.mark.parametrize("forward", [
    lambda m, x: m.fc(x[..., 1:]),
    lambda m, x: torch.cat([x.tanh() * 2 + 1, x], 2),
    lambda m, x: x * 2,
    lambda m, x: m.wider(x * 2 + 1),
    lambda m, x: m.prelu(x.transpose(1, 2)).transpose(1, 2),
], ids=["slice", "concat", "scale", "scale, linear", "prelu"])  # fmt: skip
def test_an_input_whose_size_no_layer_with_weights_tells(forward):
    def init(m):
        parts(m)
        m.wider, m.prelu = nn.Linear(H + 1, 2), nn.PReLU(H + 1)
        nn.init.uniform_(m.prelu.weight)

    module = made(init, forward)
    x = floats(rng_of(0), 2, 4, H + 1)
    close(clstm.from_torch(module, zeros(2, 3, H + 1))(x)[0], run(module, x))


# ---- what stays as it was ---------------------------------------------------------------------


def test_the_module_is_left_as_it_was():
    def forward(m, x):
        y, m.hidden = m.a(x, m.hidden)
        m.seen = y
        return m.fc(m.drop(y))

    module = made(lambda m: (parts(m), setattr(m, "hidden", None)), forward).train()
    module.ln.eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    flags = [m.training for m in module.modules()]
    owned = [p.data_ptr() for p in module.parameters()]
    model = clstm.from_torch(module, zeros(2, 3, I))
    assert [m.training for m in module.modules()] == flags
    assert [p.data_ptr() for p in module.parameters()] == owned
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(same_bits(v.numpy(), before[k].numpy()) for k, v in module.state_dict().items())
    assert module.hidden is None and not hasattr(module, "seen")
    x = floats(rng_of(0), 2, 3, I)
    first = model(x)[0]
    with torch.no_grad():
        module.a.weight_hh_l0.zero_()  # the model has weights of its own
    assert same_bits(model(x)[0], first)


def test_a_refusal_leaves_the_module_as_it_was_and_prints_nothing(capfd):
    def forward(m, x):
        y = m.a(x)[0]
        m.seen = y
        return y if y.sum() > 0 else -y

    module = made(parts, forward).train()
    with pytest.raises(UnsupportedError, match="control flow that depends on data"):
        clstm.from_torch(module, zeros(2, 3, I))
    assert module.training and not hasattr(module, "seen")
    assert capfd.readouterr() == ("", "")


def test_torch_may_go_after_from_torch(tmp_path):
    code = """
        import sys
        import numpy as np
        import torch
        import clstm

        class Own(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.fc = torch.nn.LSTM(3, 4), torch.nn.Linear(4, 3)

            def forward(self, x):
                return x + self.fc(self.lstm(x)[0])

        module = Own()
        x = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x.copy())).numpy().copy()
        model = clstm.from_torch(module, torch.zeros(2, 1, 3))
        stream = model.stream()
        first = stream.run(x[:4])
        del module, Own, torch
        for name in [n for n in sys.modules if n.partition(".")[0] == "torch"]:
            del sys.modules[name]

        class Blocked:
            def find_spec(self, name, *_):
                if name.partition(".")[0] == "torch":
                    raise ImportError(name)

        sys.meta_path.insert(0, Blocked())
        y = np.concatenate([first, stream.run(x[4:])])
        assert np.abs(y - expected).max() < float(sys.argv[2])
        model.save(sys.argv[1])
        assert (clstm.load(sys.argv[1])(x)[0] == model(x)[0]).all()
        assert "torch" not in sys.modules
    """
    words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "m.clstm"), str(NEAR)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
