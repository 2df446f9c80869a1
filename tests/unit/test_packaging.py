# SPDX-License-Identifier: MIT
"""The sdist builds, the wheel that it gives is small and whole, and runs where it is put."""

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import packages

ROOT = packages.ROOT


def test_the_sdist_has_every_source_and_what_readme_runs(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    packages.copy_tree(tmp_path / "tree")
    tracked = {
        str(p.relative_to(tmp_path / "tree"))
        for folder in ("clstm", "csrc", "tests", "examples", "benchmarks", "docs", "tools")
        for p in (tmp_path / "tree" / folder).rglob("*")
        if p.is_file()
    }
    assert len(tracked) > 200
    more = {"Makefile", "CMakeLists.txt", "README.md", "LICENSE", "pyproject.toml"}
    assert not (tracked | more) - names
    assert not [n for n in names if n.endswith((".so", ".a")) or n.startswith("clstm/include/")]


def test_two_sdists_are_the_same_bytes(sdist: Path, tmp_path: Path) -> None:
    """From another copy, at another time, with files of other times and rights of the group."""
    packages.copy_tree(tmp_path / "tree", sdist.parent / "tree")
    for path in (tmp_path / "tree").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(path.stat().st_mode | 0o020)
    again = packages.build("sdist", tmp_path / "tree", tmp_path, SOURCE_DATE_EPOCH="1000000000")
    assert again.name == sdist.name
    assert again.read_bytes() == sdist.read_bytes()
    later = packages.build("sdist", tmp_path / "tree", tmp_path, SOURCE_DATE_EPOCH="1000000001")
    assert later.read_bytes() != sdist.read_bytes()


def test_the_wheel_is_small_and_carries_no_generated_c(wheel: Path) -> None:
    assert wheel.stat().st_size < 2_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        meta = email.message_from_bytes(
            archive.read(next(n for n in names if n.endswith("/METADATA")))
        )
    assert not [n for n in names if n.endswith((".c", ".pyx", ".o"))]
    need = {"py.typed", "_core.pyi", "__init__.pxd", "_core.pxd", "capi.pxd", "lib/libclstm.a"}
    need |= {"include/clstm.h", "include/clstm.hpp", "lib/pkgconfig/clstm.pc"}
    assert {f"clstm/{name}" for name in need} <= set(names)
    assert not [n for n in names if not n.startswith(("clstm/", "clstm-"))]
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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="not run: no tomllib")
def test_the_wheels_of_every_system_are_tested_with_files_that_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheels = project["tool"]["cibuildwheel"]
    oldest = project["project"]["requires-python"].removeprefix(">=").replace(".", "")
    assert wheels["build"].split()[0] == f"cp{oldest}-*"
    files = re.findall(r"\{project\}/(\S+)", wheels["test-command"])
    assert files and all((ROOT / name).is_file() for name in files)
    page = (ROOT / "docs/packaging.md").read_text(encoding="utf-8")
    for word in ("manylinux", "musllinux", "macOS", "Windows", "cp314t", "abi3"):
        assert word in page
