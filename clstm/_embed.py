# SPDX-License-Identifier: MIT
"""Where a C, C++ or Cython program finds the engine: docs/embedding.md."""

from __future__ import annotations

import errno
import os
import re
import shlex
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def get_include() -> str:
    """The folder of ``clstm.h`` and ``clstm.hpp``, for a compiler's ``-I``."""
    return str(_built("include", "clstm.h").parent)


def get_library_dir() -> str:
    """The folder of the static library ``libclstm.a``; ``pkgconfig/clstm.pc`` is below it."""
    return str(_built("lib", "pkgconfig", "clstm.pc").parent.parent)


def flags(cflags: bool, libs: bool) -> str:
    """What clstm.pc says, which is the one place that names the system's libraries."""
    path = _built("lib", "pkgconfig", "clstm.pc")
    text = path.read_text(encoding="utf-8")
    words = {"pcfiledir": str(path.parent)}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", text):
        words[name] = os.path.normpath(_filled(value, words))
    asked = [key for key, wanted in (("Cflags", cflags), ("Libs", libs)) if wanted]
    lines = [re.findall(rf"(?m)^{key}: *(.*)$", text)[0] for key in asked]
    return " ".join(shlex.quote(_filled(word, words)) for line in lines for word in line.split())


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda name: words[name[1]], text)


def _built(*names: str) -> Path:
    path = _PACKAGE.joinpath(*names)
    if not path.is_file():
        raise FileNotFoundError(
            errno.ENOENT, "no such file; it comes with an installation (pip install .)", str(path)
        )
    return path
