# SPDX-License-Identifier: MIT
"""The ABI policy of docs/embedding.md: tests/c/abi_1.c says by hand what clstm.h must keep."""

import re
import shlex

import pytest

import build
from build import ROOT, TESTS_C
from clstm import _embed

HEADER = (ROOT / "csrc/include/clstm.h").read_text()
HELD = (TESTS_C / "abi_1.c").read_text()


def compiles(header, tmp_path):
    (tmp_path / "clstm.h").write_text(header)
    command = ["cc", f"-I{tmp_path}", "-std=c11", "-fsyntax-only", TESTS_C / "abi_1.c"]
    return build.run(command).returncode == 0


def test_the_header_and_the_library_keep_abi_1(tmp_path):
    assert compiles(HEADER, tmp_path)
    program = tmp_path / "abi_1"
    build.succeed(
        ["cc", TESTS_C / "abi_1.c", *shlex.split(_embed.flags(True, True)), "-o", program]
    )
    build.succeed([program])
    declared = re.findall(r"\b(clstm_\w+)\(", re.sub(r"(?s)/\*.*?\*/", "", HEADER))
    assert sorted(declared) == sorted(re.findall(r"\b(clstm_\w+)\(", HELD.partition("int main")[0]))


BREAKS = [
    ("size_t clstm_state_size(const", "int clstm_state_size(const"),
    (
        "clstm_stream *stream, const float *x, float *y)",
        "clstm_stream *s, float *y, const float *x)",
    ),
    ("CLSTM_NO_MEMORY = 4", "CLSTM_NO_MEMORY = 6"),
    ("    const char *gemm; ", "    int extra; const char *gemm; "),
    ("    int threads; ", "    long threads; "),
    ("size_t n_steps, n_batch;", "size_t n_batch, n_steps;"),
    ("    float *state_out; ", "    float *state_out; int more; "),
    ("#define CLSTM_ABI_VERSION 1", "#define CLSTM_ABI_VERSION 2"),
]


@pytest.mark.parametrize(("before", "after"), BREAKS)
def test_a_break_is_seen(before, after, tmp_path):
    assert HEADER.count(before) == 1
    assert not compiles(HEADER.replace(before, after), tmp_path)


def test_what_may_be_added_is_no_break(tmp_path):
    more = HEADER
    for before, after in [
        ("int threads; ", "int threads; double more; "),
        ("IO = 5", "IO = 5, MORE"),
    ]:
        assert more.count(before) == 1
        more = more.replace(before, after)
    assert compiles(more, tmp_path)
