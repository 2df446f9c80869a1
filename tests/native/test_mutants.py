# SPDX-License-Identifier: MIT
"""Every fault of the table in mutants.py makes its named check fail, and no fault does not."""

import re
import shutil
import subprocess
from pathlib import Path

import cell_models
import hostile_images
import models
import pytest
import test_hostile
from mutants_core import MUTANTS
from test_hostile import FAILING_MALLOC, READER

import build
import clstm
from build import ROOT, TESTS_C

BEST = clstm.available_kernels()[0]
CHECKS = {  # programs, and the flags that they are built with
    "check_kernels": (build.CHECK_KERNELS, ("-O2",)),
    "check_models": (build.CHECK_MODELS, ("-O2",)),
    "sweep": (("sweep_activations.c",), ("-O2",)),
    "cells": (("digest.c", "drive.c", "check.c"), ("-O2",)),
    "digest": (("digest.c", "drive.c", "check.c"), ("-O2",)),
    "modes": (("modes.c", "drive.c", "check.c"), ("-O2",)),
    "check_file": (("check_file.c", "hostile.c", "check.c"), READER),
    "check_refused": (("check_refused.c", "check.c"), ("-O0",)),
    "check_memory": (("check_memory.c", "check.c"), FAILING_MALLOC),
    "many_callers": build.MANY_CALLERS,
    "first_jobs": (("first_jobs.c", "check.c"), ("-O2",)),
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Small ones: of models to run, LSTMs and any, of images to damage and of such as are to be
    refused; and one image alone."""
    folder = tmp_path_factory.mktemp("small")
    images = list(test_hostile.small())
    (folder / "one").write_bytes(images[0])
    some = {
        "run": models.images(240, seed=9, certified=2),
        "cells": cell_models.images(4 * len(cell_models.FORMS), seed=9),
        "damage": images,
        "refused": hostile_images.refused(),
    }
    packs = {name: models.write_pack(folder / name, these) for name, these in some.items()}
    large = models.large()
    (folder / "large").write_bytes(large)
    return packs | {"one": folder / "one", "large": folder / "large"}


def arguments(check, kernel, packs):
    """Only the set that has the fault, so that another one cannot give it away; but a fault in
    the words of one set alone is for the comparison of all."""
    return {
        "check_kernels": kernel,
        "check_models": [packs["cells"], *kernel],
        "sweep": [*(kernel or [BEST]), 61],
        "digest": [packs["run"], 50_000, *kernel],
        "cells": [packs["cells"], 100_000, *kernel],
        "modes": [packs["run"], 4],
        "check_file": [packs["damage"], 5_000],
        "check_refused": [packs["refused"]],
        "check_memory": [packs["damage"], packs["one"]],
        "many_callers": [packs["large"], 3, 3, 8],
        "first_jobs": [packs["large"], 4, 2],
    }[check]


@pytest.mark.parametrize("check", CHECKS)
def test_sound_sources_pass(check, builder, packs):
    programs, flags = CHECKS[check]
    build.succeed([builder(programs, "cc", flags), *arguments(check, [], packs)])


def affected(mutant, kernel):
    """The sources to compile anew: a header of the kernels goes into that set alone."""
    path, folder = Path(mutant.file), ROOT / "csrc/src"
    if path.suffix == ".c":
        return [path]
    if path.parent.name == "kernels":
        return [Path(f"kernels/isa_{kernel}.c")]
    return [f.relative_to(folder) for f in folder.glob("*.c") if path.name in f.read_text()]


def place(mutant, source):
    """Where its text stands. White space is the formatter's business, not a mutant's."""
    found = list(re.finditer(r"\s+".join(map(re.escape, mutant.text.split())), source))
    assert len(found) == 1, f"{mutant.file}: not found once: {mutant.text}"
    return found[0]


def survives(mutant, builder, packs, folder):
    """Builds and runs one mutant; returns what its check printed if that passed, else None."""
    kernel = mutant.kernel or BEST
    copy = folder / "csrc"
    shutil.copytree(ROOT / "csrc", copy)
    file = copy / "src" / mutant.file
    source = file.read_text()
    found = place(mutant, source)
    file.write_text(source[: found.start()] + mutant.instead + source[found.end() :])
    programs, flags = CHECKS[mutant.check]
    objects = {o.result().name: o.result() for o in builder.start(programs, "cc", flags)}
    for name in affected(mutant, kernel):
        out = folder / f"{name.parent.name or 'src'}-{name.stem}.o"
        changed = [f"-I{copy}/include", "-c", copy / "src" / name]
        build.succeed(["cc", *flags, "-w", *changed, "-o", out])
        objects[out.name] = out
    program = folder / mutant.check
    build.succeed(["cc", *flags, *objects.values(), *build.LIBRARIES, "-o", program])
    sets = [] if "vec_" in mutant.file else [kernel]
    try:
        done = build.run([program, *arguments(mutant.check, sets, packs)], timeout=60)
    except subprocess.TimeoutExpired:
        return None  # noticed: the sound one takes a second
    return done.stdout[-500:] if done.returncode == 0 else None


def can_run(mutant):
    return (mutant.kernel or BEST) in clstm.available_kernels()


@pytest.fixture(scope="module")
def outcomes(request, builder, packs, tmp_path_factory):
    """The mutants that this session has collected, all begun at once; futures by name."""
    for programs, flags in CHECKS.values():
        builder.start(programs, "cc", flags)
    params = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [p.params["mutant"] for p in params if p and "mutant" in p.params]
    return {
        m.name: builder.pool.submit(survives, m, builder, packs, tmp_path_factory.mktemp("mutant"))
        for m in filter(can_run, chosen)
    }


# A seventh in the suite, from every part of the table; `make test-long` has all.
SOME = [pytest.param(m, id=m.name.replace(" ", "-"), marks=[pytest.mark.long] if i % 7 else [])
        for i, m in enumerate(MUTANTS)]  # fmt: skip


@pytest.mark.parametrize("mutant", SOME)
def test_mutant_is_noticed(mutant, outcomes):
    if not can_run(mutant):
        pytest.skip(f"not run: no {mutant.kernel} here")
    printed = outcomes[mutant.name].result()
    assert printed is None, f"{mutant.check} did not notice: {printed}"


@pytest.mark.parametrize("file", sorted({m.file for m in MUTANTS}))
def test_table_follows_the_sources(file):
    """All of it, where the suite builds a seventh."""
    source = (ROOT / "csrc/src" / file).read_text()
    for mutant in MUTANTS:
        if mutant.file == file:
            place(mutant, source)


def test_table_is_large_enough():
    assert len(MUTANTS) >= 25 and len({m.name for m in MUTANTS}) == len(MUTANTS)
    assert {m.check for m in MUTANTS} <= set(CHECKS)
    assert all((TESTS_C / p[0]).exists() for p, _ in CHECKS.values())
