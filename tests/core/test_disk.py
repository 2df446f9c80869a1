# SPDX-License-Identifier: MIT
"""Files of ours on a disk that other processes use, that is full, or that may not be written; and a
process that is killed, or that has no memory, while it saves."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import clstm
from samples import made

TESTS = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="not run: no fork here")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not run: for Linux")

COMMON = """
import errno, json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
import safetensors.numpy
import clstm
from samples import made
models = [made("lstm"), made("projected")]
known = [m.fingerprint for m in models]
folder = Path(sys.argv[1])
"""


def run(code, folder, *words, env=None):
    """The last line that the code prints, as JSON."""
    env = {**os.environ, "PYTHONPATH": str(TESTS), **(env or {})}
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code, str(folder), *map(str, words)],
        capture_output=True, text=True, env=env, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# -- killed while it saves

KILLED = """
count, path = int(sys.argv[2]), folder / f"m.{sys.argv[3]}"
rng = random.Random(count)
models[0].save(path)
begin = time.perf_counter()
for m in models * 5:
    m.save(path)
longest = 2.5 * (time.perf_counter() - begin) / 10
seen, left = [0, 0], 0
for _ in range(count):
    child = os.fork()
    if child == 0:
        while True:
            for m in models:
                m.save(path)
    time.sleep(rng.random() * longest)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen[known.index(clstm.load(path).fingerprint)] += 1
    for other in folder.iterdir():
        if other != path:
            assert other.name.startswith(f".{path.name}.")  # what it was about to rename
            left += 1
            other.unlink()
print(json.dumps([*seen, left]))
"""


@posix
@pytest.mark.parametrize("kind", ["clstm", "safetensors"])
def test_a_kill_leaves_the_old_file_or_the_new(kind, tmp_path):
    for count in (40, 80, 160, 320):  # until some were in the middle, which is chance
        old, new, left = run(KILLED, tmp_path, count, kind)
        assert old + new == count
        if left:
            return
    pytest.fail("no kill of 600 came in the middle of a save")


@posix
@pytest.mark.long
@pytest.mark.parametrize("kind", ["clstm", "safetensors"])
def test_a_thousand_kills(kind, tmp_path):
    old, new, left = run(KILLED, tmp_path, 1000, kind)
    print(f"{kind}: 1000 kills: {old} times one file, {new} times the other, {left} in the middle")
    assert old > 100 and new > 100 and left > 50


# -- changed while it is read

CHANGED = """
count, path = int(sys.argv[2]), folder / "m.clstm"
for name, m in zip("ab", models):
    m.save(folder / f"{name}.clstm")
a, b = [(folder / f"{name}.clstm").read_bytes() for name in "ab"]
models[0].save(path)
child = os.fork()
if child == 0:
    rng = random.Random(1)
    while True:
        how, data = rng.randrange(4), rng.choice([a, b])
        if how == 0:  # another file in its place
            models[rng.randrange(2)].save(path)
        elif how == 1:  # the same file, written over
            path.write_bytes(data)
        elif how == 2:  # in pieces, unsynced
            with open(path, "r+b") as file:
                for at in range(0, len(data), 1000):
                    file.seek(at)
                    file.write(data[at : at + 1000])
                    file.flush()
        else:
            os.truncate(path, rng.randrange(len(data)))
seen = {}
def load():
    try:
        return clstm.load(path).fingerprint
    except clstm.ModelFormatError as error:
        return "refused"
for _ in range(count):
    what = load()
    assert what == "refused" or what in known, what
    seen[what] = seen.get(what, 0) + 1
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(json.dumps([seen.get(f, 0) for f in known] + [seen.get("refused", 0)]))
"""


def check_changed(found, count):
    a, b, refused = found
    assert a + b + refused == count and refused > 0 and a + b > 0


@posix
def test_a_file_that_changes_is_refused_or_read_right(tmp_path):
    check_changed(run(CHANGED, tmp_path, 1000), 1000)


@posix
@pytest.mark.long
def test_a_file_that_changes_a_hundred_thousand_loads(tmp_path):
    check_changed(run(CHANGED, tmp_path, 100_000), 100_000)


# -- folders that may not be written, disks that are full

READ_ONLY = """
for m in models:  # imports what it needs
    m.save(folder / "m.clstm"), m.save(folder / "m.safetensors")
before = {p.name: p.read_bytes() for p in folder.iterdir()}
os.chmod(folder, 0o555)
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
told = []
for kind in ("clstm", "safetensors"):
    for name in (f"m.{kind}", f"new.{kind}"):
        try:
            models[0].save(folder / name)
        except OSError as error:
            told.append([type(error).__name__, errno.errorcode[error.errno]])
assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
assert clstm.load(folder / "m.clstm").fingerprint == known[1]
print(json.dumps(told))
"""


@posix
def test_a_read_only_folder_keeps_its_file(tmp_path):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for its user alone
        os.chmod(folder, 0o755)
        told = run(READ_ONLY, folder)
        os.chmod(folder, 0o755)
    assert told == [["PermissionError", "EACCES"]] * 4


FULL = """
big = clstm.from_state_dict({f"weight_{w}_l0": np.ones((256, 64), "f4") for w in ("ih", "hh")})
told = []
for kind in ("clstm", "safetensors"):
    path = folder / f"m.{kind}"
    models[0].save(path)
    before = path.read_bytes()
    for name in (path.name, f"new.{kind}"):
        try:
            big.save(folder / name)
        except OSError as error:
            told.append(errno.errorcode[error.errno])
    assert path.read_bytes() == before and clstm.load(path).fingerprint == known[0]
assert sorted(p.name for p in folder.iterdir()) == ["m.clstm", "m.safetensors"]
print(json.dumps(told))
"""


@linux
def test_a_full_disk_keeps_its_file(tmp_path):
    """A real one, of 64 KiB. Without the right to mount: test_files.py has a limit of size."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "clstm", str(tmp_path)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("not run: may not mount a small disk here")
    try:
        assert run(FULL, tmp_path) == ["ENOSPC"] * 4
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# -- no memory

NO_MEMORY = """
import ctypes, gc
shim = ctypes.CDLL(None)
shim.fail_alloc_live.restype = ctypes.c_long
path = folder / "m.clstm"
other = folder / "new.clstm"
models[0].save(path)
calls = {
    "load": lambda: clstm.load(path),
    "stream": lambda: models[0].stream(),
    "save": lambda: models[1].save(path),
}
found = {}
for name, call in calls.items():
    call(), call()
    models[0].save(path)
    n, failed, told = 1, 0, 0
    while True:
        child = os.fork()
        if child == 0:  # its memory is a copy: whatever breaks in it is seen in its status
            def once():
                shim.fail_alloc_arm(n)
                try:
                    call()
                    return int(shim.fail_alloc_arm(0) > 0)
                except Exception as error:
                    shim.fail_alloc_arm(0)
                    return 3 if isinstance(error, MemoryError) else 1
            hit = once()
            for _ in range(2):
                once()
            gc.collect()
            live = shim.fail_alloc_live()
            for _ in range(3):
                once()
            gc.collect()
            leaked = shim.fail_alloc_live() - live >= 3
            call()  # all is as it was
            fine = clstm.load(path).fingerprint in known
            names = {p.name for p in folder.iterdir()} - {"m.clstm"}
            os._exit(hit + 4 * leaked + 8 * (not fine) + 16 * bool(names))
        status = os.waitpid(child, 0)[1]
        assert os.WIFEXITED(status), (name, n, status)
        how = os.WEXITSTATUS(status)
        assert how in (0, 1, 3), (name, n, how)
        if how == 0:
            break  # that many requests are not made
        failed += 1
        told += how == 3
        n += 1
    found[name] = [failed, told]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    if "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("not run: the shim is written for glibc")
    out = tmp_path_factory.mktemp("shim") / "fail_alloc.so"
    source = TESTS / "c/fail_alloc.c"
    if subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", out]).returncode:
        pytest.skip("not run: no C compiler")
    return out


# NumPy and Python themselves go on without some blocks, and say something else for want of others
# ("invalid subarray shape"); most must end as MemoryError.
def check_memory(found, least):
    for failed, told in found.values():
        assert failed >= least and 2 * told > failed, found


@linux
def test_no_memory_is_an_error_and_nothing_else(shim, tmp_path):
    """malloc fails at call N, for every N, of load, stream and save: nothing leaks, no half file.

    Not of `.safetensors`: the package is Rust, which ends the process where there is no memory. Nor
    of every object of Python (PYTHONMALLOC=malloc): there NumPy itself falls over."""
    check_memory(run(NO_MEMORY, tmp_path, env={"LD_PRELOAD": str(shim)}), 1)


def test_a_save_with_a_certificate_that_no_load_would_take_writes_nothing(tmp_path):
    """Features that no weights make: the certificate would run 256 rows of 10^6 values."""
    from clstm import nn

    wide = nn.Concat((1, 1, 1, 1))
    layers = [nn.Embedding("e"), wide, *[nn.Concat((k, k, k, k)) for k in range(2, 9)]]
    layers += [nn.Softmax(), nn.Slice(0, 1)]
    import numpy as np

    model = clstm.from_state_dict({"e.weight": np.ones((3, 2), "f4")}, layers=layers)
    x = np.zeros((256, 1), int)
    with pytest.raises(ValueError, match=r"certificate runs 256 rows of \d+ values, too many"):
        model.save(tmp_path / "m.clstm", check=(x, model(x[:1])[0].repeat(256, axis=0)))
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "m.clstm", check=(x[:1], model(x[:1])[0]))
    assert clstm.load(tmp_path / "m.clstm").fingerprint == model.fingerprint
    assert made("lstm")
