# SPDX-License-Identifier: MIT
"""One process without torch and onnxruntime for all files of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from export_route import Blocked


@pytest.fixture(scope="session")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blocked]:
    with Blocked(tmp_path_factory.mktemp("exported")) as server:
        yield server
