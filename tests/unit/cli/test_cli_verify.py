# SPDX-License-Identifier: MIT
"""`clstm verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from climaker import (
    LIST,
    Cli,
    fails,
    frames,
    lstm,
)

import clstm
from clstm import nn
from clstm.formats.container import read_image, write_image


@pytest.fixture
def known(tmp_path: Path) -> Callable[..., Path]:
    def write(**arrays: Any) -> Path:
        np.savez(tmp_path / "known.npz", **arrays)
        return tmp_path / "known.npz"

    return write


def test_verify_against_arrays(
    run: Cli, file: Path, model: clstm.Model, known: Callable[..., Path]
) -> None:
    x = np.random.default_rng(4).normal(size=(5, 2, 3))
    h0, c0 = np.full((1, 2, 8), 0.5), np.full((1, 2, 8), -0.5)
    done = run("verify", file, "--against", known(x=x, y=model(x)[0]))
    assert (done.status, done.err) == (0, "")
    assert done.out == "ok: 20 outputs agree, largest error 0 (atol 1e-05, rtol 0.0001)\n"
    against = known(x=x, y=model(x, (h0, c0))[0], h0=h0, c0=c0)
    assert run("verify", file, "--against", against).status == 0
    y = model(x)[0].astype("f8")
    y[3, 1, 0] += 0.01
    done = run("verify", file, "--against", known(x=x, y=y))
    assert done.status == 1 and done.err == ""
    assert done.out.startswith("mismatch: 1 of 20 outputs differ, largest error 0.01")
    assert "output [3, 1, 0] is" in done.out
    facts = json.loads(run("verify", file, "--against", known(x=x, y=y), "--json").out)
    assert (facts["ok"], facts["wrong"], facts["index"]) == (False, 1, [3, 1, 0])
    assert facts["error"] == pytest.approx(0.01) and (facts["rtol"], facts["atol"]) == (1e-4, 1e-5)
    assert run("verify", file, "--against", known(x=x, y=y), "--atol", "0.011").status == 0
    assert run("verify", file, "--against", known(x=x, y=y), "--rtol", "1e9").status == 0
    assert run("verify", file, "--against", known(x=x, y=model(x)[0] * 1.0000005), "--rtol", "0",
               "--atol", "0").status == 1  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_verify_of_what_is_not_finite(
    run: Cli, file: Path, model: clstm.Model, known: Callable[..., Path], value: float
) -> None:
    y = model(frames())[0]
    y[2, 1] = value
    done = run("verify", file, "--against", known(x=frames(), y=y), "--json", "--rtol", "1e30")
    assert done.status == 1
    facts = json.loads(done.out)
    assert (facts["error"], facts["index"], facts["expected"]) == (None, [2, 1], None)
    x = frames()
    x[5] = np.nan
    assert run("verify", file, "--against", known(x=x, y=model(x)[0])).status == 0


def test_verify_refuses_arrays_that_do_not_fit(
    run: Cli, file: Path, tokens: Path, known: Callable[..., Path], model: clstm.Model
) -> None:
    x, y = frames(), model(frames())[0]
    h = np.zeros((1, 8), "f4")
    for arrays, word in [
        ({"x": x}, "no y"), ({"y": y}, "no x"), ({"x": x, "y": y, "h_0": h}, "not h_0"),
        ({"x": x, "y": y, "h0": h}, "one is missing"), ({"x": x, "y": y[:3]}, "(20, 2)"),
        ({"x": x[:, :2], "y": y}, "shape"), ({"x": x, "y": y, "h0": h[:, :2], "c0": h}, "h:"),
        ({"x": x[:0], "y": y[:0]}, "no outputs"), ({"x": x, "y": y * 1j}, "dtype"),
    ]:  # fmt: skip
        fails(run("verify", file, "--against", known(**arrays)), word)
    fails(run("verify", tokens, "--against", known(x=x, y=y)), "integers")
    fails(run("verify", file, "--against", file.parent / "nothing.npz"), "nothing.npz")


def certified(path: Path, model: clstm.Model, x: np.ndarray, wrong: float = 0.0) -> Path:
    """A file whose certificate is off by `wrong`; such a one `clstm.load` refuses."""
    result = model(x)
    y = result[0]
    model.save(path, check=(x, y))
    if wrong:
        image = read_image(path.read_bytes(), "", clstm.formats.Budget(2**30))
        assert image.check
        image.check = (image.check[0], image.check[1] + np.float32(wrong))
        path.write_bytes(write_image(image))
    return path


def test_verify_runs_certificates(
    run: Cli, file: Path, foreign: Path, tmp_path: Path, model: clstm.Model
) -> None:
    good = certified(tmp_path / "good.clstm", model, frames())
    assert run("verify", good).out.startswith("ok: 40 outputs agree, largest error 0 ")
    assert run("verify", file, "--against", good).status == 0
    args = ["--against", good, "--layers", LIST, "--kernel", "scalar"]
    assert run("verify", foreign, *args).status == 0
    bad = certified(tmp_path / "bad.clstm", model, frames(), wrong=0.1)
    fails(run("run", bad, stdin=b""), "certificate fails")
    for done in (run("verify", bad), run("verify", good, "--against", bad)):
        assert done.status == 1 and "40 of 40 outputs differ, largest error 0.1" in done.out
    assert "FAILS: 40 of 40" in run("info", bad).out
    assert json.loads(run("info", bad, "--json").out)["certificate"]["holds"] is False
    assert run("verify", bad, "--atol", "0.11").status == 0
    for args in ([file], [good, "--against", file], [good, "--against", foreign]):
        fails(run("verify", *args), "holds no certificate")


def test_verify_runs_certificates_of_every_kind_of_model(
    run: Cli, tokens: Path, file: Path, tmp_path: Path
) -> None:
    r = np.random.default_rng(5)
    x = r.normal(size=(4, 6, 3)).astype("f4")
    many = {
        "plain": clstm.from_state_dict(lstm("", 3, 4)),
        "batch_first": clstm.from_state_dict(lstm("", 3, 4), layers=[nn.LSTM(batch_first=True)]),
        "both": clstm.from_state_dict(lstm("", 3, 4, both=True)),
        "both_first": clstm.from_state_dict(
            lstm("", 3, 4, both=True), layers=[nn.LSTM(batch_first=True)]
        ),
    }
    for name, m in many.items():
        for suffix in (".clstm", ".safetensors"):
            path = tmp_path / f"{name}{suffix}"
            m.save(path, check=(x, m(x)[0]))
            done = run("verify", path)
            assert done.out.startswith("ok: "), (name, done)
    cell = {name.removesuffix("_l0"): a for name, a in lstm("", 3, 4).items()}
    m = clstm.from_state_dict(cell)
    m.save(tmp_path / "cell.clstm", check=(x[0], m(x[0])[0]))
    assert run("verify", tmp_path / "cell.clstm").out.startswith("ok: 24 outputs")
    t = clstm.load(tokens)
    t.save(tmp_path / "tok.clstm", check=([[0, 1], [4, 2]], t([[0, 1], [4, 2]])[0]))
    assert run("verify", tmp_path / "tok.clstm").out.startswith("ok: 16 outputs")
    fails(run("verify", file, "--against", tmp_path / "tok.clstm"), "does not fit the model")
