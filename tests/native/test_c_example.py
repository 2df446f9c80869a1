# SPDX-License-Identifier: MIT
"""The C side as a stranger meets it: the example, the line that builds it, the header alone."""

import itertools
import re
import shutil

import numpy as np
import pytest

import build
import clstm
from build import ROOT, clang, found, gcc, need
from clstm import nn

EXAMPLE = ROOT / "examples/c/stream.c"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rng = np.random.default_rng(4)

    def of(*shape):
        return rng.uniform(-0.4, 0.4, shape).astype(np.float32)

    weights = {"l.weight_ih_l0": of(80, 3), "l.weight_hh_l0": of(80, 20), "l.bias_ih_l0": of(80)}
    weights |= {"l.bias_hh_l0": of(80), "fc.weight": of(2, 20), "fc.bias": of(2)}
    model = clstm.from_state_dict(weights, layers=[nn.LSTM("l"), nn.Linear("fc")])
    path = tmp_path_factory.mktemp("example") / "model.clstm"
    model.save(path)
    return model, path


def check(program, model):
    """Both ways to load, the same bits as in Python; %.9g is exact for float32."""
    model, path = model
    frames = np.random.default_rng(5).standard_normal((50, 3)).astype(np.float32)
    text = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in frames.tolist())
    expected = model.stream().run(frames)
    for arguments in ([path], ["-", path]):
        out = build.succeed([program, *arguments], input=text)
        got = np.array([line.split() for line in out.splitlines()], np.float32)
        assert got.tobytes() == expected.tobytes()


def test_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_the_line_of_the_docs_builds_it_word_for_word(model, tmp_path):
    """By the shell, its stars and all, in a copy with nothing but csrc/ and app.c."""
    line = "cc -O2 -Icsrc/include csrc/src/*.c csrc/src/kernels/*.c app.c -lm"
    assert line.replace("app.c", "examples/c/stream.c") in EXAMPLE.read_text()
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    shutil.copy(EXAMPLE, tmp_path / "app.c")
    build.succeed(["sh", "-c", line], cwd=tmp_path)
    check(tmp_path / "a.out", model)


@pytest.mark.parametrize("compiler", [gcc, clang], ids=["gcc", "clang"])
def test_no_warnings(compiler, builder, model):
    """Of the core, the example and the test programs themselves."""
    cc = need(compiler(), compiler.__name__)
    check(builder([EXAMPLE], cc), model)
    programs = [p.name for p in build.TESTS_C.glob("*.c") if p.name != "count_alloc.c"]
    jobs = builder.start([EXAMPLE, *programs], cc)
    assert not {str(j.result()): w for j in jobs if (w := builder.warnings[j.result()])}


def test_errors_have_a_sentence(builder, tmp_path):
    program = builder([EXAMPLE])
    done = build.run([program, tmp_path / "none.clstm"])
    assert done.returncode == 2 and "none.clstm" in done.stderr
    (tmp_path / "bad").write_bytes(b"something else")
    for arguments in (["bad"], ["-", "bad"], []):
        done = build.run([program, *arguments], cwd=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


HEADER_ALONE = (
    '#include "clstm.h"\n#include "clstm.h"\nint main(void) { return clstm_abi_version() == 0; }\n'
)
LANGUAGES = {
    "c99": ("c", "-std=c99"), "c11": ("c", "-std=c11"), "c89": ("c", "-std=gnu89"),
    "c++": ("c++", "-std=c++11"), "c++20": ("c++", "-std=c++20"),
}  # fmt: skip


@pytest.mark.parametrize(("compiler", "language"), list(itertools.product([gcc, clang], LANGUAGES)))
def test_header_is_clean(compiler, language, tmp_path):
    cc = need(compiler(), compiler.__name__)
    kind, standard = LANGUAGES[language]
    if kind == "c++" and compiler is gcc:
        need(found("g++"), "g++")
    source = tmp_path / ("alone.c" if kind == "c" else "alone.cpp")
    source.write_text(HEADER_ALONE)
    flags = ["-x", kind, standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-long-long"]
    build.succeed([cc, *flags, f"-I{ROOT}/csrc/include", "-fsyntax-only", source])


def test_no_global_state_and_nothing_public_but_clstm(builder):
    """csrc alone: its public names begin with clstm_, and nothing of it can be written to but a
    count of forks."""
    objdump = need(found("objdump"), "objdump")
    seen = 0
    for job in builder.start(()):
        table = build.succeed([objdump, "-t", job.result()])
        for flags, section, name in re.findall(
            r"^\w{8,} (.{7}) (\S+)\s\w+ +(?:\.hidden )?(\S+)$", table, re.MULTILINE
        ):
            seen += 1
            assert "g" not in flags or section == "*UND*" or name.startswith("clstm_"), name
            # team.c alone counts forks, which a process has in common
            shared = name == section or re.match(r"(forks|once)\b", name)
            assert section not in (".data", ".bss", "*COM*") or shared, f"{name} can be written to"
    assert seen > 100
