# SPDX-License-Identifier: MIT
"""The command `clstm` as a whole, its errors, its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from climaker import (
    LIST,
    ROOT,
    Cli,
    as_csv,
    command,
    fails,
    frames,
)

import clstm
from clstm import cli

# ---- the command itself -------------------------------------------------------------------


@pytest.mark.timing
def test_version_comes_at_once() -> None:
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        done = subprocess.run([*command(), "--version"], capture_output=True, text=True)
        taken.append(time.perf_counter() - start)
        assert (done.returncode, done.stdout) == (0, f"clstm {clstm.__version__}\n")
    assert min(taken) < 0.150, taken


def test_version_has_one_source() -> None:
    header = (ROOT / "csrc/include/clstm.h").read_text(encoding="utf-8")
    assert f'#define CLSTM_VERSION "{clstm.__version__}"' in header


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["run", "--help"], ["run"]])
def test_what_needs_no_numpy_imports_none(args: list[str]) -> None:
    code = (
        "import sys\nfrom clstm.cli.__main__ import main\n"
        f"try: main({args!r})\nexcept SystemExit: pass\n"
        "sys.exit('numpy' in sys.modules or 'clstm._core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_package_brings_its_names_when_they_are_used() -> None:
    code = (
        "import sys, clstm\nassert 'numpy' not in sys.modules\n"
        "assert set(clstm.__all__) <= set(dir(clstm))\n"
        "assert not hasattr(clstm, 'nothing')\n"
        "from clstm import *\n"
        "assert Model is clstm.Model and nn.LSTM and clstm.formats.read_file\n"
        "assert clstm.__version__ == clstm._core.VERSION and load is clstm.loading.load\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_m(file: Path) -> None:
    run = [sys.executable, "-m", "clstm", "run", file]
    done = subprocess.run(run, input=as_csv(frames(2)), capture_output=True)
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 2, b"")


def test_usage_errors_are_one_line(run: Cli, file: Path) -> None:
    fails(run(), "COMMAND", "clstm --help")
    fails(run("walk"), "walk")
    fails(run("run"), "MODEL", "clstm run --help")
    fails(run("run", file, "--chunk", "0"), "an integer from 1 on")
    fails(run("verify", file, "--atol", "-1"), "from 0 on")
    fails(run("verify", file, "--rtol", "nan"), "from 0 on")
    fails(run("convert", file), "--output")
    fails(run("run", file, "--chu", "1"), "--chu")


@pytest.mark.parametrize("name", ["info", "convert", "run", "verify", "config"])
def test_help(run: Cli, name: str) -> None:
    done = run(name, "--help")
    assert done.status == 0 and done.out.startswith(f"usage: clstm {name}")


def test_the_tolerances_are_those_of_the_check_at_load(run: Cli) -> None:
    text = (ROOT / "csrc/src/certificate.c").read_text(encoding="utf-8")
    in_c = [float(re.findall(rf"#define {n} (\S+)", text)[0]) for n in ("RELATIVE", "ABSOLUTE")]
    assert in_c == [cli.RTOL, cli.ATOL]
    assert "default: 0.0001" in run("verify", "--help").out


def test_config(run: Cli) -> None:
    done = run("config", "--json")
    assert json.loads(done.out) == clstm.show_config("dict")
    assert f"version: {clstm.__version__}\n" in run("config").out


def test_config_for_a_compiler(run: Cli) -> None:
    cflags, libs = f"-I{clstm.get_include()}", f"-L{clstm.get_library_dir()} -lclstm "
    assert run("config", "--cflags").out == f"{cflags}\n"
    assert run("config", "--libs").out.startswith(libs)
    both = run("config", "--libs", "--cflags").out
    assert both.startswith(f"{cflags} {libs}") and both.count("\n") == 1
    assert run("config", "--pkgconfigdir").out == f"{clstm.get_library_dir()}/pkgconfig\n"
    fails(run("config", "--cflags", "--json"), "--cflags")
    fails(run("config", "--libs", "--pkgconfigdir"), "--libs")
    fails(run("config", "--json", "--pkgconfigdir"), "--json")


# ---- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["info", "run", "verify", "convert"])
def test_files_that_cannot_be_read(run: Cli, tmp_path: Path, name: str) -> None:
    more = ["-o", tmp_path / "out.clstm"] if name == "convert" else []
    fails(run(name, tmp_path / "nothing.pt", *more), "nothing.pt: No such file or directory")
    fails(run(name, tmp_path, *more), "regular file")
    (tmp_path / "bad.clstm").write_bytes(b"CLSTM\0\r\n" + b"\xff" * 100)
    fails(run(name, tmp_path / "bad.clstm", *more), "bad.clstm")
    (tmp_path / "text.csv").write_text("1,2\n")
    fails(run(name, tmp_path / "text.csv", *more), "unknown kind of file")


def test_every_kind_of_error_is_one_line(
    run: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, words in [
        (clstm.UnsupportedError("not\nthis\x1b[31m"), r"not\nthis\x1b[31m"),
        (OSError(28, "No space left", "there"), "there: No space left"),
        (MemoryError(), "out of memory"),
        (ValueError("x\ny"), "x y"),
        (OSError("plain"), "plain"),
    ]:

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("clstm.cli.common.read_file", refuse)
        fails(run("info", file), words)


def test_an_interrupt_is_quiet(run: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clstm.cli.common.read_file", interrupt)
    done = run("info", file)
    assert (done.status, done.out, done.err) == (130, "", "")


def test_words_of_options(run: Cli, file: Path) -> None:
    fails(run("run", file, "--kernel", "mmx"), "mmx")
    fails(run("run", file, "--gemm", "fast"), "fast")
    fails(run("info", file, "--layers", LIST), "holds its layers")
    fails(run("info", file, "--key", "ema"), "key='ema'")


# ---- docs/cli.md --------------------------------------------------------------------------

MACHINE = [  # what differs between machines, Python's versions and torch's last bits
    (r"\b(avx512|avx2|neon|scalar)\b", "KERNEL"),
    (r"\b[\d,]+ KiB", "N KiB"),
    (r"(?m)^packed .*", "packed"),
    (r"agree, largest error \S+", "agree, largest error E"),
    (r"output \[\d+, 0\] is \S+ expected \S+", "output is"),
]


def replay(page: str, folder: Path) -> str:
    """The page with every block of it run again."""

    def again(block: re.Match[str]) -> str:
        if block[1] == "python":
            exec(block[2], {})
            return block[0]
        lines = []
        for line in re.findall(r"(?m)^\$ (.*)$", block[2]):
            script = 'clstm() { "$0" -m clstm "$@"; }; ' + line
            done = subprocess.run(
                ["/bin/sh", "-c", script, sys.executable], cwd=folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            lines += [f"$ {line}\n", done.stdout]
        return f"```console\n{''.join(lines)}```"

    return re.sub(r"```(console|python)\n(.*?)```", again, page, flags=re.DOTALL)


def test_the_page_is_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    found = replay(page, tmp_path)
    pages = [page, found]
    for pattern, word in MACHINE:
        pages = [re.sub(pattern, word, text) for text in pages]
    before, after = (re.sub(r"(?s)\$ clstm config\n.*?```", "", text) for text in pages)
    assert after == before
    shown = [re.findall(r"(?m)^(\w+): ", text[text.index("$ clstm config") :]) for text in pages]
    assert shown[0] == shown[1] == list(clstm.show_config("dict") or {})
