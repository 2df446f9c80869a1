# SPDX-License-Identifier: MIT
"""Rules of the sources that CONTRIBUTING.md states, held by a test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc/src/kernels"
SUFFIXES = {".py", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h", ".cpp", ".hpp", ".rs", ".sh"}
OURS = [
    p
    for folder in ("clstm", "csrc", "tests", "examples", "benchmarks", "tools", "fuzz")
    for p in sorted((ROOT / folder).rglob("*"))
    if p.suffix in SUFFIXES and p.name != "_core.c"
]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code(path: Path) -> str:
    """C without comments and strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', "", text(path), flags=re.S)


@pytest.mark.parametrize("path", OURS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_a_licence_and_at_most_500_lines(path: Path) -> None:
    head = text(path).splitlines()[:3]
    assert any("SPDX-License-Identifier: MIT" in line for line in head)
    assert len(text(path).splitlines()) <= 500


def test_the_public_header_has_at_most_200_lines() -> None:
    assert len(text(ROOT / "csrc/include/clstm.h").splitlines()) <= 200


def test_only_alloc_asks_for_memory_and_only_gemm_knows_a_blas() -> None:
    for path in (ROOT / "csrc/src").rglob("*.[ch]"):
        if path.name != "alloc.c":
            assert not re.search(r"\b(malloc|calloc|realloc|free)\s*\(", code(path)), path
        if path.name not in ("gemm.c", "gemm.h"):
            assert not re.search(r"cblas|dlopen|sgemm\d", code(path)), path


def test_intrinsics_stand_in_the_words_alone() -> None:
    for path in (ROOT / "csrc/src").rglob("*.[ch]"):
        if not path.name.startswith(("vec_", "fpmode")):
            assert not re.search(r"\b_mm\w*_|\bv(ld1|fma|add)q_|__AVX", code(path)), path


def test_the_package_never_imports_torch() -> None:
    for path in (ROOT / "clstm").rglob("*.py*"):
        if path.suffix in {".py", ".pyx"}:
            assert not re.search(r"^\s*(import|from) torch\b", text(path), re.M), path


def _operands(source: str, word: str) -> list[tuple[int, str]]:
    """Where the calls of a word stand, and each of their operands."""
    found = []
    for match in re.finditer(rf"\b{word}\(", source):
        depth, begin = 1, match.end()
        for at in range(match.end(), len(source)):
            depth += {"(": 1, ")": -1}.get(source[at], 0)
            if depth == 0 or (depth == 1 and source[at] == ","):
                found.append((match.start(), source[begin:at].strip()))
                begin = at + 1
            if depth == 0:
                break
    return found


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.inc.h")), ids=lambda p: p.name)
def test_no_product_is_an_operand_of_plus_or_minus(path: Path) -> None:
    """Or a compiler may contract the two, and the bits differ between compilers."""
    source = code(path)
    products = {
        (m.start(), m[1]) for m in re.finditer(r"\b(\w+)\s*=\s*(?:v_mul\(|[\w.\[\]]+ \* )", source)
    }
    for word in ("v_add", "v_sub"):
        for at, operand in _operands(source, word):
            assert not operand.startswith("v_mul("), f"{word}({operand})"
            function = source.rfind("\n}", 0, at)
            near = {name for start, name in products if function < start < at}
            assert operand not in near, f"{word}: {operand} is a product"


def test_that_rule_sees_a_product() -> None:
    assert ("v_mul(a, b)") in [o for _, o in _operands("v_add(c, v_mul(a, b))", "v_add")]


def test_nothing_names_a_machine_or_a_host() -> None:
    words = re.compile(
        "|".join(["/" + "work/", "/" + "root/", "python" + "hosted", "pypi" + r"\.org"])
    )
    for path in [*OURS, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile"]:
        assert not words.search(text(path)), path
