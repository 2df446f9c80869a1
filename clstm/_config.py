# SPDX-License-Identifier: MIT
"""What this installation is: for bug reports and for logs beside results."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from ._core import NUMERIC_POLICY, VERSION, available_kernels


def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Print the configuration, or return it (mode="dict").

    ``numeric_policy`` is an integer: results keep their bits while it stays.
    """
    if mode not in ("print", "dict"):
        raise ValueError(f'mode={mode!r}: expected "print" or "dict"')
    from .loading import numpy_blas

    config = {
        "version": VERSION,
        "numeric_policy": NUMERIC_POLICY,
        "kernels": list(available_kernels()),
        "kernel": os.environ.get("CLSTM_KERNEL") or available_kernels()[0],
        "gemm": os.environ.get("CLSTM_GEMM") or "auto",
        "blas": os.environ.get("CLSTM_BLAS") or next(iter(numpy_blas()), None),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if mode == "dict":
        return config
    for name, value in config.items():
        print(f"{name}: {value}")
    return None
