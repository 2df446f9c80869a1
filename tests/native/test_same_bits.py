# SPDX-License-Identifier: MIT
"""Same bits (promises 3 and 4): one digest of 1,024 random models from every way to run
them, every kernel set, every compiler with its flags, every architecture that can be run here, and
from every rounding and flushing mode of the caller."""

import re

import pytest
from models import N_MODELS

import build
from build import O2, clang, found, gcc, need

DIGEST, MODES = (("digest.c", "drive.c", "check.c"), ("modes.c", "drive.c", "check.c"))
STATIC = ("-O2", "-static")
WORK = 100_000  # multiply-adds that each way may cost a model
NATIVE = "-march=native"
HERE = {
    "gcc -O0": (gcc, "-O0"),
    "gcc -O2": (gcc, *O2),
    f"gcc -O3 {NATIVE}": (gcc, "-O3", NATIVE),
    "gcc -O2 -std=c11": (gcc, "-O2", "-std=c11"),
    "gcc -O2 -ffp-contract=fast": (gcc, "-O2", "-ffp-contract=fast"),
    "clang -O2": (clang, *O2),
    f"clang -O3 {NATIVE} -ffp-contract=fast": (clang, "-O3", NATIVE, "-ffp-contract=fast"),
}


def arm_tools():
    """Compiler and emulator for AArch64, on a machine that is none."""
    tools = (found("aarch64-linux-gnu-gcc"), found("qemu-aarch64-static", "qemu-aarch64"))
    return tools if all(tools) and not build.ARM else None


def digest(builder, pack, cc, flags, prefix=()):
    """Runs a build on the pack: (digest, names of the kernel sets that it ran)."""
    out = build.succeed([*prefix, builder(DIGEST, cc, flags), pack, WORK])
    assert re.search(r"digest: \d{5,} passed, 0 failed", out), out
    assert f"of {N_MODELS} models" in out
    sets = re.findall(rf"^(\w+): {N_MODELS} models, same bits$", out, re.MULTILINE)
    return re.search(r"digest (\w{16})", out)[1], sets


@pytest.fixture(scope="module")
def digests(request, builder, pack):
    """Those of this session's tests, all begun at once: futures of digest() by name. "cc" is the
    line that csrc/README.md gives."""
    builds = {"cc": ("cc", O2)}
    chosen = {
        getattr(i, "callspec", None) and i.callspec.params.get("name")
        for i in request.session.items
    }
    for name in HERE:
        tool, *flags = HERE[name]
        if name in chosen and tool():
            builds[name] = (tool(), flags)
    if arm_tools():
        cc, qemu = arm_tools()
        builds["arm"] = (cc, STATIC, [qemu])
    for cc, flags, *_ in builds.values():
        builder.start(DIGEST, cc, flags)
    return {name: builder.pool.submit(digest, builder, pack, *how) for name, how in builds.items()}


@pytest.mark.parametrize("name", HERE)
def test_one_digest_of_all_builds(name, digests):
    need(HERE[name][0](), name.split()[0])
    value, sets = digests[name].result()
    assert value == digests["cc"].result()[0]
    assert "scalar" in sets and len(sets) > (1 if build.ARM else 0)


def test_one_digest_of_arm_under_qemu(digests):
    need(arm_tools(), "aarch64-linux-gnu-gcc and qemu-aarch64")
    assert digests["arm"].result() == (digests["cc"].result()[0], ["neon", "scalar"])


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
