# SPDX-License-Identifier: MIT
"""docs/promises.md names tests that there are and commands that can be run, each of them."""

import ast
import functools
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
SECTIONS = ["Numbers", "Files", "Real time", "Guest", "Disk", "Embedding"]
HEAD = ["promise", "test", "short", "long", "last figure"]
CODE = re.compile(r"`([^`]+)`")


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(page):
    """{section: rows of its one table}, each row five cells."""
    found = {}
    for part in re.split(r"^## ", page, flags=re.M)[1:]:
        title, *lines = part.splitlines()
        rows = [cells(line) for line in lines if line.startswith("|")]
        assert rows[0] == HEAD and set(rows[1]) == {"---"}, title
        found[title] = rows[2:]
    return found


ROWS = [row for rows in tables(PAGE).values() for row in rows]


@functools.cache
def functions_of(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def wrong_test(words):
    """Why `path::name` names no test; "" if it does."""
    path, colons, name = words.partition("::")
    if not (colons and name.startswith("test_") and Path(path).name.startswith("test_")):
        return "not path::name"
    if not (ROOT / path).is_file():
        return "no such file"
    return "" if name in functions_of(path) else "no such test"


def wrong_command(command):
    """Why it cannot be run; "" if it can."""
    words = shlex.split(command)
    while "=" in words[0]:
        words.pop(0)
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        wanted = [word for word in rest if "=" not in word]
        return "" if wanted and set(wanted) <= set(targets) else "no such target"
    if program not in ("pytest", "python", "bash"):
        return f"{program}: none of pytest, python, bash, make"
    files = [word for word in rest if "/" in word and not word.startswith("-")]
    if not files or not all((ROOT / word.partition("::")[0]).exists() for word in files):
        return "no such file"
    if program == "pytest":
        return next((wrong_test(word) for word in files if "::" in word), "") or of_pytest(rest)
    script = (ROOT / files[0]).read_text(encoding="utf-8")
    shared = (ROOT / "tests/long_form.py").read_text(encoding="utf-8")
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    unknown = [o for o in options if f'"{o}"' not in script + shared * ("long_form" in script)]
    return f"no option {unknown}" if unknown else ""


def of_pytest(words):
    """A marker must be one of ours, and a word of -k must stand in a test's name."""
    files = [ROOT / word for word in words if "/" in word and "::" not in word]
    for option, value in pairwise(words):
        if option == "-m" and value not in ("long", "timing"):
            return f"no marker {value}"
        paths = [p for f in files for p in ([f] if f.is_file() else f.rglob("test_*.py"))]
        names = [name for path in paths for name in functions_of(path.relative_to(ROOT))]
        if option == "-k" and not any(value in name for name in names):
            return f"no test with {value} in its name"
    return ""


def test_there_is_a_table_for_every_subject():
    assert list(tables(PAGE)) == SECTIONS
    assert all(rows for rows in tables(PAGE).values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_promise_names_tests_commands_and_a_figure(row):
    assert len(row) == len(HEAD) and row[0]
    tests, short, long = (CODE.findall(cell) for cell in row[1:4])
    assert tests and short and len(short) == 1
    assert bool(long) == bool(row[3])
    assert {words: why for words in tests if (why := wrong_test(words))} == {}
    assert {words: why for words in short + long if (why := wrong_command(words))} == {}
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", row[4]), "a figure has its date"


@pytest.mark.parametrize("words", [
    "tests/unit/test_promises.py", "tests/unit/test_promises.py::test_none",
    "tests/unit/test_none.py::test_a", "tests/unit/test_promises.py::cells",
])  # fmt: skip
def test_a_test_that_is_none_is_seen(words):
    assert wrong_test(words)
    assert not wrong_test("tests/unit/test_promises.py::test_a_test_that_is_none_is_seen")


@pytest.mark.parametrize("command", [
    "make none", "make", "sh tests/native/arm.sh", "pytest tests/none.py", "pytest -m long",
    "pytest -m none tests/unit", "pytest tests/unit/test_promises.py -k none_of_these",
    "pytest tests/unit/test_promises.py::test_none", "python tools/none.py",
    "python tests/native/sweep.py --none", "bash tests/native/none.sh",
])  # fmt: skip
def test_a_command_that_is_none_is_seen(command):
    assert wrong_command(command)


@pytest.mark.parametrize("command", [
    "make sweep ARGS='--threads 2'", "bash tests/native/arm.sh", "pytest -m long tests/unit",
    "pytest tests/unit/test_promises.py -k none_is_seen",
    "PYTHONPATH=tests python tests/native/sweep.py --kernel neon --resume file",
])  # fmt: skip
def test_a_command_that_is_one_passes(command):
    assert not wrong_command(command)
