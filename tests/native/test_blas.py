# SPDX-License-Identifier: MIT
"""gemm="blas": the gate products of sequences and batches by a CBLAS.

Its bound: a BLAS may sum in any order, so a pre-activation errs by at most (I + H + 3) u S in the
place of (66 + ceil(I/64) + ceil(H/64)) u S, and in random tests by at most 16 u S like our own.
The comparison here is with the latter, step by step, teacher-forced, by tests/bounds/.
"""

import ctypes
import os
import sys

import numpy as np
import pytest

import bounds
import build
import clstm
from bounds.tolerances import FAR
from build import TESTS_C
from clstm import loading

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="not run: libraries are opened by dlopen"
)

SIZES = [
    (1, 1, 2, 1),
    (9, 17, 5, 3),
    (64, 64, 3, 4),
    (130, 129, 2, 2),
    (3, 40, 12, 1),
    (200, 30, 4, 6),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blas")

    def of(*flags):
        path = folder / f"shim{''.join(flags)}.so"
        if not path.exists():
            source = TESTS_C / "blas_shim.c"
            build.succeed(["cc", "-O2", "-shared", "-fPIC", *flags, source, "-o", path])
        return path

    return of


def calls(path):
    return ctypes.c_long.in_dll(ctypes.CDLL(str(path)), "blas_shim_calls").value


def weights(n_in, hidden, rng):
    limit = hidden**-0.5
    shapes = {"weight_ih_l0": (4 * hidden, n_in), "weight_hh_l0": (4 * hidden, hidden)}
    shapes |= {"bias_ih_l0": (4 * hidden,), "bias_hh_l0": (4 * hidden,)}
    return {k: rng.uniform(-limit, limit, s).astype(np.float32) for k, s in shapes.items()}


CELLS = sorted((build.ROOT / "tests/golden").glob("v1b_*.clstm"))


def worst_ratio(seed=0):
    """Largest error of gemm="blas" in units of the bound, over SIZES."""
    rng, worst = np.random.default_rng(seed), 0.0
    for n_in, hidden, steps, batch in SIZES:
        tensors = weights(n_in, hidden, rng)
        x = rng.standard_normal((steps, batch, n_in)).astype(np.float32)
        zeros = np.zeros((1, batch, hidden), np.float32)
        model = clstm.from_state_dict(tensors, gemm="blas")
        assert model.gemm == "blas"
        y, final = model(x)
        worst = max(worst, bounds.lstm_check(tensors, "", x, [y], (zeros, zeros), final, "random"))
    return worst


@pytest.mark.parametrize("flags", [(), ("-DILP64",)], ids=["LP64", "ILP64"])
def test_every_sequence_and_batch_goes_through_the_blas(flags, shim, monkeypatch):
    path = shim(*flags)
    monkeypatch.setenv("CLSTM_BLAS", str(path))
    rng = np.random.default_rng(1)
    for n_in, hidden, steps, batch in SIZES:
        model = clstm.from_state_dict(weights(n_in, hidden, rng), gemm="blas")
        before = calls(path)
        model(np.ones((steps, 1, n_in), np.float32))
        one = calls(path)
        model(np.ones((1, batch + 1, n_in), np.float32))
        assert before < one < calls(path)
    assert worst_ratio() <= 1


@pytest.mark.parametrize("path", CELLS, ids=lambda path: path.stem)
def test_every_cell_by_the_blas(path, shim, monkeypatch):
    """Options that the BLAS does not serve keep to the packed products, silently."""
    monkeypatch.setenv("CLSTM_BLAS", str(shim()))
    x = np.load(path.parent / "v1b.npz")[f"{path.stem[4:]}.x"]
    ours, blas = (clstm.load(path, gemm=gemm)(x)[0] for gemm in ("packed", "blas"))
    ours, blas = (y if isinstance(y, tuple) else (y,) for y in (ours, blas))
    for one, other in zip(ours, blas, strict=True):
        np.testing.assert_allclose(other, one, rtol=FAR, atol=FAR)


def test_wrong_sums_are_seen(shim, monkeypatch):
    monkeypatch.setenv("CLSTM_BLAS", str(shim("-DWRONG")))
    assert worst_ratio() > 100


def test_a_step_is_ours(shim, monkeypatch):
    monkeypatch.setenv("CLSTM_BLAS", str(shim()))
    tensors = weights(20, 30, np.random.default_rng(2))
    x = np.random.default_rng(3).standard_normal((10, 20)).astype(np.float32)
    results = []
    for gemm in ("packed", "blas"):
        s = clstm.from_state_dict(tensors, gemm=gemm).stream()
        results.append(np.stack([s.step(row) for row in x]))
    assert results[0].tobytes() == results[1].tobytes()


NUMPY = loading.numpy_blas()
numpy_has_one = pytest.mark.skipif(not NUMPY, reason="not run: this NumPy brings no OpenBLAS")


@numpy_has_one
def test_blas_of_numpy_agrees(monkeypatch):
    monkeypatch.delenv("CLSTM_BLAS", raising=False)
    assert worst_ratio(5) <= 1
    model = clstm.from_state_dict(weights(3, 4, np.random.default_rng(0)), gemm="blas")
    assert model.blas_path in NUMPY


COUNT_THREADS = """
import ctypes, sys, numpy as np, clstm
from clstm import loading
np.ones((300, 300)) @ np.ones((300, 300))
library = ctypes.CDLL(loading.numpy_blas()[0])
names = ["scipy_openblas_%s_num_threads64_", "openblas_%s_num_threads64_",
         "scipy_openblas_%s_num_threads", "openblas_%s_num_threads"]
name = next(n for n in names if hasattr(library, n % "get"))
get, set_ = getattr(library, name % "get"), getattr(library, name % "set")
for n in (2, 3):
    set_(n)
    w = {"weight_ih_l0": np.ones((32, 5), np.float32), "weight_hh_l0": np.ones((32, 8), np.float32)}
    m = clstm.from_state_dict(w, gemm="blas")
    assert m.blas_path == loading.numpy_blas()[0]
    m(np.ones((40, 30, 5), np.float32))
    assert get() == n, (get(), n)
print("unchanged")
"""


@numpy_has_one
def test_threads_of_numpys_blas_stay(monkeypatch):
    monkeypatch.delenv("CLSTM_BLAS", raising=False)
    assert build.succeed([sys.executable, "-c", COUNT_THREADS]) == "unchanged\n"


def test_a_missing_path_is_named(monkeypatch):
    monkeypatch.setenv("CLSTM_BLAS", "/nowhere/libnothing.so")
    with pytest.raises(clstm.UnsupportedError, match=r"/nowhere/libnothing\.so"):
        clstm.from_state_dict(weights(3, 4, np.random.default_rng(0)), gemm="blas")


def test_a_library_without_cblas_is_refused(shim, monkeypatch, tmp_path):
    path = tmp_path / "empty.so"
    (tmp_path / "empty.c").write_text("int nothing;\n")
    build.succeed(["cc", "-shared", "-fPIC", tmp_path / "empty.c", "-o", path])
    monkeypatch.setenv("CLSTM_BLAS", str(path))
    with pytest.raises(clstm.UnsupportedError, match=r"empty\.so"):
        clstm.from_state_dict(weights(3, 4, np.random.default_rng(0)), gemm="blas")


def test_all_places_are_listed(monkeypatch):
    monkeypatch.delenv("CLSTM_BLAS", raising=False)
    monkeypatch.setattr(loading, "numpy_blas", lambda: ["/nowhere/a.so", "/nowhere/b.so"])
    try:
        clstm.from_state_dict(weights(3, 4, np.random.default_rng(0)), gemm="blas")
    except clstm.UnsupportedError as error:
        for place in ("/nowhere/a.so", "/nowhere/b.so", "openblas"):
            assert place in str(error)
    else:
        pytest.skip("not run: this system has a BLAS of its own")


NOTHING_OPENED = """
import sys, numpy as np, clstm
w = {"weight_ih_l0": np.ones((32, 5), np.float32), "weight_hh_l0": np.ones((32, 8), np.float32)}
for gemm in (None, "auto", "packed"):
    m = clstm.from_state_dict(w, gemm=gemm)
    m(np.ones((40, 30, 5), np.float32))
    assert m.gemm == "packed" and m.blas_path is None
assert "shim" not in open("/proc/self/maps").read()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="not run: no /proc/self/maps")
def test_nothing_is_opened_unasked(shim):
    env = {**os.environ, "CLSTM_BLAS": str(shim()), "CLSTM_GEMM": ""}
    build.succeed([sys.executable, "-c", NOTHING_OPENED], env=env)
