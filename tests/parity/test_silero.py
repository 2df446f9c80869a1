# SPDX-License-Identifier: MIT
"""The LSTM of a real voice-activity model on a minute of real speech (../shared/data).

The front end and the head are computed here, in float64 NumPy, as that folder's README says; the
cell is computed twice: by a clstm stream, and by the oracle in float64, each from its own state.
"""

import wave
from pathlib import Path

import numpy as np
import pytest

import clstm
import oracle
from bounds.tolerances import FAR, PRINTED_8, PRINTED_10
from clstm import nn

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS, SPEECH = DATA / "silero_vad_16k.safetensors", DATA / "speech_16k.wav"
pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="not run: no ../shared/data")

NEW, KEPT = 512, 64  # samples of a frame: new ones, and of the frame before


def convolution(x, weight, bias=None, stride=1, pad=0):
    """x (N, C, T), weight (O, C, K) -> (N, O, T')."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2], axis=2)[:, :, ::stride]
    y = np.einsum("nctk,ock->not", windows, weight, optimize=True)
    return y if bias is None else y + bias[:, None]


def front_end(w, frames):
    """Frames of 576 samples (N, 576) -> what the cell takes (N, 128), float64."""
    x = np.pad(frames, ((0, 0), (0, KEPT)), mode="reflect")[:, None]
    spectrum = convolution(x, w["stft_conv.weight"], stride=128)
    x = np.hypot(spectrum[:, :129], spectrum[:, 129:])
    for layer, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        x = convolution(x, w[f"{layer}.weight"], w[f"{layer}.bias"], stride, pad=1)
        x = np.maximum(x, 0.0)
    return x[:, :, 0]


def probability(w, h):
    """The head: h (..., 128) -> (...)."""
    y = np.maximum(h, 0.0) @ w["final_conv.weight"][0, :, 0] + w["final_conv.bias"][0]
    return oracle.sigmoid(y)


@pytest.fixture(scope="module")
def weights():
    return {k: v.astype(np.float64) for k, v in clstm.read_weights(WEIGHTS).items()}


@pytest.fixture(scope="module")
def model():
    return clstm.load(str(WEIGHTS), layers=[nn.LSTMCell("lstm_cell")], strict=False)


@pytest.fixture(scope="module")
def speech():
    with wave.open(str(SPEECH)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0


def test_every_frame_agrees_with_float64_and_gives_the_check_values(weights, model, speech):
    n = len(speech) // NEW
    padded = np.concatenate([np.zeros(KEPT), speech[: n * NEW]])
    frames = np.lib.stride_tricks.sliding_window_view(padded, KEPT + NEW)[::NEW]
    features = front_end(weights, frames)
    assert features.shape == (1875, 128)

    ((cell,),) = oracle.directions(weights, "lstm_cell")
    h, c = np.zeros((2, 128))
    stream, worst = model.stream(), 0.0
    ours, exact = np.empty(n), np.empty(n)
    for t, x in enumerate(features):
        y = stream.step(x.astype(np.float32))
        h, c = oracle.lstm_step(cell, x, h, c)
        worst = max(worst, np.abs(y - h).max())
        ours[t], exact[t] = probability(weights, y), probability(weights, h)
    print(f"max |h - float64| {worst:.3g}, max |p - float64| {np.abs(ours - exact).max():.3g}")
    assert worst <= FAR
    assert np.abs(ours - exact).max() <= FAR

    for p, digits in ((exact, PRINTED_10), (ours, FAR)):
        assert (p > 0.5).sum() == 1464
        assert abs(p.mean() - 0.7868157829) <= digits
        first = [0.450713, 0.87906402, 0.89221042, 0.9976031, 0.99911582]
        assert np.abs(p[:5] - first).max() <= max(digits, PRINTED_8)  # they have 6 to 8 digits


def test_one_frame_from_zero_gives_the_check_value(weights, model, speech):
    x = front_end(weights, speech[None, 16000:16576]).astype(np.float32)
    h, _ = model(x)  # a bare cell: one step
    assert abs(probability(weights, h[0]) - 0.8753980671) <= FAR
    assert np.array_equal(model.stream().step(x[0]), h[0])


def test_without_strict_the_rest_of_the_file_must_be_named():
    with pytest.raises(clstm.ModelFormatError, match=r"conv1\.weight"):
        clstm.load(WEIGHTS, layers=[nn.LSTMCell("lstm_cell")])
    found = clstm.load(WEIGHTS, strict=False)  # it is the only recurrent module
    assert found.layers == [nn.LSTMCell("lstm_cell", input_size=128, hidden_size=128, bias=True)]
