# SPDX-License-Identifier: MIT
"""Builds C test programs together with csrc/, each once per session.

A test that needs a tool that is missing is skipped with "not run: ...", never silently passed.
"""

import errno
import functools
import glob
import os
import platform
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS_C = ROOT / "tests" / "c"
X86, ARM = platform.machine() in ("x86_64", "AMD64"), platform.machine() in ("aarch64", "arm64")
# RTLD_NOLOAD and the rest of dlfcn.h stand in libc itself since glibc 2.34
O2 = ("-O2", "-Wall", "-Wextra")  # the cc line, and what it warns of
ORACLE = ("oracle.c", "oracle_cells.c", "check.c")
CHECK_KERNELS = ("check_kernels.c", "check_cells.c", *ORACLE)
CHECK_MODELS = ("check_models.c", "oracle_model.c", *ORACLE)
PAUSES = (1, 5, 20)  # seconds
SHORT_OF = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY}
linux = pytest.mark.skipif(
    not platform.system() == "Linux", reason="not run: no LD_PRELOAD or seccomp here"
)
MANY_CALLERS = (("many_callers.c", "check.c"), ("-O0", "-g", "-fsanitize=thread"))
LIBRARIES = ["-lm", "-ldl"] if os.name == "posix" and platform.system() == "Linux" else ["-lm"]


def sources(root=ROOT):
    """The two patterns of the cc line of csrc/README.md, expanded."""
    return sorted(glob.glob(f"{root}/csrc/src/*.c") + glob.glob(f"{root}/csrc/src/kernels/*.c"))


def found(*names):
    """The first of these programs that there is, or None."""
    return next((path for name in names if (path := shutil.which(name))), None)


CLANGS = tuple(f"clang-{n}" for n in range(30, 10, -1))


@functools.cache
def clang():
    """clang, also under the names that distributions give it; 19 before newer ones, because
    instruction_counts.json knows it."""
    return found("clang", "clang-19", *CLANGS)


@functools.cache
def realtime_clang():
    """One with RealtimeSanitizer, or None."""
    names = [name for name in ("clang", *CLANGS) if links(found(name), "-fsanitize=realtime")]
    return found(*names)


@functools.cache
def gcc():
    """GCC itself: on macOS a program of that name is clang."""
    path = found("gcc")
    if path and "clang" in run([path, "--version"]).stdout:
        return None
    return path


@functools.cache
def links(cc, *flags):
    """Can this compiler make a program with these flags? Run-time libraries are packages apart."""
    command = [cc, *flags, "-x", "c", "-", "-o", os.devnull]
    return bool(cc) and run(command, input="int main(void) { return 0; }").returncode == 0


def itself(cc):
    """One path for all names of a compiler: cc is mostly gcc or clang, and built with once."""
    path = os.path.realpath(shutil.which(cc) or cc)
    return cc if "ccache" in path else path


def need(tool, what):
    if tool is None:
        pytest.skip(f"not run: no {what}")
    return tool


def run(command, **options):
    """Runs to the end, with its output as text; the caller looks at the return code. Where the
    machine has no memory or slot left to start a process, it may have a little later; nothing is
    learnt of what is tested. A program that is not there, or is none, is an error at once."""
    options = {"timeout": 600, "capture_output": True, "text": True, "check": False} | options
    for pause in (*PAUSES, None):
        try:
            return subprocess.run([str(word) for word in command], **options)
        except OSError as error:
            if pause is None or error.errno not in SHORT_OF:
                raise
            sleep(pause)


def succeed(command, **options):
    """The standard output of a command that must end with status 0."""
    done = run(command, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class Builder:
    """Programs of tests/c linked with csrc/. Each file is compiled once for a compiler and its
    flags, as many beside each other as there are CPUs."""

    def __init__(self, folder, root=ROOT):
        self.folder, self.root = Path(folder), root
        self.objects: dict[tuple, Future] = {}
        self.warnings: dict[Path, str] = {}  # by object
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def start(self, programs, cc="cc", flags=O2):
        """Begins to compile; returns the futures of the objects."""
        slowest_first = sorted(sources(self.root), key=lambda path: "isa_scalar" not in path)
        files = [*slowest_first, *(TESTS_C / p for p in programs)]
        return [self._object(str(file), itself(cc), tuple(flags)) for file in files]

    def __call__(self, programs, cc="cc", flags=O2):
        """The path of the program that programs[0] gives its name."""
        objects = [future.result() for future in self.start(programs, cc, flags)]
        out = objects[0].parent / Path(programs[0]).stem
        succeed([cc, *flags, *objects, *LIBRARIES, "-o", out])
        return out

    def _object(self, file, cc, flags):
        key = file, cc, flags
        if key not in self.objects:
            self.objects[key] = self.pool.submit(self._compile, *key)
        return self.objects[key]

    def _compile(self, file, cc, flags):
        name = "".join(c for c in "".join([Path(cc).name, *flags]) if c.isalnum() or c in "-.")
        out = self.folder / name / f"{Path(file).parent.name}-{Path(file).stem}.o"
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [cc, *flags, f"-I{self.root}/csrc/include", "-c", file, "-o", out]
        done = run(command)
        assert done.returncode == 0, f"{command}:\n{done.stderr[-4000:]}"
        self.warnings[out] = done.stderr
        return out

    def close(self):
        self.pool.shutdown(cancel_futures=True)
