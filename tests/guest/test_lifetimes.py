# SPDX-License-Identifier: MIT
"""Models, streams and bound steps are dropped in any order, and whoever is left works on. None of
them can be closed: ClosedError waits for what can."""

import copy
import gc
import pickle

import numpy as np
import pytest

import clstm
import samples
from samples import made, same_bits

NAMES = ["lstm", "projected", "cell and head", "learned"]
STEPS = 40


class Table:
    """Outputs of one model for its own inputs, by the number of the step."""

    def __init__(self, name, threads):
        model = made(name, threads=threads)
        self.image = pickle.dumps(model)
        self.x = samples.fed(model, 3, STEPS)
        self.y = model.stream().run(self.x)


class Life:
    """What is alive, and what it will answer next."""

    def __init__(self, rng):
        self.rng = rng
        self.tables = [Table(name, 1 + i % 2) for i, name in enumerate(NAMES)]
        self.models, self.streams, self.bound = [], [], []

    def of(self, things):
        return int(self.rng.integers(len(things)))

    def load(self):
        table = self.tables[self.of(self.tables)]
        self.models.append((pickle.loads(table.image), table))

    def open(self):
        if self.models:
            model, table = self.models[self.of(self.models)]
            self.streams.append((model.stream(), table))

    def step(self):
        if self.streams:
            s, table = self.streams[self.of(self.streams)]
            if s.steps == STEPS:
                s.reset()
            t = s.steps
            assert same_bits(s.step(table.x[t]), table.y[t])

    def run(self):
        if self.streams:
            s, table = self.streams[self.of(self.streams)]
            t = s.steps
            end = int(self.rng.integers(t, STEPS + 1))
            assert same_bits(s.run(table.x[t:end]), table.y[t:end])

    def bind(self):
        if self.streams:
            s, table = self.streams[self.of(self.streams)]
            x, y = np.empty(len(table.x[0]), np.float32), np.empty(len(table.y[0]), np.float32)
            self.bound.append((s.bind(x, y), x, y, table))

    def call_bound(self):
        if self.bound:
            step, x, y, table = self.bound[self.of(self.bound)]
            t = step.stream.steps
            if t < STEPS:
                x[:] = table.x[t]
                step()
                assert same_bits(y, table.y[t])

    def copied(self):
        if self.streams:
            s, table = self.streams[self.of(self.streams)]
            self.streams.append((s.copy(), table))

    def renewed(self):
        if self.streams:
            s, table = self.streams[self.of(self.streams)]
            self.streams.append((s.model.stream(snapshot=s.snapshot()), table))

    def refused(self):
        if self.streams:
            s, table = self.streams[self.of(self.streams)]
            with samples.refused(s, clstm.ShapeError):
                s.step(np.zeros(len(table.x[0]) + 1, np.float32))

    def call(self):
        if self.models:
            model, table = self.models[self.of(self.models)]
            if model.stream().state is not None and not isinstance(
                model.layers[0], clstm.nn.LSTMCell
            ):
                assert same_bits(model(table.x)[0], table.y)

    def drop(self):
        for things in (self.models, self.streams, self.bound):
            if things and len(things) > self.rng.integers(6):
                things.pop(self.of(things))

    def collect(self):
        if self.rng.integers(50) == 0:
            gc.collect()


ACTS = ["load", "open", "open", "step", "step", "run", "bind", "call_bound", "call_bound",
        "copied", "renewed", "refused", "call", "drop", "drop", "drop", "collect"]  # fmt: skip


@pytest.mark.parametrize("seed, n", [(1, 4000), pytest.param(2, 1_000_000, marks=pytest.mark.long)])
def test_any_order_of_making_using_and_dropping(seed, n):
    life = Life(np.random.default_rng(seed))
    for _ in range(n):
        getattr(life, ACTS[life.of(ACTS)])()


def test_nothing_here_can_be_closed_or_half_made():
    model = made("lstm")
    for one in (model, model.stream(), model.stream().bind(np.zeros(6, "f"), np.zeros(8, "f"))):
        assert not hasattr(one, "close") and not hasattr(one, "__exit__")
    for kind in (clstm.Stream, type(model.stream().bind(np.zeros(6, "f"), np.zeros(8, "f")))):
        for words in ((), (None,), (model, 1), (object(),)):
            with pytest.raises(TypeError):
                kind.__new__(kind, *words)
            with pytest.raises(TypeError):
                object.__new__(kind)


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_bound_step_does_not_pickle(way):
    s = made("lstm").stream()
    with pytest.raises(TypeError):
        way(s.bind(np.zeros(6, np.float32), np.zeros(8, np.float32)))
