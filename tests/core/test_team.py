# SPDX-License-Identifier: MIT
"""threads=n: the same bits for every n, with other callers, asleep, after a fork."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import clstm
from clstm import nn

H = 272  # 17 blocks of units: no number of threads here divides them
RNG = np.random.default_rng(7)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def tensors(kind, n_in=H, n=H):
    shapes = {"weight_ih_l0": (n_in,), "weight_hh_l0": (n,), "bias_ih_l0": (), "bias_hh_l0": ()}
    rows = GATES[kind] * n
    return {k: RNG.uniform(-0.06, 0.06, (rows, *s)).astype(np.float32) for k, s in shapes.items()}


def models(kind, *threads, **options):
    weights = tensors(kind)
    layers = [getattr(nn, kind)(**options)]
    return [clstm.from_state_dict(weights, layers=layers, threads=n) for n in threads]


def same(a, b):
    a, b = (x if isinstance(x, tuple) else (x,) for x in (a, b))
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("kernel", clstm.available_kernels())
@pytest.mark.parametrize(
    "kind, options",
    [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": False}), ("RNN", {}),
     ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Softsign"], "zoneout": (0.1, 0.2)})],
)  # fmt: skip
def test_the_same_bits_for_every_number_of_threads(monkeypatch, kernel, kind, options):
    monkeypatch.setenv("CLSTM_KERNEL", kernel)
    one, two, three = models(kind, 1, 2, 3, **options)
    assert [m.threads for m in (one, two, three)] == [1, 2, 3]
    x = RNG.standard_normal((5, 9, H)).astype(np.float32)
    lengths = [5, 1, 0, 3, 5, 2, 4, 4, 1]
    y, state = one(x, lengths=lengths)
    frames = np.ascontiguousarray(x[:, 0])
    steps = np.stack([s.step(f) for s in [one.stream()] for f in frames])
    for m in (two, three):
        got, final = m(x, lengths=lengths)
        assert np.array_equal(got, y) and same(final, state)
        stream = m.stream()
        assert np.array_equal(np.stack([stream.step(f) for f in frames]), steps)
        assert np.array_equal(m.stream().run(frames), steps)


def test_streams_of_many_threads_share_a_team():
    """Whoever finds it busy goes alone; nobody waits for another caller."""
    one, two = models("LSTM", 1, 2)
    x = RNG.standard_normal((4, 60, H)).astype(np.float32)
    expected = [one.stream().run(part) for part in x]
    got = [None] * len(x)

    def work(i):
        got[i] = two.stream().run(x[i])

    callers = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_workers_that_fell_asleep_wake_up():
    one, two = models("LSTM", 1, 2)
    a, b = one.stream(), two.stream()
    for _ in range(5):
        x = RNG.standard_normal(H).astype(np.float32)
        time.sleep(0.02)
        assert np.array_equal(a.step(x), b.step(x))


tasks = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="not run: no /proc")


@tasks
def test_workers_begin_and_end_with_the_model():
    before = len(os.listdir("/proc/self/task"))
    (m,) = models("LSTM", 3)
    m.stream().step(np.zeros(H, np.float32))
    assert len(os.listdir("/proc/self/task")) == before + 2
    del m
    assert len(os.listdir("/proc/self/task")) == before
    models("LSTM", 1)
    assert len(os.listdir("/proc/self/task")) == before


@tasks
def test_workers_leave_signals_to_the_host():
    before = set(os.listdir("/proc/self/task"))
    (m,) = models("LSTM", 2)
    (worker,) = set(os.listdir("/proc/self/task")) - before
    with open(f"/proc/self/task/{worker}/status") as file:
        blocked = next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))
    assert blocked >> (signal.SIGUSR1 - 1) & 1 and blocked >> (signal.SIGINT - 1) & 1
    assert m.threads == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_workers():
    (m,) = models("LSTM", 2)
    stream = m.stream()
    frames = RNG.standard_normal((6, H)).astype(np.float32)
    stream.step(frames[0])
    for _ in range(10):
        expected = m.stream(state=stream.state).run(frames)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                good = np.array_equal(stream.run(frames), expected)
                status = 0 if good and len(os.listdir("/proc/self/task")) == 2 else 2
            finally:
                os._exit(status)
        stream.step(frames[1])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("forks", [30, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_in_the_midst_of_steps_hangs_nobody(threads, forks):
    """Children step as their parent does. One that hangs is killed; the slowest is printed, for on
    a machine that is shared seconds say little."""
    (m,) = models("LSTM", threads)
    stop = threading.Event()
    x = RNG.standard_normal((50, H)).astype(np.float32)
    expected, wrong, slowest = m.stream().run(x), [], 0.0

    def busy():
        s = m.stream()
        while not stop.is_set():
            s.reset()
            if not np.array_equal(s.run(x), expected):
                wrong.append(s)

    def step_by_step():
        s = m.stream()
        return np.array_equal([s.step(frame) for frame in x[:10]], expected[:10])

    callers = [threading.Thread(target=busy) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(forks):
            begin = time.monotonic()
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(0 if step_by_step() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            slowest = max(slowest, time.monotonic() - begin)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    print(f"{forks} forks, threads={threads}: the slowest child took {slowest:.2f} s")
    assert not wrong and step_by_step()


LEAVES = """
import os, sys
import numpy as np
import clstm
RNG = np.random.default_rng(7)
w = {"weight_ih_l0": (1088, 272), "weight_hh_l0": (1088, 272)}
w = {name: RNG.uniform(-0.06, 0.06, shape).astype(np.float32) for name, shape in w.items()}
m = clstm.from_state_dict(w, threads=3)
s, x = m.stream(), np.ones(272, np.float32)
y = s.step(x)
child = os.fork()
if child == 0:
    s.reset()
    sys.exit(sys.argv[1] == "steps" and not np.array_equal(s.step(x), y))
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(status or not np.array_equal(m.stream().step(x), y))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: no fork")
@pytest.mark.parametrize("child", ["steps", "does not step"])
def test_parent_and_child_end_as_any_process(child):
    """By a Python that takes itself apart, models with threads too: with workers of the child's
    own, or with none."""
    subprocess.run([sys.executable, "-c", LEAVES, child], check=True, timeout=60)


def test_too_many_threads_are_refused():
    with pytest.raises(ValueError, match="threads"):
        models("LSTM", 100_000)
