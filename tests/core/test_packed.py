# SPDX-License-Identifier: MIT
"""PackedSequence in and out, against torch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

import clstm
from bounds.tolerances import NEAR
from clstm import ShapeError, nn
from samples import floats, rng_of

I, H = 3, 4  # noqa: E741
LENGTHS = [2, 5, 1, 4]


def packed(lengths=LENGTHS, sort=False, dtype=torch.float32):
    if sort:
        lengths = sorted(lengths, reverse=True)
    rows = [torch.from_numpy(floats(rng_of(i), n, I)).to(dtype) for i, n in enumerate(lengths)]
    return pack_sequence(rows, enforce_sorted=sort)


def module(kind, **options):
    torch.manual_seed(1)
    return getattr(torch.nn, kind)(I, H, 2, bidirectional=True, **options)


def flat(state):
    return list(state) if isinstance(state, tuple) else [state]


def same_places(a, b):
    assert torch.equal(a.batch_sizes, b.batch_sizes)
    for name in ("sorted_indices", "unsorted_indices"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or torch.equal(x, y)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_packed_call_is_torchs(kind, sort, given, batch_first):
    m, x = module(kind, batch_first=batch_first), packed(sort=sort)
    n_states = 2 if kind == "LSTM" else 1
    state = tuple(floats(rng_of(9 + i), 4, len(LENGTHS), H) for i in range(n_states))
    state = (state if kind == "LSTM" else state[0]) if given else None
    hx = None if state is None else tuple(map(torch.from_numpy, flat(state)))
    with torch.no_grad():
        expected, h = m(x, hx if kind == "LSTM" or hx is None else hx[0])
    y, got = clstm.from_torch(m)(x, state)
    assert type(y) is PackedSequence and y.data.dtype == torch.float32
    same_places(y, expected)
    np.testing.assert_allclose(y.data.numpy(), expected.data.numpy(), atol=NEAR)
    for a, b in zip(flat(got), flat(h), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=NEAR)
    padded, lengths = pad_packed_sequence(y)  # torch takes it as its own
    assert padded.shape == (5, 4, 2 * H)
    assert lengths.tolist() == (sorted(LENGTHS, reverse=True) if sort else LENGTHS)


def test_one_by_one_gives_the_same_bits():
    model, x = clstm.from_torch(module("GRU")), packed()
    rows, lengths = pad_packed_sequence(model(x)[0])
    source, _ = pad_packed_sequence(x)
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(rows[:n, b], model(source[:n, b].numpy())[0])


def test_tokens_and_heads_are_packed_too():
    torch.manual_seed(1)
    parts = [torch.nn.Embedding(9, I), torch.nn.LSTM(I, H), torch.nn.Linear(H, 2)]
    x = pack_sequence([torch.arange(n) for n in (3, 1, 6)], enforce_sorted=False)
    model = clstm.from_torch(parts)
    with torch.no_grad():
        rows = parts[1](x._replace(data=parts[0](x.data)))[0]
        expected = parts[2](rows.data).numpy()
    y, _ = model(x)
    same_places(y, x)
    np.testing.assert_allclose(y.data.numpy(), expected, atol=NEAR)
    assert y.data.dtype == torch.float32


def test_double_rows_come_back_as_float32():
    y, _ = clstm.from_torch(module("RNN"))(packed(dtype=torch.float64))
    assert y.data.dtype == torch.float32


def test_several_outputs_and_last_ones():
    state = {f"a.{n}": t.detach().numpy() for n, t in torch.nn.GRU(I, H).named_parameters()}
    layers = [nn.GRU("a"), nn.Slice(0, 2), nn.Output((1, 2), (True, False))]
    model, x = clstm.from_state_dict(state, layers=layers), packed()
    (last, some), h = model(x)
    np.testing.assert_array_equal(last, h[0])  # in the order before packing
    same_places(some, x)
    rows, lengths = pad_packed_sequence(some)
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(rows[n - 1, b], last[b, :2])


def test_any_type_with_its_attributes_will_do():
    class Packed(SimpleNamespace):
        def __init__(self, data, batch_sizes, sorted_indices, unsorted_indices):
            super().__init__(data=data, batch_sizes=batch_sizes, sorted_indices=sorted_indices,
                             unsorted_indices=unsorted_indices)  # fmt: skip

    x, model = packed(), clstm.from_torch(module("LSTM"))
    arrays = Packed(*(part.numpy() for part in x))
    y, _ = model(arrays)
    assert type(y) is Packed and type(y.data) is np.ndarray
    np.testing.assert_array_equal(y.data, model(x)[0].data.numpy())


@pytest.mark.parametrize("changes, words", [
    ({"batch_sizes": torch.tensor([4, 3, 2, 2])}, "batch_sizes"),
    ({"batch_sizes": torch.tensor([1, 2, 2, 3, 4])}, "batch_sizes"),
    ({"batch_sizes": torch.tensor([], dtype=torch.int64)}, "batch_sizes"),
    ({"batch_sizes": torch.tensor([4.0, 3, 2, 2, 1])}, "batch_sizes"),
    ({"sorted_indices": torch.tensor([0, 0, 1, 2])}, "sorted_indices"),
    ({"sorted_indices": torch.tensor([0, 1])}, "sorted_indices"),
    ({"data": torch.zeros(12, I + 1)}, r"\(N, 3\)"), ({"data": torch.zeros(12)}, r"\(N, 3\)"),
])  # fmt: skip
def test_what_no_packing_makes_is_refused(changes, words):
    parts = dict(zip(("data", "batch_sizes", "sorted_indices", "unsorted_indices"), packed(),
                     strict=True))  # fmt: skip
    with pytest.raises(ShapeError, match=words):
        clstm.from_torch(module("GRU"))(SimpleNamespace(**(parts | changes)))


def test_lengths_and_cells_do_not_go_with_it():
    model, x = clstm.from_torch(module("LSTM")), packed()
    with pytest.raises(ShapeError, match="lengths"):
        model(x, lengths=LENGTHS)
    with pytest.raises(ShapeError, match=r"nn\.GRU"):
        clstm.from_torch(torch.nn.GRUCell(I, H))(x)
    with pytest.raises(ShapeError, match="expected shape"):
        model(x, (np.zeros((4, 3, H)), np.zeros((4, 3, H))))


def test_padding_before_packing_is_the_same():
    rows = torch.from_numpy(floats(rng_of(3), 5, 4, I))
    x = pack_padded_sequence(rows, LENGTHS, enforce_sorted=False)
    model = clstm.from_torch(module("GRU"))
    padded, h = model(rows.numpy(), lengths=LENGTHS)
    y, h_packed = model(x)
    np.testing.assert_array_equal(pad_packed_sequence(y)[0].numpy(), padded)
    np.testing.assert_array_equal(h_packed, h)
