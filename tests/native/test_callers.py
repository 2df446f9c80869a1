# SPDX-License-Identifier: MIT
"""A model under many callers, forks and signals. The programs compare bits with those of one
thread in peace; mutants_team.py has faults that they notice."""

import re

import models
import pytest

import build

long = pytest.mark.long


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.clstm"
    path.write_bytes(models.large())
    return path


def outcome(command, **options):
    out = build.succeed(command, **options)
    print(out)  # figures, for those who ask by -s or -rP
    assert re.search(r": [1-9]\d* passed, 0 failed\n", out)
    return out


@pytest.mark.parametrize("rounds", [8, pytest.param(500, marks=long)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_threads_on_one_model_under_thread_sanitizer(builder, large, threads, rounds):
    programs, flags = build.MANY_CALLERS
    if not build.links("cc", *flags):
        pytest.skip("not run: no ThreadSanitizer")
    out = outcome([builder(programs, "cc", flags), large, threads, 4, rounds], timeout=1800)
    assert f" {4 * rounds} rounds" in out


@pytest.mark.parametrize("forks", [20, pytest.param(1000, marks=long)])
@pytest.mark.parametrize("threads", [1, 2])
def test_forks_in_the_midst_of_steps_hang_nobody(builder, large, threads, forks):
    programs, _ = build.MANY_CALLERS
    out = outcome([builder(programs), large, threads, 4, 1, forks], timeout=1800)
    assert f" {forks} forks" in out


def test_the_first_jobs_of_a_child_make_its_workers_once(builder, large):
    outcome([builder(("first_jobs.c", "check.c")), large, 4, 5])


@pytest.mark.parametrize("steps", [10_000, pytest.param(1_000_000, marks=long)])
@pytest.mark.parametrize("threads", [1, 2])
def test_signals_change_no_bits(builder, large, threads, steps):
    out = outcome([builder(("signals.c", "check.c")), large, threads, steps], timeout=1800)
    assert int(re.search(r"(\d+) signals", out)[1]) > 10  # a coarse clock gives few
