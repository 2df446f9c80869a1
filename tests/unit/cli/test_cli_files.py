# SPDX-License-Identifier: MIT
"""`clstm info` and `clstm convert`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from climaker import (
    LIST,
    Cli,
    fails,
    frames,
    lstm,
    state_dict,
)

import clstm

# ---- info ---------------------------------------------------------------------------------


def test_info_of_a_model(run: Cli, file: Path, model: clstm.Model) -> None:
    facts = json.loads(run("info", file, "--json").out)
    assert facts["kind"] == "clstm" and facts["fingerprint"] == model.fingerprint
    assert (facts["input_size"], facts["output_size"]) == (3, 2)
    assert facts["parameters"] == sum(a.size for a in state_dict().values())
    assert (facts["kernel"], facts["gemm"]) == (model.kernel, model.gemm)
    assert facts["packed_bytes"] == model.nbytes and facts["certificate"] is None
    assert [layer["type"] for layer in facts["layers"]] == ["LSTM", "Linear"]
    assert facts["layers"][0]["sizes"]["hidden_size"] == 8
    assert {t["name"]: t["shape"] for t in facts["tensors"]} == {
        name: list(a.shape) for name, a in state_dict().items()
    }
    text = run("info", file)
    assert (text.status, text.err) == (0, "")
    for word in [
        model.fingerprint, "LSTM('lstm')", "hidden_size=8", "certificate  none", "3 features",
        model.kernel, f"{model.nbytes:,} bytes", "lstm.weight_ih_l0",
    ]:  # fmt: skip
        assert word in text.out


def test_info_of_one_recurrent_module_and_of_tokens(run: Cli, tmp_path: Path, tokens: Path) -> None:
    np.savez(tmp_path / "one.npz", **lstm("", 3, 8, both=True))
    facts = json.loads(run("info", tmp_path / "one.npz", "--json").out)
    assert facts["layers"][0]["sizes"]["bidirectional"] is True
    assert "bidirectional=True" in run("info", tmp_path / "one.npz").out
    assert "tokens 0 ... 4" in run("info", tokens).out


def test_info_of_a_foreign_file_says_what_to_write(run: Cli, foreign: Path) -> None:
    done = run("info", foreign)
    assert (done.status, done.err) == (0, "")
    assert 'layers=[nn.LSTM("lstm"), nn.Linear("fc")]\n' in done.out
    facts = json.loads(run("info", foreign, "--json").out)
    assert facts["layers"] is None and facts["suggested_strict"] and facts["left_out"] == []
    # what it says to write works as it stands
    words = done.out.splitlines()[-1].split("--layers ")[1].strip("'")
    assert json.loads(run("info", foreign, "--layers", words, "--json").out)["output_size"] == 2


def test_info_of_files_that_are_no_model(run: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "conv.npz", **{"c.weight": np.zeros((2, 3, 3), "f4")})
    assert "no tensor looks like a layer" in run("info", tmp_path / "conv.npz").out
    np.savez(tmp_path / "part.npz", **lstm("a.", 3, 4), **{"\x1b[31m": np.zeros(2, "f4")})
    done = run("info", tmp_path / "part.npz")
    assert "leaving out \\x1b[31m" in done.out and "strict=False" in done.out
    assert "\x1b" not in done.out and "--no-strict" in done.out
    assert "input " in run("info", tmp_path / "part.npz", "--no-strict").out
    gru = {"weight_ih_l0": np.zeros((12, 3), "f4"), "weight_hh_l0": np.zeros((12, 4), "f4")}
    np.savez(tmp_path / "gru.npz", **gru)
    assert "GRU() " in run("info", tmp_path / "gru.npz").out


def test_info_warns_of_weights_that_are_not_finite(run: Cli, tmp_path: Path) -> None:
    weights = lstm("", 3, 4)
    weights["weight_hh_l0"][1, :2] = np.nan, np.inf
    np.savez(tmp_path / "w.npz", **weights)
    done = run("info", tmp_path / "w.npz")
    warning = "clstm: warning: weight_hh_l0 holds 2 numbers that are not finite\n"
    assert (done.status, done.err) == (0, warning)
    converted = run("convert", tmp_path / "w.npz", "-o", tmp_path / "w.clstm")
    assert (converted.status, converted.err) == (0, warning)


# ---- convert ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".clstm", ".safetensors"])
def test_convert(run: Cli, foreign: Path, tmp_path: Path, model: clstm.Model, suffix: str) -> None:
    out = tmp_path / f"new{suffix}"
    done = run("convert", foreign, "-o", out, "--layers", LIST)
    assert (done.status, done.err) == (0, "")
    assert f"wrote {out}: {out.stat().st_size:,} bytes" in done.out
    assert model.fingerprint in done.out
    assert clstm.load(out).fingerprint == model.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([out.name, foreign.name])


def test_convert_refuses(run: Cli, foreign: Path, file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    fails(run("convert", file, "-o", file), "overwrite the input")
    os.symlink(file, tmp_path / "link.clstm")
    fails(run("convert", file, "-o", tmp_path / "link.clstm"), "overwrite the input")
    assert file.read_bytes() == before
    fails(run("convert", file, "-o", tmp_path / "m.onnx"), ".clstm or .safetensors")
    fails(run("convert", file, "-o", tmp_path / "no" / "m.clstm"), "No such file or directory")
    fails(run("convert", foreign, "-o", tmp_path / "n.clstm"), 'layers=[nn.LSTM("lstm")')
    fails(
        run("convert", foreign, "-o", tmp_path / "n.clstm", "--layers", "[nn.LSTM('lstm')]"), "fc."
    )
    assert not (tmp_path / "n.clstm").exists()
    part = ["--layers", "[nn.LSTM('lstm')]", "--no-strict"]
    assert run("convert", foreign, "-o", tmp_path / "n.clstm", *part).status == 0


def test_convert_keeps_the_certificate_and_takes_a_key(
    run: Cli, tmp_path: Path, model: clstm.Model
) -> None:
    torch = pytest.importorskip("torch")
    weights = {name: torch.from_numpy(a) for name, a in state_dict().items()}
    torch.save({"net": weights, "ema": weights}, tmp_path / "two.pt")
    out = tmp_path / "m.clstm"
    fails(run("convert", tmp_path / "two.pt", "-o", out, "--layers", LIST), "ema", "net")
    assert (
        run("convert", tmp_path / "two.pt", "-o", out, "--layers", LIST, "--key", "ema").status == 0
    )
    model.save(tmp_path / "c.clstm", check=(frames(), model(frames())[0]))
    assert run("convert", tmp_path / "c.clstm", "-o", tmp_path / "c.safetensors").status == 0
    assert "20 steps x 1; 40 outputs agree" in run("info", tmp_path / "c.safetensors").out
