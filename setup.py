# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: libclstm.a from the C sources, one extension that links it,
and what a C program needs beside it. No source needs a flag of its own; the kernels open their
instruction sets themselves."""

import gzip
import os
import re
import shutil
import sys
import tarfile
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

HEADER = "csrc/include/clstm.h"
found = re.search(r'#define CLSTM_VERSION "(.+)"', Path(HEADER).read_text(encoding="utf-8"))
assert found, f"no version in {HEADER}"
VERSION = found[1]
SOURCES = sorted(glob("csrc/src/*.c") + glob("csrc/src/kernels/*.c"))
HEADERS = glob("csrc/**/*.h", recursive=True)
FLAGS = [
    "-O2",
    "-g0",  # Python's own flags may ask for it: three quarters of the wheel
    "-pthread",
    "-std=gnu11",
    "-ffp-contract=off",
    "-fvisibility=hidden",
]
LIBS = ["-lm", "-pthread"] if sys.platform == "darwin" else ["-lm", "-ldl", "-pthread"]
LINK = LIBS
if sys.platform == "linux":
    # Or the engine of a program that embeds Python would take the place of the extension's own.
    LINK = [*LIBS, "-Wl,--exclude-libs,libclstm.a"]
if sys.platform == "win32":  # clang-cl; docs/packaging.md says how far that is tested
    FLAGS = ["/O2", "/clang:-std=gnu11", "/clang:-ffp-contract=off"]
    LIBS = LINK = []


def speak_gnu_c(compiler):
    """setuptools' compiler on Windows is MSVC's; the sources are GNU C."""
    if compiler.compiler_type == "msvc":
        compiler.initialize()
        compiler.cc = "clang-cl"


class Library(build_clib):
    """Puts the library, its headers and clstm.pc into the package."""

    editable_mode = False  # set by setuptools: then the package is that of the source tree

    def build_libraries(self, libraries):
        speak_gnu_c(self.compiler)
        super().build_libraries(libraries)
        build_lib = "" if self.editable_mode else self.get_finalized_command("build").build_lib
        include, lib = (Path(build_lib, "clstm", name) for name in ("include", "lib"))
        for folder in (include, lib / "pkgconfig"):
            folder.mkdir(parents=True, exist_ok=True)
        for header in glob("csrc/include/*"):
            shutil.copy(header, include)
        shutil.copy(Path(self.build_clib, self.compiler.library_filename("clstm")), lib)
        text = Path("csrc/clstm.pc.in").read_text(encoding="utf-8")
        words = {"INCLUDE": "../../include", "VERSION": VERSION, "LIBS": " ".join(LIBS)}
        for name, value in words.items():
            text = text.replace(f"@{name}@", value)
        Path(lib, "pkgconfig", "clstm.pc").write_text(text, encoding="utf-8")


class Core(build_ext):
    def build_extensions(self):
        speak_gnu_c(self.compiler)
        super().build_extensions()


class Sources(sdist):
    """With SOURCE_DATE_EPOCH the archive depends on the files' names and contents alone."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **owner):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, **owner)

        def plain(entry):
            entry.mtime, entry.mode = int(epoch), 0o755 if entry.mode & 0o100 else 0o644
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            return entry

        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            tar.add(base_dir, filter=plain)  # the names of a folder in their order
        return path


library = {
    "sources": SOURCES,
    "obj_deps": {"": HEADERS},
    "include_dirs": ["csrc/include"],
    "cflags": FLAGS,
}
core = Extension(
    "clstm._core",
    ["clstm/_core.pyx"],
    include_dirs=["csrc/include", np.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_25_API_VERSION")],
    depends=[*SOURCES, *HEADERS],
    extra_compile_args=FLAGS,
    extra_link_args=LINK,  # behind libclstm.a, which setuptools links by itself
)
setup(
    version=VERSION,
    libraries=[("clstm", library)],
    ext_modules=cythonize([core], build_dir="build"),
    cmdclass={"build_clib": Library, "build_ext": Core, "sdist": Sources},
)
