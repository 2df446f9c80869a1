# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: one extension over the C sources. No source needs a flag of
its own; the kernels open their instruction sets themselves."""

import re
import sys
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

HEADER = "csrc/include/clstm.h"
version = re.search(r'#define CLSTM_VERSION "(.+)"', Path(HEADER).read_text(encoding="utf-8"))
assert version, f"no version in {HEADER}"

core = Extension(
    "clstm._core",
    ["clstm/_core.pyx", *sorted(glob("csrc/src/*.c") + glob("csrc/src/kernels/*.c"))],
    include_dirs=["csrc/include", np.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_25_API_VERSION")],
    depends=glob("csrc/**/*.h", recursive=True),
    extra_compile_args=[
        "-O2",
        "-pthread",
        "-std=gnu11",
        "-ffp-contract=off",
        "-fvisibility=hidden",
    ],
    libraries=[] if sys.platform == "darwin" else ["m", "dl"],
)
setup(version=version[1], ext_modules=cythonize([core], build_dir="build"))
