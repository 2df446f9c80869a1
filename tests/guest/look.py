# SPDX-License-Identifier: MIT
"""What of a process a guest might change: `look()` tells, by name.

As a program, it imports clstm and uses it, and prints what that changed as JSON, for a first
argument of "clstm"; any other is Python code to run instead.
"""

import atexit
import ctypes
import gc
import json
import locale
import logging
import os
import platform
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings

# where the control bits lie in fenv_t, and which of its bits are flags that any sum may raise
FENV = {"x86_64": (28, 0x3F), "aarch64": (0, 0)}


def control_bits():
    """Rounding, flushing and masks of this thread."""
    if platform.machine() not in FENV or not sys.platform.startswith("linux"):
        return None
    at, flags = FENV[platform.machine()]
    libm, buffer = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * 16)()
    libm.fegetenv(buffer)
    return buffer[at // 4] & ~flags


def of_proc(path):
    return len(os.listdir(path)) if os.path.isdir(path) else None


def masks():
    """Signals that are blocked, ignored and caught, of the handlers of C libraries too; but for 32
    and 33, which glibc itself takes for the first thread that anybody starts."""
    if not os.path.exists("/proc/self/status"):
        return None
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    return [int(mask, 16) & ~(3 << 31) for _, mask in lines]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def look():
    import numpy as np

    numbers = np.random.get_state()  # noqa: NPY002  the one that all share
    return {
        "threads": (of_proc("/proc/self/task"), threading.active_count()),
        "control bits": control_bits(),
        "signals": (
            masks(),
            [repr(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        ),
        "environment": sorted(os.environ.items()),
        "locale": locale.setlocale(locale.LC_ALL),
        "files": of_proc("/proc/self/fd"),
        "umask": umask(),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "CPUs": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "hooks": [
            repr(hook)
            for hook in (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook,
                         sys.gettrace(), sys.getprofile(), gc.callbacks)
        ],
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold()),
        "at exit": atexit._ncallbacks(),
        "warnings": repr(warnings.filters),
        "logging": (logging.root.level, repr(logging.root.handlers)),
        "random": (hash(random.getstate()), hash(numbers[1].tobytes())),
        "NumPy's errors": sorted(np.geterr().items()),
        "time-out of sockets": socket.getdefaulttimeout(),
    }  # fmt: skip


def changes(before):
    after = look()
    return [name for name in before if before[name] != after[name]]


def use():
    """Load, run and save, with threads too; errors, and the end of it all."""
    import numpy as np

    import clstm

    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (1088, 272), "weight_hh_l0": (1088, 272)}
    tensors = {name: rng.uniform(-0.06, 0.06, s).astype(np.float32) for name, s in shapes.items()}
    x = np.full((9, 272), 1e-30, np.float32)
    for threads in (1, 2):
        m = clstm.from_state_dict(tensors, threads=threads)
        s = m.stream()
        s.step(x[0])
        s.run(x)
        m(x)
        m.stream(snapshot=s.snapshot())
        for bad in (x, x[0, :3], "x", None):
            try:
                s.step(bad)
            except clstm.ClstmError:
                continue
            raise AssertionError(f"took {bad!r}")
        folder = tempfile.mkdtemp()
        m.save(os.path.join(folder, "m.clstm"))
        clstm.load(os.path.join(folder, "m.clstm"))
        shutil.rmtree(folder)


if __name__ == "__main__":
    import numpy  # noqa: F401  what clstm itself needs is not clstm's doing
    import safetensors.numpy  # noqa: F401

    before = look()
    if sys.argv[1] == "clstm":
        import clstm  # noqa: F401

        imported = changes(before)
        use()
        gc.collect()
        print(json.dumps({"imported": imported, "used": changes(before)}))
    else:
        exec(sys.argv[1])
        print(json.dumps(changes(before)))
