# SPDX-License-Identifier: MIT
"""Other interpreters: a second one in the same process refuses clstm cleanly, or runs it right; a
free-threaded one keeps its GIL off and shares models and streams as any."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clstm

# Each interpreter of a process imports clstm, and if it may, takes a step and compares it.
SUB = """
import sys
import numpy as np
import clstm
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

w = {"weight_ih_l0": np.full((8, 3), 0.1, np.float32), "weight_hh_l0": np.eye(8, 2, dtype="f")}
m = clstm.from_state_dict(w)
s, x = m.stream(), np.ones(3, np.float32)
s.step(x)
WORK = '''
import warnings
warnings.simplefilter("ignore")
import sys
sys.path[:] = {path!r}
try:
    import numpy as np
    import clstm
except ImportError:
    word = b"refused"
else:
    ih, hh = np.full((8, 3), 0.1, np.float32), np.eye(8, 2, dtype="f")
    w = {{"weight_ih_l0": ih, "weight_hh_l0": hh}}
    y = clstm.from_state_dict(w).stream().step(np.ones(3, np.float32))
    word = b"right" if y.tobytes() == {expected!r} else b"wrong"
import os
os.write({pipe}, word + b" ")
'''
import os
expected = m.stream().step(x).tobytes()
reader, writer = os.pipe()
for n in range(int(sys.argv[1])):
    one = interpreters.create()
    script = WORK.format(path=sys.path, expected=expected, pipe=writer)
    error = interpreters.run_string(one, script)
    assert error is None, error
    interpreters.destroy(one)
    assert m.stream().step(x).tobytes() == expected  # here it goes on as before
os.close(writer)
print(os.read(reader, 100000).decode())
s.step(x)
"""


@pytest.mark.parametrize("times", [15, pytest.param(100, marks=pytest.mark.long)])
def test_other_interpreters_refuse_or_are_right(times):
    try:
        __import__("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    except ImportError:
        pytest.skip("not run: no module for other interpreters in this Python")
    done = subprocess.run(
        [sys.executable, "-c", SUB, str(times)],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    words = done.stdout.split()
    print(done.stdout)
    assert len(words) == times and set(words) <= {"refused", "right"}


def free_threaded():
    """The path of a free-threaded CPython with NumPy: CLSTM_FREE_THREADED, or one of its usual
    names."""
    names = (os.environ.get("CLSTM_FREE_THREADED"), "python3.14t", "python3.13t")
    return next((path for name in names if name and (path := shutil.which(name))), None)


STORM = """
import sys, sysconfig
assert sysconfig.get_config_var("Py_GIL_DISABLED") == 1
import clstm
assert not sys._is_gil_enabled(), "the import switched the GIL on"
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def test_free_threaded_python(tmp_path):
    """It is built there anew, and the tests of threads are run without a GIL."""
    python = free_threaded()
    if python is None:
        pytest.skip("not run: no free-threaded Python (python3.14t, or CLSTM_FREE_THREADED)")
    root, env = Path(clstm.__file__).parents[1], {**os.environ, "PYTHON_GIL": ""}

    def succeed(*words, **options):
        done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    venv = tmp_path / "venv"
    succeed(python, "-m", "venv", venv)
    inside = venv / "bin" / "python"
    succeed(inside, "-m", "pip", "install", "-q", root, "pytest", "hypothesis", timeout=900)
    tests = [root / "tests" / name for name in ("guest/test_one_stream.py", "core/test_threads.py")]
    succeed(inside, "-c", STORM, "-c", root / "pyproject.toml", *tests, env=env, cwd=tmp_path)
