# SPDX-License-Identifier: MIT
"""That a kernel set is what its name says, from the machine code: of objects
built with the flags of setup.py, and of the installed extension."""

import ast
import re
import subprocess
import sys

import pytest

import build
import clstm
from build import ROOT, found, need
from clstm import _core

# What the products of a set are made of, and what no function of it may contain.
FMA = {
    "scalar": (r"\bcall.*fmaf|vfn?m(add|sub)\d+ss", r"%[yz]mm"),
    "avx2": (r"vfn?madd\d+ps.*%ymm", r"%zmm"),
    "avx512": (r"vfn?madd\d+ps.*%zmm", None),
    "neon": (r"\bfmla\s+v\d+\.4s", None),
}
PRODUCTS = ("cell", "product", "rows")  # what the table of a set points to, and calls


def setup_flags():
    text = (ROOT / "setup.py").read_text()
    return ast.literal_eval(re.search(r"^FLAGS = (\[.*?\])", text, re.DOTALL | re.MULTILINE)[1])


def functions(objdump, path):
    """{name: [(address, instruction)]} of one object; local copies of a name keep the first."""
    out = build.succeed([objdump, "-d", "-r", "--no-show-raw-insn", path])
    found_, name = {}, None
    for line in out.splitlines():
        if head := re.match(r"[0-9a-f]+ <([^>]+)>:$", line):
            name = head[1]
            found_[name] = []
        elif name and (code := re.match(r" +([0-9a-f]+):\t(.+)", line)):
            found_[name].append((int(code[1], 16), code[2]))
        elif name and "R_" in line and found_[name]:  # the name that a call goes to
            at, text = found_[name][-1]
            found_[name][-1] = at, f"{text} {line.split()[-1]}"
    return found_


def of_products(code):
    """The functions in which the products are, however the compiler divided them."""
    return {
        n: lines
        for n, lines in code.items()
        if re.match(rf"({'|'.join(PRODUCTS)}|tile)(_|\.|$)", n)
    }


def innermost_loops(lines):
    """Instructions between the target of a jump back and the jump, without loops around loops."""
    spans = []
    for at, text in lines:
        jump = re.match(r"(?:j\w+|b\.?\w*|cbn?z|tbn?z)\s+(?:\S+, )*([0-9a-f]+)\b", text)
        if jump and lines[0][0] <= int(jump[1], 16) <= at:
            spans.append((int(jump[1], 16), at))
    for first, last in spans:
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in spans):
            yield [text for at, text in lines if first <= at <= last]


def check_set(kernel, code):
    wanted, banned = FMA[kernel]
    products = of_products(code)
    for name in PRODUCTS:
        family = [text for n, lines in products.items() if n.startswith(name) for _, text in lines]
        assert any(re.search(wanted, text) for text in family), f"{kernel}: {name} has no {wanted}"
    everything = [text for lines in code.values() for _, text in lines]
    if banned:
        assert not [text for text in everything if re.search(banned, text)][:3]
    if kernel == "scalar":
        return  # its fmaf may be a call
    hot = [
        loop
        for lines in products.values()
        for loop in innermost_loops(lines)
        if sum(bool(re.search(wanted, text)) for text in loop) >= 4
    ]
    assert len(hot) >= 4
    for loop in hot:
        assert not [text for text in loop if re.match(r"call|bl\b|blr", text)]
    # and from the other side: the lanes are used, nearly all products are of whole vectors
    vector = sum(bool(re.search(wanted, text)) for text in everything)
    single = sum(bool(re.search(r"vfn?madd\d+ss|\bfmadd\s+s", text)) for text in everything)
    assert vector > 100 > 10 * single


def compiled(builder_folder, cc, kernel, flags):
    out = builder_folder / f"{kernel}.o"
    source = ROOT / f"csrc/src/kernels/isa_{kernel}.c"
    build.succeed([cc, *flags, f"-I{ROOT}/csrc/include", "-c", source, "-o", out])
    return out


@pytest.mark.parametrize(
    "kernel", ["scalar", "neon"] if build.ARM else ["scalar", "avx2", "avx512"]
)
@pytest.mark.parametrize("compiler", ["cc", build.clang])
def test_objects(kernel, compiler, tmp_path):
    if not (build.X86 or build.ARM):
        pytest.skip("not run: neither x86-64 nor AArch64")
    cc = compiler if compiler == "cc" else need(compiler(), "clang")
    objdump = need(found("objdump"), "objdump")
    check_set(kernel, functions(objdump, compiled(tmp_path, cc, kernel, [*setup_flags(), "-fPIC"])))


@pytest.mark.skipif(not build.X86, reason="not run: not x86-64")
@pytest.mark.parametrize("level", ["-O0", "-O1", "-Os"])
@pytest.mark.parametrize("kernel", ["avx2", "avx512"])
def test_wide_registers_are_left_clean(kernel, level, tmp_path):
    """Or SSE code of the host runs 20 times slower after a step; gcc does it from -O2 on only."""
    objdump = need(found("objdump"), "objdump")
    code = functions(objdump, compiled(tmp_path, "cc", kernel, [level]))
    for name in ("product", "cell", "map", "norm"):
        last = [text for _, text in code[name]].index("ret")
        assert any("vzeroupper" in text for _, text in code[name][:last]), name


def test_neon_from_the_cross_compiler(tmp_path):
    cc = need(found("aarch64-linux-gnu-gcc"), "aarch64-linux-gnu-gcc")
    objdump = need(found("aarch64-linux-gnu-objdump"), "aarch64-linux-gnu-objdump")
    check_set("neon", functions(objdump, compiled(tmp_path, cc, "neon", setup_flags())))


def test_installed_extension():
    """The names of the three sets are the same there: the table of symbols has them by file."""
    objdump = need(found("objdump"), "objdump")
    if sys.platform == "darwin":
        pytest.skip("not run: objdump of another format")
    path = _core.__file__
    table = build.succeed([objdump, "-t", path])
    spans, file = {}, ""
    for line in table.splitlines():
        if " df *ABS*" in line:
            file = line.split()[-1]
        elif m := re.match(r"([0-9a-f]+) l +F \.text\s+([0-9a-f]+)\s+(\S+)$", line):
            spans.setdefault(file, []).append((int(m[1], 16), int(m[2], 16), m[3]))
    kernels = [k for k in clstm.available_kernels() if f"isa_{k}.c" in spans]
    if not kernels:
        pytest.skip("not run: the extension has no symbols")
    assert kernels == list(clstm.available_kernels())
    for kernel in kernels:
        code = {}
        for at, size, name in spans[f"isa_{kernel}.c"]:
            where = [f"--start-address={at}", f"--stop-address={at + size}"]
            out = build.succeed([objdump, "-d", "--no-show-raw-insn", *where, path])
            lines = re.findall(r"^ +([0-9a-f]+):\t(.+)", out, re.MULTILINE)
            code[name] = [(int(a, 16), text) for a, text in lines]
        check_set(kernel, code)
    assert "set_fast_math" not in table  # crtfastmath.o: its constructor sets FTZ for everybody


DENORMALS = """
import numpy as np
before = np.float32(1e-40) * np.float32(0.5)
import clstm
w = {"weight_ih_l0": np.ones((32, 5), np.float32), "weight_hh_l0": np.ones((32, 8), np.float32)}
clstm.from_state_dict(w)(np.ones((4, 3, 5), np.float32))
assert before == np.float32(1e-40) * np.float32(0.5) > 0
"""


def test_importing_it_keeps_denormals():
    subprocess.run([sys.executable, "-c", DENORMALS], check=True, timeout=60)
