# SPDX-License-Identifier: MIT
"""Promise 4 from Python: a host that rounds and flushes in its own way gets the bits of any other,
from its float64 arrays and weights too, and finds its modes as they were."""

import ctypes

import numpy as np
import pytest

import build
import clstm
import samples
from build import TESTS_C
from clstm import nn

H = 272  # steps that two threads share


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """The library that reads and sets control bits."""
    path = tmp_path_factory.mktemp("modes") / "caller_modes.so"
    build.succeed(["cc", "-O2", "-shared", "-fPIC", TESTS_C / "caller_modes.c", "-o", path])
    library = ctypes.CDLL(str(path))
    if not hasattr(library, "caller_get"):
        pytest.skip("not run: no control bits known here")
    library.caller_get.restype = library.caller_default.restype = ctypes.c_uint64
    library.caller_set.argtypes = [ctypes.c_uint64]
    library.caller_modes.restype = ctypes.c_size_t
    return library


def modes_of(control):
    found = (ctypes.c_uint64 * 64)()
    modes = list(found[: control.caller_modes(found)])
    assert len(set(modes)) == 16  # 4 roundings, FTZ or not, DAZ or not
    return modes


def under(control, mode, work):
    """What work() returns in that mode; and the mode is still there behind it."""
    control.caller_set(mode)
    try:
        result = work()
        left = control.caller_get()
    finally:
        control.caller_set(control.caller_default())
    assert left == mode, f"{mode:#x} was left as {left:#x}"
    return result


def inputs():
    rng = np.random.default_rng(2)
    tensors = samples.lstm_tensors(rng, H, H, prefix="l", scale=0.06)
    tensors |= {f"n.{name}": samples.floats(rng, H) for name in ("weight", "bias", "running_mean")}
    tensors["n.running_var"] = samples.floats(rng, H) ** 2
    tensors |= samples.linear_tensors(rng, H, 5, "fc")
    wide = {name: a + 2.0**-30 * rng.standard_normal(a.shape) for name, a in tensors.items()}
    x = rng.standard_normal((6, 3, H))
    x[2] *= 2.0**-133  # denormal as float32
    return tensors, wide, x, rng.standard_normal((1, H)) * 1e-3


def everything(model, wide, x, x32, state):
    """Results of all that a caller can do."""
    s = model.stream()
    y = np.empty(5, np.float32)
    yield s.step(x32[0, 0])
    yield s.step(x32[1, 0], out=y)
    s.bind(x32[2, 0].copy(), y)()
    yield from (y, s.run(x32[:, 0].copy()), s.run(x[:, 0]))
    s.state = (state, state)
    yield from (*s.state, s.copy().run(x32[:, 1].copy()))
    yield model.stream(snapshot=s.snapshot()).run(x[:, 2])
    batch = np.stack([state] * 3, axis=1)
    for given in (x32, x):
        got, (h, c) = model(given, (batch, batch), lengths=[6, 2, 5])
        yield from (got, h, c)
    again = clstm.from_state_dict(wide, layers=list(LAYERS), threads=model.threads)
    yield again(x32)[0]


LAYERS = (nn.LSTM("l", forget_bias=0.3), nn.BatchNorm1d("n"), nn.Linear("fc"), nn.Softmax())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_modes_of_the_caller_change_no_bits(monkeypatch, control, kernel, threads):
    monkeypatch.setenv("CLSTM_KERNEL", kernel)
    tensors, wide, x, state = inputs()
    model = clstm.from_state_dict(tensors, layers=list(LAYERS), threads=threads)
    x32 = x.astype(np.float32)  # before the modes change

    def work():
        return [a.tobytes() for a in everything(model, wide, x, x32, state)]

    expected = work()
    for mode in modes_of(control):
        assert under(control, mode, work) == expected, hex(mode)


def test_an_error_leaves_the_modes_too(control):
    model = samples.made("lstm")
    s = model.stream()

    def work():
        for bad in (np.zeros(3, np.float32), np.zeros((2, 2)), "x"):
            with pytest.raises(clstm.ClstmError):
                s.step(bad)
            with pytest.raises(clstm.ClstmError):
                s.run(bad)
        with pytest.raises(clstm.ModelFormatError):
            clstm.load(b"nothing")

    for mode in modes_of(control):
        under(control, mode, work)


def test_modes_that_reach_numpy_are_modes(control):
    """The other way round: without clstm, these modes do change what NumPy converts."""
    x = np.random.default_rng(0).standard_normal(100)
    expected = x.astype(np.float32).tobytes()
    found = [under(control, m, lambda: x.astype(np.float32).tobytes()) for m in modes_of(control)]
    assert sum(one != expected for one in found) == 12
