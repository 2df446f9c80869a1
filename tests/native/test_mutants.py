# SPDX-License-Identifier: MIT
"""Every fault of the table in mutants.py makes its named check fail, and no fault does not."""

import re
import shutil
import subprocess
from pathlib import Path

import models
import pytest
from mutants import MUTANTS

import build
import clstm
from build import ROOT, TESTS_C

BEST = clstm.available_kernels()[0]
CHECKS = {
    "check_kernels": ("check_kernels.c", "oracle.c", "check.c"),
    "digest": ("digest.c", "drive.c", "check.c"),
    "modes": ("modes.c", "drive.c", "check.c"),
}


@pytest.fixture(scope="module")
def small_pack(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "models"
    return models.write_pack(path, models.images(240, seed=9, certified=2))


def arguments(check, kernel, pack):
    """Only the set that has the fault, so that another one cannot give it away; but a fault in
    the words of one set alone is for the comparison of all."""
    return {"check_kernels": kernel, "digest": [pack, 50_000, *kernel], "modes": [pack, 4]}[check]


@pytest.mark.parametrize("check", CHECKS)
def test_sound_sources_pass(check, builder, small_pack):
    build.succeed([builder(CHECKS[check]), *arguments(check, [], small_pack)])


def affected(mutant, kernel):
    """The sources to compile anew: a header of the kernels goes into that set alone."""
    path, folder = Path(mutant.file), ROOT / "csrc/src"
    if path.suffix == ".c":
        return [path]
    if path.parent.name == "kernels":
        return [Path(f"kernels/isa_{kernel}.c")]
    return [f.relative_to(folder) for f in folder.glob("*.c") if path.name in f.read_text()]


def survives(mutant, builder, pack, folder):
    """Builds and runs one mutant; returns what its check printed if that passed, else None."""
    kernel = mutant.kernel or BEST
    copy = folder / "csrc"
    shutil.copytree(ROOT / "csrc", copy)
    file = copy / "src" / mutant.file
    source = file.read_text()
    # White space is the formatter's business, not a mutant's.
    found = list(re.finditer(r"\s+".join(map(re.escape, mutant.text.split())), source))
    assert len(found) == 1, f"{mutant.file}: not found once: {mutant.text}"
    file.write_text(source[: found[0].start()] + mutant.instead + source[found[0].end() :])
    objects = {o.result().name: o.result() for o in builder.start(CHECKS[mutant.check])}
    for name in affected(mutant, kernel):
        out = folder / f"{name.parent.name or 'src'}-{name.stem}.o"
        build.succeed(
            ["cc", "-O2", "-w", f"-I{copy}/include", "-c", copy / "src" / name, "-o", out]
        )
        objects[out.name] = out
    program = folder / mutant.check
    build.succeed(["cc", *objects.values(), *build.LIBRARIES, "-o", program])
    sets = [] if "vec_" in mutant.file else [kernel]
    try:
        done = build.run([program, *arguments(mutant.check, sets, pack)], timeout=60)
    except subprocess.TimeoutExpired:
        return None  # noticed: the sound one takes a second
    return done.stdout[-500:] if done.returncode == 0 else None


def can_run(mutant):
    return (mutant.kernel or BEST) in clstm.available_kernels()


@pytest.fixture(scope="module")
def outcomes(request, builder, small_pack, tmp_path_factory):
    """The mutants that this session has collected, all begun at once; futures by name."""
    for programs in CHECKS.values():
        builder.start(programs)
    params = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [p.params["mutant"] for p in params if p and "mutant" in p.params]
    return {
        m.name: builder.pool.submit(
            survives, m, builder, small_pack, tmp_path_factory.mktemp("mutant")
        )
        for m in filter(can_run, chosen)
    }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name.replace(" ", "-"))
def test_mutant_is_noticed(mutant, outcomes):
    if not can_run(mutant):
        pytest.skip(f"not run: no {mutant.kernel} here")
    printed = outcomes[mutant.name].result()
    assert printed is None, f"{mutant.check} did not notice: {printed}"


def test_table_is_large_enough():
    assert len(MUTANTS) >= 25 and len({m.name for m in MUTANTS}) == len(MUTANTS)
    assert {m.check for m in MUTANTS} <= set(CHECKS)
    assert all((TESTS_C / c[0]).exists() for c in CHECKS.values())
