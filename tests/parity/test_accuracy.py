# SPDX-License-Identifier: MIT
"""Short forms of accuracy.py: many steps in a row, each within the bound; free runs of models that
are shown to be contractive; and the probe that shows it is one."""

import accuracy
import numpy as np
import pytest

import oracle
from bounds import FLUSH
from bounds.tolerances import BESIDE_TORCH, DIFFERENT, FLOAT64_STEEP, FREE_RUN, U


@pytest.mark.parametrize("inputs, hidden, gain, steps", [
    (32, 64, 1, 4000), (32, 64, 4, 4000), (128, 128, 1, 2000), (300, 256, 1, 500),
])  # fmt: skip
def test_every_step_of_a_long_run_keeps_the_random_bound(inputs, hidden, gain, steps):
    found = accuracy.stepwise(inputs, hidden, gain, steps, seed=1)
    print(found)
    assert 0 < found["ratio"] <= 1
    assert FLUSH < found["ours"] <= BESIDE_TORCH * found["theirs"]


def test_a_wrong_step_is_seen(monkeypatch):
    """One weight of 16,384, off by 2^-10 of itself, in the float64 that is compared with."""
    made = accuracy.model_of

    def spoilt(*numbers):
        module, tensors, w, rng = made(*numbers)
        w.w_hh[200, 3] *= 1 + DIFFERENT
        return module, tensors, w, rng

    monkeypatch.setattr(accuracy, "model_of", spoilt)
    assert accuracy.stepwise(32, 64, 1, 300, seed=1)["ratio"] > 1


@pytest.mark.parametrize("gain", FREE_RUN)
def test_free_runs_of_contractive_models_stay_near(gain):
    found = accuracy.free(32, 64, gain, 1000, seed=2)
    print(found)
    assert found["growth"] < 1
    assert found["ours"] <= FREE_RUN[gain]


def test_a_chaotic_model_is_not_taken_for_contractive():
    found = accuracy.free(32, 64, 16, 300, seed=2)
    assert found["growth"] > 1 and found["ours"] > DIFFERENT


def test_the_tangent_is_the_derivative():
    _, _, w, rng = accuracy.model_of(5, 6, 4, 3)
    x, h, c = rng.standard_normal((3, 6))
    x = x[:5]
    z = w.w_ih @ x + w.w_hh @ h + w.b_ih + w.b_hh
    _, new = oracle.lstm_step(w, x, h, c)
    dh, dc = rng.standard_normal((2, 6, 4))
    found = accuracy.tangent(w, z, c, new, dh, dc)
    e = np.ldexp(1.0, -17)
    for k in range(4):
        ahead, behind = (oracle.lstm_step(w, x, h + s * e * dh[:, k], c + s * e * dc[:, k])
                         for s in (1, -1))  # fmt: skip
        for part, a, b in zip(found, ahead, behind, strict=True):
            assert np.abs(part[:, k] - (a - b) / (2 * e)).max() < FLOAT64_STEEP


def test_a_report_says_what_was_missed():
    good = {"ratio": 0.5, "h": 1.0, "ours": 0.3, "theirs": 1.0}
    group = (256, 256, 1, 10, 2)
    assert accuracy.report_stepwise(group, [good, good])[1] == []
    assert accuracy.report_stepwise(group, [good, good | {"ratio": 1.1}])[1] == ["the bound"]
    assert accuracy.report_stepwise(group, [good, good | {"ours": 1.1}])[1] == ["the mean"]
    assert accuracy.report_beside([good] * 99 + [good | {"ours": 1.3}])[1] == []
    assert accuracy.report_beside([good] * 9 + [good | {"ours": 1.3}])[1] == ["99 of 100"]
    run = {"ours": U, "theirs": U, "first": 1.0, "last": 1.0, "growth": 0.5}
    group = (32, 64, 1, 10, 2)
    assert accuracy.report_free(group, [run, run | {"growth": 2.0, "ours": 1.0}])[1] == []
    far = {"ours": 1.0, "theirs": 1.0}
    assert accuracy.report_free(group, [run, run | far])[1] == ["max|dh|"]
    assert accuracy.report_free(group, [run, run | {"ours": 2 * U}])[1] == ["the mean"]
    assert accuracy.report_free(group, [run, run | {"last": 2.1}])[1] == ["the drift"]
    assert accuracy.report_free(group, [run | {"growth": 1.0}])[1] == ["no such model"]


def test_the_long_form_is_two_hundred_models():
    assert sum(models for *_, models in accuracy.STEPWISE) == 200
    for _, hidden, _, steps, _ in accuracy.STEPWISE:
        assert steps == (100_000 if hidden <= 128 else 10_000 if hidden == 256 else 1_000)
    assert all(steps == 10_000 for *_, steps, _ in accuracy.FREE)
    parts = accuracy.parts_of([(1, 2, 3, 4, 2)], "step")
    assert parts == {(1, 2, 3, 4, 2): ["step 1 2 3 4 0", "step 1 2 3 4 1"]}
