# SPDX-License-Identifier: MIT
"""clstm.hpp: every standard, both compilers, with and without exceptions, no warning."""

import itertools
import shlex
from functools import cache

import numpy as np
import pytest

import build
import clstm
from build import ROOT, found, need
from clstm import _embed, nn

FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", f"-I{ROOT}/csrc/include"]
LIBS = shlex.split(_embed.flags(cflags=False, libs=True))
SOURCE = ROOT / "tests/cpp/wrapper.cpp"


@cache
def clangxx():
    return found("clang++", *(f"clang++-{n}" for n in range(30, 10, -1)))


@cache
def gxx():
    return found("g++")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A plain one, one against time, one of tokens."""
    folder, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(2)

    def of(*shape):
        return rng.uniform(-0.4, 0.4, shape).astype(np.float32)

    w = {"l.weight_ih_l0": of(80, 3), "l.weight_hh_l0": of(80, 20)}
    reverse = {f"{name}_reverse": value for name, value in w.items()}
    paths = [folder / name for name in ("plain.clstm", "reverse.clstm", "tokens.clstm")]
    for path, more, layers in zip(
        paths,
        ({"fc.weight": of(2, 20)}, reverse, {"e.weight": of(5, 3)}),
        ([nn.LSTM("l"), nn.Linear("fc")], [nn.LSTM("l")], [nn.Embedding("e"), nn.LSTM("l")]),
        strict=True,
    ):
        clstm.from_state_dict(w | more, layers=layers).save(path)
    return paths


MODES = [("-std=c++17",), ("-std=c++20",), ("-std=c++17", "-fno-exceptions", "-fno-rtti")]


@pytest.mark.parametrize(
    ("compiler", "mode"), list(itertools.product([gxx, clangxx], MODES)),
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else v.__name__,
)  # fmt: skip
def test_the_wrapper(compiler, mode, models, tmp_path):
    cxx = need(compiler(), compiler.__name__)
    program = tmp_path / "wrapper"
    build.succeed([cxx, *mode, "-O1", *FLAGS, SOURCE, *LIBS, "-o", program])
    assert build.succeed([program, *models]) == "ok\n"


WRONG = {
    "a copy": "clstm::Stream copy(const clstm::Stream &s) { return s; }",
    "doubles": "void f(clstm::Stream &s, double *x, float *y) { s.step({x, 1}, {y, 1}); }",
    "a constant as output": "void f(clstm::Stream &s, const float *x) { s.step({x, 1}, {x, 1}); }",
    "a model from a word alone": 'void f(clstm::Model &m) { m = "a path"; }',
}


def test_mistakes_do_not_compile(tmp_path):
    """With the view of our own; C++20 has the standard's."""
    cxx = need(gxx() or clangxx(), "C++ compiler")
    for name, code in {"": "void f(clstm::Stream &s) { s.reset(); }", **WRONG}.items():
        source = tmp_path / "wrong.cpp"
        source.write_text(f'#include "clstm.hpp"\n{code}\n')
        done = build.run([cxx, "-std=c++17", f"-I{ROOT}/csrc/include", "-fsyntax-only", source])
        assert (done.returncode != 0) == bool(name), name or done.stderr


def test_a_view_of_another_size_is_caught_by_assert(models, tmp_path):
    cxx = need(gxx() or clangxx(), "C++ compiler")
    source = tmp_path / "wrong.cpp"
    source.write_text(
        '#include "clstm.hpp"\nint main(int, char **argv) {\n'
        "  clstm::Model model(argv[1]); clstm::Stream stream(model); float x[4] = {}, y[2];\n"
        "  stream.step({x, 3}, y); stream.step({x, 4}, y); }\n"
    )
    build.succeed([cxx, "-std=c++17", *FLAGS, source, *LIBS, "-o", tmp_path / "wrong"])
    done = build.run([tmp_path / "wrong", models[0]])
    assert done.returncode < 0 and "x.size() == clstm_input_size" in done.stderr
