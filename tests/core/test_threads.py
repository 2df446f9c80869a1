# SPDX-License-Identifier: MIT
"""One stream belongs to one thread at a time; a model to any number of them."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import clstm
import samples
from clstm import StreamBusyError
from samples import ZOO, fed, made, same_bits, warm


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def large():
    return clstm.from_state_dict(samples.lstm_tensors(samples.rng_of(0), 64, 256))


@pytest.fixture(scope="module")
def lasting(large):
    """A chunk that keeps a thread inside `run` for some 40 ms, whatever the kernel set."""
    begin, s = time.perf_counter(), large.stream()
    s.run(fed(large, 1, 50))
    return fed(large, 1, max(100, int(50 * 0.04 / (time.perf_counter() - begin))))


def running(stream, x):
    """A thread that runs the stream over x, and a list that will hold its result."""
    result = []
    thread = threading.Thread(target=lambda: result.append(stream.run(x)))
    thread.start()
    return thread, result


METHODS = {
    "step": lambda s: s.step(np.zeros(64, np.float32)),
    "run": lambda s: s.run(np.zeros((1, 64), np.float32)),
    "bound": lambda s: s.bind(np.zeros(64, np.float32), np.zeros(256, np.float32))(),
    "reset": lambda s: s.reset(),
    "copy": lambda s: s.copy(),
    "copy into it": lambda s: s.model.stream().copy(into=s),
    "state": lambda s: s.state,
    "set state": lambda s: setattr(s, "state", (np.zeros((1, 256)),) * 2),
    "snapshot": lambda s: s.snapshot(),
    "is_finite": lambda s: s.is_finite(),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_finds_a_stream_busy_and_leaves_it_alone(large, lasting, method):
    x, refusal = lasting, None
    for _ in range(50):  # the run may be over before the method comes
        s = large.stream()
        thread, result = running(s, x)
        while thread.is_alive() and refusal is None:
            try:
                s.is_finite()
            except StreamBusyError:  # inside
                try:
                    method(s)
                except StreamBusyError as error:
                    refusal = error
        thread.join()
        if refusal:
            break
    assert "give each thread its own" in str(refusal)
    assert same_bits(result[0], large.stream().run(x)) and s.steps == len(x)


def test_a_stream_is_usable_again_after_it_was_busy(large, lasting):
    x, s = lasting, large.stream()
    expected = large.stream().run(x)
    thread, result = running(s, x)
    refused = 0
    while thread.is_alive():
        try:
            s.snapshot()
        except StreamBusyError:
            refused += 1
    thread.join()
    assert refused > 0
    assert same_bits(result[0], expected) and s.steps == len(x)
    again = large.stream()
    again.run(x)
    assert same_bits(s.step(x[0]), again.step(x[0]))


def test_two_threads_on_one_stream_never_race(large):
    """Each step either happens whole or raises; the count of those that did is the stream's."""
    s, done = large.stream(), [0, 0]

    def work(i):
        x, y = np.ones(64, np.float32), np.empty(256, np.float32)
        for n in range(300):
            try:
                if n % 3:
                    s.step(x, y)
                    done[i] += 1
                else:
                    s.run(np.ones((5, 64), np.float32))
                    done[i] += 5
            except StreamBusyError:
                pass

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert s.steps == sum(done) > 0
    alone = large.stream()
    alone.run(np.ones((s.steps, 64), np.float32))
    assert same_bits(s.state, alone.state)


def test_an_error_does_not_leave_a_stream_busy():
    s = warm(made("tokens"))
    for bad in (-1, 1.5, "x", np.zeros(3, int)):
        with pytest.raises(clstm.ClstmError):
            s.step(bad)
        with pytest.raises(clstm.ClstmError):
            s.step(1, out=np.zeros(2, np.float32))
        with pytest.raises(clstm.ClstmError):
            s.run([bad])
        with pytest.raises(clstm.ClstmError):
            s.state = bad
    s.step(1)
    other = made("tokens").stream()
    with pytest.raises(ValueError, match="same model"):
        s.copy(into=other)
    s.step(1)
    other.step(1)


def test_copies_into_each_other_do_not_lock_up(large):
    """a.copy(b) while b.copy(a): one of them is refused, or both happen."""
    a, b = large.stream(), large.stream()

    def work(one, other):
        for _ in range(2000):
            try:
                one.copy(into=other)
            except StreamBusyError:
                pass

    threads = [threading.Thread(target=work, args=pair) for pair in ((a, b), (b, a))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
        assert not t.is_alive()
    a.copy(into=b)
    b.copy(into=a)


@pytest.mark.parametrize("name", ZOO)
def test_threads_with_streams_of_their_own_get_equal_bits(name):
    model = made(name)
    x = fed(model, 3, 60)
    expected = model.stream().run(x)
    batch = fed(model, 4, 7) if name == "cell" else fed(model, 4, 9, 7)
    expected_batch = model(batch)

    def work(i):
        s, good = model.stream(), True
        for _ in range(5):
            s.reset()
            if i % 3 == 0:
                y = np.stack([s.step(frame) for frame in x])
            elif i % 3 == 1:
                y = np.concatenate([s.run(part) for part in np.split(x, [7, 20])])
            else:
                y = expected
                good &= same_bits(model(batch), expected_batch)
            good &= same_bits(y, expected)
        return good

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(24)))


@pytest.mark.parametrize("call", ["run", "m(x)", "load"])
def test_the_interpreter_is_free_meanwhile(large, lasting, call, tmp_path):
    """A counter in another thread advances while one long call is inside the core."""
    sys.setswitchinterval(10.0)  # so that a thread runs only when the other gives way
    x = lasting
    large.save(tmp_path / "m.clstm", check=(x, large(x)[0]))
    image = (tmp_path / "m.clstm").read_bytes()
    work = {
        "run": lambda: large.stream().run(x),
        "m(x)": lambda: large(x),
        "load": lambda: clstm.load(image),
    }[call]
    count, stop = [0], threading.Event()

    def counter():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)  # gives way at once

    thread = threading.Thread(target=counter)
    thread.start()
    try:
        for _ in range(5):  # the other thread may not get a core at once
            before = count[0]
            work()
            advanced = count[0] - before
            if advanced > 10:
                break
    finally:
        stop.set()
        thread.join()
    assert advanced > 10
