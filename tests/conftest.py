# SPDX-License-Identifier: MIT
"""One thread for every library here: the suite runs in several processes on few cores, and
threads that wait for each other by spinning take the time of those that work."""

import os
from pathlib import Path

import pytest

import packages

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def sdist(shared: Path) -> Path:
    def make(target: Path) -> None:
        packages.copy_tree(target / "tree")
        packages.build("sdist", target / "tree", target, SOURCE_DATE_EPOCH="1000000000")

    return next(packages.once(shared / "sdist", make).glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, shared: Path) -> Path:
    def make(target: Path) -> None:
        packages.build("wheel", packages.unpack(sdist, target / "tree"), target)

    return next(packages.once(shared / "wheel", make).glob("*.whl"))
