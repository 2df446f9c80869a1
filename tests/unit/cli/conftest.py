# SPDX-License-Identifier: MIT
"""The command in this process, and the files that it works on."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from climaker import (
    LAYERS,
    Cli,
    lstm,
    state_dict,
)
from safetensors.numpy import save_file

import clstm
from clstm import nn
from clstm.cli.__main__ import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """main(), with text as standard input; .status, .out, .err."""

    def call(*args: object, stdin: bytes | None = None) -> SimpleNamespace:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = main([str(a) for a in args])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


@pytest.fixture
def model() -> clstm.Model:
    return clstm.from_state_dict(state_dict(), layers=LAYERS)


@pytest.fixture
def file(tmp_path: Path, model: clstm.Model) -> Path:
    model.save(tmp_path / "m.clstm")
    return tmp_path / "m.clstm"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    save_file(state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    r = np.random.default_rng(3)
    weights = {"emb.weight": r.normal(size=(5, 3)).astype("f4")} | lstm("lstm.", 3, 4)
    m = clstm.from_state_dict(weights, layers=[nn.Embedding("emb"), nn.LSTM("lstm")])
    m.save(tmp_path / "t.clstm")
    return tmp_path / "t.clstm"
