# SPDX-License-Identifier: MIT
"""The sdist and the wheel, built once for all workers of a session."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOOK = "import sys, setuptools.build_meta as b; print(b.build_{}(sys.argv[1]))"
IGNORED = {".git", ".venv", "build", "dist", ".hypothesis", ".mypy_cache", ".pytest_cache"}
# What `pip install -e .` leaves in the tree.
BUILT = ("*.so", "*.egg-info", "clstm/_core.c", "clstm/include", "clstm/lib", "__pycache__")


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """make(target), a new folder, by whichever worker comes first; the others wait for it."""
    import fcntl  # no test of a wheel on Windows comes here

    done = target.with_suffix(".done")
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            make(target)
            done.touch()
    return target


def copy_tree(target: Path, source: Path = ROOT) -> None:
    """As a checkout: setuptools writes into the tree that it builds."""
    target.mkdir()
    names = [str(p) for p in source.iterdir() if p.name not in IGNORED]
    subprocess.run(["cp", "-r", *names, str(target)], check=True)
    for pattern in BUILT:
        for path in [*target.glob(f"**/{pattern}")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def build(kind: str, source: Path, target: Path, **env: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HOOK.format(kind), str(target)],
        cwd=source, check=True, capture_output=True, text=True, env={**os.environ, **env},
    )  # fmt: skip
    return target / done.stdout.split()[-1]


def unpack(sdist: Path, target: Path) -> Path:
    """The one folder that it holds."""
    with tarfile.open(sdist) as tar:
        tar.extractall(target, filter="data")
    return next(target.iterdir())


def borrow(folder: Path, *names: str) -> Path:
    """A folder for PYTHONPATH with these distributions, as they are installed here: pip takes
    them for installed, so a fresh environment needs no network, and clstm is not among them."""
    for name in names:
        site = Path(str(metadata.distribution(name).locate_file("")))
        tops = {Path(f).parts[0] for f in metadata.distribution(name).files or ()}
        for top in tops - {"..", "__pycache__"}:
            (folder / top).symlink_to(site / top)
    return folder
