# SPDX-License-Identifier: MIT
"""Small images for the readers: sound ones to damage, and ones whose records contradict themselves,
though every size, place and checksum in the file agrees."""

import dataclasses

import cell_models
import models
import numpy as np
from cell_models import (
    ACTIVATIONS,
    ADD,
    BIAS,
    BIDIRECTIONAL,
    C0,
    CELL,
    CELL_CLIP_STORED,
    CONCAT,
    COUPLED_F,
    COUPLED_I,
    EMBEDDING,
    FIRST,
    GRU,
    H0,
    LAYER_NORM,
    LINEAR,
    LN_BIAS,
    LN_CELL,
    LN_CELL_BIAS,
    LN_CELL_STORED,
    LN_PER_GATE,
    LN_SEPARATE,
    LSTM,
    MUL,
    OUTPUT,
    OUTPUT_NEW,
    PEEPHOLE,
    PEEPHOLE_FULL,
    PROJ_BIAS,
    RELU,
    RESET_BEFORE,
    REVERSE,
    RNN,
    SLICE,
)  # fmt: skip

from clstm.formats.container import Image, Record, write_image

NORM, BATCH_NORM, IDENTITY, HARDTANH, SOFTPLUS = 18, 19, 32, 40, 45


def cell(kind=LSTM, flags=0, proj=0, layers=1, n_in=2, hidden=3, **numbers):
    """One recurrent record with the tensors that its flags ask for."""
    maker, tensors = cell_models.Cells(np.random.default_rng(3)), {}
    n_directions, width = 2 if flags & BIDIRECTIONAL else 1, n_in
    for k in range(layers):
        for end in ["", "_reverse"][:n_directions]:
            for name, array in maker.one_cell(kind, flags, width, hidden, proj):
                twice = f"l.{name}_l{k}{end}" in tensors  # of two peepholes
                tensors[f"l.{name}_l{k}{end}{'_2' * twice}"] = array
        width = (proj or hidden) * n_directions
    if flags & LAYER_NORM:
        tensors["l.eps"] = np.array([1e-5], np.float32)
    word = numbers.pop("word", 0)
    if flags & ACTIVATIONS:
        tensors["l.activations"] = np.zeros((cell_models.FUNCTIONS[kind] * n_directions, 2), "f4")
    rows = layers * n_directions
    if flags & H0:
        tensors["l.h0"] = maker.uniform(rows, proj or hidden)
    if flags & C0:
        tensors["l.c0"] = maker.uniform(rows, hidden)
    params = [0.0] * 6
    for name, value in numbers.items():
        params[cell_models.PARAMS[name]] = value
    dims = (n_in, hidden, proj, layers, word)
    return Record(kind, "l", flags, (0,), dims, tuple(params), tensors)


def changed(record, tensor=None, shape=None, **fields):
    """The record with other fields, or with one tensor of another shape."""
    record = dataclasses.replace(record, **fields)
    if tensor is not None:
        record.tensors = dict(record.tensors)
        record.tensors[f"l.{tensor}"] = np.zeros(shape, np.float32)
    return record


def without(record, tensor):
    kept = {k: v for k, v in record.tensors.items() if k != f"l.{tensor}"}
    return dataclasses.replace(record, tensors=kept)


def sound():
    """Every flag and number of the cells, and the wiring, in images of a few KB."""
    everything = BIAS | LAYER_NORM | LN_SEPARATE | LN_BIAS | LN_CELL | LN_CELL_BIAS | ACTIVATIONS
    diagonal = everything | PEEPHOLE | LN_PER_GATE | H0 | C0 | COUPLED_F
    yield [cell(LSTM, diagonal, word=0b00001_00001_00011, clip=1.0, zone_h=0.5, zone_c=0.25)]
    yield [cell(LSTM, LAYER_NORM | LN_PER_GATE | PEEPHOLE)]
    full = PEEPHOLE_FULL | OUTPUT_NEW | COUPLED_I | CELL_CLIP_STORED | PROJ_BIAS | BIDIRECTIONAL
    yield [cell(LSTM, full, 2, cell_clip=0.5, proj_clip=0.5, forget_bias=1.0)]
    yield [cell(LSTM, LAYER_NORM | PEEPHOLE | LN_CELL | LN_CELL_STORED | REVERSE, layers=2)]
    yield [cell(GRU, BIAS | RESET_BEFORE | H0, layers=2, clip=2.0)]
    yield [cell(GRU, BIAS | BIDIRECTIONAL | ACTIVATIONS, word=0b00100_00011_00001_00000)]
    table = Record(EMBEDDING, "e", 0, (0,), (5, 3), (), {"e.weight": np.ones((5, 3), "f4")})
    gru = changed(cell(GRU, n_in=3), inputs=(1,))
    rnn = changed(cell(RNN, BIAS | CELL, n_in=3), name="r", inputs=(2,))
    rnn.tensors = {f"r{name[1:]}": array for name, array in rnn.tensors.items()}
    yield [
        table, gru, rnn, Record(ADD, "a", 0, (1, 2, 3)), Record(MUL, "m", 0, (4, 1)),
        Record(CONCAT, "c", 0, (4, 5)), Record(SLICE, "s", 0, (6,), (1, 4)),
        Record(SLICE, "t", 0, (7,), (1, 2)), Record(FIRST, "f", 0, (8,)),
        Record(OUTPUT, "o", 0, (6, 9, 1), (6, 1, 3, 0, 5, 2, 4)),
    ]  # fmt: skip


def sound_images():
    for records in sound():
        yield write_image(Image(records, 0 if records[0].kind == EMBEDDING else 2))


def contradictions():
    """(why, records, input size) of what must be refused."""
    ln, bias = LAYER_NORM, BIAS
    for kind, flags, why in [
        (LSTM, PEEPHOLE | PEEPHOLE_FULL, "two peepholes"),
        (LSTM, PEEPHOLE | OUTPUT_NEW, "output_peephole of a diagonal one"),
        (LSTM, OUTPUT_NEW, "output_peephole of none"),
        (LSTM, COUPLED_F | COUPLED_I, "coupled both ways"),
        (LSTM, LN_PER_GATE, "per gate without a norm"),
        (LSTM, LN_SEPARATE, "separate without a norm"),
        (LSTM, LN_CELL, "cell without a norm"),
        (LSTM, LN_BIAS, "offsets without a norm"),
        (LSTM, ln | LN_CELL_STORED, "stored without the cell's norm"),
        (LSTM, ln | LN_CELL_BIAS, "the cell's offset without its norm"),
        (LSTM, ln | PEEPHOLE_FULL, "a norm with full peepholes"),
        (LSTM, RESET_BEFORE, "reset of an LSTM"),
        (LSTM, PROJ_BIAS, "the bias of no projection"),
        (LSTM, REVERSE | BIDIRECTIONAL, "two directions and one"),
        (LSTM, CELL | BIDIRECTIONAL, "a cell in two directions"),
        (GRU, PEEPHOLE, "peepholes of a GRU"),
        (GRU, COUPLED_F, "a coupled GRU"),
        (GRU, C0, "c of a GRU"),
        (GRU, ln, "the norm of a GRU"),
        (RNN, C0, "c of an RNN"),
        (RNN, RESET_BEFORE, "reset of an RNN"),
        (RNN, CELL_CLIP_STORED, "the cell clip of an RNN"),
        (LSTM, 1 << 24, "a flag that nobody knows"),
        (LSTM, 1 << 31, "another"),
    ]:
        yield why, [cell(kind, flags)], 2
    nan = float("nan")
    for kind, numbers in [
        (LSTM, {"clip": -1.0}), (LSTM, {"cell_clip": -1.0}), (LSTM, {"proj_clip": -0.5}),
        (LSTM, {"clip": nan}), (LSTM, {"cell_clip": nan}), (LSTM, {"forget_bias": nan}),
        (LSTM, {"zone_h": -0.25}), (LSTM, {"zone_c": 1.25}), (LSTM, {"zone_h": nan}),
        (GRU, {"clip": -1.0}), (GRU, {"cell_clip": 1.0}), (GRU, {"forget_bias": 1.0}),
        (GRU, {"zone_h": 0.5}), (RNN, {"proj_clip": 1.0}), (RNN, {"zone_c": 0.5}),
    ]:  # fmt: skip
        yield f"{numbers}", [cell(kind, bias, **numbers)], 2
    yield "zoneout with a projection", [cell(LSTM, 0, 2, zone_h=0.5)], 2
    yield "zoneout of c with a projection", [cell(LSTM, 0, 2, zone_c=0.5)], 2
    yield (
        "a projection of a GRU",
        [changed(cell(GRU), "weight_hr_l0", (3, 3), dims=(2, 3, 2, 1, 0))],
        2,
    )
    yield "a projection as wide as h", [cell(LSTM, 0, 3)], 2
    yield "a stack of no layers", [changed(cell(GRU), dims=(2, 3, 0, 0, 0), tensors={})], 2
    yield "functions without numbers", [cell(LSTM, word=1)], 2
    yield "a function that nobody knows", [cell(RNN, ACTIVATIONS, word=12)], 2
    yield "a function too many", [cell(GRU, ACTIVATIONS, word=1 << 10)], 2
    eps = cell(LSTM, ln)
    eps.tensors["l.eps"] = np.array([-1], np.float32)
    yield "eps below 0", [eps], 2
    eps = cell(LSTM, ln)
    eps.tensors["l.eps"] = np.array([nan], np.float32)
    yield "eps not a number", [eps], 2
    yield from shapes()
    yield from wirings()
    yield from settings()


def shapes():
    """A tensor of another shape, one less, one more, rows of another cell."""
    every = BIAS | LAYER_NORM | LN_SEPARATE | LN_BIAS | LN_CELL | LN_CELL_BIAS
    norm = cell(LSTM, every | PEEPHOLE | ACTIVATIONS | H0 | C0)
    full = cell(LSTM, PEEPHOLE_FULL | PROJ_BIAS | COUPLED_F, 2)
    for record, tensor, shape in [
        (norm, "weight_ch_l0", (9, 1)), (norm, "weight_ch_l0", (8,)), (norm, "weight_ch_l0", (6,)),
        (norm, "ln_ih.weight_l0", (11,)), (norm, "ln_ih.bias_l0", (13,)),
        (norm, "ln_hh.weight_l0", (3,)), (norm, "ln_hh.bias_l0", (12, 1)),
        (norm, "ln_cell.weight_l0", (12,)), (norm, "ln_cell.bias_l0", (2,)), (norm, "eps", (2,)),
        (norm, "activations", (2, 2)), (norm, "activations", (3, 3)), (norm, "activations", (6,)),
        (norm, "h0", (2, 3)), (norm, "c0", (1, 2)),
        (full, "weight_ch_l0", (12, 3)), (full, "weight_ch_l0", (9, 2)), (full, "bias_hr_l0", (3,)),
        (full, "weight_hr_l0", (3, 2)), (full, "weight_ih_l0", (12, 2)),
        (cell(GRU), "weight_ih_l0", (12, 2)), (cell(RNN), "weight_hh_l0", (3, 2)),
    ]:  # fmt: skip
        yield f"{tensor} of shape {shape}", [changed(record, tensor, shape)], 2
    for record in (norm, full):
        for name in record.tensors:
            yield f"no {name}", [without(record, name[2:])], 2
    yield "a tensor too many", [changed(cell(RNN), "more", (3,))], 2


def wirings():
    """Inputs that are not there, widths that do not fit."""
    gru = cell(GRU)  # 2 -> 3, slot 1

    def on(kind, inputs, dims=()):
        return [gru, Record(kind, "x", 0, inputs, dims)]

    for why, records in [
        ("a sum of two widths", on(ADD, (1, 0))),
        ("a product of two widths", on(MUL, (1, 1, 0))),
        ("a slot of its own", on(ADD, (1, 2))),
        ("a slot far behind", on(CONCAT, (1, 9))),
        ("two inputs of a function", on(RELU, (1, 1))),
        ("two inputs of a slice", on(SLICE, (1, 1), (0, 1))),
        ("a slice of nothing", on(SLICE, (1,), (1, 1))),
        ("a slice backwards", on(SLICE, (1,), (2, 1))),
        ("a slice past the end", on(SLICE, (1,), (1, 4))),
        ("outputs of other widths", on(OUTPUT, (1, 0), (3, 3, 0, 0, 0))),
        ("an output too many", on(OUTPUT, (1,), (3, 2, 0, 0, 0))),
        ("the last step of no output", on(OUTPUT, (1,), (3, 0, 0, 0, 2))),
        ("three features without an axis", on(OUTPUT, (1,), (3, 0, 0, 0, 0, 1))),
        ("no output without an axis", on(OUTPUT, (1,), (3, 0, 0, 0, 0, 2))),
        ("the hundredth output without an axis", on(OUTPUT, (1,), (3, 0, 0, 0, 0, 1 << 31))),
        ("an axis of every step", on(OUTPUT, (1, 1), (3, 3, 0, 0, 1, 0, 2))),
        ("outputs that go on", [*on(OUTPUT, (1,), (3, 0, 0, 0, 0)), Record(RELU, "r", 0, (2,))]),
    ]:
        yield why, records, 2
    yield "another input than the model's", [cell(GRU, n_in=3)], 2
    yield "no layers", [], 2
    yield "a layer too many", [cell(RNN, layers=1025, n_in=1, hidden=1)], 1
    yield "2^25 features", [Record(CONCAT, "c", 0, (k,) * 4) for k in range(12)], 2
    one = np.ones((5, 3), np.float32)
    table = Record(EMBEDDING, "e", 0, (0,), (5, 3), (), {"e.weight": one})
    other = Record(EMBEDDING, "f", 0, (0,), (4, 3), (), {"f.weight": one[:4]})
    tokens = Record(IDENTITY, "i", 0, (0,))
    linear = Record(LINEAR, "l", 0, (0,), (0, 1), (), {"l.weight": np.ones((1, 0), np.float32)})
    yield "a table for numbers", [table], 2
    yield "tokens alone", [tokens], 0
    yield "tokens for a function", [tokens, Record(RELU, "r", 0, (1,))], 0
    yield "tokens among the values", [table, Record(CONCAT, "c", 0, (1, 0))], 0
    yield "tokens as an output", [table, tokens], 0
    yield "tokens for a product", [linear], 0
    yield "tables of two sizes", [table, other, Record(ADD, "a", 0, (1, 2))], 0


def settings():
    """Norms and functions whose numbers make no sense."""
    one = np.ones(2, np.float32)
    moments = {"b.mean": one, "b.var": one}
    for why, record in [
        ("an offset without a scale", Record(NORM, "n", BIAS, params=(1,), tensors={"n.b": one})),
        ("a norm's eps below 0", Record(NORM, "n", params=(-1,))),
        ("a batch's eps below 0", Record(BATCH_NORM, "b", params=(-1,), tensors=moments)),
        ("a range upside down", Record(HARDTANH, "h", params=(1, -1))),
        ("beta 0", Record(SOFTPLUS, "s", params=(0, 20))),
        ("a threshold that is no number", Record(SOFTPLUS, "s", params=(1, float("nan")))),
    ]:
        yield why, [record], 2


def certificates():
    """(why, image) of a certificate that does not belong to its model, or is too long to run."""
    x, y = np.zeros((2, 3, 2), np.float32), np.zeros((2, 3, 3), np.float32)
    for why, check in [
        ("inputs of rank 2", (x[0], y)),
        ("inputs of another width", (x[..., :1], y)),
        ("tokens for numbers", (np.zeros((2, 3), np.int64), y)),
        ("outputs of rank 2", (x, y[0])),
        ("outputs of another width", (x, y[..., :2])),
        ("outputs of integers", (x, y.astype(np.int64))),
        ("outputs of fewer steps", (x, y[:1])),
        ("outputs of a smaller batch", (x, y[:, :2])),
        ("257 steps", (np.zeros((257, 1, 2), np.float32), np.zeros((257, 1, 3), np.float32))),
        ("257 rows", (np.zeros((1, 257, 2), np.float32), np.zeros((1, 257, 3), np.float32))),
    ]:
        yield f"a certificate with {why}", Image([cell(GRU)], 2, check)
    wide = [Record(CONCAT, "c", 0, (k,) * 4) for k in range(10)]  # 2^21 features
    one = Record(SLICE, "s", 0, (10,), (0, 1))
    check = np.zeros((9, 1, 2), np.float32), np.zeros((9, 1, 1), np.float32)
    yield "a certificate of 9 * 2^21 values", Image([*wide, one], 2, check)


def all_refused():
    """(why, image) of all that must be refused."""
    for why, records, n_in in contradictions():
        yield why, Image(records, n_in)
    yield from certificates()


def refused():
    return [write_image(image) for _, image in all_refused()]


def write_packs(folder):
    """The paths of the packs of both."""
    return (
        models.write_pack(folder / "sound", list(sound_images())),
        models.write_pack(folder / "refused", refused()),
    )
