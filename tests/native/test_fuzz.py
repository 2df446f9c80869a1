# SPDX-License-Identifier: MIT
"""The fuzzers: what the corpus reaches in C, under which tools it is clean, and whether bugs
that are planted are found."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import models
import pytest
from test_hostile import SANITIZERS, can_sanitize, small

import build
import clstm
from build import ROOT, TESTS_C

FUZZ = ROOT / "fuzz"
FILES = sorted((FUZZ / "corpus/clstm").iterdir())
REPLAY = ((str(FUZZ / "fuzz_clstm.c"), "hostile.c"), ("-DREPLAY", f"-I{TESTS_C}"))
CHECKED = ("file.c", "weights.c")


def replay(builder, cc, *flags):
    programs, more = REPLAY
    return [builder(programs, cc, (*flags, *more)), *FILES]


def test_the_corpus_comes_to_what_it_did_in_c(builder, tmp_path):
    """And is clean under the address and undefined-behaviour sanitizers."""
    if not can_sanitize(tmp_path):
        pytest.skip("not run: no sanitizers")
    out = build.succeed(replay(builder, "cc", "-O0", *SANITIZERS))
    expected = json.loads((FUZZ / "corpus/c.json").read_text())
    assert dict(zip([p.name for p in FILES], out.splitlines(), strict=True)) == expected


def test_the_corpus_reaches_nine_branches_of_ten_in_c(tmp_path):
    gcov = build.need(build.found("gcov"), "gcov")
    cc = build.need(build.gcc(), "gcc")
    objects = [tmp_path / f"{Path(f).stem}.o" for f in build.sources()]
    for file, out in zip(build.sources(), objects, strict=True):
        more = ["--coverage"] if Path(file).name in CHECKED else []
        build.succeed([cc, "-O0", "-w", *more, f"-I{ROOT}/csrc/include", "-c", file, "-o", out])
    programs, flags = REPLAY
    program = tmp_path / "replay"
    mine = [programs[0], TESTS_C / programs[1]]
    include = f"-I{ROOT}/csrc/include"
    build.succeed([cc, "-O0", *flags, include, "--coverage", *mine, *objects, *build.LIBRARIES,
                   "-o", program], cwd=tmp_path)  # fmt: skip
    build.succeed([program, *FILES], cwd=tmp_path)
    for name in CHECKED:
        out = build.succeed(
            [gcov, "-b", "-n", tmp_path / name.replace(".c", ".gcda")], cwd=tmp_path
        )
        part = next(p for p in out.split("File ") if p.startswith(f"'{ROOT}/csrc/src/{name}"))
        taken, of = re.search(r"Taken at least once:([\d.]+)% of (\d+)", part).groups()
        assert float(taken) >= 90 and int(of) > 50, part


@pytest.mark.parametrize("kernel", ["scalar", "avx2"])
@pytest.mark.parametrize("check", ["memory", "replay"])
def test_under_valgrind(check, kernel, builder, tmp_path):
    """Reads and writes outside, values that nobody wrote, and leaks. It has no AVX-512."""
    valgrind = build.need(build.found("valgrind"), "valgrind")
    if kernel not in clstm.available_kernels():
        pytest.skip(f"not run: no {kernel} here")
    command = replay(builder, "cc", "-O1", "-g")
    if check == "memory":
        programs, flags = (
            ("check_memory.c", "check.c"),
            ("-Dmalloc=check_malloc", "-Dfree=check_free"),
        )
        images = list(small())[:2]
        (tmp_path / "one").write_bytes(images[0])
        pack = models.write_pack(tmp_path / "pack", images)
        command = [builder(programs, "cc", ("-O1", "-g", *flags)), pack, tmp_path / "one"]
    options = [
        "-q",
        "--error-exitcode=9",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
    ]
    done = build.run([valgrind, *options, *command], env={**os.environ, "CLSTM_KERNEL": kernel})
    assert done.returncode == 0, done.stderr[-4000:]


# -- checks that are taken out


def test_a_check_that_is_taken_out_of_c_is_noticed(builder, tmp_path, monkeypatch):
    """A few of them, by the corpus alone; all of them: `python fuzz/remove_checks.py c`."""
    if not can_sanitize(tmp_path):
        pytest.skip("not run: no sanitizers")
    monkeypatch.syspath_prepend(FUZZ)
    import remove_checks

    checks = remove_checks.checks_of(["c"])
    assert len(checks) > 150
    bench = remove_checks.CBench(tmp_path, builder)
    bench.ways = bench.ways[4:5]  # built for the corpus already
    for check in checks[4:100:45]:
        assert bench.notices(check) == "fuzz_clstm", check.text
    assert not bench.notices(remove_checks.whole(checks[0]))  # as if nothing tested it


# -- planted bugs


class Bug(NamedTuple):
    name: str
    reader: str
    file: str  # below the root
    text: str
    instead: str


BUGS = [
    Bug("a slice past its input", "c", "csrc/src/weights.c",
        "op->dims[0] >= op->dims[1] || op->dims[1] > width", "op->dims[0] >= op->dims[1]"),
    Bug("an operand that is cut short", "torch", "clstm/formats/torch_pickle.py",
        "        if not self.stack:\n            raise self.fault(\"the stack is empty\")\n"
        "        return self.stack.pop()", "        return self.stack.pop()"),
    Bug("Fortran order forgotten", "npz", "clstm/formats/npz.py",
        "flat = made.T.flat if array.fortran else made.reshape(-1)", "flat = made.reshape(-1)"),
    Bug("lists in lists, without end", "safetensors", "clstm/formats/safetensors.py",
        "except RecursionError:", "except ZeroDivisionError:"),
    Bug("an index that is not looked at", "onnx", "clstm/formats/onnx/tensors.py",
        "if len(proto.raw_data) != count * dtype.itemsize:", "if len(proto.raw_data) < count:"),
]  # fmt: skip


def found(bug, folder, seconds):
    """What the fuzzer says of a copy of the sources with this bug."""
    source = folder / "source"
    skip = shutil.ignore_patterns("*.c" if bug.reader != "c" else "*.pyc", "__pycache__")
    for part in ("clstm", "csrc"):
        shutil.copytree(ROOT / part, source / part, ignore=skip if part == "clstm" else None)
    file = source / bug.file
    text = file.read_text()
    assert text.count(bug.text) == 1, f"{bug.file}: not found once: {bug.text}"
    file.write_text(text.replace(bug.text, bug.instead))
    words = ["--seconds", seconds, "--work", folder / "work", "--source", source, "--first"]
    command = [sys.executable, FUZZ / "fuzz.py", bug.reader, *words]
    return subprocess.run([str(w) for w in command], capture_output=True, text=True)


def can_fuzz(reader):
    if reader == "c":
        build.need(build.clang(), "clang")
    elif importlib.util.find_spec("atheris") is None:
        pytest.skip("not run: no atheris here")


LONG = [
    pytest.param(b, id=b.name.replace(" ", "-"), marks=[pytest.mark.long][: b.reader != "npz"])
    for b in BUGS
]


@pytest.mark.parametrize("bug", LONG)
def test_a_planted_bug_is_found(bug, tmp_path):
    """Within five minutes each."""
    can_fuzz(bug.reader)
    done = found(bug, tmp_path, 300)
    assert done.returncode == 1 and " 1 findings" in done.stdout, done.stdout + done.stderr
    print(f"{bug.name}: {done.stdout.splitlines()[-1]}")


@pytest.mark.parametrize("reader", ["npz"])
def test_the_fuzzer_runs_and_says_what_it_did(reader, tmp_path):
    can_fuzz(reader)
    words = ["--seconds", "3", "--work", tmp_path]
    out = build.succeed([sys.executable, FUZZ / "fuzz.py", reader, *words])
    line = r"fuzz npz: \d+ s, (\d+) executions, \d+ edges, .* 0 findings; in all \d+ s, \1 exec"
    assert re.search(line, out)
