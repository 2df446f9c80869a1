# SPDX-License-Identifier: MIT
import os

import cell_models
import models
import pytest

from build import TESTS_C, Builder, succeed


@pytest.fixture(scope="session")
def builder(tmp_path_factory):
    one = Builder(tmp_path_factory.mktemp("native"))
    yield one
    one.close()


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """The path of a pack of N_MODELS random models."""
    return models.write_pack(
        tmp_path_factory.mktemp("pack") / "models", models.images(models.N_MODELS)
    )


@pytest.fixture(scope="session")
def cell_pack(tmp_path_factory):
    """The path of a pack of models of every cell and option."""
    return models.write_pack(
        tmp_path_factory.mktemp("pack") / "cells", cell_models.images(cell_models.N_MODELS)
    )


@pytest.fixture(scope="session")
def count_alloc(tmp_path_factory):
    """What counts allocations, to be preloaded."""
    if "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("not run: the counter is written for glibc")
    counter = tmp_path_factory.mktemp("count") / "count_alloc.so"
    succeed(["cc", "-O2", "-shared", "-fPIC", TESTS_C / "count_alloc.c", "-o", counter])
    return counter
