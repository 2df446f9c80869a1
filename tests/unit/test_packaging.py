# SPDX-License-Identifier: MIT
"""The sdist builds, the wheel that it gives is small and whole, and runs where it is put."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = "import sys, setuptools.build_meta as b; print(b.build_{}(sys.argv[1]))"


def build(kind: str, source: Path, target: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HOOK.format(kind), str(target)],
        cwd=source, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return target / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes into the tree that it builds."""
    copy = tmp_path_factory.mktemp("tree") / "clstm"
    ignored = {".git", ".venv", "build", ".hypothesis", ".mypy_cache", ".pytest_cache"}
    names = [p for p in ROOT.iterdir() if p.name not in ignored]
    copy.mkdir()
    subprocess.run(["cp", "-r", *map(str, names), str(copy)], check=True)
    for built in [*copy.rglob("*.so"), *copy.rglob("*.egg-info/*")]:
        built.unlink()
    return build("sdist", copy, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    return build("wheel", next(folder.iterdir()), tmp_path_factory.mktemp("wheel"))


def test_the_sdist_has_every_source_and_what_readme_runs(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    tracked = [
        str(p.relative_to(ROOT))
        for folder in ("clstm", "csrc", "tests", "examples", "benchmarks", "docs", "tools")
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and p.suffix not in {".so", ".pyc", ".o"} and "__pycache__" not in p.parts
    ]
    missing = {*tracked, "Makefile", "README.md", "LICENSE", "pyproject.toml"} - names
    assert not missing - {"clstm/_core.c"}


def test_the_wheel_is_small_and_carries_no_generated_c(wheel: Path) -> None:
    assert wheel.stat().st_size < 2_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        meta = email.message_from_bytes(
            archive.read(next(n for n in names if n.endswith("/METADATA")))
        )
    assert not [n for n in names if n.endswith((".c", ".pyx", ".o"))]
    for need in ("clstm/py.typed", "clstm/_core.pyi", "clstm/_core.pxd", "clstm/capi.pxd"):
        assert need in names
    required = [r for r in meta.get_all("Requires-Dist") if "extra" not in r]
    assert sorted(r.partition(">")[0] for r in required) == ["numpy", "safetensors"]
    assert meta["License-Expression"] == "MIT"


def test_the_wheel_runs_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target",
         str(tmp_path / "site"), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    program = (
        "import clstm, numpy as np, sys; assert clstm.__file__.startswith(sys.argv[1]);"
        "rng = np.random.default_rng(0);"
        "m = clstm.from_state_dict({'weight_ih_l0': rng.normal(size=(12, 2)),"
        " 'weight_hh_l0': rng.normal(size=(12, 3))});"
        "print(m.stream().step(np.ones(2, 'f')).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "site")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "(3,)"
