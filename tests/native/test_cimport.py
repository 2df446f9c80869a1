# SPDX-License-Identifier: MIT
"""clstm/__init__.pxd: other Cython code steps a stream without Python, under the rules of
docs/embedding.md."""

import importlib.util
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import build
import clstm
from build import ROOT, need
from clstm import nn

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup
import clstm
probe = Extension("probe", ["probe.pyx"], include_dirs=[clstm.get_include()])
setup(name="probe", ext_modules=cythonize([probe], include_path=[{root!r}]), py_modules=[])
"""  # an editable installation is not where Cython looks for .pxd files


def built(folder, root=ROOT):
    folder.mkdir(exist_ok=True)
    (folder / "setup.py").write_text(SETUP.format(root=str(root)))
    (folder / "probe.pyx").write_bytes((ROOT / "tests/cython/probe.pyx").read_bytes())
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"]
    build.succeed(command, cwd=folder, env={**os.environ, "CFLAGS": "-O0 -g0"})
    return next(folder.glob("probe.*.so"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    need(build.found("cc"), "cc")
    pytest.importorskip("Cython", reason="not run: no Cython")
    return built(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def probe(path):
    spec = importlib.util.spec_from_file_location("probe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(6)
    tensors = {"weight_ih_l0": rng.normal(size=(36, 5)), "weight_hh_l0": rng.normal(size=(36, 9))}
    return clstm.from_state_dict(tensors)


@pytest.mark.parametrize("whole", [False, True])
def test_steps_are_those_of_python(probe, model, whole):
    x = np.random.default_rng(1).normal(size=(30, 5)).astype("f")
    ours, theirs = model.stream(), model.stream()
    y = np.full((30, 9), np.nan, "f")
    probe.frames(theirs, x, y, whole)
    assert y.tobytes() == ours.run(x).tobytes()
    assert theirs.steps == 30 and theirs.snapshot() == ours.snapshot()
    probe.reset(theirs)
    assert theirs.steps == 0 and theirs.snapshot() == model.stream().snapshot()
    assert probe.sizes(model) == (5, 9) and probe.has_handle(theirs)


@pytest.mark.parametrize("whole", [False, True])
def test_tokens(probe, whole):
    rng = np.random.default_rng(2)
    tensors = {"e.weight": rng.normal(size=(7, 3)), "l.weight_ih_l0": rng.normal(size=(16, 3))}
    tensors["l.weight_hh_l0"] = rng.normal(size=(16, 4))
    model = clstm.from_state_dict(tensors, layers=[nn.Embedding("e"), nn.LSTM("l")])
    x, y = np.array([0, 6, 3, 3]), np.full((4, 4), np.nan, "f")
    stream = model.stream()
    probe.tokens(stream, x, y, whole)
    assert y.tobytes() == model.stream().run(x).tobytes() and stream.steps == 4
    assert probe.sizes(model) == (0, 4)


def test_python_is_refused_while_the_stream_is_held(probe, model):
    stream, x = model.stream(), np.zeros(5, "f")
    probe.hold(stream)
    for call in (
        lambda: stream.step(x), lambda: stream.run(x[None]), stream.reset, stream.copy,
        stream.snapshot, lambda: stream.state, lambda: probe.hold(stream),
    ):  # fmt: skip
        with pytest.raises(clstm.StreamBusyError):
            call()
    with ThreadPoolExecutor(1) as other, pytest.raises(clstm.StreamBusyError):
        other.submit(stream.reset).result()
    assert stream.steps == 0
    probe.let_go(stream)
    assert stream.step(x).shape == (9,)
    for wrong in (None, model, 1):
        with pytest.raises(TypeError):
            probe.hold(wrong)


CHANGES = {
    "a result": (r"cdef void step\(", "cdef int step("),
    "a field of Stream": (r"    cdef int busy .*\n", "    cdef int busy, more[8]\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_extension_built_against_another_clstm_is_refused(change, path, tmp_path):
    """At import, by Python."""
    (tmp_path / "clstm").mkdir()
    for pxd in (ROOT / "clstm").glob("*.pxd"):
        text = pxd.read_text()
        if pxd.name == "_core.pxd":
            changed = re.sub(*CHANGES[change], text)
            assert changed != text
            text = changed
        (tmp_path / "clstm" / pxd.name).write_text(text)
    other = built(tmp_path / "other", tmp_path)
    for folder, status in ((path.parent, 0), (other.parent, 1)):
        done = build.run([sys.executable, "-c", "import probe"], cwd=folder)
        assert done.returncode == status, done.stderr
    assert re.search(r"(TypeError|ValueError): .*(signature|size changed)", done.stderr)


def test_the_example_is_the_loop_in_python():
    """closed_loop, built by its own setup.py in the test of the page; here its figures there."""
    page = (ROOT / "docs/embedding.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(import numpy.*?)^model\.save", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(code[1], names)
    stream, y, out = names["model"].stream(), np.float32([0.1]), []
    for _ in range(3):
        y = stream.step(y)
        out.append(*y)
    assert re.search(r"print\(\*out\.ravel\(\)\)  # (.*)", page)[1] == " ".join(map(str, out))
