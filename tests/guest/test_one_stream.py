# SPDX-License-Identifier: MIT
"""One stream, and several threads that do not know of each other: each call happens whole or is
refused. What is read, by whatever method, is the state after some number of steps."""

import sys
import threading

import numpy as np
import pytest

import samples
from clstm import StreamBusyError
from samples import made, same_bits

N_THREADS, ROUNDS, LAST = 4, 400, 60


@pytest.fixture(autouse=True, params=[1e-6, 5e-3], ids=["1 us", "as ever"])
def _switch(request):
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


class Table:
    """What the states and outputs are after 0 ... LAST steps with one input over and over; who
    comes to LAST resets."""

    def __init__(self, model):
        self.model, s = model, model.stream()
        self.x = samples.fed(model, 5, 1)[0]
        self.states, self.outputs = [s.state], []
        for _ in range(LAST + 20):
            self.outputs.append(np.asarray(s.step(self.x)).copy())
            self.states.append(s.state)

    def is_state(self, state):
        return any(same_bits(state, one) for one in self.states)

    def is_output(self, y):
        return any(same_bits(y, one) for one in self.outputs)


def step(s, t):
    return t.is_output(s.step(t.x))


def step_out(s, t):
    out = np.full(s.model.output_size, np.nan, np.float32)
    return s.step(t.x, out=out) is out and t.is_output(out)


def run(s, t):
    return all(map(t.is_output, s.run(np.stack([t.x] * 3))))


def bound(s, t):
    x = np.array([t.x]) if s.model.num_embeddings else t.x.copy()
    y = np.full(s.model.output_size, np.nan, np.float32)
    s.bind(x, y)()
    return t.is_output(y)


def reset(s, t):
    return s.reset() is None


def read(s, t):
    return t.is_state(s.state)


def write(s, t):
    s.state = t.states[7]
    return True


def finite(s, t):
    return s.is_finite()


def copied(s, t):
    return t.is_state(s.copy().state)


def copied_into(s, t):
    other = t.model.stream(state=t.states[3])
    other.copy(into=s)
    return same_bits(other.state, t.states[3])


CALLS = [step, step, step_out, run, bound, reset, read, write, finite, copied, copied_into]


def storm(work):
    """work(i) on N_THREADS threads at once; what they raise, and how often they were refused."""
    errors, refused, gate = [], [0] * N_THREADS, threading.Barrier(N_THREADS)

    def thread(i):
        gate.wait()
        for n in range(ROUNDS):
            try:
                work(i, n)
            except StreamBusyError:
                refused[i] += 1
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=thread, args=(i,)) for i in range(N_THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
        assert not one.is_alive()
    assert not errors, errors[0]
    return sum(refused)


@pytest.mark.parametrize("name", ["lstm", "cell and head", "tokens"])
def test_every_method_happens_whole_or_is_refused(name):
    t = Table(made(name))
    s = t.model.stream()

    def work(i, n):
        if s.steps >= LAST:
            s.reset()
        call = CALLS[(7 * n + 3 * i) % len(CALLS)]
        assert call(s, t), call.__name__

    storm(work)
    s.state = t.states[0]
    assert t.is_output(s.step(t.x))  # and it is nobody's at the end


def test_a_snapshot_is_of_one_moment():
    """Its state is that of its count of steps."""
    t = Table(made("lstm"))
    s = t.model.stream()

    def work(i, n):
        if i == 0:
            again = t.model.stream(snapshot=s.snapshot())
            assert same_bits(again.state, t.states[again.steps])
        elif s.steps >= LAST:
            s.reset()
        else:
            s.step(t.x)

    storm(work)


def test_a_step_in_the_midst_of_a_snapshot_is_in_it_whole_or_not_at_all(monkeypatch):
    """What another thread might do, at the one place where it is sure to come between."""
    t = Table(made("lstm"))
    s, empty = t.model.stream(), np.empty

    def empty_and_step(*words):
        monkeypatch.undo()
        s.step(t.x)
        return empty(*words)

    monkeypatch.setattr(np, "empty", empty_and_step)
    again = t.model.stream(snapshot=s.snapshot())
    assert s.steps == 1 and same_bits(again.state, t.states[again.steps])


def test_one_that_runs_keeps_all_others_out():
    """A long run releases the GIL: whoever comes meanwhile is refused, and it is not disturbed."""
    model = made("two layers of state")
    x = samples.fed(model, 1, 60_000)
    expected, s, results = model.stream().run(x), model.stream(), []

    def work(i, n):
        if i == 0 and n == 0:
            results.append(s.run(x))
        elif not results:
            s.is_finite()

    storm(work)
    assert same_bits(results[0], expected) and s.steps == len(x)
