# SPDX-License-Identifier: MIT
"""Random models over every cell, every option and every wiring layer, for the C test programs.

They are made as records, by the numbers of docs/format.md and past clstm.nn and clstm.program:
what may stand in a file is more than what these write. tests/c/oracle_model.c computes them.
"""

import models
import numpy as np

from clstm.formats.container import Image, Record, write_image

LSTM, GRU, RNN, LINEAR, EMBEDDING, AFFINE = 1, 2, 3, 16, 17, 20
ADD, MUL, CONCAT, SLICE, OUTPUT, FIRST = 21, 22, 23, 24, 25, 26
RELU, TANH, SOFTMAX = 34, 39, 46

BIDIRECTIONAL, CELL, BIAS, H0, C0 = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 6
PEEPHOLE, PEEPHOLE_FULL, OUTPUT_NEW = 1 << 7, 1 << 8, 1 << 9
COUPLED_F, COUPLED_I, CELL_CLIP_STORED, PROJ_BIAS = 1 << 10, 1 << 11, 1 << 12, 1 << 13
LAYER_NORM, LN_PER_GATE, LN_SEPARATE = 1 << 14, 1 << 15, 1 << 16
LN_CELL, LN_CELL_STORED, LN_BIAS, LN_CELL_BIAS = 1 << 17, 1 << 18, 1 << 19, 1 << 20
ACTIVATIONS, RESET_BEFORE, REVERSE = 1 << 21, 1 << 22, 1 << 23

N_MODELS = 600  # of the digest: chance has its way behind four of each form below

PARAMS = {"clip": 0, "cell_clip": 1, "proj_clip": 2, "forget_bias": 3, "zone_h": 4, "zone_c": 5}
FUNCTIONS = {LSTM: 3, GRU: 2, RNN: 1}
# Alpha and beta of each gate function; others than ONNX's defaults. A cell that feeds a function
# without a limit back into itself grows without one: the drivers take few steps, weights are small.
GATE_FUNCTIONS = [
    (0, 0), (0, 0), (0, 0), (0.25, 0.375), (-0.75, 1.25), (0, 0), (0, 0), (0.5, 0), (0.125, 0),
    (0.0625, 0), (1.5, 0.625), (0.5, 0.25),
]  # fmt: skip

# Combinations that must be there, whatever chance gives: kind, flags, numbers.
FORMS = [
    (LSTM, flags | BIAS, numbers)
    for flags, numbers in [
        (0, {}),
        (PEEPHOLE, {}),
        (PEEPHOLE, {"clip": 0.5}),
        (PEEPHOLE_FULL, {}),
        (PEEPHOLE_FULL | OUTPUT_NEW, {}),
        (PEEPHOLE_FULL | OUTPUT_NEW | COUPLED_I, {"cell_clip": 0.25}),
        (PEEPHOLE_FULL | OUTPUT_NEW, {"zone_h": 0.25, "zone_c": 0.125}),
        (COUPLED_F, {}),
        (COUPLED_I, {}),
        (PEEPHOLE | COUPLED_F, {"clip": 1.0}),
        (PEEPHOLE | COUPLED_I, {"forget_bias": 1.0}),
        (0, {"forget_bias": 1.0}),
        (0, {"clip": 0.25}),
        (0, {"cell_clip": 0.25}),
        (PEEPHOLE, {"cell_clip": 0.25}),
        (CELL_CLIP_STORED, {"cell_clip": 0.25}),
        (PEEPHOLE | CELL_CLIP_STORED, {"cell_clip": 0.25}),
        (0, {"zone_h": 0.125, "zone_c": 0.25}),
        (0, {"zone_h": 0.5}),
        (0, {"zone_c": 1.0}),
        (LAYER_NORM, {}),
        (LAYER_NORM | LN_BIAS, {"forget_bias": 1.0}),
        (LAYER_NORM | LN_PER_GATE, {}),
        (LAYER_NORM | LN_SEPARATE | LN_BIAS, {}),
        (LAYER_NORM | LN_PER_GATE | LN_SEPARATE, {}),
        (LAYER_NORM | LN_CELL, {}),
        (LAYER_NORM | LN_CELL | LN_CELL_BIAS, {"cell_clip": 0.5}),
        (LAYER_NORM | LN_CELL | LN_CELL_STORED | LN_CELL_BIAS, {}),
        (LAYER_NORM | LN_CELL | LN_CELL_STORED, {"cell_clip": 0.25}),
        (LAYER_NORM | LN_CELL | LN_CELL_STORED | CELL_CLIP_STORED, {"cell_clip": 0.25}),
        (LAYER_NORM | PEEPHOLE, {}),
        (LAYER_NORM | PEEPHOLE | LN_PER_GATE, {}),
        (LAYER_NORM | PEEPHOLE | LN_PER_GATE | LN_BIAS | COUPLED_F, {"clip": 1.0}),
        (LAYER_NORM | PEEPHOLE | LN_SEPARATE, {}),
        (LAYER_NORM | PEEPHOLE | LN_PER_GATE | LN_SEPARATE, {}),
        (LAYER_NORM | PEEPHOLE | LN_CELL, {}),
        (LAYER_NORM | PEEPHOLE | LN_CELL | LN_CELL_STORED, {}),
        (LAYER_NORM | COUPLED_F | LN_PER_GATE, {}),
        (LAYER_NORM | COUPLED_I, {"zone_h": 0.25, "zone_c": 0.25}),
        (REVERSE, {}),
        (BIDIRECTIONAL | PEEPHOLE, {}),
        (BIDIRECTIONAL | LAYER_NORM, {}),
    ]
] + [
    (kind, flags | BIAS, numbers)
    for kind in (GRU, RNN)
    for flags in (0, REVERSE, BIDIRECTIONAL)
    for numbers in ({}, {"clip": 0.5})
] + [(GRU, RESET_BEFORE | flags, {}) for flags in (0, BIAS, BIAS | BIDIRECTIONAL)]  # fmt: skip
# of a projection: the flag, whether it is clipped
PROJECTIONS = [(0, False), (PROJ_BIAS, False), (0, True), (PROJ_BIAS, True)]


class Cells(models.Maker):
    """The records of one random model; slot k is the output of record k - 1."""

    def __init__(self, rng):
        super().__init__(rng)
        self.records, self.widths = [], []

    def put(self, kind, width, inputs, flags=0, dims=(), params=(), tensors=None):
        """One record; returns its slot."""
        name = f"l{len(self.records)}"
        tensors = {f"{name}.{key}": array for key, array in (tensors or {}).items()}
        self.records.append(Record(kind, name, flags, tuple(inputs), dims, params, tensors))
        self.widths.append(width)
        return len(self.widths) - 1

    # ---- cells

    def options(self, kind):
        """Flags and numbers of a random cell: each on its own, less those that exclude another."""
        flags = BIAS * self.chance(0.8)
        numbers = {"clip": 0.75} if self.chance(0.2) else {}
        if kind == GRU:
            return flags | RESET_BEFORE * self.chance(0.5), numbers
        if kind == RNN:
            return flags, numbers
        flags |= int(self.rng.choice([0, 0, PEEPHOLE, PEEPHOLE_FULL, PEEPHOLE_FULL | OUTPUT_NEW]))
        flags |= int(self.rng.choice([0, 0, COUPLED_F, COUPLED_I]))
        if not flags & PEEPHOLE_FULL and self.chance(0.4):
            flags |= LAYER_NORM | LN_PER_GATE * self.chance(0.5) | LN_SEPARATE * self.chance(0.4)
            flags |= LN_BIAS * self.chance(0.5)
            if self.chance(0.5):
                flags |= (
                    LN_CELL | LN_CELL_STORED * self.chance(0.4) | LN_CELL_BIAS * self.chance(0.5)
                )
        if self.chance(0.25):
            numbers["cell_clip"] = 0.5
            flags |= CELL_CLIP_STORED * self.chance(0.5)
        if self.chance(0.2):
            numbers["forget_bias"] = float(self.rng.choice([1.0, -0.5]))
        if self.chance(0.2):
            numbers |= {"zone_h": 0.125, "zone_c": 0.0625}
        return flags, numbers

    def functions(self, kind, n_directions):
        """The word of the kinds, and the tensor of their numbers."""
        some = [
            int(self.rng.integers(len(GATE_FUNCTIONS)))
            for _ in range(FUNCTIONS[kind] * n_directions)
        ]
        word = sum(one << 5 * i for i, one in enumerate(some))
        return word, np.array([GATE_FUNCTIONS[one] for one in some], np.float32)

    def one_cell(self, kind, flags, n_in, hidden, proj):
        """Tensors of one layer and direction."""
        coupled = flags & (COUPLED_F | COUPLED_I)
        gates = {LSTM: 3 if coupled else 4, GRU: 3, RNN: 1}[kind]
        rows, out, limit = gates * hidden, proj or hidden, hidden**-0.5
        yield "weight_ih", self.uniform(rows, n_in, limit=max(limit, n_in**-0.5))
        yield "weight_hh", self.uniform(rows, out, limit=limit)
        if flags & BIAS:
            yield "bias_ih", self.uniform(rows)
            yield "bias_hh", self.uniform(rows)
        if proj:
            yield "weight_hr", self.uniform(proj, hidden, limit=limit)
        if flags & PROJ_BIAS:
            yield "bias_hr", self.uniform(out)
        if flags & PEEPHOLE:
            yield "weight_ch", self.uniform(3 * hidden)
        if flags & PEEPHOLE_FULL:
            yield "weight_ch", self.uniform(rows, hidden, limit=limit)
        for name in ["ln_ih", "ln_hh"][: bool(flags & LAYER_NORM) + bool(flags & LN_SEPARATE)]:
            yield f"{name}.weight", self.uniform(rows) + np.float32(0.75)
            if flags & LN_BIAS:
                yield f"{name}.bias", self.uniform(rows)
        if flags & LN_CELL:
            yield "ln_cell.weight", self.uniform(hidden) + np.float32(0.75)
        if flags & LN_CELL_BIAS:
            yield "ln_cell.bias", self.uniform(hidden)

    def recurrent(self, slot, form=None, index=0):
        """A recurrent layer on a slot, of the given form or of any."""
        kind, flags, numbers = form or (int(self.rng.choice([LSTM, LSTM, GRU, RNN])), None, None)
        if form is None:
            flags, numbers = self.options(kind)
            turn = self.rng.random()
            flags |= (
                CELL if turn < 0.1 else BIDIRECTIONAL if turn < 0.25 else REVERSE * (turn > 0.97)
            )
        hidden, n_in, proj = self.size(), self.widths[slot], 0
        n_layers = 1 if flags & CELL else int(self.rng.choice([1, 1, 2, 3]))
        n_directions = 2 if flags & BIDIRECTIONAL else 1
        zoned = "zone_h" in numbers or "zone_c" in numbers
        if kind == LSTM and not zoned and hidden > 1 and not flags & CELL and self.chance(0.3):
            proj = int(self.rng.integers(1, hidden))
            flag, clipped = PROJECTIONS[index % len(PROJECTIONS)]
            flags |= flag
            numbers = numbers | ({"proj_clip": 0.125} if clipped else {})
        out, tensors = proj or hidden, {}
        for k in range(n_layers):
            for end in ["", "_reverse"][:n_directions]:
                for name, array in self.one_cell(kind, flags, n_in, hidden, proj):
                    tensors[f"{name}_l{k}{end}"] = array
            n_in = out * n_directions
        word, rows = 0, n_layers * n_directions
        if flags & LAYER_NORM:
            tensors["ln_eps"] = np.array([self.rng.choice([1e-5, 1e-3])], np.float32)
        if self.chance(0.3 if form is None else 0):
            flags |= ACTIVATIONS
            word, tensors["activations"] = self.functions(kind, n_directions)
        if self.chance(0.15):
            flags |= H0
            tensors["h0"] = self.uniform(rows, out)
        if kind == LSTM and self.chance(0.15):
            flags |= C0
            tensors["c0"] = self.uniform(rows, hidden)
        params = [0.0] * 6
        for name, value in numbers.items():
            params[PARAMS[name]] = value
        dims = (self.widths[slot], hidden, proj, n_layers, word)
        return self.put(kind, out * n_directions, [slot], flags, dims, tuple(params), tensors)

    # ---- wiring

    def linear_to(self, slot, n):
        width, tensors = self.widths[slot], {}
        tensors["weight"] = self.uniform(n, width, limit=width**-0.5)
        if self.chance(0.5):
            tensors["bias"] = self.uniform(n)
        return self.put(LINEAR, n, [slot], BIAS * ("bias" in tensors), (width, n), (), tensors)

    def sliced(self, slot):
        start = int(self.rng.integers(self.widths[slot]))
        stop = int(self.rng.integers(start, self.widths[slot])) + 1
        return self.put(SLICE, stop - start, [slot], 0, (start, stop))

    def joined(self, slots):
        """An ADD, MUL or CONCAT of 1 to 4 slots; those of other widths are made to fit."""
        kind = int(self.rng.choice([ADD, MUL, CONCAT]))
        some = [int(self.rng.choice(slots)) for _ in range(self.rng.integers(1, 5))]
        if kind == CONCAT:
            return self.put(kind, sum(self.widths[s] for s in some), some)
        width = self.widths[some[0]]
        some = [s if self.widths[s] == width else self.linear_to(s, width) for s in some]
        return self.put(kind, width, some)

    def make(self, form=None, index=0):
        """A recurrent layer or two, and layers that read any value before them."""
        first = self.size()
        tokens = self.chance(0.1)
        self.widths = [0 if tokens else first]
        slots = [0]
        if tokens:
            shape = (int(self.rng.integers(1, 40)), first)
            tensors = {"weight": self.uniform(*shape)}
            slots = [self.put(EMBEDDING, first, [0], 0, shape, (), tensors)]
        slots.append(self.recurrent(slots[0], form, index))
        for _ in range(int(self.rng.choice([0, 1, 3, 5]))):
            turn, slot = self.rng.random(), int(self.rng.choice(slots[-3:]))
            if self.widths[slot] > 400:
                slot = self.sliced(slot)
            if turn < 0.2 and sum(r.kind <= RNN for r in self.records) < 3:
                slots.append(self.recurrent(slot))
            elif turn < 0.6:
                slots.append(self.joined(slots))
            elif turn < 0.75:
                slots.append(self.sliced(slot))
            elif turn < 0.85:
                slots.append(self.linear_to(slot, self.size()))
            else:
                kind = int(self.rng.choice([RELU, TANH, SOFTMAX]))
                slots.append(self.put(kind, self.widths[slot], [slot]))
        if self.chance(0.4):
            some = [slots[-1]] + [int(self.rng.choice(slots)) for _ in range(self.rng.integers(4))]
            widths = [self.widths[s] for s in some]
            last = int(self.rng.integers(1 << len(some)))
            dims = (*widths, *[0] * (4 - len(some)), last)
            self.put(OUTPUT, sum(widths), some, 0, dims)
        return write_image(Image(self.records, self.widths[0]))


def image(rng, index):
    """The bytes of one model: each form comes four times among the first, then any."""
    form = FORMS[index % len(FORMS)] if index < 4 * len(FORMS) else None
    while True:
        one = Cells(rng).make(form, index)
        if len(one) < 4 * models.LARGEST or index % 12 == 0:
            return one


def gate_function_images(rng):
    """Every gate function in every place, of one and of two directions: small."""
    for kind, n in FUNCTIONS.items():
        for function in range(len(GATE_FUNCTIONS)):
            for place in range(n):
                maker = Cells(rng)
                maker.widths = [int(rng.integers(1, 20))]
                two = function % 2
                word = [0, 1, 1][:n] if kind != RNN else [1]
                word = word[:n] * (1 + two)
                word[place + n * two] = function
                maker.widths = [maker.widths[0]]
                hidden = int(rng.choice([15, 16, 17, 33]))
                flags = ACTIVATIONS | BIAS | BIDIRECTIONAL * two
                tensors = {}
                for end in ["", "_reverse"][: 1 + two]:
                    for name, array in maker.one_cell(kind, flags, maker.widths[0], hidden, 0):
                        tensors[f"{name}_l0{end}"] = array
                tensors["activations"] = np.array([GATE_FUNCTIONS[f] for f in word], np.float32)
                packed = sum(one << 5 * i for i, one in enumerate(word))
                dims = (maker.widths[0], hidden, 0, 1, packed)
                maker.put(kind, hidden * (1 + two), [0], flags, dims, (), tensors)
                yield write_image(Image(maker.records, maker.widths[0]))


def read_twice(rng):
    """A Linear that an Affine reads, and a sum of both: the one may not be folded into the other,
    whichever input of the sum the Linear is."""
    for inputs in [(2, 1), (1, 2)]:
        maker = Cells(rng)
        maker.widths = [5]
        maker.linear_to(0, 7)
        tensors = {"scale": maker.uniform(7), "shift": maker.uniform(7)}
        maker.put(AFFINE, 7, [1], 0, (7,), (), tensors)
        maker.put(ADD, 7, inputs)
        yield write_image(Image(maker.records, 5))


def images(n, seed=1):
    """n models, and behind them those of each gate function."""
    rng = np.random.default_rng(seed)
    some = [image(rng, i) for i in range(n)]
    return [*some, *gate_function_images(rng), *read_twice(rng)]
