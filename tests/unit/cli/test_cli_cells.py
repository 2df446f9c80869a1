# SPDX-License-Identifier: MIT
"""Every command over GRUs, RNNs, options and several outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from climaker import Cli, as_csv, fails, from_csv

import clstm
from clstm import nn
from samples import floats, recurrent_tensors, rng_of

X = floats(rng_of(2), 6, 3)
NET = "[nn.GRU('g', activations=['HardSigmoid', 'Tanh']), nn.Slice(0, 2), nn.Output((1, 2))]"


@pytest.fixture
def gru(tmp_path: Path) -> Path:
    path = tmp_path / "gru.npz"
    np.savez(path, **recurrent_tensors(rng_of(1), nn.GRU("g"), 3, 4))
    return path


def test_a_model_of_several_outputs_through_every_command(run: Cli, gru: Path) -> None:
    target = gru.parent / "m.clstm"
    done = run("convert", gru, "-o", target, "--layers", NET)
    assert done.status == 0 and "GRU(3->4 activations) + Slice + Output" in done.out
    model = clstm.load(target)
    y = np.concatenate(model(X)[0], axis=-1)
    got = from_csv(run("run", target, stdin=as_csv(X)).out)
    np.testing.assert_array_equal(got, y)
    assert "2 outputs of 4, 2 features" in run("info", target).out
    facts = json.loads(run("info", target, "--json").out)
    assert facts["output_size"] == [4, 2] and facts["parameters"] == 3 * 4 * (3 + 4 + 2)
    np.savez(gru.parent / "known.npz", x=X, y=y, h0=np.zeros((1, 4), "f4"))
    assert run("verify", target, "--against", gru.parent / "known.npz").status == 0
    every = tuple(np.stack(rows) for rows in zip(*map(model.stream().step, X), strict=True))
    model.save(target, check=(X, every))
    assert run("verify", target).status == 0


def test_verify_takes_the_states_that_the_kind_has(run: Cli, gru: Path) -> None:
    y, h = clstm.load(gru)(X, np.ones((1, 4), "f4"))
    known = gru.parent / "known.npz"
    np.savez(known, x=X, y=y, h0=np.ones((1, 4), "f4"))
    assert run("verify", gru, "--against", known).status == 0
    np.savez(known, x=X, y=y + 1, h0=np.ones((1, 4), "f4"))
    assert run("verify", gru, "--against", known).status == 1
    np.savez(known, x=X, y=y, h0=h, c0=h)
    fails(run("verify", gru, "--against", known), "c0", "GRU")


def test_a_bare_cell_is_verified_by_its_h(run: Cli, tmp_path: Path) -> None:
    path, known = tmp_path / "cell.npz", tmp_path / "known.npz"
    np.savez(path, **recurrent_tensors(rng_of(1), nn.RNNCell(), 3, 4))
    np.savez(known, x=X, y=clstm.load(path)(X))
    assert run("verify", path, "--against", known).status == 0


def test_outputs_of_two_ranks_are_verified_one_by_one(run: Cli, gru: Path) -> None:
    known = gru.parent / "known.npz"
    layers = "[nn.GRU('g'), nn.Slice(0, 2), nn.Output((1, 2), (False, True))]"
    model = clstm.load(gru, layers=[nn.GRU("g"), nn.Slice(0, 2), nn.Output((1, 2), (False, True))])
    y0, y1 = model(X)[0]
    args = [gru, "--layers", layers, "--against", known]
    np.savez(known, x=X, y0=y0, y1=y1)
    done = run("verify", *args)
    assert done.status == 0 and f"{y0.size + y1.size} outputs agree" in done.out
    y1[1] += 1
    np.savez(known, x=X, y0=y0, y1=y1)
    done = run("verify", *args)
    assert done.status == 1 and f"1 of {y0.size + y1.size} outputs" in done.out
    assert "output [1, 1] is" in done.out
    np.savez(known, x=X, y=y0)
    fails(run("verify", *args), "y0, y1 in place of y", "it has no y0")


def test_info_says_which_option_a_tensor_asks_for(run: Cli, tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, **recurrent_tensors(rng_of(1), nn.LSTM("m", peephole="diagonal"), 3, 4))
    out = run("info", path).out
    assert 'nn.LSTM("m", peephole="diagonal")' in out
    assert run("info", path, "--layers", "nn.LSTM('m', peephole='diagonal')").status == 0
