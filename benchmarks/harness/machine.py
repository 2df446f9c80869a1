# SPDX-License-Identifier: MIT
"""The process: threads, cores, versions."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import clstm

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def limit_threads(threads: int = 1) -> None:
    """Before a library starts its threads: the process begins anew with the variables set."""
    wanted = dict.fromkeys(VARIABLES, str(threads))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def pin(threads: int = 1) -> list[int] | None:
    """To the last cores that it may use; None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    os.sched_setaffinity(0, set(cores))
    return cores


def load_peers(names: tuple[str, ...], threads: int = 1) -> dict[str, Any]:
    """The modules; None: not installed."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    peers: dict[str, Any] = dict.fromkeys(names)
    for name in names:
        with contextlib.suppress(ImportError):
            peers[name] = importlib.import_module(name)
    if peers.get("torch"):
        peers["torch"].set_num_threads(threads)
    return peers


def versions(peers: dict[str, Any]) -> dict[str, str]:
    known = {"clstm": clstm.__version__, "numpy": np.__version__}
    return known | {k: m.__version__ if m else "not installed" for k, m in peers.items()}


def cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as lines:
        return next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Of the working tree; "-dirty" where it has changes, "" without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def settings(kernel: str | None, threads: int, cores: list[int] | None) -> dict[str, Any]:
    chosen = kernel or os.environ.get("CLSTM_KERNEL") or clstm.available_kernels()[0]
    return {
        "cpu": cpu_model(),
        "kernel": chosen,
        "threads": threads,
        "pinned to cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
        "commit": commit(),
    }
