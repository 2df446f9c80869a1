# SPDX-License-Identifier: MIT
"""Same bits (promises 3 and 4): one digest of 1,024 random LSTM models, and one of models of every
cell and option, from every way to run them, every kernel set, every compiler with its flags, every
architecture that can be run here, and from every rounding and flushing mode of the caller."""

import re

import pytest

import build
from build import O2, clang, found, gcc, need

DIGEST, MODES = (("digest.c", "drive.c", "check.c"), ("modes.c", "drive.c", "check.c"))
STATIC = ("-O2", "-static")
# What numeric policy 1 gives: of `pack` as clstm 0.1.0 gave it, of `cell_pack` since 0.2.0. They
# change with the policy alone.
POLICY_1 = ["569cd5b886829567", "f0696314118bdc66"]
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


def digest(builder, packs, cc, flags, prefix=()):
    """Runs a build on the packs: (their digests, names of the kernel sets that it ran)."""
    program, values, sets = builder(DIGEST, cc, flags), [], []
    for pack in packs:
        out = build.succeed([*prefix, program, pack, WORK])
        assert re.search(r"digest: \d{5,} passed, 0 failed", out), out
        value, n_models = re.search(r"digest (\w{16}) of (\d+) models", out).groups()
        values.append(value)
        sets.append(re.findall(rf"^(\w+): {n_models} models, same bits$", out, re.MULTILINE))
    assert all(one == sets[0] for one in sets)
    return values, sets[0]


@pytest.fixture(scope="module")
def digests(request, builder, pack, cell_pack):
    """Those of this session's tests, all begun at once: futures of digest() by name. "cc" is the
    line that csrc/README.md gives."""
    builds, packs = {"cc": ("cc", O2)}, [pack, cell_pack]
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
    return {name: builder.pool.submit(digest, builder, packs, *how) for name, how in builds.items()}


@pytest.mark.parametrize("name", HERE)
def test_one_digest_of_all_builds(name, digests):
    need(HERE[name][0](), name.split()[0])
    values, sets = digests[name].result()
    assert values == digests["cc"].result()[0]
    assert "scalar" in sets and len(sets) > (1 if build.ARM else 0)


def test_the_digests_of_the_numeric_policy(digests):
    assert digests["cc"].result()[0] == POLICY_1


def test_one_digest_of_arm_under_qemu(digests):
    need(arm_tools(), "aarch64-linux-gnu-gcc and qemu-aarch64")
    assert digests["arm"].result() == (digests["cc"].result()[0], ["neon", "scalar"])


@pytest.mark.parametrize("which", ["pack", "cell_pack"])
def test_modes_of_the_caller_change_no_bits(which, builder, request):
    done = build.run([builder(MODES), request.getfixturevalue(which), 60])
    if done.returncode == 77:
        pytest.skip(f"not run: {done.stdout}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"modes: \d{5,} passed, 0 failed", done.stdout)


@pytest.mark.parametrize("which", ["pack", "cell_pack"])
def test_modes_of_the_caller_change_no_bits_on_arm(which, builder, request):
    cc, qemu = need(arm_tools(), "aarch64-linux-gnu-gcc and qemu-aarch64")
    out = build.succeed([qemu, builder(MODES, cc, STATIC), request.getfixturevalue(which), 30])
    assert "neon: 16 modes of the caller" in out and ", 0 failed" in out


def test_fast_math_is_refused(tmp_path):
    source = build.ROOT / "csrc/src/kernels/isa_scalar.c"
    include = f"-I{build.ROOT}/csrc/include"
    for tool in filter(None, (gcc(), clang())):
        done = build.run(
            [tool, "-O2", "-ffast-math", include, "-c", source, "-o", tmp_path / "x.o"]
        )
        assert done.returncode != 0 and "fast-math" in done.stderr
