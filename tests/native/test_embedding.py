# SPDX-License-Identifier: MIT
"""docs/embedding.md, word for word: in the unpacked sdist, a fresh environment and one shell, the
commands of the page print what stands there. And what the page promises beside them."""

import ctypes
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import build
import clstm
from build import TESTS_C, found, linux, need
from clstm import _core, _embed, nn
from packages import ROOT, borrow, unpack

PAGE = ROOT / "docs/embedding.md"
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
BUILD_WHEEL = "python3 -m pip wheel -q --no-deps -w build/dist ."
TOOLS = {"cmake": "cmake", "rustc": "rustc"}  # a block that begins with one needs it


def shell(page, leave_out):
    """The script of all blocks, a mark before each output, and what each is to print."""
    lines, expected, python = ["set -e"], [], ""
    for kind, text in BLOCK.findall(page):
        lines.append(f"printf '\\f{len(expected)}\\n'")
        if kind == "python":  # one session of Python goes through the page
            prints = re.findall(r"^print\(.*\)  # (.*)$", text, re.MULTILINE)
            expected.append("".join(f"{p}\n" for p in prints))
            quiet = re.sub(r"^print\(", "str(", python, flags=re.MULTILINE)
            lines += ["python - <<'END'", quiet + text + "END"]
            python += text
            continue
        commands = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
        out = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("$ "))
        if any(re.match(rf"{word}\b", c) for c in commands for word in leave_out):
            commands, out = [], ""
        lines += commands
        expected.append(out)
    return "\n".join(lines), expected


@pytest.fixture(scope="module")
def place(sdist, tmp_path_factory):
    return unpack(sdist, tmp_path_factory.mktemp("unpacked"))


def follow(place, page, tmp_path, leave_out=()):
    """What the blocks print, and what they should."""
    script, expected = shell(page, leave_out)
    (tmp_path / "borrowed").mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "CLSTM_"))}
    env["PYTHONPATH"] = str(
        borrow(tmp_path / "borrowed", "numpy", "safetensors", "Cython", "setuptools")
    )
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    env |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
    done = build.run(["sh", "-c", script], cwd=place, env=env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    got = re.split(r"\f\d+\n", done.stdout)[1:]
    return [g for g in got if g], [e for e in expected if e]


def settled(outputs):
    """Without the folders of this machine."""
    return [re.sub(r"/\S*/env/lib/python[\d.]+t?/", "/ENV/", text) for text in outputs]


@pytest.mark.skipif(sys.platform == "win32", reason="not run: the page speaks to sh")
def test_the_page_is_what_its_commands_print(place, wheel, tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    missing = [word for word, tool in TOOLS.items() if not shutil.which(tool)]
    for tool in ("cc", "c++"):
        need(found(tool), tool)
    # pip is kept from building again what the session has built with the same hook.
    assert page.count(f"$ {BUILD_WHEEL}\n") == 1
    (place / "build/dist").mkdir(parents=True)
    shutil.copy(wheel, place / "build/dist")
    got, expected = follow(place, page.replace(f"$ {BUILD_WHEEL}\n", ""), tmp_path, missing)
    assert settled(got) == settled(expected)
    assert len(got) == 6 - len(missing)
    if missing:
        pytest.skip(f"not run: no {' and no '.join(missing)}; the rest of the page holds")


@pytest.mark.long
def test_the_page_with_the_wheel_that_it_builds(sdist, tmp_path):
    place = unpack(sdist, tmp_path / "unpacked")
    got, expected = follow(place, PAGE.read_text(encoding="utf-8"), tmp_path)
    assert settled(got) == settled(expected)


@pytest.mark.long
def test_the_oldest_setuptools_that_the_page_allows(wheel, tmp_path):
    """The page itself is replayed with the one that is here. One older than this asks for the
    package `wheel`."""
    (oldest,) = re.findall(r'Cython "setuptools>=([\d.]+)"', PAGE.read_text(encoding="utf-8"))
    build.succeed([sys.executable, "-m", "venv", tmp_path / "env"])
    python = next((tmp_path / "env").glob("*/python"))
    pip = [python, "-m", "pip", "install", "-q"]
    if build.run([*pip, f"setuptools=={oldest}"]).returncode:
        pytest.skip("not run: no index of packages can be reached")
    (tmp_path / "borrowed").mkdir()
    borrowed = borrow(tmp_path / "borrowed", "numpy", "safetensors", "Cython")
    options = {"env": {**os.environ, "PYTHONPATH": str(borrowed)}, "cwd": tmp_path}
    build.succeed([*pip, "--no-deps", wheel], **options)
    shutil.copytree(ROOT / "examples/cython", tmp_path / "example")
    build_here = ["--use-pep517", "--no-build-isolation", "--no-deps"]
    build.succeed([*pip, *build_here, tmp_path / "example"], **options)
    build.succeed([python, "-c", "import closed_loop"], **options)


def test_that_the_replay_sees_a_wrong_line():
    page = "```console\n$ echo 1\n1\n$ echo 2\n```\n```python\nprint(3)  # 4\n```\n"
    script, expected = shell(page, [])
    out = build.succeed(["sh", "-c", script.replace("python -", f"{sys.executable} -")])
    assert re.split(r"\f\d+\n", out)[1:] == ["1\n2\n", "3\n"] and expected == ["1\n", "4\n"]


def test_every_example_is_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    for folder in (ROOT / "examples").iterdir():
        if folder.name != "co2":
            assert f"../examples/{folder.name}" in page, folder
    for link in re.findall(r"\]\(([^)#]+)", page):
        assert (PAGE.parent / link).exists(), link


# ---- clstm config ---------------------------------------------------------------------------


def of_pkg_config(*arguments, package):
    """The words that it says, paths without `..`."""
    command = [need(found("pkg-config"), "pkg-config"), *arguments, "clstm"]
    env = {**os.environ, "PKG_CONFIG_PATH": str(package / "lib/pkgconfig")}
    words = shlex.split(build.succeed(command, env=env))
    return [w[:2] + os.path.normpath(w[2:]) if w[:2] in ("-I", "-L") else w for w in words]


def of_config(*arguments):
    return shlex.split(build.succeed([sys.executable, "-m", "clstm", "config", *arguments]))


def test_the_flags_are_those_of_pkg_config(tmp_path):
    """Of a package that was moved, under a name with a blank, too."""
    package = Path(clstm.get_include()).parent
    assert clstm.get_library_dir() == str(package / "lib")
    assert of_config("--pkgconfigdir") == [str(package / "lib/pkgconfig")]
    for arguments in (["--cflags"], ["--libs"], ["--cflags", "--libs"]):
        assert of_config(*arguments) == of_pkg_config(*arguments, package=package)
    assert of_pkg_config("--modversion", package=package) == [clstm.__version__]
    moved = tmp_path / "a place"
    for name in ("include", "lib"):
        shutil.copytree(package / name, moved / name)
    words = of_pkg_config("--cflags", "--libs", package=moved)
    assert words[:2] == [f"-I{moved}/include", f"-L{moved}/lib"]
    build.succeed(["cc", TESTS_C / "abi_1.c", *words, "-o", tmp_path / "program"])
    build.succeed([tmp_path / "program"])


def test_what_was_not_built_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(_embed, "_PACKAGE", tmp_path)
    for ask in (clstm.get_include, clstm.get_library_dir, lambda: _embed.flags(True, True)):
        with pytest.raises(FileNotFoundError, match="pip install"):
            ask()


def test_the_extension_keeps_its_engine_to_itself():
    """Or that of a program which embeds Python, or of another plugin, would take its place."""
    nm = need(found("nm"), "nm")
    if not sys.platform.startswith("linux"):
        pytest.skip("not run: the names of other systems have a library each")
    names = build.succeed([nm, "-D", "--defined-only", _core.__file__])
    assert "PyInit__core" in names and "clstm_" not in names


PLUGIN = """
#include <clstm.h>
__attribute__((visibility("default"))) int plugin(void) { return clstm_abi_version(); }
"""


@linux
def test_a_plugin_takes_the_static_library_and_keeps_its_names(tmp_path):
    (tmp_path / "plugin.c").write_text(PLUGIN)
    flags = shlex.split(_embed.flags(cflags=True, libs=True))
    flags += ["-Wl,--exclude-libs,libclstm.a", "-Wl,-z,defs"]
    path = tmp_path / "plugin.so"
    build.succeed(["cc", "-shared", "-fPIC", tmp_path / "plugin.c", *flags, "-o", path])
    assert ctypes.CDLL(str(path)).plugin() == 1
    names = re.findall(r"(?m) T (\w+)$", build.succeed([need(found("nm"), "nm"), "-D", path]))
    assert names == ["plugin"]
    assert "--exclude-libs,libclstm.a" in PAGE.read_text(encoding="utf-8")


# ---- CMake ----------------------------------------------------------------------------------

SUBDIRECTORY = """
cmake_minimum_required(VERSION 3.16)
project(app LANGUAGES C)
add_subdirectory({root} engine)
add_executable(app {root}/tests/c/abi_1.c)
target_link_libraries(app PRIVATE clstm::clstm)
"""


def test_as_a_shared_library_in_a_project_of_ones_own(tmp_path):
    cmake = need(found("cmake"), "cmake")
    (tmp_path / "CMakeLists.txt").write_text(SUBDIRECTORY.format(root=ROOT))
    options = ["-DBUILD_SHARED_LIBS=ON", "-DCMAKE_C_FLAGS=-O0"]
    build.succeed([cmake, "-S", tmp_path, "-B", tmp_path / "build", *options])
    build.succeed([cmake, "--build", tmp_path / "build", "-j2"])
    build.succeed([tmp_path / "build/app"])
    if sys.platform.startswith("linux"):
        library = tmp_path / "build/engine/libclstm.so.1"
        assert library.resolve().name == f"libclstm.so.{clstm.__version__}"
        names = set(re.findall(r"(?m) T (\w+)$", build.succeed(["nm", "-D", library])))
        assert names == set(re.findall(r"\b(clstm_\w+)\(", (TESTS_C / "abi_1.c").read_text()))


# ---- the audio callback ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def mono(tmp_path_factory):
    """A model of one input and one output."""
    rng = np.random.default_rng(8)
    shapes = {"l.weight_ih_l0": (96, 1), "l.weight_hh_l0": (96, 24), "fc.weight": (1, 24)}
    tensors = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("mono") / "m.clstm"
    clstm.from_state_dict(tensors, layers=[nn.LSTM("l"), nn.Linear("fc")]).save(path)
    return path


@pytest.fixture(scope="module")
def callback(tmp_path_factory):
    program = tmp_path_factory.mktemp("audio") / "audio_blocks"
    flags = shlex.split(_embed.flags(cflags=True, libs=True))
    build.succeed(["cc", "-O2", TESTS_C / "audio_blocks.c", *flags, "-o", program])
    return program


@linux
def test_the_audio_callback_allocates_nothing(callback, mono, count_alloc):
    env = {**os.environ, "LD_PRELOAD": str(count_alloc)}
    assert build.succeed([callback, mono], env=env) == "check 0, 0 allocations\n"


@linux
def test_the_audio_callback_makes_no_system_call(callback, mono):
    done = build.run([callback, mono, "sealed"])
    if done.returncode == 77:
        pytest.skip("not run: no seccomp here")
    assert done.returncode == 0
