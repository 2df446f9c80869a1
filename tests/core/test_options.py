# SPDX-License-Identifier: MIT
"""options before the environment, errors, configuration."""

import numpy as np
import pytest

import clstm
from clstm import ModelFormatError, UnsupportedError
from samples import ZOO, made

LSTM = ZOO["lstm"][1]
LACKING = next(k for k in ("neon", "avx512") if k not in clstm.available_kernels())


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("CLSTM_KERNEL", "CLSTM_GEMM", "CLSTM_BLAS"):
        monkeypatch.delenv(name, raising=False)


UNKNOWN = {
    "kernel": ["sse9", "AVX2", "none"],
    "gemm": ["fast", "Blas"],
    "precision": ["float12", "fp32", "double"],
    "threads": [0, -1, 1.5, "2", True, None],
}


@pytest.mark.parametrize("name, value", [(k, v) for k, values in UNKNOWN.items() for v in values])
def test_an_unknown_option_is_a_value_error(name, value):
    options = {name: value}
    with pytest.raises(ValueError) as caught:
        made("lstm", **options)
    assert not isinstance(caught.value, clstm.ClstmError)


@pytest.mark.parametrize("options", [
    {"kernel": LACKING}, {"precision": "bfloat16"}, {"precision": "int8"},
])  # fmt: skip
def test_a_known_option_that_is_lacking_is_unsupported(options):
    ((_, value),) = options.items()
    with pytest.raises(UnsupportedError, match=str(value)):
        made("lstm", **options)


def test_defaults_may_be_given_as_options():
    made("lstm", precision="float32", threads=1, gemm="auto", kernel=None)
    made("lstm", gemm="packed", kernel="scalar", max_bytes=2**20)
    with pytest.raises(TypeError):
        made("lstm", fast=True)


@pytest.mark.parametrize("kernel", clstm.available_kernels())
def test_the_environment_chooses_the_kernel_and_an_option_before_it(monkeypatch, kernel):
    monkeypatch.setenv("CLSTM_KERNEL", kernel)
    assert made("lstm").kernel == kernel
    for other in clstm.available_kernels():
        assert made("lstm", kernel=other).kernel == other
    monkeypatch.setenv("CLSTM_KERNEL", "")
    assert made("lstm").kernel == clstm.available_kernels()[0]


def test_a_wrong_option_in_the_environment_is_no_silent_fallback(monkeypatch):
    monkeypatch.setenv("CLSTM_KERNEL", "sse9")
    with pytest.raises(ValueError, match="sse9"):
        made("lstm")
    assert made("lstm", kernel="scalar").kernel == "scalar"
    monkeypatch.setenv("CLSTM_KERNEL", LACKING)
    with pytest.raises(UnsupportedError, match=LACKING):
        made("lstm")
    monkeypatch.delenv("CLSTM_KERNEL")
    monkeypatch.setenv("CLSTM_GEMM", "fast")
    with pytest.raises(ValueError, match="fast"):
        made("lstm")
    assert made("lstm", gemm="packed").gemm == "packed"


def test_gemm_option_before_the_environment(monkeypatch):
    monkeypatch.setenv("CLSTM_GEMM", "blas")
    monkeypatch.setenv("CLSTM_BLAS", "/nowhere/libblas.so")
    with pytest.raises(UnsupportedError, match=r"/nowhere/libblas\.so"):
        made("lstm")
    for word in ("auto", "packed"):
        assert made("lstm", gemm=word).gemm == "packed"


def test_a_blas_option_that_is_not_found_lists_the_places_tried(monkeypatch):
    monkeypatch.setenv("CLSTM_BLAS", "/nowhere/libblas.so")
    with pytest.raises(UnsupportedError, match=r"/nowhere/libblas\.so"):
        made("lstm", gemm="blas")


def test_available_kernels_are_named_best_first():
    kernels = clstm.available_kernels()
    assert isinstance(kernels, tuple) and kernels[-1] == "scalar"
    order = ["avx512", "avx2", "neon", "scalar"]
    assert [k for k in order if k in kernels] == list(kernels)


def test_show_config_prints_or_returns(capsys):
    config = clstm.show_config("dict")
    assert config["version"] == clstm.__version__ and isinstance(config["numeric_policy"], int)
    assert config["kernels"] == list(clstm.available_kernels())
    assert clstm.show_config() is None
    assert f"numeric_policy: {config['numeric_policy']}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="mode"):
        clstm.show_config("json")


def test_max_bytes_limits_the_tensors(tmp_path):
    np.savez(tmp_path / "m.npz", **LSTM)
    total = sum(v.nbytes for v in LSTM.values())
    clstm.load(tmp_path / "m.npz", max_bytes=total)
    with pytest.raises(ModelFormatError, match="max_bytes"):
        clstm.load(tmp_path / "m.npz", max_bytes=total - 1)
    assert sum(v.nbytes for v in clstm.read_weights(tmp_path / "m.npz", max_bytes=total).values())


def test_the_errors_are_what_api_md_says():
    bases = {
        "ModelFormatError": ValueError,
        "ShapeError": ValueError,
        "DTypeError": TypeError,
        "TokenError": IndexError,
        "SnapshotError": ValueError,
        "UnsupportedError": NotImplementedError,
        "StreamBusyError": RuntimeError,
        "ClosedError": ValueError,
    }
    for name, base in bases.items():
        assert getattr(clstm, name).__mro__[1:3] == (clstm.ClstmError, base)
