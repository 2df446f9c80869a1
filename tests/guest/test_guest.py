# SPDX-License-Identifier: MIT
"""clstm in somebody else's process: import and use leave everything as it was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = Path(__file__).with_name("look.py")


def looked(word):
    done = subprocess.run(
        [sys.executable, LOOK, word], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_and_use_change_nothing():
    assert looked("clstm") == {"imported": [], "used": []}


SPOILS = {
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "control bits": "ctypes.CDLL('libm.so.6').fesetround(0x800)",
    "signals": "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "environment": "os.environ['OMP_NUM_THREADS'] = '7'",
    "locale": "locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')",
    "files": "kept = open(os.devnull)",
    "umask": "os.umask(0o177)",
    "at exit": "atexit.register(print)",
    "warnings": "warnings.simplefilter('ignore')",
    "random": "random.random()",
    "NumPy's errors": "__import__('numpy').seterr(all='raise')",
}


@pytest.mark.parametrize("name", SPOILS)
def test_a_guest_that_changes_something_is_seen(name):
    if name == "control bits" and not sys.platform.startswith("linux"):
        pytest.skip("not run: no libm.so.6")
    assert name in looked(SPOILS[name])
