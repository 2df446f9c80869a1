# SPDX-License-Identifier: MIT
"""Same bits (promises 3 and 4): one digest of 1,024 random models from every way to run
them, every kernel set, every compiler with its flags, every architecture that can be run here, and
from every rounding and flushing mode of the caller."""

import re

import pytest

import build
from build import clang, found, gcc, need
from conftest import N_MODELS

DIGEST, MODES = (("digest.c", "drive.c", "check.c"), ("modes.c", "drive.c", "check.c"))
STATIC = ("-O2", "-static")
WORK = 100_000  # multiply-adds that each way may cost a model
NATIVE = "-march=native"
BUILDS = {
    "gcc -O0": (gcc, "-O0"),
    "gcc -O2": (gcc, "-O2"),  # the line that csrc/README.md gives, but for the name
    f"gcc -O3 {NATIVE}": (gcc, "-O3", NATIVE),
    "gcc -O2 -std=c11": (gcc, "-O2", "-std=c11"),
    "gcc -O2 -ffp-contract=fast": (gcc, "-O2", "-ffp-contract=fast"),
    "clang -O2": (clang, "-O2"),
    f"clang -O3 {NATIVE} -ffp-contract=fast": (clang, "-O3", NATIVE, "-ffp-contract=fast"),
}


@pytest.fixture(scope="module", autouse=True)
def begun(builder):
    """All builds are begun at once; each test waits for its own."""
    builder.start(DIGEST)
    for tool, *flags in BUILDS.values():
        if tool():
            builder.start(DIGEST, tool(), flags)
    if arm_tools():
        builder.start(DIGEST, arm_tools()[0], STATIC)


def arm_tools():
    tools = (found("aarch64-linux-gnu-gcc"), found("qemu-aarch64-static", "qemu-aarch64"))
    return tools if all(tools) and not build.ARM else None


@pytest.fixture(scope="module")
def digest(builder, pack):
    """Runs a build on the pack: (digest, names of the kernel sets that it ran)."""
    known = {}

    def of(name, cc, flags, prefix=()):
        if name not in known:
            out = build.succeed([*prefix, builder(DIGEST, cc, flags), pack, WORK])
            assert re.search(r"digest: \d{5,} passed, 0 failed", out), out
            assert f"of {N_MODELS} models" in out
            sets = re.findall(rf"^(\w+): {N_MODELS} models, same bits$", out, re.MULTILINE)
            known[name] = re.search(r"digest (\w{16})", out)[1], sets
        return known[name]

    return of


@pytest.fixture(scope="module")
def expected(digest):
    """The digest of the line that csrc/README.md gives."""
    return digest("cc -O2", "cc", ("-O2",))[0]


@pytest.mark.parametrize("name", BUILDS)
def test_one_digest_of_all_builds(name, digest, expected):
    tool, *flags = BUILDS[name]
    value, sets = digest(name, need(tool(), name.split()[0]), flags)
    assert value == expected
    assert "scalar" in sets and len(sets) > (1 if build.ARM else 0)


def test_one_digest_of_arm_under_qemu(digest, expected):
    tools = need(arm_tools(), "aarch64-linux-gnu-gcc and qemu-aarch64")
    value, sets = digest("arm", tools[0], STATIC, [tools[1]])
    assert (value, sets) == (expected, ["neon", "scalar"])


def test_modes_of_the_caller_change_no_bits(builder, pack):
    done = build.run([builder(MODES), pack, 60])
    if done.returncode == 77:
        pytest.skip(f"not run: {done.stdout}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"modes: \d{5,} passed, 0 failed", done.stdout)


def test_modes_of_the_caller_change_no_bits_on_arm(builder, pack):
    cc, qemu = need(arm_tools(), "aarch64-linux-gnu-gcc and qemu-aarch64")
    out = build.succeed([qemu, builder(MODES, cc, STATIC), pack, 30])
    assert "neon: 16 modes of the caller" in out and ", 0 failed" in out


def test_fast_math_is_refused(tmp_path):
    source = build.ROOT / "csrc/src/kernels/isa_scalar.c"
    include = f"-I{build.ROOT}/csrc/include"
    for tool in filter(None, (gcc(), clang())):
        done = build.run(
            [tool, "-O2", "-ffast-math", include, "-c", source, "-o", tmp_path / "x.o"]
        )
        assert done.returncode != 0 and "fast-math" in done.stderr
